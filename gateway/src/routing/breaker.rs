//! When to stop asking a provider, and when to try again.
//!
//! *Closed*, requests go there. After five failures in a row, or when half of
//! at least twenty calls in ten seconds failed, it *opens*: others are asked.
//! After ten seconds one request is let through as a probe (*half open*). Its
//! first chunk, or its whole answer, closes the breaker: a stream may go on for
//! half an hour, and the provider need not wait for its end. Its failure opens
//! it again, for twice as long, up to five minutes.
//!
//! Closed after a probe, it is on trial until a call ends well: one failure
//! opens it again. So a provider whose streams begin and break off does not get
//! five requests for each time it is let back.
//!
//! An outcome counts in the state in which its call began: what was sent before
//! the provider broke, and fails by time-out minutes later, says nothing of the
//! provider that has recovered since.
//!
//! Here is the state machine only; time comes in by parameter.

use std::time::Duration;

use nexus_events::audit_event::BreakerState;
use tokio::time::Instant;

/// Failures in a row that open it: 5. Fewer happen by chance, more are five clients' trouble.
const IN_A_ROW: u32 = 5;

/// Calls from which on their share of failures is judged: 20, so that half of them is no accident.
const CALLS_MIN: u32 = 20;

/// How far back calls are counted, in seconds.
const WINDOW_SECONDS: usize = 10;

/// How long it stays open at first: 10 s, a restart of a server.
const OPEN: Duration = Duration::from_secs(10);

/// How long at most: 5 min, so that a recovery is noticed within a coffee.
const OPEN_MAX: Duration = Duration::from_mins(5);

/// A change of the state, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What held before.
    pub from: BreakerState,
    /// What holds now.
    pub to: BreakerState,
    /// Why, in one word.
    pub reason: &'static str,
}

/// Leave to ask the provider once; its outcome is told with it.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    epoch: u64,
    probe: bool,
    forced: bool,
}

impl Admission {
    /// Whether the breaker would rather have had another asked.
    pub const fn is_forced(self) -> bool {
        self.forced
    }
}

/// The breaker of one provider.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// Number of the state, from 0: which calls began in it.
    epoch: u64,
    in_a_row: u32,
    /// Times it opened since a call ended well.
    openings: u32,
    window: Window,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed,
    Open { since: Instant, until: Instant },
    HalfOpen { since: Instant, probing: bool },
}

impl Breaker {
    /// A closed one.
    pub fn closed(now: Instant) -> Self {
        Self {
            state: State::Closed,
            epoch: 0,
            in_a_row: 0,
            openings: 0,
            window: Window::new(now),
        }
    }

    /// What it is, for people.
    pub const fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Since when it lets nobody through; `None` when it does.
    pub fn blocked_since(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Open { since, until } if now < until => Some(since),
            State::HalfOpen {
                since,
                probing: true,
            } => Some(since),
            State::Closed | State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// A call begins. It is never refused: whoever asks has nobody better.
    pub fn admit(&mut self, now: Instant) -> (Admission, Option<Transition>) {
        let mut transition = None;
        let mut probe = false;
        match self.state {
            State::Open { since, until } if now >= until => {
                transition = Some(self.become_half_open(since, "probe_due"));
                self.state = State::HalfOpen {
                    since,
                    probing: true,
                };
                probe = true;
            }
            State::HalfOpen {
                since,
                probing: false,
            } => {
                self.state = State::HalfOpen {
                    since,
                    probing: true,
                };
                probe = true;
            }
            State::Closed | State::Open { .. } | State::HalfOpen { .. } => {}
        }
        let admission = Admission {
            epoch: self.epoch,
            probe,
            forced: !probe && !matches!(self.state, State::Closed),
        };
        (admission, transition)
    }

    /// A call's answer has begun.
    pub fn answering(&mut self, admission: &mut Admission) -> Option<Transition> {
        if admission.epoch != self.epoch || matches!(self.state, State::Closed) {
            return None;
        }
        let transition = self.close("answered");
        admission.epoch = self.epoch;
        Some(transition)
    }

    /// A call ended well.
    pub fn succeeded(&mut self, admission: Admission, now: Instant) -> Option<Transition> {
        if admission.epoch != self.epoch {
            return None;
        }
        let closed = (!matches!(self.state, State::Closed)).then(|| self.close("answered"));
        self.in_a_row = 0;
        self.openings = 0;
        self.window.count(now, false);
        closed
    }

    /// A call failed by the provider's fault.
    pub fn failed(&mut self, admission: Admission, now: Instant) -> Option<Transition> {
        if admission.epoch != self.epoch {
            return None;
        }
        match self.state {
            State::Closed => {
                self.in_a_row += 1;
                self.window.count(now, true);
                let reason = if self.openings > 0 {
                    "failed_again"
                } else if self.in_a_row >= IN_A_ROW {
                    "failures_in_a_row"
                } else if self.window.is_bad(now) {
                    "failure_rate"
                } else {
                    return None;
                };
                Some(self.open(now, reason))
            }
            State::HalfOpen { .. } => Some(self.open(now, "probe_failed")),
            // Asked because there was nobody better: it stays as it is.
            State::Open { .. } => None,
        }
    }

    /// A call ended in a way that says nothing of the provider.
    pub const fn released(&mut self, admission: Admission) {
        if admission.probe
            && admission.epoch == self.epoch
            && let State::HalfOpen { since, .. } = self.state
        {
            self.state = State::HalfOpen {
                since,
                probing: false,
            };
        }
    }

    /// The provider can be reached again: the next request may be a probe, though it is not due.
    pub fn reached(&mut self) -> Option<Transition> {
        let State::Open { since, .. } = self.state else {
            return None;
        };
        Some(self.become_half_open(since, "reachable_again"))
    }

    fn open(&mut self, now: Instant, reason: &'static str) -> Transition {
        let doubled = OPEN.saturating_mul(1_u32.checked_shl(self.openings).unwrap_or(u32::MAX));
        self.openings = self.openings.saturating_add(1);
        self.in_a_row = 0;
        self.window = Window::new(now);
        let until = now + doubled.min(OPEN_MAX);
        self.enter(State::Open { since: now, until }, reason)
    }

    fn become_half_open(&mut self, since: Instant, reason: &'static str) -> Transition {
        let probing = false;
        self.enter(State::HalfOpen { since, probing }, reason)
    }

    fn close(&mut self, reason: &'static str) -> Transition {
        self.enter(State::Closed, reason)
    }

    fn enter(&mut self, state: State, reason: &'static str) -> Transition {
        let from = self.state();
        self.state = state;
        self.epoch += 1;
        let to = self.state();
        Transition { from, to, reason }
    }
}

/// Calls of the last ten seconds and how many of them failed, second by second.
#[derive(Debug)]
struct Window {
    seconds: [Counts; WINDOW_SECONDS],
    began: Instant,
    /// Seconds since it began, of the last one that was counted in.
    last: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    calls: u32,
    failures: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            seconds: [Counts::default(); WINDOW_SECONDS],
            began: now,
            last: 0,
        }
    }

    fn count(&mut self, now: Instant, failed: bool) {
        let counts = self.move_to(now);
        counts.calls += 1;
        counts.failures += u32::from(failed);
    }

    /// Whether at least half of enough calls failed.
    fn is_bad(&mut self, now: Instant) -> bool {
        self.move_to(now);
        let all = self
            .seconds
            .iter()
            .fold(Counts::default(), |sum, one| Counts {
                calls: sum.calls.saturating_add(one.calls),
                failures: sum.failures.saturating_add(one.failures),
            });
        all.calls >= CALLS_MIN && all.failures.saturating_mul(2) >= all.calls
    }

    /// Empties the seconds that are over, and gives the present one.
    fn move_to(&mut self, now: Instant) -> &mut Counts {
        let second = now.saturating_duration_since(self.began).as_secs();
        let seconds = u64::try_from(WINDOW_SECONDS).unwrap_or(u64::MAX);
        // Since the whole of it is over, each second is emptied once at most.
        let first = (self.last + 1).max(second.saturating_sub(seconds - 1));
        for over in first..=second {
            *self.at(over) = Counts::default();
        }
        self.last = self.last.max(second);
        self.at(self.last)
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a remainder of the array's own length"
    )]
    fn at(&mut self, second: u64) -> &mut Counts {
        let seconds = u64::try_from(WINDOW_SECONDS).unwrap_or(u64::MAX);
        let place = usize::try_from(second % seconds).unwrap_or(0);
        &mut self.seconds[place]
    }
}

#[cfg(test)]
mod tests;
