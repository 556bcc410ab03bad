//! One document in memory: automerge's side of it, and what is known of where its changes are.
//!
//! Owns: the automerge document, the changes on their way in and out, what servers announced.
//! Must not: wait for an application's closure while it holds `state`. Next: `journal.rs`, `engine.rs`.
//!
//! Two locks, always taken in this order: `document`, which an application's closure holds as long as it runs, and
//! `state`, held for moments only. What comes from elsewhere waits in the inbox until the document is free.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{ActorId, Automerge, AutomergeError, ChangeHash, LoadOptions, PatchLog, ReadDoc};
use bytes::Bytes;
use syncline_core::change::Change;
use syncline_core::id::{DocumentId, PeerId, SessionId, StorageId};
use syncline_core::storage::Payload;
use syncline_store::Policy;
use tokio::sync::{broadcast, watch};

use crate::Error;
use crate::branch::checked;
use crate::document::ChangeOptions;
use crate::engine::Engine;
use crate::journal::Journal;
use crate::server::Session;
use crate::status::{OnOneServer, OnServer, Saved, Status};
use crate::steps::{Origin, Step, Steps};
use crate::undo::{Purpose, Undo};
use inbox::Inbox;

mod inbox;

/// Messages that are not stored which wait for a slow listener; it misses the oldest beyond them.
const EPHEMERALS_MAX: usize = 256;

/// A document that is open.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: DocumentId,
    document: RwLock<Automerge>,
    state: Mutex<State>,
    /// Taken while `document` is held, or alone.
    undo: Mutex<Undo>,
    /// How many watch it.
    watchers: AtomicUsize,
    /// What peers say that is not stored, once somebody listens.
    ephemerals: OnceLock<broadcast::Sender<(PeerId, Bytes)>>,
    /// What the document was last seen to be.
    pub(crate) latest: watch::Sender<Latest>,
    /// Ticks when something is known anew of where changes are.
    pub(crate) progress: watch::Sender<u64>,
}

/// What watchers hear of.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    pub(crate) heads: Vec<ChangeHash>,
    pub(crate) steps: Steps,
    /// The repo is closed: nothing will change any more.
    pub(crate) ended: bool,
}

#[derive(Debug, Default)]
struct State {
    journal: Journal,
    inbox: Inbox,
    /// Comes back once everything after it is told: what the store got before is then read from there.
    opening: Option<u64>,
    /// By server address.
    announced: BTreeMap<Arc<str>, Announcement>,
    deleted: bool,
    policy: Policy,
    /// Heads that some server had announced before this process knew it, or none.
    seen: Vec<ChangeHash>,
    /// Connections whose server does not have the document.
    denied: BTreeSet<SessionId>,
    broken: Option<Arc<str>>,
}

/// What a server said last.
#[derive(Debug, Clone)]
struct Announcement {
    session: SessionId,
    /// The lasting name of the server's store, if it has one.
    storage: Option<StorageId>,
    heads: Vec<ChangeHash>,
    heard: SystemTime,
}

/// What a find waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    Here,
    Deleted,
    Expected,
    Denied,
}

impl Live {
    /// Reads a document from the store, or begins one that the store does not have. Blocks on the disk.
    pub(crate) fn load(engine: &Engine, id: &DocumentId) -> Result<Self, Error> {
        let deleted = engine.replica.store().life(id)?.is_some_and(|entry| entry.life.deleted);
        let mut document = load(engine, id)?;
        engine.sign(id, &mut document);
        let policy = engine.replica.store().policy(id)?;
        let mut seen = document.get_heads();
        seen.sort_unstable();
        if !engine.replica.store().is_in_step(id, &seen)? {
            seen.clear();
        }
        let latest = Latest { heads: document.get_heads(), ..Latest::default() };
        Ok(Self {
            id: id.clone(),
            document: RwLock::new(document),
            state: Mutex::new(State { deleted, policy, seen, ..State::default() }),
            undo: Mutex::default(),
            watchers: AtomicUsize::new(0),
            ephemerals: OnceLock::new(),
            latest: watch::Sender::new(latest),
            progress: watch::Sender::new(0),
        })
    }

    /// Asks for news from here on. What was stored between [`Live::load`] and this is found by the barrier's answer.
    pub(crate) fn listen(&self, engine: &Engine) {
        let mut state = self.state();
        engine.replica.watch(&self.id);
        state.opening = Some(engine.replica.change(self.id.clone(), Vec::new()));
    }

    /// Asks the servers anew.
    pub(crate) fn ask_again(&self, engine: &Engine) {
        self.state().denied.clear();
        engine.replica.watch(&self.id);
    }

    pub(crate) fn read<R>(&self, read: impl FnOnce(&Automerge) -> R) -> Result<R, Error> {
        let document = self.document();
        self.check_not_broken()?;
        Ok(read(&document))
    }

    /// Runs one transaction and hands its change over. The plan sees the document as it is under the transaction.
    pub(crate) fn change<T, E, F>(
        &self,
        engine: &Engine,
        options: ChangeOptions,
        purpose: Purpose,
        plan: impl FnOnce(&Automerge) -> Result<F, Error>,
    ) -> Result<T, Error>
    where
        E: Into<Error>,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    {
        let mut document = self.document_mut();
        self.check_not_broken()?;
        engine.check_open()?;
        if self.is_deleted() {
            return Err(Error::Deleted { document: self.id.clone() });
        }
        let change = plan(&document)?;
        let begins = document.get_heads().is_empty();
        let watched = self.is_watched();
        let transaction = document.transaction_log_patches(patch_log(watched));
        let mut transaction = transaction.map_err(AutomergeError::from)?;
        let result = change(&mut transaction).map_err(Into::into)?;
        let operations = transaction.pending_ops() as u64;
        let operations_max = engine.replica.limits().change_operations_max;
        if operations > operations_max {
            return Err(Error::TooManyOperations { operations, operations_max });
        }
        let commit = || {
            let commit = CommitOptions::default().with_time(engine.change_time());
            options.message.iter().fold(commit, |commit, message| commit.with_message(message.clone()))
        };
        let (hash, patches) = transaction.commit_with(commit());
        if hash.is_none() && options.even_if_empty {
            document.empty_commit(commit());
        } else if hash.is_none() {
            self.undo().note(purpose, None, options.group);
            return Ok(result);
        }
        self.hand_over(engine, &mut document)?;
        // A document's beginning is no step: without it there is no document.
        self.undo().note(purpose, hash.filter(|_| !begins), options.group);
        self.show(&document, BTreeSet::from([Origin::Local]), watched.then_some(patches));
        Ok(result)
    }

    /// Applies changes that were made elsewhere and came by hand, and hands them over. They are checked first, so that the
    /// document is as it was when one is refused.
    pub(crate) fn take_in(
        &self,
        engine: &Engine,
        choose: impl FnOnce(&Automerge) -> Result<Vec<automerge::Change>, Error>,
    ) -> Result<(), Error> {
        let mut document = self.document_mut();
        self.check_not_broken()?;
        engine.check_open()?;
        let changes = choose(&document)?;
        let checked = checked(&changes, &engine.replica.limits())?;
        let watched = self.is_watched();
        let mut patches = patch_log(watched);
        let applied = catch_unwind(AssertUnwindSafe(|| document.apply_changes_log_patches(changes, &mut patches)));
        match applied {
            Ok(applied) => applied?,
            Err(_) => {
                *document = self.rebuild(engine).inspect_err(|error| self.break_down(&error.to_string()))?;
                return Err(self.broken("automerge panicked while it applied changes that came by hand"));
            }
        }
        self.state().journal.extend(checked, |group| engine.replica.change(self.id.clone(), group));
        self.show(&document, BTreeSet::from([Origin::Local]), watched.then_some(patches));
        Ok(())
    }

    /// Waits for closures that run, so that what they change is handed over.
    pub(crate) fn wait_until_idle(&self) {
        drop(self.document_mut());
    }

    pub(crate) fn heads(&self) -> Vec<ChangeHash> {
        self.latest.borrow().heads.clone()
    }

    pub(crate) fn status(&self, engine: &Engine) -> Status {
        let sessions = engine.servers.sessions();
        let (offline_since, complaints) = (engine.servers.offline_since(), engine.servers.complaints(Some(&self.id)));
        let document = self.document();
        let (changes, failure) = self.unsaved();
        let saved = match failure {
            _ if changes == 0 => Saved::Here,
            Some(reason) => Saved::Failed { changes, reason },
            None => Saved::Pending { changes },
        };
        let (announced, seen, policy) = {
            let state = self.state();
            (state.announced.clone(), state.seen.clone(), state.policy)
        };
        let wanted = document.get_heads();
        let was_confirmed = !seen.is_empty() && covers(&document, &seen, &wanted);
        let on_one = |said: &Announcement| OnOneServer {
            connected: sessions.contains(&said.session),
            has_all: covers(&document, &said.heads, &wanted),
            heard: said.heard,
        };
        let servers: BTreeMap<String, OnOneServer> =
            announced.iter().map(|(address, said)| (address.to_string(), on_one(said))).collect();
        let confirmed = was_confirmed || servers.values().any(|server| server.has_all);
        let server = if policy.local_only {
            OnServer::LocalOnly
        } else if sessions.is_empty() {
            OnServer::Offline { confirmed }
        } else if servers.values().any(|server| server.connected && server.has_all) {
            OnServer::InSync
        } else {
            OnServer::Behind
        };
        let known = announced.values().map(|said| &said.heads).chain(Some(&seen));
        let ahead = match confirmed {
            true => 0,
            false => known.map(|heads| lacking(&document, heads)).min().unwrap_or_default(),
        };
        Status { saved, server, ahead, servers, offline_since, complaints }
    }

    /// Changes that are not on this disk, and why, if the last try failed.
    pub(crate) fn unsaved(&self) -> (usize, Option<Arc<str>>) {
        let state = self.state();
        (state.journal.unsaved(), state.journal.failure().cloned())
    }

    /// How many other stores have announced, at any time, everything that these heads stand for.
    pub(crate) fn replicas_with(&self, wanted: &[ChangeHash]) -> usize {
        let document = self.document();
        let announced: Vec<_> = self.state().announced.values().cloned().collect();
        let having = announced.iter().filter(|said| covers(&document, &said.heads, wanted));
        having.filter_map(|said| said.storage.as_ref()).collect::<BTreeSet<_>>().len()
    }

    /// Whether some server has announced, at any time, everything that these heads stand for.
    pub(crate) fn is_confirmed(&self, wanted: &[ChangeHash]) -> bool {
        let document = self.document();
        let known: Vec<_> = {
            let state = self.state();
            let announced = state.announced.values().map(|announcement| announcement.heads.clone());
            announced.chain(Some(state.seen.clone()).filter(|seen| !seen.is_empty())).collect()
        };
        known.iter().any(|heads| covers(&document, heads, wanted))
    }

    /// The heads that each server announced last, by its address.
    pub(crate) fn announced(&self) -> BTreeMap<String, Vec<ChangeHash>> {
        let state = self.state();
        state.announced.iter().map(|(address, said)| (address.to_string(), said.heads.clone())).collect()
    }

    /// A mark for [`Live::saved_up_to`]: every change so far.
    pub(crate) fn mark(&self) -> u64 {
        self.state().journal.mark()
    }

    /// Whether everything before the mark is durable; an error if the last try failed.
    pub(crate) fn saved_up_to(&self, mark: u64) -> Result<bool, Error> {
        let state = self.state();
        match state.journal.failure() {
            _ if state.journal.is_saved_up_to(mark) => Ok(true),
            Some(reason) => Err(Error::NotSaved { document: self.id.clone(), reason: reason.to_string() }),
            None => Ok(false),
        }
    }

    /// Whether the document has come, will come, or is denied by all of these connections.
    pub(crate) fn arrival(&self, sessions: &[SessionId]) -> Arrival {
        let state = self.state();
        if state.deleted {
            return Arrival::Deleted;
        }
        if !self.latest.borrow().heads.is_empty() || state.broken.is_some() {
            return Arrival::Here;
        }
        let denied = !sessions.is_empty() && sessions.iter().all(|session| state.denied.contains(session));
        if denied { Arrival::Denied } else { Arrival::Expected }
    }

    pub(crate) fn policy(&self) -> Policy {
        self.state().policy
    }

    pub(crate) fn set_policy(&self, change: impl FnOnce(&mut Policy)) {
        change(&mut self.state().policy);
        self.tick();
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.state().deleted
    }

    /// Takes in that the document was deleted or restored.
    pub(crate) fn set_deleted(&self, deleted: bool) {
        let changed = std::mem::replace(&mut self.state().deleted, deleted) != deleted;
        if changed {
            self.tick();
        }
    }

    /// Whether it can leave memory without a loss.
    pub(crate) fn is_settled(&self) -> bool {
        self.state().journal.unsaved() == 0
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.state().journal.is_under_way()
    }

    /// Takes in that a ticket is durable. Returns whether the inbox wants work.
    pub(crate) fn saved(&self, engine: &Engine, ticket: u64) -> bool {
        let mut state = self.state();
        if state.opening == Some(ticket) {
            state.opening = None;
            state.inbox.reload = true;
            return state.inbox.start();
        }
        state.journal.saved(ticket, |group| engine.replica.change(self.id.clone(), group));
        drop(state);
        self.tick();
        false
    }

    /// Takes in that a ticket failed. Returns how long to wait before handing over again.
    pub(crate) fn not_saved(&self, ticket: u64, reason: &str) -> Option<Duration> {
        let wait = self.state().journal.not_saved(ticket, reason);
        if wait.is_some() {
            tracing::error!(document = %self.id, "changes are not saved: {reason}");
        }
        self.tick();
        wait
    }

    /// Hands over again what could not be saved.
    pub(crate) fn hand_over_again(&self, engine: &Engine) {
        self.state().journal.hand_over_again(|group| engine.replica.change(self.id.clone(), group));
    }

    /// Takes in changes of others. Returns whether the inbox wants work.
    pub(crate) fn arrived(&self, changes: Vec<Bytes>, heads: Vec<ChangeHash>, origin: Origin) -> bool {
        let mut state = self.state();
        state.inbox.add(changes, heads, origin);
        state.inbox.start()
    }

    /// What peers say from here on that is not stored.
    pub(crate) fn listen_to_ephemerals(&self) -> broadcast::Receiver<(PeerId, Bytes)> {
        self.ephemerals.get_or_init(|| broadcast::Sender::new(EPHEMERALS_MAX)).subscribe()
    }

    /// A peer said something that is not stored.
    pub(crate) fn heard(&self, sender: PeerId, data: Bytes) {
        if let Some(ephemerals) = self.ephemerals.get() {
            // Nobody may be listening any more.
            let _ = ephemerals.send((sender, data));
        }
    }

    pub(crate) fn server_announced(&self, server: Session, session: SessionId, heads: Vec<ChangeHash>) {
        let mut state = self.state();
        state.denied.remove(&session);
        let Session { address, storage } = server;
        let announcement = Announcement { session, storage, heads, heard: SystemTime::now() };
        state.announced.insert(address, announcement);
        drop(state);
        self.tick();
    }

    pub(crate) fn server_denied(&self, session: SessionId) {
        self.state().denied.insert(session);
        self.tick();
    }

    /// Puts what is in the inbox into the document, until it is empty. Blocks while a closure runs.
    #[tracing::instrument(name = "apply remote changes", level = "debug", skip_all, fields(document = %self.id))]
    pub(crate) fn work(&self, engine: &Engine) {
        // In a statement of its own, so that `state` is free again before the document is waited for.
        let take = || self.state().inbox.take();
        while let Some(inbox) = take() {
            let mut document = self.document_mut();
            if self.check_not_broken().is_err() {
                continue;
            }
            let mut origins = inbox.origins.clone();
            if inbox.reload || origins.is_empty() {
                origins.insert(Origin::Stored);
            }
            let watched = self.is_watched();
            let mut patches = patch_log(watched);
            let applied = catch_unwind(AssertUnwindSafe(|| self.apply(engine, &mut document, inbox, &mut patches)));
            match applied {
                Ok(Ok(())) => self.show(&document, origins, watched.then_some(patches)),
                // The heads still differ when the next change comes, and the store is read again.
                Ok(Err(Error::Store(error))) => tracing::warn!(document = %self.id, "cannot catch up: {error}"),
                Ok(Err(error)) => self.break_down(&error.to_string()),
                Err(_) => self.break_down("automerge panicked while it applied changes of another replica"),
            }
            self.tick();
        }
    }

    /// Runs with the document held, as a change does.
    pub(crate) fn with_document<T>(&self, work: impl FnOnce(&mut Automerge) -> T) -> T {
        work(&mut self.document_mut())
    }

    /// The repo is closed.
    pub(crate) fn end(&self) {
        self.latest.send_modify(|latest| latest.ended = true);
        self.tick();
    }

    fn apply(
        &self,
        engine: &Engine,
        document: &mut Automerge,
        inbox: Inbox,
        patches: &mut PatchLog,
    ) -> Result<(), Error> {
        let changes: Result<Vec<_>, _> =
            inbox.changes.iter().map(|bytes| automerge::Change::try_from(&bytes[..])).collect();
        let changes = changes.map_err(|error| self.broken(&error.to_string()))?;
        document.apply_changes_log_patches(changes, patches)?;
        let lacks = |hashes: &[ChangeHash]| hashes.iter().any(|hash| !knows(document, hash));
        let behind = if inbox.reload {
            engine.replica.store().summary(&self.id)?.is_some_and(|summary| lacks(&summary.heads))
        } else {
            lacks(&inbox.heads)
        };
        if behind && let Some(payload) = engine.replica.store().payload(&self.id)? {
            document.load_incremental_log_patches(&bytes_of(&payload), patches)?;
            engine.sign(&self.id, document);
        }
        Ok(())
    }

    /// Hands the change just made to the replica. One that no replica would take is taken back.
    fn hand_over(&self, engine: &Engine, document: &mut Automerge) -> Result<(), Error> {
        let Some(change) = document.get_last_local_change() else { return Ok(()) };
        let bytes = Bytes::copy_from_slice(change.raw_bytes());
        match Change::decode_own(bytes, &engine.replica.limits()) {
            Ok(change) => {
                self.state().journal.extend([change], |group| engine.replica.change(self.id.clone(), group));
                Ok(())
            }
            Err(error) => {
                let rebuilt = self.rebuild(engine);
                *document = rebuilt.inspect_err(|error| self.break_down(&error.to_string()))?;
                Err(Error::Refused(error))
            }
        }
    }

    /// The document as the store and the journal have it, under an actor that has written nothing.
    fn rebuild(&self, engine: &Engine) -> Result<Automerge, Error> {
        let mut document = load(engine, &self.id)?;
        let unsaved: Vec<Bytes> = self.state().journal.unsaved_changes().map(|change| change.bytes.clone()).collect();
        let changes: Result<Vec<_>, _> = unsaved.iter().map(|bytes| automerge::Change::try_from(&bytes[..])).collect();
        document.apply_changes(changes.map_err(|error| self.broken(&error.to_string()))?)?;
        document.set_actor(ActorId::random());
        Ok(document)
    }

    /// Tells watchers what the document has become.
    pub(crate) fn show(&self, document: &Automerge, origins: BTreeSet<Origin>, patches: Option<PatchLog>) {
        let after = document.get_heads();
        self.latest.send_if_modified(|latest| {
            if latest.heads == after {
                return false;
            }
            let before = std::mem::replace(&mut latest.heads, after.clone());
            if self.is_watched() {
                let patches = patches.map(|mut patches| document.make_patches(&mut patches));
                let origins = origins.into_iter().collect();
                latest.steps.push(Step { before, after, origins, patches });
            } else {
                latest.steps.skip();
            }
            true
        });
    }

    fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Acquire) > 0
    }

    pub(crate) fn add_watcher(&self) {
        self.watchers.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn remove_watcher(&self) {
        self.watchers.fetch_sub(1, Ordering::AcqRel);
    }

    fn break_down(&self, reason: &str) {
        tracing::error!(document = %self.id, "a document cannot be shown: {reason}");
        self.state().broken = Some(Arc::from(reason));
        // Watchers find out when they look.
        self.latest.send_modify(|_| {});
    }

    fn check_not_broken(&self) -> Result<(), Error> {
        match &self.state().broken {
            Some(reason) => Err(self.broken(reason)),
            None => Ok(()),
        }
    }

    fn broken(&self, reason: &str) -> Error {
        Error::Broken { document: self.id.clone(), reason: reason.to_owned() }
    }

    fn tick(&self) {
        self.progress.send_modify(|ticks| *ticks += 1);
    }

    fn document(&self) -> RwLockReadGuard<'_, Automerge> {
        // A closure that panicked in a transaction has had it rolled back.
        self.document.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn document_mut(&self) -> RwLockWriteGuard<'_, Automerge> {
        self.document.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn undo(&self) -> MutexGuard<'_, Undo> {
        self.undo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn patch_log(active: bool) -> PatchLog {
    if active { PatchLog::active() } else { PatchLog::inactive() }
}

/// Whether announced heads include everything that the wanted ones, which the document has, stand for.
fn covers(document: &Automerge, announced: &[ChangeHash], wanted: &[ChangeHash]) -> bool {
    if wanted.iter().all(|hash| announced.contains(hash)) {
        return true;
    }
    let known: Vec<_> = announced.iter().filter(|hash| knows(document, hash)).copied().collect();
    !document.get_changes_meta(&known).iter().any(|change| wanted.contains(&change.hash))
}

/// How many changes of the document announced heads do not include.
fn lacking(document: &Automerge, announced: &[ChangeHash]) -> usize {
    let known: Vec<_> = announced.iter().filter(|hash| knows(document, hash)).copied().collect();
    if known.is_empty() { document.stats().num_changes as usize } else { document.get_changes_meta(&known).len() }
}

fn knows(document: &Automerge, hash: &ChangeHash) -> bool {
    document.get_change_meta_by_hash(hash).is_some()
}

/// The document as the store has it; an empty one if it has not.
fn load(engine: &Engine, id: &DocumentId) -> Result<Automerge, Error> {
    let encoding = engine.text_encoding;
    let Some(payload) = engine.replica.store().payload(id)? else { return Ok(Automerge::new_with_encoding(encoding)) };
    let bytes = bytes_of(&payload);
    let broken = |reason: String| Error::Broken { document: id.clone(), reason };
    match catch_unwind(|| Automerge::load_with_options(&bytes, LoadOptions::new().text_encoding(encoding))) {
        Ok(loaded) => loaded.map_err(|error| broken(error.to_string())),
        Err(_) => Err(broken("automerge panicked while it loaded the document".to_owned())),
    }
}

fn bytes_of(payload: &Payload) -> Vec<u8> {
    let mut bytes = payload.snapshot.as_deref().unwrap_or_default().to_vec();
    for change in &payload.tail {
        bytes.extend_from_slice(&change.bytes);
    }
    bytes
}
