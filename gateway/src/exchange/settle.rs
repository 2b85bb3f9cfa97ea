//! What an exchange has used, for its limits.

use nexus_events::config_event::PricedTokens;

use super::{Exchange, count::Counted};
use crate::{limits::Admission, protocol::openai::response::cached_tokens};

/// Tokens, and what they cost in millionths of the currency.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    tokens: u64,
    cost: u64,
}

impl Exchange {
    /// By the provider's word; nothing where it said nothing.
    pub(super) fn used(&self) -> Used {
        if self.cached.is_hit() {
            return Used { tokens: 0, cost: 0 };
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
    pub(super) fn used_as_counted(&self, counted: &Counted) -> Used {
        self.used_tokens(PricedTokens {
            input: counted.input_tokens,
            cached_input: 0,
            output: counted.output_tokens,
        })
    }

    fn used_tokens(&self, tokens: PricedTokens) -> Used {
        Used {
            tokens: tokens.input.saturating_add(tokens.output),
            cost: self.admission.cost(self.recorder.candidate(), tokens),
        }
    }
}

/// Settles; while it is not known what was used, frees the places, for the client may go on.
pub(super) async fn settle(admission: &mut Admission, used: Option<Used>) {
    match used {
        Some(used) => admission.settle(used.tokens, used.cost).await,
        None => admission.free_places().await,
    }
}
