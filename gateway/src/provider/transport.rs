//! The only place that speaks to the network on behalf of a provider.
//!
//! Connections are pooled and reused, and a provider that speaks HTTP/2 gets
//! another one when many requests are under way (`pool`). Nagle's algorithm is
//! off (a chunk must not wait for the next), redirects are not followed (a key
//! would go where nobody configured), and no proxy is taken from the
//! environment. Each wait has its own bound: for the connection, for the first
//! byte, between two reads. A connection that is silent is pinged where its
//! protocol can (HTTP/2), and closed when no answer comes.

mod client;
mod failure;
mod pool;
mod with_token;

use std::{pin::Pin, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use nexus_events::exchange_event::FailureReason;
use tokio::time::{Instant, Sleep, sleep, timeout};
use url::Url;

use self::{
    failure::{cut, late, stalled, too_large, without_answer},
    pool::{Place, Pool},
};
use super::{HttpRequest, ProviderError, Retry, UpstreamRequest, hops, token::Tokens};

pub use self::client::{Roots, RootsError, TransportError};

/// The body of a whole answer: 31 MiB.
///
/// It is kept in one event, and an event holds 32 MiB with its envelope.
pub const RESPONSE_BYTES_MAX: usize = 31 * 1024 * 1024;

/// The body of an error answer: 64 KiB; error objects are a few hundred bytes.
pub const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Silence on an HTTP/2 connection before a ping: 20 s, so that a dead one is noticed within half a minute.
///
/// A model that thinks is silent for minutes, and its server answers pings all the same.
const PING_AFTER: Duration = Duration::from_secs(20);

/// Until a ping is answered: 10 s, many times any round trip.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The bounds of each wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportSettings {
    /// For a connection, name resolution and TLS included.
    pub connect: Duration,
    /// From the request to the head of the answer.
    pub first_byte: Duration,
    /// Between two reads of the answer's body.
    pub idle: Duration,
    /// From the last sign of life on an HTTP/2 connection with requests under way to a ping.
    pub ping_after: Duration,
    /// From a ping to its answer; without one the connection is closed.
    pub ping_timeout: Duration,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_mins(5),
            idle: Duration::from_mins(2),
            ping_after: PING_AFTER,
            ping_timeout: PING_TIMEOUT,
        }
    }
}

/// Bounds of one call, where they differ from those of all calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// From the request to the head of the answer.
    pub first_byte: Option<Duration>,
    /// Between two reads of the answer's body.
    pub idle: Option<Duration>,
}

/// Sends requests to providers.
#[derive(Clone, Debug)]
pub struct Transport {
    pool: Pool,
    settings: TransportSettings,
    /// Whose calls they are; none in tests of parts.
    mark: Option<HeaderValue>,
    /// Access tokens that were drawn.
    tokens: Tokens,
}

/// A provider's answer, its body still to come.
#[derive(Debug)]
pub struct Upstream {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: UpstreamBody,
}

impl Upstream {
    /// Whether the body is a stream of events, as far as the provider says what it is.
    pub fn is_json(&self) -> bool {
        self.headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
    }
}

/// The body of an answer.
pub struct UpstreamBody {
    source: Source,
    idle: Duration,
    /// One timer for the whole body: moving it is cheaper than setting one for each read.
    timer: Pin<Box<Sleep>>,
    /// What was read already to see how the answer begins.
    begun: Option<Bytes>,
    /// Whether anything came.
    has_begun: bool,
    /// Until when the first bytes must come, where that is another bound; a head alone is no beginning of an answer,
    /// for there are servers that send it and then let the request wait for its turn.
    first: Option<FirstByte>,
}

#[derive(Clone, Copy)]
struct FirstByte {
    until: Instant,
    bound: Duration,
}

enum Source {
    Http(Box<Coming>),
    Local(Box<dyn Iterator<Item = Bytes> + Send>),
}

/// An answer from the network.
struct Coming {
    response: reqwest::Response,
    /// Given up with the answer.
    _place: Place,
}

impl std::fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamBody").finish_non_exhaustive()
    }
}

impl Transport {
    /// A transport with empty pools.
    ///
    /// # Errors
    /// [`TransportError`]: no certificates, or no cryptography provider installed.
    pub fn new(settings: TransportSettings, roots: &Roots) -> Result<Self, TransportError> {
        let clients = client::clients(pool::CLIENTS, &settings, roots)?;
        Ok(Self {
            pool: Pool::new(clients),
            settings,
            mark: None,
            tokens: Tokens::default(),
        })
    }

    /// The same, with each call marked as this installation's, see [`hops`].
    #[must_use]
    pub fn marked(mut self, mark: HeaderValue) -> Self {
        self.mark = Some(mark);
        self
    }

    /// Sends a request and waits for the head of the answer, whatever its status.
    ///
    /// # Errors
    /// [`ProviderError`] when no head came: refused, cut off or late.
    pub async fn send(
        &self,
        request: UpstreamRequest,
        bounds: Bounds,
    ) -> Result<Upstream, ProviderError> {
        match request {
            UpstreamRequest::Http(request) => self.post(request, bounds).await,
            UpstreamRequest::WithToken(with) => Box::pin(self.post_with_token(with, bounds)).await,
            UpstreamRequest::Local(answer) => {
                let mut headers = HeaderMap::with_capacity(1);
                let content_type = HeaderValue::from_static(answer.content_type);
                headers.insert(CONTENT_TYPE, content_type);
                Ok(Upstream {
                    status: StatusCode::OK,
                    headers,
                    body: body(Source::Local(answer.body), self.settings.idle),
                })
            }
        }
    }

    /// Whether anybody answers at that address, whatever the answer is.
    ///
    /// Nothing of the hub's or of a client's goes there: a GET without a key.
    ///
    /// # Errors
    /// [`ProviderError`]: nobody did within the bound of a connection.
    pub async fn reach(&self, url: Url) -> Result<StatusCode, ProviderError> {
        let bound = self.settings.connect;
        let (client, place) = self.client(&url)?;
        let sent = client.get(url).send();
        let response = timeout(bound, sent)
            .await
            .map_err(|_elapsed| late(bound))?
            .map_err(without_answer)?;
        place.answered_in(response.version());
        Ok(response.status())
    }

    fn client(&self, url: &Url) -> Result<(&reqwest::Client, Place), ProviderError> {
        let taken = self.pool.take(url);
        taken.ok_or_else(|| ProviderError::new(FailureReason::Internal, "There is no HTTP client."))
    }

    async fn post(
        &self,
        mut request: HttpRequest,
        bounds: Bounds,
    ) -> Result<Upstream, ProviderError> {
        let first_byte = bounds.first_byte.unwrap_or(self.settings.first_byte);
        let idle = bounds.idle.unwrap_or(self.settings.idle);
        if let Some(mark) = &self.mark {
            hops::add(&mut request.headers, mark);
        }
        let first = FirstByte {
            until: Instant::now() + first_byte,
            bound: first_byte,
        };
        let (client, place) = self.client(&request.url)?;
        let sent = client
            .post(request.url)
            .headers(request.headers)
            .body(request.body)
            .send();
        let mut response = timeout(first_byte, sent)
            .await
            .map_err(|_elapsed| late(first_byte))?
            .map_err(without_answer)?;
        place.answered_in(response.version());
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let coming = Coming {
            response,
            _place: place,
        };
        Ok(Upstream {
            status,
            headers,
            body: UpstreamBody {
                first: status.is_success().then_some(first),
                ..body(Source::Http(Box::new(coming)), idle)
            },
        })
    }
}

fn body(source: Source, idle: Duration) -> UpstreamBody {
    UpstreamBody {
        source,
        idle,
        timer: Box::pin(sleep(idle)),
        begun: None,
        has_begun: false,
        first: None,
    }
}

impl UpstreamBody {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`ProviderError`]: the body was cut off or stood still.
    ///
    /// # Cancel safety
    /// No bytes are lost when it is dropped half-way.
    pub async fn read(&mut self) -> Result<Option<Bytes>, ProviderError> {
        if let Some(begun) = self.begun.take().filter(|begun| !begun.is_empty()) {
            return Ok(Some(begun));
        }
        let idle = self.idle;
        match &mut self.source {
            Source::Local(pieces) => {
                tokio::task::consume_budget().await;
                Ok(pieces.next())
            }
            Source::Http(coming) => {
                let first = self.first.filter(|_| !self.has_begun);
                let until = first.map_or_else(|| Instant::now() + idle, |first| first.until);
                self.timer.as_mut().reset(until);
                let bytes = tokio::select! {
                    biased;
                    bytes = coming.response.chunk() => bytes,
                    () = self.timer.as_mut() => {
                        return Err(first.map_or_else(|| stalled(idle), |first| late(first.bound)));
                    }
                };
                let is_first = !std::mem::replace(&mut self.has_begun, true);
                bytes.map_err(|error| match cut(error) {
                    // A head without a body is as good as no answer.
                    error if is_first => error.with_retry(Retry::Now),
                    error => error,
                })
            }
        }
    }

    /// The first bytes, which stay to be read; none at the end.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    ///
    /// # Cancel safety
    /// No bytes are lost when it is dropped half-way.
    pub async fn peek(&mut self) -> Result<&[u8], ProviderError> {
        if self.begun.is_none() {
            self.begun = self.read().await?;
        }
        Ok(self.begun.as_deref().unwrap_or_default())
    }

    /// The whole body, read in place where it comes in one piece.
    ///
    /// # Errors
    /// [`ProviderError`], also when it exceeds `bytes_max`.
    pub async fn read_whole(&mut self, bytes_max: usize) -> Result<Bytes, ProviderError> {
        let Some(first) = self.read().await? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.read().await? else {
            return within(first, bytes_max);
        };
        let mut whole = BytesMut::from(within(first, bytes_max)?);
        let mut next = Some(second);
        while let Some(bytes) = next {
            if whole.len() + bytes.len() > bytes_max {
                return Err(too_large(bytes_max));
            }
            whole.extend_from_slice(&bytes);
            next = self.read().await?;
        }
        Ok(whole.freeze())
    }

    /// Reads what follows an answer's end, so that the connection can be used again.
    ///
    /// What takes longer than `patience` is not worth it: the connection is closed.
    pub async fn finish(mut self, patience: Duration) {
        let rest = async { while let Ok(Some(_)) = self.read().await {} };
        // Late or not, the connection is settled when the body is dropped.
        let _late = timeout(patience, rest).await.is_err();
    }
}

fn within(bytes: Bytes, bytes_max: usize) -> Result<Bytes, ProviderError> {
    if bytes.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
