//! Those who decide elsewhere: they are asked over HTTP, and what they said counts for a while.
//!
//! Owns: the questions, the answers' time, what counts when there is none. Must not: ask about what a token says.
//! Next: `gate.rs`, `fetch.rs`; docs/access.md, "Deciding elsewhere".

use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use serde::Deserialize;
use serde_json::json;
use syncline_core::access::{Access, Denial, Permissions, Token};
use syncline_core::id::DocumentId;
use syncline_replica::Trust;
use tokio::sync::Semaphore;
use url::Url;

use super::keyring::origin;
use super::token::{self, GrantClaim};
use crate::fetch::{Ask, fetch};

/// Questions under way at one time; further ones wait.
const QUESTIONS_MAX: usize = 64;

/// Answers that are remembered.
const ANSWERS_MAX: usize = 100_000;

/// How long what was last said counts while nobody answers.
const STALE: Duration = Duration::from_secs(300);

/// How somebody else is asked.
#[derive(Debug, Clone)]
pub struct CallbackConfig {
    /// Where.
    pub url: Url,
    /// Longest that an answer may take.
    pub timeout: Duration,
    /// How long an answer counts.
    pub keep: Duration,
    /// What counts when nobody answers, and has not lately.
    pub otherwise: Permissions,
}

/// Somebody else who decides.
#[derive(Debug)]
pub(super) struct Callback {
    config: CallbackConfig,
    trust: Trust,
    asking: Semaphore,
    answers: Cache<Asked, (Permissions, Instant)>,
}

/// About whom and which document; `None` is all of them.
type Asked = (Option<Arc<str>>, Option<DocumentId>);

#[derive(Debug, Deserialize)]
struct Admitted {
    subject: Option<String>,
    /// Seconds since the Unix epoch.
    until: Option<u64>,
    #[serde(default)]
    grants: Vec<GrantClaim>,
}

#[derive(Debug, Deserialize)]
struct Decided {
    may: Vec<String>,
}

impl Callback {
    pub(super) fn new(config: CallbackConfig, trust: Trust) -> Self {
        Self { config, trust, asking: Semaphore::new(QUESTIONS_MAX), answers: Cache::new(ANSWERS_MAX) }
    }

    /// Who the bearer of a token is, for whom tokens mean something elsewhere only.
    ///
    /// # Errors
    /// When the answer is no, or there is none.
    pub(super) async fn authenticate(&self, token: &Token) -> Result<Access, Denial> {
        let question = json!({ "token": token.reveal() });
        let answer: Option<Admitted> = self.ask(&question).await.map_err(|_| Denial::Undecided)?;
        let Some(Admitted { subject, until, grants }) = answer else { return Err(Denial::TokenSignature) };
        let mut access = Access::of(token::grants_of(&grants)?).asking();
        access.until_ms = until.map(|seconds| seconds.saturating_mul(1000));
        access.subject = subject.as_deref().map(Arc::from);
        Ok(access)
    }

    /// What somebody may do with a document, or with every document.
    pub(super) async fn decide(&self, access: &Access, document: Option<&DocumentId>) -> Permissions {
        let key = (access.subject.clone(), document.cloned());
        let known = self.answers.get(&key);
        if let Some((may, at)) = known
            && at.elapsed() < self.config.keep
        {
            return may;
        }
        let question = json!({ "subject": access.subject.as_deref(), "document": document.map(DocumentId::to_string) });
        let answer = self.ask::<Decided>(&question).await;
        let may = answer.and_then(|answer| {
            let names = answer.map(|answer| answer.may).unwrap_or_default();
            token::permissions_of(&names).map_err(|denial| denial.to_string())
        });
        match (may, known) {
            (Ok(may), _) => {
                self.answers.insert(key, (may, Instant::now()));
                may
            }
            (Err(_), Some((may, at))) if at.elapsed() < self.config.keep + STALE => may,
            (Err(_), _) => self.config.otherwise,
        }
    }

    /// Asks; `None` where the answer is `null`.
    async fn ask<T: for<'a> Deserialize<'a>>(&self, question: &serde_json::Value) -> Result<Option<T>, String> {
        let _place = self.asking.acquire().await.map_err(|error| error.to_string())?;
        let body = question.to_string().into_bytes();
        let asked = fetch(
            &self.config.url,
            Ask { body: Some(body.into()), ..Ask::default() },
            &self.trust,
            self.config.timeout,
        )
        .await;
        let answer = asked.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
        if let Err(reason) = &answer {
            tracing::error!("{} does not decide who may do what: {reason}", origin(&self.config.url));
        }
        answer
    }
}
