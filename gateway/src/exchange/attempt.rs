//! Asks providers until one begins to answer.

use std::{future::Future, pin::Pin};

use nexus_events::exchange_event::FailureReason;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    Exchange, Facts,
    client::Client,
    fault::Fault,
    record::Recorder,
    relay::Ending,
    request::{Request, adapter_of},
};
use crate::{
    configuration::Candidate,
    provider::{
        Provider, ProviderError, UpstreamRequest,
        transport::{ERROR_BYTES_MAX, Upstream},
    },
    routing::Next,
};

/// A provider that has begun to answer with a success status.
pub(super) struct Answering {
    pub(super) adapter: &'static dyn Provider,
    pub(super) upstream: Upstream,
}

/// What ends a wait for the provider, or for the broker, beside these.
pub(super) struct Interrupts {
    hard_stop: Pin<Box<WaitForCancellationFutureOwned>>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    on_hang_up: bool,
}

/// How a wait for the provider ended, where it did not end well.
pub(super) enum Interrupted {
    Provider(ProviderError),
    Hub(Fault),
}

impl Interrupts {
    pub(super) fn new(hard_stop: CancellationToken, facts: &Facts) -> Self {
        Self {
            hard_stop: Box::pin(hard_stop.cancelled_owned()),
            cancelled: Box::pin(facts.cancel.clone().cancelled_owned()),
            on_hang_up: facts.cancels(),
        }
    }

    /// Waits for the provider, unless the hub must stop or the client's hanging up ends it.
    pub(super) async fn unless<T>(
        &mut self,
        client: &mut Client,
        provider: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, Interrupted> {
        tokio::select! {
            biased;
            answered = provider => answered.map_err(Interrupted::Provider),
            fault = self.interrupt(client) => Err(Interrupted::Hub(fault)),
        }
    }

    /// Waits until what was written may be shown, unless the same ends it.
    pub(super) async fn released(
        &mut self,
        client: &mut Client,
        recorder: &Recorder,
    ) -> Result<(), Fault> {
        tokio::select! {
            biased;
            released = recorder.released() => released.map_err(Fault::from),
            fault = self.interrupt(client) => Err(fault),
        }
    }

    async fn interrupt(&mut self, client: &mut Client) -> Fault {
        tokio::select! {
            biased;
            () = self.hard_stop.as_mut() => Fault::shutdown(),
            () = self.cancelled.as_mut() => Fault::client_cancelled(),
            () = client.hung_up(), if self.on_hang_up => Fault::client_cancelled(),
        }
    }
}

impl From<Interrupted> for Fault {
    fn from(interrupted: Interrupted) -> Self {
        match interrupted {
            Interrupted::Provider(error) => error.into(),
            Interrupted::Hub(fault) => fault,
        }
    }
}

impl Exchange {
    /// Asks one provider after the other until one answers, and gives the client everything but
    /// the last bytes.
    ///
    /// # Errors
    /// The [`Fault`] of the last one, or what ended the exchange meanwhile; what came before it is
    /// kept.
    pub(super) async fn ask(
        &mut self,
        first: Result<UpstreamRequest, ProviderError>,
        interrupts: &mut Interrupts,
        client: &mut Client,
    ) -> Result<Ending, Fault> {
        let mut encoded = first;
        loop {
            let candidate = self.route.current().clone();
            self.recorder.attempt_started(&candidate)?;
            interrupts.released(client, &self.recorder).await?;
            let is_refused = encoded.is_err();
            self.route.sent();
            let asked = self.ask_one(&candidate, encoded, interrupts, client).await;
            let fault = match asked {
                Ok(ending) => {
                    self.route.succeeded();
                    return Ok(ending);
                }
                Err(fault) => fault,
            };
            let Some(failing) = fault.upstream else {
                self.route.not_asked();
                return Err(fault);
            };
            if is_refused {
                self.route.not_asked();
            } else {
                self.route.failed(failing);
            }
            // What the client sees of one answer is never followed by another.
            if self.recorder.chunks() > 0 || client.has_begun() {
                return Err(fault);
            }
            let next = self.route.next(failing, !is_refused);
            if next == Next::GiveUp || self.no_room().await {
                return Err(fault);
            }
            let fault = fault.without_key(Some(&candidate));
            tracing::warn!(
                request.id = %self.facts.request,
                provider = %candidate.provider.resource.name,
                reason = fault.reason.as_str(),
                "an attempt failed; there is another"
            );
            self.recorder.attempt_ended(Some(fault.failure()))?;
            if let Next::Same(pause) = next {
                let pausing = async {
                    tokio::time::sleep(pause).await;
                    Ok(())
                };
                interrupts.unless(client, pausing).await?;
            }
            encoded = self.encode_again();
        }
    }

    /// Whether the next provider, and all after it, are at their limits.
    async fn no_room(&mut self) -> bool {
        let limits = &self.parts.limits;
        limits.find_room(&mut self.route, None).await.is_err()
    }

    async fn ask_one(
        &mut self,
        candidate: &Candidate,
        encoded: Result<UpstreamRequest, ProviderError>,
        interrupts: &mut Interrupts,
        client: &mut Client,
    ) -> Result<Ending, Fault> {
        let adapter = adapter_of(candidate)?;
        let mut request = encoded?;
        self.facts.hops.note_in(&mut request);
        let sent = self.parts.transport.send(request, self.route.bounds());
        let mut upstream = interrupts.unless(client, sent).await?;
        self.recorder.answered(upstream.status);
        if upstream.status.is_success() {
            let answering = Answering { adapter, upstream };
            return self.relay(answering, interrupts, client).await;
        }
        let body = upstream.body.read_whole(ERROR_BYTES_MAX);
        // An error whose body is cut off or too long is an error still.
        let body = match interrupts.unless(client, body).await {
            Ok(body) => body,
            Err(Interrupted::Provider(_)) => bytes::Bytes::new(),
            Err(Interrupted::Hub(fault)) => return Err(fault),
        };
        Err(adapter
            .decode_error(upstream.status, &upstream.headers, &body)
            .into())
    }

    /// The request for the next candidate, read from the body again: retries are rare.
    fn encode_again(&self) -> Result<UpstreamRequest, ProviderError> {
        let facts = &self.facts;
        let request = Request::parse(facts.operation, &facts.body).map_err(|error| {
            ProviderError::new(FailureReason::Internal, "The body cannot be read again.")
                .caused_by(error)
        })?;
        let ask = (facts.request, facts.arrival, &facts.body);
        request.encode(ask, self.route.current())
    }
}
