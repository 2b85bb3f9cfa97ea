//! From the provider to the client: whole, or chunk by chunk.

use bytes::{Bytes, BytesMut};
use nexus_events::exchange_event::FailureReason;

use super::{
    Exchange, Operation,
    attempt::{Answering, Interrupts},
    client::Client,
    fault::Fault,
    record::millis,
};
use crate::{
    provider::{
        Asked, Chunk, Provider, ProviderError, Streamed, Translate,
        transport::{RESPONSE_BYTES_MAX, UpstreamBody},
    },
    stream::{
        sse_decode::{EventTooLarge, SseDecoder, SseEvent},
        sse_encode,
    },
};

/// What is left to be done for an answer that came whole.
pub(super) enum Ending {
    /// Give the client this body.
    Whole(Bytes),
    /// Give the client the mark that ends a stream; then read the provider's connection to its
    /// end.
    Stream(UpstreamBody),
}

/// Whether a stream goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Done,
}

impl Exchange {
    /// Takes the answer over and gives the client everything but the last bytes.
    ///
    /// # Errors
    /// The [`Fault`] that broke the answer off; what came before is kept.
    pub(super) async fn relay(
        &mut self,
        answering: Answering,
        interrupts: &mut Interrupts,
        client: &mut Client,
    ) -> Result<Ending, Fault> {
        if self.facts.stream && !answering.upstream.is_json() {
            self.stream(answering, interrupts, client).await
        } else {
            self.whole(answering, interrupts, client).await
        }
    }

    async fn whole(
        &mut self,
        mut answering: Answering,
        interrupts: &mut Interrupts,
        client: &mut Client,
    ) -> Result<Ending, Fault> {
        self.first_byte(false);
        let body = answering.upstream.body.read_whole(RESPONSE_BYTES_MAX);
        let body = interrupts.unless(client, body).await?;
        if self.facts.operation == Operation::Embeddings {
            let embedded = answering.adapter.decode_embeddings(self.asked(), body)?;
            self.answer.take_embeddings(&embedded);
            return Ok(Ending::Whole(embedded.body));
        }
        let body = answering.adapter.translate_response(self.asked(), body)?;
        let answer = answering.adapter.decode_response(&body)?;
        if self.facts.stream {
            let message = "The provider did not stream its answer as it was asked to.";
            return Err(ProviderError::malformed(message).into());
        }
        self.answer.take(&answer.response).map_err(too_large)?;
        self.cached.whole(&answer.body);
        Ok(Ending::Whole(answer.body))
    }

    async fn stream(
        &mut self,
        answering: Answering,
        interrupts: &mut Interrupts,
        client: &mut Client,
    ) -> Result<Ending, Fault> {
        let mut body = answering.upstream.body;
        let mut decoder = SseDecoder::default();
        let mut frames = BytesMut::new();
        let mut translator = answering.adapter.translator(self.asked());
        loop {
            let read = interrupts.unless(client, body.read()).await?;
            let Some(bytes) = read else {
                return self.ended_without_mark(body, &decoder);
            };
            decoder.push(bytes);
            let flow = match &mut translator {
                None => self.chunks(answering.adapter, &mut decoder, &mut frames),
                Some(translator) => {
                    let speaker = (answering.adapter, translator.as_mut());
                    self.translated_chunks(speaker, &mut decoder, &mut frames)
                }
            };
            if !frames.is_empty() {
                // Also what came before a fault: it is recorded, and the client's to see.
                self.recorder.released().await?;
                client.give(frames.split().freeze()).await;
            }
            if flow? == Flow::Done {
                return Ok(Ending::Stream(body));
            }
        }
    }

    /// Records what the decoder holds, and makes frames of it for the client.
    fn chunks(
        &mut self,
        adapter: &dyn Provider,
        decoder: &mut SseDecoder,
        frames: &mut BytesMut,
    ) -> Result<Flow, Fault> {
        while let Some(event) = decoder.next_event().map_err(event_too_large)? {
            if self.event(adapter, &event, frames)? == Flow::Done {
                return Ok(Flow::Done);
            }
        }
        Ok(Flow::On)
    }

    /// The same for a provider whose events are not OpenAI's.
    fn translated_chunks(
        &mut self,
        (adapter, translator): (&dyn Provider, &mut (dyn Translate + 'static)),
        decoder: &mut SseDecoder,
        frames: &mut BytesMut,
    ) -> Result<Flow, Fault> {
        let mut translated = Vec::new();
        while let Some(event) = decoder.next_event().map_err(event_too_large)? {
            let outcome = translator.event(&event, &mut translated);
            // Also what came before a fault: it is recorded, and the client's to see.
            for event in translated.drain(..) {
                if self.event(adapter, &event, frames)? == Flow::Done {
                    return Ok(Flow::Done);
                }
            }
            outcome?;
        }
        Ok(Flow::On)
    }

    fn event(
        &mut self,
        adapter: &dyn Provider,
        event: &SseEvent,
        frames: &mut BytesMut,
    ) -> Result<Flow, Fault> {
        match adapter.decode_chunk(event)? {
            Streamed::Chunk(chunk) => self.chunk(&chunk, frames)?,
            Streamed::Done => return Ok(Flow::Done),
            Streamed::Nothing => {}
        }
        Ok(Flow::On)
    }

    fn chunk(&mut self, chunk: &Chunk<'_>, frames: &mut BytesMut) -> Result<(), Fault> {
        let number = self.recorder.chunk(chunk.json)?;
        self.cached.chunk(chunk.json);
        if self.first_byte_ms.is_none() {
            self.first_byte(true);
        }
        self.answer.add(&chunk.parsed).map_err(too_large)?;
        // The hub asked for the usage; the client gets that chunk only if it asked as well.
        if self.facts.include_usage || !chunk.parsed.is_usage_only() {
            sse_encode::numbered(frames, number, chunk.json.get().as_bytes());
        }
        Ok(())
    }

    /// What a translation needs of the request.
    fn asked(&self) -> Asked<'_> {
        Asked {
            id: self.facts.request,
            time: self.facts.arrival.time,
            model: &self.facts.model,
            body: &self.facts.body,
        }
    }

    /// Notes that the answer has begun; `goes_on`: it is a stream.
    pub(super) fn first_byte(&mut self, goes_on: bool) {
        self.route.first_byte(goes_on);
        let began = self.facts.arrival.at;
        self.first_byte_ms = Some(millis(began));
        let seconds = began.elapsed().as_secs_f64();
        self.parts.metrics.first_token_seconds.observe(seconds);
    }

    /// The stream ended without `[DONE]`: some servers leave it out, so an answer that says of
    /// every choice why it stopped is whole. Anything else was cut off.
    fn ended_without_mark(
        &self,
        body: UpstreamBody,
        decoder: &SseDecoder,
    ) -> Result<Ending, Fault> {
        if self.answer.is_finished() && !decoder.inside_event() {
            return Ok(Ending::Stream(body));
        }
        let message = "The provider's stream ended before its end mark.";
        Err(ProviderError::new(FailureReason::UpstreamCut, message).into())
    }
}

fn event_too_large(error: EventTooLarge) -> ProviderError {
    let message = "The provider's stream holds an event that is too large.";
    ProviderError::new(FailureReason::UpstreamTooLarge, message).caused_by(error)
}

fn too_large(error: super::answer::AnswerTooLarge) -> Fault {
    let message = "The provider's answer is larger than the hub takes.";
    ProviderError::new(FailureReason::UpstreamTooLarge, message)
        .caused_by(error)
        .into()
}
