//! Identifiers: a newtype for each thing that has one, all UUIDv7.
//!
//! A UUIDv7 carries the millisecond at which it was drawn, so ids sort by the
//! clock of whoever drew them. That is good for indexes and for finding the
//! place in a stream where a request began; it is never the order of events,
//! which is the stream's own.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::{NoContext, Timestamp, Uuid};

use crate::clock::{Clock, UnixMillis};

/// Draws a UUIDv7 with the clock's time and fresh randomness.
fn draw(clock: &dyn Clock) -> Uuid {
    let now = clock.now().as_millis();
    let seconds = u64::try_from(now / 1000).unwrap_or(0);
    let nanos = u32::try_from(now % 1000).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, nanos))
}

/// Milliseconds since the epoch that a UUIDv7 was drawn at; 0 for other versions.
fn drawn_at(id: Uuid) -> UnixMillis {
    let millis = id.get_timestamp().map_or(0, |timestamp| {
        let (seconds, nanos) = timestamp.to_unix();
        i64::try_from(seconds)
            .unwrap_or(i64::MAX / 2000)
            .saturating_mul(1000)
            .saturating_add(i64::from(nanos / 1_000_000))
    });
    UnixMillis::from_millis(millis)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Draws a new id at the clock's time.
            pub fn draw(clock: &dyn Clock) -> Self {
                Self(draw(clock))
            }

            /// Wraps an id that was drawn elsewhere.
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            /// The bare UUID.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }

            /// When it was drawn, by the clock of whoever drew it; 0 when it is no UUIDv7.
            pub fn drawn_at(self) -> UnixMillis {
                drawn_at(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self.0.as_hyphenated(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id!(
    /// One event. Unique for ever; the key that a reader may dedupe by.
    EventId
);
id!(
    /// One request of a client: an exchange, with all its attempts.
    RequestId
);
id!(
    /// A conversation: requests whose message lists continue each other.
    ConversationId
);
id!(
    /// An API key's record, not its secret.
    KeyId
);
id!(
    /// A configured provider.
    ProviderId
);
id!(
    /// A configured model of a provider.
    ModelId
);
id!(
    /// A configured route.
    RouteId
);
id!(
    /// Someone who holds keys.
    UserId
);
id!(
    /// A price of a model.
    PriceId
);
id!(
    /// One incarnation of an outbox: one start of one gateway process.
    OutboxId
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn an_id_knows_when_it_was_drawn() {
        let clock = ManualClock::at(UnixMillis::from_millis(1_795_000_000_123));
        let id = RequestId::draw(&clock);
        assert_eq!(id.drawn_at().as_millis(), 1_795_000_000_123);
        assert_eq!(id.as_uuid().get_version_num(), 7);
        assert_eq!(id.to_string().parse::<RequestId>().unwrap(), id);
    }
}
