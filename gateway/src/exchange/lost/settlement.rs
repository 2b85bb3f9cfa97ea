//! What is missing of a lost exchange, as the events that settle it.

use nexus_events::{
    clock::Clock,
    envelope::{EncodeError, NO_CONTENT, Record, Stamp},
    exchange_event::{self, About, AttemptEnded, Received, Terminal, TokensCounted},
    id::RequestId,
};

use crate::exchange::{
    answer::{self, AnsweredChoice},
    count::{Counted, Uncounted},
};

/// The events that settle a lost exchange.
#[derive(Debug)]
pub struct Settlement {
    pub(super) request: RequestId,
    pub(super) attempt_ended: Option<AttemptEnded>,
    pub(super) terminal: Option<Terminal>,
    pub(super) choices: Vec<AnsweredChoice>,
    /// What is to be counted; `None` when nothing is.
    pub uncounted: Option<Uncounted>,
    pub(super) count_of: CountOf,
}

/// What `tokens_counted` repeats of the exchange.
#[derive(Debug)]
pub(super) struct CountOf {
    pub(super) received: Received,
    pub(super) provider_name: String,
    pub(super) configured_model: String,
}

impl Settlement {
    /// Whether a terminal event is among what is missing.
    pub const fn is_an_end(&self) -> bool {
        self.terminal.is_some()
    }

    /// Leaves the answer out of the terminal event; the chunks have it, and so does the count.
    pub fn strip(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.strip();
        }
        self.choices.clear();
    }

    /// The end of the attempt and the terminal event, in order; none of them when the log has them.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn records(&self, source: &str, clock: &dyn Clock) -> Result<Vec<Record>, EncodeError> {
        let mut records = Vec::new();
        let (about, names) = (self.about(source), self.names());
        if let Some(ended) = &self.attempt_ended {
            let stamp = Stamp::draw(clock);
            records.push(exchange_event::record(
                about, stamp, names, ended, NO_CONTENT,
            )?);
        }
        if let Some(terminal) = &self.terminal {
            let content = answer::content(&self.choices, None);
            let content = (!self.choices.is_empty()).then_some(&content);
            let stamp = Stamp::draw(clock);
            records.push(exchange_event::record(
                about, stamp, names, terminal, content,
            )?);
        }
        Ok(records)
    }

    /// `tokens_counted`, when [`Self::uncounted`] has been counted.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn counted(
        &self,
        counted: &Counted,
        source: &str,
        clock: &dyn Clock,
    ) -> Result<Record, EncodeError> {
        let data = TokensCounted {
            input_tokens: counted.input_tokens,
            output_tokens: counted.output_tokens,
            vocabulary: counted.vocabulary.clone(),
            audit: false,
            conversation: self.count_of.received.conversation,
            key: self.count_of.received.key,
            provider_name: self.count_of.provider_name.clone(),
            configured_model: self.count_of.configured_model.clone(),
        };
        let stamp = Stamp::draw(clock);
        exchange_event::record(self.about(source), stamp, self.names(), &data, NO_CONTENT)
    }

    const fn about<'a>(&self, source: &'a str) -> About<'a> {
        About {
            source,
            request: self.request,
            traceparent: None,
        }
    }

    fn names(&self) -> (&str, &str) {
        (
            &self.count_of.provider_name,
            &self.count_of.configured_model,
        )
    }
}
