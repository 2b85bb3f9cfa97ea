//! Token usage: integers, added with overflow in mind.

use serde::{Deserialize, Serialize};

/// Tokens of one exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Tokens of the prompt, cached ones included.
    #[serde(rename = "gen_ai.usage.input_tokens")]
    pub input_tokens: u64,
    /// Tokens of the answer, reasoning included.
    #[serde(rename = "gen_ai.usage.output_tokens")]
    pub output_tokens: u64,
}

impl TokenUsage {
    /// Both together; `u64::MAX` instead of an overflow.
    pub const fn total(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// Who counted the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The provider's own usage block: the truth when there is one.
    Provider,
    /// The gateway's tokenizer.
    Gateway,
    /// Nobody: the answer came out of the cache, and nothing was used.
    Cache,
}
