//! Property tests without a package: a small seeded generator, and the seed said on failure.
//!
//! `DEWAR_SEED=n cargo test name` replays one.

/// xorshift64*: any seed but 0 gives a full period.
pub struct Gen(u64);

impl Gen {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number in `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Up to `limit` bytes, weighted to those that parsers trip over.
    pub fn bytes(&mut self, limit: usize) -> Vec<u8> {
        let length = self.below(limit + 1);
        (0..length)
            .map(|_| if self.below(3) == 0 { *self.pick(b"\r\n\0:/ %{}\"\\.-=,") } else { self.next() as u8 })
            .collect()
    }
}

/// Runs `property` on `cases` generators, each with a seed of its own.
pub fn check(name: &str, cases: u64, mut property: impl FnMut(&mut Gen)) {
    struct Tell<'a>(&'a str, u64);
    impl Drop for Tell<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{}: failed with DEWAR_SEED={}", self.0, self.1);
            }
        }
    }
    let seeds = match std::env::var("DEWAR_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 1..cases + 1,
    };
    for seed in seeds {
        let _tell = Tell(name, seed);
        property(&mut Gen(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1));
    }
}
