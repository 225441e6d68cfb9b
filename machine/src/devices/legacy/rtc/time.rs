//! Calendar arithmetic (proleptic Gregorian) and the host's notion of local time.

/// A date and time of day; fields may be out of range before they are turned into seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Date {
    /// Year, all digits.
    pub year: i64,
    /// Month, 1-12.
    pub month: i64,
    /// Day of the month, 1-31.
    pub day: i64,
    /// Hour, 0-23.
    pub hour: i64,
    /// Minute, 0-59.
    pub minute: i64,
    /// Second, 0-59.
    pub second: i64,
}

/// Days from 1970-01-01 to the first of a month. Months above 12 go on in average length (no guest should set them).
fn days_to_month(year: i64, month: i64) -> i64 {
    // Years begin in March, so that the leap day is the last day of a year.
    let (y, m) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400);
    y * 365 + leap_days + (153 * m + 2) / 5 - 719_468
}

impl Date {
    /// Seconds since 1970-01-01T00:00:00 of the same calendar.
    pub fn to_seconds(self) -> i64 {
        let days = days_to_month(self.year, self.month) + self.day - 1;
        ((days * 24 + self.hour) * 60 + self.minute) * 60 + self.second
    }

    /// The date of a number of seconds since 1970.
    pub fn from_seconds(t: i64) -> Self {
        let (days, secs) = (t.div_euclid(86_400), t.rem_euclid(86_400));
        // A guess at most a month too far (30.436875 days a month on average), corrected below.
        let mut months = (days * 100_000).div_euclid(3_043_687) + 1;
        let split = |months: i64| (1970 + months.div_euclid(12), 1 + months.rem_euclid(12));
        let (mut year, mut month) = split(months);
        while days_to_month(year, month) > days {
            months -= 1;
            (year, month) = split(months);
        }
        let day = days - days_to_month(year, month) + 1;
        Self { year, month, day, hour: secs / 3600, minute: secs / 60 % 60, second: secs % 60 }
    }

    /// Day of the week, 0 = Sunday.
    pub fn weekday(self) -> i64 {
        (days_to_month(self.year, self.month) + self.day - 1 + 4).rem_euclid(7)
    }
}

/// Difference between local time and UTC at a given moment, in seconds east of Greenwich.
pub fn utc_offset(t: i64) -> i64 {
    let time = t as libc::time_t;
    // SAFETY: all-zero is a valid `tm` (its only pointer may be null).
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables of the right type.
    let done = unsafe { libc::localtime_r(&time, &mut tm) };
    if done.is_null() {
        0
    } else {
        tm.tm_gmtoff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let known = [
            (0, (1970, 1, 1), 4),
            (951_782_400, (2000, 2, 29), 2),
            (1_709_164_800, (2024, 2, 29), 4),
            (4_107_542_400, (2100, 3, 1), 1),
            (-86_400, (1969, 12, 31), 3),
        ];
        for (t, (y, m, d), w) in known {
            let x = Date::from_seconds(t);
            assert_eq!((x.year, x.month, x.day, x.weekday()), (y, m, d, w), "{t}");
        }
        let mut t = -3_000_000_000i64;
        while t < 12_000_000_000 {
            let d = Date::from_seconds(t);
            assert_eq!(d.to_seconds(), t);
            assert!((1..=12).contains(&d.month) && (1..=31).contains(&d.day), "{d:?}");
            t += 86_399 * 3;
        }
    }

    #[test]
    fn out_of_range_fields_carry() {
        let d = Date { year: 2020, month: 2, day: 28, hour: 19, minute: 59, second: 77 };
        assert_eq!(Date::from_seconds(d.to_seconds()).minute, 0);
        let d = Date { year: 2021, month: 0, day: 1, ..Date::default() };
        assert_eq!(Date::from_seconds(d.to_seconds()).year, 2020);
    }
}
