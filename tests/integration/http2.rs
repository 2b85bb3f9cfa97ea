//! Providers that speak HTTP/2: how many connections they get, who waits for whom, what is tried again.

mod connections;
mod silence;
mod trust;
mod turned_away;

use std::sync::OnceLock;

use anyhow::Context;
use bytes::Bytes;
use http::HeaderMap;
use nexus_gateway::provider::transport::{
    Bounds, Roots, Transport, TransportSettings, Upstream as Answer,
};
use nexus_gateway::provider::{HttpRequest, ProviderError, UpstreamRequest};
use nexus_tests::{Result, Upstream};
use serde_json::{Value, json};

use crate::stage::MODEL;

/// The gateway's way to providers that trusts this upstream.
fn transport(upstream: &Upstream, settings: TransportSettings) -> Result<Transport> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    // A second installation is refused, which is as good.
    INSTALLED.get_or_init(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .is_ok()
    });
    let roots = Roots::read(&upstream.ca_file()?)?;
    Transport::new(settings, &roots).context("no transport")
}

/// Asks for a stream at that base URL and waits for the head of the answer.
async fn send(
    transport: &Transport,
    base: &str,
    tag: &str,
) -> std::result::Result<Answer, ProviderError> {
    let body = json!({
        "model": MODEL,
        "stream": true,
        "messages": [{"role": "user", "content": tag}],
    });
    let request =
        request(base, &body).map_err(|error| ProviderError::malformed(error.to_string()))?;
    transport.send(request, Bounds::default()).await
}

fn request(base: &str, body: &Value) -> Result<UpstreamRequest> {
    Ok(UpstreamRequest::Http(HttpRequest {
        url: format!("{base}/chat/completions").parse()?,
        headers: HeaderMap::new(),
        body: Bytes::from(body.to_string()),
    }))
}

/// Asks and reads the whole answer.
async fn whole(transport: &Transport, base: &str, tag: &str) -> Result<Bytes> {
    let mut answer = send(transport, base, tag).await?;
    Ok(answer.body.read_whole(16 * 1024 * 1024).await?)
}
