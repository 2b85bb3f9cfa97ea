//! What the file does not declare: it stays and is told, or goes with `--prune`; some things never go.

use anyhow::ensure;
use nexus_tests::Result;
use serde_json::json;

use super::{Declared, example};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_declared_goes_only_when_asked() -> Result<()> {
    let (declared, _upstream) = example().await?;
    declared.lines(&[]).await?;
    let before = declared.sequence().await?;
    declared.write("providers:\n- {name: claude, kind: anthropic, server_key: \"${ANTHROPIC_API_KEY}\"}\nmodels: []\n")?;
    let told = [
        "? provider openai: not declared; --prune deletes it",
        "? model claude/claude-sonnet-4-5: not declared; --prune deletes it",
        "? model openai/fast: not declared; --prune deletes it",
        "? model openai/gpt-4.1-mini: not declared; --prune deletes it",
        "= 1 unchanged",
    ];
    assert_eq!(declared.lines(&[]).await?, told);
    assert_eq!(declared.sequence().await?, before, "nothing was written");
    let deleted = [
        "- model openai/gpt-4.1-mini",
        "- model openai/fast",
        "- model claude/claude-sonnet-4-5",
        "- provider openai",
        "= 1 unchanged",
    ];
    let dry = declared.apply(&["--prune", "--dry-run"]).await?;
    assert_eq!(dry.status.code(), Some(2), "{}", dry.stderr);
    assert_eq!(dry.stdout.lines().collect::<Vec<_>>(), deleted);
    assert_eq!(declared.lines(&["--prune"]).await?, deleted);
    let actions = declared.events_after(before).await?;
    ensure!(
        actions
            .iter()
            .all(|event| event.data()["action"] == "deleted")
    );
    assert_eq!(actions.len(), 4);
    // Keys are none of this file's business, and the built-in provider with its model stays.
    let client = declared.hub.client()?;
    client.get("/keys/ada").await?.expect(200)?;
    client.chat(&super::ask("echo")).await?.expect(200)?;
    assert_eq!(declared.lines(&["--prune"]).await?, ["= 1 unchanged"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_takes_its_models_along() -> Result<()> {
    let declared = Declared::start("providers: []\n").await?;
    let client = declared.hub.client()?;
    let provider = json!({"name": "a", "kind": "gemini"});
    client.post("/providers", &provider).await?.expect(201)?;
    let model = json!({"provider_id": "a", "model_name": "m"});
    client.post("/provider_models", &model).await?.expect(201)?;
    let lines = declared.lines(&["--prune"]).await?;
    assert_eq!(lines, ["- model a/m", "- provider a", "= 0 unchanged"]);
    declared.write("prune_built_in: true\nproviders: []\n")?;
    let lines = declared.lines(&["--prune"]).await?;
    assert_eq!(
        lines,
        ["- model echo/echo", "- provider echo", "= 0 unchanged"]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_admin_key_stays() -> Result<()> {
    let declared = Declared::start("keys: []\n").await?;
    let client = declared.hub.client()?;
    for (name, role) in [("second", "admin"), ("someone", "member")] {
        let key = json!({"name": name, "role": role});
        client.post("/keys", &key).await?.expect(201)?;
    }
    let lines = declared.lines(&["--prune"]).await?;
    assert_eq!(lines, ["- key someone", "- key second", "= 0 unchanged"]);
    declared.write("prune_built_in: true\nkeys: []\n")?;
    let lines = declared.lines(&["--prune"]).await?;
    let kept = "? key admin: not declared; it stays because it is the last admin key";
    assert_eq!(lines, [kept, "= 0 unchanged"]);
    client.get("/keys").await?.expect(200)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_goes_after_the_keys_and_not_before_them() -> Result<()> {
    let (declared, _upstream) = example().await?;
    declared.lines(&[]).await?;
    let before = declared.sequence().await?;
    declared.write("users: []\n")?;
    let refused = declared.apply(&["--prune"]).await?;
    assert_eq!(refused.status.code(), Some(1));
    let told = "user ada cannot be deleted: The key 'ada' is the user's.";
    ensure!(refused.stderr.contains(told), "{}", refused.stderr);
    assert_eq!(declared.sequence().await?, before, "nothing was written");
    declared.write("users: []\nkeys: []\nroutes: []\n")?;
    let deleted = [
        "- key nightly-jobs",
        "- key ada",
        "- user ada",
        "- route assistant",
        "= 0 unchanged",
    ];
    assert_eq!(declared.lines(&["--prune"]).await?, deleted);
    Ok(())
}
