//! Secrets: only their change is told, and it takes effect.

use anyhow::{Context, ensure};
use nexus_tests::Result;

use super::{ADA, example};

const OTHER: &str = "ada-fcde2b2edba56bf408601fb721fe9b5c";

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_is_noticed_and_takes_effect() -> Result<()> {
    let (mut declared, upstream) = example().await?;
    let first = declared.apply(&[]).await?.succeeded()?.clone();
    declared.until_answered(ADA, "fast", 200).await?;
    let before = declared.sequence().await?;
    declared.set("HUB_KEY_ADA", OTHER);
    declared.set("OPENAI_API_KEY", "sk-other");
    let second = declared.apply(&[]).await?.succeeded()?.clone();
    let expected = [
        "~ provider openai: server_key (changed)",
        "~ key ada: secret (changed)",
        "= 9 unchanged",
    ];
    assert_eq!(second.stdout.lines().collect::<Vec<_>>(), expected);
    declared.until_answered(OTHER, "fast", 200).await?;
    declared.until_answered(ADA, "fast", 401).await?;
    let asked = upstream.exchanges().pop().context("not asked")?.request;
    assert_eq!(asked.header("authorization"), Some("Bearer sk-other"));

    let events = declared.events_after(before).await?;
    let changed = events
        .iter()
        .map(|event| event.data()["changed"].to_string());
    let changed: Vec<_> = changed.collect();
    assert_eq!(changed, [r#"["server_key"]"#, r#"["hash"]"#]);
    let log = declared.events_after(0).await?;
    let log = log.iter().map(|event| event.json.to_string());
    let said = [first, second].map(|run| run.stdout + &run.stderr);
    let said: String = log.chain(said).collect();
    for secret in [ADA, OTHER, "sk-upstream", "sk-other", "sk-ant-upstream"] {
        ensure!(!said.contains(secret), "{secret} is there in clear");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_there_keeps_its_secret() -> Result<()> {
    let (declared, _upstream) = example().await?;
    declared.lines(&[]).await?;
    declared.write("keys:\n- {name: ada, role: viewer}\n- {name: admin, role: admin}\n")?;
    let lines = declared.lines(&[]).await?;
    let expected = [
        "~ key ada: role member → viewer, user ada → none",
        "? key nightly-jobs: not declared; --prune deletes it",
        "= 1 unchanged",
    ];
    assert_eq!(lines, expected);
    declared.until_answered(ADA, "fast", 403).await?;
    declared.write("providers:\n- name: openai\n  server_url: http://127.0.0.1:9\n")?;
    let lines = declared.lines(&[]).await?;
    let told = "server_key (removed), rate_limit 50 → none";
    ensure!(lines.iter().any(|line| line.ends_with(told)), "{lines:?}");
    Ok(())
}
