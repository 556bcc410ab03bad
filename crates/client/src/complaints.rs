//! What servers did not take, until they have it.
//!
//! Owns: which complaint stands. Must not: forget one that is not resolved, up to its bound.
//! Next: `server.rs`, `status.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use syncline_core::id::DocumentId;

use crate::DocumentUrl;
use crate::status::Complaint;

/// Complaints kept; a server that complains of more documents is heard of the first.
const COMPLAINTS_MAX: usize = 1_024;

/// The standing complaints: the last of each server about each document.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    standing: BTreeMap<(Arc<str>, Option<DocumentId>), Complaint>,
}

impl Complaints {
    /// A server has said that something was not taken.
    pub(crate) fn add(&mut self, server: &Arc<str>, words: &str, at: SystemTime) {
        let document = document_in(words);
        let key = (Arc::clone(server), document.clone());
        if self.standing.len() >= COMPLAINTS_MAX && !self.standing.contains_key(&key) {
            return;
        }
        if self.standing.get(&key).is_some_and(|standing| *standing.message == *words) {
            // Said again on another try: it stands since the first.
            return;
        }
        let document = document.map(DocumentUrl::from);
        let complaint = Complaint { server: server.to_string(), document, message: Arc::from(words), at };
        self.standing.insert(key, complaint);
    }

    /// A server has everything of a document. Returns whether it had complained.
    pub(crate) fn resolve(&mut self, server: &Arc<str>, document: &DocumentId) -> bool {
        self.standing.remove(&(Arc::clone(server), Some(document.clone()))).is_some()
    }

    /// Lets go of what is said of one document.
    pub(crate) fn forget(&mut self, document: &DocumentId) {
        self.standing.retain(|(_, about), _| about.as_ref() != Some(document));
    }

    /// What is said of one document.
    pub(crate) fn about(&self, document: &DocumentId) -> Vec<Complaint> {
        let about = |complaint: &&Complaint| complaint.document.as_ref().is_some_and(|url| url.id() == document);
        self.standing.values().filter(about).cloned().collect()
    }

    /// All that stand.
    pub(crate) fn all(&self) -> Vec<Complaint> {
        self.standing.values().cloned().collect()
    }
}

/// The document that words are about. An id has a checksum: no other word is taken for one.
fn document_in(words: &str) -> Option<DocumentId> {
    let tokens = words.split(|c: char| !c.is_ascii_alphanumeric());
    // A short word may have a checksum by chance.
    tokens.filter(|token| token.len() >= 16).find_map(|token| token.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4NMNnkMhL8jXrdJ9jamS58PAVdXu";

    fn complaints(words: &[&str]) -> Complaints {
        let mut complaints = Complaints::default();
        let server: Arc<str> = Arc::from("ws://a");
        words.iter().for_each(|words| complaints.add(&server, words, SystemTime::UNIX_EPOCH));
        complaints
    }

    #[test]
    fn a_complaint_stands_until_the_server_has_the_document() {
        let document: DocumentId = ID.parse().expect("an id");
        let words = [&*format!("document {ID}: too large"), "slow down", &*format!("automerge:{ID}: still too large")];
        let mut complaints = complaints(&words);
        let about = complaints.about(&document);
        assert!(matches!(&about[..], [only] if only.message.contains("still")), "{about:?}");
        assert!(!complaints.resolve(&Arc::from("ws://b"), &document));
        assert_eq!(complaints.all().len(), 2);
        assert!(complaints.resolve(&Arc::from("ws://a"), &document));
        assert!(complaints.about(&document).is_empty());
        assert_eq!(complaints.all().len(), 1, "what is about no document has no end");
    }

    #[test]
    fn complaints_are_bounded() {
        let id = |n: u64| DocumentId::from_random(u128::from(n).to_be_bytes()).to_string();
        let words: Vec<_> = (0..2 * COMPLAINTS_MAX as u64).map(|n| format!("document {}: no", id(n))).collect();
        let complaints = complaints(&words.iter().map(|words| &**words).collect::<Vec<_>>());
        assert_eq!(complaints.all().len(), COMPLAINTS_MAX);
    }
}
