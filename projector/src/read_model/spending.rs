//! Tokens that were used in a time, as far as prices tell them apart.

use std::ops::Range;

use nexus_events::{
    clock::UnixMillis,
    config_event::PricedTokens,
    id::{KeyId, ProviderId},
};

use super::{ReadError, ReadModel, count, parsed};

/// Tokens of one key with one provider's model, of a time in which no price began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedTokens {
    /// The key.
    pub key_id: KeyId,
    /// The provider.
    pub provider_id: ProviderId,
    /// The configured model.
    pub model: String,
    /// When the first of these requests came.
    pub first_ms: UnixMillis,
    /// The tokens.
    pub tokens: PricedTokens,
}

#[derive(sqlx::FromRow)]
struct Row {
    key_id: String,
    provider_id: String,
    model: String,
    first_ms: i64,
    input: i64,
    cached: i64,
    output: i64,
}

impl ReadModel {
    /// Tokens of the requests that came at or after `from` and ended in a time.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn used_tokens(
        &self,
        from: UnixMillis,
        ended: Range<UnixMillis>,
    ) -> Result<Vec<UsedTokens>, ReadError> {
        let mut snapshot = self.snapshot().await?;
        // By the index on the end: nearly all that ended in this time also came in it.
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT key_id, provider_id, model, min(received_ms) AS first_ms,
                 sum(coalesce(input_tokens, counted_input_tokens, 0)) AS input,
                 sum(min(coalesce(input_tokens, 0), coalesce(CAST(json_extract(
                     usage_raw, '$.prompt_tokens_details.cached_tokens') AS INTEGER), 0))) AS cached,
                 sum(coalesce(output_tokens, counted_output_tokens, 0)) AS output
             FROM exchanges
             WHERE ended_ms >= ?2 AND ended_ms < ?3 AND received_ms >= ?1
                 AND key_id IS NOT NULL AND provider_id IS NOT NULL AND model IS NOT NULL
             GROUP BY key_id, provider_id, model,
                 (SELECT count(*) FROM prices WHERE valid_from_ms <= received_ms)
             ORDER BY key_id, provider_id, model, first_ms",
        )
        .bind(from.as_millis())
        .bind(ended.start.as_millis())
        .bind(ended.end.as_millis())
        .fetch_all(&mut *snapshot)
        .await?;
        rows.into_iter().map(Row::used).collect()
    }
}

impl Row {
    fn used(self) -> Result<UsedTokens, ReadError> {
        const TABLE: &str = "exchanges";
        Ok(UsedTokens {
            key_id: parsed(TABLE, "key_id", &self.key_id)?,
            provider_id: parsed(TABLE, "provider_id", &self.provider_id)?,
            model: self.model,
            first_ms: UnixMillis::from_millis(self.first_ms),
            tokens: PricedTokens {
                input: count(TABLE, "input_tokens", self.input)?,
                cached_input: count(TABLE, "usage_raw", self.cached.max(0))?,
                output: count(TABLE, "output_tokens", self.output)?,
            },
        })
    }
}
