//! How many connections each subject has.
//!
//! Owns: that count. Must not: know what a subject may do.
//! Next: `connection.rs`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use syncline_core::access::Denial;
use syncline_core::hub::{PeerInfo, Role};

type Counts = Arc<Mutex<HashMap<Arc<str>, usize>>>;

/// The connections of all subjects.
#[derive(Debug, Default)]
pub(crate) struct Subjects(Counts);

/// One connection, while it lasts.
#[derive(Debug)]
pub(crate) struct Place(Option<(Counts, Arc<str>)>);

impl Subjects {
    /// Counts a connection. One that names no subject, or that we dialled, is not counted.
    pub(crate) fn enter(&self, peer: &PeerInfo, connections_max: usize) -> Result<Place, Denial> {
        let Some(subject) = peer.access.subject.clone().filter(|_| peer.role == Role::Downstream) else {
            return Ok(Place(None));
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(Arc::clone(&subject)).or_default();
        if *count >= connections_max {
            return Err(Denial::SubjectConnections);
        }
        *count += 1;
        drop(counts);
        Ok(Place(Some((Arc::clone(&self.0), subject))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((counts, subject)) = self.0.take() else { return };
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&subject) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&subject);
            }
        }
    }
}
