//! What the log and the read model hold of requests in a dialect.

use anyhow::{Context, ensure};
use http::Method;
use nexus_tests::client::Answer;
use nexus_tests::log::Stream;
use nexus_tests::upstream::content;
use nexus_tests::{Gate, Result, Script};
use serde_json::{Value, json};

use crate::recorded::Recorded;
use crate::stage::{MODEL, Stage, request_id, shown, shown_request};

/// An endpoint: its path, the body that asks with that last word, and where its answer's text is.
struct Endpoint {
    path: &'static str,
    body: fn(&str) -> Value,
    text: &'static str,
    /// What the last event of a stream holds that failed.
    failure: &'static str,
    /// A member that it does not take.
    refused: &'static str,
    /// Where its error objects tell the member.
    is_anthropic: bool,
}

fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            path: "/v1/messages",
            body: |tag| {
                json!({
                    "model": MODEL, "max_tokens": 64,
                    "messages": [{"role": "user", "content": format!("tell me about {tag}")}],
                })
            },
            text: "/content/0/text",
            failure: "event: error",
            refused: "container",
            is_anthropic: true,
        },
        Endpoint {
            path: "/v1/responses",
            body: |tag| json!({"model": MODEL, "input": format!("tell me about {tag}")}),
            text: "/output/0/content/0/text",
            failure: "event: response.failed",
            refused: "previous_response_id",
            is_anthropic: false,
        },
        Endpoint {
            path: "/v1/completions",
            body: |tag| json!({"model": MODEL, "prompt": format!("tell me about {tag}")}),
            text: "/choices/0/text",
            failure: "data: {\"error\"",
            refused: "suffix",
            is_anthropic: false,
        },
    ]
}

impl Endpoint {
    fn asks(&self, tag: &str, stream: bool) -> Value {
        let mut body = (self.body)(tag);
        body["stream"] = json!(stream);
        body
    }

    fn bare(&self) -> &'static str {
        self.path.trim_start_matches("/v1")
    }

    async fn post(&self, stage: &Stage, tag: &str, stream: bool) -> Result<Answer> {
        stage.client.post(self.path, &self.asks(tag, stream)).await
    }
}

#[tokio::test]
async fn each_request_is_recorded_and_counted() -> Result<()> {
    let stage = Stage::set().await?;
    for endpoint in endpoints() {
        let before = stage.client.get("/stats").await?.expect(200)?.json;
        for (path, stream) in [
            (endpoint.path, false),
            (endpoint.path, true),
            (endpoint.bare(), false),
        ] {
            let answer = stage
                .client
                .post(path, &endpoint.asks("rivers", stream))
                .await?;
            let answer = answer.expect(200)?;
            let said = content::text("rivers", 0, 5);
            if !stream {
                let text = answer.json.pointer(endpoint.text);
                ensure!(text == Some(&json!(said)), "{path}: {}", answer.text());
            }
            ensure!(answer.header("x-conversation-id").is_some(), "{path}");
            let id = request_id(&answer)?;
            let recorded = Recorded::wait(&stage.log, &id).await?;
            ensure!(recorded.received.data()["http.route"] == endpoint.path);
            ensure!(recorded.failure().is_empty() && recorded.text(0) == said);
            ensure!(recorded.chunks.is_empty() != stream, "{recorded:#?}");
            let shown = shown_request(&stage.client, &id).await?;
            ensure!(shown["state"] == "completed", "{shown:#}");
            ensure!(shown["route"] == endpoint.path, "{shown:#}");
            let bytes = endpoint.asks("rivers", stream).to_string().len();
            ensure!(shown["body_bytes"] == bytes, "{shown:#}");
        }
        shown(&stage.client, "/stats", |now| {
            let more =
                now["requests"].as_u64() == before["requests"].as_u64().map(|count| count + 3);
            more.then_some(()).ok_or("not counted")
        })
        .await?;
    }
    stage.strike().await
}

#[tokio::test]
async fn a_failure_ends_the_exchange_and_the_stream() -> Result<()> {
    let stage = Stage::set().await?;
    for endpoint in endpoints() {
        stage
            .upstream
            .always(Script::answer().chunks(6).cut_after(3));
        let answer = endpoint.post(&stage, "rivers", true).await?.expect(200)?;
        ensure!(
            answer.text().contains(endpoint.failure),
            "{}",
            answer.text()
        );
        let recorded = Recorded::wait(&stage.log, &request_id(&answer)?).await?;
        ensure!(recorded.failure() == "upstream_cut", "{recorded:#?}");
        ensure!(recorded.text(0) == content::text("rivers", 0, 3));

        stage.upstream.always(Script::failure(500, "broken"));
        for stream in [false, true] {
            let answer = endpoint.post(&stage, "rivers", stream).await?;
            ensure!(answer.status == 500, "{}", answer.text());
            ensure!(
                answer.json["error"]["code"] == "broken",
                "{}",
                answer.text()
            );
            let recorded = Recorded::wait(&stage.log, &request_id(&answer)?).await?;
            ensure!(recorded.failure() == "upstream_status", "{recorded:#?}");
        }
    }
    stage.strike().await
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_a_whole_record() -> Result<()> {
    let stage = Stage::set().await?;
    for endpoint in endpoints() {
        let gate = Gate::closed();
        stage
            .upstream
            .always(Script::answer().chunks(6).wait_after(3, &gate));
        let request = stage.client.request(Method::POST, endpoint.path);
        let body = endpoint.asks("rivers", true).to_string();
        let request = request
            .header("content-type", "application/json")
            .body(body);
        let mut answer = request.send().await?;
        let id = answer.headers().get("x-request-id").context("no id")?;
        let id = id.to_str()?.to_owned();
        answer.chunk().await?.context("nothing came")?;
        drop(answer);
        gate.open();
        let recorded = Recorded::wait(&stage.log, &id).await?;
        ensure!(recorded.failure().is_empty(), "{recorded:#?}");
        ensure!(
            recorded.text(0) == content::text("rivers", 0, 6),
            "{recorded:#?}"
        );
    }
    stage.strike().await
}

#[tokio::test]
async fn bad_bodies_are_refused_by_name_and_recorded() -> Result<()> {
    let stage = Stage::set().await?;
    for endpoint in endpoints() {
        let mut unknown = endpoint.asks("rivers", false);
        unknown["novel"] = json!(1);
        let mut unsupported = endpoint.asks("rivers", false);
        unsupported[endpoint.refused] = json!("x");
        let mut modelless = endpoint.asks("rivers", false);
        modelless["model"] = json!(7);
        let twice = endpoint.asks("x", false).to_string();
        let twice = twice.replacen('{', r#"{"model":"a","#, 1);
        for (body, param) in [
            (unknown.to_string(), json!("novel")),
            (unsupported.to_string(), json!(endpoint.refused)),
            (modelless.to_string(), json!("model")),
            (twice, json!("model")),
            ("[]".to_owned(), json!(null)),
            ("{".to_owned(), json!(null)),
        ] {
            let answer = stage.client.post_bytes(endpoint.path, body.clone()).await?;
            ensure!(answer.status == 400, "{body}: {}", answer.text());
            ensure!(
                answer.json["error"]["param"] == param,
                "{body}: {}",
                answer.text()
            );
            ensure!(
                (answer.json["type"] == "error") == endpoint.is_anthropic,
                "{}",
                answer.text()
            );
            let id = request_id(&answer)?;
            let events = nexus_tests::until(
                "the refusal is in the log",
                nexus_tests::account::BOUND,
                async || {
                    let events = stage.log.events_of_request(&id).await?;
                    ensure!(!events.is_empty(), "nothing yet");
                    Ok(events)
                },
            )
            .await?;
            ensure!(
                events.len() == 1 && events[0].name() == "rejected",
                "{events:?}"
            );
            ensure!(events[0].stream == Stream::Exchanges);
            ensure!(events[0].data()["http.route"] == endpoint.path);
        }
        ensure!(stage.upstream.exchanges().is_empty());
    }
    stage.strike().await
}
