//! Encrypted connections: the server's certificate, taken anew when its files change.
//!
//! Owns: which certificate is shown. Must not: go on with a key that is not the certificate's.
//! Next: `server.rs`; docs/server.md, "TLS".

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

use crate::files::{Stamps, stamps};

/// Where the server's certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead from it to an authority, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
}

/// The certificate cannot be used. **State:** the one before stays; at the start there is none. **Do:** as the message says.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as what it should be.
    #[error("{path} cannot be used for TLS: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The two do not belong together.
    #[error("certificate and key cannot be used for TLS: {0}")]
    Pair(rustls::Error),
}

/// The certificate in force.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
    seen: Mutex<Stamps>,
}

impl Certificate {
    /// Reads the certificate.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn read(files: TlsFiles) -> Result<Self, TlsError> {
        let seen = Mutex::new(stamps([&files.certificate, &files.key]));
        let current = RwLock::new(Arc::new(load(&files)?));
        Ok(Self { files, current, seen })
    }

    /// What encrypts connections with the certificate in force.
    ///
    /// # Errors
    /// [`TlsError::Pair`].
    pub(crate) fn acceptor(self: Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?;
        let mut config = config.with_no_client_auth().with_cert_resolver(self);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Reads the files again: when they have changed, or always if that is asked for.
    pub(crate) fn read_again(&self, always: bool) {
        let now = stamps([&self.files.certificate, &self.files.key]);
        let before = std::mem::replace(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner), now.clone());
        if before == now && !always {
            return;
        }
        match load(&self.files) {
            Ok(key) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                tracing::info!("the certificate has been read again");
            }
            // The two files are seldom replaced at one moment.
            Err(error) => tracing::error!("the certificate stays as it was: {error}"),
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn load(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect);
    let unusable = |path: &PathBuf, reason: String| TlsError::File { path: path.clone(), reason };
    let certificates = certificates.map_err(|error| unusable(&files.certificate, error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable(&files.certificate, "there is no certificate in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key, error.to_string()))?;
    // Checks that the key is the certificate's.
    CertifiedKey::from_der(certificates, key, &ring::default_provider()).map_err(TlsError::Pair)
}
