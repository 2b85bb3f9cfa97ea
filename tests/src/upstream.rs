//! Our own provider: a server that plays a script for each request, to the byte.
//!
//! A ready-made HTTP mock answers with one body after one delay. Our subject is everything else:
//! streams that drip, stall, end in the middle of an event, or are reset; so this server speaks
//! HTTP/1.1 by hand over TCP and knows at every moment which bytes have left.
//!
//! Over TLS it speaks HTTP/2 where the client does, which is what most real providers do
//! ([`Upstream::start_http2`]); then what a script does to its connection, it does to its stream.
//!
//! It remembers exactly what it received and exactly what it sent, in order, readable at any time:
//! a test compares that with what the client got and with what the log holds.
//! Without any set-up it is a polite OpenAI server: `POST …/chat/completions` in both modes,
//! `GET …/models`.
//!
//! The words of an answer are made from the request: with `req-7` as the last word of the last user
//! message, the chunks are `req-7:0 amber `, `req-7:1 birch `, … ([`content::word`]), so that no
//! two requests and no two chunks look alike.

mod connection;
pub mod content;
mod http2;
pub mod record;
mod render;
pub mod request;
pub mod script;
mod tls;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ports;
use crate::wait::until;

pub use record::{End, Exchange, Sent};
pub use request::Request;
pub use script::Script;

use tls::Identity;

/// How long a test waits for something to arrive at the upstream.
const ARRIVAL_BOUND: Duration = Duration::from_secs(30);

/// A running upstream; it goes away when dropped.
#[derive(Debug)]
pub struct Upstream {
    host_port: String,
    identity: Option<Identity>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

/// What the connections share with the test.
#[derive(Debug, Default)]
struct Shared {
    plan: Mutex<Plan>,
    exchanges: Mutex<Vec<Exchange>>,
    others: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    /// How many connections are still to turn their first request away.
    turning_away: AtomicUsize,
    tasks: TaskTracker,
}

/// Which script the next request gets: the queue first, then by model, then the standing one.
#[derive(Default)]
struct Plan {
    queue: VecDeque<Script>,
    by_model: HashMap<String, Script>,
    standing: Option<Chooser>,
    /// What answers other routes, by path.
    routes: HashMap<String, Chooser>,
}

type Chooser = Arc<dyn Fn(&Request) -> Script + Send + Sync>;

impl fmt::Debug for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Plan")
            .field("queue", &self.queue)
            .field("by_model", &self.by_model)
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// Starts a polite upstream on a port of its own.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start() -> Result<Self> {
        Self::start_with(None, 0).await
    }

    /// Starts one that speaks HTTP/2 over TLS and allows so many streams on a connection.
    ///
    /// # Errors
    ///
    /// When no port can be bound, or no certificate can be issued.
    pub async fn start_http2(streams_max: u32) -> Result<Self> {
        Self::start_with(Some(Identity::issue(&["h2"])?), streams_max).await
    }

    /// Starts one that speaks HTTP/1.1 over TLS.
    ///
    /// # Errors
    ///
    /// When no port can be bound, or no certificate can be issued.
    pub async fn start_tls() -> Result<Self> {
        Self::start_with(Some(Identity::issue(&["http/1.1"])?), 0).await
    }

    async fn start_with(identity: Option<Identity>, streams_max: u32) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("failed to bind the upstream")?;
        let host_port = listener
            .local_addr()
            .context("the upstream has no address")?
            .to_string();
        let shared = Arc::new(Shared::default());
        let stop = CancellationToken::new();
        let acceptor = identity.as_ref().map(Identity::acceptor);
        let door = Door {
            acceptor,
            streams_max,
        };
        let accepting = accept(listener, door, Arc::clone(&shared), stop.clone());
        shared.tasks.spawn(accepting);
        Ok(Self {
            host_port,
            identity,
            shared,
            stop,
        })
    }

    /// A base URL at which nothing ever listens: every connection is refused.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub fn refusing_url() -> Result<String> {
        Ok(format!("http://{}/v1", ports::refusing()?))
    }

    /// The base URL as a provider is configured with it, with `/v1`.
    pub fn url(&self) -> String {
        self.url_through(&self.host_port)
    }

    /// The same by way of a proxy at this `host:port`.
    pub fn url_through(&self, host_port: &str) -> String {
        let scheme = self.identity.as_ref().map_or("http", |_| "https");
        format!("{scheme}://{host_port}/v1")
    }

    /// The certificate of the authority that issued its own, in PEM.
    ///
    /// # Errors
    ///
    /// When it has none, because it speaks no TLS.
    pub fn ca_file(&self) -> Result<PathBuf> {
        let identity = self.identity.as_ref();
        Ok(identity.context("the upstream speaks no TLS")?.ca_file())
    }

    /// The next `connections` over HTTP/2 end (GOAWAY) when their first request comes, and say that
    /// it was not processed.
    pub fn turn_away(&self, connections: usize) {
        self.shared
            .turning_away
            .store(connections, Ordering::Relaxed);
    }

    /// The address as `host:port`.
    pub fn host_port(&self) -> String {
        self.host_port.clone()
    }

    /// The next request that no other queued script takes gets this script.
    pub fn once(&self, script: Script) {
        self.shared.plan.lock().queue.push_back(script);
    }

    /// Every request from now on gets this script, unless one is queued.
    pub fn always(&self, script: Script) {
        self.choose(move |_request| script.clone());
    }

    /// Every request for this model gets this script, unless one is queued.
    pub fn for_model(&self, model: &str, script: Script) {
        self.shared
            .plan
            .lock()
            .by_model
            .insert(model.to_owned(), script);
    }

    /// The test chooses a script by looking at the request.
    pub fn choose(&self, chooser: impl Fn(&Request) -> Script + Send + Sync + 'static) {
        self.shared.plan.lock().standing = Some(Arc::new(chooser));
    }

    /// The test chooses a script for each request to another route than that of chats.
    pub fn route(&self, path: &str, chooser: impl Fn(&Request) -> Script + Send + Sync + 'static) {
        let chooser: Chooser = Arc::new(chooser);
        self.shared
            .plan
            .lock()
            .routes
            .insert(path.to_owned(), chooser);
    }

    /// What happened so far with each `POST …/chat/completions`, in the order of arrival.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.exchanges.lock().clone()
    }

    /// The requests to every other route, in the order of arrival.
    pub fn others(&self) -> Vec<Request> {
        self.shared.others.lock().clone()
    }

    /// What happened with the requests whose tag (last word of the last user message) is `tag`:
    /// more than one when the hub tried again.
    pub fn exchanges_of(&self, tag: &str) -> Vec<Exchange> {
        self.exchanges()
            .into_iter()
            .filter(|exchange| exchange.request.tag() == tag)
            .collect()
    }

    /// The only exchange so far.
    ///
    /// # Errors
    ///
    /// When there was none or more than one.
    pub fn the_exchange(&self) -> Result<Exchange> {
        let mut exchanges = self.exchanges();
        let count = exchanges.len();
        anyhow::ensure!(count == 1, "the upstream was asked {count} times, not once");
        exchanges.pop().context("the upstream was not asked")
    }

    /// Waits until `count` requests have arrived.
    ///
    /// # Errors
    ///
    /// When they do not arrive in 30 s.
    pub async fn asked(&self, count: usize) -> Result<Vec<Exchange>> {
        let what = format!("the upstream was asked {count} times");
        until(&what, ARRIVAL_BOUND, async || {
            let exchanges = self.exchanges();
            let seen = exchanges.len();
            if seen >= count {
                Ok(exchanges)
            } else {
                Err(format!("it was asked {seen} times"))
            }
        })
        .await
    }

    /// Waits until every request that arrived has ended, one way or the other.
    ///
    /// # Errors
    ///
    /// When one is still open after 30 s.
    pub async fn idle(&self) -> Result<Vec<Exchange>> {
        until("the upstream has nothing open", ARRIVAL_BOUND, async || {
            let exchanges = self.exchanges();
            match exchanges
                .iter()
                .filter(|exchange| exchange.end.is_none())
                .count()
            {
                0 => Ok(exchanges),
                open => Err(format!("{open} exchanges are open")),
            }
        })
        .await
    }

    /// How many TCP connections have been made to it.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.cancel();
        self.shared.tasks.close();
    }
}

impl Shared {
    fn script_for(&self, request: &Request) -> Script {
        let mut plan = self.plan.lock();
        if let Some(script) = plan.queue.pop_front() {
            return script;
        }
        if let Some(script) = plan.by_model.get(&request.model()) {
            return script.clone();
        }
        let standing = plan.standing.clone();
        drop(plan);
        standing.map_or_else(Script::answer, |choose| choose(request))
    }

    /// The script of another route, if the test has set one.
    fn routed(&self, path: &str, request: &Request) -> Option<Script> {
        let chooser = self.plan.lock().routes.get(path).cloned();
        chooser.map(|choose| choose(request))
    }

    /// Opens the record of an exchange and returns its place.
    fn begin(&self, request: Request, connection: usize) -> usize {
        let mut exchanges = self.exchanges.lock();
        exchanges.push(Exchange::begun(request, connection));
        exchanges.len() - 1
    }

    fn record(&self, place: usize, change: impl FnOnce(&mut Exchange)) {
        if let Some(exchange) = self.exchanges.lock().get_mut(place) {
            change(exchange);
        }
    }
}

/// How connections are received.
#[derive(Clone)]
struct Door {
    acceptor: Option<TlsAcceptor>,
    streams_max: u32,
}

/// One connection's part in the whole.
struct Guest {
    /// Which connection it is, from 0.
    number: usize,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Door {
    async fn serve(self, stream: TcpStream, guest: Guest) {
        // Each piece must leave when it is written, not when the kernel has gathered more.
        drop(stream.set_nodelay(true));
        let Some(acceptor) = self.acceptor else {
            return connection::serve(stream, guest).await;
        };
        // Who does not trust the certificate leaves.
        let Ok(stream) = acceptor.accept(stream).await else {
            return;
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            http2::serve(stream, self.streams_max, guest).await;
        } else {
            connection::serve(stream, guest).await;
        }
    }
}

async fn accept(listener: TcpListener, door: Door, shared: Arc<Shared>, stop: CancellationToken) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        // A connection that was gone before it was accepted is the client's affair.
        let Ok((stream, _peer)) = accepted else {
            continue;
        };
        let guest = Guest {
            number: shared.connections.fetch_add(1, Ordering::Relaxed),
            shared: Arc::clone(&shared),
            stop: stop.clone(),
        };
        let serving = door.clone().serve(stream, guest);
        let stop = stop.clone();
        shared
            .tasks
            .spawn(async move { stop.run_until_cancelled(serving).await });
    }
}

#[cfg(test)]
mod tests;
