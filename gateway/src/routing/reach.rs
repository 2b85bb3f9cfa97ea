//! Looks at every provider now and then, whether anybody answers there.
//!
//! What traffic shows is better, and traffic alone opens breakers; but nobody
//! asks a provider that was away, and operators want to know of one that
//! nobody uses. A look is a GET of the provider's address without a key: any
//! answer will do, an error as well. The first round comes after one interval,
//! so that a restart of all gateways does not look at everybody at once; the
//! looks of a round are spread over it.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use nexus_events::id::ProviderId;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::Routing;
use crate::{configuration::Configuration, provider::transport::Transport};

/// Looks at once: 8, so that providers who do not answer for ten seconds hold up few others.
const LOOKS_MAX: usize = 8;

/// The looking task.
#[derive(Debug)]
pub struct Looks {
    /// Time of a round; zero: nobody is looked at.
    pub interval: Duration,
    /// Where is told what was seen.
    pub routing: Routing,
    /// The way to providers.
    pub transport: Transport,
    /// Who is configured.
    pub configuration: Configuration,
}

impl Looks {
    /// Looks until it is over.
    pub async fn run(self, over: CancellationToken) {
        if self.interval.is_zero() {
            return;
        }
        let looking = async {
            let mut round = Instant::now() + self.interval;
            loop {
                sleep_until(round).await;
                self.round(round).await;
                // One that took longer is followed at once, and none is made up for.
                round = (round + self.interval).max(Instant::now());
            }
        };
        over.run_until_cancelled(looking).await;
    }

    async fn round(&self, began: Instant) {
        let snapshot = self.configuration.current();
        let all: Vec<_> = snapshot
            .providers()
            .map(|entry| entry.resource.resource.id)
            .collect();
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX).max(1);
        let step = self.interval / count;
        let looks = all
            .into_iter()
            .zip(0..count)
            .map(|(provider, place)| self.look(provider, began + step.saturating_mul(place)));
        let mut looks = stream::iter(looks).buffer_unordered(LOOKS_MAX);
        while looks.next().await.is_some() {}
    }

    /// Looks at a provider when its turn comes, as it is configured then.
    async fn look(&self, provider: ProviderId, turn: Instant) {
        sleep_until(turn).await;
        let snapshot = self.configuration.current();
        let Some(entry) = snapshot.provider(provider) else {
            return;
        };
        let record = &entry.resource;
        // The built-in one has no address.
        let Ok(url) = Url::parse(&record.resource.server_url) else {
            return;
        };
        let reached = self.transport.reach(url).await;
        if let Err(error) = &reached {
            tracing::debug!(
                provider = %record.resource.name,
                error = error as &dyn std::error::Error,
                "the provider cannot be reached"
            );
        }
        let snapshot = self.configuration.current();
        self.routing.looked(&snapshot, record, reached.is_ok());
    }
}
