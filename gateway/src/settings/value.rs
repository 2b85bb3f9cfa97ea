//! Reading of single values, with sentences that say what is wrong.

use std::{path::PathBuf, time::Duration};

use nexus_events::outbox::{Release, SyncMode};

/// Reads a number of seconds, fractions allowed, above 0 and up to a day.
///
/// # Errors
/// The sentence that the command line shows.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let duration = text
        .parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or("not a number of seconds")?;
    if duration.is_zero() || duration > Duration::from_hours(24) {
        return Err("must be above 0 and at most 86400 seconds".to_owned());
    }
    Ok(duration)
}

/// The same, or 0 for never.
///
/// # Errors
/// The sentence that the command line shows.
pub fn seconds_or_never(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    seconds(text)
}

/// Reads a size in bytes: a number, or one with `KiB`, `MiB`, `GiB` or `TiB`.
///
/// # Errors
/// The sentence that the command line shows.
pub fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let (number, shift) = units
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))
        .unwrap_or((text, 0));
    number
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "not a size: a number of bytes, or one with KiB, MiB, GiB, TiB".to_owned())
}

/// The smallest outbox: 1 MiB.
///
/// A new request needs 64 KiB of room, and room is given back by segments, each an eighth of the
/// whole: here one of two requests. Less is a slip in the unit, and refuses nearly every request.
const OUTBOX_BYTES_MIN: u64 = 1024 * 1024;

/// Reads the bound of the outbox: a size from 1 MiB up.
///
/// # Errors
/// The sentence that the command line shows.
pub fn outbox_bytes(text: &str) -> Result<u64, String> {
    let size = bytes(text)?;
    if size < OUTBOX_BYTES_MIN {
        return Err("must be at least 1MiB: in less, hardly any request finds room".to_owned());
    }
    Ok(size)
}

/// Reads a path; an empty one stands for none, as an empty variable does.
///
/// # Errors
/// None: every text is a path.
pub fn path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

/// Reads `local` or `stream`.
///
/// # Errors
/// The sentence that the command line shows.
pub fn release(text: &str) -> Result<Release, String> {
    match text {
        "local" => Ok(Release::Local),
        "stream" => Ok(Release::Stream),
        _ => Err("one of: local, stream".to_owned()),
    }
}

/// Reads `os`, `interval` or `always`.
///
/// # Errors
/// The sentence that the command line shows.
pub fn sync_mode(text: &str) -> Result<SyncMode, String> {
    match text {
        "os" => Ok(SyncMode::Os),
        "interval" => Ok(SyncMode::Interval),
        "always" => Ok(SyncMode::Always),
        _ => Err("one of: os, interval, always".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_units() {
        assert_eq!(bytes("1024"), Ok(1024));
        assert_eq!(bytes("10GiB"), Ok(10 * 1024 * 1024 * 1024));
        assert_eq!(bytes("2 MiB"), Ok(2 * 1024 * 1024));
        for wrong in ["", "GiB", "-1", "1.5MiB", "10GB", "99999999999TiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_outbox_has_room_for_requests() {
        assert_eq!(outbox_bytes("1MiB"), Ok(OUTBOX_BYTES_MIN));
        for wrong in ["0", "1023KiB", "plenty"] {
            assert!(outbox_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds("0.2"), Ok(Duration::from_millis(200)));
        for wrong in ["0", "-1", "ten", "1e9", "NaN"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
