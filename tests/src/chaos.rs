//! A TCP proxy that can be told to misbehave, to stand between any two parties.
//!
//! It passes bytes both ways until told otherwise.
//! A command works on the connections there are; [`Chaos::refuse`], [`Chaos::stall`] and
//! [`Chaos::slow`] also on those to come, until they are taken back.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ports;

/// 16 KiB are read at once: small enough to stop soon, large enough not to be the bottleneck.
const BUFFER_BYTES: usize = 16 * 1024;

/// A slowed connection passes its share in twenty portions a second.
const SLOW_STEP: Duration = Duration::from_millis(50);

/// 1 024 connections may wait to be accepted, as with a listener of the runtime's own.
const BACKLOG: u32 = 1024;

/// A running proxy; it and all its connections go away when it is dropped.
#[derive(Debug)]
pub struct Chaos {
    address: SocketAddr,
    target: String,
    mood: watch::Sender<Mood>,
    door: Mutex<Door>,
    served: Arc<AtomicUsize>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// How the proxy treats its connections.
#[derive(Debug, Clone)]
struct Mood {
    stalled: bool,
    bytes_per_second: Option<NonZeroU32>,
    /// Cancelled to drop every connection; a new one is put in its place.
    cut: CancellationToken,
    /// Cancelled to end the direction to the target; a new one is put in its place.
    half_close: CancellationToken,
}

/// Whether connections are accepted.
#[derive(Debug)]
enum Door {
    /// Accepting, until this is cancelled.
    Open(CancellationToken),
    /// Refusing, while this keeps the port for us.
    Shut(TcpSocket),
}

impl Chaos {
    /// Starts a proxy before `target`, a `host:port`.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub fn start(target: &str) -> Result<Self> {
        let socket = ports::hold(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = socket.local_addr().context("the proxy has no address")?;
        let chaos = Self {
            address,
            target: target.to_owned(),
            mood: watch::Sender::new(Mood {
                stalled: false,
                bytes_per_second: None,
                cut: CancellationToken::new(),
                half_close: CancellationToken::new(),
            }),
            door: Mutex::new(Door::Shut(socket)),
            served: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        chaos.accept()?;
        Ok(chaos)
    }

    /// Where it listens, `host:port`.
    pub fn url_host_port(&self) -> String {
        self.address.to_string()
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Drops every connection, now.
    pub fn cut(&self) {
        self.mood.send_modify(|mood| {
            std::mem::take(&mut mood.cut).cancel();
        });
    }

    /// Ends the direction to the target on every connection; the other one stays open.
    pub fn half_close(&self) {
        self.mood.send_modify(|mood| {
            std::mem::take(&mut mood.half_close).cancel();
        });
    }

    /// Holds all bytes back, in both directions; connections stay open.
    pub fn stall(&self) {
        self.mood.send_modify(|mood| mood.stalled = true);
    }

    /// Lets bytes flow again, at full speed.
    pub fn flow(&self) {
        self.mood.send_modify(|mood| {
            mood.stalled = false;
            mood.bytes_per_second = None;
        });
    }

    /// Passes at most so many bytes a second in each direction of each connection.
    pub fn slow(&self, bytes_per_second: NonZeroU32) {
        self.mood
            .send_modify(|mood| mood.bytes_per_second = Some(bytes_per_second));
    }

    /// Refuses new connections; those there are stay.
    ///
    /// # Errors
    ///
    /// When the port cannot be kept.
    pub async fn refuse(&self) -> Result<()> {
        let Some(accepting) = self.stop_accepting() else {
            return Ok(());
        };
        accepting.cancel();
        // The listener is closed when its task has seen that; then the port can be held.
        let held = crate::until(
            "the proxy's port is free",
            Duration::from_secs(5),
            async || ports::hold(self.address),
        )
        .await?;
        *self.door.lock() = Door::Shut(held);
        Ok(())
    }

    /// Accepts connections (again).
    ///
    /// # Errors
    ///
    /// When the port was lost.
    pub fn accept(&self) -> Result<()> {
        let mut door = self.door.lock();
        if matches!(*door, Door::Open(_)) {
            return Ok(());
        }
        let accepting = self.stop.child_token();
        let Door::Shut(socket) = std::mem::replace(&mut *door, Door::Open(accepting.clone()))
        else {
            return Ok(());
        };
        let listener = socket.listen(BACKLOG).context("the proxy cannot listen")?;
        self.tasks.spawn(accept(Accepting {
            listener,
            until: accepting,
            target: self.target.clone(),
            mood: self.mood.clone(),
            served: Arc::clone(&self.served),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        }));
        Ok(())
    }

    fn stop_accepting(&self) -> Option<CancellationToken> {
        match &*self.door.lock() {
            Door::Open(accepting) => Some(accepting.clone()),
            Door::Shut(_) => None,
        }
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
    }
}

/// What the accepting task owns.
struct Accepting {
    listener: TcpListener,
    until: CancellationToken,
    target: String,
    mood: watch::Sender<Mood>,
    served: Arc<AtomicUsize>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

async fn accept(task: Accepting) {
    while let Some(accepted) = task.until.run_until_cancelled(task.listener.accept()).await {
        // A connection that was gone before it was accepted is the client's affair.
        let Ok((client, _peer)) = accepted else {
            continue;
        };
        task.served.fetch_add(1, Ordering::Relaxed);
        let passing = pass(client, task.target.clone(), task.mood.subscribe());
        let stop = task.stop.clone();
        task.tasks
            .spawn(async move { stop.run_until_cancelled(passing).await });
    }
}

/// Passes bytes until both directions have ended or the connection is cut.
async fn pass(client: TcpStream, target: String, mood: watch::Receiver<Mood>) {
    let cut = mood.borrow().cut.clone();
    let half_close = mood.borrow().half_close.clone();
    let passing = async {
        // A target that is away shows itself to the client as a closed connection.
        let Ok(server) = TcpStream::connect(target).await else {
            return;
        };
        drop((client.set_nodelay(true), server.set_nodelay(true)));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let up = one_way(from_client, to_server, mood.clone(), Some(half_close));
        let down = one_way(from_server, to_client, mood, None);
        tokio::join!(up, down);
    };
    cut.run_until_cancelled(passing).await;
}

/// Passes one direction until its end, and ends the other side of it.
async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mood: watch::Receiver<Mood>,
    end: Option<CancellationToken>,
) {
    let end = end.unwrap_or_default();
    let copying = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let mut rest = buffer.get(..count).unwrap_or_default();
            while !rest.is_empty() {
                // The mood may have changed while we waited for bytes or for the receiver.
                let Ok(mood) = mood
                    .wait_for(|mood| !mood.stalled)
                    .await
                    .map(|mood| mood.clone())
                else {
                    return;
                };
                let (now, later) = rest.split_at(portion(&mood).min(rest.len()));
                if to.write_all(now).await.is_err() {
                    return;
                }
                rest = later;
                if mood.bytes_per_second.is_some() {
                    sleep(SLOW_STEP).await;
                }
            }
        }
    };
    end.run_until_cancelled(copying).await;
    // Fails when the other side is gone, which is what we want.
    drop(to.shutdown().await);
}

/// How many bytes may be passed in one step.
fn portion(mood: &Mood) -> usize {
    let steps_per_second = 20;
    mood.bytes_per_second.map_or(BUFFER_BYTES, |bytes| {
        let share = bytes.get().div_ceil(steps_per_second);
        usize::try_from(share)
            .unwrap_or(BUFFER_BYTES)
            .min(BUFFER_BYTES)
    })
}

#[cfg(test)]
mod tests;
