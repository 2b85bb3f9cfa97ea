//! The response cache: an answer that was given before, given again.
//!
//! *What it is.* Off, until a key or a route says how long answers may be kept
//! (`cache_ttl_seconds`; the key's word goes before the route's, and 0 is never).
//! A deterministic request (`temperature` 0, one choice) that is identical to
//! an earlier one of the same key is answered with the earlier answer.
//!
//! *What it promises.* A hit is an exchange like any other: its events are
//! recorded before the client sees what they record, with no attempt, and with
//! `cache` as the source of its usage: nothing was used. Answers never go from
//! one key to another. A change of whoever may answer, or of how they are
//! reached, is another request. Only whole answers are kept.
//!
//! *What it never does.* It holds no fact: what is lost is asked for again. It
//! costs a key without it nothing; with it, a look into Redis or memory.

use std::time::Duration;

use http::{HeaderMap, header::CACHE_CONTROL};
use nexus_events::config_event::Key;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{
    configuration::Alternatives, protocol::openai::request::ChatRequest, shared::AnswerKey,
};

/// Bytes of an answer that is kept: 1 MiB, far above what a model writes.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Longest time that an answer may be kept: 30 days, in seconds.
pub const TTL_SECONDS_MAX: u32 = 30 * 24 * 60 * 60;

/// Members that do not change what is answered.
const IDLE: [&str; 7] = [
    "user",
    "metadata",
    "store",
    "stream_options",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
];

/// What the client wants of the cache, by its `Cache-Control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// An earlier answer will do.
    pub look: bool,
    /// The answer may be kept.
    pub keep: bool,
}

impl Wish {
    /// Whatever the cache offers.
    pub const ANY: Self = Self {
        look: true,
        keep: true,
    };

    /// What the headers say: `no-cache` wants a new answer, `no-store` leaves no trace.
    pub fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(CACHE_CONTROL).iter();
        let says = values.filter_map(|value| value.to_str().ok());
        let mut wish = Self::ANY;
        for directive in says.flat_map(|value| value.split(',')) {
            let directive = directive.trim();
            if directive.eq_ignore_ascii_case("no-cache") {
                wish.look = false;
            } else if directive.eq_ignore_ascii_case("no-store") {
                wish = Self {
                    look: false,
                    keep: false,
                };
            }
        }
        wish
    }
}

/// What the cache did for a request that it was on for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is an earlier one.
    Hit,
    /// A provider was asked.
    Miss,
}

impl Outcome {
    /// As the header `x-nexus-cache` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
        }
    }
}

/// A request whose answer may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cacheable {
    /// What tells it from others.
    pub key: AnswerKey,
    /// How long its answer may be kept.
    pub ttl: Duration,
}

impl Cacheable {
    /// A request of that key, if its answer may be kept at all.
    pub fn of(request: &ChatRequest<'_>, key: &Key, who: &Alternatives) -> Option<Self> {
        let of_route = || who.route.as_ref().and_then(|route| route.cache_ttl_seconds);
        let ttl = key.cache_ttl_seconds.or_else(of_route)?;
        (ttl > 0 && is_deterministic(request)).then(|| Self {
            key: identity(request, (key, ttl), who),
            ttl: Duration::from_secs(u64::from(ttl)),
        })
    }
}

fn is_deterministic(request: &ChatRequest<'_>) -> bool {
    let member = |name: &str| request.members.get(name).map(RawValue::get);
    let temperature = member("temperature").and_then(|raw| raw.parse::<f64>().ok());
    temperature == Some(0.0) && matches!(member("n"), None | Some("1" | "null"))
}

/// The key, how long its answers are kept now, who may answer and in which form they are now, and every
/// member that matters.
fn identity(request: &ChatRequest<'_>, (key, ttl): (&Key, u32), who: &Alternatives) -> AnswerKey {
    let mut hash = Sha256::new();
    // Each part with its length: no two lists of parts read the same.
    let mut part = |bytes: &[u8]| {
        hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(bytes);
    };
    part(key.id.to_string().as_bytes());
    part(&ttl.to_be_bytes());
    for one in &who.list {
        let (provider, model) = (&one.candidate.provider.resource, &one.candidate.model);
        part(provider.id.to_string().as_bytes());
        part(&provider.updated_ms.as_millis().to_be_bytes());
        part(model.id.to_string().as_bytes());
        part(&model.updated_ms.as_millis().to_be_bytes());
    }
    let mut members: Vec<(&str, &str)> = request
        .members
        .iter()
        .filter(|(name, _)| !IDLE.contains(name))
        .map(|(name, value)| (name, value.get()))
        .collect();
    members.sort_unstable();
    for (name, value) in members {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    AnswerKey::from_bytes(hash.finalize().into())
}

#[cfg(test)]
mod tests;
