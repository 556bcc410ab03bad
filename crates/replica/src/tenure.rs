//! How long a connection may do what it may: the accepting side looks whether it still may, the dialling side renews its
//! token before it no longer does.
//!
//! Owns: when that is due. Must not: decide what follows; the session does.
//! Next: `connection.rs`, `authority.rs`; docs/access.md, "While a connection lasts".

use std::sync::Arc;
use std::time::Duration;

use syncline_core::access::Token;
use syncline_core::hub::{Input, Outgoing};
use syncline_core::id::SessionId;
use syncline_core::native::NativeMessage;
use tokio::time::Instant;

use crate::dial::Credentials;
use crate::outbox::{Outbox, Queued};
use crate::replica::Inner;

/// Between two looks at what was decided elsewhere.
const RECONSIDER: Duration = Duration::from_secs(30);

/// Between two tries to have a token that failed.
const RETRY: Duration = Duration::from_secs(30);

/// When something about a connection's permissions is due.
#[derive(Debug)]
pub(crate) struct Tenure {
    /// What a server that was dialled is shown.
    credentials: Option<Credentials>,
    renew_at: Option<Instant>,
    reconsider_at: Instant,
}

impl Tenure {
    pub(crate) fn new(credentials: Option<Credentials>) -> Self {
        Self { credentials, renew_at: None, reconsider_at: Instant::now() + RECONSIDER }
    }

    /// The server permits what it does for so long: a new token is shown after three quarters of that.
    pub(crate) fn lasts(&mut self, left: Option<Duration>) {
        self.renew_at = left.filter(|_| self.credentials.is_some()).map(|left| Instant::now() + left * 3 / 4);
    }

    /// When to look again at the latest.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.renew_at
    }

    /// Has decisions asked for again that were made elsewhere.
    pub(crate) fn reconsider(&mut self, replica: &Inner, session: SessionId) {
        let now = Instant::now();
        if now >= self.reconsider_at {
            self.reconsider_at = now + RECONSIDER;
            replica.shards().iter().for_each(|shard| shard.send(Input::Reconsider { session }));
        }
    }

    /// Shows the server a new token, if it is time to. Whoever makes it may take a while, and is not waited for.
    pub(crate) fn renew(&mut self, outbox: &Arc<Outbox>) {
        let now = Instant::now();
        let Some(credentials) = self.credentials.clone().filter(|_| self.renew_at.is_some_and(|at| at <= now)) else {
            return;
        };
        // The server's answer says when the next is due.
        self.renew_at = Some(now + RETRY);
        let outbox = Arc::clone(outbox);
        tokio::spawn(async move {
            match credentials.token().await {
                Ok(token) => {
                    let message = NativeMessage::Token(Token::new(&token));
                    outbox.push(Queued::Message(Outgoing::Native(message), None));
                }
                Err(reason) => tracing::warn!("the token for a server cannot be renewed: {reason}"),
            }
        });
    }
}
