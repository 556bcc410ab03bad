//! Documents that nobody has touched for long: they are deleted, as if somebody had, and can be restored for a while.
//!
//! Owns: the walk over all documents, in small steps. Must not: decide; the hub looks whether somebody is at a document.
//! Next: syncline-core's `hub/life.rs`; docs/deletion.md, "Expiry".

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use syncline_core::ChangeHash;
use syncline_core::id::DocumentId;
use syncline_replica::Replica;
use syncline_store::{Store, StoreError};
use tokio::sync::watch;

use crate::api::Tickets;
use crate::server::Shared;

/// Documents that one step looks at.
const STEP: usize = 64;

/// Between two steps, so that whoever works with documents notices nothing of it.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two walks over all documents.
const LOOK: Duration = Duration::from_secs(3600);

/// What walks, and what it counts.
#[derive(Debug)]
pub(crate) struct Expiry<'a> {
    pub(crate) replica: &'a Replica,
    pub(crate) tickets: &'a Tickets,
    pub(crate) expired: &'a Counter,
}

/// Walks for ever, as long as there is a time after which documents expire.
pub(crate) async fn run(shared: Arc<Shared>, expired: Counter, mut untouched: watch::Receiver<Option<Duration>>) {
    loop {
        let span = *untouched.borrow_and_update();
        let walk = async {
            let Some(span) = span else { return std::future::pending().await };
            let expiry = Expiry { replica: &shared.replica, tickets: &shared.api.tickets, expired: &expired };
            if let Err(error) = expiry.walk(span).await {
                tracing::warn!(%error, "documents that nobody touches could not be looked for; it is tried again");
            }
            tokio::time::sleep(LOOK).await;
        };
        tokio::select! {
            () = walk => {}
            changed = untouched.changed() => if changed.is_err() { return },
        }
    }
}

impl Expiry<'_> {
    /// Looks at every document once, and deletes those that have not been touched for so long.
    pub(crate) async fn walk(&self, span: Duration) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let store = self.replica.store().clone();
            let before_ms = now_ms().saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
            let step = move || untouched(&store, after.as_ref(), before_ms);
            let (old, last) = match tokio::task::spawn_blocking(step).await {
                Ok(step) => step?,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
            for (document, heads) in old {
                let gone = self.tickets.wait(|| self.replica.expire(&document, heads)).await;
                match gone {
                    Ok(()) => {
                        self.expired.inc();
                        tracing::info!(%document, "nobody has touched it for {span:?}: it is deleted, and can be restored");
                    }
                    Err(reason) => tracing::debug!(%document, "it is kept: {reason}"),
                }
            }
            let Some(last) = last else { return Ok(()) };
            after = Some(last);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Of the next documents, those that were neither changed nor restored since then; and the last that was looked at, if there
/// may be more.
#[expect(clippy::type_complexity, reason = "a step's result, used in one place")]
fn untouched(
    store: &Store,
    after: Option<&DocumentId>,
    before_ms: u64,
) -> Result<(Vec<(DocumentId, Vec<ChangeHash>)>, Option<DocumentId>), StoreError> {
    let page = store.documents(after, STEP)?;
    let last = page.last().filter(|_| page.len() == STEP).map(|(id, _)| id.clone());
    let mut old = Vec::new();
    for (id, summary) in page {
        if summary.last_stamp.millis() > before_ms {
            continue;
        }
        let life = store.life(&id)?;
        let stays_here = store.policy(&id)?.local_only;
        if !stays_here && life.is_none_or(|life| life.noted_ms <= before_ms) {
            old.push((id, summary.heads));
        }
    }
    Ok((old, last))
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{AutoCommit, ROOT};
    use bytes::Bytes;
    use syncline_core::change::Change;
    use syncline_core::limits::Limits;
    use syncline_replica::Options;

    use super::*;

    fn change() -> Change {
        let mut document = AutoCommit::new();
        document.put(ROOT, "key", 1).expect("a key of the root");
        let change = document.get_changes(&[]).remove(0);
        Change::decode(Bytes::copy_from_slice(change.raw_bytes()), &Limits::default()).expect("automerge's own")
    }

    fn id(number: u8) -> DocumentId {
        DocumentId::from_bytes(&[number; 16]).expect("16 bytes")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_nobody_has_touched_is_deleted_in_steps_and_what_is_open_or_restored_is_not() {
        let store = Store::memory().expect("a store");
        let (replica, news) = Replica::start(store, Options::default());
        let (tickets, expired) = (Arc::new(Tickets::default()), Counter::default());
        let hearing = Arc::clone(&tickets);
        let hears = tokio::spawn(async move { hearing.hear(news, |_| ()).await });
        let expiry = Expiry { replica: &replica, tickets: &tickets, expired: &expired };
        // More than one step has.
        for number in 0..=STEP as u8 {
            tickets.wait(|| replica.change(id(number), vec![change()])).await.expect("saved");
        }
        replica.watch(&id(3));
        expiry.walk(Duration::from_secs(3_600)).await.expect("it can be read");
        assert_eq!(expired.get(), 0, "all were touched lately");
        let deleted =
            |number| replica.store().life(&id(number)).expect("it can be read").is_some_and(|of| of.life.deleted);
        expiry.walk(Duration::ZERO).await.expect("it can be read");
        assert_eq!(expired.get(), STEP as u64, "all but the one that is open");
        assert!(deleted(0) && deleted(STEP as u8) && !deleted(3));
        tickets.wait(|| replica.set_life(&id(0), false)).await.expect("restored");
        expiry.walk(Duration::from_secs(3_600)).await.expect("it can be read");
        assert!(!deleted(0), "a restoration is a touch");
        replica.stop().await;
        drop(replica);
        hears.await.expect("it ends with the replica");
    }
}
