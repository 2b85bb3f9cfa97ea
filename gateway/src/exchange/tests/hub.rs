//! An engine with a real outbox, in front of a provider that plays a script.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use nexus_events::{
    clock::{SharedClock, SystemClock},
    config_event::{Key, OnDisconnect},
    envelope::Envelope,
    id::{ConversationId, KeyId, RequestId},
    outbox::{Outbox, OutboxSettings, Release, SyncMode, segment},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::configured::{key, snapshot};
use crate::{
    configuration::Snapshot,
    exchange::{
        Ask, Engine, Operation, Parts, Refused, Served,
        count::{CountTokens, Counted, Counting, Uncounted},
    },
    limits::Limits,
    metrics::Metrics,
    middleware::Arrival,
    provider::{
        hops::Hops,
        transport::{Roots, Transport, TransportSettings},
    },
    routing::{Routing, Seen, chance::Chance},
    session::{ConversationOwners, Sessions},
    shared::{MemoryState, WINDOW},
    standstill::Standstill,
};

/// What a scripted provider does after it has read a request.
#[derive(Clone)]
pub(super) enum Step {
    Send(Vec<u8>),
    /// Waits until the test says so.
    Wait(Arc<Notify>),
    /// Keeps the connection open and says no more.
    Hang,
}

pub(super) fn send(text: impl Into<Vec<u8>>) -> Step {
    Step::Send(text.into())
}

/// The head of an answer whose body ends with the connection.
pub(super) fn head(status: &str, content_type: &str) -> Step {
    send(format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\nconnection: close\r\n\r\n"
    ))
}

pub(super) fn stream_head() -> Step {
    head("200 OK", "text/event-stream")
}

pub(super) fn chunk(index: u32, content: &str, finish: Option<&str>) -> Step {
    let chunk = serde_json::json!({"id": "c-1", "object": "chat.completion.chunk", "model": "m-real",
        "choices": [{"index": index, "delta": {"content": content}, "finish_reason": finish}]});
    send(format!("data: {chunk}\n\n"))
}

/// A provider; gives the bodies that it got.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    pub(super) bodies: Arc<parking_lot::Mutex<Vec<String>>>,
}

impl Upstream {
    pub(super) async fn start(tracker: &TaskTracker, script: Vec<Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bodies = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (seen, connections) = (Arc::clone(&bodies), tracker.clone());
        tracker.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(play(socket, script.clone(), Arc::clone(&seen)));
            }
        });
        Self { address, bodies }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn play(
    mut socket: TcpStream,
    script: Vec<Step>,
    seen: Arc<parking_lot::Mutex<Vec<String>>>,
) {
    let body = read_request(&mut socket).await;
    seen.lock().push(body);
    for step in script {
        match step {
            // The hub may have hung up: then nobody is there to be told.
            Step::Send(bytes) => {
                if socket.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Step::Wait(gate) => gate.notified().await,
            Step::Hang => std::future::pending().await,
        }
    }
}

async fn read_request(socket: &mut TcpStream) -> String {
    let mut read = Vec::new();
    loop {
        if socket.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return String::new();
        }
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split_once("content-length: ").unwrap().1;
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if body.len() >= length {
                return body.to_owned();
            }
        }
    }
}

/// Whose conversations there were: nobody's.
#[derive(Debug)]
struct Nobody;

impl ConversationOwners for Nobody {
    fn owner(&self, _: ConversationId) -> BoxFuture<'_, Option<KeyId>> {
        Box::pin(async { None })
    }
}

/// Counts one token in and one for each choice out.
#[derive(Debug)]
pub(super) struct OneEach;

impl CountTokens for OneEach {
    fn count(&self, uncounted: Uncounted) -> BoxFuture<'_, Counted> {
        Box::pin(async move {
            Counted {
                input_tokens: 1,
                output_tokens: u64::try_from(uncounted.choices.len()).unwrap(),
                vocabulary: format!("for {}", uncounted.model),
            }
        })
    }

    fn count_if_idle(&self, uncounted: Uncounted) -> BoxFuture<'_, Option<Counted>> {
        Box::pin(async { Some(self.count(uncounted).await) })
    }
}

/// The engine and everything that it works with.
pub(super) struct Hub {
    pub(super) engine: Engine,
    pub(super) parts: Parts,
    pub(super) dir: TempDir,
    pub(super) key: Key,
    snapshot: Arc<Snapshot>,
}

/// An event as it lies in the outbox.
pub(super) struct Recorded {
    pub(super) kind: String,
    pub(super) data: serde_json::Value,
}

impl Hub {
    /// A hub in front of providers `(name, kind, url)` that all offer the model `m`.
    pub(super) fn new(providers: &[(&str, &str, String)]) -> Self {
        Self::with(providers, OnDisconnect::Finish, 1 << 30)
    }

    pub(super) fn with(
        providers: &[(&str, &str, String)],
        on_disconnect: OnDisconnect,
        bytes_max: u64,
    ) -> Self {
        // A second installation is refused, which is as good.
        let _installed = rustls::crypto::ring::default_provider()
            .install_default()
            .is_ok();
        let dir = TempDir::new().unwrap();
        let clock: SharedClock = Arc::new(SystemClock);
        let settings = OutboxSettings {
            dir: dir.path().to_owned(),
            bytes_max,
            sync: SyncMode::Os,
            release: Release::Local,
        };
        let (outbox, _) = Outbox::open(&settings, &clock).unwrap();
        let shared = Arc::new(MemoryState::new(Arc::clone(&clock), WINDOW));
        let bounds = TransportSettings {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_millis(400),
            idle: Duration::from_millis(400),
            ..TransportSettings::default()
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let parts = Parts {
            routing: Routing::new(
                outbox.clone(),
                Arc::clone(&clock),
                Arc::clone(&metrics),
                Chance::seeded(1),
            ),
            transport: Transport::new(bounds, &Roots::default()).unwrap(),
            outbox,
            standstill: Standstill::default(),
            limits: Limits::new(Arc::<MemoryState>::clone(&shared), 0),
            sessions: Sessions::new(
                &[7; 32],
                Arc::<MemoryState>::clone(&shared),
                Arc::new(Nobody),
                Arc::clone(&clock),
            ),
            shared,
            counting: Counting::new(Arc::new(OneEach)),
            clock,
            metrics,
            tracker: TaskTracker::new(),
            hard_stop: CancellationToken::new(),
        };
        Self {
            engine: Engine::new(parts.clone()),
            parts,
            dir,
            key: key(on_disconnect),
            snapshot: Arc::new(snapshot(providers)),
        }
    }

    /// A hub in front of one provider that plays a script.
    pub(super) async fn before(script: Vec<Step>) -> (Self, Upstream) {
        let upstream = Upstream::start(&TaskTracker::new(), script).await;
        let hub = Self::new(&[("p", "openai", upstream.url())]);
        (hub, upstream)
    }

    /// The same hub with another counter, or another sample to audit.
    pub(super) fn counting(mut self, counting: Counting) -> Self {
        self.parts.counting = counting;
        self.engine = Engine::new(self.parts.clone());
        self
    }

    /// The same hub with other bounds for its waits for providers.
    pub(super) fn bounded(mut self, bounds: TransportSettings) -> Self {
        self.parts.transport = Transport::new(bounds, &Roots::default()).unwrap();
        self.engine = Engine::new(self.parts.clone());
        self
    }

    pub(super) async fn chat(&self, body: &str) -> Result<Served, Refused> {
        self.engine.begin(self.ask(body)).await
    }

    pub(super) fn ask(&self, body: &str) -> Ask {
        Ask {
            cache: crate::cache::Wish::ANY,
            operation: Operation::Chat,
            request: RequestId::draw(&SystemClock),
            arrival: Arrival {
                at: tokio::time::Instant::now(),
                time: self.parts.clock.now(),
            },
            key: Arc::new(self.key.clone()),
            route: "/v1/chat/completions",
            traceparent: None,
            hops: Hops::default(),
            provider: None,
            cancel: CancellationToken::new(),
            conversation: None,
            snapshot: Arc::clone(&self.snapshot),
            body: Bytes::from(body.to_owned()),
            body_bytes: body.len(),
        }
    }

    /// What the routing has learnt of a provider.
    pub(super) fn seen(&self, provider: &str) -> Seen {
        let record = &self.snapshot.provider_named(provider).unwrap().resource;
        self.parts.routing.seen(&record.resource).unwrap()
    }

    /// Waits until every exchange has ended, and gives all events in order.
    pub(super) async fn ended(&self) -> Vec<Recorded> {
        self.parts.tracker.close();
        let bound = Duration::from_secs(20);
        tokio::time::timeout(bound, self.parts.tracker.wait())
            .await
            .unwrap();
        assert_eq!(
            self.parts.outbox.usage().open_requests,
            0,
            "a request was left open"
        );
        self.recorded()
    }

    /// All events in the outbox now, in order.
    pub(super) fn recorded(&self) -> Vec<Recorded> {
        let incarnation = self.dir.path().join(self.parts.outbox.id().to_string());
        let mut files: Vec<_> = fs::read_dir(incarnation)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        let mut events = Vec::new();
        for file in files {
            let bytes = fs::read(file).unwrap();
            let mut rest = bytes.as_slice();
            while let segment::Parsed::Record(record, length) = segment::parse(rest) {
                rest = &rest[length..];
                if let segment::Kind::Event(_) = record.kind {
                    let envelope = Envelope::decode(record.payload).unwrap();
                    events.push(Recorded {
                        kind: envelope.kind.rsplit('.').nth(1).unwrap().to_owned(),
                        data: envelope.data_as().unwrap(),
                    });
                }
            }
        }
        events
    }
}
