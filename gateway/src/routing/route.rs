//! The way of one request through those who may answer it.

use std::{sync::Arc, time::Duration};

use nexus_events::{config_event, exchange_event::FailureReason};
use tokio::time::Instant;

use super::{
    Contender, Failing, Inner,
    choice::{How, Standing, choose},
    standing::Call,
};
use crate::{
    configuration::Candidate,
    provider::{Retry, Target, transport::Bounds},
    settings::Secret,
};

/// Tries for one request: 3. Who fails three times is not unlucky, and the client waits.
const ATTEMPTS: u32 = 3;

/// First pause before a provider that is alone is asked again: 100 ms, doubled each time.
const PAUSE: Duration = Duration::from_millis(100);

/// `Retry-After` of a provider that is alone is waited for up to 2 s.
///
/// A client that is told to come back later does that better than a request that is held open.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The providers that may answer one request, and how far they have been tried.
#[derive(Debug)]
pub struct Route {
    routing: Arc<Inner>,
    configured: Option<Arc<config_event::Route>>,
    contenders: Vec<Contender>,
    place: usize,
    current: Candidate,
    /// `None` while nobody is being asked.
    call: Option<Call>,
    attempt: u32,
}

/// What is to be done after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask the one that is current now.
    Another,
    /// Ask the same one again after that time.
    Same(Duration),
    /// Nobody is to be asked any more.
    GiveUp,
}

impl Route {
    /// Chooses the first one; `None` when there is nobody.
    pub(super) fn open(
        routing: &Arc<Inner>,
        configured: Option<Arc<config_event::Route>>,
        contenders: Vec<Contender>,
    ) -> Option<Self> {
        let current = contenders.first()?.candidate.clone();
        let mut route = Self {
            routing: Arc::clone(routing),
            configured,
            contenders,
            place: 0,
            current,
            call: None,
            attempt: 1,
        };
        route.choose().then_some(route)
    }

    /// Who is asked now.
    pub const fn current(&self) -> &Candidate {
        &self.current
    }

    /// All who may answer.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.contenders.iter().map(|one| &one.candidate)
    }

    /// Leaves out those who are no candidates for this request; `false` when nobody is left.
    pub fn narrow(&mut self, is_one: impl Fn(&Candidate) -> bool) -> bool {
        let before = self.contenders.iter().take(self.place);
        let place = before.filter(|one| is_one(&one.candidate)).count();
        self.contenders.retain(|one| is_one(&one.candidate));
        if is_one(&self.current) {
            self.place = place;
            return true;
        }
        self.choose()
    }

    /// Number of the present attempt, from 1.
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How long to wait for whoever is asked.
    pub fn bounds(&self) -> Bounds {
        let millis = |millis: u32| Duration::from_millis(u64::from(millis));
        let route = self.configured.as_ref();
        Bounds {
            first_byte: route
                .and_then(|route| route.first_byte_timeout_ms)
                .map(millis),
            idle: route.and_then(|route| route.idle_timeout_ms).map(millis),
        }
    }

    /// Passes over a provider that is not to be asked; `false` when there is no other.
    pub fn skip(&mut self) -> bool {
        if !self.has_others() {
            return false;
        }
        if let Some(contender) = self.contenders.get_mut(self.place) {
            contender.spent = true;
        }
        self.choose()
    }

    /// The request leaves now.
    pub fn sent(&mut self) {
        if self.call.is_none() {
            self.begin();
        }
        if let Some(call) = &mut self.call {
            call.sent();
        }
    }

    /// The one that is current was not asked in the end.
    pub fn not_asked(&mut self) {
        self.call = None;
    }

    /// The first byte came at that moment; `goes_on`: it was the first of a stream.
    pub fn first_byte(&mut self, at: Instant, goes_on: bool) {
        if let Some(call) = &mut self.call {
            call.first_byte(at, goes_on);
        }
    }

    /// The hub waits for the client to read; until [`Self::goes_on`] nothing is learnt.
    pub fn waits(&mut self) {
        if let Some(call) = &mut self.call {
            call.waits();
        }
    }

    /// The client has read.
    pub fn goes_on(&mut self) {
        if let Some(call) = &mut self.call {
            call.goes_on();
        }
    }

    /// The answer is whole.
    pub fn succeeded(&mut self) {
        if let Some(mut call) = self.call.take() {
            call.succeeded();
        }
    }

    /// The provider failed, before its answer or in the middle of it.
    pub fn failed(&mut self, failing: Failing) {
        let nobodys_fault = self.is_turned_away(failing);
        if let Some(mut call) = self.call.take()
            && !nobodys_fault
        {
            call.failed(failing);
        }
    }

    /// Whom to ask after a failure before the first byte; `asked`: a provider really was.
    pub fn next(&mut self, failing: Failing, asked: bool) -> Next {
        let attempts = self.configured.as_ref().and_then(|route| route.attempts);
        if self.attempt >= attempts.map_or(ATTEMPTS, u32::from) {
            return Next::GiveUp;
        }
        let mut next = self.here(failing, asked);
        if next == Next::GiveUp && self.has_others() {
            next = self.elsewhere(failing);
        }
        // A refusal of ours has cost no provider anything, so another try does not either.
        if next == Next::GiveUp || (asked && !self.is_affordable()) {
            return Next::GiveUp;
        }
        if next == Next::Another && !self.skip() {
            return Next::GiveUp;
        }
        self.attempt += 1;
        self.routing.metrics.retries.inc();
        next
    }

    /// Whether the provider's server did nothing with the request, as happens when it ends a connection.
    ///
    /// Once. Who does so twice is in trouble.
    fn is_turned_away(&self, failing: Failing) -> bool {
        failing.retry == Retry::Again && self.attempt == 1
    }

    fn is_affordable(&self) -> bool {
        let affordable = self.routing.budget.retry(Instant::now());
        if !affordable {
            self.routing.metrics.retries_refused.inc();
        }
        affordable
    }

    fn others(&self) -> impl Iterator<Item = &Contender> {
        let numbered = self.contenders.iter().enumerate();
        let others = numbered.filter(|(place, _)| *place != self.place);
        others.map(|(_, one)| one)
    }

    fn has_others(&self) -> bool {
        self.others().any(|one| !one.spent)
    }

    /// Whether there is nobody else, or only such as are not to be asked now.
    fn is_alone(&self) -> bool {
        let now = Instant::now();
        self.others()
            .all(|one| !one.spent && one.blocked(now).is_some())
    }

    /// `Retry-After` is about the provider that failed; another may be asked at once.
    fn elsewhere(&self, failing: Failing) -> Next {
        let route = self.configured.as_ref();
        // Whoever bounds the wait for the first byte wants another to be asked then, at the price
        // of a request that may be carried out twice; the general bound is minutes long and no
        // client waits for more of them.
        let is_impatient = route.is_some_and(|route| route.first_byte_timeout_ms.is_some());
        match failing.retry {
            Retry::Now | Retry::Again | Retry::After(_) => Next::Another,
            Retry::Never if is_impatient && failing.reason == FailureReason::UpstreamTimeout => {
                Next::Another
            }
            // What it will not do for anybody another may do.
            Retry::Never if failing.is_refusal() => Next::Another,
            Retry::Never => Next::GiveUp,
        }
    }

    /// Who is alone is asked again where that may help; nobody else is asked twice for a fault.
    fn here(&self, failing: Failing, asked: bool) -> Next {
        if self.is_turned_away(failing) {
            return Next::Same(Duration::ZERO);
        }
        if !asked || !failing.may_pass() || !self.is_alone() {
            return Next::GiveUp;
        }
        match failing.retry {
            Retry::Never => Next::GiveUp,
            Retry::After(wait) if wait > WAIT_MAX => Next::GiveUp,
            Retry::After(wait) => Next::Same(wait),
            Retry::Now | Retry::Again => {
                // Half of it to all of it, so that those who failed together do not return together.
                let pause = PAUSE.saturating_mul(1 << (self.attempt - 1).min(8)) / 2;
                let millis = usize::try_from(pause.as_millis()).unwrap_or(0);
                let more = u64::try_from(self.routing.chance.below(millis)).unwrap_or(0);
                Next::Same(pause + Duration::from_millis(more))
            }
        }
    }

    /// Chooses among those that are left and begins the call.
    fn choose(&mut self) -> bool {
        self.call = None;
        // Somebody else may take a probe's place between the choice and the call: then whoever
        // it was is blocked, and the next choice falls on another.
        for _ in 0..=self.contenders.len() {
            let now = Instant::now();
            let standings = self.contenders.iter().map(|one| one.standing(now));
            let standings: Vec<Standing> = standings.collect();
            let Some(chosen) = choose(&standings, &self.routing.chance) else {
                return false;
            };
            let Some(contender) = self.contenders.get(chosen.place) else {
                return false;
            };
            self.place = chosen.place;
            self.current = contender.candidate.clone();
            if self.begin() || chosen.how == How::LongestBlocked {
                return true;
            }
            self.call = None;
        }
        self.begin();
        true
    }

    /// Begins the call of the current one; `false` when its breaker would rather not.
    fn begin(&mut self) -> bool {
        let Some(one) = self.contenders.get(self.place) else {
            return false;
        };
        let record = &one.candidate.provider;
        let call = Call::begin(&self.routing, record, &one.known, &one.load);
        let willing = !call.is_forced();
        self.call = Some(call);
        willing
    }
}

/// Where a request to that candidate goes.
pub fn target(candidate: &Candidate) -> Target<'_> {
    let model = &candidate.model;
    Target {
        server_url: &candidate.provider.resource.server_url,
        server_key: candidate.provider.server_key.as_ref().map(Secret::expose),
        model: model.upstream_model.as_ref().unwrap_or(&model.model_name),
    }
}
