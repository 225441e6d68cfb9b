//! Framing of the GDB remote serial protocol: `$data#checksum`, acknowledgements, escapes, the interrupt byte.

/// Largest packet that is taken; longer ones are dropped (gdb is told the size).
pub const MAX_PACKET: usize = 4096;

/// What a byte completed.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet with a right checksum, escapes resolved.
    Packet(Vec<u8>),
    /// A packet with a wrong checksum.
    Damaged,
    /// `+`.
    Ack,
    /// `-`: the last packet is wanted again.
    Nack,
    /// Ctrl-C.
    Interrupt,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Data,
    Sum1,
    Sum2(u8),
}

/// Takes bytes as they come.
#[derive(Debug, Default)]
pub struct Receiver {
    state: State,
    raw: Vec<u8>,
}

impl Receiver {
    /// The next byte.
    pub fn byte(&mut self, b: u8) -> Option<Event> {
        match self.state {
            State::Idle => match b {
                b'$' => {
                    self.raw.clear();
                    self.state = State::Data;
                    None
                }
                b'+' => Some(Event::Ack),
                b'-' => Some(Event::Nack),
                3 => Some(Event::Interrupt),
                _ => None,
            },
            State::Data if b == b'#' => {
                self.state = State::Sum1;
                None
            }
            State::Data if self.raw.len() >= MAX_PACKET => {
                self.state = State::Idle;
                Some(Event::Damaged)
            }
            State::Data => {
                self.raw.push(b);
                None
            }
            State::Sum1 => {
                self.state = State::Sum2(b);
                None
            }
            State::Sum2(first) => {
                self.state = State::Idle;
                let told = digit(first).zip(digit(b)).map(|(h, l)| h << 4 | l);
                if told != Some(checksum(&self.raw)) {
                    return Some(Event::Damaged);
                }
                Some(Event::Packet(unescape(&self.raw)))
            }
        }
    }
}

/// Sum of all bytes.
pub fn checksum(data: &[u8]) -> u8 {
    data.iter().fold(0, |s, b| s.wrapping_add(*b))
}

fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut it = raw.iter();
    while let Some(b) = it.next() {
        match b {
            b'}' => out.extend(it.next().map(|b| b ^ 0x20)),
            _ => out.push(*b),
        }
    }
    out
}

/// A packet for gdb.
pub fn frame(data: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(data.len() + 4);
    for b in data {
        if matches!(b, b'#' | b'$' | b'*' | b'}') {
            body.extend([b'}', b ^ 0x20]);
        } else {
            body.push(*b);
        }
    }
    let sum = checksum(&body);
    let mut out = vec![b'$'];
    out.extend(body);
    out.extend(format!("#{sum:02x}").into_bytes());
    out
}

fn digit(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).map(|d| d as u8)
}

/// Bytes as hex digits.
pub fn to_hex(data: &[u8]) -> String {
    data.iter().map(|b| format!("{b:02x}")).collect()
}

/// Hex digits as bytes; `None` for anything else.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let b = text.as_bytes();
    if !b.len().is_multiple_of(2) {
        return None;
    }
    b.chunks(2).map(|p| Some(digit(p[0])? << 4 | digit(p[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(r: &mut Receiver, bytes: &[u8]) -> Vec<Event> {
        bytes.iter().filter_map(|b| r.byte(*b)).collect()
    }

    #[test]
    fn packets() {
        let mut r = Receiver::default();
        assert_eq!(feed(&mut r, b"+$g#67"), [Event::Ack, Event::Packet(b"g".to_vec())]);
        assert_eq!(feed(&mut r, b"$g#66\x03"), [Event::Damaged, Event::Interrupt]);
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(feed(&mut r, &frame(&all)), [Event::Packet(all)]);
        let long = vec![b'x'; MAX_PACKET + 10];
        let mut bytes = vec![b'$'];
        bytes.extend(long);
        assert_eq!(feed(&mut r, &bytes), [Event::Damaged]);
    }

    #[test]
    fn hex() {
        assert_eq!(from_hex(&to_hex(&[0, 0xab, 0xff])), Some(vec![0, 0xab, 0xff]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("zz"), None);
    }
}
