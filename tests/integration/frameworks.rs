//! The frameworks that people build agents with, unchanged, against the hub.
//!
//! A framework starts slowly, so one program goes through all its cases and prints what its caller got.
//! The upstream tells the cases apart by the last word of the prompt. Every framework has to pass the
//! same: what differs between them is only how much they hand to their caller.

use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::log::{Event, Stream};
use nexus_tests::programs::{Program, Runtime};
use nexus_tests::upstream::content;
use nexus_tests::upstream::request::Request;
use nexus_tests::{Result, Script};
use serde_json::{Value, json};

use crate::recorded::Recorded;
use crate::stage::{MODEL, Stage};

/// A framework is imported in about seven seconds; Python compiles it at the first run.
const PROGRAM_BOUND: Duration = Duration::from_mins(3);

/// The words of an answer that is not cut.
const WORDS: usize = 5;

/// Longer than the hub would wait for, so that the client gets the 429 at once.
const RETRY_AFTER_S: u64 = 60;

/// The cases that are refused, with the status that the client must show.
const REFUSALS: [(&str, u16); 4] = [
    ("failing", 500),
    ("limited", 429),
    ("wrong_key", 401),
    ("unknown_model", 404),
];

/// What the provider does in each case.
fn script(request: &Request) -> Script {
    match request.tag().as_str() {
        "tools" | "stream_tools" if !has_tool_result(request) => {
            Script::answer().tool_call("forecast", &json!({"city": "Genève"}))
        }
        "object" => Script::answer().saying(["{\"city\":", " \"Bern\"}"]),
        "broken" => Script::answer().cut_after(2),
        "failing" => Script::failure(500, "boom"),
        "limited" => Script::too_many_requests(RETRY_AFTER_S),
        _ => Script::answer().chunks(WORDS),
    }
}

fn has_tool_result(request: &Request) -> bool {
    let body = request.json();
    let messages = body["messages"].as_array();
    messages.is_some_and(|messages| messages.iter().any(|message| message["role"] == "tool"))
}

/// Runs a program against a hub, checks what every framework must have got, and returns what it got.
async fn passes(runtime: Runtime, file: &str) -> Result<Value> {
    let stage = Stage::set().await?;
    stage.upstream.choose(script);
    let got = Program::client(runtime, file)?
        .hub(&stage.hub.api_base()?, stage.hub.admin_key(), MODEL)
        // Whoever runs the tests may have `LangChain` report to a service.
        .env("LANGSMITH_TRACING_V2", "false")
        .run(PROGRAM_BOUND)
        .await?
        .json()?;
    answered(&got).with_context(|| format!("{got:#}"))?;
    refused(&got).with_context(|| format!("{got:#}"))?;
    everything_once(&stage, &got)
        .await
        .with_context(|| format!("{got:#}"))?;
    stage.strike().await?;
    Ok(got)
}

fn answered(got: &Value) -> Result<()> {
    for case in ["whole", "stream", "tools", "stream_tools"] {
        let one = &got[case];
        ensure!(one["error"].is_null(), "{case} failed");
        ensure!(one["text"] == content::text(case, 0, WORDS), "{case}: text");
        let counts = one["usage"].as_array().context("no usage")?;
        ensure!(counts.len() == 2, "{case}: usage");
    }
    for case in ["tools", "stream_tools"] {
        let calls = json!([["forecast", "Genève"]]);
        ensure!(got[case]["calls"] == calls, "{case}: calls");
    }
    ensure!(got["object"]["object"]["city"] == "Bern", "object");
    Ok(())
}

fn refused(got: &Value) -> Result<()> {
    for (case, status) in REFUSALS {
        let seen = &got[case]["error"]["status"];
        ensure!(*seen == status, "{case}: {seen} instead of {status}");
    }
    let broken = &got["broken"];
    ensure!(broken["text"] == content::text("broken", 0, 2), "broken");
    ensure!(
        broken["error"]["message"] == "The provider's answer was cut off.",
        "the cut went by in silence"
    );
    Ok(())
}

/// Each request of the client is in the log once, as it ended for the client, and no other is.
async fn everything_once(stage: &Stage, got: &Value) -> Result<()> {
    let mut known = Vec::new();
    for (case, one) in got.as_object().context("no object")? {
        let requests = if case.ends_with("tools") { 2 } else { 1 };
        let ids = one["ids"].as_array().context("no ids")?;
        ensure!(ids.len() == requests, "{case}: {} requests", ids.len());
        let ids: Vec<&str> = ids.iter().filter_map(Value::as_str).collect();
        let last = ids.last().context("no id")?;
        if !matches!(case.as_str(), "wrong_key" | "unknown_model") {
            for id in &ids {
                Recorded::wait(&stage.log, id).await?;
            }
            known.extend(ids.clone());
            as_got(case, one, &Recorded::wait(&stage.log, last).await?)?;
        }
    }
    known.sort_unstable();
    let events = stage.log.events(Stream::Exchanges).await?;
    let mut recorded: Vec<&str> = events
        .iter()
        .filter(|event| event.name() == "received")
        .map(Event::request_id)
        .collect();
    recorded.sort_unstable();
    ensure!(recorded == known, "recorded {recorded:?}, asked {known:?}");
    Ok(())
}

fn as_got(case: &str, one: &Value, recorded: &Recorded) -> Result<()> {
    let failed = !recorded.failure().is_empty();
    ensure!(
        failed != one["error"].is_null(),
        "{case} ended otherwise: {recorded:#?}"
    );
    if let Some(text) = one["text"].as_str() {
        ensure!(recorded.text(0) == text, "{case}: {recorded:#?}");
    }
    if let (Some(usage), "whole" | "stream") = (one.get("usage"), case) {
        let (input, output) = recorded.tokens();
        ensure!(*usage == json!([input, output]), "{case}: {recorded:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_vercel_ai_sdk_passes() -> Result<()> {
    let got = passes(Runtime::Node, "ai_sdk.mjs").await?;
    for (case, _status) in REFUSALS {
        let class = &got[case]["error"]["class"];
        ensure!(class == "AI_APICallError", "{case}: {class}");
    }
    Ok(())
}

#[tokio::test]
async fn langchain_passes() -> Result<()> {
    passes(Runtime::Frameworks, "langchain_chat.py").await?;
    Ok(())
}

#[tokio::test]
async fn llama_index_passes() -> Result<()> {
    passes(Runtime::Frameworks, "llama_index_chat.py").await?;
    Ok(())
}
