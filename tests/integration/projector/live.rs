//! The live totals in Redis.

use std::collections::HashMap;

use ::redis::aio::MultiplexedConnection;
use nexus_tests::{Redis, Result, until};

use super::{BOUND, Setup};
use crate::running::Running;

/// The live totals, as soon as they say so many requests.
async fn live(
    connection: &mut MultiplexedConnection,
    requests: &str,
) -> Result<HashMap<String, String>> {
    until("the live totals are there", BOUND, async || {
        let found: HashMap<String, String> = ::redis::cmd("HGETALL")
            .arg(nexus_projector::live::KEY)
            .query_async(connection)
            .await
            .map_err(|error| error.to_string())?;
        if found.get("requests").map(String::as_str) == Some(requests) {
            Ok(found)
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
}

/// How often a script was called since the server started.
async fn script_calls(connection: &mut MultiplexedConnection) -> Result<u64> {
    let stats: String = ::redis::cmd("INFO")
        .arg("commandstats")
        .query_async(connection)
        .await?;
    let calls = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="))
        .and_then(|rest| rest.split(',').next()?.parse().ok());
    Ok(calls.unwrap_or(0))
}

#[tokio::test]
async fn live_totals_are_those_of_the_highest_position() -> Result<()> {
    let mut setup = Setup::new().await?;
    let redis = Redis::start().await?;
    let mut connection = redis.connection().await?;
    let running = Running::start_with(&setup.dir(), &setup.log, Some(redis.url()));
    let last = setup.exchanges(3).await?;
    running.applied(last).await?;
    let found = live(&mut connection, "3").await?;
    assert_eq!(found["prompt_tokens"], "30");
    assert_eq!(found["total_conversations"], "3");

    // As if another projector were far ahead.
    let ahead = [("position", "1000000"), ("requests", "77")];
    for (field, value) in ahead {
        ::redis::cmd("HSET")
            .arg((nexus_projector::live::KEY, field, value))
            .exec_async(&mut connection)
            .await?;
    }
    let calls = script_calls(&mut connection).await?;
    let last = setup.exchanges(1).await?;
    running.applied(last).await?;
    until(
        "the projector has tried to write",
        BOUND,
        async || match script_calls(&mut connection).await {
            Ok(now) if now > calls => Ok(()),
            now => Err(format!("{now:?}")),
        },
    )
    .await?;
    live(&mut connection, "77").await?;

    // Redis lost everything: the next commit says everything anew.
    redis.flush().await?;
    let last = setup.exchanges(1).await?;
    running.applied(last).await?;
    live(&mut connection, "5").await?;
    running.stop().await
}
