//! Waiting until what was handed to the replica is durable.
//!
//! Owns: who waits for which ticket. Must not: miss news that come before anybody waits.
//! Next: `content.rs`, `documents.rs`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use syncline_core::hub::Event;
use syncline_replica::News;
use tokio::sync::{mpsc, oneshot};

use super::error::ApiError;

type Outcome = Result<(), ApiError>;

/// Those who wait, by ticket.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
}

impl Tickets {
    /// Hands something over, which gives a ticket, and waits until that is durable.
    pub(crate) async fn wait(&self, hand_over: impl FnOnce() -> u64) -> Result<(), ApiError> {
        let (sender, receiver) = oneshot::channel();
        {
            // Nobody hears the news before this is let go.
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.insert(hand_over(), sender);
        }
        match receiver.await {
            Ok(outcome) => outcome,
            Err(_) => Err(ApiError::Busy),
        }
    }

    /// Hears the replica's news until it ends; what is nobody's ticket goes to `other`.
    pub(crate) async fn hear(&self, mut news: mpsc::UnboundedReceiver<News>, other: impl Fn(&News)) {
        while let Some(news) = news.recv().await {
            let News::Document(event) = news else {
                other(&news);
                continue;
            };
            #[expect(clippy::wildcard_enum_match_arm, reason = "other events answer nobody's ticket")]
            match event {
                Event::Saved { ticket, .. } | Event::LifeChanged { ticket: Some(ticket), .. } => {
                    self.tell(ticket, Ok(()))
                }
                Event::NotSaved { ticket, message, rule: Some(rule), .. } => {
                    self.tell(ticket, Err(ApiError::NotTaken(rule, message)));
                }
                Event::NotSaved { ticket, message, .. } | Event::LifeFailed { ticket, message, .. } => {
                    self.tell(ticket, Err(ApiError::Failed(message)));
                }
                _ => {}
            }
        }
        // Whoever still waits learns that nothing will come.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn tell(&self, ticket: u64, outcome: Outcome) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&ticket);
        if let Some(waiting) = waiting {
            // It may have gone away.
            let _ = waiting.send(outcome);
        }
    }
}
