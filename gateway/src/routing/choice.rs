//! Whom to ask: a pure function of where everybody stands.
//!
//! The lowest priority with somebody who can be asked is the group. In it, with
//! equal weights, two are drawn and the cheaper one is asked: as good as the
//! cheapest of all, without everybody running to the same one at once. With
//! different weights the operator wants a split, and gets it: chance, by weight.
//!
//! Where nobody can be asked, whoever could not for longest is asked all the
//! same: that a provider is down is a guess of ours, and a client whose only
//! provider it is must not be refused for a guess.

use std::time::Duration;

use tokio::time::Instant;

use super::chance::Chance;

/// Where one of those who may answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Group.
    pub priority: u8,
    /// Share within the group.
    pub weight: u16,
    /// What it costs to ask now.
    pub cost: Duration,
    /// Why it is not to be asked while there is another.
    pub blocked: Option<Blocked>,
    /// Whether this request has asked it, or passed over it, already.
    pub spent: bool,
}

/// Why somebody is not to be asked, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Since when.
    pub since: Instant,
    /// Why.
    pub why: Why,
}

/// Why somebody is not to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It failed too often.
    BreakerOpen,
    /// A probe finds out whether it has recovered.
    ProbeUnderWay,
    /// It asked not to be asked for a while.
    CoolingDown,
    /// It refuses everybody: the hub's key, its credit, the model.
    Refusing,
    /// Its `rate_limit` is used up.
    RateLimited,
}

impl Why {
    /// The name as it stands in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::ProbeUnderWay => "probe_under_way",
            Self::CoolingDown => "cooling_down",
            Self::Refusing => "refusing",
            Self::RateLimited => "rate_limited",
        }
    }
}

/// How the choice was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// There is no other in the group.
    Only,
    /// It was the cheaper one of two, drawn from so many.
    Cheaper(usize),
    /// It was drawn by weight, from so many.
    Drawn(usize),
    /// Nobody can be asked; this one could not for longest.
    LongestBlocked,
}

/// Who is asked, by place, and how that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The place in the list.
    pub place: usize,
    /// How it was found.
    pub how: How,
}

/// Chooses; `None` when everybody is spent.
pub fn choose(standings: &[Standing], chance: &Chance) -> Option<Chosen> {
    let usable = |standing: &Standing| !standing.spent && standing.blocked.is_none();
    let lowest = standings.iter().filter(|one| usable(one));
    let Some(priority) = lowest.map(|one| one.priority).min() else {
        return longest_blocked(standings);
    };
    let group = || {
        let numbered = standings.iter().enumerate();
        numbered.filter(|(_, one)| usable(one) && one.priority == priority)
    };
    let count = group().count();
    let (first, one) = group().next()?;
    if count == 1 {
        let how = How::Only;
        return Some(Chosen { place: first, how });
    }
    if group().any(|(_, other)| other.weight != one.weight) {
        let all: usize = group().map(|(_, one)| usize::from(one.weight)).sum();
        let mut drawn = chance.below(all);
        for (place, one) in group() {
            let Some(rest) = drawn.checked_sub(usize::from(one.weight)) else {
                let how = How::Drawn(count);
                return Some(Chosen { place, how });
            };
            drawn = rest;
        }
    }
    // Two different ones: the second is drawn from those that are left.
    let a = chance.below(count);
    let b = (a + 1 + chance.below(count - 1)) % count;
    let ((place_a, a), (place_b, b)) = (group().nth(a)?, group().nth(b)?);
    let place = if b.cost < a.cost { place_b } else { place_a };
    let how = How::Cheaper(count);
    Some(Chosen { place, how })
}

fn longest_blocked(standings: &[Standing]) -> Option<Chosen> {
    let left = standings.iter().enumerate().filter(|(_, one)| !one.spent);
    let blocked = left.filter_map(|(place, one)| Some((one.blocked?.since, place)));
    let (_, place) = blocked.min()?;
    let how = How::LongestBlocked;
    Some(Chosen { place, how })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(priority: u8, weight: u16, cost_ms: u64) -> Standing {
        Standing {
            priority,
            weight,
            cost: Duration::from_millis(cost_ms),
            blocked: None,
            spent: false,
        }
    }

    fn blocked(standing: Standing, since: Instant) -> Standing {
        let why = Why::BreakerOpen;
        Standing {
            blocked: Some(Blocked { since, why }),
            ..standing
        }
    }

    /// How often each is chosen in 10 000 draws.
    fn draws(standings: &[Standing]) -> Vec<usize> {
        let chance = Chance::seeded(1);
        let mut counts = vec![0; standings.len()];
        for _ in 0..10_000 {
            counts[choose(standings, &chance).unwrap().place] += 1;
        }
        counts
    }

    #[test]
    fn of_two_the_cheaper_one_is_asked_and_among_many_never_the_dearest() {
        assert_eq!(draws(&[standing(0, 1, 9), standing(0, 1, 8)]), [0, 10_000]);
        let many = [9, 7, 8, 1].map(|cost| standing(0, 5, cost));
        let counts = draws(&many);
        // The cheapest is in half of all pairs, the next in a third, the next in a sixth.
        assert_eq!(counts[0], 0);
        for (place, share) in [(3, 5_000), (1, 3_333), (2, 1_667)] {
            assert!(counts[place].abs_diff(share) < 300, "{counts:?}");
        }
        let counts = draws(&[standing(0, 1, 0), standing(0, 1, 0)]);
        assert!(counts[0].abs_diff(5_000) < 300, "{counts:?}");
    }

    #[test]
    fn different_weights_are_a_split_whatever_it_costs() {
        let counts = draws(&[standing(0, 9, 1), standing(0, 1, 1_000), standing(1, 90, 0)]);
        assert!(counts[0].abs_diff(9_000) < 300, "{counts:?}");
        assert_eq!((counts[0] + counts[1], counts[2]), (10_000, 0));
    }

    #[tokio::test]
    async fn a_higher_priority_is_asked_when_the_lower_ones_cannot_answer() {
        let now = Instant::now();
        let chance = Chance::seeded(1);
        let mut all = [standing(0, 1, 1), standing(2, 1, 1), standing(7, 1, 1)];
        let place = |all: &[Standing]| choose(all, &chance).unwrap();
        assert_eq!(place(&all).place, 0);
        all[0].spent = true;
        assert_eq!(place(&all).place, 1);
        all[1] = blocked(all[1], now);
        assert_eq!((place(&all).place, place(&all).how), (2, How::Only));
        all[2].spent = true;
        assert_eq!(
            (place(&all).place, place(&all).how),
            (1, How::LongestBlocked)
        );
        all[1].spent = true;
        assert_eq!(choose(&all, &chance), None);
    }

    #[tokio::test]
    async fn where_nobody_can_be_asked_it_is_who_could_not_for_longest() {
        let earlier = Instant::now();
        let now = earlier + Duration::from_secs(1);
        let all = [
            blocked(standing(0, 1, 1), now),
            blocked(standing(3, 1, 1), earlier),
        ];
        let chosen = choose(&all, &Chance::seeded(1)).unwrap();
        assert_eq!((chosen.place, chosen.how), (1, How::LongestBlocked));
        assert_eq!(choose(&[], &Chance::seeded(1)), None);
    }
}
