//! The seam to whoever decides who may do what.
//!
//! Owns: the questions that connections ask. Must not: know tokens' insides, or keep an answer; who answers does.
//! Next: `connection.rs`, syncline-core's `access.rs`; docs/access.md.

use std::fmt;
use std::pin::Pin;

use syncline_core::access::{Access, Denial, Permissions, Token};
use syncline_core::hub::Now;
use syncline_core::id::DocumentId;

/// An answer that may take a while.
pub type Decision<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Decides who may do what. Its answers take a bounded time.
pub trait Authority: fmt::Debug + Send + Sync {
    /// What a token permits, or the lack of one.
    fn authenticate<'a>(&'a self, token: Option<&'a Token>) -> Decision<'a, Result<Access, Denial>>;

    /// What an access that [asks](Access::asks) permits with a document.
    fn decide<'a>(&'a self, access: &'a Access, document: &'a DocumentId) -> Decision<'a, Permissions>;

    /// Whether an access still holds: its time is not over, its key not withdrawn.
    ///
    /// # Errors
    /// Why it does not.
    fn still_holds(&self, access: &Access, now: Now) -> Result<(), Denial>;

    /// What whoever presents nothing may do; `None` if nothing.
    fn strangers(&self) -> Option<Access>;
}

/// Everybody may do everything: a client's own replica, and a server without rules.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open;

impl Authority for Open {
    fn authenticate<'a>(&'a self, _: Option<&'a Token>) -> Decision<'a, Result<Access, Denial>> {
        Box::pin(std::future::ready(Ok(Access::full())))
    }

    fn decide<'a>(&'a self, _: &'a Access, _: &'a DocumentId) -> Decision<'a, Permissions> {
        Box::pin(std::future::ready(Permissions::ADMIN))
    }

    fn still_holds(&self, _: &Access, _: Now) -> Result<(), Denial> {
        Ok(())
    }

    fn strangers(&self) -> Option<Access> {
        Some(Access::full())
    }
}
