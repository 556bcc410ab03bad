//! A server on some ground, clients around it, and a link between each and the server.
//!
//! Owns: the parts and what every round does with them: work, kill, start, read, come to rest.
//! Must not: draw faults, or judge what it sees. Next: `rounds.rs`, `disk_rounds.rs`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use syncline_disk::{Cut, Disk, Image, Mount};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Board, Client, Surroundings};
use crate::clock;
use crate::frame;
use crate::history::{DocumentId, Event, History, Lineage};
use crate::network::Network;
use crate::proxy::{Link, Weather};
use crate::reader;
use crate::server::{self, Server, Setting};

/// Clients of a world; every document is shared by all of them.
const CLIENTS: usize = 3;

/// Documents of an epoch.
const DOCUMENTS: usize = 2;

/// The longest that anything may take that has to happen. It decides only how long a failure takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where the server keeps its data.
pub(crate) enum Ground {
    /// A directory of the machine.
    Plain,
    /// A disk that can fail and forget; the name of the place on it.
    Faulty {
        /// The disk.
        disk: Disk,
        /// Where it is mounted.
        mount: Mount,
        /// The directory on it in use.
        place: String,
    },
}

/// Everything of one epoch.
pub(crate) struct World {
    pub(crate) history: History,
    pub(crate) random: StdRng,
    pub(crate) ground: Ground,
    pub(crate) links: Vec<Arc<Link>>,
    pub(crate) board: Arc<Board>,
    /// What the server finds around it at its next start.
    pub(crate) environment: Vec<(String, String)>,
    /// The network in which the server starts next, if it is not ours.
    pub(crate) network: Option<Network>,
    /// With what a reader presents itself.
    pub(crate) reader_token: Option<String>,
    server: Option<Server>,
    scratch: TempDir,
    work: watch::Sender<bool>,
    documents: Vec<(DocumentId, String)>,
    clients: JoinSet<()>,
}

impl World {
    /// Starts a server and its clients.
    ///
    /// # Errors
    /// When one of them does not start.
    pub(crate) async fn start(
        history: History,
        ground: Ground,
        mut random: StdRng,
        first: DocumentId,
    ) -> anyhow::Result<Self> {
        let documents =
            (first..first + DOCUMENTS).map(|number| (number, frame::document_id(random.random()))).collect();
        let mut world = Self {
            history,
            random,
            ground,
            links: Vec::new(),
            board: Arc::default(),
            environment: Vec::new(),
            network: None,
            reader_token: None,
            server: None,
            scratch: tempfile::Builder::new().prefix("syncline-chaos-").tempdir()?,
            work: watch::Sender::new(true),
            documents,
            clients: JoinSet::new(),
        };
        world.launch()?;
        for number in 0..CLIENTS {
            let link = Arc::new(Link::new().await?);
            let around = Surroundings {
                history: world.history.clone(),
                board: Arc::clone(&world.board),
                work: world.work.subscribe(),
            };
            let random = StdRng::seed_from_u64(world.random.random());
            let client = Client::new(number, Arc::clone(&link), &world.documents, around, random);
            world.clients.spawn(client.run());
            world.links.push(link);
        }
        world.let_clients_in();
        Ok(world)
    }

    /// The first number that the next world's documents may have.
    pub(crate) fn next_document(&self) -> DocumentId {
        self.documents.last().map_or(0, |(number, _)| number + 1)
    }

    /// The server's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        match &self.ground {
            Ground::Plain => self.scratch.path().join("data"),
            Ground::Faulty { mount, place, .. } => mount.path().join(place).join("data"),
        }
    }

    /// The documents that clients share.
    pub(crate) fn documents(&self) -> &[(DocumentId, String)] {
        &self.documents
    }

    /// A directory beside the data.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn server(&mut self) -> anyhow::Result<&mut Server> {
        self.server.as_mut().context("the server is down")
    }

    /// Starts the server; nobody is let in yet.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn launch(&mut self) -> anyhow::Result<()> {
        let setting = Setting { environment: &self.environment, network: self.network.as_ref() };
        self.server = Some(Server::start(&self.data(), &self.scratch.path().join("log"), setting)?);
        Ok(())
    }

    /// Opens every link to the server.
    pub(crate) fn let_clients_in(&self) {
        for link in &self.links {
            if let Some(server) = &self.server {
                link.lead_to(0, server.address());
            }
            link.set_weather(Weather::Fair);
            link.open();
        }
    }

    /// Whether clients edit from here on.
    pub(crate) fn set_work(&self, work: bool) {
        self.work.send_replace(work);
    }

    /// Lets the clients work until so many more changes have been acknowledged.
    ///
    /// # Errors
    /// When they are not.
    pub(crate) async fn work(&self, acknowledgements: usize) -> anyhow::Result<()> {
        self.set_work(true);
        let target = self.history.acknowledged() + acknowledgements;
        self.wait_until("clients are acknowledged", |world| world.history.acknowledged() >= target).await
    }

    /// Kills the server, and waits until every client has noticed; no client comes back before it is let in.
    ///
    /// # Errors
    /// When the server is not there.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.links.iter().for_each(|link| link.close());
        let server = self.server.take().context("the server is down")?;
        server.signal(Signal::SIGCONT)?;
        server.kill()?;
        self.hang_up().await
    }

    /// Ends all connections and waits until every client has noticed. Acknowledgements on their way arrive before.
    ///
    /// # Errors
    /// When one does not notice.
    pub(crate) async fn hang_up(&self) -> anyhow::Result<()> {
        self.links.iter().for_each(|link| link.close());
        if self.server.is_some() || self.links.iter().any(|link| link.is_held_up()) {
            self.links.iter().for_each(|link| link.reset());
        }
        self.wait_until("clients notice the end", |world| world.board.connected() == 0).await
    }

    /// Sets the server's clock so many seconds apart from ours: at once if it runs with such a clock, or else from its next
    /// start on.
    ///
    /// # Errors
    /// When libfaketime is not installed.
    pub(crate) fn set_clock_apart(&mut self, seconds: i64) -> anyhow::Result<()> {
        let library = clock::library().context("libfaketime is not installed")?;
        self.history.add(Event::Fault { what: format!("the server's clock is {seconds} s off") });
        let file = self.scratch.path().join("clock");
        clock::set(&file, seconds)?;
        let environment = clock::environment(&library, &file);
        self.environment.retain(|(name, _)| environment.iter().all(|(ours, _)| ours != name));
        self.environment.extend(environment);
        Ok(())
    }

    /// # Errors
    /// When the server runs with our clock.
    pub(crate) fn expect_clock_apart(&mut self) -> anyhow::Result<()> {
        ensure!(self.server()?.has_loaded("libfaketime"), "the server runs without libfaketime");
        Ok(())
    }

    /// Cuts the power of the disk; the server must be dead.
    pub(crate) fn cut_power(&mut self, cut: Cut) {
        self.history.add(Event::Fault { what: format!("power cut: {cut:?}") });
        if let Ground::Faulty { disk, place, .. } = &mut self.ground {
            disk.mend();
            *place = disk.cut_power(place, cut);
        }
    }

    /// Checks the dead server's directory, starts it again, and reads what it has before any client can help it.
    ///
    /// # Errors
    /// When it does not start, or does not answer.
    pub(crate) async fn check_and_read(&mut self) -> anyhow::Result<()> {
        self.check(0, &self.data())?;
        self.launch()?;
        self.read(0, self.server.as_ref().context("just started")?.address()).await
    }

    /// Checks a directory that nothing runs in.
    ///
    /// # Errors
    /// When the check cannot be started.
    pub(crate) fn check(&self, lineage: Lineage, data: &Path) -> anyhow::Result<()> {
        let faults = server::check(data)?;
        self.history.add(Event::Check { lineage, faults });
        Ok(())
    }

    /// Fetches every document from a server.
    ///
    /// # Errors
    /// When it does not answer as it should.
    pub(crate) async fn read(&self, lineage: Lineage, address: std::net::SocketAddr) -> anyhow::Result<()> {
        let read = tokio::time::timeout(
            PATIENCE,
            reader::read(address, lineage, &self.documents, self.reader_token.as_deref()),
        )
        .await;
        let events = read.context("the server does not answer a reader")??;
        events.into_iter().for_each(|event| self.history.add(event));
        Ok(())
    }

    /// Lets everybody in, waits until all agree, and notes what each then has.
    ///
    /// # Errors
    /// When they never agree.
    pub(crate) async fn settle(&mut self) -> anyhow::Result<()> {
        self.set_work(false);
        self.let_clients_in();
        self.wait_until_agreed().await?;
        self.history.add(Event::Settled);
        self.read(0, self.server.as_ref().context("the server is down")?.address()).await?;
        for ((client, document), entry) in self.board.entries() {
            self.history.add(Event::Rest { client, document, heads: entry.heads, changes: entry.changes });
        }
        Ok(())
    }

    /// Waits until every client has the same heads as its server, and nothing to be acknowledged.
    ///
    /// # Errors
    /// When that never happens.
    pub(crate) async fn wait_until_agreed(&self) -> anyhow::Result<()> {
        self.wait_until("everybody agrees", |world| {
            let entries = world.board.entries();
            let whole = entries.len() == world.links.len() * world.documents.len();
            let first = |document| entries.iter().find(|((_, number), _)| *number == document).map(|(_, entry)| entry);
            whole
                && entries.iter().all(|((_, document), entry)| {
                    entry.agrees
                        && entry.outstanding == 0
                        && first(*document).is_some_and(|one| one.heads == entry.heads)
                })
        })
        .await
    }

    /// Ends the clients, stops the server in order and checks what it leaves.
    ///
    /// # Errors
    /// When the server does not end well.
    pub(crate) async fn end(mut self) -> anyhow::Result<Ground> {
        self.clients.shutdown().await;
        let server = self.server.take().context("the server is down")?;
        server.stop()?;
        self.check(0, &self.data())?;
        self.history.add(Event::Epoch);
        if let Ground::Faulty { disk, place, .. } = &mut self.ground {
            disk.mend();
            disk.remove(place);
            *place = disk.place(&Image::new());
        }
        Ok(self.ground)
    }

    /// Waits for something that has to happen; whoever is waited for says when to look again.
    ///
    /// # Errors
    /// When it does not happen.
    pub(crate) async fn wait_until(&self, what: &str, mut happened: impl FnMut(&Self) -> bool) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let changed = self.board.changed.notified();
            if happened(self) {
                return Ok(());
            }
            // Not everything that is waited for shows on the board, so a look now and then goes beside it.
            let _ = tokio::time::timeout(Duration::from_millis(5), changed).await;
            if tokio::time::Instant::now() > deadline {
                bail!("{what}: it did not happen within {PATIENCE:?}; {:?}", self.board.entries());
            }
        }
    }
}
