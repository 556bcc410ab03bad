//! The text by which documents are passed on.
//!
//! Owns: `automerge:` URLs of whole documents. Must not: know paths or heads inside a document.
//! Next: `repo.rs`.

use std::fmt;
use std::str::FromStr;

use syncline_core::id::DocumentId;

use crate::Error;

const SCHEME: &str = "automerge:";

/// A document's address, `automerge:` and its id: the same that JavaScript's automerge-repo uses.
///
/// ```
/// let url: syncline::DocumentUrl = "automerge:11111111111111114Ki9Gx".parse()?;
/// assert_eq!(url.to_string(), "automerge:11111111111111114Ki9Gx");
/// # Ok::<(), syncline::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentUrl(DocumentId);

impl DocumentUrl {
    /// The document's id.
    #[must_use]
    pub fn id(&self) -> &DocumentId {
        &self.0
    }
}

impl From<DocumentId> for DocumentUrl {
    fn from(id: DocumentId) -> Self {
        Self(id)
    }
}

impl FromStr for DocumentUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason: String| Error::Url { text: text.to_owned(), reason };
        let id = text.strip_prefix(SCHEME).ok_or_else(|| bad(format!("it does not begin with {SCHEME:?}")))?;
        if id.contains(['#', '/']) {
            return Err(bad("it names heads or a place inside a document, not a whole one".to_owned()));
        }
        id.parse().map(Self).map_err(|error: syncline_core::id::IdError| bad(error.to_string()))
    }
}

impl fmt::Display for DocumentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_says_why() {
        let reason = |text: &str| text.parse::<DocumentUrl>().expect_err("no address").to_string();
        assert!(reason("11111111111111114Ki9Gx").contains("does not begin with"));
        assert!(reason("automerge:11111111111111114Ki9Gy").contains("checksum"));
        assert!(reason("automerge:11111111111111114Ki9Gx#abc").contains("heads"));
    }
}
