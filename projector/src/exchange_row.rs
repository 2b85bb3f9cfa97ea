//! A row of `exchanges`, as the writer loads it and as queries read it.

/// All columns, in the schema's order; see the files in `migrations/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct ExchangeRow {
    pub(crate) request_id: String,
    pub(crate) state: String,
    pub(crate) drawn_ms: i64,
    pub(crate) first_sequence: i64,
    pub(crate) last_sequence: i64,
    pub(crate) operation: Option<String>,
    pub(crate) conversation_id: Option<String>,
    pub(crate) requested_model: Option<String>,
    pub(crate) key_id: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) is_received: bool,
    pub(crate) received_at_ms: Option<i64>,
    pub(crate) stream: Option<bool>,
    pub(crate) route: Option<String>,
    pub(crate) body_bytes: Option<i64>,
    pub(crate) config_sequence: Option<i64>,
    pub(crate) parent_id: Option<String>,
    pub(crate) message_ids: Option<String>,
    pub(crate) terminal_sequence: Option<i64>,
    pub(crate) later_terminals: i64,
    pub(crate) ended_ms: Option<i64>,
    pub(crate) provider_id: Option<String>,
    pub(crate) provider_name: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) response_model: Option<String>,
    pub(crate) response_id: Option<String>,
    pub(crate) input_tokens: Option<i64>,
    pub(crate) output_tokens: Option<i64>,
    pub(crate) usage_source: Option<String>,
    pub(crate) usage_raw: Option<String>,
    pub(crate) attempts: Option<i64>,
    pub(crate) status: Option<i64>,
    pub(crate) received_ms: Option<i64>,
    pub(crate) time_to_first_token_ms: Option<i64>,
    pub(crate) duration_ms: Option<i64>,
    pub(crate) chunks: Option<i64>,
    pub(crate) client_gone: Option<bool>,
    pub(crate) last_message_id: Option<String>,
    pub(crate) choices: Option<String>,
    pub(crate) failure_reason: Option<String>,
    pub(crate) failure_message: Option<String>,
    pub(crate) counted_input_tokens: Option<i64>,
    pub(crate) counted_output_tokens: Option<i64>,
    pub(crate) counted_vocabulary: Option<String>,
    pub(crate) audited_input_tokens: Option<i64>,
    pub(crate) audited_output_tokens: Option<i64>,
    pub(crate) audited_vocabulary: Option<String>,
    pub(crate) presumed_lost_ms: Option<i64>,
    pub(crate) outbox_id: Option<String>,
    pub(crate) presumed_lost_sequence: Option<i64>,
}

/// Tokens of an exchange and who counted them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) prompt: i64,
    pub(crate) completion: i64,
    pub(crate) source: &'static str,
}

impl ExchangeRow {
    /// The tokens that count: the terminal event's, else those that were counted later.
    pub(crate) fn tokens(&self) -> Option<Tokens> {
        self.terminal_sequence?;
        let (prompt, completion, source) = match self.usage_source.as_deref() {
            Some("provider") => (self.input_tokens, self.output_tokens, "provider"),
            Some("cache") => (self.input_tokens, self.output_tokens, "cache"),
            Some(_) => (self.input_tokens, self.output_tokens, "gateway"),
            None => {
                self.counted_input_tokens?;
                let counted = (self.counted_input_tokens, self.counted_output_tokens);
                (counted.0, counted.1, "gateway")
            }
        };
        Some(Tokens {
            prompt: prompt.unwrap_or(0),
            completion: completion.unwrap_or(0),
            source,
        })
    }
}

/// A choice of an answer, as the column `choices` holds it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct ChoiceRow {
    pub(crate) index: u32,
    pub(crate) finish_reason: Option<String>,
    pub(crate) message_id: Option<nexus_events::message_id::MessageId>,
}
