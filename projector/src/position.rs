//! How far the streams were read.

use std::fmt;

use nexus_events::subject::Stream;
use serde::{Deserialize, Serialize};

/// The streams that the projector reads, in the order in which a rebuild reads them first.
///
/// Retention and rollups come before the exchanges, because they tell which
/// exchanges need not be stored at all; the result is the same in any order.
pub const STREAMS: [Stream; 4] = [
    Stream::Config,
    Stream::Audit,
    Stream::Rollups,
    Stream::Exchanges,
];

/// The last sequence of each stream that a read model holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AsOf {
    /// Of `NEXUS_CONFIG`.
    pub config: u64,
    /// Of `NEXUS_EXCHANGES`.
    pub exchanges: u64,
    /// Of `NEXUS_AUDIT`.
    pub audit: u64,
    /// Of `NEXUS_ROLLUPS`.
    pub rollups: u64,
}

impl AsOf {
    /// The sequence of one stream; 0 for one that is not projected.
    pub const fn of(self, stream: Stream) -> u64 {
        match stream {
            Stream::Config => self.config,
            Stream::Exchanges => self.exchanges,
            Stream::Audit => self.audit,
            Stream::Rollups => self.rollups,
            Stream::Chunks => 0,
        }
    }

    /// All four together: grows with every event that is applied.
    pub fn sum(self) -> u64 {
        STREAMS
            .into_iter()
            .fold(0, |sum, stream| sum.saturating_add(self.of(stream)))
    }

    /// Notes the sequence of a stream.
    pub const fn set(&mut self, stream: Stream, sequence: u64) {
        match stream {
            Stream::Config => self.config = sequence,
            Stream::Exchanges => self.exchanges = sequence,
            Stream::Audit => self.audit = sequence,
            Stream::Rollups => self.rollups = sequence,
            Stream::Chunks => {}
        }
    }
}

/// As in the header `X-Nexus-As-Of`.
impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "config={}, exchanges={}, audit={}, rollups={}",
            self.config, self.exchanges, self.audit, self.rollups
        )
    }
}
