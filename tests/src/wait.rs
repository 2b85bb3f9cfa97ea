//! Waiting for a state, with a bound, and never for a duration.
//!
//! A sleep is either too short on a busy machine or too long on every other one, and when it was
//! too short nobody learns what the state was.
//! [`until`] asks again and again, goes on the moment the answer is good, and on time-out fails
//! with the last answer it got.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

/// The first looks are 20 ms apart: short against every bound in use, long against the cost of a look.
const PAUSE: Duration = Duration::from_millis(20);

/// Later ones are apart by this share of the time waited so far, so that a long wait costs little.
const PAUSE_SHARE: u32 = 20;

/// No look comes later than half a second after the one before.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Asks `see` until it says `Ok`, and returns what it found.
///
/// `what` completes the sentence "waited in vain until …".
///
/// # Errors
///
/// When `bound` has passed; the message carries the last thing seen.
pub async fn until<T, E: Display>(
    what: &str,
    bound: Duration,
    mut see: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    let began = Instant::now();
    let deadline = began + bound;
    let mut last_seen = String::from("nothing: the first look did not come back");
    loop {
        match timeout_at(deadline, see()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(seen)) => last_seen = format!("{seen:#}"),
            Err(_elapsed) => bail!("waited {bound:?} in vain until {what}; last seen: {last_seen}"),
        }
        let pause = (began.elapsed() / PAUSE_SHARE).clamp(PAUSE, PAUSE_MAX);
        if Instant::now() + pause >= deadline {
            bail!("waited {bound:?} in vain until {what}; last seen: {last_seen}");
        }
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn goes_on_the_moment_the_state_is_there() {
        let mut looks = 0;
        let found = until("the third look", Duration::from_secs(5), async || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(looks) }
        })
        .await
        .unwrap();
        assert_eq!(found, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn tells_the_last_thing_seen() {
        let error = until("pigs fly", Duration::from_secs(1), async || {
            Err::<(), _>("a pig on the ground")
        })
        .await
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "waited 1s in vain until pigs fly; last seen: a pig on the ground"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_bounded_too() {
        let error = until("it answers", Duration::from_secs(1), async || {
            std::future::pending::<Result<(), String>>().await
        })
        .await
        .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the first look did not come back")
        );
    }
}
