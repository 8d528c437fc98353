//! Random choices that are functions of a seed.

use tidemill::connectors::generate::chance::mixed;

/// Draws one number after the other; the same seed draws the same ones.
pub struct Dice {
    seed: u64,
    drawn: u64,
}

impl Dice {
    /// Dice for a seed.
    pub fn new(seed: u64) -> Dice {
        Dice { seed: mixed(seed, 0), drawn: 0 }
    }

    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.drawn += 1;
        let bits = mixed(self.drawn ^ self.seed, 0);
        ((u128::from(bits) * n as u128) >> 64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as usize) as i64
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    ///
    /// # Panics
    /// There is none to pick from.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// One of several words.
    ///
    /// # Panics
    /// There is none to pick from.
    pub fn word(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len())]
    }

    /// The position of one of several weights, each as likely as it is great.
    pub fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (i, weight) in weights.iter().enumerate() {
            if left < *weight {
                return i;
            }
            left -= weight;
        }
        0
    }
}
