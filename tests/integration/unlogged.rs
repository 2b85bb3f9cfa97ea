//! What the process log never says: what people ask and are answered, and whatever opens a door.

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use nexus_tests::upstream::Request;
use nexus_tests::{Broker, Client, Hub, Result, Script, Upstream};
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::stage::request_id;

/// Nothing else in the tests looks like these.
const PROMPT: &str = "prompt-5b1c90d7e2";
const HEADER: &str = "header-a07f3e66b1";
const QUERY: &str = "query-d92b40c8f5";
const PROVIDER_KEY: &str = "sk-provider-3e7d15a9c4";
const GEMINI_KEY: &str = "gemini-key-68f2b0d1e7";

/// How the provider fails, by the request's tag.
const FAULTS: [&str; 5] = ["refused", "overloaded", "malformed", "reported", "answered"];

/// What the provider answers: in each case it says what it was asked.
fn answer(request: &Request) -> Script {
    let said = format!("I cannot say {PROMPT}");
    let error =
        json!({"error": {"message": said, "type": PROMPT, "code": PROMPT, "param": PROMPT}});
    match request.tag().as_str() {
        "refused" => Script::json(400, &error),
        "overloaded" => Script::json(503, &error),
        "malformed" if request.wants_stream() => {
            stream(&[json!({"id": "c", "choices": []}), json!({"choices": said})])
        }
        "malformed" => Script::json(200, &json!({"id": "c", "choices": said})),
        "reported" if request.wants_stream() => stream(&[
            json!({"id": "c", "choices": [{"index": 0, "delta": {"content": said}}]}),
            error,
        ]),
        "reported" => Script::json(200, &error),
        _ => Script::answer().saying([said.as_str()]),
    }
}

fn stream(events: &[Value]) -> Script {
    let frames: Vec<String> = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    Script::status(200, frames.concat()).header("content-type", "text/event-stream")
}

fn ask(model: &str, tag: &str) -> Value {
    let content = format!("my secret is {PROMPT} {tag}");
    json!({"model": model, "messages": [{"role": "user", "content": content}]})
}

async fn serve(client: &Client, upstream: &Upstream) -> Result<()> {
    let (openai, host) = (upstream.url(), format!("http://{}", upstream.host_port()));
    for (name, kind, url, key) in [
        ("openai", "openai", &openai, PROVIDER_KEY),
        ("gemini", "gemini", &host, GEMINI_KEY),
    ] {
        let provider = json!({"name": name, "kind": kind, "server_url": url, "server_key": key});
        client.serve(&provider, json!({"model_name": name})).await?;
    }
    Ok(())
}

/// Asks in every way, and gives the id of a request that failed.
async fn talk(client: &Client) -> Result<String> {
    let mut failed = None;
    for tag in FAULTS {
        let answer = client.chat(&ask("openai", tag)).await?;
        if tag == "overloaded" {
            failed = Some(request_id(&answer)?);
        }
        let mut body = ask("openai", tag);
        body["stream"] = json!(true);
        let answer = client.chat(&body).await?;
        ensure!(
            answer.text().contains(PROMPT) || tag == "malformed",
            "{tag}: {answer:?}"
        );
        client.chat(&ask("gemini", tag)).await?;
    }
    let wrong = json!({"model": "openai", "messages": PROMPT, "n": PROMPT, PROMPT: PROMPT});
    client.chat(&wrong).await?.expect(400)?;
    client.chat(&ask(PROMPT, "nobody")).await?.expect(404)?;
    client
        .post_bytes("/v1/chat/completions", format!("{{\"{PROMPT}"))
        .await?
        .expect(400)?;
    let path = format!("/v1/models?key={QUERY}");
    client.get(&path).await?.expect(200)?;
    client
        .get(&format!("/{PROMPT}?key={QUERY}"))
        .await?
        .expect(404)?;
    failed.context("nothing failed")
}

/// One request over a WebSocket, to its last frame.
async fn talk_by_socket(hub: &Hub) -> Result<()> {
    let url = format!("{}/ws/chat", hub.url()?.replace("http:", "ws:"));
    let mut request = url.into_client_request()?;
    let bearer = format!("Bearer {}", hub.admin_key());
    request
        .headers_mut()
        .insert("authorization", bearer.parse()?);
    request.headers_mut().insert("x-note", HEADER.parse()?);
    let (mut socket, _) = connect_async(request).await?;
    let mut frame = ask("openai", "answered");
    frame["stream"] = json!(true);
    let frame = json!({"type": "chat", "id": "one", "body": frame});
    socket.send(Message::text(frame.to_string())).await?;
    while let Some(heard) = socket.next().await {
        let heard = heard?.into_text()?;
        if heard.contains(PROMPT) {
            socket.close(None).await?;
            return Ok(());
        }
    }
    anyhow::bail!("no answer over the socket")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_log_holds_no_content_no_header_and_no_key() -> Result<()> {
    let upstream = Upstream::start().await?;
    upstream.choose(answer);
    for format in ["text", "json"] {
        let broker = Broker::start().await?;
        let mut hub = Hub::standalone()
            .nats(&broker)
            // The finest that there is.
            .env("NEXUS_LOG", "trace")
            .env("NEXUS_LOG_FORMAT", format)
            .start()
            .await?;
        let admin = hub.client()?;
        serve(&admin, &upstream).await?;
        let key = admin
            .post("/keys", &json!({"name": format, "role": "member"}))
            .await?;
        let key = key.expect(201)?.json["key"]
            .as_str()
            .context("no key")?
            .to_owned();
        let member = hub
            .anonymous()?
            .with_key(&key)?
            .with_header("x-note", HEADER)?;
        let failed = talk(&member).await?;
        talk_by_socket(&hub).await?;
        let admin_key = hub.admin_key().to_owned();
        ensure!(hub.stop().await?.success());
        let said = hub.stdout() + &hub.stderr();
        for expected in [failed.as_str(), "503", "DEBUG"] {
            let is_there = said.contains(expected) || said.contains(&expected.to_lowercase());
            ensure!(is_there, "{format}: no {expected} in the log");
        }
        for secret in [
            PROMPT,
            HEADER,
            QUERY,
            PROVIDER_KEY,
            GEMINI_KEY,
            &key,
            &admin_key,
        ] {
            let lines = said.lines().filter(|line| line.contains(secret));
            let lines: Vec<&str> = lines.take(5).collect();
            ensure!(lines.is_empty(), "{format}: {secret} is in {lines:#?}");
        }
    }
    Ok(())
}
