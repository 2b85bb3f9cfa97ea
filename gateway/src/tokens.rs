//! The gateway's own token counts: for answers whose provider gave none, and to audit the others.
//!
//! *What it is.* Texts are cut into tokens with the published vocabularies
//! ([`vocabulary`]); what a chat format adds to its texts is estimated with
//! figures measured against `OpenAI`'s API ([`chat`]). For other vendors'
//! models, whose vocabularies are not public, the count is a fair estimate, and
//! every count names the vocabulary that it was made with.
//!
//! *What it promises.* Counting happens on threads of its own, a bounded number
//! at once; who comes later waits its turn in the order of coming. What waits
//! is bounded by the bodies of the exchanges ([`BODIES_KIB_MAX`]). No count that
//! is owed is dropped: where there is nothing to count by, four bytes are a
//! token. An audit is not owed: it is made when a thread is free, or not at all.
//!
//! A vocabulary is loaded when it is first needed: about a tenth of a second
//! and some 50 MiB each, which a hub whose providers all give their usage, and
//! which audits none of them, never pays.
//!
//! [`BODIES_KIB_MAX`]: crate::exchange::count::BODIES_KIB_MAX

pub mod chat;
pub mod vocabulary;

use std::{num::NonZero, sync::Arc, thread::available_parallelism};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::exchange::count::{CountTokens, Counted, Uncounted};
use vocabulary::Vocabulary;

/// Named as the vocabulary of a count that is a guess.
pub const GUESS: &str = "bytes/4";

/// Counts tokens on blocking threads; a cheap handle.
#[derive(Clone, Debug)]
pub struct TokenCounter {
    tracker: TaskTracker,
    turns: Arc<Semaphore>,
}

impl TokenCounter {
    /// Counts on that tracker, on half of the machine's cores at once and on one at least:
    /// requests need the others.
    pub fn new(tracker: TaskTracker) -> Self {
        let cores = available_parallelism().map_or(1, NonZero::get);
        Self::with_turns(tracker, cores.div_ceil(2))
    }

    fn with_turns(tracker: TaskTracker, turns: usize) -> Self {
        Self {
            tracker,
            turns: Arc::new(Semaphore::new(turns)),
        }
    }

    /// Counts on a thread of its own; whoever calls it has a turn.
    async fn counted(&self, uncounted: Uncounted) -> Counted {
        let uncounted = Arc::new(uncounted);
        let counting = Arc::clone(&uncounted);
        let count = self.tracker.spawn_blocking(move || count(&counting)).await;
        count.unwrap_or_else(|error| {
            tracing::error!(
                request.id = %uncounted.request,
                error = &error as &dyn std::error::Error,
                "the tokenizer failed: tokens are guessed"
            );
            guess(&uncounted)
        })
    }
}

impl CountTokens for TokenCounter {
    fn count(&self, uncounted: Uncounted) -> BoxFuture<'_, Counted> {
        async {
            // Only a closed semaphore refuses, and nobody closes this one.
            let _turn = self.turns.acquire().await;
            self.counted(uncounted).await
        }
        .boxed()
    }

    fn count_if_idle(&self, uncounted: Uncounted) -> BoxFuture<'_, Option<Counted>> {
        async {
            // Refused also while others wait: they are owed their counts.
            let _turn = self.turns.try_acquire().ok()?;
            Some(self.counted(uncounted).await)
        }
        .boxed()
    }
}

fn count(uncounted: &Uncounted) -> Counted {
    let Some(vocabulary) = Vocabulary::of_model(&uncounted.model) else {
        return guess(uncounted);
    };
    let Ok(request) = serde_json::from_slice(&uncounted.body) else {
        return guess(uncounted);
    };
    let answers =
        uncounted
            .choices
            .iter()
            .map(|choice| match serde_json::from_str(choice.message.get()) {
                Ok(message) => chat::answer(&vocabulary, &message),
                Err(_unreadable) => quarter(choice.message.get().len()),
            });
    Counted {
        input_tokens: chat::request(&vocabulary, &request),
        output_tokens: answers.sum(),
        vocabulary: vocabulary.name().to_owned(),
    }
}

/// Four bytes a token: what English prose comes to.
fn guess(uncounted: &Uncounted) -> Counted {
    let answers = uncounted.choices.iter();
    Counted {
        input_tokens: quarter(uncounted.body.len()),
        output_tokens: answers
            .map(|choice| quarter(choice.message.get().len()))
            .sum(),
        vocabulary: GUESS.to_owned(),
    }
}

fn quarter(bytes: usize) -> u64 {
    u64::try_from(bytes.div_ceil(4)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
