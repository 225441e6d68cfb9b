//! Arguments of HMP commands.

use super::expr::{eval, Registers};
use super::table::{Arg, HmpCommand};

/// A `/fmt` argument of `x`, `xp`, `print`, `i`, `o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// How many.
    pub count: i64,
    /// `x d u o c i`.
    pub letter: char,
    /// Bytes of an item: 1, 2, 4 or 8.
    pub size: u8,
}

/// Format letter and size that the next `/fmt` leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatDefaults {
    letter: char,
    size: u8,
}

impl Default for FormatDefaults {
    fn default() -> Self {
        Self { letter: 'x', size: 4 }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Str(String),
    Int(i64),
    Flag,
    Format(Format),
}

/// Parsed arguments by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Args(Vec<(&'static str, Value)>);

impl Args {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// A string; empty if it was optional and left out.
    pub fn str(&self, name: &str) -> &str {
        self.opt_str(name).unwrap_or_default()
    }

    /// A string that may have been left out.
    pub fn opt_str(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Str(s)) => Some(s),
            _ => None,
        }
    }

    /// A number; zero if it was optional and left out.
    pub fn int(&self, name: &str) -> i64 {
        self.opt_int(name).unwrap_or_default()
    }

    /// A number that may have been left out.
    pub fn opt_int(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(Value::Int(v)) => Some(*v),
            _ => None,
        }
    }

    /// Whether a flag (`-f` is `"-f"`) or an on/off argument is set.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Flag)) || self.int(name) != 0
    }

    /// The `/fmt` argument.
    pub fn format(&self) -> Format {
        match self.get("fmt") {
            Some(Value::Format(f)) => *f,
            _ => Format { count: 1, letter: 'x', size: 4 },
        }
    }
}

/// Parses `text` as the arguments of `command`.
///
/// # Errors
/// One line for the user; QEMU follows it by a hint at `help`.
pub(super) fn parse(
    command: &HmpCommand,
    mut text: &str,
    defaults: &mut FormatDefaults,
    registers: &mut Registers<'_>,
) -> Result<Args, String> {
    let mut args = Args::default();
    for arg in command.args {
        text = text.trim_start();
        let value = one(command, arg, &mut text, defaults, registers)?;
        if let Some(value) = value {
            args.0.push((arg.name(), value));
        }
    }
    if !text.trim_start().is_empty() {
        return Err(format!("{}: extraneous characters at the end of line", command.name));
    }
    Ok(args)
}

fn one(
    command: &HmpCommand,
    arg: &Arg,
    text: &mut &str,
    defaults: &mut FormatDefaults,
    registers: &mut Registers<'_>,
) -> Result<Option<Value>, String> {
    if arg.optional() && text.is_empty() {
        return Ok(None);
    }
    Ok(Some(match arg {
        Arg::Flag(name) => return flag(command, name, text),
        Arg::FlagStr(name) => match flag(command, name, text)? {
            Some(_) => {
                *text = text.trim_start();
                Value::Str(word(text, command, "string expected")?)
            }
            None => return Ok(None),
        },
        Arg::Format => Value::Format(format(text, defaults)?),
        Arg::Str(_) | Arg::OptStr(_) => Value::Str(word(text, command, "string expected")?),
        Arg::File(_) | Arg::OptFile(_) => Value::Str(word(text, command, "filename expected")?),
        Arg::Block(_) | Arg::OptBlock(_) => Value::Str(word(text, command, "block device name expected")?),
        Arg::Rest(_) => Value::Str(std::mem::take(text).to_string()),
        Arg::OptDot(_) if !text.starts_with('.') => return Ok(None),
        Arg::Int(_) | Arg::OptInt(_) | Arg::OptDot(_) => {
            if matches!(arg, Arg::OptDot(_)) {
                *text = text[1..].trim_start();
            }
            let v = eval(text, registers)?;
            if u32::try_from(v).is_err() {
                return Err(format!("'{}' has failed: integer is for 32-bit values", command.name));
            }
            Value::Int(v)
        }
        Arg::Long(_) | Arg::OptLong(_) => Value::Int(eval(text, registers)?),
        Arg::Mega(_) => match eval(text, registers)? {
            v if v < 0 => return Err("enter a positive value".into()),
            v => Value::Int(v.wrapping_mul(1 << 20)),
        },
        Arg::Size(_) | Arg::OptSize(_) => Value::Int(size(text)?),
        Arg::Bool(_) | Arg::OptBool(_) => Value::Int(on_off(text)?),
    }))
}

/// A flag, if it stands here. A flag that the command does not have is an error.
fn flag(command: &HmpCommand, name: &str, text: &mut &str) -> Result<Option<Value>, String> {
    let Some(letter) = text.strip_prefix('-').and_then(|t| t.chars().next()) else { return Ok(None) };
    if name.ends_with(letter) {
        *text = &text[1 + letter.len_utf8()..];
        return Ok(Some(Value::Flag));
    }
    if command.args.iter().any(|a| matches!(a, Arg::Flag(n) | Arg::FlagStr(n) if n.ends_with(letter))) {
        return Ok(None);
    }
    Err(format!("{}: unsupported option -{letter}", command.name))
}

/// Takes a word, which may stand in quotes.
fn word(text: &mut &str, command: &HmpCommand, what: &str) -> Result<String, String> {
    let missing = || format!("{}: {what}", command.name);
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c.is_ascii_whitespace()).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        *text = rest;
        return if word.is_empty() { Err(missing()) } else { Ok(word.into()) };
    };
    let mut out = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next() {
            Some('"') => break,
            Some('\\') => out.push(match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some(c @ ('\\' | '\'' | '"')) => c,
                _ => return Err(missing()),
            }),
            Some(c) => out.push(c),
            None => return Err(missing()),
        }
    }
    *text = chars.as_str();
    Ok(out)
}

fn on_off(text: &mut &str) -> Result<i64, String> {
    let end = text.find(|c: char| c.is_ascii_whitespace()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    *text = rest;
    match word {
        "on" => Ok(1),
        "off" => Ok(0),
        _ => Err("Expected 'on' or 'off'".into()),
    }
}

/// A size in MiB unless it has a suffix.
fn size(text: &mut &str) -> Result<i64, String> {
    let end = text.find(|c: char| c.is_ascii_whitespace()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    *text = rest;
    let (digits, shift) = match word.chars().last().map(|c| c.to_ascii_uppercase()) {
        Some('B') => (&word[..word.len() - 1], 0),
        Some('K') => (&word[..word.len() - 1], 10),
        Some('M') => (&word[..word.len() - 1], 20),
        Some('G') => (&word[..word.len() - 1], 30),
        Some('T') => (&word[..word.len() - 1], 40),
        Some('P') => (&word[..word.len() - 1], 50),
        Some('E') => (&word[..word.len() - 1], 60),
        _ => (word, 20),
    };
    let value: f64 = digits.parse().map_err(|_| "invalid size".to_string())?;
    let bytes = value * (1u64 << shift) as f64;
    if (0.0..9.2e18).contains(&bytes) {
        Ok(bytes as i64)
    } else {
        Err("invalid size".into())
    }
}

/// `/` count letter size, all optional.
fn format(text: &mut &str, defaults: &mut FormatDefaults) -> Result<Format, String> {
    let (mut count, mut letter, mut size) = (1, None, None);
    if let Some(fmt) = text.strip_prefix('/') {
        let end = fmt.find(|c: char| c.is_ascii_whitespace()).unwrap_or(fmt.len());
        let (fmt, rest) = fmt.split_at(end);
        let digits = fmt.find(|c: char| !c.is_ascii_digit()).unwrap_or(fmt.len());
        if digits > 0 {
            count = fmt[..digits].parse().map_err(|_| "invalid char in format: '0'".to_string())?;
        }
        for c in fmt[digits..].chars() {
            match c {
                'x' | 'd' | 'u' | 'o' | 'c' | 'i' => letter = Some(c),
                'b' => size = Some(1),
                'h' => size = Some(2),
                'w' => size = Some(4),
                'g' | 'L' => size = Some(8),
                _ => return Err(format!("invalid char in format: '{c}'")),
            }
        }
        *text = rest.trim_start();
    }
    let letter = letter.unwrap_or(defaults.letter);
    let size = size.unwrap_or(defaults.size);
    if letter != 'i' {
        defaults.size = size;
    }
    defaults.letter = letter;
    Ok(Format { count, letter, size })
}
