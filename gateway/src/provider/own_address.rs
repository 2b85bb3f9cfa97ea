//! A provider that is the hub itself: refused when it is configured.
//!
//! A provider URL that leads back here would turn one request into as many as
//! the limits let through. When a provider is written, its host is resolved and
//! compared with the address that the hub listens on ([`is_own`]). Nothing of
//! that is on a request's path. What an address does not show is caught when it
//! is called ([`super::hops`]).

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use tokio::{net::lookup_host, time::timeout};
use url::{Host, Url};

/// Finding a host's addresses: 2 s. A name that cannot be resolved now may be good later, and is
/// left to the mark on each call.
const LOOKUP_MAX: Duration = Duration::from_secs(2);

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
}
