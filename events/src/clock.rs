//! Time comes in by parameter: what needs the wall clock takes a [`Clock`].
//!
//! Durations are measured with `tokio::time::Instant`; this clock only dates things.

use std::{
    fmt,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Datelike, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// The years that RFC 3339 can write, with four digits.
const YEARS: RangeInclusive<i32> = 0..=9999;

/// A moment: UTC, whole milliseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(i64);

impl UnixMillis {
    /// The moment `millis` after 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The moment that lies `duration` earlier, at the earliest `i64::MIN`.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// The moment that lies `duration` later, at the latest `i64::MAX`.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// RFC 3339 with milliseconds and `Z`; the epoch for moments outside chrono's range.
    pub fn to_rfc3339(self) -> String {
        self.to_datetime()
            .to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    /// The same as chrono's type; the epoch for moments outside its range.
    pub fn to_datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// Reads RFC 3339 text.
    ///
    /// # Errors
    /// The text is no RFC 3339 date and time, or one that its offset carries into a year that
    /// RFC 3339 cannot write.
    pub fn parse_rfc3339(text: &str) -> Result<Self, chrono::ParseError> {
        let moment = DateTime::parse_from_rfc3339(text)?.to_utc();
        if !YEARS.contains(&moment.year()) {
            // What we wrote of it nobody could read: the error is that of reading it.
            DateTime::parse_from_rfc3339(&moment.to_rfc3339())?;
        }
        Ok(Self(moment.timestamp_millis()))
    }
}

impl fmt::Debug for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// Tells the date and time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present moment.
    fn now(&self) -> UnixMillis;
}

/// A clock as the roles pass it around.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(Utc::now().timestamp_millis())
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `moment`.
    pub const fn at(moment: UnixMillis) -> Self {
        Self(AtomicI64::new(moment.0))
    }

    /// Moves the clock forward.
    pub fn advance(&self, duration: Duration) {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.0.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets it, back as well, as an operator may do.
    pub fn set(&self, moment: UnixMillis) {
        self.0.store(moment.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_as_a_moment_can_be_written_and_read_again() {
        for text in [
            "0000-01-01T00:00:00Z",
            "2026-11-24T12:00:00.123+01:00",
            "2016-12-31T23:59:60Z",
            "9999-12-31T23:59:59.999Z",
        ] {
            let moment = UnixMillis::parse_rfc3339(text).unwrap();
            let written = moment.to_rfc3339();
            assert_eq!(UnixMillis::parse_rfc3339(&written), Ok(moment), "{text}");
        }
        for text in ["9999-12-31T23:59:59-00:01", "0000-01-01T00:00:00+00:01"] {
            UnixMillis::parse_rfc3339(text).unwrap_err();
        }
    }
}
