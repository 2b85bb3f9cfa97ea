//! A proxy before a broker that holds a client back from the moment on at which it would say one thing.
//!
//! What a process said before that moment is stored, and nothing after it is: so a test can kill it
//! between two things that it says, however fast it says them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// 64 KiB are read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// A running proxy; it goes away when dropped.
#[derive(Debug)]
pub struct Held {
    url: String,
    rule: Rule,
    stop: CancellationToken,
}

#[derive(Debug, Clone)]
struct Rule {
    /// What a client must not say.
    words: &'static str,
    over: Arc<AtomicBool>,
}

impl Held {
    /// Starts a proxy before a broker that lets a client say everything up to those words.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start(broker: &str, words: &'static str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.context("failed to bind the proxy")?;
        let address = listener.local_addr().context("the proxy has no address")?;
        let (rule, stop) = (Rule::new(words), CancellationToken::new());
        let held = Self {
            url: format!("nats://{address}"),
            rule: rule.clone(),
            stop: stop.clone(),
        };
        let (target, tasks) = (broker.to_owned(), TaskTracker::new());
        tasks.clone().spawn(async move {
            while let Some(Ok((client, _))) = stop.run_until_cancelled(listener.accept()).await {
                let Ok(server) = TcpStream::connect(&target).await else {
                    continue;
                };
                let (rule, stop) = (rule.clone(), stop.clone());
                tasks.spawn(
                    async move { stop.run_until_cancelled(pass(client, server, rule)).await },
                );
            }
        });
        Ok(held)
    }

    /// Its address, as a client of NATS takes it.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Holds nobody from now on; who is held already stays so.
    pub fn release(&self) {
        self.rule.over.store(true, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Rule {
    fn new(words: &'static str) -> Self {
        Self {
            words,
            over: Arc::default(),
        }
    }

    /// How many of these bytes may pass: all, or those before the words.
    fn passes(&self, before: &[u8], bytes: &[u8]) -> Option<usize> {
        if self.over.load(Ordering::Relaxed) {
            return None;
        }
        let both = [before, bytes].concat();
        let words = self.words.as_bytes();
        let at = both.windows(words.len()).position(|some| some == words)?;
        Some(at.saturating_sub(before.len()))
    }
}

async fn pass(client: TcpStream, server: TcpStream, rule: Rule) {
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    let down = async {
        drop(tokio::io::copy(&mut from_server, &mut to_client).await);
        drop(to_client.shutdown().await);
    };
    tokio::join!(down, hold_back(from_client, to_server, rule));
}

async fn hold_back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, rule: Rule) {
    let mut buffer = vec![0; BUFFER_BYTES];
    // The end of what has passed: the words may come in two pieces.
    let mut before: Vec<u8> = Vec::new();
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        if let Some(passes) = rule.passes(&before, bytes) {
            drop(to.write_all(bytes.get(..passes).unwrap_or_default()).await);
            // Takes what comes, so that nobody waits for it, and says nothing.
            while let Ok(1..) = from.read(&mut buffer).await {}
            return;
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
        before.extend_from_slice(bytes);
        let surplus = before.len().saturating_sub(rule.words.len() - 1);
        before.drain(..surplus);
    }
    drop(to.shutdown().await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_one_piece_and_in_two() {
        let rule = Rule::new("stop here");
        assert_eq!(rule.passes(b"", b"go on"), None);
        assert_eq!(rule.passes(b"", b"go, stop here, go"), Some(4));
        assert_eq!(rule.passes(b"and stop", b" here"), Some(0));
        rule.over.store(true, Ordering::Relaxed);
        assert_eq!(rule.passes(b"", b"stop here"), None);
    }
}
