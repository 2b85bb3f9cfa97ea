//! Which connection a request takes.
//!
//! The HTTP library keeps one HTTP/2 connection to each host. What the host
//! allows on it at once is bounded, 100 streams mostly; the rest would wait in
//! the library, where nobody sees it: as if the provider were slow. And one
//! connection that stands still would hold up everybody. So there are several
//! clients, each with connections of its own, and a request takes the first
//! one that has room to its host. At low load that is always the first, whose
//! connection is warm.
//!
//! A host that speaks HTTP/1.1 has a connection for each request anyway; all
//! of its requests take the first client, so that all of them find what is idle.

use std::{collections::HashMap, sync::Arc};

use http::Version;
use parking_lot::Mutex;
use url::{Position, Url};

/// Requests of one client to one host before the next client is taken: 80.
///
/// Servers allow 100 streams or more, as RFC 9113 (6.5.2) tells them to. The difference is for
/// those that have ended here and not yet there.
pub(super) const STREAMS: u32 = 80;

/// Clients: 64, which is 5 120 requests to one host at once. Beyond that they share what there is.
pub(super) const CLIENTS: usize = 64;

/// Hosts that are remembered while nothing is under way to them: 1 024, more than anybody configures.
const HOSTS_MAX: usize = 1_024;

/// The clients, and how many requests each has under way to each host.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    clients: Arc<[reqwest::Client]>,
    /// By origin, as `https://api.example.com:8443`.
    hosts: Arc<Mutex<HashMap<String, Arc<Host>>>>,
}

/// One host.
#[derive(Debug, Default)]
struct Host(Mutex<Requests>);

/// What is under way to one host.
#[derive(Debug, Default)]
struct Requests {
    /// Whether each of them has a connection to itself.
    is_http1: bool,
    /// Their number for each client, as far as clients were needed.
    open: Vec<u32>,
}

/// A request under way; until it is dropped it counts.
#[derive(Debug)]
pub(super) struct Place {
    host: Arc<Host>,
    client: usize,
}

impl Pool {
    /// Of those clients, the first of which is taken first.
    pub(super) fn new(clients: impl IntoIterator<Item = reqwest::Client>) -> Self {
        Self {
            clients: clients.into_iter().collect(),
            hosts: Arc::default(),
        }
    }

    /// The client for a request to that address, and the request's place; `None` without clients.
    pub(super) fn take(&self, url: &Url) -> Option<(&reqwest::Client, Place)> {
        let host = self.host(&url[..Position::BeforePath]);
        let client = host.0.lock().begin(self.clients.len());
        let place = Place { host, client };
        Some((self.clients.get(client)?, place))
    }

    fn host(&self, origin: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock();
        if let Some(host) = hosts.get(origin) {
            return Arc::clone(host);
        }
        if hosts.len() >= HOSTS_MAX {
            // Who is held elsewhere has something under way.
            hosts.retain(|_, host| Arc::strong_count(host) > 1);
        }
        let host = Arc::default();
        hosts.insert(origin.to_owned(), Arc::clone(&host));
        host
    }
}

impl Place {
    /// The host has answered in that version.
    pub(super) fn answered_in(&self, version: Version) {
        self.host.0.lock().is_http1 = version < Version::HTTP_2;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.host.0.lock().end(self.client);
    }
}

impl Requests {
    /// Counts one more, and tells the client that it takes.
    fn begin(&mut self, clients: usize) -> usize {
        let client = self.choose(clients);
        if self.open.len() <= client {
            self.open.resize(client + 1, 0);
        }
        if let Some(open) = self.open.get_mut(client) {
            *open += 1;
        }
        client
    }

    fn end(&mut self, client: usize) {
        if let Some(open) = self.open.get_mut(client) {
            *open = open.saturating_sub(1);
        }
    }

    fn choose(&self, clients: usize) -> usize {
        if self.is_http1 {
            return 0;
        }
        let with_room = self.open.iter().position(|&open| open < STREAMS);
        with_room.unwrap_or_else(|| {
            if self.open.len() < clients {
                return self.open.len();
            }
            let numbered = self.open.iter().enumerate();
            numbered
                .min_by_key(|(_, open)| **open)
                .map_or(0, |(client, _)| client)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clients that so many requests take, one after the other.
    fn taken(requests: &mut Requests, count: u32, clients: usize) -> Vec<usize> {
        (0..count).map(|_| requests.begin(clients)).collect()
    }

    #[test]
    fn the_first_client_with_room_is_taken() {
        let mut requests = Requests::default();
        assert!(taken(&mut requests, STREAMS, 3).iter().all(|&it| it == 0));
        assert_eq!(requests.begin(3), 1);
        requests.end(0);
        assert_eq!([requests.begin(3), requests.begin(3)], [0, 1]);
    }

    #[test]
    fn without_room_the_clients_share_what_there_is() {
        let mut requests = Requests::default();
        taken(&mut requests, 2 * STREAMS, 2);
        assert_eq!(requests.open, [STREAMS, STREAMS]);
        requests.end(1);
        requests.end(1);
        taken(&mut requests, 6, 2);
        assert_eq!(requests.open, [STREAMS + 2, STREAMS + 2]);
    }

    #[test]
    fn a_host_with_a_connection_for_each_request_needs_one_client() {
        let mut requests = Requests {
            is_http1: true,
            ..Requests::default()
        };
        taken(&mut requests, 3 * STREAMS, 3);
        assert_eq!(requests.open, [3 * STREAMS]);
    }

    #[test]
    fn hosts_are_counted_apart_and_forgotten_when_nothing_is_under_way() {
        let pool = crate::provider::transport::tests::transport().pool;
        let url = |host: usize| Url::parse(&format!("http://h{host}.test:81/v1/x")).unwrap();
        let (_, held) = pool.take(&url(0)).unwrap();
        for host in 1..=2 * HOSTS_MAX {
            let (_, place) = pool.take(&url(host)).unwrap();
            assert_eq!(place.host.0.lock().open, [1]);
            drop(place);
        }
        let hosts = pool.hosts.lock();
        assert!(hosts.len() <= HOSTS_MAX, "{}", hosts.len());
        assert!(Arc::ptr_eq(&hosts["http://h0.test:81"], &held.host));
    }
}
