//! What the requests of this gateway hold, and what is still to be settled.
//!
//! Leases are renewed here while their requests run, and settlements that Redis
//! did not take are told again when it is back. Nobody waits for either.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use nexus_events::id::{OutboxId, RequestId};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::shared::{
    SharedState,
    quota::{Back, Held, Settled, Settlement},
};

/// Between two words of a gateway, and two renewals of its leases: 10 s.
const TICK: Duration = Duration::from_secs(10);

/// Settlements that wait: 65 536, some 20 MiB.
///
/// Of those beyond, money is kept by budget; the rest was short-lived anyway.
const WAITING_MAX: usize = 65_536;

/// Budgets whose money waits by the sum: 100 000.
const SUMS_MAX: usize = 100_000;

/// What this gateway's requests hold.
#[derive(Debug)]
pub(super) struct Ledger {
    shared: Arc<dyn SharedState>,
    held: Mutex<HashMap<RequestId, Held>>,
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    settlements: VecDeque<Settlement>,
    /// Budget → what is to be charged.
    sums: HashMap<String, u64>,
}

impl Ledger {
    pub(super) fn new(shared: Arc<dyn SharedState>) -> Self {
        Self {
            shared,
            held: Mutex::default(),
            waiting: Mutex::default(),
            wake: Notify::new(),
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
    pub(super) async fn settle(&self, settlement: Settlement) {
        let told = self.shared.settle(&settlement).await;
        let again = match told {
            Settled::Done => return,
            Settled::Away => settlement.again,
            Settled::Unknown => true,
        };
        // A rate is full again by itself soon; giving back twice would be worse.
        let lasts = |(_, back): &(String, Back)| !matches!(back, Back::Rate { .. });
        let mut shares = settlement.shares;
        shares.retain(lasts);
        if shares.is_empty() {
            return;
        }
        self.keep(Settlement {
            shares,
            again,
            counted_here: true,
            ..settlement
        });
        if told == Settled::Unknown {
            // A busy moment: the place should not stay taken for it.
            self.wake.notify_one();
        }
    }

    /// Settles in the background, soon.
    pub(super) fn settle_later(&self, settlement: Settlement) {
        if !settlement.shares.is_empty() {
            self.keep(settlement);
            self.wake.notify_one();
        }
    }

    fn keep(&self, settlement: Settlement) {
        let mut waiting = self.waiting.lock();
        if waiting.settlements.len() < WAITING_MAX {
            waiting.settlements.push_back(settlement);
            return;
        }
        for (bucket, back) in settlement.shares {
            let Back::Budget { spent, .. } = back else {
                continue;
            };
            if settlement.again || waiting.sums.len() >= SUMS_MAX {
                tracing::warn!(
                    bucket,
                    spent,
                    "money was not charged: too much waits for redis"
                );
                continue;
            }
            let sum = waiting.sums.entry(bucket).or_default();
            *sum = sum.saturating_add(spent);
        }
    }

    /// Says that this gateway lives, renews leases and settles what waits, until `over`.
    pub(super) async fn keep_up(&self, gateway: OutboxId, over: &CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = over.cancelled() => return,
                () = self.wake.notified() => {}
                _ = ticks.tick() => {
                    self.shared.beat(gateway).await;
                    self.renew().await;
                }
            }
            self.settle_waiting().await;
        }
    }

    /// Renews what is held. What ended meanwhile may have been renewed after its end: it ends again.
    async fn renew(&self) {
        let held: Vec<Held> = self.held.lock().values().cloned().collect();
        self.shared.renew(&held).await;
        let ended: Vec<Settlement> = {
            let now = self.held.lock();
            let ended = held.into_iter().map(|one| match now.get(&one.lease) {
                None => one.ended(&[]),
                Some(still) => one.ended(&still.shares),
            });
            ended.filter(|one| !one.shares.is_empty()).collect()
        };
        for settlement in ended {
            self.settle(settlement).await;
        }
    }

    /// Settles what waited at the beginning; what cannot be settled waits on.
    async fn settle_waiting(&self) {
        let waited = self.waiting.lock().settlements.len();
        for _ in 0..waited {
            let Some(settlement) = self.waiting.lock().settlements.pop_front() else {
                break;
            };
            self.settle(settlement).await;
        }
        let sums = std::mem::take(&mut self.waiting.lock().sums);
        for (bucket, spent) in sums {
            let reserved = 0;
            let shares = vec![(bucket, Back::Budget { reserved, spent })];
            let settlement = Settlement {
                // Nobody's: there is no reservation to give back.
                lease: RequestId::from_uuid(uuid::Uuid::nil()),
                shares,
                again: false,
                counted_here: true,
            };
            self.settle(settlement).await;
        }
    }
}

impl Held {
    /// What ends the leases that are not among `still`, should they be there.
    fn ended(self, still: &[(String, Option<u64>)]) -> Settlement {
        let mut shares = self.shares;
        shares.retain(|share| !still.contains(share));
        let back = |reserved: Option<u64>| match reserved {
            None => Back::Place,
            Some(reserved) => Back::Budget { reserved, spent: 0 },
        };
        let shares = shares.into_iter();
        Settlement {
            lease: self.lease,
            shares: shares
                .map(|(bucket, reserved)| (bucket, back(reserved)))
                .collect(),
            again: true,
            counted_here: false,
        }
    }
}
