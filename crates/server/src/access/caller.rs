//! Who sends an HTTP request, and what they may do: the seam that every route goes through.
//!
//! Owns: where a token may stand in a request, the answers to those who may not. Must not: verify a token; the gate does.
//! Next: `gate.rs`, `../routes.rs`; docs/access.md, "Presenting a token".
//!
//! A route takes a [`Caller`] and asks it:
//!
//! ```text
//! async fn content(State(shared): State<Arc<Shared>>, caller: Caller, Path(id): Path<String>) -> Response {
//!     let document = ...;
//!     if let Err(refusal) = caller.needs(&shared, &document, Permissions::READ).await { return refusal; }
//! ```

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use syncline_core::access::{Access, Denial, Permissions, Token, Verdict};
use syncline_core::id::DocumentId;

use crate::server::Shared;

/// What precedes a token among the subprotocols of a websocket.
const SUBPROTOCOL_PREFIX: &str = "syncline.token.";

/// The subprotocol that is chosen when a token came as another one.
pub(crate) const SUBPROTOCOL: &str = "syncline";

/// Whoever sends a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// What they may do.
    pub(crate) access: Access,
}

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Refusal> {
        let token = presented(parts);
        match shared.replica.authority().authenticate(token.as_ref()).await {
            Ok(access) => Ok(Self { access }),
            // Who presents nothing may ask, and is refused what strangers may not have.
            Err(Denial::TokenMissing) => Ok(Self { access: Access::none() }),
            Err(denial) => Err(unauthorized(shared, denial)),
        }
    }
}

impl Caller {
    /// What they may do with a document.
    pub(crate) async fn may(&self, shared: &Shared, document: &DocumentId) -> Permissions {
        match self.access.verdict(document) {
            Verdict::Known(may) => may,
            Verdict::Ask => shared.replica.authority().decide(&self.access, document).await,
        }
    }

    /// Refuses those who may not do this with a document. One that they may not read is answered as one that is not there.
    pub(crate) async fn needs(
        &self,
        shared: &Shared,
        document: &DocumentId,
        wanted: Permissions,
    ) -> Result<(), Refusal> {
        let may = self.may(shared, document).await;
        if may.include(wanted) {
            return Ok(());
        }
        if may.include(Permissions::READ) {
            return Err(self.forbidden(shared, wanted));
        }
        shared.replica.metrics().refuse("http_not_permitted");
        Err(Refusal::new((StatusCode::NOT_FOUND, "there is no such document, or it may not be read\n")))
    }

    /// Refuses those who may do this with no document at all: for what belongs to no document.
    pub(crate) fn needs_somewhere(&self, shared: &Shared, wanted: Permissions) -> Result<(), Refusal> {
        if self.access.somewhere().include(wanted) { Ok(()) } else { Err(self.forbidden(shared, wanted)) }
    }

    /// Refuses those who may not do this with every document: for what shows all of them.
    pub(crate) async fn needs_everywhere(&self, shared: &Shared, wanted: Permissions) -> Result<(), Refusal> {
        let permitted = self.access.everywhere().include(wanted);
        if permitted || shared.gate.everywhere(&self.access).await.include(wanted) {
            return Ok(());
        }
        Err(self.forbidden(shared, wanted))
    }

    fn forbidden(&self, shared: &Shared, wanted: Permissions) -> Refusal {
        if self.access == Access::none() {
            return unauthorized(shared, Denial::TokenMissing);
        }
        if shared.replica.metrics().refuse_aloud("http_not_permitted") {
            tracing::warn!(subject = self.access.subject.as_deref(), kind = "http_not_permitted", "refused: a request");
        }
        let needed = wanted.names().last().unwrap_or("nothing");
        Refusal::new((StatusCode::FORBIDDEN, format!("the token does not permit this: it needs \"{needed}\"\n")))
    }
}

/// The answer to a request that is refused.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Response>);

impl Refusal {
    pub(crate) fn new(answer: impl IntoResponse) -> Self {
        Self(Box::new(answer.into_response()))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// Counts and answers a request whose token is not good, or missing.
pub(crate) fn unauthorized(shared: &Shared, denial: Denial) -> Refusal {
    if shared.replica.metrics().refuse_aloud(denial.kind()) {
        tracing::warn!(kind = denial.kind(), "refused: a request: {denial}");
    }
    let schemes = [
        (header::WWW_AUTHENTICATE, "Bearer"),
        (header::WWW_AUTHENTICATE, "Basic realm=\"Syncline: the token is the password\""),
    ];
    let answer = axum::response::AppendHeaders(schemes);
    Refusal::new((StatusCode::UNAUTHORIZED, answer, format!("{denial}\n")))
}

/// The token of a request, from wherever it may stand.
pub(crate) fn presented(parts: &Parts) -> Option<Token> {
    let upgrades = parts.headers.contains_key(header::UPGRADE);
    // What a browser sends by itself, on any page's behalf, counts for looking only.
    let looks = !upgrades && (parts.method == Method::GET || parts.method == Method::HEAD);
    bearer(&parts.headers)
        .or_else(|| subprotocol(&parts.headers).filter(|_| upgrades))
        .or_else(|| query(parts.uri.query().unwrap_or_default()))
        .or_else(|| basic(&parts.headers).filter(|_| looks))
}

fn bearer(headers: &HeaderMap) -> Option<Token> {
    scheme(headers, "bearer").map(Token::new)
}

fn basic(headers: &HeaderMap) -> Option<Token> {
    let decoded = STANDARD.decode(scheme(headers, "basic")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(_, password)| Token::new(password))
}

fn scheme<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case(name).then(|| value.trim())
}

fn subprotocol(headers: &HeaderMap) -> Option<Token> {
    subprotocols(headers).find_map(|name| name.strip_prefix(SUBPROTOCOL_PREFIX)).map(Token::new)
}

/// The subprotocols that a websocket offers.
pub(crate) fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

fn query(query: &str) -> Option<Token> {
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.into_iter().find(|(name, _)| name == "access_token").map(|(_, value)| Token::new(&value))
}
