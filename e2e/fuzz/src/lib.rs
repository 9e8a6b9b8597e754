//! Damaged input for the tests of parsers that eat what strangers write. Every
//! room has a module `fuzz` that feeds its own parsers; nothing but tests uses this.
//!
//! The unit tier runs [`ROUNDS`] rounds of the same input on every machine.
//! `make fuzz ROUNDS=1000000 SEED=7` runs more, of other input, with a line of
//! progress for each parser.

use std::time::{Duration, Instant};

/// Rounds of a parser unless `LIGHTER_FUZZ_ROUNDS` says how many.
pub const ROUNDS: u64 = 3000;
/// What the generator starts from unless `LIGHTER_FUZZ_SEED` says something else.
const SEED: u64 = 0x2545_f491_4f6c_dd1d;
/// How often a long run tells where it is.
const PROGRESS: Duration = Duration::from_secs(10);

fn set(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Marsaglia's xorshift64: the same input on every machine.
#[derive(Debug)]
pub struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        // Zero would stay zero.
        Self(set("LIGHTER_FUZZ_SEED").map_or(SEED, |seed| SEED ^ (seed << 1)))
    }
}

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of 0 to n - 1; 0 of none.
    pub fn below(&mut self, n: usize) -> usize {
        (self.number() % (n.max(1) as u64)) as usize
    }

    /// The bytes with one to eight changes: a byte, a bit, a cut, a repetition, or
    /// a word of the trade.
    pub fn damage(&mut self, seed: &[u8], words: &[&str]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[at] = self.number() as u8,
                1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 => bytes.truncate(at),
                3 => {
                    let end = bytes.len().min(at + self.below(600));
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ if !words.is_empty() => {
                    let word = words[self.below(words.len())].bytes();
                    bytes.splice(at..at, word);
                }
                _ => {}
            }
        }
        bytes
    }
}

/// One parser and what it is fed.
#[derive(Debug)]
pub struct Fuzz<'a> {
    parser: &'a str,
    seeds: Vec<Vec<u8>>,
    words: &'a [&'a str],
    one_in: u64,
}

impl<'a> Fuzz<'a> {
    /// Inputs that are right, of which damaged ones are made.
    pub fn new<S: AsRef<[u8]>>(parser: &'a str, seeds: impl IntoIterator<Item = S>) -> Self {
        let seeds = seeds.into_iter().map(|s| s.as_ref().to_vec()).collect();
        Self {
            parser,
            seeds,
            words: &[],
            one_in: 1,
        }
    }

    /// Words that mean something to the parser.
    #[must_use]
    pub fn words(mut self, words: &'a [&'a str]) -> Self {
        self.words = words;
        self
    }

    /// A round costs much: one is run where others run `n`.
    #[must_use]
    pub fn one_in(mut self, n: u64) -> Self {
        self.one_in = n.max(1);
        self
    }

    /// Calls `check` with every input; one that makes it panic is printed.
    pub fn bytes(self, mut check: impl FnMut(&[u8])) {
        let long = set("LIGHTER_FUZZ_ROUNDS");
        let rounds = long.unwrap_or(ROUNDS).div_ceil(self.one_in);
        let (start, mut told) = (Instant::now(), Instant::now());
        let mut random = Random::default();
        for round in 0..rounds {
            // The first rounds are the seeds themselves: right input is taken too.
            let input = match self.seeds.get(round as usize) {
                Some(seed) => seed.clone(),
                None => {
                    let seed = &self.seeds[round as usize % self.seeds.len()];
                    random.damage(seed, self.words)
                }
            };
            let tell = Tell(self.parser, round, &input);
            check(&input);
            drop(tell);
            if long.is_some() && told.elapsed() >= PROGRESS {
                told = Instant::now();
                eprintln!("fuzz {}: {round} of {rounds} rounds", self.parser);
            }
        }
        if long.is_some() {
            let took = start.elapsed().as_secs_f64();
            eprintln!("fuzz {}: {rounds} rounds in {took:.1} s", self.parser);
        }
    }

    /// The same for parsers of text.
    pub fn text(self, mut check: impl FnMut(&str)) {
        self.bytes(|bytes| check(&String::from_utf8_lossy(bytes)));
    }
}

/// Prints the input whose check panics.
struct Tell<'a>(&'a str, u64, &'a [u8]);

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(parser, round, input) = self;
            eprintln!(
                "fuzz {parser}: round {round} of b\"{}\"",
                input.escape_ascii()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_come_first_and_damage_is_the_same_every_time() {
        let run = || {
            let mut all = Vec::new();
            Fuzz::new("itself", ["one", "two"])
                .one_in(100)
                .bytes(|input| all.push(input.to_vec()));
            all
        };
        let all = run();
        assert_eq!(all[..2], [b"one".to_vec(), b"two".to_vec()]);
        assert!(all.len() > 20 && all[2..].iter().any(|input| input != b"one"));
        assert_eq!(all, run());
    }

    #[test]
    fn damage_of_nothing_is_nothing() {
        let mut random = Random::default();
        for _ in 0..1000 {
            assert!(random.damage(b"", &[]).is_empty());
        }
    }
}
