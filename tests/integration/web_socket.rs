//! Chat over a WebSocket: the same engine, records, limits and errors as over HTTP.

mod gone;
mod handshake;
mod hops;
mod told;

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use nexus_tests::account::{Account, shipped};
use nexus_tests::upstream::{End, content};
use nexus_tests::{Gate, Hub, Result, Script};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::stage::{MODEL, Stage, ask};

/// A frame comes within milliseconds; a busy machine may need far more.
const FRAME_BOUND: Duration = Duration::from_secs(30);

/// Chunks of text of an answer; the role comes before them and the finish reason after them.
const CHUNKS: usize = 6;

/// A client's connection.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(hub: &Hub) -> Result<Self> {
        Self::open_with(hub, hub.admin_key()).await
    }

    async fn open_with(hub: &Hub, key: &str) -> Result<Self> {
        let mut request = address(hub)?.into_client_request()?;
        let bearer = format!("Bearer {key}");
        request
            .headers_mut()
            .insert("authorization", bearer.parse()?);
        let (socket, _) = connect_async(request).await?;
        Ok(Self(socket))
    }

    async fn say(&mut self, frame: &Value) -> Result<()> {
        Ok(self.0.send(Message::text(frame.to_string())).await?)
    }

    async fn chat(&mut self, id: &str, body: &Value) -> Result<()> {
        self.say(&json!({"type": "chat", "id": id, "body": body}))
            .await
    }

    /// The next frame; an error when the connection ends.
    async fn hear(&mut self) -> Result<Value> {
        loop {
            let next = timeout(FRAME_BOUND, self.0.next()).await?;
            match next.context("the connection ended")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Ping(_) | Message::Pong(_) => {}
                other => bail!("{other:?}"),
            }
        }
    }

    /// All frames of a request up to its last; frames of others are an error.
    async fn hear_out(&mut self, id: &str) -> Result<Vec<Value>> {
        let mut frames = Vec::new();
        loop {
            let frame = self.hear().await?;
            ensure!(frame["id"] == id, "{frame}");
            let is_last = frame["type"] == "done" || frame["type"] == "error";
            frames.push(frame);
            if is_last {
                return Ok(frames);
            }
        }
    }

    /// The code of the close frame, once that comes.
    async fn closes(&mut self) -> Result<u16> {
        loop {
            let next = timeout(FRAME_BOUND, self.0.next()).await?;
            if let Message::Close(Some(close)) = next.context("no close frame")?? {
                return Ok(close.code.into());
            }
        }
    }
}

fn address(hub: &Hub) -> Result<String> {
    let url = hub.url()?;
    Ok(format!("{}/ws/chat", url.replacen("http", "ws", 1)))
}

/// The types of some frames, chunks counted together.
fn kinds(frames: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> = frames
        .iter()
        .filter_map(|frame| frame["type"].as_str())
        .collect();
    kinds.dedup();
    kinds
}

fn text(frames: &[Value]) -> String {
    frames
        .iter()
        .filter_map(|frame| frame.pointer("/chunk/choices/0/delta/content")?.as_str())
        .collect()
}

fn streamed(tag: &str) -> Value {
    let mut body = ask(tag);
    body["stream"] = Value::Bool(true);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_many_requests() -> Result<()> {
    let stage = Stage::set().await?;
    let gate = Gate::closed();
    let for_slow = gate.clone();
    stage.upstream.choose(move |request| {
        let answer = Script::answer().chunks(CHUNKS);
        if request.tag().starts_with("slow") {
            answer.wait_after(2, &for_slow)
        } else {
            answer
        }
    });
    let mut socket = Socket::open(&stage.hub).await?;
    socket.chat("slow", &streamed("slow-1")).await?;
    let mut slow = Vec::new();
    while text(&slow) != content::text("slow-1", 0, 2) {
        slow.push(socket.hear().await?);
    }
    // While it stands, others come and go on the same connection.
    socket.chat("quick", &streamed("quick-1")).await?;
    let quick = socket.hear_out("quick").await?;
    ensure!(kinds(&quick) == ["started", "chunk", "done"], "{quick:?}");
    ensure!(text(&quick) == content::text("quick-1", 0, CHUNKS));
    let numbers = quick.iter().filter_map(|frame| frame["index"].as_u64());
    ensure!(numbers.eq(0..CHUNKS as u64 + 2), "{quick:?}");
    socket.chat("whole", &ask("whole-1")).await?;
    let whole = socket.hear_out("whole").await?;
    ensure!(kinds(&whole) == ["started", "answer", "done"], "{whole:?}");
    let said = &whole[1]["body"]["choices"][0]["message"]["content"];
    ensure!(*said == content::text("whole-1", 0, CHUNKS), "{said}");
    let simple = json!({"message": "hello simple-1", "model_name": MODEL, "provider_id": "provider-of-gpt-test", "id": "simple"});
    socket.say(&simple).await?;
    let simple = socket.hear_out("simple").await?;
    ensure!(text(&simple) == content::text("simple-1", 0, CHUNKS));
    socket.say(&json!({"type": "ping"})).await?;
    ensure!(socket.hear().await? == json!({"type": "pong"}));

    gate.open();
    slow.extend(socket.hear_out("slow").await?);
    ensure!(
        text(&slow) == content::text("slow-1", 0, CHUNKS),
        "{slow:?}"
    );
    shipped(&stage.hub).await?;
    let account = Account::take(&stage.log).await?;
    account.assert_one_end_each()?;
    let starts = [&slow, &quick, &whole, &simple].map(|frames| &frames[0]);
    for start in starts {
        let request_id = start["request_id"].as_str().context("no request id")?;
        let events = account.events_of(request_id);
        let received = events.first().context("not recorded")?;
        ensure!(received.data()["http.route"] == "/ws/chat");
        let conversation = &received.data()["gen_ai.conversation.id"];
        ensure!(*conversation == start["conversation_id"], "{start}");
        let end = account.terminal(request_id)?;
        ensure!(end.name() == "completed", "{}", end.json);
    }
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_cancelled_at_its_provider_and_recorded_as_far_as_it_came() -> Result<()> {
    let stage = Stage::set().await?;
    let gate = Gate::closed();
    let script = Script::answer().chunks(CHUNKS).wait_after(2, &gate);
    stage.upstream.once(script);
    let mut socket = Socket::open(&stage.hub).await?;
    socket.chat("a", &streamed("cancelled")).await?;
    let started = socket.hear().await?;
    for _ in 0..3 {
        ensure!(socket.hear().await?["type"] == "chunk");
    }
    socket.say(&json!({"type": "cancel", "id": "a"})).await?;
    let last = socket.hear().await?;
    ensure!(last["error"]["code"] == "client_cancelled", "{last}");
    gate.open();
    let exchanges = stage.upstream.idle().await?;
    ensure!(
        matches!(exchanges[0].end, Some(End::ClientLeft)),
        "{exchanges:?}"
    );
    shipped(&stage.hub).await?;
    let account = Account::take(&stage.log).await?;
    let request_id = started["request_id"].as_str().context("no request id")?;
    let end = account.terminal(request_id)?;
    let reason = end.data().pointer("/nexus.failure/reason");
    ensure!(reason == Some(&json!("client_cancelled")), "{}", end.json);
    ensure!(account.chunks_of(request_id)?.len() == 3);
    // The connection goes on, and what is over cannot be cancelled.
    socket.say(&json!({"type": "cancel", "id": "a"})).await?;
    let again = socket.hear().await?;
    ensure!(again["error"]["code"] == "not_found", "{again}");
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_a_client_that_hung_up() -> Result<()> {
    let stage = Stage::set().await?;
    let gate = Gate::closed();
    let script = Script::answer().chunks(CHUNKS).wait_after(2, &gate);
    stage.upstream.once(script);
    let mut socket = Socket::open(&stage.hub).await?;
    socket.chat("a", &streamed("broken")).await?;
    let request_id = socket.hear().await?["request_id"].clone();
    socket.hear().await?;
    drop(socket);
    gate.open();
    // Its key says that answers are finished.
    shipped(&stage.hub).await?;
    let ended = stage.log.until_events(
        nexus_tests::log::Stream::Exchanges,
        "it is finished all the same",
        |events| {
            let completed = events.iter().find(|event| event.name() == "completed");
            let completed = completed.ok_or("not yet")?;
            if completed.request_id() == request_id {
                Ok(())
            } else {
                Err("another one")
            }
        },
    );
    ended.await?;
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_and_the_connection_goes_on() -> Result<()> {
    let stage = Stage::set().await?;
    let gate = Gate::closed();
    stage
        .upstream
        .always(Script::answer().wait_before_headers(&gate));
    let mut socket = Socket::open(&stage.hub).await?;
    socket.0.send(Message::text("no json")).await?;
    ensure!(socket.hear().await?["error"]["type"] == "invalid_request_error");
    socket.0.send(Message::binary(vec![0, 159])).await?;
    ensure!(socket.hear().await?["error"]["type"] == "invalid_request_error");
    let unknown_provider = json!({"message": "a", "model_name": MODEL, "provider_id": "nobody"});
    for (frame, param, code) in [
        (json!({"type": "go", "id": "x"}), "type", ""),
        (
            json!({"type": "chat", "id": "x", "body": {"model": MODEL}}),
            "messages",
            "",
        ),
        (
            json!({"type": "chat", "id": "x", "body": {"model": "none", "messages": [{"role": "user", "content": "a"}]}}),
            "",
            "model_not_found",
        ),
        (json!({"type": "chat", "body": 7}), "", ""),
        (json!({"model_name": MODEL}), "message", ""),
        (unknown_provider, "", "model_not_found"),
    ] {
        socket.say(&frame).await?;
        let told = socket.hear().await?;
        let error = &told["error"];
        ensure!(
            told["type"] == "error" && error["message"].is_string(),
            "{told}"
        );
        ensure!(param.is_empty() || error["param"] == param, "{told}");
        ensure!(code.is_empty() || error["code"] == code, "{told}");
        ensure!(frame["id"].is_null() || frame["id"] == told["id"], "{told}");
    }
    // One id names one request.
    socket.chat("twice", &ask("twice-1")).await?;
    gate.reached_by(1).await?;
    socket.chat("twice", &ask("twice-2")).await?;
    let refused = socket.hear().await?;
    ensure!(refused["error"]["code"] == "duplicate_id", "{refused}");
    gate.open();
    let first = socket.hear_out("twice").await?;
    ensure!(kinds(&first) == ["started", "answer", "done"], "{first:?}");
    // Whoever has the last frame may use the id again.
    for _ in 0..20 {
        socket.chat("twice", &ask("twice-3")).await?;
        let again = socket.hear_out("twice").await?;
        ensure!(kinds(&again) == ["started", "answer", "done"], "{again:?}");
    }
    shipped(&stage.hub).await?;
    let account = Account::take(&stage.log).await?;
    let rejected = account
        .exchanges
        .iter()
        .filter(|event| event.name() == "rejected");
    // Of the frames above, those that are requests.
    ensure!(rejected.count() == 5);
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_as_over_http() -> Result<()> {
    let stage = Stage::set_with(|hub| hub.env("NEXUS_RATE_LIMIT_RPS", 1)).await?;
    let mut socket = Socket::open(&stage.hub).await?;
    for number in 0..3 {
        socket.chat(&format!("{number}"), &ask("limited")).await?;
    }
    let mut limited = 0;
    let mut over = 0;
    while over < 3 {
        let frame = socket.hear().await?;
        over += usize::from(frame["type"] == "done" || frame["type"] == "error");
        limited += usize::from(frame["error"]["code"] == "rate_limit_exceeded");
    }
    ensure!(limited == 2, "{limited} were refused");
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_is_under_way_and_says_goodbye() -> Result<()> {
    let mut stage = Stage::set().await?;
    let gate = Gate::closed();
    let script = Script::answer().chunks(CHUNKS).wait_after(2, &gate);
    stage.upstream.once(script);
    let mut socket = Socket::open(&stage.hub).await?;
    socket.chat("a", &streamed("last")).await?;
    gate.reached_by(1).await?;
    stage.hub.interrupt()?;
    // Once it refuses, it is stopping.
    let mut frames = Vec::new();
    loop {
        socket.chat("late", &ask("late")).await?;
        let frame = socket.hear().await?;
        if frame["error"]["code"] == "shutting_down" {
            break;
        }
        frames.push(frame);
    }
    gate.open();
    loop {
        let frame = socket.hear().await?;
        let is_last = frame["id"] == "a" && frame["type"] == "done";
        frames.push(frame);
        if is_last {
            break;
        }
    }
    frames.retain(|frame| frame["id"] == "a");
    ensure!(
        text(&frames) == content::text("last", 0, CHUNKS),
        "{frames:?}"
    );
    ensure!(socket.closes().await? == 1001);
    ensure!(stage.hub.ended().await?.success());
    Ok(())
}
