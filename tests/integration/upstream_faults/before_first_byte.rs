//! Faults before the client has got anything: it gets a status and an error object.

use anyhow::ensure;
use nexus_tests::client::{Answer, Ending};
use nexus_tests::upstream::content;
use nexus_tests::{Result, Script, Upstream};
use serde_json::{Value, json};

use crate::recorded::Recorded;
use crate::stage::{Stage, ask, ensure_error, ensure_error_object, request_id};

/// What is expected of a provider's fault.
struct Fault {
    name: &'static str,
    script: Script,
    /// The status that the client gets.
    status: u16,
    /// The `error.code` that the client gets.
    code: &'static str,
    /// The reason in the events.
    reason: &'static str,
    /// The provider's status in the attempt's event.
    upstream_status: Option<u64>,
    /// How often the provider is asked, which is alone: three times where that may help.
    tries: usize,
}

impl Fault {
    fn new(name: &'static str, script: Script, status: u16, reason: &'static str) -> Self {
        Self {
            name,
            script,
            status,
            code: reason,
            reason,
            upstream_status: None,
            tries: 1,
        }
    }

    fn tried_again(self) -> Self {
        Self { tries: 3, ..self }
    }

    fn code(self, code: &'static str) -> Self {
        Self { code, ..self }
    }

    fn answered(self, upstream_status: u64) -> Self {
        Self {
            upstream_status: Some(upstream_status),
            ..self
        }
    }
}

fn faults() -> Vec<Fault> {
    let in_disguise = content::error("the engine fell over", "server_error", Some("engine_down"));
    vec![
        Fault::new("hang-up", Script::hang_up(), 502, "upstream_cut").tried_again(),
        Fault::new("not-http", Script::not_http(), 502, "upstream_malformed"),
        Fault::new(
            "too-many",
            Script::too_many_requests(7),
            429,
            "upstream_status",
        )
        .code("rate_limit_exceeded")
        .answered(429),
        Fault::new(
            "broken",
            Script::failure(500, "engine_down"),
            500,
            "upstream_status",
        )
        .code("engine_down")
        .answered(500)
        .tried_again(),
        Fault::new(
            "bad-request",
            Script::failure(400, "context_length_exceeded"),
            400,
            "upstream_status",
        )
        .code("context_length_exceeded")
        .answered(400),
        Fault::new(
            "our-key",
            Script::failure(401, "invalid_api_key"),
            502,
            "upstream_status",
        )
        .code("upstream_credentials")
        .answered(401),
        Fault::new("html", Script::html(503), 503, "upstream_status")
            .answered(503)
            .tried_again(),
        Fault::new(
            "redirect",
            Script::status(302, "").header("location", "http://127.0.0.1:1/"),
            502,
            "upstream_status",
        )
        .answered(302),
        Fault::new("garbage", Script::garbage(), 502, "upstream_malformed").answered(200),
        Fault::new(
            "no-object",
            Script::json(200, &json!(["a", "list"])),
            502,
            "upstream_malformed",
        )
        .answered(200),
        Fault::new(
            "error-in-disguise",
            Script::json(200, &in_disguise),
            500,
            "upstream_error",
        )
        .code("engine_down")
        .answered(200)
        .tried_again(),
    ]
}

#[tokio::test]
async fn the_client_gets_an_error_and_the_log_the_reason() -> Result<()> {
    let stage = Stage::set().await?;
    for stream in [false, true] {
        for fault in faults() {
            stage.upstream.always(fault.script.clone());
            let tag = format!("{}-{stream}", fault.name);
            let mut body = ask(&tag);
            body["stream"] = Value::Bool(stream);
            let answer = stage.client.chat(&body).await?;
            check(&stage, &fault, &answer)
                .await
                .map_err(|error| error.context(format!("{}, stream {stream}", fault.name)))?;
            let asked = stage.upstream.exchanges_of(&tag).len();
            ensure!(
                asked == fault.tries,
                "{tag}: the provider was asked {asked} times"
            );
        }
    }
    stage.strike().await
}

async fn check(stage: &Stage, fault: &Fault, answer: &Answer) -> Result<()> {
    ensure_error(answer, fault.status)?;
    ensure!(answer.error_code() == fault.code, "{}", answer.text());
    ensure!(!answer.text().contains("upstream-secret"), "{answer:?}");
    if fault.name == "too-many" {
        ensure!(answer.header("retry-after") == Some("7"), "{answer:?}");
    }
    let recorded = Recorded::wait(&stage.log, &request_id(answer)?).await?;
    ensure!(recorded.failure() == fault.reason, "{recorded:#?}");
    ensure!(recorded.attempts.len() == fault.tries, "{recorded:#?}");
    for attempt in &recorded.attempts {
        ensure!(attempt.failure() == fault.reason, "{recorded:#?}");
        ensure!(
            attempt.status() == fault.upstream_status,
            "the provider's status: {recorded:#?}"
        );
    }
    ensure!(recorded.chunks.is_empty(), "{recorded:#?}");
    let told = &recorded.terminal.data()["nexus.failure"]["message"];
    ensure!(
        *told == answer.json["error"]["message"],
        "the log tells {told} and the client got {}",
        answer.text()
    );
    ensure!(
        recorded.terminal.data()["http.response.status_code"] == fault.status,
        "{recorded:#?}"
    );
    ensure!(recorded.tokens() == (Some(0), Some(0)), "{recorded:#?}");
    Ok(())
}

#[tokio::test]
async fn a_provider_that_nobody_is_at_is_told() -> Result<()> {
    let stage = Stage::set().await?;
    let nobody = Upstream::refusing_url()?;
    stage.client.serve_model("nobody", &nobody).await?;
    for stream in [false, true] {
        let mut body = ask("refused");
        body["model"] = json!("nobody");
        body["stream"] = Value::Bool(stream);
        let answer = stage.client.chat(&body).await?;
        ensure_error(&answer, 502)?;
        ensure!(
            answer.error_code() == "upstream_refused",
            "{}",
            answer.text()
        );
        let recorded = Recorded::wait(&stage.log, &request_id(&answer)?).await?;
        ensure!(recorded.failure() == "upstream_refused", "{recorded:#?}");
        ensure!(recorded.attempts.len() == 3, "{recorded:#?}");
    }
    stage.strike().await
}

/// Two providers of one model, the first one asked first.
struct Pair {
    first: Upstream,
    second: Upstream,
    /// The name of the second one.
    fallback: String,
}

impl Pair {
    /// Both answer for the model `of`.
    async fn of(stage: &Stage, of: &str) -> Result<Self> {
        let (first, second) = tokio::try_join!(Upstream::start(), Upstream::start())?;
        let fallback = format!("second-{of}");
        let client = &stage.client;
        client.serve_model(of, &first.url()).await?;
        let provider = json!({"name": fallback, "server_url": second.url()});
        client.post("/providers", &provider).await?.expect(201)?;
        let model = json!({"provider_id": fallback, "model_name": of});
        client.post("/provider_models", &model).await?.expect(201)?;
        let route = json!({"name": of, "targets": [
            {"model": of, "provider": format!("provider-of-{of}")},
            {"model": of, "provider": fallback, "priority": 1},
        ]});
        client.post("/routes", &route).await?.expect(201)?;
        Ok(Self {
            first,
            second,
            fallback,
        })
    }
}

fn ask_for(model: &str, tag: &str) -> Value {
    let mut body = ask(tag);
    body["model"] = json!(model);
    body
}

#[tokio::test]
async fn the_next_provider_is_asked_until_the_first_byte() -> Result<()> {
    let stage = Stage::set().await?;
    let overloaded = content::error("busy", "overloaded_error", None);
    // What may pass is tried again elsewhere, in both modes.
    for (tag, script) in [
        ("again-500", Script::failure(500, "engine_down")),
        ("again-429", Script::too_many_requests(60)),
        ("again-cut", Script::hang_up()),
        ("again-200", Script::json(200, &overloaded)),
    ] {
        let pair = Pair::of(&stage, tag).await?;
        pair.first.always(script);
        let body = ask_for(tag, tag);
        let answer = stage.client.chat(&body).await?.expect(200)?;
        ensure!(
            answer.content() == content::text(tag, 0, 5),
            "{}",
            answer.text()
        );
        let recorded = Recorded::wait(&stage.log, &request_id(&answer)?).await?;
        ensure!(recorded.failure().is_empty(), "{recorded:#?}");
        let failures: Vec<bool> = recorded
            .attempts
            .iter()
            .map(|attempt| attempt.failure().is_empty())
            .collect();
        ensure!(failures == [false, true], "{tag}: {recorded:#?}");
        ensure!(
            recorded.terminal.data()["gen_ai.provider.name"] == *pair.fallback,
            "{recorded:#?}"
        );

        let mut stream = stage.client.chat_stream(&body).await?;
        let seen = stream.end().await?;
        ensure!(seen.ending() == Ending::Done, "{tag}: {seen:?}");
        ensure!(seen.text(0) == content::text(tag, 0, 5), "{tag}: {seen:?}");
        // Who asked to be left alone for a minute was.
        let asked = if tag == "again-429" { 1 } else { 2 };
        ensure!(pair.first.exchanges().len() == asked, "{tag}");
    }

    // What another would say as well, and what the client has begun to see, is not.
    let pair = Pair::of(&stage, "not-again").await?;
    pair.first
        .once(Script::failure(400, "context_length_exceeded"));
    let body = ask_for("not-again", "not-again");
    let answer = stage.client.chat(&body).await?;
    ensure_error(&answer, 400)?;
    pair.first.once(Script::answer().cut_after(2));
    let mut stream = stage.client.chat_stream(&body).await?;
    let seen = stream.end().await?;
    let Ending::ErrorEvent(error) = seen.ending() else {
        anyhow::bail!("no error event: {seen:?}");
    };
    ensure_error_object(&error, stream.header("x-request-id").unwrap_or_default())?;
    ensure!(pair.second.exchanges().is_empty());
    stage.strike().await
}
