//! What the holder of each role can do, by examples, beside the walk over the whole route table.

use anyhow::{Context, ensure};
use nexus_tests::{Hub, Result, until};
use serde_json::json;

use super::ask;
use nexus_tests::account::BOUND;

#[tokio::test(flavor = "multi_thread")]
async fn each_role_can_do_its_work() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    let answer = admin.chat(&ask("echo")).await?.expect(200)?;
    let conversation = answer
        .header("x-conversation-id")
        .context("no conversation")?;
    let said = format!("/conversations/{conversation}");
    until("the conversation is shown", BOUND, async || {
        admin.get(&said).await?.expect(200).map(drop)
    })
    .await?;
    let key_of_member = json!({"name": "by-an-operator", "role": "member"});
    let key_of_admin = json!({"name": "another-admin", "role": "admin"});

    let operator = admin.with_new_key("operator", "operator").await?;
    operator.post("/keys", &key_of_member).await?.expect(201)?;
    operator.post("/keys", &key_of_admin).await?.expect(403)?;
    operator.delete("/keys/admin").await?.expect(403)?;
    operator.get("/stats").await?.expect(200)?;
    operator.get(&said).await?.expect(403)?;
    let auditor = admin.with_new_key("auditor", "auditor").await?;
    auditor.get(&said).await?.expect(200)?;
    auditor.get("/providers").await?.expect(403)?;
    let viewer = admin.with_new_key("viewer", "viewer").await?;
    viewer.get("/providers").await?.expect(200)?;
    viewer.chat(&ask("echo")).await?.expect(403)?;
    viewer.delete("/providers/echo").await?.expect(403)?;

    // A member sees its own and is not told what others have.
    let member = admin.with_new_key("member", "member").await?;
    let own = member.chat(&ask("echo")).await?.expect(200)?;
    let own = own.header("x-conversation-id").context("no conversation")?;
    ensure!(
        own != conversation,
        "the same words of two people are two conversations"
    );
    member.get(&said).await?.expect(404)?;
    member
        .get(&format!("/stats/conversations/{conversation}"))
        .await?
        .expect(404)?;
    until("its own conversation is shown", BOUND, async || {
        member
            .get(&format!("/conversations/{own}"))
            .await?
            .expect(200)
            .map(drop)
    })
    .await?;
    assert_eq!(
        super::listed(&member, "/conversations", "id", 10)
            .await?
            .len(),
        1
    );
    member.get("/stats").await?.expect(403)?;
    // The last admin key stays.
    assert_eq!(
        admin.delete("/keys/admin").await?.expect(409)?.error_code(),
        "last_admin_key"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_has_changed_since_is_not_revoked_by_its_old_tag() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    let new = json!({"name": "leaving"});
    let created = admin.post("/keys", &new).await?.expect(201)?;
    let change = json!({"requests_per_minute": 9});
    let changed = admin.put("/keys/leaving", &change).await?.expect(200)?;
    let with = |tag: &str| admin.with_header("if-match", tag);
    let old = with(&super::etag(&created)?)?;
    old.delete("/keys/leaving").await?.expect(412)?;
    admin.get("/keys/leaving").await?.expect(200)?;
    let present = with(&super::etag(&changed)?)?;
    present.delete("/keys/leaving").await?.expect(200)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_found_by_the_id_of_its_completion_too() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    let answer = admin.chat(&ask("echo")).await?.expect(200)?;
    let completion = answer.json["id"].as_str().context("no id")?;
    ensure!(completion.starts_with("chatcmpl-"), "{completion}");
    let request = answer.header("x-request-id").context("no request id")?;
    let path = format!("/requests/{completion}");
    until("it is shown", BOUND, async || {
        let shown = admin.get(&path).await?.expect(200)?;
        ensure!(shown.text().contains(request), "{}", shown.text());
        anyhow::Ok(())
    })
    .await?;
    let twice = format!("/requests/chatcmpl-{completion}");
    admin.get(&twice).await?.expect(404)?;
    Ok(())
}
