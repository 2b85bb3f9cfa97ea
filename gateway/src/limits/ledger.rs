//! What the requests of this gateway hold, and what is still to be settled.
//!
//! Leases are renewed here while their requests run, and settlements that Redis
//! did not take are told again when it is back. Nobody waits for either.
//!
//! A settlement that may have been told already is told again as long as the
//! shared state remembers that it was ([`SETTLED_LIFE`]). What cannot be told any
//! more is not lost: the month's money is read from the read model again.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use nexus_events::id::{OutboxId, RequestId};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, timeout},
};
use tokio_util::sync::CancellationToken;

use super::seed::Seeded;
use crate::shared::{
    Quotas,
    quota::{Back, Held, SETTLED_LIFE, Settled, Settlement},
};

/// Between two words of a gateway, and two renewals of its leases: 10 s.
const TICK: Duration = Duration::from_secs(10);

/// Settlements that wait: 65 536, some 20 MiB.
const WAITING_MAX: usize = 65_536;

/// How long a settlement is told again: a minute less than it is remembered that it was settled.
const TOLD_AGAIN_MAX: Duration = SETTLED_LIFE.saturating_sub(Duration::from_mins(1));

/// At the end what waits is told within 2 s; without Redis that is at once.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What this gateway's requests hold.
#[derive(Debug)]
pub(super) struct Ledger {
    shared: Arc<dyn Quotas>,
    held: Mutex<HashMap<RequestId, Held>>,
    waiting: Mutex<VecDeque<Owed>>,
    wake: Notify,
    seeded: Arc<Seeded>,
}

/// A settlement that is to be told.
#[derive(Debug)]
struct Owed {
    settlement: Settlement,
    /// When it was first told without an answer.
    told: Option<Instant>,
}

/// A settlement that is being told. Dropped half-way, it may have been told or not.
struct Telling<'a> {
    ledger: &'a Ledger,
    owed: Option<Owed>,
}

impl Ledger {
    pub(super) fn new(shared: Arc<dyn Quotas>, seeded: Arc<Seeded>) -> Self {
        Self {
            shared,
            held: Mutex::default(),
            waiting: Mutex::default(),
            wake: Notify::new(),
            seeded,
        }
    }

    /// Renews the leases of a request from now on; forgets one without any.
    pub(super) fn hold(&self, held: Held) {
        let mut all = self.held.lock();
        if held.shares.is_empty() {
            all.remove(&held.lease);
        } else {
            all.insert(held.lease, held);
        }
    }

    /// Renews the leases of a request no more.
    pub(super) fn release(&self, request: RequestId) {
        self.held.lock().remove(&request);
    }

    /// Settles, and what Redis does not take later.
    ///
    /// # Cancel safety
    /// Dropped, it is settled in the background.
    pub(super) async fn settle(&self, settlement: Settlement) {
        let told = None;
        self.tell(Owed { settlement, told }).await;
    }

    async fn tell(&self, owed: Owed) {
        let mut telling = Telling {
            ledger: self,
            owed: Some(owed),
        };
        if let Some(owed) = &telling.owed {
            let settled = self.shared.settle(&owed.settlement).await;
            telling.came_to(settled);
        }
    }

    /// Settles in the background, soon.
    pub(super) fn settle_later(&self, settlement: Settlement) {
        if !settlement.shares.is_empty() {
            let told = None;
            self.keep(Owed { settlement, told });
            self.wake.notify_one();
        }
    }

    fn keep(&self, owed: Owed) {
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() < WAITING_MAX {
                waiting.push_back(owed);
                return;
            }
        }
        self.give_up(&owed.settlement);
    }

    /// What it charges is read from the read model; what it frees ends by itself.
    fn give_up(&self, settlement: &Settlement) {
        let charges = |(_, back): &(String, Back)| matches!(back, Back::Budget { spent: 1.., .. });
        if settlement.shares.iter().any(charges) {
            self.seeded.begin_afresh();
        }
    }

    /// Says that this gateway lives, renews leases and settles what waits, until `over`.
    pub(super) async fn keep_up(&self, gateway: OutboxId, over: &CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = over.cancelled() => break,
                () = self.wake.notified() => {}
                _ = ticks.tick() => {
                    self.shared.beat(gateway).await;
                    self.renew().await;
                }
            }
            self.settle_waiting().await;
        }
        // What is not told now the next start reads from the read model.
        let told = timeout(LAST_WORDS, self.settle_waiting()).await;
        let left = self.waiting.lock().len();
        if told.is_err() || left > 0 {
            tracing::warn!(left, "settlements were not told: redis is away");
        }
    }

    /// Renews what is held. What ends meanwhile is marked as settled, so it is not taken again.
    async fn renew(&self) {
        let held: Vec<Held> = self.held.lock().values().cloned().collect();
        self.shared.renew(&held).await;
    }

    /// Settles what waited at the beginning; what cannot be settled waits on.
    async fn settle_waiting(&self) {
        let waited = self.waiting.lock().len();
        for _ in 0..waited {
            let Some(owed) = self.waiting.lock().pop_front() else {
                break;
            };
            let is_old = |told: Instant| told.elapsed() > TOLD_AGAIN_MAX;
            if owed.told.is_some_and(is_old) {
                self.give_up(&owed.settlement);
            } else {
                self.tell(owed).await;
            }
        }
    }
}

impl Telling<'_> {
    fn came_to(&mut self, settled: Settled) {
        let Some(mut owed) = self.owed.take() else {
            return;
        };
        match settled {
            Settled::Done => {}
            Settled::Late => {
                let buckets = owed.settlement.shares.iter().map(|(bucket, _)| bucket);
                self.ledger.seeded.read_again(buckets);
            }
            Settled::Away => {
                owed.settlement.counted_here = true;
                self.again(owed);
            }
            Settled::Unknown => {
                owed.settlement.counted_here = true;
                owed.told.get_or_insert_with(Instant::now);
                self.again(owed);
                // A busy moment: the place should not stay taken for it.
                self.ledger.wake.notify_one();
            }
        }
    }

    fn again(&self, mut owed: Owed) {
        // A rate is full again by itself soon; giving back twice would be worse.
        let lasts = |(_, back): &(String, Back)| !matches!(back, Back::Rate { .. });
        owed.settlement.shares.retain(lasts);
        if !owed.settlement.shares.is_empty() {
            self.ledger.keep(owed);
        }
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if let Some(mut owed) = self.owed.take() {
            owed.told.get_or_insert_with(Instant::now);
            self.again(owed);
            self.ledger.wake.notify_one();
        }
    }
}
