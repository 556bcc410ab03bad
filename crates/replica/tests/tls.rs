//! Encrypted connections: a server behind TLS, with certificates that are good and bad.
//!
//! Owns: who is believed, and what is said of who is not. Must not: test the protocol.
//! Next: `src/tls.rs`.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use syncline_replica::{DialOptions, News, Options, Replica, ServerUrl, Trust};
use syncline_store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// An authority of our own.
fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).expect("no names");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// What a certificate is like.
struct Certificate {
    name: &'static str,
    until: i32,
}

const GOOD: Certificate = Certificate { name: "localhost", until: 4096 };

/// A server behind TLS with a certificate of this authority. Its address is by name.
async fn serve(authority: &CertifiedIssuer<'_, KeyPair>, like: Certificate) -> (String, JoinHandle<()>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([like.name.to_owned()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(like.until, 1, 1);
    let certificate = params.signed_by(&key, authority).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the default versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a key that fits");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("wss://localhost:{}/sync", listener.local_addr().expect("bound").port());
    let (server, _) = replica();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not believe the certificate hangs up.
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let upgraded = tokio_tungstenite::accept_async(stream).await.expect("an upgrade");
            server.serve(upgraded.into_inner()).await;
        }
    });
    (address, task)
}

fn replica() -> (Replica, tokio::sync::mpsc::UnboundedReceiver<News>) {
    Replica::start(Store::memory().expect("a store"), Options { shards: 1, ..Options::default() })
}

/// What the client hears first of the server: that it has joined, or why not.
async fn dialled(address: &str, trust: Trust) -> Result<(), String> {
    let (client, mut news) = replica();
    let url: ServerUrl = address.parse().expect("an address");
    let _dialling = client.dial(url, DialOptions { trust, ..DialOptions::default() });
    let wait = tokio::time::timeout(Duration::from_secs(30), news.recv());
    match wait.await.expect("news within the bound").expect("a running replica") {
        News::Joined { .. } => Ok(()),
        News::Unreachable { reason, .. } => Err(reason),
        other @ (News::Document(_)
        | News::Blob(_)
        | News::Collection(_)
        | News::Left { .. }
        | News::Refused { .. }
        | News::NeighbourJoined { .. }
        | News::NeighbourLeft { .. }
        | News::MeshRefused { .. }) => {
            panic!("neither: {other:?}")
        }
    }
}

fn trust(authority: &CertifiedIssuer<'_, KeyPair>) -> Trust {
    Trust::default().without_system().add_pem(authority.pem().as_bytes()).expect("a certificate")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_proves_its_name_is_joined() {
    let authority = authority("ours");
    let (address, _task) = serve(&authority, GOOD).await;
    assert_eq!(dialled(&address, trust(&authority)).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_trusted_is_named_with_what_to_do() {
    let (ours, others) = (authority("ours"), authority("others"));
    let cases = [
        (GOOD, trust(&others), "vouches"),
        (GOOD, trust(&authority("ours")), "vouches"),
        (Certificate { name: "elsewhere.example", ..GOOD }, trust(&ours), "another name"),
        (Certificate { until: 2001, ..GOOD }, trust(&ours), "expired"),
        (GOOD, Trust::default().without_system(), "trusts no certificate authority"),
    ];
    for (like, trust, words) in cases {
        let (address, _task) = serve(&ours, like).await;
        let reason = dialled(&address, trust).await.expect_err("it is not to be believed");
        assert!(reason.contains(words), "{words}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_not_spoken_to_in_the_clear() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("wss://localhost:{}", listener.local_addr().expect("bound").port());
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        // The client's greeting is no request; a plain server says so.
        let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        stream.writable().await.expect("open");
        assert_eq!(stream.try_write(answer).expect("room"), answer.len());
        stream
    });
    let authority = authority("ours");
    let reason = dialled(&address, trust(&authority)).await.expect_err("it speaks no TLS");
    assert!(reason.contains("does not speak TLS"), "{reason}");
    drop(serving);
}

#[test]
fn what_is_no_certificate_is_not_taken_for_one() {
    for text in ["", "certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(Trust::default().add_pem(text.as_bytes()).is_err(), "{text:?}");
    }
}
