//! A connection that came through other hubs: its requests go on with where it has been.

use anyhow::{Context, ensure};
use nexus_tests::Result;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{Socket, address};
use crate::stage::{Stage, ask};

const PASSED: &str = "0123456789abcdef";

#[tokio::test(flavor = "multi_thread")]
async fn where_a_connection_has_been_goes_on_with_its_requests() -> Result<()> {
    let stage = Stage::set().await?;
    let mut request = address(&stage.hub)?.into_client_request()?;
    let bearer = format!("Bearer {}", stage.hub.admin_key());
    let headers = request.headers_mut();
    headers.insert("authorization", bearer.parse()?);
    headers.insert("x-nexus-hop", PASSED.parse()?);
    let (socket, _) = connect_async(request).await?;
    let mut socket = Socket(socket);
    socket.chat("a", &ask("through")).await?;
    socket.hear_out("a").await?;
    let asked = stage.upstream.exchanges().pop().context("not asked")?;
    let seen = asked.request.header("x-nexus-hop").context("no header")?;
    ensure!(
        seen.starts_with(PASSED) && seen.split(',').count() == 2,
        "{seen}"
    );
    stage.strike().await
}
