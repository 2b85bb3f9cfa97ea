//! Secrets go in and never come out: not through an answer, not in an event, not on the disk.

use std::path::Path;

use anyhow::{Context, ensure};
use nexus_tests::client::Answer;
use nexus_tests::log::Stream;
use nexus_tests::{Hub, Result, Script, Upstream};
use serde_json::json;

use super::ask;
use nexus_tests::account::settled_dump;

/// The provider's key: nothing else in the test looks like it.
const PROVIDER_KEY: &str = "sk-provider-7c1f0d2a9b8e4356";

/// The same, set later.
const NEXT_PROVIDER_KEY: &str = "sk-provider-e6a4b2c08d1f9735";

/// The files below a folder that hold these bytes.
fn files_with(folder: &Path, needle: &[u8], read: &mut usize) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, needle, read)?);
            continue;
        }
        // A file may be gone before it is read: a running hub tidies up.
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        *read += bytes.len();
        if bytes.windows(needle.len()).any(|window| window == needle) {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

/// The key that the provider was asked with last.
fn sent(upstream: &Upstream) -> Result<String> {
    let asked = upstream.exchanges().pop().context("not asked")?.request;
    Ok(asked.header("authorization").unwrap_or_default().to_owned())
}

/// What was done with secrets: every answer but the one that shows a new key, and that key.
struct Used {
    answers: Vec<Answer>,
    secret: String,
}

/// Sets the provider's key, uses it, changes it, uses it again, and has it said back.
async fn use_secrets(hub: &Hub, upstream: &Upstream) -> Result<Used> {
    let admin = hub.client()?;
    let provider = json!({"name": "p", "server_url": upstream.url(), "server_key": PROVIDER_KEY});
    let mut answers = vec![admin.post("/providers", &provider).await?.expect(201)?];
    let model = json!({"provider_id": "p", "model_name": "m"});
    answers.push(admin.post("/provider_models", &model).await?.expect(201)?);
    let key = json!({"name": "k", "role": "member"});
    let key = admin.post("/keys", &key).await?.expect(201)?;
    let secret = key.json["key"].as_str().context("no key")?.to_owned();
    let member = hub.anonymous()?.with_key(&secret)?;
    answers.push(member.chat(&ask("m")).await?.expect(200)?);
    assert_eq!(sent(upstream)?, format!("Bearer {PROVIDER_KEY}"));
    let change = json!({"server_key": NEXT_PROVIDER_KEY});
    answers.push(admin.put("/providers/p", &change).await?.expect(200)?);
    answers.push(member.chat(&ask("m")).await?.expect(200)?);
    assert_eq!(sent(upstream)?, format!("Bearer {NEXT_PROVIDER_KEY}"));
    let message = format!("Incorrect API key provided: {NEXT_PROVIDER_KEY}");
    let wrong = json!({"error": {"message": message, "code": "invalid_api_key"}});
    upstream.once(Script::json(401, &wrong));
    answers.push(member.chat(&ask("m")).await?.expect(502)?);
    for path in [
        "/providers",
        "/providers/p",
        "/provider_models",
        "/keys",
        "/keys/k",
        "/settings",
        "/stats",
        "/conversations",
        "/v1/models",
    ] {
        answers.push(admin.get(path).await?.expect(200)?);
    }
    Ok(Used { answers, secret })
}

/// Every event of every stream, as one text.
async fn events(hub: &Hub) -> Result<String> {
    let log = hub.log().await?;
    let mut text = String::new();
    for stream in [Stream::Config].into_iter().chain(Stream::SHIPPED) {
        for event in log.events(stream).await? {
            text.push_str(&event.json.to_string());
        }
    }
    ensure!(text.contains("\"server_key\""), "no sealed key: {text}");
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_appear_nowhere_in_clear() -> Result<()> {
    let upstream = Upstream::start().await?;
    let mut hub = Hub::standalone().env("NEXUS_LOG", "debug").start().await?;
    let used = use_secrets(&hub, &upstream).await?;
    let dump = settled_dump(&hub).await?;
    let events = events(&hub).await?;
    let admin_key = hub.admin_key().to_owned();
    ensure!(hub.stop().await?.success());
    let said = hub.stdout() + &hub.stderr();
    ensure!(said.contains("DEBUG"), "nothing was logged: {said}");
    for needle in [PROVIDER_KEY, NEXT_PROVIDER_KEY, &used.secret, &admin_key] {
        for answer in &used.answers {
            let text = answer.text();
            ensure!(!text.contains(needle), "{needle}: {text}");
        }
        ensure!(!events.contains(needle), "an event holds {needle}");
        ensure!(!dump.contains(needle), "the read model holds {needle}");
        ensure!(!said.contains(needle), "the log lines hold {needle}");
        let mut read = 0;
        let found = files_with(hub.data_dir(), needle.as_bytes(), &mut read)?;
        ensure!(found.is_empty(), "{needle} is in {found:?}");
        ensure!(read > 10_000, "{read} bytes were looked at");
    }
    Ok(())
}
