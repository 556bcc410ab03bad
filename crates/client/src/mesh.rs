//! Groups without a server: a repo as a member of a mesh.
//!
//! Owns: how a repo joins, who is there. Must not: find or connect anybody; the replica does.
//! Next: `engine.rs`, the replica crate's `mesh.rs`; docs/gossip.md.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use syncline_core::id::SessionId;
use syncline_gossip::membership::Participation;
use syncline_replica::MeshOptions;
use tokio::sync::watch;

use crate::repo::{Background, Repo};
use crate::{DocumentUrl, Error};

pub use syncline_gossip::overlay::NeighbourStatus;
pub use syncline_gossip::{Address, Member, MeshKey};
pub use syncline_replica::MeshStatus;

/// How a repo takes part in a mesh.
///
/// ```
/// # use syncline::mesh::{MeshConfig, MeshKey};
/// # fn key_of_the_group() -> MeshKey { MeshKey::open("example") }
/// let config = MeshConfig::new(key_of_the_group())
///     .listen(([0, 0, 0, 0], 0).into())
///     .peer("ws://192.168.1.7:4000")?;
/// # Ok::<(), syncline::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MeshConfig {
    options: MeshOptions,
}

impl MeshConfig {
    /// A member that takes part in every document, and neither listens nor knows anybody yet.
    #[must_use]
    pub fn new(key: MeshKey) -> Self {
        Self { options: MeshOptions::new(key) }
    }

    /// Lets other members dial this repo, at this address; port 0 takes a free one.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.options.listen = Some(address);
        self
    }

    /// Dials a member at this address, for ever. The rest of the mesh is learnt from there.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn peer(mut self, address: &str) -> Result<Self, Error> {
        self.options.peers.push(address.parse()?);
        Ok(self)
    }

    /// Tells others that they reach this repo at this address, if that is not where it listens.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn advertise(mut self, address: &str) -> Result<Self, Error> {
        self.options.advertise.push(address.parse()?);
        Ok(self)
    }

    /// Finds other members on the local network by multicast DNS, and is found by them if it listens.
    #[cfg(feature = "lan")]
    #[must_use]
    pub fn lan(mut self, lan: bool) -> Self {
        self.options.lan = lan;
        self
    }

    /// Takes part in these documents only.
    #[must_use]
    pub fn only<'a>(mut self, documents: impl IntoIterator<Item = &'a DocumentUrl>) -> Self {
        let ids: BTreeSet<_> = documents.into_iter().map(|url| url.id().clone()).collect();
        self.options.participation = Participation::Only(ids);
        self
    }

    /// Takes part in the documents for which the rule says so. It is asked often and must not block.
    #[must_use]
    pub fn only_where(mut self, rule: impl Fn(&DocumentUrl) -> bool + Send + Sync + 'static) -> Self {
        let rule = move |id: &_| rule(&DocumentUrl::from(syncline_core::id::DocumentId::clone(id)));
        self.options.participation = Participation::Where(Arc::new(rule));
        self
    }
}

/// A repo's place in a mesh, until this is dropped.
#[derive(Debug)]
pub struct Mesh {
    inner: syncline_replica::Mesh,
    changed: watch::Receiver<u64>,
    // Its tasks run on the repo's threads.
    _background: Arc<Background>,
}

impl Repo {
    /// Takes part in a mesh: what is here of the documents that it chose, and what others have of them, is kept in step
    /// with the other members, with or without a server. One mesh at a time.
    ///
    /// # Errors
    /// [`Error::Mesh`], [`Error::Closed`].
    pub async fn join_mesh(&self, config: MeshConfig) -> Result<Mesh, Error> {
        let engine = Arc::clone(self.engine());
        engine.check_open()?;
        let changed = engine.neighbours.changed.subscribe();
        let replica = engine.replica.clone();
        let joining = engine.runtime.spawn(async move { replica.join_mesh(config.options).await });
        let inner = joining.await.map_err(|_| Error::Closed)??;
        Ok(Mesh { inner, changed, _background: Arc::clone(&self.background) })
    }
}

impl Mesh {
    /// Where it listens.
    #[must_use]
    pub fn listening(&self) -> Option<SocketAddr> {
        self.inner.listening()
    }

    /// Who is there: this repo and its neighbours, a few of the members.
    #[must_use]
    pub fn status(&self) -> MeshStatus {
        self.inner.status()
    }

    /// Waits until a neighbour has come or gone. A slow caller misses those between.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn changed(&mut self) -> Result<(), Error> {
        self.changed.changed().await.map_err(|_| Error::Closed)
    }

    /// Dials another address, for ever.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn add_peer(&self, address: &str) -> Result<(), Error> {
        let _runtime = self._background.engine.runtime.enter();
        self.inner.add_peer(&address.parse()?);
        Ok(())
    }

    /// Shows neighbours a few bytes, at most 512, at once and with every sign of life: a name, for example.
    pub fn show(&self, about: impl Into<Vec<u8>>) {
        let _runtime = self._background.engine.runtime.enter();
        self.inner.show(about.into());
    }

    /// Cuts every connection of the mesh and takes none, or takes part again. Everything else of the repo goes on.
    pub fn set_online(&self, online: bool) {
        let _runtime = self._background.engine.runtime.enter();
        self.inner.set_online(online);
    }
}

/// The neighbours of a repo, by connection.
#[derive(Debug)]
pub(crate) struct Neighbours {
    members: Mutex<BTreeMap<SessionId, Member>>,
    /// Ticks when one comes or goes.
    pub(crate) changed: watch::Sender<u64>,
}

impl Neighbours {
    pub(crate) fn new() -> Self {
        Self { members: Mutex::default(), changed: watch::Sender::new(0) }
    }

    pub(crate) fn joined(&self, session: SessionId, member: Member) {
        self.lock().insert(session, member);
        self.tick();
    }

    pub(crate) fn left(&self, session: SessionId) {
        self.lock().remove(&session);
        self.tick();
    }

    pub(crate) fn member(&self, session: SessionId) -> Option<Member> {
        self.lock().get(&session).copied()
    }

    fn tick(&self) {
        self.changed.send_modify(|ticks| *ticks += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
