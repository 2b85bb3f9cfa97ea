//! Whom a request would go to, and why: for people, changing nothing.
//!
//! The limits of providers are looked at and not taken from: a request passes
//! over a provider whose limit is used up, so here it is passed over, too.

use std::{collections::BTreeMap, time::Duration};

use nexus_events::{
    audit_event::BreakerState,
    id::{ProviderId, RouteId},
};
use tokio::time::Instant;

use super::{
    Routing,
    choice::{Chosen, How, Standing, Why, choose},
};
use crate::{
    configuration::{Candidate, Snapshot},
    shared::Decision,
};

/// How the limits of the providers that have one stand now.
pub type ProviderLimits = BTreeMap<ProviderId, Decision>;

/// How a request for one name would go.
#[derive(Debug)]
pub struct Explained {
    /// The route of that name; `None` for the implicit one.
    pub route: Option<RouteId>,
    /// All who may answer, by priority.
    pub rows: Vec<Row>,
    /// Place of the one that would be asked.
    pub chosen: Option<usize>,
    /// Why, in a sentence.
    pub because: String,
}

/// One of those who may answer.
#[derive(Debug)]
pub struct Row {
    /// Who it is.
    pub candidate: Candidate,
    /// Group.
    pub priority: u8,
    /// Share within the group.
    pub weight: u16,
    /// Whether the provider is asked.
    pub breaker: BreakerState,
    /// The latest time to the first byte of this model there.
    pub latency: Option<Duration>,
    /// Requests under way to this model there.
    pub in_flight: u32,
    /// What the choice compares.
    pub cost: Duration,
    /// How the provider's limit stands; `None` where it has none.
    pub limit: Option<Decision>,
    /// Why it is not to be asked while there is another.
    pub blocked: Option<Why>,
}

impl Routing {
    /// How a request for that name would go now; `None` when nobody offers it.
    pub fn explain(
        &self,
        snapshot: &Snapshot,
        model: &str,
        limits: &ProviderLimits,
    ) -> Option<Explained> {
        let alternatives = snapshot.alternatives(model)?;
        let contenders = self.inner.contenders(snapshot, alternatives.list.iter());
        let now = Instant::now();
        let limit = |one: &Candidate| limits.get(&one.provider.resource.id).copied();
        let standings = contenders.iter().map(|one| Standing {
            // A request passes over it.
            spent: limit(&one.candidate).is_some_and(|limit| !limit.allowed),
            ..one.standing(now)
        });
        let standings: Vec<Standing> = standings.collect();
        let chosen = choose(&standings, &self.inner.chance);
        let rows: Vec<Row> = contenders
            .into_iter()
            .zip(&standings)
            .map(|(one, standing)| Row {
                priority: one.priority,
                weight: one.weight,
                breaker: one.known.breaker(),
                latency: one.load.latency(),
                in_flight: one.load.in_flight(),
                cost: standing.cost,
                limit: limit(&one.candidate),
                blocked: blocked(standing),
                candidate: one.candidate,
            })
            .collect();
        let because = chosen.map_or_else(|| NO_ROOM.to_owned(), |chosen| sentence(chosen, &rows));
        Some(Explained {
            route: alternatives.route.as_ref().map(|route| route.id),
            rows,
            chosen: chosen.map(|chosen| chosen.place),
            because,
        })
    }
}

/// Why nobody would be asked.
const NO_ROOM: &str = "The rate limits of all candidates' providers are used up: a request would be refused with 429.";

fn blocked(standing: &Standing) -> Option<Why> {
    let why = standing.blocked.map(|blocked| blocked.why);
    why.or(standing.spent.then_some(Why::RateLimited))
}

fn sentence(chosen: Chosen, rows: &[Row]) -> String {
    let Some(row) = rows.get(chosen.place) else {
        return String::new();
    };
    let priority = row.priority;
    match chosen.how {
        How::Only => format!("It is the only usable candidate of priority {priority}."),
        How::Cheaper(2) => format!(
            "It costs no more than the other usable candidate of priority {priority}, which has the same weight."
        ),
        How::Cheaper(count) => format!(
            "Of the {count} usable candidates of priority {priority}, which have the same weight, two were drawn, and it is the cheaper one."
        ),
        How::Drawn(count) => format!(
            "It was drawn by weight from the {count} usable candidates of priority {priority}."
        ),
        How::LongestBlocked => {
            "No candidate is usable, and this one has not been for longest.".to_owned()
        }
    }
}
