//! Integer expressions of HMP arguments: `+ -` bind least, then `& | ^`, then `* / %`; 64-bit, wrapping.

/// Value of a register by name, without the dollar sign.
pub(super) type Registers<'a> = dyn FnMut(&str) -> Option<u64> + 'a;

/// Deepest nesting of parentheses and signs.
const MAX_DEPTH: u32 = 200;

struct Expr<'t, 'r, 'c> {
    text: &'t str,
    registers: &'r mut Registers<'c>,
    depth: u32,
}

/// Evaluates the expression at the front of `text` and takes it off, with the blanks behind it.
pub(super) fn eval(text: &mut &str, registers: &mut Registers<'_>) -> Result<i64, String> {
    let mut e = Expr { text: text.trim_start(), registers, depth: 0 };
    if e.text.is_empty() {
        return Err("unexpected end of expression".into());
    }
    let value = e.sum()?;
    *text = e.text;
    Ok(value)
}

impl Expr<'_, '_, '_> {
    fn peek(&self) -> Option<char> {
        self.text.chars().next()
    }

    fn skip(&mut self) {
        let mut rest = self.text.chars();
        rest.next();
        self.text = rest.as_str().trim_start();
    }

    fn sum(&mut self) -> Result<i64, String> {
        let mut value = self.logic()?;
        while let Some(op @ ('+' | '-')) = self.peek() {
            self.skip();
            let right = self.logic()?;
            value = if op == '+' { value.wrapping_add(right) } else { value.wrapping_sub(right) };
        }
        Ok(value)
    }

    fn logic(&mut self) -> Result<i64, String> {
        let mut value = self.product()?;
        while let Some(op @ ('&' | '|' | '^')) = self.peek() {
            self.skip();
            let right = self.product()?;
            value = match op {
                '&' => value & right,
                '|' => value | right,
                _ => value ^ right,
            };
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<i64, String> {
        let mut value = self.unary()?;
        while let Some(op @ ('*' | '/' | '%')) = self.peek() {
            self.skip();
            let right = self.unary()?;
            value = match op {
                '*' => value.wrapping_mul(right),
                _ if right == 0 => return Err("division by zero".into()),
                '/' => value.wrapping_div(right),
                _ => value.wrapping_rem(right),
            };
        }
        Ok(value)
    }

    fn unary(&mut self) -> Result<i64, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("expression too deep".into());
        }
        let value = self.operand();
        self.depth -= 1;
        value
    }

    fn operand(&mut self) -> Result<i64, String> {
        match self.peek() {
            None => Err("unexpected end of expression".into()),
            Some('+') => {
                self.skip();
                self.unary()
            }
            Some('-') => {
                self.skip();
                self.unary().map(i64::wrapping_neg)
            }
            Some('~') => {
                self.skip();
                self.unary().map(|v| !v)
            }
            Some('(') => {
                self.skip();
                let value = self.sum()?;
                if self.peek() != Some(')') {
                    return Err("')' expected".into());
                }
                self.skip();
                Ok(value)
            }
            Some('\'') => self.character(),
            Some('$') => self.register(),
            Some('0'..='9') => self.number(),
            Some(c) => Err(format!("invalid char '{c}' in expression")),
        }
    }

    fn character(&mut self) -> Result<i64, String> {
        let inner = &self.text[1..];
        let c = inner.chars().next().ok_or("character constant expected")?;
        self.text = &inner[c.len_utf8()..];
        if self.peek() != Some('\'') {
            return Err("missing terminating ' character".into());
        }
        self.skip();
        Ok(i64::from(u32::from(c)))
    }

    fn register(&mut self) -> Result<i64, String> {
        let name = &self.text[1..];
        let end =
            name.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))).unwrap_or(name.len());
        let value = (self.registers)(&name[..end]).ok_or("unknown register")?;
        self.text = name[end..].trim_start();
        Ok(value as i64)
    }

    /// A number as C writes it: decimal, `0x` hexadecimal, leading zero octal.
    fn number(&mut self) -> Result<i64, String> {
        let text = self.text;
        let lower = text.get(..2).map(str::to_ascii_lowercase);
        let hex = lower.as_deref() == Some("0x") && text[2..].starts_with(|c: char| c.is_ascii_hexdigit());
        let (digits, base) = match hex {
            true => (&text[2..], 16),
            false if text.starts_with('0') => (text, 8),
            false => (text, 10),
        };
        let end = digits.find(|c: char| !c.is_digit(base)).unwrap_or(digits.len());
        let value = u64::from_str_radix(&digits[..end], base).map_err(|_| "number too large".to_string())?;
        self.text = digits[end..].trim_start();
        Ok(value as i64)
    }
}
