//! The HTTP server: accepts, bounds, drains.
//!
//! HTTP/1.1, because clients of an API behind a load balancer speak it, and a
//! stream costs one write there. Bounds: connections at once (more wait in the
//! operating system's queue), the time for a request's head, its size. What a
//! body may take is the reader's business ([`crate::middleware::body`]).

mod first_words;

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus::IntGauge;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use first_words::FirstWords;

/// Time for a request's head, and for an idle connection to send another one: 75 s, longer than
/// the 60 s that common clients keep idle connections for.
const HEAD_TIME: Duration = Duration::from_secs(75);

/// Pause after an accept that failed for want of file descriptors or memory: 50 ms.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// At the hard stop a stream's last event, which says that it was ended, is still written: 2 s.
const PARTING: Duration = Duration::from_secs(2);

/// How a listener is served.
#[derive(Clone, Debug)]
pub struct Server {
    /// Connections at once.
    pub connections_max: u32,
    /// Counts open connections.
    pub connections: IntGauge,
    /// Every connection's task is on it.
    pub tracker: TaskTracker,
    /// Stops accepting; connections end after the answer under way.
    pub soft_stop: CancellationToken,
    /// Ends connections, after the last event of each.
    pub hard_stop: CancellationToken,
}

impl Server {
    /// Serves until the soft stop; connections may then still be open, on the tracker.
    pub async fn serve(&self, listener: TcpListener, router: Router) {
        let slots = Arc::new(Semaphore::new(
            usize::try_from(self.connections_max).unwrap_or(usize::MAX >> 3),
        ));
        let accepting = async {
            loop {
                // The semaphore is never closed.
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                    return;
                };
                let stream = accept(&listener).await;
                let connection = self.clone().connection(stream, router.clone());
                self.tracker.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
        };
        self.soft_stop.run_until_cancelled(accepting).await;
    }

    async fn connection(self, stream: TcpStream, router: Router) {
        self.connections.inc();
        // Without it a streamed word waits for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY");
        }
        let io = TokioIo::new(FirstWords::new(stream));
        let service = TowerToHyperService::new(router);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .serve_connection(io, service)
            .with_upgrades();
        tokio::pin!(connection);
        let mut stopping = false;
        let end = loop {
            tokio::select! {
                end = connection.as_mut() => break end,
                () = self.soft_stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = self.hard_stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let parting = timeout(PARTING, connection.as_mut()).await;
                    break parting.unwrap_or(Ok(()));
                }
            }
        };
        if let Err(error) = end {
            tracing::debug!(%error, "a client connection ended early");
        }
        self.connections.dec();
    }
}

/// Waits for a connection; whatever goes wrong with one is no reason to stop listening.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_the_clients(&error) => {
                tracing::debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
