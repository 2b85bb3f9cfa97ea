//! The certificate of an upstream that speaks TLS: issued by an authority of its own, which nobody
//! trusts who is not told to.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

/// An identity that clients can check.
pub(super) struct Identity {
    folder: TempDir,
    acceptor: TlsAcceptor,
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Identity")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Issues one for `127.0.0.1` and `localhost`, offering these protocols by ALPN.
    pub(super) fn issue(protocols: &[&str]) -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)
            .context("failed to make an authority")?;
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?
            .signed_by(&key, &authority)
            .context("failed to issue a certificate")?;

        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        config.alpn_protocols = protocols
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();

        let folder = tempfile::tempdir().context("failed to create a folder")?;
        let identity = Self {
            folder,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        };
        std::fs::write(identity.ca_file(), authority.pem())
            .context("failed to write the authority's certificate")?;
        Ok(identity)
    }

    /// The authority's certificate, in PEM.
    pub(super) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}
