//! Chance, injectable: from the operating system in the hub, from a seed in a test.
//!
//! It spreads load and protects nothing, so a generator of one multiplication
//! chain will do (splitmix64), and drawing takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// The golden ratio in 64 bits: the step between two states.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A source of random numbers.
#[derive(Debug)]
pub struct Chance(AtomicU64);

impl Chance {
    /// Numbers that follow from `seed`.
    pub const fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Numbers that nobody can repeat; without randomness of the system, those of one seed.
    pub fn of_system() -> Self {
        Self::seeded(getrandom::u64().unwrap_or(STEP))
    }

    /// A number from 0 to `bound - 1`; 0 when there is none.
    pub fn below(&self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        // The bias of a remainder is below one in 2^50 for what is chosen from here.
        let drawn = self.next().checked_rem(bound).unwrap_or(0);
        usize::try_from(drawn).unwrap_or(0)
    }

    fn next(&self) -> u64 {
        let state = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_below_the_bound_comes_about_as_often() {
        let chance = Chance::seeded(7);
        let mut seen = [0_u32; 5];
        for _ in 0..10_000 {
            seen[chance.below(5)] += 1;
        }
        assert!(
            seen.iter().all(|count| (1_800..2_200).contains(count)),
            "{seen:?}"
        );
        assert_eq!(chance.below(0), 0);
        assert_eq!(chance.below(1), 0);
    }
}
