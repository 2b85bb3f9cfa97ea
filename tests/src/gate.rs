//! A gate: one side waits at an exact point until the test says go.
//!
//! With a gate in a script a test can kill a part between two given chunks, with no sleep and no
//! luck: it waits until somebody stands at the gate, does its damage, and opens.

use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;

use crate::wait::until;

/// A gate that starts closed; clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate {
    state: watch::Sender<State>,
}

/// How many have come to the gate, and how many may pass.
#[derive(Debug, Clone, Copy)]
struct State {
    arrived: usize,
    may_pass: usize,
}

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self {
            state: watch::Sender::new(State {
                arrived: 0,
                may_pass: 0,
            }),
        }
    }

    /// Opens the gate for everybody, now and later.
    pub fn open(&self) {
        self.state.send_modify(|state| state.may_pass = usize::MAX);
    }

    /// Lets one more through, in the order of arrival.
    pub fn let_one_through(&self) {
        self.state
            .send_modify(|state| state.may_pass = state.may_pass.saturating_add(1));
    }

    /// How many have come to the gate so far, those who passed included.
    pub fn arrived(&self) -> usize {
        self.state.borrow().arrived
    }

    /// Waits until `count` have come to the gate.
    ///
    /// # Errors
    ///
    /// When fewer came in 30 s: far more than any test needs to bring a request to its gate.
    pub async fn reached_by(&self, count: usize) -> Result<()> {
        let what = format!("{count} stand at the gate");
        until(&what, Duration::from_secs(30), async || {
            match self.arrived() {
                arrived if arrived >= count => Ok(()),
                arrived => Err(format!("{arrived} came")),
            }
        })
        .await
    }

    /// Comes to the gate and waits until it lets us through.
    pub async fn pass(&self) {
        let mut place = 0;
        self.state.send_modify(|state| {
            place = state.arrived;
            state.arrived += 1;
        });
        let mut watcher = self.state.subscribe();
        // The wait fails only when the sender is gone, and we hold one.
        drop(watcher.wait_for(|state| place < state.may_pass).await);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn holds_until_opened() {
        let gate = Gate::closed();
        let mut first = Box::pin(gate.pass());
        let mut second = Box::pin(gate.pass());
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending());
        gate.reached_by(2).await.unwrap();

        gate.let_one_through();
        assert!(poll!(&mut first).is_ready());
        assert!(poll!(&mut second).is_pending());

        gate.open();
        assert!(poll!(&mut second).is_ready());
        gate.pass().await;
        assert_eq!(gate.arrived(), 3);
    }
}
