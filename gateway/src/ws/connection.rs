//! One connection: reads the client's frames, writes those for it, pings it.

use std::{collections::HashMap, pin::pin, sync::Arc};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use futures_util::{Sink, SinkExt, StreamExt, stream::SplitStream};
use nexus_events::{config_event::Key, id::RequestId};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    PING_EVERY, Peer, REQUESTS_MAX, SILENCE_MAX, STALL_MAX,
    frame::{self, Chat, Incoming, Outgoing},
    queue::{Gone, Queue, Waiting},
    request::{ROUTE, Request},
};
use crate::{
    auth::{Access, Permission},
    endpoint::rejected,
    error::ApiError,
    exchange::Refused,
    state::State,
};

/// The requests under way, by what the client calls them, each with what cancels it.
type UnderWay = Arc<Mutex<HashMap<String, CancellationToken>>>;

/// Serves a connection to its end.
pub async fn serve(state: State, peer: Peer, socket: WebSocket) {
    let (sink, frames) = socket.split();
    let (out, queue) = Queue::new();
    let alive = Alive(Arc::new(Mutex::new(Instant::now())));
    let gone = CancellationToken::new();
    let connection = Connection {
        state,
        peer,
        out,
        under_way: UnderWay::default(),
        requests: TaskTracker::new(),
        alive: alive.clone(),
        gone: gone.clone(),
    };
    // However this ends, nobody waits for the answers any more.
    let _gone = gone.drop_guard_ref();
    let over = CancellationToken::new();
    let writing = write(sink, queue, alive, over.clone());
    let reading = async {
        connection.read(frames).await;
        gone.cancel();
        // What is under way keeps its sender, and so the writer, until its last frame.
        over.cancel();
        drop(connection);
    };
    // Whichever ends first ends the connection: nobody reads, or nobody writes.
    let (mut writing, mut reading) = (pin!(writing), pin!(reading));
    tokio::select! {
        () = &mut writing => {}
        () = &mut reading => writing.await,
    }
}

struct Connection {
    state: State,
    peer: Peer,
    out: Queue,
    under_way: UnderWay,
    requests: TaskTracker,
    alive: Alive,
    /// Cancelled when the client is gone.
    gone: CancellationToken,
}

/// When the client last gave a sign of life: it sent a frame, or took one.
///
/// A client behind a slow link answers a ping only when it has read all that was sent before it.
#[derive(Clone)]
struct Alive(Arc<Mutex<Instant>>);

impl Alive {
    fn is(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Waits until it has been silent for too long.
    async fn no_more(&self) {
        loop {
            let until = *self.0.lock() + SILENCE_MAX;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

impl Connection {
    /// Takes frames until the client closes, falls silent, or the hub stops; then waits for what
    /// is under way if somebody is there to get it.
    async fn read(&self, mut frames: SplitStream<WebSocket>) {
        let soft_stop = self.state.soft_stop.clone();
        loop {
            let next = tokio::select! {
                next = frames.next() => next,
                () = self.alive.no_more() => return,
                () = soft_stop.cancelled() => break,
            };
            let Some(Ok(message)) = next else {
                return;
            };
            self.alive.is();
            let taken = match message {
                Message::Text(text) => self.take(&text).await,
                Message::Binary(_) => {
                    let message = "Frames must be text: JSON objects.";
                    self.wrong(None, &ApiError::invalid_request(None, message))
                        .await
                }
                Message::Ping(_) | Message::Pong(_) => Ok(()),
                Message::Close(_) => return,
            };
            if taken.is_err() {
                return;
            }
        }
        // Answers under way are finished; frames that come meanwhile are answered with an error.
        self.requests.close();
        let mut finished = pin!(self.requests.wait());
        loop {
            tokio::select! {
                () = &mut finished => return,
                next = frames.next() => match next {
                    Some(Ok(Message::Text(text))) => {
                        if self.stopping(&text).await.is_err() {
                            return;
                        }
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
            }
        }
    }

    async fn take(&self, text: &str) -> Result<(), Gone> {
        match Incoming::parse(text) {
            Ok(Incoming::Chat(chat)) => self.chat(chat).await,
            Ok(Incoming::Cancel(id)) => {
                let cancel = self.under_way.lock().get(&id).cloned();
                if let Some(cancel) = cancel {
                    // Its last frame says what became of it.
                    cancel.cancel();
                    return Ok(());
                }
                let error = ApiError::not_found("request under way").with_param("id");
                self.wrong(Some(&id), &error).await
            }
            Ok(Incoming::Ping) => self.send(Outgoing::Pong.text()).await,
            Err(bad) => self.wrong(bad.id.as_deref(), &bad.error).await,
        }
    }

    async fn stopping(&self, text: &str) -> Result<(), Gone> {
        match Incoming::parse(text) {
            Ok(Incoming::Chat(chat)) => {
                let message = "The hub is shutting down; the request can be sent again.";
                let error = ApiError::unavailable("shutting_down", message);
                self.wrong(chat.id.as_deref(), &error).await
            }
            Ok(Incoming::Cancel(_) | Incoming::Ping) | Err(_) => self.take(text).await,
        }
    }

    /// Starts a request as a task of its own.
    async fn chat(&self, chat: Chat) -> Result<(), Gone> {
        let request = RequestId::draw(&*self.state.clock);
        let id = chat.id.clone().unwrap_or_else(|| request.to_string());
        let snapshot = self.state.configuration.current();
        let key = snapshot.key(self.peer.key).map(|entry| &entry.resource);
        let Some(key) = key.filter(|key| may_call(key)) else {
            let error = ApiError::wrong_key();
            self.send(frame::error(Some(&id), &error, request)).await?;
            return Err(Gone);
        };
        let cancel = CancellationToken::new();
        if let Err(error) = self.enter(&id, &cancel) {
            let refused = Refused { error, model: None };
            let key = self.peer.key;
            rejected::record(&self.state, (request, key), ROUTE, &refused).await;
            let frame = frame::error(Some(&id), &refused.error, request);
            return self.send(frame).await;
        }
        let under_way = Leaves {
            all: Arc::clone(&self.under_way),
            id: id.clone(),
        };
        let work = Request {
            state: State::clone(&self.state),
            key: Arc::clone(key),
            peer: self.peer.clone(),
            id,
            number: request,
            out: self.out.clone(),
            cancel,
        };
        let gone = self.gone.clone();
        let run = async move {
            // Dropped half-way, the client has hung up, and the exchange goes on as its key says.
            let last = gone.run_until_cancelled(work.run(chat)).await;
            // Before the last frame: who has that may use the id again.
            drop(under_way);
            // A client that is gone needs no frame; its exchange ends as its key says.
            if let Some(Ok(last)) = last {
                drop(work.send(last).await);
            }
        };
        // On both: the process waits for it, and so does this connection.
        drop(self.state.tracker.spawn(self.requests.track_future(run)));
        Ok(())
    }

    fn enter(&self, id: &str, cancel: &CancellationToken) -> Result<(), ApiError> {
        let mut under_way = self.under_way.lock();
        if under_way.contains_key(id) {
            let message = "A request with this id is under way on this connection.";
            return Err(ApiError::conflict("duplicate_id", message).with_param("id"));
        }
        if under_way.len() >= REQUESTS_MAX {
            let message = format!("{REQUESTS_MAX} requests are under way on this connection.");
            let wait = std::time::Duration::from_secs(1);
            return Err(ApiError::rate_limited(message, wait));
        }
        under_way.insert(id.to_owned(), cancel.clone());
        Ok(())
    }

    /// Tells that a frame was wrong.
    async fn wrong(&self, id: Option<&str>, error: &ApiError) -> Result<(), Gone> {
        let frame = frame::error(id, error, RequestId::draw(&*self.state.clock));
        self.send(frame).await
    }

    async fn send(&self, frame: Utf8Bytes) -> Result<(), Gone> {
        self.out.send(frame).await
    }
}

/// Whether its role still lets it call models.
fn may_call(key: &Key) -> bool {
    Permission::CallModels.of(key.role) != Access::No
}

/// Takes a request off the list when it ends, however it ends.
struct Leaves {
    all: UnderWay,
    id: String,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}

/// Writes what is for the client, and pings it; ends when there is nothing more to come or the
/// client takes nothing.
async fn write(
    mut sink: impl Sink<Message> + Unpin,
    mut queue: mpsc::Receiver<Waiting>,
    alive: Alive,
    over: CancellationToken,
) {
    let mut ping = interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset_at(Instant::now() + PING_EVERY);
    loop {
        // The frame's room in the queue is held until it is written.
        let (message, _waiting) = tokio::select! {
            biased;
            // First, or a queue that is never empty would leave no time for it.
            _ = ping.tick(), if !over.is_cancelled() => {
                (Message::Ping(bytes::Bytes::new()), None)
            }
            waiting = queue.recv() => match waiting {
                Some(waiting) => (Message::Text(waiting.frame.clone()), Some(waiting)),
                None => break,
            },
        };
        let is_answer = matches!(message, Message::Text(_));
        if !matches!(timeout(STALL_MAX, sink.send(message)).await, Ok(Ok(()))) {
            return;
        }
        if is_answer {
            alive.is();
        }
    }
    let parting = Message::Close(Some(CloseFrame {
        code: close_code::AWAY,
        reason: Utf8Bytes::from_static(""),
    }));
    drop(timeout(STALL_MAX, sink.send(parting)).await);
}

#[cfg(test)]
mod tests;
