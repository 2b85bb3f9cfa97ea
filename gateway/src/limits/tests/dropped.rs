//! What was taken comes back when nobody waits for it any more, and stays away when it is settled.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, pending, poll_immediate},
};
use tokio::sync::Semaphore;

use super::*;
use crate::shared::{
    Decision, Quotas,
    quota::{Held, Seed, Settled, Settlement},
};

/// A shared state that can be slow: it takes what is asked for, and its answers do not arrive.
#[derive(Debug)]
struct Slow {
    state: MemoryState,
    swallows_admissions: AtomicBool,
    swallows_settlements: AtomicBool,
    /// Renewals wait for it, and arrive then.
    renewals: Semaphore,
    renewals_begun: AtomicBool,
}

impl Slow {
    fn new(state: MemoryState) -> Self {
        Self {
            state,
            swallows_admissions: AtomicBool::new(false),
            swallows_settlements: AtomicBool::new(false),
            renewals: Semaphore::new(1_000),
            renewals_begun: AtomicBool::new(false),
        }
    }
}

impl Quotas for Slow {
    fn take<'a>(&'a self, bucket: &'a str, rate: Rate) -> BoxFuture<'a, Decision> {
        self.state.take(bucket, rate)
    }

    fn peek<'a>(&'a self, bucket: &'a str, rate: Rate) -> BoxFuture<'a, Decision> {
        self.state.peek(bucket, rate)
    }

    fn admit<'a>(&'a self, demand: &'a Demand) -> BoxFuture<'a, Verdict> {
        let verdict = self.state.admit(demand);
        if self.swallows_admissions.load(Ordering::Relaxed) {
            return verdict.then(|_| pending()).boxed();
        }
        verdict
    }

    fn settle<'a>(&'a self, settlement: &'a Settlement) -> BoxFuture<'a, Settled> {
        if self.swallows_settlements.load(Ordering::Relaxed) {
            return pending().boxed();
        }
        self.state.settle(settlement)
    }

    fn renew<'a>(&'a self, held: &'a [Held]) -> BoxFuture<'a, ()> {
        async move {
            self.renewals_begun.store(true, Ordering::Relaxed);
            let _arrived = self.renewals.acquire().await;
            self.state.renew(held).await;
        }
        .boxed()
    }

    fn beat(&self, gateway: OutboxId) -> BoxFuture<'_, ()> {
        self.state.beat(gateway)
    }

    fn open<'a>(
        &'a self,
        buckets: &'a [String],
        afresh: bool,
    ) -> BoxFuture<'a, Option<Vec<UnixMillis>>> {
        self.state.open(buckets, afresh)
    }

    fn seed<'a>(&'a self, seed: &'a Seed) -> BoxFuture<'a, bool> {
        self.state.seed(seed)
    }
}

/// A hub whose key has one place and money for one request of 600 tokens.
fn hub() -> (Hub, Arc<Slow>) {
    let mut hub = Hub::new(0, quota(0, 0, 1, 1_000_000), Quota::default());
    let memory = MemoryState::new(Arc::clone(&hub.clock) as SharedClock, WINDOW);
    let slow = Arc::new(Slow::new(memory));
    hub.limits = Limits::new(Arc::clone(&slow) as Arc<dyn Quotas>, 0);
    (hub, slow)
}

/// Runs the background until the key's place and money are free.
async fn until_free(hub: &Hub) {
    let over = CancellationToken::new();
    let keeping = hub.limits.keep_up(OutboxId::draw(&*hub.clock), &over);
    let asking = async {
        for _ in 0..1_000 {
            if let Ok(mut admission) = hub.ask(600).await {
                admission.cancel().await;
                over.cancel();
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("what was taken did not come back");
    };
    tokio::join!(keeping, asking);
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_is_admitted_leaves_nothing_behind() {
    let (hub, slow) = hub();
    slow.swallows_admissions.store(true, Ordering::Relaxed);
    assert!(poll_immediate(pin!(hub.ask(600))).await.is_none());
    slow.swallows_admissions.store(false, Ordering::Relaxed);
    hub.ask(600).await.unwrap_err();
    until_free(&hub).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_while_its_request_is_given_back_leaves_nothing_behind() {
    let (hub, slow) = hub();
    let mut admission = hub.ask(600).await.unwrap();
    slow.swallows_settlements.store(true, Ordering::Relaxed);
    assert!(poll_immediate(pin!(admission.cancel())).await.is_none());
    drop(admission);
    slow.swallows_settlements.store(false, Ordering::Relaxed);
    until_free(&hub).await;
}

#[tokio::test]
async fn a_renewal_that_arrives_after_the_end_takes_nothing_again() {
    let (hub, slow) = hub();
    let mut admission = hub.ask(600).await.unwrap();
    let all = slow.renewals.acquire_many(1_000).await.unwrap();
    let over = CancellationToken::new();
    let keeping = hub.limits.keep_up(OutboxId::draw(&*hub.clock), &over);
    let mut keeping = pin!(keeping);
    let on_its_way = async {
        while !slow.renewals_begun.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    };
    // The renewal is on its way, and has not arrived.
    tokio::select! {
        () = &mut keeping => panic!("it goes on"),
        () = on_its_way => {}
    }
    hub.settle(&mut admission, 1, 1_000).await;
    drop(all);
    let asking = async {
        while slow.renewals.available_permits() < 1_000 {
            tokio::task::yield_now().await;
        }
        hub.ask(600).await.unwrap();
        over.cancel();
    };
    tokio::join!(keeping, asking);
}
