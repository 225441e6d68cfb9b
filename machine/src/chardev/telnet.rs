//! The part of telnet (RFC 854) that a serial line needs: negotiate character mode, take commands out of the stream.

const IAC: u8 = 255;
const DONT: u8 = 254;
const WILL: u8 = 251;
const SB: u8 = 250;
const SE: u8 = 240;
const BRK: u8 = 243;

/// Sent to a new client: server echoes, no go-ahead, binary both ways.
pub const GREETING: [u8; 12] = [IAC, WILL, 1, IAC, WILL, 3, IAC, WILL, 0, IAC, 253, 0];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Data,
    Iac,
    Option,
    Sub,
    SubIac,
}

/// Filters one direction of a connection.
#[derive(Default)]
pub struct Filter {
    state: State,
}

impl Filter {
    /// Removes commands from `buf` in place; returns how many data bytes remain and whether a break was among them.
    pub fn filter(&mut self, buf: &mut [u8], n: usize) -> (usize, bool) {
        let (mut out, mut brk) = (0, false);
        for i in 0..n {
            let b = buf[i];
            self.state = match (self.state, b) {
                (State::Data, IAC) => State::Iac,
                (State::Iac, IAC) | (State::Data, _) => {
                    buf[out] = b;
                    out += 1;
                    State::Data
                }
                (State::Iac, WILL..=DONT) => State::Option,
                (State::Iac, SB) => State::Sub,
                (State::Iac, c) => {
                    brk |= c == BRK;
                    State::Data
                }
                (State::Option, _) => State::Data,
                (State::Sub, IAC) => State::SubIac,
                (State::SubIac, SE) => State::Data,
                (State::Sub | State::SubIac, _) => State::Sub,
            };
        }
        (out, brk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_out_across_chunks() {
        let mut f = Filter::default();
        let mut a = [b'a', IAC, WILL];
        assert_eq!(f.filter(&mut a, 3), (1, false));
        let mut b = [1, b'b', IAC, IAC, IAC, BRK, b'c'];
        assert_eq!(f.filter(&mut b, 7), (3, true));
        assert_eq!(&b[..3], [b'b', IAC, b'c']);
        let mut c = [IAC, SB, 24, 1, IAC, SE, b'd'];
        assert_eq!(f.filter(&mut c, 7), (1, false));
        assert_eq!(c[0], b'd');
    }
}
