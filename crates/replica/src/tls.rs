//! Encrypted connections to servers, and whose certificates are believed.
//!
//! Owns: the certificates that are trusted, the words for one that is not. Must not: go on with a server that could not
//! prove its name. Next: `dial.rs`; docs/client.md, "Servers".

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore};

/// Who may vouch for a server: those that the system trusts, and those that are added. For `wss://` only.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    added: Vec<CertificateDer<'static>>,
    without_system: bool,
}

/// The text has no certificate that could be trusted. **State:** nobody is trusted who was not before. **Do:** give the
/// certificate of the authority as PEM: `-----BEGIN CERTIFICATE-----…`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("these are no certificates: {0}")]
pub struct NoCertificate(String);

impl Trust {
    /// Trusts these certificates too: those of authorities, or a server's own that nobody else vouches for, as PEM.
    ///
    /// # Errors
    /// When there is none in the text, or one that cannot be read.
    pub fn add_pem(mut self, pem: &[u8]) -> Result<Self, NoCertificate> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.map_err(|error| NoCertificate(error.to_string()))?;
        if certificates.is_empty() {
            return Err(NoCertificate("there is no PEM section of that name".to_owned()));
        }
        // A certificate that is none is found here, not when a server is dialled.
        let mut proof = RootCertStore::empty();
        for certificate in &certificates {
            proof.add(certificate.clone()).map_err(|error| NoCertificate(error.to_string()))?;
        }
        self.added.extend(certificates);
        Ok(self)
    }

    /// Trusts only what was added, not what the system trusts.
    #[must_use]
    pub fn without_system(self) -> Self {
        Self { without_system: true, ..self }
    }

    /// Reads what the system trusts: blocks on the disk.
    fn config(&self) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore::empty();
        let mut unreadable = Vec::new();
        if !self.without_system {
            let system = rustls_native_certs::load_native_certs();
            // A system may have old certificates that nobody can read any more; the others count.
            roots.add_parsable_certificates(system.certs);
            unreadable = system.errors;
        }
        roots.add_parsable_certificates(self.added.iter().cloned());
        if roots.is_empty() {
            let why = unreadable.first().map_or_else(String::new, |error| format!(" ({error})"));
            return Err(format!("this machine trusts no certificate authority{why}: add one"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

/// Encrypts a connection to the server of this name, which has to prove that it is it.
///
/// # Errors
/// Why it has not, in words for a person.
pub async fn encrypt(trust: &Trust, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
    let reading = trust.clone();
    let config = tokio::task::spawn_blocking(move || reading.config()).await.map_err(|error| error.to_string())??;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|_| format!("{host:?} is no name that a certificate could be for"))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    connecting.await.map_err(|error| refusal(host, &error))
}

/// Why there is no encrypted connection, and what to do about it.
fn refusal(host: &str, error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(invalid)) => distrust(host, invalid),
        Some(rustls::Error::InvalidMessage(_)) => format!("{host} does not speak TLS: is it a ws:// server? ({error})"),
        _ => format!("no encrypted connection: {error}"),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the library adds kinds, and has words for each")]
fn distrust(host: &str, invalid: &CertificateError) -> String {
    let why = match invalid {
        // Another authority of the same name has not signed it.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "nobody whom this machine trusts vouches for it; add the authority's certificate if you do".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired, or this machine's clock is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet, or this machine's clock is wrong".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        other => other.to_string(),
    };
    format!("the certificate of {host} is not trusted: {why}")
}
