//! Live totals in Redis, for whoever wants them without asking the read model.
//!
//! After commits, at most ten times a second, the totals are written to one
//! hash as absolute values with the position that they belong to. The highest
//! position wins, so any number of projectors can feed one Redis, in any
//! order. Redis is derived: when it is away, nothing waits for it and nothing
//! is kept for it; the next write says everything anew.

use std::convert::Infallible;

use redis::{
    Client, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::{
    sync::watch,
    time::{Duration, sleep, timeout},
};

use crate::{
    read_model::{ReadError, ReadModel},
    status::Report,
};

/// The hash. The tag keeps all of it in one slot of a Redis Cluster.
pub const KEY: &str = "nexus:{totals}:live";

/// Pause between two writes: 100 ms.
const WRITE_EVERY: Duration = Duration::from_millis(100);

/// Pause after Redis did not answer, and how long an answer may take: 1 s.
const PATIENCE: Duration = Duration::from_secs(1);

/// Key: the hash. Arguments: when the log was created, the position, then fields and values.
///
/// A log that was created later wins over any position of one before.
const WRITE: &str = r"
local known = redis.call('HMGET', KEYS[1], 'log_created_ms', 'position')
local created, position = tonumber(known[1] or '-1'), tonumber(known[2] or '-1')
if tonumber(ARGV[1]) < created then return 0 end
if tonumber(ARGV[1]) == created and tonumber(ARGV[2]) <= position then return 0 end
redis.call('HSET', KEYS[1], 'log_created_ms', ARGV[1], 'position', ARGV[2], unpack(ARGV, 3))
return 1";

/// Why the totals were not written; the next try says everything anew.
#[derive(Debug, thiserror::Error)]
enum LiveError {
    #[error("the read model cannot be read")]
    Read(#[from] ReadError),
    #[error("Redis failed")]
    Redis(#[from] redis::RedisError),
    #[error("Redis did not answer in time")]
    Late(#[from] tokio::time::error::Elapsed),
}

/// Writes the totals whenever the projector has committed; for ever.
pub(crate) async fn feed(
    url: &str,
    read_model: ReadModel,
    mut reports: watch::Receiver<Report>,
) -> Infallible {
    let mut connection = None;
    loop {
        let as_of = reports.borrow_and_update().as_of;
        if as_of.sum() > 0
            && let Err(error) = write(url, &mut connection, &read_model).await
        {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "no live totals for now"
            );
            connection = None;
            sleep(PATIENCE).await;
        }
        sleep(WRITE_EVERY).await;
        if reports.changed().await.is_err() {
            // The projector is gone; its loop is about to drop this one.
            std::future::pending::<()>().await;
        }
    }
}

async fn write(
    url: &str,
    connection: &mut Option<ConnectionManager>,
    read_model: &ReadModel,
) -> Result<(), LiveError> {
    let totals = read_model.totals().await?;
    let open = match connection.take() {
        Some(open) => open,
        None => connect(url)?,
    };
    let open = connection.insert(open);
    let script = Script::new(WRITE);
    let mut call = script.key(KEY);
    call.arg(totals.log_created_ms).arg(totals.as_of.sum());
    for (field, value) in [
        ("as_of", totals.as_of.to_string()),
        ("total_conversations", totals.conversations.to_string()),
        ("requests", totals.requests.to_string()),
        ("errors", totals.errors.to_string()),
        ("prompt_tokens", totals.prompt_tokens.to_string()),
        ("completion_tokens", totals.completion_tokens.to_string()),
    ] {
        call.arg(field).arg(value);
    }
    let written: i64 = timeout(PATIENCE, call.invoke_async(open)).await??;
    tracing::trace!(written, "live totals");
    Ok(())
}

fn connect(url: &str) -> Result<ConnectionManager, redis::RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    ConnectionManager::new_lazy_with_config(Client::open(url)?, config)
}
