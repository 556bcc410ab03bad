//! The server under test: by URL, or started here.
//!
//! Owns: when it answers, restarts, and the meter around a measured stretch. Must not: know the scenarios.
//! Next: `scenario/mod.rs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;

use crate::client::{Client, Options};
use crate::process::{self, Scratch, Server, Template};
use crate::report::Usage;
use crate::stats::Stats;
use crate::wire::Endpoint;

/// How long a server may take until it answers a join.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Which server to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct TargetArgs {
    /// A running server, as ws://host:port; its memory and CPU are known only with --server-pid.
    #[arg(long, global = true)]
    url: Option<String>,
    /// The running server's process.
    #[arg(long, global = true)]
    server_pid: Option<u32>,
    /// A command that starts the server, with {listen}, {port} and {data} in it; needed by scenarios that restart it.
    #[arg(long, global = true)]
    server_command: Option<String>,
    /// The port for a server started here; a free one by default.
    #[arg(long, global = true)]
    port: Option<u16>,
    /// The directory for a server started here, kept afterwards; a temporary one by default.
    #[arg(long, global = true)]
    data: Option<PathBuf>,
    /// What to call the server in the results.
    #[arg(long, global = true, default_value = "server")]
    pub(crate) label: String,
}

/// A server that answers.
pub(crate) struct Target {
    /// Where it is.
    pub(crate) endpoint: Endpoint,
    pid: Option<u32>,
    running: Option<Server>,
    template: Option<Template>,
    _scratch: Scratch,
}

impl Target {
    /// Finds or starts the server, and waits until it answers a join.
    ///
    /// # Errors
    /// When neither a URL nor a command is given, or the server does not answer.
    pub(crate) async fn open(args: &TargetArgs) -> anyhow::Result<Self> {
        let scratch = Scratch::new(args.data.clone());
        if let Some(command) = &args.server_command {
            let template = Template::new(command, args.port, scratch.path().to_owned())?;
            let endpoint = Endpoint::resolve(&template.url()).await?;
            let mut target = Self { endpoint, pid: None, running: None, template: Some(template), _scratch: scratch };
            target.start().await?;
            return Ok(target);
        }
        let url = args.url.as_deref().context("either --url or --server-command is needed")?;
        let endpoint = Endpoint::resolve(url).await?;
        let target = Self { endpoint, pid: args.server_pid, running: None, template: None, _scratch: scratch };
        target.wait_for_answer(Instant::now() + Duration::from_secs(5), None).await?;
        Ok(target)
    }

    /// The server's process, where it is known.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Whether the server has ended by itself.
    pub(crate) fn has_crashed(&mut self) -> bool {
        self.running.as_mut().is_some_and(Server::has_ended)
    }

    /// The end of the server's output.
    pub(crate) fn log_tail(&self) -> String {
        self.template.as_ref().map(Template::log_tail).unwrap_or_default()
    }

    /// A command line with this server's places filled in.
    ///
    /// # Errors
    /// When the server was not started here.
    pub(crate) fn fill(&self, command: &str) -> anyhow::Result<String> {
        Ok(self.template()?.fill(command))
    }

    /// The command that starts the server, its places not filled in.
    ///
    /// # Errors
    /// When the server was not started here.
    pub(crate) fn command(&self) -> anyhow::Result<&str> {
        Ok(self.template()?.command())
    }

    /// kill -9.
    ///
    /// # Errors
    /// When the server was not started here.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.template()?;
        self.running.take().context("the server is not running")?.kill();
        Ok(())
    }

    /// Ends the server in good order.
    ///
    /// # Errors
    /// When the server was not started here.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.template()?;
        self.running.take().context("the server is not running")?.stop().await;
        Ok(())
    }

    /// Starts the server on what it stored; the time until it answered a join.
    ///
    /// # Errors
    /// When the server was not started here, or does not answer.
    pub(crate) async fn start(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut server = self.template()?.start()?;
        self.pid = Some(server.pid());
        self.wait_for_answer(began + START_TIMEOUT, Some(&mut server)).await?;
        self.running = Some(server);
        Ok(began.elapsed())
    }

    /// Begins a measured stretch.
    pub(crate) fn meter(&self) -> Meter {
        let generator = Gauge::new(std::process::id());
        Meter { began: Instant::now(), server: self.pid.and_then(Gauge::new), generator }
    }

    async fn wait_for_answer(&self, deadline: Instant, mut server: Option<&mut Server>) -> anyhow::Result<()> {
        // A server that listens before it is ready may drop the first join, and then answers only the next one.
        let mut patience = Duration::from_millis(100);
        loop {
            if server.as_deref_mut().is_some_and(Server::has_ended) {
                bail!("the server ended: {}", self.log_tail());
            }
            let endpoint = self.endpoint.clone();
            let options = Options { endpoint, source: None, storage_id: None, own_thread: false, stats: Stats::new() };
            let answer = tokio::time::timeout(patience, Client::connect(options)).await;
            if answer.is_err() {
                patience = (patience * 2).min(Duration::from_secs(10));
            }
            match answer.context("no answer to the join").flatten() {
                Ok(client) => {
                    client.stop().await;
                    return Ok(());
                }
                Err(error) => {
                    ensure!(Instant::now() < deadline, "the server does not answer: {error:#}; {}", self.log_tail());
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }

    fn template(&self) -> anyhow::Result<&Template> {
        self.template.as_ref().context("this scenario restarts the server: it needs --server-command")
    }
}

/// A client of this target with no store of its own.
impl Target {
    /// How to connect to this server.
    pub(crate) fn options(&self, stats: &Arc<Stats>) -> Options {
        let endpoint = self.endpoint.clone();
        Options { endpoint, source: None, storage_id: None, own_thread: false, stats: Arc::clone(stats) }
    }
}

/// A measured stretch.
pub(crate) struct Meter {
    began: Instant,
    server: Option<Gauge>,
    generator: Option<Gauge>,
}

/// What a measured stretch cost.
#[derive(Debug, Clone)]
pub(crate) struct Cost {
    /// Its length.
    pub(crate) seconds: f64,
    /// The server, where its process is known.
    pub(crate) server: Option<Usage>,
    /// This process.
    pub(crate) generator: Usage,
}

impl Meter {
    /// Ends the stretch.
    pub(crate) fn finish(&self) -> Cost {
        Cost {
            seconds: self.began.elapsed().as_secs_f64(),
            server: self.server.as_ref().and_then(Gauge::usage),
            generator: self.generator.as_ref().and_then(Gauge::usage).unwrap_or_default(),
        }
    }
}

/// Measures this process alone.
pub(crate) fn meter_of_self() -> Meter {
    Meter { began: Instant::now(), server: None, generator: Gauge::new(std::process::id()) }
}

struct Gauge {
    pid: u32,
    cpu_s: f64,
    rss_start_kib: u64,
}

impl Gauge {
    fn new(pid: u32) -> Option<Self> {
        process::reset_peak(pid);
        let memory = process::memory(pid)?;
        Some(Self { pid, cpu_s: process::cpu_seconds(pid)?, rss_start_kib: memory.resident_kib })
    }

    fn usage(&self) -> Option<Usage> {
        let memory = process::memory(self.pid)?;
        Some(Usage {
            cpu_s: ((process::cpu_seconds(self.pid)? - self.cpu_s) * 1_000.0).round() / 1_000.0,
            rss_start_kib: self.rss_start_kib,
            rss_peak_kib: memory.peak_kib,
            rss_end_kib: memory.resident_kib,
        })
    }
}
