//! What follows an exchange's end: its token count where the provider gave none, and the audits.

use std::error::Error;

use nexus_events::{
    envelope::{EncodeError, NO_CONTENT, Record},
    exchange_event::TokensCounted,
    outbox::OpenCount,
    usage::TokenUsage,
};

use super::{UNWRITTEN_PAUSE, UNWRITTEN_PAUSE_MAX};
use crate::exchange::{
    Exchange, Operation,
    answer::AnsweredChoice,
    count::{Counted, Uncounted},
    settle::settle,
};

impl Exchange {
    /// Counts what the provider did not; the exchange stays open for it until it is written.
    pub(super) async fn count(mut self, mut count: OpenCount, choices: Vec<AnsweredChoice>) {
        let uncounted = self.uncounted(choices);
        let counting = self.parts.counting.clone();
        let counted = tokio::select! {
            biased;
            counted = counting.count(uncounted) => counted,
            () = self.parts.hard_stop.cancelled() => return,
        };
        let used = self.used_as_counted(&counted);
        let record = match self.tokens_counted(counted, false) {
            Ok(record) => record,
            Err(error) => return self.unrecorded(&error.into()),
        };
        let mut pause = UNWRITTEN_PAUSE;
        while let Err(error) = count.close(&record) {
            tracing::warn!(
                request.id = %self.facts.request,
                error = &error as &dyn Error,
                "a token count waits for the outbox"
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.parts.hard_stop.cancelled() => return,
            }
            pause = (pause * 2).min(UNWRITTEN_PAUSE_MAX);
        }
        // After it is written: what comes too late to be charged is read from there.
        settle(&mut self.admission, used).await;
        drop(self.backlog);
    }

    /// Counts what the provider counted, if the exchange is in the sample and a thread is free.
    ///
    /// The exchange is closed already, whatever becomes of this. `counted`: what the provider
    /// says of an answer that came whole; a part of one is no measure.
    pub(super) async fn audit(self, counted: Option<TokenUsage>, choices: Vec<AnsweredChoice>) {
        let Some(provider) = counted else { return };
        // Vectors have no tokens that anybody could count.
        if self.facts.operation == Operation::Embeddings {
            return;
        }
        let counting = self.parts.counting.clone();
        if !counting.is_in_sample(self.facts.request) {
            return;
        }
        let uncounted = self.uncounted(choices);
        let hub = tokio::select! {
            biased;
            hub = counting.audit(uncounted) => hub,
            () = self.parts.hard_stop.cancelled() => None,
        };
        let audits = &self.parts.metrics.token_audits;
        let Some(hub) = hub else {
            return audits.dropped();
        };
        let of_hub = (hub.input_tokens, hub.output_tokens);
        let recorded = self
            .tokens_counted(hub, true)
            .is_ok_and(|record| self.parts.outbox.append(&record).is_ok());
        if recorded {
            audits.audited((provider.input_tokens, provider.output_tokens), of_hub);
        } else {
            audits.dropped();
        }
    }

    fn uncounted(&self, choices: Vec<AnsweredChoice>) -> Uncounted {
        Uncounted {
            request: self.facts.request,
            model: self.recorder.upstream_model().to_owned(),
            body: self.facts.body.clone(),
            choices,
        }
    }

    fn tokens_counted(&self, counted: Counted, audit: bool) -> Result<Record, EncodeError> {
        let (provider, model) = self.recorder.names();
        let data = TokensCounted {
            input_tokens: counted.input_tokens,
            output_tokens: counted.output_tokens,
            vocabulary: counted.vocabulary,
            audit,
            conversation: self.facts.conversation,
            key: self.facts.key.id,
            provider_name: provider.to_owned(),
            configured_model: model.to_owned(),
        };
        self.recorder.record(&data, NO_CONTENT)
    }
}
