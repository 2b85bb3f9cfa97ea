//! A provider that is the hub itself: refused when it is configured, caught when it is called.
//!
//! A provider URL that leads back here would turn one request into as many as
//! the limits let through. Two guards see to that:
//!
//! - When a provider is written, its host is resolved and compared with the
//!   address that the hub listens on ([`is_own`]). Nothing of that is on a
//!   request's path.
//! - Names change, and a load balancer or a published port hides the hub behind
//!   another address. So the hub marks its calls to providers ([`X_NEXUS_HOP`])
//!   with a number of its installation ([`mark`]), and refuses what carries its
//!   own mark: the provider's failure then tells the operator.
//!
//! The mark is drawn from the installation's message key through a hash, so all
//! gateways of an installation have the same, and it gives nothing away. A hub
//! in front of another hub is no loop, and has another mark.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::Sha256;
use tokio::{net::lookup_host, time::timeout};
use url::{Host, Url};

use crate::{
    configuration::MessageKey,
    error::{ApiError, INVALID_REQUEST},
};

/// Whose call to a provider it is.
pub const X_NEXUS_HOP: HeaderName = HeaderName::from_static("x-nexus-hop");

/// Finding a host's addresses: 2 s. A name that cannot be resolved now may be good later, and is
/// left to the mark.
const LOOKUP_MAX: Duration = Duration::from_secs(2);

/// Bytes of a mark: 8, so that two installations have the same by no chance that counts.
const MARK_BYTES: usize = 8;

/// The mark of an installation.
pub fn mark(key: &MessageKey) -> HeaderValue {
    // A key of any length will do for this hash.
    let digest = Hmac::<Sha256>::new_from_slice(key.as_bytes())
        .map(|mac| mac.chain_update(b"nexus hop").finalize().into_bytes())
        .unwrap_or_default();
    let bytes = digest.iter().take(MARK_BYTES);
    let number = bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    // Hexadecimal digits are a header value.
    HeaderValue::try_from(format!("{number:016x}")).unwrap_or(HeaderValue::from_static("nexus"))
}

/// Refuses a request that this installation has sent itself.
///
/// # Errors
/// 508.
pub fn check(headers: &HeaderMap, key: &MessageKey) -> Result<(), ApiError> {
    // The mark is computed for those few that carry one.
    let mut marks = headers.get_all(X_NEXUS_HOP).iter().peekable();
    if marks.peek().is_none() {
        return Ok(());
    }
    let own = mark(key);
    if marks.any(|mark| *mark == own) {
        let message = "This request was sent by the hub itself: the server_url of one of its \
                       providers leads back to it.";
        return Err(ApiError::new(
            StatusCode::LOOP_DETECTED,
            INVALID_REQUEST,
            "provider_is_the_hub",
            message,
        ));
    }
    Ok(())
}

/// Whether a URL leads to the hub that listens on that address.
pub async fn is_own(listen: SocketAddr, url: &Url) -> bool {
    if url.port_or_known_default() != Some(listen.port()) {
        return false;
    }
    let reaches = |ip: IpAddr| reaches(listen.ip(), ip);
    match url.host() {
        Some(Host::Ipv4(ip)) => reaches(ip.into()),
        Some(Host::Ipv6(ip)) => reaches(ip.into()),
        Some(Host::Domain(name)) => {
            let found = timeout(LOOKUP_MAX, lookup_host((name, listen.port()))).await;
            let Ok(Ok(mut found)) = found else {
                return false;
            };
            found.any(|address| reaches(address.ip()))
        }
        None => false,
    }
}

/// Whether a connection to that address of the same port ends at a socket that listens so.
fn reaches(listen: IpAddr, to: IpAddr) -> bool {
    let (listen, to) = (listen.to_canonical(), to.to_canonical());
    if listen.is_unspecified() {
        // `[::]` takes the older protocol as well, `0.0.0.0` does not take the newer.
        return (listen.is_ipv6() || to.is_ipv4()) && is_of_this_machine(to);
    }
    // A connection to no address in particular goes to the machine itself.
    let to_loopback = to.is_loopback() || to.is_unspecified();
    listen == to || listen.is_loopback() && to_loopback && listen.is_ipv4() == to.is_ipv4()
}

/// Whether the address is one of this machine's: the system lets nobody bind another's.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn leads_home(listen: &str, url: &str) -> bool {
        is_own(listen.parse().unwrap(), &Url::parse(url).unwrap()).await
    }

    #[tokio::test]
    async fn every_spelling_of_the_hubs_address_is_seen_through() {
        for (listen, urls) in [
            (
                "127.0.0.1:8001",
                &[
                    "http://127.0.0.1:8001",
                    "http://localhost:8001/v1",
                    "http://127.1:8001",
                    "http://2130706433:8001",
                    "http://0x7f.0.0.1:8001",
                    "http://127.8.9.10:8001",
                    "http://0.0.0.0:8001",
                    "http://[::ffff:127.0.0.1]:8001",
                    "https://LOCALHOST:8001",
                ][..],
            ),
            ("0.0.0.0:80", &["http://127.0.0.1/", "http://0.0.0.0"][..]),
            (
                "[::]:8001",
                &["http://[::1]:8001", "http://127.0.0.1:8001"][..],
            ),
            ("[::1]:8001", &["http://[::1]:8001", "http://[::]:8001"][..]),
            ("192.0.2.7:8001", &["http://192.0.2.7:8001"][..]),
        ] {
            for url in urls {
                assert!(leads_home(listen, url).await, "{url} and {listen}");
            }
        }
    }

    #[tokio::test]
    async fn what_leads_elsewhere_is_let_through() {
        for (listen, url) in [
            ("127.0.0.1:8001", "http://127.0.0.1:8002"),
            ("127.0.0.1:8001", "http://localhost"),
            ("127.0.0.1:8001", "http://192.0.2.7:8001"),
            ("127.0.0.1:8001", "http://[::1]:8001"),
            ("192.0.2.7:8001", "http://127.0.0.1:8001"),
            // Nobody's machine has it.
            ("0.0.0.0:8001", "http://192.0.2.7:8001"),
            ("0.0.0.0:8001", "http://no-such-host.invalid:8001"),
        ] {
            assert!(!leads_home(listen, url).await, "{url} and {listen}");
        }
    }

    #[test]
    fn only_the_own_mark_is_refused() {
        let [own, other] = [7, 8].map(|byte| MessageKey::from_bytes([byte; 32]));
        let mut headers = HeaderMap::new();
        assert!(check(&headers, &own).is_ok());
        headers.append(X_NEXUS_HOP, mark(&other));
        headers.append(X_NEXUS_HOP, HeaderValue::from_static("x"));
        assert!(check(&headers, &own).is_ok());
        headers.append(X_NEXUS_HOP, mark(&own));
        let error = check(&headers, &own).unwrap_err();
        assert_eq!(error.status, StatusCode::LOOP_DETECTED);
        assert!(!mark(&own).to_str().unwrap().contains("07070707"));
    }
}
