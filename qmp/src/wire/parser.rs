//! Tokens to values, one at a time.

use super::lexer::{Lexer, Token, MAX_TOKEN_BYTES};
use super::{number, text};
use serde_json::{Map, Value};

/// Deepest nesting of lists and objects together.
const MAX_NESTING: usize = 1024;
/// Most tokens in one value.
const MAX_TOKENS: usize = 2 << 20;
/// Longest text, in bytes, after "JSON parse error, " for errors in the structure.
const MAX_MESSAGE: usize = 1023;

/// What the reader found: a value or the text of an error.
pub type Item = Result<Value, String>;

/// An open list or object.
#[derive(Debug)]
enum Frame {
    List(Vec<Value>),
    Dict(Map<String, Value>, String),
}

/// What may come next in the innermost frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Value,
    /// First element of a list, or its end.
    FirstValue,
    Key,
    /// First key of an object, or its end.
    FirstKey,
    Colon,
    /// A comma or the end.
    Separator,
}

/// Incremental reader of a stream of values. Time is linear in the input; memory is bounded by one value, whose
/// tokens may add up to 64 MiB.
#[derive(Debug)]
pub struct Parser {
    lexer: Lexer,
    stack: Vec<(Frame, Expect)>,
    /// First structural error in the value being read.
    error: Option<String>,
    /// Complete value without an enclosing frame.
    done: Option<Value>,
    braces: isize,
    brackets: isize,
    tokens: usize,
    bytes: usize,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self {
            lexer: Lexer::new(),
            stack: Vec::new(),
            error: None,
            done: None,
            braces: 0,
            brackets: 0,
            tokens: 0,
            bytes: 0,
        }
    }

    /// Forgets a partial value.
    pub fn reset(&mut self) {
        self.lexer.reset();
        self.clear();
    }

    fn clear(&mut self) {
        self.stack.clear();
        self.error = None;
        self.done = None;
        self.braces = 0;
        self.brackets = 0;
        self.tokens = 0;
        self.bytes = 0;
    }

    /// Takes bytes from the front of `input` up to the end of the next value or error; `None` when `input` ran
    /// out first.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Item> {
        loop {
            // The lexer is moved out for the time its token is borrowed; it holds no heap data worth copying.
            let mut lexer = std::mem::replace(&mut self.lexer, Lexer::new());
            let item = match lexer.next(input) {
                Some(token) => self.token(token),
                None => {
                    self.lexer = lexer;
                    return None;
                }
            };
            self.lexer = lexer;
            if item.is_some() {
                return item;
            }
        }
    }

    fn token(&mut self, token: Token<'_>) -> Option<Item> {
        match token {
            Token::Stray(text) => {
                self.clear();
                let text = text.split(|&b| b == 0).next().unwrap_or_default();
                return Some(Err(format!("JSON parse error, stray '{}'", String::from_utf8_lossy(text))));
            }
            Token::OpenBrace => self.braces += 1,
            Token::CloseBrace => self.braces -= 1,
            Token::OpenBracket => self.brackets += 1,
            Token::CloseBracket => self.brackets -= 1,
            _ => {}
        }
        self.tokens += 1;
        self.bytes += token.len();
        let limit = if self.bytes > MAX_TOKEN_BYTES || token == Token::Oversized {
            Some("JSON token size limit exceeded")
        } else if self.tokens > MAX_TOKENS {
            Some("JSON token count limit exceeded")
        } else if self.braces + self.brackets > MAX_NESTING as isize {
            Some("JSON nesting depth limit exceeded")
        } else {
            None
        };
        if let Some(message) = limit {
            self.clear();
            return Some(Err(message.into()));
        }
        if self.error.is_none() {
            if let Err(message) = self.structure(token) {
                self.stack = Vec::new();
                self.error = Some(cut(message));
            }
        }
        if self.braces > 0 && self.brackets >= 0 || self.brackets > 0 && self.braces >= 0 {
            return None;
        }
        let item = match (self.error.take(), self.done.take()) {
            (Some(message), _) => Err(format!("JSON parse error, {message}")),
            (None, Some(value)) => Ok(value),
            (None, None) => Err("JSON parse error, expecting value".into()),
        };
        self.clear();
        Some(item)
    }

    /// Puts a token in its place.
    fn structure(&mut self, token: Token<'_>) -> Result<(), String> {
        let expect = self.stack.last().map_or(Expect::Value, |(_, e)| *e);
        match (expect, token) {
            (Expect::FirstKey, Token::CloseBrace) | (Expect::FirstValue, Token::CloseBracket) => self.close(),
            (Expect::Separator, _) => self.separator(token),
            (Expect::Colon, Token::Colon) => {
                self.expect(Expect::Value);
                Ok(())
            }
            (Expect::Colon, _) => Err("missing : in object pair".into()),
            (_, Token::OpenBrace) => {
                self.stack.push((Frame::Dict(Map::new(), String::new()), Expect::FirstKey));
                Ok(())
            }
            (_, Token::OpenBracket) => {
                self.stack.push((Frame::List(Vec::new()), Expect::FirstValue));
                Ok(())
            }
            _ => {
                let value = scalar(token)?;
                self.complete(value)
            }
        }
    }

    fn expect(&mut self, next: Expect) {
        if let Some((_, e)) = self.stack.last_mut() {
            *e = next;
        }
    }

    /// A token after an element of a list or object.
    fn separator(&mut self, token: Token<'_>) -> Result<(), String> {
        match (self.stack.last_mut(), token) {
            (Some((Frame::List(_), e)), Token::Comma) => *e = Expect::Value,
            (Some((Frame::Dict(..), e)), Token::Comma) => *e = Expect::Key,
            (Some((Frame::List(_), _)), Token::CloseBracket)
            | (Some((Frame::Dict(..), _)), Token::CloseBrace) => {
                return self.close();
            }
            (Some((Frame::List(_), _)), _) => return Err("expected separator in list".into()),
            _ => return Err("expected separator in dict".into()),
        }
        Ok(())
    }

    /// Ends the innermost list or object.
    fn close(&mut self) -> Result<(), String> {
        match self.stack.pop() {
            Some((Frame::List(items), _)) => self.complete(Value::Array(items)),
            Some((Frame::Dict(map, _), _)) => self.complete(Value::Object(map)),
            None => Err("expecting value".into()),
        }
    }

    /// Hands a complete value to the frame around it.
    fn complete(&mut self, value: Value) -> Result<(), String> {
        let Some((frame, expect)) = self.stack.last_mut() else {
            self.done = Some(value);
            return Ok(());
        };
        match frame {
            Frame::List(items) => items.push(value),
            Frame::Dict(_, key) if matches!(expect, Expect::Key | Expect::FirstKey) => {
                let Value::String(name) = value else {
                    return Err("key is not a string in object".into());
                };
                *key = name;
                *expect = Expect::Colon;
                return Ok(());
            }
            Frame::Dict(map, key) => {
                if map.contains_key(key.as_str()) {
                    return Err("duplicate key".into());
                }
                map.insert(std::mem::take(key), value);
            }
        }
        *expect = Expect::Separator;
        Ok(())
    }
}

/// Value of a token that is a value by itself.
fn scalar(token: Token<'_>) -> Result<Value, String> {
    let ascii = |t| std::str::from_utf8(t).unwrap_or_default();
    match token {
        Token::Integer(t) => Ok(number::integer(ascii(t))),
        Token::Float(t) => Ok(number::float(ascii(t))),
        Token::Str(t) => text::decode(t).map(Value::String),
        Token::Keyword(b"true") => Ok(true.into()),
        Token::Keyword(b"false") => Ok(false.into()),
        Token::Keyword(b"null") => Ok(Value::Null),
        Token::Keyword(t) => Err(format!("invalid keyword '{}'", ascii(t))),
        _ => Err("expecting value".into()),
    }
}

/// Cuts a message to the length QEMU's buffer has.
fn cut(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let mut at = MAX_MESSAGE;
        while !message.is_char_boundary(at) {
            at -= 1;
        }
        message.truncate(at);
    }
    message
}
