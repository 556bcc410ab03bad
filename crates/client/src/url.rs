//! The text by which documents are passed on.
//!
//! Owns: `automerge:` URLs of whole documents, with or without heads. Must not: know places inside a document.
//! Next: `repo.rs`, `history.rs`.

use std::fmt;
use std::str::FromStr;

use automerge::ChangeHash;
use syncline_core::id::{DocumentId, IdError, decode_base58_hash, encode_base58_check};

use crate::Error;

const SCHEME: &str = "automerge:";

/// Heads that one URL may name: a document with more is not one that people pass on.
const HEADS_MAX: usize = 1_024;

/// A document's address, `automerge:` and its id: the same that JavaScript's automerge-repo uses.
///
/// With heads after `#` it names the document as it was at these. [`Repo::find`](crate::Repo::find) opens the document
/// itself; [`Document::read_at`](crate::Document::read_at) reads it at [`DocumentUrl::heads`].
///
/// ```
/// let url: syncline::DocumentUrl = "automerge:11111111111111114Ki9Gx".parse()?;
/// assert_eq!(url.to_string(), "automerge:11111111111111114Ki9Gx");
/// assert!(url.heads().is_none());
/// # Ok::<(), syncline::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentUrl {
    id: DocumentId,
    heads: Option<Vec<ChangeHash>>,
}

impl DocumentUrl {
    /// The document's id.
    #[must_use]
    pub fn id(&self) -> &DocumentId {
        &self.id
    }

    /// The heads that the address names, if it names any.
    #[must_use]
    pub fn heads(&self) -> Option<&[ChangeHash]> {
        self.heads.as_deref()
    }

    /// The address of the same document at these heads.
    #[must_use]
    pub fn at(&self, heads: &[ChangeHash]) -> Self {
        let mut heads = heads.to_vec();
        heads.sort_unstable();
        Self { id: self.id.clone(), heads: Some(heads) }
    }
}

impl From<DocumentId> for DocumentUrl {
    fn from(id: DocumentId) -> Self {
        Self { id, heads: None }
    }
}

impl FromStr for DocumentUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason: String| Error::Url { text: text.to_owned(), reason };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| bad(format!("it does not begin with {SCHEME:?}")))?;
        let (id, heads) = match rest.split_once('#') {
            Some((id, heads)) => (id, Some(heads)),
            None => (rest, None),
        };
        if id.contains('/') {
            return Err(bad("it names a place inside a document, not a whole one".to_owned()));
        }
        let id = id.parse().map_err(|error: IdError| bad(error.to_string()))?;
        let heads = heads.map(decode_heads).transpose().map_err(bad)?;
        Ok(Self { id, heads })
    }
}

impl fmt::Display for DocumentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.id)?;
        for (n, head) in self.heads.iter().flatten().enumerate() {
            write!(f, "{}{}", if n == 0 { "#" } else { "|" }, encode_base58_check(&head.0))?;
        }
        // An empty list is a document before its first change.
        if self.heads.as_ref().is_some_and(Vec::is_empty) { f.write_str("#") } else { Ok(()) }
    }
}

fn decode_heads(text: &str) -> Result<Vec<ChangeHash>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if text.split('|').nth(HEADS_MAX).is_some() {
        return Err(format!("it names more than {HEADS_MAX} heads"));
    }
    let head = |text: &str| decode_base58_hash(text).map_err(|error| format!("{text:?} is not a head: {error}"));
    let mut heads = text.split('|').map(head).collect::<Result<Vec<_>, _>>()?;
    heads.sort_unstable();
    heads.dedup();
    Ok(heads)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "automerge:11111111111111114Ki9Gx";

    #[test]
    fn what_is_no_address_says_why() {
        let reason = |text: &str| text.parse::<DocumentUrl>().expect_err("no address").to_string();
        assert!(reason("11111111111111114Ki9Gx").contains("does not begin with"));
        assert!(reason("automerge:11111111111111114Ki9Gy").contains("checksum"));
        assert!(reason(&format!("{ID}#abc")).contains("\"abc\" is not a head"));
        assert!(reason(&format!("{ID}#{ID}")).contains("is not a head"));
        assert!(reason(&format!("{ID}/items/0")).contains("a place inside"));
        assert!(reason(&format!("{ID}#{}", "a|".repeat(2_000))).contains("more than"));
    }

    #[test]
    fn heads_come_back_sorted_and_once() {
        let url: DocumentUrl = ID.parse().expect("an address");
        let (low, high) = (ChangeHash([0; 32]), ChangeHash([255; 32]));
        let text = url.at(&[high, low]).to_string();
        let again: DocumentUrl = format!("{text}|{}", encode_base58_check(&high.0)).parse().expect("an address");
        assert_eq!(again.heads(), Some(&[low, high][..]));
        assert_eq!(again.to_string(), text);
        let none = url.at(&[]);
        assert_eq!((none.to_string(), none.to_string().parse().ok()), (format!("{ID}#"), Some(none)));
    }
}
