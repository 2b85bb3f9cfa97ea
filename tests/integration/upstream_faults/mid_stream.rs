//! Faults after the first byte: what came is the client's, then an error event, then nothing.

use anyhow::{Context, ensure};
use nexus_tests::client::Ending;
use nexus_tests::upstream::content;
use nexus_tests::{Result, Script};
use serde_json::json;

use crate::recorded::Recorded;
use crate::stage::{Stage, ask, ensure_error, ensure_error_object, request_id};

/// An event of more than the 8 MiB that the hub takes.
fn too_large_event() -> String {
    format!("data: {{\"id\": \"{}\"}}\n\n", "x".repeat(8_500_000))
}

/// A fault after three chunks: its name, the script, the reason in the log, the client's code.
type Fault = (&'static str, Script, &'static str, &'static str);

#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn faults() -> Vec<Fault> {
    let answer = || Script::answer().chunks(6);
    vec![
        ("cut", answer().cut_after(3), "upstream_cut", "upstream_cut"),
        (
            "cut-inside",
            answer().cut_inside(3, 40),
            "upstream_cut",
            "upstream_cut",
        ),
        (
            // All but the empty line that would complete the event.
            "cut-at-the-end-of-the-line",
            answer()
                .insert_after(3, "data: {\"id\":\"x\",\"choices\":[]}\n")
                .cut_after(3),
            "upstream_cut",
            "upstream_cut",
        ),
        (
            "reset",
            answer().reset_after(3),
            "upstream_cut",
            "upstream_cut",
        ),
        (
            "reset-inside",
            answer().reset_inside(3, 40),
            "upstream_cut",
            "upstream_cut",
        ),
        (
            "orderly-end",
            answer().end_after(3),
            "upstream_cut",
            "upstream_cut",
        ),
        (
            "half-an-event",
            answer().half_event_after(3),
            "upstream_cut",
            "upstream_cut",
        ),
        (
            "done-too-early-is-garbage",
            answer().insert_after(3, "data: [DONE\n\n"),
            "upstream_malformed",
            "upstream_malformed",
        ),
        (
            "garbage",
            answer().garbage_after(3),
            "upstream_malformed",
            "upstream_malformed",
        ),
        (
            "no-object",
            answer().insert_after(3, "data: [1, 2]\n\n"),
            "upstream_malformed",
            "upstream_malformed",
        ),
        (
            "error-event",
            answer().error_event_after(3, "engine_down"),
            "upstream_error",
            "engine_down",
        ),
        (
            "named-error-event",
            answer().insert_after(
                3,
                "event: error\ndata: {\"message\": \"gone\", \"code\": \"gone\"}\n\n",
            ),
            "upstream_error",
            "gone",
        ),
        (
            "oversized",
            answer().insert_after(3, &too_large_event()),
            "upstream_too_large",
            "upstream_too_large",
        ),
    ]
}

#[tokio::test]
async fn a_broken_stream_ends_with_an_error_event_and_is_recorded_as_far_as_it_came() -> Result<()>
{
    let stage = Stage::set().await?;
    for (tag, script, reason, code) in faults() {
        stage.upstream.once(script);
        check(&stage, tag, reason, code)
            .await
            .with_context(|| tag.to_owned())?;
    }
    stage.strike().await
}

async fn check(stage: &Stage, tag: &str, reason: &str, code: &str) -> Result<()> {
    let mut stream = stage.client.chat_stream(&ask(tag)).await?;
    let seen = stream.end().await?;
    let request = stream.header("x-request-id").context("no X-Request-Id")?;
    let Ending::ErrorEvent(error) = seen.ending() else {
        anyhow::bail!("no error event: {seen:?}");
    };
    ensure_error_object(&error, request)?;
    ensure!(error["code"] == code, "{error}");
    ensure!(seen.rest.is_empty(), "half an event: {seen:?}");
    let last = seen.data().last().copied().unwrap_or_default();
    ensure!(
        last.contains("\"error\""),
        "the error is not last: {seen:?}"
    );

    let expected = content::text(tag, 0, 3);
    ensure!(seen.text(0) == expected, "{seen:?}");
    let recorded = Recorded::wait(&stage.log, request).await?;
    ensure!(recorded.terminal.name() == "failed", "{recorded:#?}");
    ensure!(recorded.failure() == reason, "{recorded:#?}");
    ensure!(recorded.text(0) == expected, "{recorded:#?}");
    ensure!(
        recorded.choice(0)["finish_reason"].is_null(),
        "{recorded:#?}"
    );
    recorded.ensure_given(&seen, false)?;
    let [attempt] = recorded.attempts.as_slice() else {
        anyhow::bail!("not one attempt: {recorded:#?}");
    };
    ensure!(attempt.failure() == reason, "{recorded:#?}");
    // The provider told no usage: the hub counts what came.
    let (input, output) = recorded.tokens();
    ensure!(input > Some(0) && output > Some(0), "{recorded:#?}");
    Ok(())
}

#[tokio::test]
async fn a_whole_answer_that_is_cut_or_too_large_is_an_error() -> Result<()> {
    let stage = Stage::set().await?;
    let too_long = "x".repeat(32 * 1024 * 1024);
    let cases = [
        ("cut", Script::answer().cut_inside(0, 80), "upstream_cut"),
        (
            "reset",
            Script::answer().reset_inside(0, 80),
            "upstream_cut",
        ),
        (
            "half",
            Script::json(200, &json!({"choices": []})).cut_inside(0, 5),
            "upstream_cut",
        ),
        (
            "oversized",
            Script::answer().saying([too_long.as_str()]),
            "upstream_too_large",
        ),
    ];
    for (tag, script, reason) in cases {
        stage.upstream.once(script);
        let answer = stage.client.chat(&ask(tag)).await?;
        ensure_error(&answer, 502)?;
        ensure!(answer.error_code() == reason, "{tag}: {}", answer.text());
        let recorded = Recorded::wait(&stage.log, &request_id(&answer)?).await?;
        ensure!(recorded.failure() == reason, "{tag}: {recorded:#?}");
    }
    stage.strike().await
}

#[tokio::test]
async fn a_stream_without_its_end_mark_is_whole_when_every_choice_says_why_it_stopped() -> Result<()>
{
    let stage = Stage::set().await?;
    stage.upstream.once(Script::answer().without_done());
    let mut stream = stage.client.chat_stream(&ask("no-mark")).await?;
    let seen = stream.end().await?;
    ensure!(seen.ending() == Ending::Done, "{seen:?}");
    let request = stream.header("x-request-id").context("no X-Request-Id")?;
    let recorded = Recorded::wait(&stage.log, request).await?;
    ensure!(recorded.terminal.name() == "completed", "{recorded:#?}");
    ensure!(recorded.text(0) == content::text("no-mark", 0, 5));
    ensure!(recorded.choice(0)["finish_reason"] == "stop");
    recorded.ensure_given(&seen, false)?;

    // One of two choices had not ended: that is half an answer.
    let unfinished = Script::answer()
        .without_done()
        .insert_after(10, "data: {\"id\":\"x\",\"choices\":[{\"index\":2,\"delta\":{\"content\":\"and\"},\"finish_reason\":null}]}\n\n");
    stage.upstream.once(unfinished);
    let mut body = ask("one-open");
    body["n"] = json!(2);
    let mut stream = stage.client.chat_stream(&body).await?;
    let seen = stream.end().await?;
    ensure!(
        matches!(seen.ending(), Ending::ErrorEvent(_)),
        "half an answer looks whole: {seen:?}"
    );
    stage.strike().await
}
