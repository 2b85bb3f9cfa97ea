//! What an exchange has used, for its limits.

use nexus_events::config_event::PricedTokens;

use super::{Exchange, count::Counted};
use crate::{
    limits::{Admission, Spent},
    protocol::openai::response::cached_tokens,
};

impl Exchange {
    /// By the provider's word; nothing where it said nothing. `None` before its terminal event: only
    /// what is in the log is charged.
    pub(super) fn used(&self) -> Option<Spent> {
        if self.cached.is_hit() {
            return self.used_tokens(PricedTokens::default());
        }
        let usage = self.answer.usage().unwrap_or_default();
        let cached_input = self.answer.usage_raw().map_or(0, cached_tokens);
        self.used_tokens(PricedTokens {
            input: usage.input_tokens,
            cached_input,
            output: usage.output_tokens,
        })
    }

    /// By the gateway's own count.
    pub(super) fn used_as_counted(&self, counted: &Counted) -> Option<Spent> {
        self.used_tokens(PricedTokens {
            input: counted.input_tokens,
            cached_input: 0,
            output: counted.output_tokens,
        })
    }

    fn used_tokens(&self, tokens: PricedTokens) -> Option<Spent> {
        Some(Spent {
            tokens: tokens.input.saturating_add(tokens.output),
            cost: self.admission.cost(self.recorder.candidate(), tokens),
            ended: self.recorder.ended()?,
        })
    }
}

/// Settles; while it is not known what was used, frees the places, for the client may go on.
pub(super) async fn settle(admission: &mut Admission, used: Option<Spent>) {
    match used {
        Some(used) => admission.settle(used).await,
        None => admission.free_places().await,
    }
}
