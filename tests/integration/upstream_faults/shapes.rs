//! Answers in every dress that a provider may put them in: the record is the same.

use anyhow::{Context, ensure};
use nexus_tests::client::Ending;
use nexus_tests::upstream::content;
use nexus_tests::{Result, Script};
use serde_json::{Value, json};

use crate::recorded::Recorded;
use crate::stage::{Stage, ask, request_id};

fn dresses() -> Vec<(&'static str, Script)> {
    let answer = || Script::answer().chunks(8);
    vec![
        ("plain", answer()),
        ("byte-by-byte", answer().byte_by_byte()),
        ("crlf", answer().crlf()),
        ("crlf-byte-by-byte", answer().crlf().byte_by_byte()),
        ("comments", answer().comments()),
        ("three-together", answer().events_together(3)),
        ("all-together", answer().events_together(1_000)),
        ("length", answer().finish_reason("length")),
    ]
}

#[tokio::test]
async fn the_record_does_not_depend_on_how_the_bytes_come() -> Result<()> {
    let stage = Stage::set().await?;
    for (tag, script) in dresses() {
        for asks_usage in [false, true] {
            stage.upstream.once(script.clone());
            check(&stage, tag, asks_usage)
                .await
                .with_context(|| format!("{tag}, usage {asks_usage}"))?;
        }
    }
    stage.strike().await
}

async fn check(stage: &Stage, tag: &str, asks_usage: bool) -> Result<()> {
    let mut body = ask(tag);
    if asks_usage {
        body["stream_options"] = json!({"include_usage": true});
    }
    let mut stream = stage.client.chat_stream(&body).await?;
    let seen = stream.end().await?;
    ensure!(seen.ending() == Ending::Done, "{seen:?}");
    let content_type = stream.header("content-type").unwrap_or_default();
    ensure!(
        content_type.starts_with("text/event-stream"),
        "{content_type}"
    );
    let expected = content::text(tag, 0, 8);
    ensure!(seen.text(0) == expected, "{seen:?}");
    ensure!(seen.usage().is_some() == asks_usage, "{seen:?}");

    let request = stream.header("x-request-id").context("no X-Request-Id")?;
    let recorded = Recorded::wait(&stage.log, request).await?;
    ensure!(recorded.terminal.name() == "completed", "{recorded:#?}");
    ensure!(recorded.text(0) == expected, "{recorded:#?}");
    recorded.ensure_given(&seen, asks_usage)?;
    let sent = stage
        .upstream
        .exchanges_of(tag)
        .pop()
        .context("not asked")?;
    ensure!(recorded.streamed() == sent.chunks(), "{recorded:#?}");
    ensure!(sent.request.wants_usage(), "the usage was not asked for");
    // Five words of the prompt and eight of the answer, by the provider's own count.
    ensure!(recorded.tokens() == (Some(5), Some(8)), "{recorded:#?}");
    let finish = if tag == "length" { "length" } else { "stop" };
    ensure!(
        recorded.terminal.data()["gen_ai.response.finish_reasons"] == json!([finish]),
        "{recorded:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn several_choices_are_recorded_each_for_itself() -> Result<()> {
    let stage = Stage::set().await?;
    for stream in [false, true] {
        let tag = format!("three-{stream}");
        let mut body = ask(&tag);
        body["n"] = json!(3);
        let (request, given) = ask_in_mode(&stage, &body, stream).await?;
        let recorded = Recorded::wait(&stage.log, &request).await?;
        for choice in 0..3 {
            let expected = content::text(&tag, choice, 5);
            ensure!(recorded.text(choice) == expected, "{recorded:#?}");
            ensure!(recorded.choice(choice)["finish_reason"] == "stop");
            let of_client = given.get(choice).context("a choice is missing")?;
            ensure!(*of_client == expected, "{tag}: the client got {given:?}");
        }
        ensure!(recorded.tokens() == (Some(5), Some(15)), "{recorded:#?}");
        let ids = &recorded.terminal.data()["nexus.message.ids"];
        ensure!(ids.as_array().map(Vec::len) == Some(3), "{recorded:#?}");
    }
    stage.strike().await
}

/// The request's id and the text of each choice as the client got it.
async fn ask_in_mode(stage: &Stage, body: &Value, stream: bool) -> Result<(String, Vec<String>)> {
    if stream {
        let mut stream = stage.client.chat_stream(body).await?;
        let seen = stream.end().await?;
        ensure!(seen.ending() == Ending::Done, "{seen:?}");
        let request = stream.header("x-request-id").context("no X-Request-Id")?;
        return Ok((
            request.to_owned(),
            (0..3).map(|choice| seen.text(choice)).collect(),
        ));
    }
    let answer = stage.client.chat(body).await?.expect(200)?;
    let texts = (0..3)
        .map(|choice| answer.json["choices"][choice]["message"]["content"].to_string())
        .map(|text| serde_json::from_str(&text).unwrap_or_default())
        .collect();
    Ok((request_id(&answer)?, texts))
}

#[tokio::test]
async fn a_tool_call_is_recorded_whole_in_both_modes() -> Result<()> {
    let stage = Stage::set().await?;
    let arguments = json!({"city": "Genève", "days": [1, 2, 3], "unit": "°C"});
    for stream in [false, true] {
        let tag = format!("weather-{stream}");
        stage
            .upstream
            .once(Script::answer().tool_call("forecast", &arguments));
        let (request, _) = ask_in_mode(&stage, &ask(&tag), stream).await?;
        let recorded = Recorded::wait(&stage.log, &request).await?;
        let choice = recorded.choice(0);
        ensure!(choice["finish_reason"] == "tool_calls", "{recorded:#?}");
        let calls = &choice["message"]["tool_calls"];
        let expected = json!([{
            "id": format!("call_{tag}"),
            "type": "function",
            "function": {"name": "forecast", "arguments": arguments.to_string()},
        }]);
        ensure!(*calls == expected, "stream {stream}: {calls}");
    }
    stage.strike().await
}

#[tokio::test]
async fn a_whole_answer_reaches_the_client_as_it_came() -> Result<()> {
    let stage = Stage::set().await?;
    let answer = stage.client.chat(&ask("whole")).await?.expect(200)?;
    let sent = stage.upstream.the_exchange()?;
    ensure!(answer.body == sent.body(), "{}", answer.text());
    let recorded = Recorded::wait(&stage.log, &request_id(&answer)?).await?;
    ensure!(recorded.chunks.is_empty(), "{recorded:#?}");
    ensure!(recorded.text(0) == content::text("whole", 0, 5));
    ensure!(recorded.tokens() == (Some(5), Some(5)), "{recorded:#?}");
    ensure!(
        recorded.terminal.data()["gen_ai.response.id"] == "chatcmpl-whole",
        "{recorded:#?}"
    );
    // The provider gets its own key and nothing of the client's.
    let authorization = sent.request.header("authorization");
    ensure!(authorization == Some("Bearer upstream-secret"));
    stage.strike().await
}
