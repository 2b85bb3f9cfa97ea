use std::time::Duration;

use futures_util::sink::unfold;

use super::*;

/// A client behind a slow link: it takes a frame a second, says nothing, and always has more to come.
#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_is_pinged_and_alive() {
    let (out, queue) = Queue::new();
    let alive = Alive(Arc::new(Mutex::new(Instant::now())));
    let taken = Arc::new(Mutex::new((0, 0)));
    let slow = unfold(Arc::clone(&taken), async |taken, message| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let is_ping = matches!(message, Message::Ping(_));
        let mut counted = taken.lock();
        *(if is_ping {
            &mut counted.0
        } else {
            &mut counted.1
        }) += 1;
        drop(counted);
        Ok::<_, std::convert::Infallible>(taken)
    });
    let sending = async { while out.send(Utf8Bytes::from_static("{}")).await.is_ok() {} };
    tokio::select! {
        () = write(Box::pin(slow), queue, alive.clone(), CancellationToken::new()) => panic!("it ended"),
        () = sending => panic!("nobody takes the frames"),
        () = alive.no_more() => panic!("it was taken for gone"),
        () = tokio::time::sleep(3 * SILENCE_MAX) => {}
    }
    let (pings, frames) = *taken.lock();
    assert!(pings >= 7 && frames > 100, "{pings} pings, {frames} frames");
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_sign_of_life_is_gone_after_a_minute() {
    let alive = Alive(Arc::new(Mutex::new(Instant::now())));
    let began = Instant::now();
    tokio::time::advance(SILENCE_MAX / 2).await;
    alive.is();
    alive.no_more().await;
    assert_eq!(began.elapsed(), SILENCE_MAX / 2 + SILENCE_MAX);
}
