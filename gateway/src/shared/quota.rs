//! What one request takes of every limit that holds for it: all of it or nothing, in one step.
//!
//! *What it is.* A [`Demand`] names the limits and what is wanted of each: a
//! part of a rate (token bucket), a place among those under way (a lease), a
//! part of a month's money (reserved now, charged later). A [`Settlement`]
//! gives back what was not used and charges what was used beyond it.
//!
//! *What it promises.* Either every limit has room and all of it is taken, or
//! nothing is. Over-use is a debt: the bucket goes below zero, [`DEBT_WINDOWS`]
//! deep, and the next request waits. A place and a reservation are leases:
//! [`LEASE`] after the last renewal they are free, so a gateway that was killed
//! holds nobody up. What was settled stays settled: no renewal on its way takes
//! it again, and telling a settlement twice charges once.
//!
//! *A month's money* has two parts. Each exchange belongs to one of them, by the
//! time in its terminal event and the counter's `since`, and by nothing else:
//! what ended before is read from the read model ([`Seed`]), what ended at or
//! after is charged here. So nothing is counted twice whichever clock is wrong,
//! and what is told too late is read instead ([`Settled::Late`]).
//!
//! *Where.* In process (`memory`), or in Redis with one script and one round
//! trip ([`super::redis`]); both count in whole numbers and decide alike. While
//! Redis is away a gateway counts its own share: each limit divided by the
//! number of gateways that were last seen.

pub(super) mod memory;

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;
use nexus_events::{
    clock::UnixMillis,
    id::{OutboxId, RequestId},
};

use super::{Decision, Rate};

/// How long a lease holds without being renewed: 60 s, four renewals.
pub const LEASE: Duration = Duration::from_mins(1);

/// How long a month's money is remembered after its last use: 40 days, longer than a month.
pub const BUDGET_LIFE: Duration = Duration::from_hours(40 * 24);

/// How long it is remembered that a request's money was settled: 10 min.
///
/// For so long a settlement of unknown outcome may be told again. Longer costs memory: 100 requests
/// a second with a budget are 60 000 keys, some 8 MiB. What is older is read from the read model.
pub const SETTLED_LIFE: Duration = Duration::from_mins(10);

/// How long a gateway counts as living after its last word: 30 s, three words.
pub const GATEWAY_LIFE: Duration = Duration::from_secs(30);

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The whole hub's.
    Hub,
    /// The key's.
    Key,
    /// The user's, over all of its keys.
    User,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Requests in a time.
    Requests,
    /// Tokens in a time.
    Tokens,
    /// Requests under way.
    Concurrent,
    /// Money in a month.
    Money,
}

/// What is wanted of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A part of a rate; more than the whole limit takes the whole.
    Rate {
        /// The limit.
        rate: Rate,
        /// How much of it.
        amount: u32,
    },
    /// One place.
    Place {
        /// How many there are.
        limit: u32,
    },
    /// A part of a month's money.
    Budget {
        /// The month's money.
        limit: u64,
        /// How much of it at most.
        amount: u64,
    },
}

/// One limit that a request takes a part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Whose limit.
    pub whose: Whose,
    /// What it counts.
    pub counted: Counted,
    /// Its name in the shared state, made of ids of ours.
    pub bucket: String,
    /// What is wanted of it.
    pub need: Need,
}

/// What a request wants, of every limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The request, whose leases these are.
    pub lease: RequestId,
    /// Of each limit.
    pub shares: Vec<Share>,
    /// One of a rate that is taken with all of it where there is one, and refuses nothing where there is none.
    pub room: Option<Room>,
}

/// Room for a request at whoever is to be asked first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its name in the shared state, as [`Quotas::take`] has it.
    pub bucket: String,
    /// The rate.
    pub rate: Rate,
}

/// How a limit stands after a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What was wanted, of the limit as it was counted: this gateway's share of it while Redis is away.
    pub need: Need,
    /// Whether there was room.
    pub fits: bool,
    /// What is left: parts of a rate (see [`super::Decision`]), places, money. Below zero is a debt.
    pub left: i64,
}

/// Whether a request may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may; then everything was taken.
    pub allowed: bool,
    /// How each limit stands, in the order of the demand.
    pub standings: Vec<Standing>,
    /// Whether there was room; `None` where none was asked for, or the request is refused.
    pub room: Option<Decision>,
    /// Whether this gateway decided by itself, and the shared state may have let it in as well.
    pub is_unknown: bool,
}

/// What is given back to a limit, or charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// To a rate: so many more than were used, or, below zero, so many less.
    Rate {
        /// The limit.
        rate: Rate,
        /// How many.
        amount: i64,
    },
    /// The place.
    Place,
    /// A reservation, and what is charged in its stead.
    Budget {
        /// What was reserved.
        reserved: u64,
        /// What was spent.
        spent: u64,
    },
}

/// The end of a request, as its limits see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The request.
    pub lease: RequestId,
    /// Name of each limit, and what it gets.
    pub shares: Vec<(String, Back)>,
    /// The time in its terminal event: it decides who counts the money.
    pub ended: UnixMillis,
    /// Whether this gateway has counted it by itself while Redis was away.
    pub counted_here: bool,
}

/// What became of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// All gateways know it.
    Done,
    /// The same, but money was not charged: it ended before its budget is counted here, and is to be read.
    Late,
    /// Only this one does.
    Away,
    /// All may know it, or only this one.
    Unknown,
}

/// Leases of a request under way, to be renewed: name of the limit, and what is reserved of a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The request.
    pub lease: RequestId,
    /// The limits; `None`: a place.
    pub shares: Vec<(String, Option<u64>)>,
}

/// What was spent of a month's money before it is counted in the shared state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The budget.
    pub bucket: String,
    /// Since when it is counted there. A seed up to another moment says nothing.
    pub since: UnixMillis,
    /// What was spent by exchanges that ended before.
    pub spent: u64,
    /// How much of the log that was read from: of two, the one that has seen more counts.
    pub position: u64,
    /// Whether all is in it that this gateway knows of; else it is a lower bound.
    pub is_whole: bool,
}

/// Limits that gateways share. No call fails; each is bounded in time like all of the shared state.
pub trait Quotas: Send + Sync + fmt::Debug {
    /// Takes one from a bucket, if there is one. `bucket` is a name from our own lists.
    fn take<'a>(&'a self, bucket: &'a str, rate: Rate) -> BoxFuture<'a, Decision>;

    /// Whether one could be taken now, and how many; takes nothing, and no bucket begins by it.
    fn peek<'a>(&'a self, bucket: &'a str, rate: Rate) -> BoxFuture<'a, Decision>;

    /// Takes everything that a request wants, or nothing.
    fn admit<'a>(&'a self, demand: &'a Demand) -> BoxFuture<'a, Verdict>;

    /// Gives back and charges.
    fn settle<'a>(&'a self, settlement: &'a Settlement) -> BoxFuture<'a, Settled>;

    /// Renews leases; takes again those that were lost.
    fn renew<'a>(&'a self, held: &'a [Held]) -> BoxFuture<'a, ()>;

    /// Says that this gateway lives, and counts those that do.
    fn beat(&self, gateway: OutboxId) -> BoxFuture<'_, ()>;

    /// Begins to count months' money where nobody has, and tells since when each is counted; `None`
    /// while that cannot be shared.
    ///
    /// `afresh`: counts all of them from now on. What was counted until then stands in for what is to
    /// be read, until that is.
    fn open<'a>(
        &'a self,
        buckets: &'a [String],
        afresh: bool,
    ) -> BoxFuture<'a, Option<Vec<UnixMillis>>>;

    /// Sets what was spent of a month's money before; tells whether that reached the shared state.
    fn seed<'a>(&'a self, seed: &'a Seed) -> BoxFuture<'a, bool>;
}

impl Need {
    /// This gateway's share of the limit, one of `gateways`; at least one of what is counted.
    ///
    /// `spent` is what is known to be spent of a budget: the rest is shared.
    fn share_of(self, gateways: u32, spent: u64) -> Self {
        match self {
            Self::Rate { rate, amount } => Self::Rate {
                rate: rate.share_of(gateways),
                amount,
            },
            Self::Place { limit } => Self::Place {
                limit: (limit / gateways.max(1)).max(1),
            },
            Self::Budget { limit, amount } => {
                let rest = limit.saturating_sub(spent) / u64::from(gateways.max(1));
                Self::Budget {
                    limit: spent.saturating_add(rest).min(limit),
                    amount,
                }
            }
        }
    }
}

impl Rate {
    /// This gateway's share of it, one of `gateways`; at least one.
    pub(super) fn share_of(self, gateways: u32) -> Self {
        let limit = (self.limit / gateways.max(1)).max(1);
        Self { limit, ..self }
    }

    /// The parts that a full bucket holds.
    pub fn capacity(self) -> i64 {
        self.parts(self.limit)
    }

    /// The parts that so many uses take: of the whole limit at most.
    pub fn parts(self, amount: u32) -> i64 {
        let amount = u64::from(amount.min(self.limit));
        i64::try_from(amount * self.window_ms()).unwrap_or(i64::MAX)
    }

    /// When a bucket that holds `left` parts holds `wanted`.
    pub fn until(self, wanted: i64, left: i64) -> Duration {
        let missing = u64::try_from(wanted.saturating_sub(left)).unwrap_or(0);
        Duration::from_millis(missing.div_ceil(u64::from(self.limit.max(1))))
    }

    /// How many uses so many parts are.
    pub fn uses(self, parts: i64) -> u64 {
        u64::try_from(parts).unwrap_or(0) / self.window_ms()
    }

    /// The deepest debt, in parts: below it nothing more is owed.
    pub(super) fn debt_max(self) -> i64 {
        self.capacity().saturating_mul(DEBT_WINDOWS).min(DEBT_MAX)
    }

    /// Parts for what is given back or charged, within what both implementations count exactly.
    pub(super) fn signed_parts(self, amount: i64) -> i64 {
        let window = i64::try_from(self.window_ms()).unwrap_or(1);
        amount.saturating_mul(window).clamp(-DEBT_MAX, DEBT_MAX)
    }
}

/// How many times its window a bucket can be in debt: 10, for tokens a minute ten minutes.
///
/// One answer that is far larger than the limit would else lock a key for hours. Ten minutes are long
/// enough that nobody gains by it, and short enough to be waited for.
pub const DEBT_WINDOWS: i64 = 10;

/// The most parts that are counted: 2^51, far from where Lua's numbers lose their ones.
pub(super) const DEBT_MAX: i64 = 1 << 51;

/// The most that a sum of money says: 2^52.
pub(super) const SUM_MAX: u64 = 1 << 52;
