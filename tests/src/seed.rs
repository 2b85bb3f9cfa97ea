//! Chance that can be had again: everything random in a scenario comes from one printed number.
//!
//! The number is `FAULT_SEED`, or drawn.
//! What is not ours (the scheduler, the network, the broker) stays as it is, so a seed repeats what
//! was done, not always what came of it.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::settings;

/// A source of numbers, each derived from the one before (`SplitMix64`).
#[derive(Debug, Clone)]
pub struct Seed(u64);

impl Seed {
    /// The seed of a scenario, printed with its name so that it can be run again.
    ///
    /// # Errors
    ///
    /// When `FAULT_SEED` is no number or the system has no randomness.
    #[expect(clippy::print_stdout, reason = "a failed scenario must tell its seed")]
    pub fn of(scenario: &str) -> Result<Self> {
        let number = match settings::fault_seed()? {
            Some(number) => number,
            None => getrandom::u64().context("the system has no randomness")?,
        };
        println!("{scenario}: FAULT_SEED={number}");
        Ok(Self(number))
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw().checked_rem(bound).unwrap_or(0)
    }

    /// A place in something of this length; 0 when it is empty.
    pub fn index(&mut self, length: usize) -> usize {
        let bound = u64::try_from(length).unwrap_or(u64::MAX);
        usize::try_from(self.below(bound)).unwrap_or(0)
    }

    /// True once in `times`, on average.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A time from the first to the second.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_micros();
        let micros = self.below(u64::try_from(span).unwrap_or(u64::MAX));
        least.saturating_add(Duration::from_micros(micros))
    }

    /// A source of its own for a part that runs beside the others.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.draw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let numbers = |seed| {
            let mut seed = Seed(seed);
            (0..8).map(|_| seed.draw()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }

    #[test]
    fn draws_stay_in_bounds_and_reach_them() {
        let mut seed = Seed(1);
        let drawn: std::collections::BTreeSet<u64> = (0..200).map(|_| seed.below(5)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!((seed.below(0), seed.index(0)), (0, 0));
        let (least, most) = (Duration::from_millis(10), Duration::from_millis(20));
        for _ in 0..100 {
            let time = seed.between(least, most);
            assert!(time >= least && time < most, "{time:?}");
        }
    }
}
