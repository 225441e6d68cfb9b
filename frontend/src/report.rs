//! Messages to the person at the terminal, in QEMU's form.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use rqemu_machine::error::Prefix;
use rqemu_machine::spec::{text, Loc};
use rqemu_machine::QError;

/// How grave a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Ends the program with status 1.
    Error,
    /// Only says so.
    Warning,
}

/// One message: location, text, hint lines.
#[derive(Clone, Debug)]
pub struct Report {
    /// Error or warning.
    pub level: Level,
    /// Option (or file and line) that it is about.
    pub loc: Loc,
    /// Text and hint.
    pub err: QError,
}

impl Report {
    /// An error.
    pub fn error(loc: Loc, err: QError) -> Self {
        Self { level: Level::Error, loc, err }
    }

    /// A warning.
    pub fn warning(loc: Loc, text: impl Into<String>) -> Self {
        Self { level: Level::Warning, loc, err: QError::generic(text) }
    }

    /// With the program's name in front and the hint below; ends in a newline.
    pub fn render(&self, program: &str) -> String {
        // A file's location follows the program's name without a blank, an option's with one.
        let place = match self.loc.as_str() {
            Some(loc) if self.loc.is_file() => format!("{loc}:"),
            Some(loc) => format!(" {loc}:"),
            None => String::new(),
        };
        let kind = match self.level {
            Level::Error => "",
            Level::Warning => "warning: ",
        };
        let hint = self.err.hint.as_deref().unwrap_or_default();
        let desc = &self.err.desc;
        match self.err.prefix {
            Prefix::Program => format!("{program}:{place} {kind}{desc}\n{hint}"),
            Prefix::File => format!("{program}:{desc}\n{hint}"),
            Prefix::Bare => format!("{desc}\n{hint}"),
        }
    }
}

/// Writes reports to standard error.
pub struct Printer {
    /// Last part of argv\[0\].
    pub program: String,
    /// `-msg timestamp=on`.
    pub timestamp: bool,
    /// Guest name to put in front (`-msg guest-name=on`).
    pub guest: Option<String>,
}

impl Printer {
    /// Prints one report; failures are not reported further, there is nowhere to.
    pub fn print(&self, report: &Report) {
        let line = report.render(&self.program);
        let mut bytes = Vec::with_capacity(line.len() + 32);
        if self.timestamp {
            bytes.extend_from_slice(timestamp().as_bytes());
            bytes.push(b' ');
        }
        if let Some(guest) = &self.guest {
            bytes.extend_from_slice(&text::to_bytes(guest));
            bytes.push(b' ');
        }
        bytes.extend_from_slice(&text::to_bytes(&line));
        let _ = io::stderr().write_all(&bytes);
    }
}

/// Now, as `2024-01-31T12:34:56.123456Z`.
fn timestamp() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let secs = now.as_secs() as i64;
    let (y, m, d) = civil_from_days(secs.div_euclid(86_400));
    let t = secs.rem_euclid(86_400);
    let (hour, minute, second) = (t / 3600, t / 60 % 60, t % 60);
    format!("{y:04}-{m:02}-{d:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", now.subsec_micros())
}

/// Gregorian date of a day count from 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// Day count from 1970-01-01 of a Gregorian date; months outside 1..=12 carry into the year.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year + (month - 1).div_euclid(12);
    let month = (month - 1).rem_euclid(12) + 1;
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = (month + 9) % 12;
    let doy = (153 * mp + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_there_and_back() {
        for days in [-719_468, -1, 0, 1, 59, 19_000, 11_016, 100_000] {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
        assert_eq!(days_from_civil(2000, 3, 1), 11_017);
        assert_eq!(days_from_civil(2020, 13, 1), days_from_civil(2021, 1, 1));
    }

    #[test]
    fn locations() {
        let err = QError::generic("bad").with_hint("try this");
        let r = Report::error(Loc::option(&["-m", "1x"]), err.clone());
        assert_eq!(r.render("p"), "p: -m 1x: bad\ntry this\n");
        assert_eq!(Report::error(Loc::file("f", 3), err).render("p"), "p:f:3: bad\ntry this\n");
        assert_eq!(Report::warning(Loc::NONE, "w").render("p"), "p: warning: w\n");
    }
}
