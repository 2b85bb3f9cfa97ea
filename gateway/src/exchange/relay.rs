//! From the provider to the client: whole, or chunk by chunk.

use bytes::{Bytes, BytesMut};
use nexus_events::exchange_event::FailureReason;
use tokio::time::Instant;

use super::{
    Exchange, Operation,
    attempt::{Answering, Interrupts},
    budget::Budget,
    client::Client,
    fault::Fault,
    opening::{Opening, Read, adds_something},
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

/// A stream under way.
struct Streaming {
    adapter: &'static dyn Provider,
    /// For a provider whose events are not OpenAI's.
    translator: Option<Box<dyn Translate>>,
    decoder: SseDecoder,
    opening: Opening,
    budget: Budget,
    /// What the client is to get.
    frames: BytesMut,
}

impl Exchange {
    /// Takes the answer over and gives the client everything but the last bytes.
    ///
    /// # Errors
    /// The [`Fault`] that broke the answer off; what came before is kept.
    pub(super) async fn relay(
        &mut self,
        mut answering: Answering,
        interrupts: &mut Interrupts,
        client: &mut Client,
    ) -> Result<Ending, Fault> {
        if !self.facts.stream || answering.upstream.is_json() {
            return self.whole(answering, interrupts, client).await;
        }
        // An error may stand in a stream's place without saying what it is: no event begins so.
        let first = interrupts.unless(client, answering.upstream.body.peek());
        if first.await?.trim_ascii_start().first() == Some(&b'{') {
            return self.whole(answering, interrupts, client).await;
        }
        let streamed = self.stream(answering, interrupts, client).await;
        let nothing_said = self.recorder.chunks() == 0;
        streamed.map_err(|fault| match fault {
            fault if nothing_said => fault.before_the_answer(),
            fault => fault,
        })
    }

    async fn whole(
        &mut self,
        mut answering: Answering,
        interrupts: &mut Interrupts,
        client: &mut Client,
    ) -> Result<Ending, Fault> {
        let began = Instant::now();
        self.route.first_byte(began, false);
        let body = answering.upstream.body.read_whole(RESPONSE_BYTES_MAX);
        let body = interrupts.unless(client, body).await?;
        if self.facts.operation == Operation::Embeddings {
            let embedded = answering.adapter.decode_embeddings(self.asked(), body)?;
            self.answer_began(began);
            self.answer.take_embeddings(&embedded);
            return Ok(Ending::Whole(embedded.body));
        }
        let body = answering.adapter.translate_response(self.asked(), body)?;
        let answer = answering.adapter.decode_response(&body)?;
        if self.facts.stream {
            let message = "The provider did not stream its answer as it was asked to.";
            return Err(ProviderError::malformed(message).into());
        }
        self.answer_began(began);
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
        let mut stream = Streaming {
            adapter: answering.adapter,
            translator: answering.adapter.translator(self.asked()),
            decoder: SseDecoder::default(),
            opening: Opening::default(),
            budget: Budget::new(),
            frames: BytesMut::new(),
        };
        loop {
            let read = interrupts.unless(client, stream.opening.read(&mut body));
            let flow = match read.await? {
                Read::Bytes(bytes) => {
                    stream.decoder.push(bytes);
                    self.take_in(&mut stream)
                }
                Read::TimeUp => self.end_opening(&mut stream).map(|()| Flow::On),
                Read::End => return self.ended_without_mark(body, &stream.decoder),
            };
            if !stream.frames.is_empty() {
                // Also what came before a fault: it is recorded, and the client's to see.
                interrupts.released(client, &self.recorder).await?;
                self.give(&mut stream, client).await;
            }
            if flow? == Flow::Done {
                return Ok(Ending::Stream(body));
            }
            stream.budget.check()?;
        }
    }

    /// Gives the client frames; what it takes to read them is no doing of the provider's.
    async fn give(&mut self, stream: &mut Streaming, client: &mut Client) {
        let frames = stream.frames.split().freeze();
        if client.has_room() {
            return client.give(frames).await;
        }
        let began = Instant::now();
        self.route.waits();
        client.give(frames).await;
        self.route.goes_on();
        self.recorder.waited(began.elapsed());
        stream.budget.waited();
    }

    /// Records what the decoder holds, and makes frames of it for the client.
    fn take_in(&mut self, stream: &mut Streaming) -> Result<Flow, Fault> {
        let mut translated = Vec::new();
        while let Some(event) = stream.decoder.next_event().map_err(event_too_large)? {
            let Some(translator) = &mut stream.translator else {
                if self.event(stream, &event)? == Flow::Done {
                    return Ok(Flow::Done);
                }
                continue;
            };
            let outcome = translator.event(&event, &mut translated);
            // Also what came before a fault: it is recorded, and the client's to see.
            for event in translated.drain(..) {
                if self.event(stream, &event)? == Flow::Done {
                    return Ok(Flow::Done);
                }
            }
            outcome?;
        }
        Ok(Flow::On)
    }

    fn event(&mut self, stream: &mut Streaming, event: &SseEvent) -> Result<Flow, Fault> {
        match stream.adapter.decode_chunk(event)? {
            Streamed::Chunk(chunk) => {
                let now = Instant::now();
                let adds = adds_something(&chunk.parsed);
                stream.budget.chunk(chunk.json.get().len(), adds, now)?;
                if !stream.opening.keeps(event, &chunk.parsed, now) {
                    self.end_opening(stream)?;
                    self.chunk(&chunk, now, &mut stream.frames)?;
                }
            }
            Streamed::Done => {
                self.end_opening(stream)?;
                return Ok(Flow::Done);
            }
            Streamed::Nothing => {}
        }
        Ok(Flow::On)
    }

    /// Takes what was kept back as what it is: the beginning of the answer.
    fn end_opening(&mut self, stream: &mut Streaming) -> Result<(), Fault> {
        for held in stream.opening.end() {
            if let Streamed::Chunk(chunk) = stream.adapter.decode_chunk(&held.event)? {
                self.chunk(&chunk, held.at, &mut stream.frames)?;
            }
        }
        Ok(())
    }

    fn chunk(
        &mut self,
        chunk: &Chunk<'_>,
        at: Instant,
        frames: &mut BytesMut,
    ) -> Result<(), Fault> {
        let number = self.recorder.chunk(chunk.json, at)?;
        self.cached.chunk(chunk.json);
        if self.first_byte_ms.is_none() {
            self.route.first_byte(at, true);
            self.answer_began(at);
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

    /// Notes when the answer began.
    fn answer_began(&mut self, at: Instant) {
        let took = at.saturating_duration_since(self.facts.arrival.at);
        self.first_byte_ms = Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let metrics = &self.parts.metrics;
        metrics.first_token_seconds.observe(took.as_secs_f64());
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
