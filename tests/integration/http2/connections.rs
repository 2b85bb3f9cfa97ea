//! How many connections a provider gets.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use nexus_gateway::provider::transport::TransportSettings;
use nexus_tests::gate::Gate;
use nexus_tests::{Result, Script, Upstream, until};
use tokio::time::timeout;

use super::{send, transport, whole};

/// What real servers allow on one connection.
const STREAMS_MAX: u32 = 100;

/// An answer begins within milliseconds; a busy machine may need far more.
const BOUND: Duration = Duration::from_secs(30);

/// The connections on which requests came.
fn connections(upstream: &Upstream) -> BTreeSet<usize> {
    let exchanges = upstream.exchanges();
    exchanges
        .iter()
        .map(|exchange| exchange.connection)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_begin_than_one_connection_has_streams() -> Result<()> {
    let upstream = Upstream::start_http2(STREAMS_MAX).await?;
    let transport = transport(&upstream, TransportSettings::default())?;
    let gate = Gate::closed();
    upstream.always(Script::answer().chunks(2).wait_after(1, &gate));
    let url = upstream.url();
    let mut answers = Vec::new();
    for number in 0..300 {
        // One after the other, so that nobody makes a connection beside another who does.
        let tag = format!("stream-{number}");
        let answer = timeout(BOUND, send(&transport, &url, &tag)).await;
        let answer = answer.with_context(|| format!("{number} have begun, and no more"))?;
        answers.push(answer?);
    }
    gate.reached_by(300).await?;
    ensure!(upstream.connections() == 4, "{}", upstream.connections());

    // What has ended makes room on the first.
    answers.drain(..10);
    upstream.always(Script::answer());
    until("ten streams are gone", BOUND, async || {
        let exchanges = upstream.exchanges();
        let gone = exchanges.iter().filter(|it| it.end.is_some()).count();
        if gone == 10 {
            Ok(())
        } else {
            Err(format!("{gone} are gone"))
        }
    })
    .await?;
    whole(&transport, &url, "late").await?;
    let late = upstream.exchanges_of("late");
    ensure!(late[0].connection == 0, "it came on {}", late[0].connection);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn few_requests_share_one_connection() -> Result<()> {
    let upstream = Upstream::start_http2(STREAMS_MAX).await?;
    let transport = transport(&upstream, TransportSettings::default())?;
    let url = upstream.url();
    for number in 0..5 {
        whole(&transport, &url, &format!("alone-{number}")).await?;
    }
    let tags: Vec<String> = (0..60).map(|number| format!("together-{number}")).collect();
    try_join_all(tags.iter().map(|tag| whole(&transport, &url, tag))).await?;
    ensure!(upstream.connections() == 1, "{}", upstream.connections());
    Ok(())
}

/// Bytes of an answer that nobody reads: more than any window of one stream.
const UNREAD_BYTES: usize = 3 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_hold_up_no_other() -> Result<()> {
    let upstream = Upstream::start_http2(STREAMS_MAX).await?;
    let transport = transport(&upstream, TransportSettings::default())?;
    let url = upstream.url();
    let whole_answer = vec![b'x'; UNREAD_BYTES];
    upstream.always(Script::status(200, whole_answer.clone()));
    let tags: Vec<String> = (0..8).map(|number| format!("unread-{number}")).collect();
    let unread = try_join_all(tags.iter().map(|tag| send(&transport, &url, tag))).await?;
    let read = timeout(BOUND, whole(&transport, &url, "read")).await??;
    ensure!(read == whole_answer, "{} bytes came", read.len());
    ensure!(
        connections(&upstream).len() == 1,
        "{:?}",
        connections(&upstream)
    );
    drop(unread);
    until("the unread streams are gone", BOUND, async || {
        let exchanges = upstream.exchanges();
        let open = exchanges.iter().filter(|it| it.end.is_none()).count();
        if open == 0 {
            Ok(())
        } else {
            Err(format!("{open} are open"))
        }
    })
    .await
}
