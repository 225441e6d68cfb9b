//! Bytes to tokens.

/// Longest token in bytes; also the sum of all token lengths of one value.
pub(super) const MAX_TOKEN_BYTES: usize = 64 << 20;
/// Buffer space kept from one token to the next.
const KEEP_BYTES: usize = 64 << 10;

/// A complete token. The text borrowed by some kinds is the raw source of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    OpenBrace,
    CloseBrace,
    OpenBracket,
    CloseBracket,
    Colon,
    Comma,
    /// A number without fraction and exponent.
    Integer(&'a [u8]),
    /// A number with a fraction or an exponent.
    Float(&'a [u8]),
    /// A run of lower-case letters.
    Keyword(&'a [u8]),
    /// A string with its quotes and escapes.
    Str(&'a [u8]),
    /// Text that starts no token, up to and including the byte that made this certain.
    Stray(&'a [u8]),
    /// A token that outgrew [`MAX_TOKEN_BYTES`].
    Oversized,
}

impl Token<'_> {
    /// Length of the token's text in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Integer(t) | Self::Float(t) | Self::Keyword(t) | Self::Str(t) | Self::Stray(t) => t.len(),
            Self::Oversized => MAX_TOKEN_BYTES,
            _ => 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between tokens.
    Start,
    /// Skipping after a stray token.
    Recovery,
    /// In a string that ends with this quote.
    Str(u8),
    /// After a backslash in a string that ends with this quote.
    StrEscape(u8),
    Keyword,
    /// After `-`.
    Minus,
    /// After a leading zero: no further digit may follow.
    Zero,
    Digits,
    /// After the decimal point: a digit must follow.
    Point,
    Fraction,
    /// After `e`: a sign or a digit must follow.
    Exp,
    /// After the sign of the exponent: a digit must follow.
    ExpSign,
    ExpDigits,
}

/// What one byte does to the token being read.
enum Step {
    /// The byte belongs to the token; go on in this state.
    Take(State),
    /// The byte completes the token.
    Last,
    /// The token ended before this byte.
    Before,
    /// The byte makes the token stray.
    Bad,
}

/// The tokenizer. Its only memory is the token that is not complete yet.
#[derive(Debug)]
pub(super) struct Lexer {
    state: State,
    text: Vec<u8>,
}

impl Lexer {
    pub(super) fn new() -> Self {
        Self { state: State::Start, text: Vec::new() }
    }

    /// Drops a partial token.
    pub(super) fn reset(&mut self) {
        self.state = State::Start;
        self.text = Vec::new();
    }

    /// Takes bytes from the front of `input` up to the end of the next token; `None` when `input` ran out.
    pub(super) fn next<'a>(&'a mut self, input: &mut &[u8]) -> Option<Token<'a>> {
        if matches!(self.state, State::Start | State::Recovery) {
            // The text kept for the caller since the last call is finished with now.
            self.text.clear();
            self.text.shrink_to(KEEP_BYTES);
            if self.state == State::Recovery {
                if !skip_to_sync(input) {
                    return None;
                }
                self.state = State::Start;
            }
            if let Some(token) = self.start(input) {
                return Some(token);
            }
            if self.state == State::Recovery {
                return Some(Token::Stray(&self.text));
            }
        }
        self.token(input)
    }

    /// Skips white space and begins a token, which it completes if it is a single byte. A byte that begins none sets
    /// the state to recovery.
    fn start(&mut self, input: &mut &[u8]) -> Option<Token<'static>> {
        while let Some((&b, rest)) = input.split_first() {
            *input = rest;
            let single = match b {
                b' ' | b'\t' | b'\n' | b'\r' => continue,
                b'{' => Token::OpenBrace,
                b'}' => Token::CloseBrace,
                b'[' => Token::OpenBracket,
                b']' => Token::CloseBracket,
                b':' => Token::Colon,
                b',' => Token::Comma,
                _ => {
                    self.text.push(b);
                    self.state = match b {
                        b'"' | b'\'' => State::Str(b),
                        b'-' => State::Minus,
                        b'0' => State::Zero,
                        b'1'..=b'9' => State::Digits,
                        b'a'..=b'z' => State::Keyword,
                        _ => State::Recovery,
                    };
                    return None;
                }
            };
            return Some(single);
        }
        None
    }

    /// Goes on with the token in `text`.
    fn token<'a>(&'a mut self, input: &mut &[u8]) -> Option<Token<'a>> {
        loop {
            if let State::Str(quote) = self.state {
                let plain = input.iter().position(|&b| b == quote || b == b'\\' || !in_string(b));
                let (head, tail) = input.split_at(plain.unwrap_or(input.len()));
                if self.text.len() + head.len() > MAX_TOKEN_BYTES {
                    let room = (MAX_TOKEN_BYTES + 1).saturating_sub(self.text.len());
                    *input = &input[room.min(input.len())..];
                    return Some(self.oversized());
                }
                self.text.extend_from_slice(head);
                *input = tail;
            }
            let &b = input.first()?;
            match step(self.state, b) {
                Step::Take(next) => {
                    self.text.push(b);
                    *input = &input[1..];
                    if self.text.len() > MAX_TOKEN_BYTES {
                        return Some(self.oversized());
                    }
                    self.state = next;
                }
                Step::Last => {
                    self.text.push(b);
                    *input = &input[1..];
                    self.state = State::Start;
                    return Some(Token::Str(&self.text));
                }
                Step::Before => {
                    let kind = self.state;
                    self.state = State::Start;
                    return Some(match kind {
                        State::Keyword => Token::Keyword(&self.text),
                        State::Zero | State::Digits => Token::Integer(&self.text),
                        _ => Token::Float(&self.text),
                    });
                }
                Step::Bad => {
                    self.text.push(b);
                    *input = &input[1..];
                    self.state = State::Recovery;
                    return Some(Token::Stray(&self.text));
                }
            }
        }
    }

    fn oversized(&mut self) -> Token<'static> {
        self.reset();
        Token::Oversized
    }
}

/// May this byte stand unescaped in a string? (Whether the bytes are UTF-8 is checked later.)
fn in_string(b: u8) -> bool {
    (0x20..0xFE).contains(&b)
}

/// Does the reader resynchronise at this byte?
fn is_sync(b: u8) -> bool {
    matches!(b, b'{' | b'}' | b'[' | b']' | b':' | b',' | 0xFE | 0xFF) || (b < 0x20 && b != b'\t')
}

/// Skips to a byte where reading can start again; false when `input` ran out.
fn skip_to_sync(input: &mut &[u8]) -> bool {
    match input.iter().position(|&b| is_sync(b)) {
        Some(at) => {
            *input = &input[at..];
            true
        }
        None => {
            *input = &[];
            false
        }
    }
}

fn step(state: State, b: u8) -> Step {
    use State::*;
    match (state, b) {
        (Str(q), _) if b == q => Step::Last,
        (Str(q), b'\\') => Step::Take(StrEscape(q)),
        (Str(q) | StrEscape(q), _) if in_string(b) => Step::Take(Str(q)),
        (Keyword, b'a'..=b'z') => Step::Take(Keyword),
        (Minus, b'0') => Step::Take(Zero),
        (Minus, b'1'..=b'9') => Step::Take(Digits),
        (Digits, b'0'..=b'9') => Step::Take(Digits),
        (Zero | Digits, b'.') => Step::Take(Point),
        (Zero | Digits | Fraction, b'e' | b'E') => Step::Take(Exp),
        (Point | Fraction, b'0'..=b'9') => Step::Take(Fraction),
        (Exp, b'+' | b'-') => Step::Take(ExpSign),
        (Exp | ExpSign | ExpDigits, b'0'..=b'9') => Step::Take(ExpDigits),
        (Zero, b'0'..=b'9') => Step::Bad,
        (Keyword | Zero | Digits | Fraction | ExpDigits, _) => Step::Before,
        _ => Step::Bad,
    }
}
