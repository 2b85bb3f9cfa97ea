//! A proxy before a broker that loses messages of streams on their way to the client.
//!
//! A slow client, a broker that gives up on one, a bug: whatever the reason, a reader without
//! acknowledgements may miss a message and get the next.
//! The proxy reads the broker's protocol, so that it loses whole messages and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// 64 KiB are read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// How a message that a consumer delivers is recognised: by where its acknowledgement would go.
const DELIVERED: &str = "$JS.ACK.";

/// A running proxy; it goes away when dropped.
#[derive(Debug)]
pub struct Lossy {
    url: String,
    lost: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Lossy {
    /// Starts a proxy before a broker that loses each `every`th delivered message.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start(broker: &str, every: usize) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.context("failed to bind the proxy")?;
        let address = listener.local_addr().context("the proxy has no address")?;
        let lossy = Self {
            url: format!("nats://{address}"),
            lost: Arc::default(),
            stop: CancellationToken::new(),
        };
        let (lost, stop, target) = (
            Arc::clone(&lossy.lost),
            lossy.stop.clone(),
            broker.to_owned(),
        );
        let tasks = TaskTracker::new();
        tasks.clone().spawn(async move {
            let seen = Arc::new(AtomicUsize::new(0));
            while let Some(Ok((client, _))) = stop.run_until_cancelled(listener.accept()).await {
                let Ok(server) = TcpStream::connect(&target).await else {
                    continue;
                };
                let rule = Loss {
                    every,
                    seen: Arc::clone(&seen),
                    lost: Arc::clone(&lost),
                };
                let stop = stop.clone();
                tasks.spawn(
                    async move { stop.run_until_cancelled(pass(client, server, rule)).await },
                );
            }
        });
        Ok(lossy)
    }

    /// Its address, as a client of NATS takes it.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// How many messages it has lost.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Which messages are lost.
struct Loss {
    every: usize,
    seen: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
}

impl Loss {
    fn takes(&self, line: &str) -> bool {
        if !line.split(' ').any(|word| word.starts_with(DELIVERED)) {
            return false;
        }
        let number = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        let takes = number.is_multiple_of(self.every);
        if takes {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        takes
    }
}

async fn pass(client: TcpStream, server: TcpStream, loss: Loss) {
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let up = async {
        drop(tokio::io::copy(&mut from_client, &mut to_server).await);
        drop(to_server.shutdown().await);
    };
    tokio::join!(up, thin_out(from_server, to_client, loss));
}

async fn thin_out(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, loss: Loss) {
    let mut waiting = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        waiting.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let mut passed = Vec::new();
        while let Some((line, length)) = frame(&waiting) {
            let taken = loss.takes(&line);
            let frame: Vec<u8> = waiting.drain(..length).collect();
            if !taken {
                passed.extend(frame);
            }
        }
        if to.write_all(&passed).await.is_err() {
            return;
        }
    }
    drop(to.shutdown().await);
}

/// The first whole frame: its line, and the bytes of line and payload together.
fn frame(bytes: &[u8]) -> Option<(String, usize)> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let line = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
    let kind = line.split(' ').next().unwrap_or_default();
    let payload: usize = match kind {
        "MSG" | "HMSG" => line.rsplit(' ').next()?.parse().ok()?,
        _ => return Some((line, end + 2)),
    };
    let length = end + 2 + payload + 2;
    (bytes.len() >= length).then_some((line, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_apart() {
        let message = b"MSG a.b 1 $JS.ACK.x 3\r\na\r\n\r\nPING\r\n";
        let (line, length) = frame(message).unwrap();
        assert_eq!((line.as_str(), length), ("MSG a.b 1 $JS.ACK.x 3", 28));
        assert_eq!(frame(&message[28..]).unwrap(), ("PING".to_owned(), 6));
        assert_eq!(frame(&message[..27]), None, "the payload is not whole");
        let with_headers = b"HMSG a 1 12 13\r\nNATS/1.0\r\n\r\nx\r\n";
        assert_eq!(frame(with_headers).unwrap().1, with_headers.len());
    }
}
