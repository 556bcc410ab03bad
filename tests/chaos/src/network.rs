//! A network namespace for a server, with one link to it that can be taken down or made to drop one way.
//!
//! Owns: the namespace, the pair of interfaces, their end. Must not: leave anything behind: the namespace lives as long
//! as a process of ours, and the interfaces as long as it. Next: `rounds.rs`; `proxy.rs` for links that only delay.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// Longest wait for the namespace.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is done to the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// The interface on our side is down.
    Down,
    /// What goes to the server is dropped.
    ToServer,
    /// What comes from the server is dropped.
    FromServer,
}

/// A namespace and its link.
#[derive(Debug)]
pub(crate) struct Network {
    /// Holds the namespace.
    holder: Child,
    interface: String,
    ours: Ipv4Addr,
    server: Ipv4Addr,
    outage: Option<Outage>,
}

/// Why no namespace can be made here; `None` if one can.
pub(crate) fn unavailable() -> Option<String> {
    let runs = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !runs("unshare", &["--net", "true"]) {
        return Some("this process may not make a network namespace".to_owned());
    }
    (!runs("ip", &["-Version"])).then(|| "iproute2 is not installed".to_owned())
}

impl Network {
    /// Makes the namespace and the link, in fair order.
    ///
    /// # Errors
    /// What the system's tools report.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]);
        let holder = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("setpriv starts")?;
        let id = holder.id();
        // The block for measurements of networks: 32,768 pairs of addresses, one for each process number.
        let [high, low] = u16::try_from(id % 0x8000)?.to_be_bytes();
        let pair = |side: u8| Ipv4Addr::new(198, 18 | high >> 6, high << 2 | low >> 6, low << 2 | side);
        let (interface, ours, server) = (format!("chaos{id}"), pair(1), pair(2));
        let network = Self { holder, interface, ours, server, outage: None };
        network.wait_for_namespace()?;
        let (interface, peer) = (&network.interface, format!("peer{id}"));
        ip(&["link", "add", interface, "type", "veth", "peer", "name", &peer, "netns", &id.to_string()])?;
        ip(&["addr", "add", &format!("{ours}/30"), "dev", interface])?;
        ip(&["link", "set", interface, "up"])?;
        network.ip_inside(&["addr", "add", &format!("{server}/30"), "dev", &peer])?;
        network.ip_inside(&["link", "set", &peer, "up"])?;
        Ok(network)
    }

    /// Where a server in it listens.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.server
    }

    /// What a command line begins with to run in it.
    pub(crate) fn enter(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net={}", self.namespace())]
    }

    /// Breaks the link.
    pub(crate) fn fail(&mut self, outage: Outage) -> anyhow::Result<()> {
        self.outage = Some(outage);
        self.route(outage, "add", "down")
    }

    /// Mends it.
    pub(crate) fn mend(&mut self) -> anyhow::Result<()> {
        self.outage.take().map_or(Ok(()), |outage| self.route(outage, "del", "up"))
    }

    /// Segments that TCP has sent a second time, on either side, whoever sent them.
    pub(crate) fn sent_again(&self) -> u64 {
        let of = |process: &str| sent_again(Path::new("/proc").join(process).join("net/snmp").as_path());
        of("self").unwrap_or(0) + of(&self.holder.id().to_string()).unwrap_or(0)
    }

    fn route(&self, outage: Outage, verb: &str, state: &str) -> anyhow::Result<()> {
        match outage {
            Outage::Down => ip(&["link", "set", &self.interface, state]),
            Outage::ToServer => ip(&["route", verb, "blackhole", &format!("{}/32", self.server)]),
            Outage::FromServer => self.ip_inside(&["route", verb, "blackhole", &format!("{}/32", self.ours)]),
        }
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    fn wait_for_namespace(&self) -> anyhow::Result<()> {
        let ours = std::fs::read_link("/proc/self/ns/net").context("Linux names namespaces")?;
        let deadline = Instant::now() + PATIENCE;
        // It has its own once it has become `sleep`.
        let program = Path::new("/proc").join(self.holder.id().to_string()).join("comm");
        while std::fs::read_to_string(&program).unwrap_or_default().trim() != "sleep" {
            ensure!(Instant::now() < deadline, "no network namespace was made");
            std::thread::sleep(Duration::from_millis(1));
        }
        ensure!(std::fs::read_link(self.namespace())? != ours, "the namespace is our own");
        Ok(())
    }

    fn ip_inside(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let [nsenter, namespace] = self.enter();
        run(Command::new(nsenter).arg(namespace).arg("ip").args(arguments))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // A route of ours would outlive the interface.
        let _ = self.mend();
        let _ = (self.holder.kill(), self.holder.wait());
    }
}

/// The counter `RetransSegs` of a network: a line of names, and a line of numbers below it.
fn sent_again(counters: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(counters).ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let place = names.split(' ').position(|name| name == "RetransSegs")?;
    numbers.split(' ').nth(place)?.parse().ok()
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(arguments))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().context("iproute2 and util-linux are installed")?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
