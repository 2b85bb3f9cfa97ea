//! Who may use how much, and what it costs: limits, users, prices.

use serde::{Deserialize, Serialize};

use super::Resource;
use crate::{
    clock::UnixMillis,
    id::{PriceId, ProviderId, UserId},
};

/// What the holder of a key, or a user with all keys, may use; `None` for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Requests a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute, of prompts and answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u32>,
    /// Requests under way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<u32>,
    /// Money a calendar month (UTC), in millionths of the currency that prices have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_budget: Option<u64>,
}

/// Someone who holds keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its unique name.
    pub name: String,
    /// What may be used with all of its keys together.
    #[serde(flatten)]
    pub quota: Quota,
    /// When it was created.
    pub created_ms: UnixMillis,
    /// When it was changed last.
    pub updated_ms: UnixMillis,
}

/// What a model's tokens cost from a moment on: a fact with a date, never edited.
///
/// In force is the one that began last; one for a provider goes before one for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Its id.
    pub id: PriceId,
    /// The configured model.
    pub model_name: String,
    /// The provider that it holds for; `None`: every one that has no price of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<ProviderId>,
    /// Millionths of the currency for a million tokens of a prompt.
    pub input_micros_per_million: u64,
    /// The same for tokens of an answer.
    pub output_micros_per_million: u64,
    /// The same for tokens of a prompt that the provider had cached; `None`: as for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input_micros_per_million: Option<u64>,
    /// ISO 4217.
    pub currency: String,
    /// When it begins to hold.
    pub valid_from_ms: UnixMillis,
    /// When it was entered.
    pub created_ms: UnixMillis,
}

/// Tokens as a price counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PricedTokens {
    /// Of the prompt, cached ones included.
    pub input: u64,
    /// Of the prompt, as far as the provider had them cached.
    pub cached_input: u64,
    /// Of the answer.
    pub output: u64,
}

impl Price {
    /// What so many tokens cost, in millionths of the currency, rounded up.
    pub fn cost_micros(&self, tokens: PricedTokens) -> u64 {
        let cached = tokens.cached_input.min(tokens.input);
        let cached_price = self
            .cached_input_micros_per_million
            .unwrap_or(self.input_micros_per_million);
        let parts = [
            (tokens.input - cached, self.input_micros_per_million),
            (cached, cached_price),
            (tokens.output, self.output_micros_per_million),
        ];
        let millionths = parts.into_iter().fold(0_u128, |sum, (tokens, price)| {
            sum.saturating_add(u128::from(tokens).saturating_mul(u128::from(price)))
        });
        u64::try_from(millionths.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

impl Resource for User {
    const KIND: &'static str = "user";
    const EVENT: &'static str = "ai.nexus.config.user_changed.v1";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Resource for Price {
    const KIND: &'static str = "price";
    const EVENT: &'static str = "ai.nexus.config.price_changed.v1";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn a_cost_is_exact_and_rounded_up_once() {
        let zero = UnixMillis::from_millis(0);
        let mut price = Price {
            id: PriceId::draw(&SystemClock),
            model_name: "m".to_owned(),
            provider_id: None,
            input_micros_per_million: 2_500_000,
            output_micros_per_million: 10_000_000,
            cached_input_micros_per_million: Some(1_250_000),
            currency: "USD".to_owned(),
            valid_from_ms: zero,
            created_ms: zero,
        };
        let tokens = |input, cached_input, output| PricedTokens {
            input,
            cached_input,
            output,
        };
        assert_eq!(price.cost_micros(tokens(0, 0, 0)), 0);
        assert_eq!(price.cost_micros(tokens(1, 0, 0)), 3);
        assert_eq!(price.cost_micros(tokens(2, 0, 1)), 15);
        assert_eq!(price.cost_micros(tokens(4, 2, 0)), 8);
        // A provider that says it had more cached than there was.
        assert_eq!(price.cost_micros(tokens(4, 9, 0)), 5);
        assert_eq!(price.cost_micros(tokens(u64::MAX, 0, u64::MAX)), u64::MAX);
        price.cached_input_micros_per_million = None;
        assert_eq!(price.cost_micros(tokens(4, 2, 0)), 10);
    }
}
