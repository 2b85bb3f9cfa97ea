//! ERNIE by version 1 of its API: one token for all, drawn anew when it is refused, and never told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use nexus_tests::client::Ending;
use nexus_tests::log::Stream;
use nexus_tests::upstream::Request;
use nexus_tests::{Result, Script};
use serde_json::{Value, json};

use crate::recorded::Recorded;
use crate::stage::{Stage, ensure_error, request_id};

const MODEL: &str = "ernie";
const API_KEY: &str = "the-very-api-key";
const SECRET_KEY: &str = "the-very-secret-key";

/// What tokens begin with; a number follows.
const TOKEN: &str = "24.the-very-token-";

/// A hub before a scripted ERNIE; `drawn` counts tokens, of which only the latest is good.
async fn stage(drawn: &Arc<AtomicUsize>) -> Result<Stage> {
    // Down to the last word that any library says.
    let stage = Stage::set_with(|hub| hub.env("NEXUS_LOG", "trace")).await?;
    let number = Arc::clone(drawn);
    stage.upstream.route("/oauth/2.0/token", move |_| {
        let number = number.fetch_add(1, Ordering::SeqCst) + 1;
        let token = format!("{TOKEN}{number}");
        Script::json(
            200,
            &json!({"access_token": token, "expires_in": 2_592_000}),
        )
    });
    let number = Arc::clone(drawn);
    stage.upstream.choose(move |request| {
        let good = format!("access_token={TOKEN}{}", number.load(Ordering::SeqCst));
        answer(request, request.path.ends_with(&good))
    });
    serve(&stage).await?;
    Ok(stage)
}

async fn serve(stage: &Stage) -> Result<()> {
    let provider = json!({
        "name": "baidu",
        "kind": "ernie_v1",
        "server_url": format!("http://{}", stage.upstream.host_port()),
        "server_key": format!("{API_KEY}:{SECRET_KEY}"),
    });
    let model = json!({"model_name": MODEL, "upstream_model": "completions"});
    stage.client.serve(&provider, model).await.map(drop)
}

/// What ERNIE answers: the tag of the request.
fn answer(request: &Request, token_is_good: bool) -> Script {
    if !token_is_good {
        let token = request.path.rsplit('=').next().unwrap();
        let message = format!("Access token {token} invalid or no longer valid");
        return Script::json(200, &json!({"error_code": 110, "error_msg": message}));
    }
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3});
    if !request.wants_stream() {
        let body = json!({"id": "as-1", "object": "chat.completion", "created": 1,
            "result": request.tag(), "finish_reason": "normal", "usage": usage});
        return Script::json(200, &body);
    }
    let event = |number: u32, result: &str, is_end: bool| {
        let event = json!({"id": "as-1", "object": "chat.completion", "created": 1,
            "sentence_id": number, "is_end": is_end, "result": result, "usage": usage});
        format!("data: {event}\n\n")
    };
    let body = event(0, &request.tag(), false) + &event(1, "", true);
    Script::status(200, body).header("content-type", "text/event-stream")
}

fn ask(tag: &str) -> Value {
    json!({"model": MODEL, "messages": [{"role": "user", "content": format!("say {tag}")}]})
}

/// Twenty requests at once, in both modes; gives their ids.
async fn twenty(stage: &Stage, round: &str) -> Result<Vec<String>> {
    let one = async |number: usize| -> Result<String> {
        let tag = format!("{round}-{number}");
        if number.is_multiple_of(2) {
            let answer = stage.client.chat(&ask(&tag)).await?.expect(200)?;
            ensure!(answer.content() == tag, "{answer:?}");
            return request_id(&answer);
        }
        let mut stream = stage.client.chat_stream(&ask(&tag)).await?;
        let seen = stream.end().await?;
        ensure!(seen.ending() == Ending::Done, "{seen:?}");
        ensure!(seen.text(0) == tag, "{seen:?}");
        Ok(stream.header("x-request-id").context("no id")?.to_owned())
    };
    try_join_all((0..20).map(one)).await
}

#[tokio::test]
async fn one_token_serves_all_until_it_is_refused() -> Result<()> {
    let drawn = Arc::new(AtomicUsize::new(0));
    let stage = stage(&drawn).await?;
    let mut ids = twenty(&stage, "first").await?;
    ensure!(drawn.load(Ordering::SeqCst) == 1, "{drawn:?} tokens");
    let asked = stage.upstream.others();
    let asked = &asked.last().context("no token was asked for")?.path;
    for part in ["grant_type=client_credentials", API_KEY, SECRET_KEY] {
        ensure!(asked.contains(part), "{asked}");
    }
    ensure!(stage.upstream.exchanges().len() == 20);
    // The token that the hub has is good no more.
    drawn.fetch_add(1, Ordering::SeqCst);
    ids.extend(twenty(&stage, "second").await?);
    ensure!(drawn.load(Ordering::SeqCst) == 3, "{drawn:?} tokens");
    for id in &ids {
        let recorded = Recorded::wait(&stage.log, id).await?;
        ensure!(recorded.attempts.len() == 1, "{recorded:#?}");
        ensure!(recorded.tokens() == (Some(1), Some(2)), "{recorded:#?}");
    }
    nothing_is_told(&stage).await?;
    stage.strike().await
}

#[tokio::test]
async fn keys_that_are_no_good_are_a_clear_error() -> Result<()> {
    let drawn = Arc::new(AtomicUsize::new(0));
    let stage = stage(&drawn).await?;
    let refusal = json!({"error": "invalid_client", "error_description": format!("no {API_KEY}")});
    for (status, body, told, code) in [
        (401, refusal, 502, "upstream_credentials"),
        (503, json!({}), 503, "upstream_status"),
    ] {
        stage
            .upstream
            .route("/oauth/2.0/token", move |_| Script::json(status, &body));
        let answer = stage.client.chat(&ask("no")).await?;
        ensure_error(&answer, told)?;
        ensure!(answer.error_code() == code, "{answer:?}");
        let recorded = Recorded::wait(&stage.log, &request_id(&answer)?).await?;
        ensure!(recorded.failure() == "upstream_status", "{recorded:#?}");
    }
    // A token that is refused again is told without the token.
    stage.upstream.route("/oauth/2.0/token", |_| {
        let token = format!("{TOKEN}9");
        Script::json(200, &json!({"access_token": token, "expires_in": 60}))
    });
    let answer = stage.client.chat(&ask("again")).await?;
    ensure_error(&answer, 502)?;
    ensure!(answer.error_code() == "upstream_credentials", "{answer:?}");
    ensure!(!answer.text().contains("the-very"), "{answer:?}");
    ensure!(stage.upstream.exchanges().len() == 2, "tried once more");
    nothing_is_told(&stage).await?;
    stage.strike().await
}

/// Neither keys nor tokens stand in any event or in what the hub has printed.
async fn nothing_is_told(stage: &Stage) -> Result<()> {
    for stream in Stream::SHIPPED {
        for event in stage.log.events(stream).await? {
            ensure!(
                !event.json.to_string().contains("the-very"),
                "{}",
                event.json
            );
        }
    }
    let printed = stage.hub.stdout() + &stage.hub.stderr();
    let told = printed.lines().find(|line| line.contains("the-very"));
    ensure!(told.is_none(), "{told:?}");
    Ok(())
}
