//! The hub's own token counts: against OpenAI's tokenizer, and against providers' counts.

mod corpus;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_gateway::tokens::{chat, vocabulary::Vocabulary};
use nexus_tests::log::Event;
use nexus_tests::programs::{self, Program, Runtime};
use nexus_tests::seed::Seed;
use nexus_tests::{Result, Script, settings, until};
use serde_json::{Value, json};

use crate::stage::{MODEL, Stage, VISIBLE_BOUND, request_id, shown, shown_request};

/// Python starts in a moment and counts the texts in a second; a busy machine may need far more.
const PROGRAM_BOUND: Duration = Duration::from_mins(2);

/// The vocabularies: a model that has it, its name, and the name of its file in tiktoken's cache,
/// which is the SHA-1 of the address that OpenAI publishes it at.
const VOCABULARIES: [(&str, &str, &str); 2] = [
    (
        "gpt-4o",
        "o200k_base",
        "fb374d419588a4632f3f557e76b4b70aebbca790",
    ),
    (
        "gpt-4",
        "cl100k_base",
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    ),
];

#[tokio::test]
async fn texts_and_chats_come_to_what_openais_tokenizer_says() -> Result<()> {
    let mut seed = Seed::of("tokens")?;
    let texts = corpus::texts(&mut seed);
    ensure!(texts.len() >= 200, "{} texts", texts.len());
    let chats = corpus::chats(&texts, &mut seed);
    let folder = tempfile::tempdir()?;
    let cases = folder.path().join("cases.json");
    std::fs::write(&cases, json!({"texts": texts, "chats": chats}).to_string())?;
    vocabularies(folder.path()).await?;
    let reference = Program::client(Runtime::Tiktoken, "tokens.py")?
        .env("CASES", cases.display())
        .env("TIKTOKEN_CACHE_DIR", folder.path().display())
        .run(PROGRAM_BOUND)
        .await?
        .json()?;
    for (model, name, _) in VOCABULARIES {
        let vocabulary = Vocabulary::of_model(model).context("no vocabulary")?;
        ensure!(vocabulary.name() == name, "{model} has {vocabulary:?}");
        let expected = |kind: &str, index: usize| reference[name][kind][index].as_u64();
        for (index, text) in texts.iter().enumerate() {
            let (count, expected) = (vocabulary.count(text), expected("texts", index));
            let shown: String = text.chars().take(200).collect();
            ensure!(
                Some(count) == expected,
                "{count} and not {expected:?} tokens of {name} in {shown:?}"
            );
        }
        for (index, body) in chats.iter().enumerate() {
            let (count, expected) = (chat::request(&vocabulary, body), expected("chats", index));
            ensure!(
                Some(count) == expected,
                "{count} and not {expected:?} tokens of {name} in {body:#}"
            );
        }
    }
    Ok(())
}

/// Lays the vocabularies that the hub is built with where tiktoken looks for them.
async fn vocabularies(folder: &Path) -> Result<()> {
    let assets = tokenizer_sources().await?.join("assets");
    for (_, name, cached) in VOCABULARIES {
        let file = assets.join(format!("{name}.tiktoken"));
        let copied = std::fs::copy(&file, folder.join(cached));
        copied.with_context(|| format!("failed to copy {}", file.display()))?;
    }
    Ok(())
}

/// Where the sources of the hub's tokenizer lie.
async fn tokenizer_sources() -> Result<PathBuf> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--locked", "--offline", "--format-version", "1"]);
    // What other platforms need besides is not on this machine.
    command.args(["--filter-platform", &host().await?]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let metadata = programs::run(&command, PROGRAM_BOUND).await?.json()?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let tokenizer = packages.iter().find(|one| one["name"] == "tiktoken-rs");
    let manifest = tokenizer.and_then(|one| one["manifest_path"].as_str());
    let folder = Path::new(manifest.context("no tiktoken-rs")?).parent();
    Ok(folder.context("no folder")?.to_owned())
}

/// The name of this platform, as Cargo knows it.
async fn host() -> Result<String> {
    let mut command = Command::new(settings::on_path("rustc")?);
    command.arg("-vV").current_dir(env!("CARGO_MANIFEST_DIR"));
    let told = programs::run(&command, PROGRAM_BOUND).await?;
    let told = &told.succeeded()?.stdout;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

#[tokio::test]
async fn counts_of_providers_are_audited_and_stay_what_they_are() -> Result<()> {
    let stage = Stage::set_with(|hub| hub.env("NEXUS_TOKEN_AUDIT_PERCENT", 100)).await?;
    let script = Script::answer().saying(["one", " two", " three"]);
    stage.upstream.always(script);
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]});
    let answer = stage.client.chat(&body).await?.expect(200)?;
    let request = request_id(&answer)?;
    let audited = shown(&stage.client, &format!("/requests/{request}"), |shown| {
        if shown["token_check"].is_null() {
            Err("not audited")
        } else {
            Ok(())
        }
    })
    .await?;
    // The provider counts words; by OpenAI's rule the prompt has 8 tokens.
    let counted = json!({"prompt": 1, "completion": 3, "total": 4});
    ensure!(audited["tokens_usage"] == counted, "{audited}");
    ensure!(audited["usage_source"] == "provider", "{audited}");
    let check = &audited["token_check"];
    ensure!(check["tokens_usage"]["prompt"] == 8, "{audited}");
    ensure!(check["tokens_usage"]["completion"] == 3, "{audited}");
    ensure!(check["vocabulary"] == "o200k_base", "{audited}");
    let stats = stage.client.get("/stats").await?.expect(200)?.json;
    ensure!(stats["tokens_usage"] == counted, "{stats}");
    let figures = [
        ("nexus_token_audits_total", 1.0),
        (r#"nexus_token_audit_exact_total{direction="input"}"#, 0.0),
        (r#"nexus_token_audit_exact_total{direction="output"}"#, 1.0),
        (
            r#"nexus_token_audit_error_ratio_sum{direction="input"}"#,
            7.0,
        ),
        (
            r#"nexus_token_audit_error_ratio_sum{direction="output"}"#,
            0.0,
        ),
    ];
    for (series, expected) in figures {
        until(series, VISIBLE_BOUND, async || {
            let value = stage.hub.metric(series).await?;
            ensure!(value == Some(expected), "{value:?}");
            Ok(())
        })
        .await?;
    }
    audited_after_its_end(&stage, &request).await?;
    stage.strike().await
}

/// The audit stands after the end, once, and the request is as closed as before.
async fn audited_after_its_end(stage: &Stage, request: &str) -> Result<()> {
    let events = stage.log.events_of_request(request).await?;
    let names: Vec<&str> = events.iter().map(Event::name).collect();
    ensure!(
        names.ends_with(&["completed", "tokens_counted"]),
        "{names:?}"
    );
    ensure!(events.last().unwrap().data()["nexus.tokens.audit"] == true);
    let shown: Value = shown_request(&stage.client, request).await?;
    ensure!(shown["state"] == "completed", "{shown}");
    Ok(())
}
