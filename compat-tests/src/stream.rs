//! A byte stream that a thread reads into memory, and that a test waits on.

use crate::Res;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

#[derive(Default)]
struct State {
    data: Vec<u8>,
    /// First byte that `expect` has not consumed.
    cursor: usize,
    eof: bool,
}

/// What a process or a socket has sent so far. Clones share the data.
#[derive(Clone, Default)]
pub struct Stream {
    shared: Arc<(Mutex<State>, Condvar)>,
}

/// More than this is not kept: a runaway writer must not eat the machine.
const LIMIT: usize = 64 << 20;

impl Stream {
    /// Reads `from` on a thread of its own until end of file.
    pub fn reading(mut from: impl Read + Send + 'static) -> Stream {
        let stream = Stream::default();
        let shared = stream.shared.clone();
        std::thread::spawn(move || {
            let mut buf = [0u8; 16384];
            loop {
                let n = match from.read(&mut buf) {
                    Ok(n) => n,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(_) => 0,
                };
                let mut s = lock(&shared.0);
                if n == 0 {
                    s.eof = true;
                    shared.1.notify_all();
                    return;
                }
                if s.data.len() < LIMIT {
                    s.data.extend_from_slice(&buf[..n]);
                }
                shared.1.notify_all();
            }
        });
        stream
    }

    /// A stream that is already at its end.
    pub fn ended() -> Stream {
        let stream = Stream::default();
        lock(&stream.shared.0).eof = true;
        stream
    }

    /// Everything received so far.
    pub fn bytes(&self) -> Vec<u8> {
        lock(&self.shared.0).data.clone()
    }

    /// Everything received so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Waits until `pattern` appears after what was consumed before; returns the text up to and including it.
    pub fn expect(&self, pattern: &str, timeout: Duration) -> Res<String> {
        let pat = pattern.as_bytes();
        self.wait(timeout, |s| {
            let at = find(&s.data[s.cursor..], pat)?;
            let end = s.cursor + at + pat.len();
            let text = String::from_utf8_lossy(&s.data[s.cursor..end]).into_owned();
            s.cursor = end;
            Some(text)
        })
        .map_err(|e| format!("{e} waiting for {pattern:?}; got {:?}", tail(&self.text(), 300)))
    }

    /// Like [`Stream::expect`], but sees and returns what a terminal shows: cursor movements, which may stand in the
    /// middle of a word, do not count.
    pub fn expect_shown(&self, pattern: &str, timeout: Duration) -> Res<String> {
        self.wait(timeout, |s| {
            let (text, places) = shown(&s.data[s.cursor..]);
            let at = find(&text, pattern.as_bytes())?;
            let len = at + pattern.len();
            s.cursor += places.get(len.checked_sub(1)?)? + 1;
            Some(String::from_utf8_lossy(&text[..len]).into_owned())
        })
        .map_err(|e| format!("{e} waiting for {pattern:?}; got {:?}", tail(&self.text(), 300)))
    }

    /// Waits for end of file; returns everything.
    pub fn to_end(&self, timeout: Duration) -> Res<String> {
        self.wait(timeout, |s| s.eof.then(|| String::from_utf8_lossy(&s.data).into_owned()))
    }

    /// Whether the writer has closed.
    pub fn at_end(&self) -> bool {
        lock(&self.shared.0).eof
    }

    fn wait<T>(&self, timeout: Duration, mut ready: impl FnMut(&mut State) -> Option<T>) -> Res<T> {
        let end = Instant::now() + timeout;
        let mut s = lock(&self.shared.0);
        loop {
            if let Some(v) = ready(&mut s) {
                return Ok(v);
            }
            let left = end.saturating_duration_since(Instant::now());
            if s.eof || left.is_zero() {
                return Err(if s.eof { "end of stream".into() } else { "time out".into() });
            }
            s = self.shared.1.wait_timeout(s, left).unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

fn lock(m: &Mutex<State>) -> MutexGuard<'_, State> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

/// The bytes that are no terminal control sequences (`ESC [ … letter`, `ESC letter`), and where they stand.
fn shown(data: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut text, mut places) = (vec![], vec![]);
    let mut at = 0;
    while let Some(&b) = data.get(at) {
        if b == 0x1b {
            at += if data.get(at + 1) == Some(&b'[') {
                2 + data[at + 2..].iter().take_while(|b| !(0x40..=0x7e).contains(*b)).count()
            } else {
                1
            };
        } else {
            text.push(b);
            places.push(at);
        }
        at += 1;
    }
    (text, places)
}

/// Position of `needle` in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    hay.windows(needle.len()).position(|w| w == needle)
}

/// The last `n` characters.
pub fn tail(s: &str, n: usize) -> String {
    let skip = s.chars().count().saturating_sub(n);
    s.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_not_shown() {
        let s = Stream::reading(&b"\x1bcgr\x1b[11;02H\x1b[11;03Hub> ls\x1b["[..]);
        assert_eq!(s.expect_shown("grub>", Duration::from_secs(5)).unwrap(), "grub>");
        assert_eq!(s.expect_shown("ls", Duration::from_secs(5)).unwrap(), " ls");
        assert!(s.expect_shown("x", Duration::from_secs(5)).unwrap_err().starts_with("end of stream"));
    }
}
