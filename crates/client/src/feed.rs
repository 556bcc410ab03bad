//! What changed in the whole repo since a position, and from there on.
//!
//! Owns: positions. Must not: open documents, or know how a feed catches up: the replica does.
//! Next: `watch.rs` for one document; docs/client.md, "The feed of a repo".

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use syncline_core::clock::Stamp;
use syncline_replica::Follower;

use crate::repo::{Background, Repo};
use crate::{DocumentUrl, Error};

/// A place in the order in which this repo made changes durable. It outlives the process: keep its text, and go on from
/// there.
///
/// ```
/// use syncline::Position;
/// let position: Position = Position::START.to_string().parse()?;
/// assert_eq!(position, Position::START);
/// # Ok::<(), std::num::ParseIntError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(Stamp);

impl Position {
    /// Before everything.
    pub const START: Self = Self(Stamp::ZERO);
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_u64().fmt(f)
    }
}

impl FromStr for Position {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|packed| Self(Stamp::from_u64(packed)))
    }
}

/// Documents in the order in which they were last changed, deleted or restored, here or elsewhere, once that is durable
/// here. Of one that is deleted, [`Repo::find_local`] says so.
///
/// A document that changes several times before it is told of comes once, at its latest place. A feed that nobody reads
/// takes a bounded amount of memory and misses nothing.
#[derive(Debug)]
pub struct Feed {
    follower: Follower,
    background: Arc<Background>,
}

impl Repo {
    /// Follows the whole repo: every document that was changed, deleted or restored after this position, and from there on.
    ///
    /// ```
    /// # use syncline::automerge::{ROOT, transaction::Transactable};
    /// use syncline::{Position, Repo, block_on};
    /// let repo = Repo::memory()?;
    /// let list = repo.create(|tx| tx.put(ROOT, "title", "Groceries"))?;
    /// let mut feed = repo.changes_since(Position::START)?;
    /// assert_eq!(block_on(feed.next())?, list.url());
    /// let kept = feed.position().to_string(); // survives a restart
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn changes_since(&self, position: Position) -> Result<Feed, Error> {
        let background = Arc::clone(&self.background);
        background.engine.check_open()?;
        let follower = background.engine.feeds.follow(position.0);
        Ok(Feed { follower, background })
    }
}

impl Feed {
    /// The next document that has changed, or was deleted or restored; waits for one.
    ///
    /// # Errors
    /// [`Error::Closed`] when the repo is closed, [`Error::Store`] when it cannot be read.
    pub async fn next(&mut self) -> Result<DocumentUrl, Error> {
        let engine = &self.background.engine;
        let next = self.follower.next(&engine.replica, &engine.runtime, || engine.has_stopped());
        match next.await? {
            Some((document, _)) => Ok(DocumentUrl::from(document)),
            None => Err(Error::Closed),
        }
    }

    /// Where the feed is: [`Repo::changes_since`] goes on from here, in a later run too.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.follower.position())
    }
}
