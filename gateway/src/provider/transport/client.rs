//! How the clients are set up: who is trusted, what is kept, how a dead connection is noticed.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, pem, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

use super::TransportSettings;

/// Idle connections kept for each provider: 128; more would outlive any burst for nothing.
const IDLE_CONNECTIONS_MAX: usize = 128;

/// How long an idle connection is kept: 30 s, below the keep-alive of common front ends (60–75 s),
/// so that it is rarely the provider who closes first.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// What a provider may send on one HTTP/2 stream before the hub has read it: 256 KiB.
///
/// Enough for 2.5 MB/s at 100 ms, a hundred times what a model writes; and all that a client who
/// does not read costs in memory.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// The same on one connection, for all its streams: 64 MiB, room for 256 that nobody reads.
///
/// A smaller one than that of all streams together would let clients who do not read hold up
/// the others.
const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;

/// Authorities that are trusted besides those of the system.
#[derive(Clone, Debug, Default)]
pub struct Roots(Vec<CertificateDer<'static>>);

/// A file of certificates will not do.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// It cannot be read, or is no PEM.
    #[error("read the certificates")]
    Unreadable(#[from] pem::Error),
    /// There is none in it.
    #[error("there is no certificate in it (a PEM file begins with -----BEGIN CERTIFICATE-----)")]
    None,
    /// One of them is not a certificate of an authority.
    #[error("use certificate {number} of it")]
    Unusable {
        /// Which one, from 1.
        number: usize,
        /// Why.
        source: rustls::Error,
    },
}

impl Roots {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// [`RootsError`]: it cannot be read, or does not hold certificates.
    pub fn read(path: &Path) -> Result<Self, RootsError> {
        let certificates: Vec<_> =
            CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
        if certificates.is_empty() {
            return Err(RootsError::None);
        }
        let mut store = RootCertStore::empty();
        for (place, certificate) in certificates.iter().enumerate() {
            let added = store.add(certificate.clone());
            added.map_err(|source| RootsError::Unusable {
                number: place + 1,
                source,
            })?;
        }
        Ok(Self(certificates))
    }
}

/// The client is not usable on this machine.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No cryptography provider is installed.
    #[error("set up TLS for providers: no cryptography is installed")]
    NoCryptography,
    /// No certificates, or no usable version of TLS.
    #[error("set up TLS for providers")]
    Tls(#[from] rustls::Error),
    /// The rest of it.
    #[error("set up the HTTP client for providers")]
    Client(#[from] reqwest::Error),
}

/// So many clients that are set up alike and share who is trusted and which sessions can be resumed.
pub(super) fn clients(
    count: usize,
    settings: &TransportSettings,
    roots: &Roots,
) -> Result<Vec<reqwest::Client>, TransportError> {
    let tls = tls(roots)?;
    (0..count).map(|_| client(settings, tls.clone())).collect()
}

fn client(
    settings: &TransportSettings,
    tls: ClientConfig,
) -> Result<reqwest::Client, TransportError> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(settings.connect)
        .pool_idle_timeout(IDLE_CONNECTION)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .tcp_nodelay(true)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(settings.ping_after)
        .http2_keep_alive_timeout(settings.ping_timeout)
        .http2_keep_alive_while_idle(false)
        // Each try is an attempt of the log; what the library would ask again nobody would know of.
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()?;
    Ok(client)
}

fn tls(roots: &Roots) -> Result<ClientConfig, TransportError> {
    let provider = CryptoProvider::get_default().ok_or(TransportError::NoCryptography)?;
    let verifier = Verifier::new_with_extra_roots(roots.0.iter().cloned(), Arc::clone(provider))?;
    let mut tls = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}
