//! One HTTP request to somebody else's server, within a time and a size.
//!
//! Owns: the connection, encrypted where the address says so, and its bounds. Must not: follow redirects, or keep anything.
//! Next: `keyring.rs`, `callback.rs`.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use syncline_replica::{Trust, tls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Url;

/// Largest answer, bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Asks once: with a body it is a POST of JSON, without one a GET.
///
/// # Errors
/// Why there is no answer, in words that name no secret.
pub(super) async fn fetch(url: &Url, body: Option<Vec<u8>>, trust: &Trust, within: Duration) -> Result<Bytes, String> {
    match tokio::time::timeout(within, exchange(url, body, trust)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {within:?}")),
    }
}

async fn exchange(url: &Url, body: Option<Vec<u8>>, trust: &Trust) -> Result<Bytes, String> {
    let host = url.host_str().ok_or("the address has no host")?.to_owned();
    let port = url.port_or_known_default().ok_or("the address has no port")?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(|error| error.to_string())?;
    if url.scheme() == "https" {
        return ask(url, body, tls::encrypt(trust, &host, stream).await?).await;
    }
    ask(url, body, stream).await
}

async fn ask<S>(url: &Url, body: Option<Vec<u8>>, stream: S) -> Result<Bytes, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let driving = tokio::spawn(connection);
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, HeaderValue::from_str(authority).map_err(|error| error.to_string())?)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|error| error.to_string())?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(words)?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(format!("it answers with {status}"));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
    };
    let answer = answered.await;
    driving.abort();
    answer
}
