//! Limits in the bodies and views of keys and users: the same four members in both.

use nexus_events::config_event::Quota;
use serde::Serialize;

use super::{
    change::set_nullable,
    fields::{Fields, Nullable},
};
use crate::error::ApiError;

/// Money of a budget or price at most: 10^15 millionths, a thousand million of the currency.
///
/// Sums of some such stay exact in Redis, whose scripts count in numbers of 53 bits.
pub const MONEY_MAX: u64 = 1_000_000_000_000_000;

/// Requests at once at most: 100 000, more than one hub serves.
pub const CONCURRENT_MAX: u32 = 100_000;

/// What a body says of the limits.
#[derive(Debug)]
pub(crate) struct QuotaChange {
    requests_per_minute: Nullable<u32>,
    tokens_per_minute: Nullable<u32>,
    concurrent_requests: Nullable<u32>,
    monthly_budget: Nullable<u64>,
}

impl QuotaChange {
    /// Reads the four members.
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            requests_per_minute: fields.nullable_count("requests_per_minute")?,
            tokens_per_minute: fields.nullable_count("tokens_per_minute")?,
            concurrent_requests: fields
                .nullable_number("concurrent_requests", 1..=CONCURRENT_MAX.into())?
                .try_map(|value| u32::try_from(value).map_err(ApiError::internal))?,
            monthly_budget: fields.nullable_number("monthly_budget", 1..=MONEY_MAX)?,
        })
    }

    /// Sets what is named, and notes its name.
    pub(crate) fn apply(&self, quota: &mut Quota, changed: &mut Vec<String>) {
        set_nullable(
            &mut quota.requests_per_minute,
            &self.requests_per_minute,
            "requests_per_minute",
            changed,
        );
        set_nullable(
            &mut quota.tokens_per_minute,
            &self.tokens_per_minute,
            "tokens_per_minute",
            changed,
        );
        set_nullable(
            &mut quota.concurrent_requests,
            &self.concurrent_requests,
            "concurrent_requests",
            changed,
        );
        set_nullable(
            &mut quota.monthly_budget,
            &self.monthly_budget,
            "monthly_budget",
            changed,
        );
    }
}

/// The limits as the API shows them: `null` for none.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct QuotaView {
    requests_per_minute: Option<u32>,
    tokens_per_minute: Option<u32>,
    concurrent_requests: Option<u32>,
    monthly_budget: Option<u64>,
}

impl From<Quota> for QuotaView {
    fn from(quota: Quota) -> Self {
        Self {
            requests_per_minute: quota.requests_per_minute,
            tokens_per_minute: quota.tokens_per_minute,
            concurrent_requests: quota.concurrent_requests,
            monthly_budget: quota.monthly_budget,
        }
    }
}
