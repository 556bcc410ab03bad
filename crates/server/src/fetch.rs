//! One HTTP request to somebody else's server, within a time and a size.
//!
//! Owns: the connection, encrypted where the address says so, and its bounds. Must not: follow redirects, or keep anything.
//! Next: `access/keyring.rs`, `access/callback.rs`, `webhooks.rs`.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use syncline_replica::{Trust, tls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Url;

/// Largest answer, bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What is asked: with a body it is a POST, without one a GET.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// JSON, unless the content type says otherwise.
    pub body: Option<Bytes>,
    /// What kind the body is, if it is no JSON.
    pub content_type: Option<&'static str>,
    /// Besides those that every request has.
    pub headers: Vec<(&'static str, String)>,
}

/// Asks once.
///
/// # Errors
/// Why there is no answer, in words that name no secret.
pub async fn fetch(url: &Url, ask: Ask, trust: &Trust, within: Duration) -> Result<Bytes, String> {
    match tokio::time::timeout(within, exchange(url, ask, trust)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {within:?}")),
    }
}

async fn exchange(url: &Url, what: Ask, trust: &Trust) -> Result<Bytes, String> {
    let host = url.host_str().ok_or("the address has no host")?.to_owned();
    let port = url.port_or_known_default().ok_or("the address has no port")?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(|error| error.to_string())?;
    if url.scheme() == "https" {
        return ask(url, what, tls::encrypt(trust, &host, stream).await?).await;
    }
    ask(url, what, stream).await
}

async fn ask<S>(url: &Url, what: Ask, stream: S) -> Result<Bytes, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let driving = tokio::spawn(connection);
    let method = if what.body.is_some() { Method::POST } else { Method::GET };
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, HeaderValue::from_str(authority).map_err(|error| error.to_string())?)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, what.content_type.unwrap_or("application/json"));
    for (name, value) in what.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(what.body.unwrap_or_default())).map_err(|error| error.to_string())?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(words)?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("it answers with {status}"));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
    };
    let answer = answered.await;
    driving.abort();
    answer
}
