//! Clients that are gone, and keys that are.

use super::*;

/// A connection with a key of its own, and the key's id.
async fn with_key(stage: &Stage, body: &Value) -> Result<(Socket, String)> {
    let key = stage.client.post("/keys", body).await?.expect(201)?.json;
    let secret = key["key"].as_str().context("no key")?;
    let id = key["id"].as_str().context("no id")?.to_owned();
    Ok((Socket::open_with(&stage.hub, secret).await?, id))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_cancels_what_its_key_says() -> Result<()> {
    let stage = Stage::set().await?;
    // The gate stays closed: only the hub can end this.
    let gate = Gate::closed();
    stage
        .upstream
        .always(Script::answer().wait_before_headers(&gate));
    let key = json!({"name": "cancels", "role": "member", "on_disconnect": "cancel"});
    for proper in [false, true] {
        let (mut socket, _) = with_key(&stage, &named(&key, proper)).await?;
        socket.chat("a", &ask("whole")).await?;
        socket.chat("b", &streamed("streamed")).await?;
        gate.reached_by(if proper { 4 } else { 2 }).await?;
        if proper {
            socket.0.close(None).await?;
        } else {
            drop(socket);
        }
        let exchanges = stage.upstream.idle().await?;
        ensure!(
            exchanges
                .iter()
                .all(|exchange| matches!(exchange.end, Some(End::ClientLeft))),
            "{exchanges:?}"
        );
    }
    shipped(&stage.hub).await?;
    let account = Account::take(&stage.log).await?;
    let failed = account.exchanges.iter().filter(|event| {
        event.data().pointer("/nexus.failure/reason") == Some(&json!("client_cancelled"))
            && event.name() == "failed"
    });
    ensure!(failed.count() == 4);
    stage.strike().await
}

/// The same key under another name.
fn named(key: &Value, proper: bool) -> Value {
    let mut key = key.clone();
    key["name"] = json!(format!("cancels-{proper}"));
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_asks_for_nothing_more() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.always(Script::answer());
    let key = json!({"name": "revoked", "role": "member"});
    let (mut socket, id) = with_key(&stage, &key).await?;
    socket.chat("before", &ask("before")).await?;
    let frames = socket.hear_out("before").await?;
    ensure!(
        kinds(&frames) == ["started", "answer", "done"],
        "{frames:?}"
    );
    let gone = stage.client.delete(&format!("/keys/{id}")).await?;
    gone.expect(200)?;
    socket.chat("after", &ask("after")).await?;
    let refused = socket.hear().await?;
    ensure!(refused["error"]["code"] == "invalid_api_key", "{refused}");
    ensure!(refused["id"] == "after", "{refused}");
    socket.closes().await?;
    ensure!(stage.upstream.idle().await?.len() == 1);
    stage.strike().await
}
