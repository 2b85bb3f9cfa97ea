//! What the commands say on standard output and standard error; the one place that prints.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context;

use crate::configuration::first_key::FirstKey;

/// Where everything is, once it runs.
#[derive(Debug)]
pub struct Banner<'a> {
    /// Client API and management API.
    pub listen: SocketAddr,
    /// Metrics address.
    pub metrics: SocketAddr,
    /// The broker, without secrets.
    pub nats_url: &'a str,
    /// The admin key that nobody was told yet.
    pub first_key: Option<&'a FirstKey>,
}

impl Banner<'_> {
    /// Prints it, and forgets the admin key that was told with it.
    ///
    /// A hub that nobody listens to goes on; its log then says where the key is.
    pub fn print(&self) {
        match (line(&self.text()), self.first_key) {
            (Ok(()), Some(first)) => first.told(),
            (Ok(()), None) => {}
            (Err(error), Some(first)) => {
                tracing::warn!(%error, path = %first.path().display(), "nobody could be told the first admin key; it is kept there");
            }
            (Err(error), None) => tracing::warn!(%error, "nobody could be told that it runs"),
        }
    }

    fn text(&self) -> String {
        let url = format!("http://{}", reachable(self.listen));
        let mut text = format!(
            "\nNexusAI Hub {version} is running.\n\n  API       {url}\n  metrics   http://{metrics}/metrics\n  events    {nats}\n",
            version = env!("CARGO_PKG_VERSION"),
            metrics = reachable(self.metrics),
            nats = self.nats_url,
        );
        if let Some(first) = self.first_key {
            text += &first_steps(&url, first.secret.expose());
        }
        text
    }
}

/// The key, and a line that works as pasted.
fn first_steps(url: &str, key: &str) -> String {
    let body = r#"{"model": "echo", "messages": [{"role": "user", "content": "Hello, hub"}]}"#;
    format!(
        "\n  admin key {key}\n            shown this once; keep it in a safe place\n\nTry it:\n\n  curl {url}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{body}'\n"
    )
}

/// An address that a program on this machine can connect to.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Prints text for a person who watches: how far something is.
#[expect(
    clippy::print_stderr,
    reason = "this is the module that prints for people"
)]
pub fn err(text: &str) {
    eprintln!("{text}");
}

/// Prints what the command was asked for.
///
/// # Errors
/// It reached nobody: a full disk, a reader that is gone.
pub fn out(text: &str) -> anyhow::Result<()> {
    line(text).context("write to standard output")
}

/// Prints one line of a stream of lines.
///
/// # Errors
/// Nobody reads any more.
pub fn line(text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Says why a command failed: the sentence and everything behind it.
#[expect(
    clippy::print_stderr,
    reason = "the log may not even have been started"
)]
pub fn failure(error: &anyhow::Error) {
    eprintln!("nexus: {error:#}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;

    #[test]
    fn the_curl_line_names_an_address_that_can_be_reached() {
        let dir = tempfile::tempdir().unwrap();
        let key = FirstKey::of(Secret::new("nx-1".to_owned()), dir.path());
        let banner = Banner {
            listen: "0.0.0.0:8001".parse().unwrap(),
            metrics: "127.0.0.1:9464".parse().unwrap(),
            nats_url: "nats://127.0.0.1:4222",
            first_key: Some(&key),
        };
        let text = banner.text();
        assert!(
            text.contains("curl http://127.0.0.1:8001/v1/chat/completions"),
            "{text}"
        );
        assert_eq!(text.matches("nx-1").count(), 2, "{text}");
        let again = Banner {
            first_key: None,
            ..banner
        };
        assert!(!again.text().contains("nx-1"));
    }
}
