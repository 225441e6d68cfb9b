//! What the fuzz targets share. With cargo-fuzz they are libFuzzer programs; otherwise plain programs, which run files
//! that are named as arguments, or `--runs N` inputs (default 20,000) made from their built-in samples by a generator
//! with `--seed N`, for at most `--seconds N`.

use rqemu_machine::fuzz::Rng;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Longest input that the generator makes.
const MAX_INPUT: usize = 64 << 10;
/// One input must not take longer.
const HANG: Duration = Duration::from_secs(20);

/// Makes a program of a function on bytes: `target!(samples, function)`, samples being a list of byte strings.
#[macro_export]
macro_rules! target {
    ($samples:expr, $run:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $run(data));
        #[cfg(not(fuzzing))]
        fn main() {
            let samples: Vec<Vec<u8>> = $samples;
            $crate::run(&samples, $run);
        }
    };
}

/// Arguments of a plain program.
pub struct Args {
    /// First seed.
    pub seed: u64,
    /// Inputs.
    pub runs: u64,
    /// Time limit.
    pub limit: Duration,
    /// Files to run, or other words.
    pub words: Vec<String>,
}

impl Args {
    /// From the command line.
    pub fn get() -> Args {
        let mut a = Args { seed: 1, runs: 20_000, limit: Duration::from_secs(3600), words: Vec::new() };
        let mut list = std::env::args().skip(1);
        while let Some(w) = list.next() {
            let mut number = || list.next().and_then(|n| n.parse().ok()).expect("a number");
            match w.as_str() {
                "--seed" => a.seed = number(),
                "--runs" => a.runs = number(),
                "--seconds" => a.limit = Duration::from_secs(number()),
                _ => a.words.push(w),
            }
        }
        a
    }
}

thread_local! {
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// Runs the files or the generated inputs.
pub fn run(samples: &[Vec<u8>], f: fn(&[u8])) {
    let args = Args::get();
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        eprintln!("seed {}", CURRENT.get());
        default(info);
    }));
    if !args.words.is_empty() {
        for w in &args.words {
            f(&std::fs::read(w).expect("cannot read the file"));
        }
        return;
    }
    let start = Instant::now();
    let mut done = 0;
    for i in 0..args.runs {
        if start.elapsed() > args.limit {
            break;
        }
        let seed = args.seed.wrapping_add(i);
        CURRENT.set(seed);
        let input = mutate(samples, &mut Rng::new(seed));
        let t = Instant::now();
        f(&input);
        assert!(t.elapsed() < HANG, "seed {seed} took {:?}", t.elapsed());
        done += 1;
    }
    println!("{done} inputs from seed {}: no failure", args.seed);
}

/// A sample with some bytes, words, runs or pieces changed; now and then noise.
pub fn mutate(samples: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    if samples.is_empty() || rng.one_in(20) {
        let mut v = vec![0; rng.below(2048) as usize];
        rng.fill(&mut v);
        return v;
    }
    let mut v = samples[rng.below(samples.len() as u64) as usize].clone();
    for _ in 0..1 + rng.below(8) {
        let at = rng.below(v.len() as u64 + 1) as usize;
        match rng.below(9) {
            0 => v.truncate(at),
            1 if at < v.len() => v[at] = rng.next_u64() as u8,
            2 if at < v.len() => v[at] ^= 1 << rng.below(8),
            3 | 4 => {
                let n = rng.pick(&[1usize, 2, 4, 8]);
                let value = rng.value(1 << 24).to_be_bytes();
                if at + n <= v.len() {
                    v[at..at + n].copy_from_slice(&value[8 - n..]);
                }
            }
            5 => {
                let n = rng.pick(&[2usize, 4, 8]);
                let value = rng.value(1 << 24).to_le_bytes();
                if at + n <= v.len() {
                    v[at..at + n].copy_from_slice(&value[..n]);
                }
            }
            6 => {
                let end = (at + rng.below(32) as usize).min(v.len());
                v.drain(at..end);
            }
            7 => {
                let end = (at + rng.below(64) as usize).min(v.len());
                let piece = v[at..end].to_vec();
                let to = rng.below(v.len() as u64 + 1) as usize;
                v.splice(to..to, piece);
            }
            _ => {
                let other = &samples[rng.below(samples.len() as u64) as usize];
                let from = rng.below(other.len() as u64 + 1) as usize;
                v.truncate(at);
                v.extend_from_slice(&other[from..]);
            }
        }
    }
    v.truncate(MAX_INPUT);
    v
}

/// Reads numbers off an input; zeroes when it has ended.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    /// The next `n` bytes as a little-endian number.
    pub fn take(&mut self, n: usize) -> u64 {
        let (head, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        head.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b))
    }

    /// Whether there is more.
    pub fn more(&self) -> bool {
        !self.0.is_empty()
    }
}
