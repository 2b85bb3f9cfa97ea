//! Subjects and streams: the one place that builds and parses their names.
//!
//! Only configured names enter a subject, never what a client typed, because
//! the broker keeps some 300 bytes of memory for each distinct subject. Every
//! token is sanitised: a dot, a wildcard or a blank would change the meaning of
//! the subject, so they become `_`.

use std::fmt;

use crate::id::{OutboxId, RequestId};

/// Number of shards that the subjects of exchanges and chunks are spread over.
///
/// A reader that follows one request reads 1/64 of a stream; more shards would
/// multiply the distinct subjects that the broker keeps in memory.
pub const SHARDS: u8 = 64;

/// The declared streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Providers, models, keys, settings: kept for ever.
    Config,
    /// The life of each request.
    Exchanges,
    /// Each streamed chunk.
    Chunks,
    /// Management calls, refused access, backups, retention.
    Audit,
    /// Closed daily statistics, kept for ever.
    Rollups,
}

impl Stream {
    /// All of them, in the order in which they are created.
    pub const ALL: [Self; 5] = [
        Self::Config,
        Self::Exchanges,
        Self::Chunks,
        Self::Audit,
        Self::Rollups,
    ];

    /// The stream's name on the broker.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "NEXUS_CONFIG",
            Self::Exchanges => "NEXUS_EXCHANGES",
            Self::Chunks => "NEXUS_CHUNKS",
            Self::Audit => "NEXUS_AUDIT",
            Self::Rollups => "NEXUS_ROLLUPS",
        }
    }

    /// The filter that matches the stream's events and none of its cursors.
    pub const fn events(self) -> &'static str {
        match self {
            Self::Config => "nexus.config.>",
            Self::Exchanges => "nexus.exchange.>",
            Self::Chunks => "nexus.chunk.>",
            Self::Audit => "nexus.audit.>",
            Self::Rollups => "nexus.rollup.>",
        }
    }

    /// The lane of an outbox that feeds the stream, if one does.
    pub const fn lane(self) -> Option<Lane> {
        match self {
            Self::Exchanges => Some(Lane::Exchanges),
            Self::Chunks => Some(Lane::Chunks),
            Self::Audit => Some(Lane::Audit),
            Self::Config | Self::Rollups => None,
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A lane of an outbox: what is shipped, in order, to one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// To `NEXUS_EXCHANGES`.
    Exchanges = 0,
    /// To `NEXUS_CHUNKS`.
    Chunks = 1,
    /// To `NEXUS_AUDIT`.
    Audit = 2,
}

impl Lane {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Exchanges, Self::Chunks, Self::Audit];

    /// The number that stands for the lane in an outbox record.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The number as an index into per-lane arrays.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The lane with that number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Exchanges),
            1 => Some(Self::Chunks),
            2 => Some(Self::Audit),
            _ => None,
        }
    }

    /// The name in cursor subjects, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exchanges => "exchanges",
            Self::Chunks => "chunks",
            Self::Audit => "audit",
        }
    }

    /// The stream that the lane ships to.
    pub const fn stream(self) -> Stream {
        match self {
            Self::Exchanges => Stream::Exchanges,
            Self::Chunks => Stream::Chunks,
            Self::Audit => Stream::Audit,
        }
    }

    /// The filter that matches every cursor of the lane.
    pub fn cursors(self) -> String {
        format!("nexus.outbox.{}.>", self.name())
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The shard of a request, 0–63: the low six bits of its id, which are random.
pub fn shard(request: RequestId) -> u8 {
    let bytes = request.as_uuid().into_bytes();
    bytes.last().copied().unwrap_or(0) % SHARDS
}

/// `nexus.exchange.<shard>.<event>.<provider>.<model>`; `_` for a name not known yet.
pub fn exchange(request: RequestId, event: &str, provider: &str, model: &str) -> String {
    let shard = shard(request);
    let (event, provider, model) = (token(event), token(provider), token(model));
    format!("nexus.exchange.{shard}.{event}.{provider}.{model}")
}

/// `nexus.chunk.<shard>.<provider>.<model>`.
pub fn chunk(request: RequestId, provider: &str, model: &str) -> String {
    let shard = shard(request);
    format!("nexus.chunk.{shard}.{}.{}", token(provider), token(model))
}

/// Every exchange event of one shard.
pub fn exchange_shard(shard: u8) -> String {
    format!("nexus.exchange.{shard}.>")
}

/// Every chunk of one shard.
pub fn chunk_shard(shard: u8) -> String {
    format!("nexus.chunk.{shard}.>")
}

/// `nexus.config.<kind>.<id>`.
pub fn config(kind: &str, id: &str) -> String {
    format!("nexus.config.{}.{}", token(kind), token(id))
}

/// Every resource of one kind: what a creation's expected sequence spans.
pub fn config_kind(kind: &str) -> String {
    format!("nexus.config.{}.>", token(kind))
}

/// `nexus.audit.<kind>`.
pub fn audit(kind: &str) -> String {
    format!("nexus.audit.{}", token(kind))
}

/// `nexus.rollup.<day>`, the day as `2026-11-24`.
pub fn rollup(day: &str) -> String {
    format!("nexus.rollup.{}", token(day))
}

/// The subject of the note that takes the place of a record that the broker cannot take.
pub const fn unshippable(lane: Lane) -> &'static str {
    match lane {
        Lane::Exchanges => "nexus.exchange.0.unshippable._._",
        Lane::Chunks => "nexus.chunk.0._._",
        Lane::Audit => "nexus.audit.unshippable",
    }
}

/// `nexus.outbox.<lane>.<outbox id>`: the cursor of one lane of one outbox.
pub fn cursor(lane: Lane, outbox: OutboxId) -> String {
    format!("nexus.outbox.{}.{outbox}", lane.name())
}

/// The lane and outbox of a cursor's subject; `None` for any other subject.
pub fn parse_cursor(subject: &str) -> Option<(Lane, OutboxId)> {
    let rest = subject.strip_prefix("nexus.outbox.")?;
    let (lane, outbox) = rest.split_once('.')?;
    let lane = Lane::ALL.into_iter().find(|known| known.name() == lane)?;
    Some((lane, outbox.parse().ok()?))
}

/// The event's name in the subject of an exchange event, whatever its version; `None` for any other.
pub fn exchange_event(subject: &str) -> Option<&str> {
    subject.strip_prefix("nexus.exchange.")?.split('.').nth(1)
}

/// The filter that matches every lease.
pub const LEASES: &str = "nexus.lease.>";

/// `nexus.lease.<name>`: who holds a lease.
pub fn lease(name: &str) -> String {
    format!("nexus.lease.{}", token(name))
}

/// A name made safe as one token of a subject.
///
/// Dots, wildcards, blanks and control characters become `_`; an empty name is
/// `_`; at most 64 characters stay, so that no subject comes near the
/// broker's line limit of 4 KiB.
pub fn token(name: &str) -> String {
    let token: String = name
        .chars()
        .take(64)
        .map(|c| match c {
            '.' | '*' | '>' => '_',
            c if c.is_whitespace() || c.is_control() => '_',
            c => c,
        })
        .collect();
    if token.is_empty() {
        "_".to_owned()
    } else {
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_cannot_change_the_subject() {
        assert_eq!(token("gpt-4.1 mini"), "gpt-4_1_mini");
        assert_eq!(token("a.*.>"), "a____");
        assert_eq!(token(""), "_");
        assert_eq!(token(&"x".repeat(1000)).len(), 64);
    }

    #[test]
    fn a_cursor_subject_reads_back() {
        let outbox: OutboxId = "0199c0de-0000-7000-8000-000000000001".parse().unwrap();
        for lane in Lane::ALL {
            assert_eq!(parse_cursor(&cursor(lane, outbox)), Some((lane, outbox)));
        }
        assert_eq!(parse_cursor("nexus.exchange.1.received._._"), None);
    }

    #[test]
    fn the_shard_stays_in_range_and_the_subject_carries_it() {
        let request: RequestId = "0199c0de-0000-7000-8000-0000000000ff".parse().unwrap();
        assert_eq!(shard(request), 63);
        assert_eq!(
            exchange(request, "received", "open.ai", ""),
            "nexus.exchange.63.received.open_ai._"
        );
        let subject = exchange(request, "received", "open.ai", "");
        assert_eq!(exchange_event(&subject), Some("received"));
        assert_eq!(exchange_event(&chunk(request, "_", "_")), None);
    }
}
