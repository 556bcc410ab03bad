//! A campaign: rounds of drawn faults, epoch after epoch, and what came of them.
//!
//! Owns: which faults there are, the order in which they come, the count of those that hit, the verdict.
//! Must not: do anything to a server itself. Next: `rounds.rs`, `checker.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use syncline_disk::{Disk, Image, Mount};

use crate::checker::{Checker, Counts};
use crate::history::{DocumentId, Event, History};
use crate::proxy::Weather;
use crate::world::{Ground, World};
use crate::{clock, disk_rounds, expiry, network, rounds, strangers};

/// Rounds of one epoch: small enough that documents stay small.
const EPOCH_ROUNDS: u64 = 20;

macro_rules! classes {
    ($($class:ident = $name:literal, $about:literal;)*) => {
        /// What can be done to the server, its links or its disk.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Class { $(#[doc = $about] $class,)* }

        impl Class {
            /// Every class.
            pub const ALL: &[Self] = &[$(Self::$class,)*];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$class => $name,)* }
            }
        }
    };
}

classes! {
    Kill = "kill", "SIGKILL under load.";
    Stop = "stop", "SIGSTOP and SIGCONT.";
    Delay = "delay", "Bytes wait on the link.";
    Rate = "rate", "Bytes pass slowly.";
    BlackHole = "blackhole", "Bytes stay in the link, for a while or for ever.";
    HalfOpen = "halfopen", "One end of the link is gone and the other is not told.";
    Reset = "reset", "Connections are reset.";
    Cut = "cut", "Connections are reset in the middle of a frame.";
    Backup = "backup", "An older copy of the data directory is restored.";
    Clone = "clone", "Two servers run on copies of one data directory.";
    Clock = "clock", "The server's clock is off, and jumps.";
    LinkDown = "linkdown", "The network interface is down.";
    OneWay = "oneway", "Packets are dropped in one direction.";
    Strangers = "strangers", "Others read, write, store, delete and flood, with rights and without.";
    Expiry = "expiry", "Tokens expire while those who hold them write.";
    Power = "power", "The disk forgets what was not synced.";
    Full = "full", "The disk has no room.";
    Fsync = "fsync", "A sync fails.";
}

impl Class {
    fn needs_disk(self) -> bool {
        matches!(self, Self::Power | Self::Full | Self::Fsync)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|class| class.name() == name);
        let names = Self::ALL.iter().map(|class| class.name()).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| format!("no such fault; there are {names}"))
    }
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rounds in all.
    pub rounds: u64,
    /// No round begins after so long.
    pub time: Duration,
    /// Everything that is drawn is drawn from it.
    pub seed: u64,
    /// The faults; each comes as often as the others.
    pub classes: Vec<Class>,
    /// Where to write the history.
    pub history: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// For each class: rounds, and how often the fault hit.
    pub classes: BTreeMap<Class, (u64, u64)>,
    /// How much was checked.
    pub counts: Counts,
    /// What was broken, in words; the first ends the campaign.
    pub violations: Vec<String>,
    /// How long it took.
    pub time: Duration,
    /// The shortest, the median and the longest round.
    pub round_times: [Duration; 3],
}

impl Outcome {
    /// Classes that had rounds and never hit.
    #[must_use]
    pub fn idle(&self) -> Vec<Class> {
        self.classes.iter().filter(|(_, (_, hits))| *hits == 0).map(|(class, _)| *class).collect()
    }

    /// Whether nothing was broken and every fault hit.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.idle().is_empty() && !self.classes.is_empty()
    }

    /// The outcome as one line of JSON.
    #[must_use]
    pub fn to_json(&self, seed: u64) -> String {
        let classes = self
            .classes
            .iter()
            .map(|(class, (rounds, hits))| (class.name().to_owned(), json!({"rounds": rounds, "hits": hits})));
        let [shortest, median, longest] = self.round_times.map(|time| time.as_millis() as u64);
        json!({
            "good": self.is_good(), "seed": seed, "seconds": self.time.as_secs_f64(),
            "rounds": self.classes.values().map(|(rounds, _)| rounds).sum::<u64>(),
            "round_ms": {"shortest": shortest, "median": median, "longest": longest},
            "faults": classes.collect::<serde_json::Map<_, _>>(),
            "invoked": self.counts.invoked, "acknowledged": self.counts.acknowledged,
            "reads": self.counts.reads, "checks": self.counts.checks, "violations": self.violations,
        })
        .to_string()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10} {:>8} {:>10}", "fault", "rounds", "hits")?;
        for (class, (rounds, hits)) in &self.classes {
            writeln!(f, "{:<10} {rounds:>8} {hits:>10}", class.name())?;
        }
        let Counts { invoked, acknowledged, reads, checks } = self.counts;
        writeln!(f, "{invoked} changes made, {acknowledged} acknowledged, {reads} documents read, {checks} checks")?;
        let [shortest, median, longest] = self.round_times;
        writeln!(f, "{:.1?} in all, a round {shortest:.1?} to {longest:.1?}, median {median:.1?}", self.time)?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "VIOLATION: {violation}"))?;
        self.idle().iter().try_for_each(|class| writeln!(f, "RED: the fault {class} never hit anything"))?;
        write!(f, "{}", if self.is_good() { "good" } else { "NOT GOOD" })
    }
}

struct Campaign {
    history: History,
    checker: Checker,
    random: StdRng,
    outcome: Outcome,
    round_times: Vec<Duration>,
    disk: Option<Ground>,
    next_document: DocumentId,
}

/// Runs a campaign. A broken promise is part of the outcome.
///
/// # Errors
/// When the machine lacks what the plan needs.
pub async fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let mut campaign = Campaign {
        history: History::new(plan.history.as_deref())?,
        checker: Checker::default(),
        random: StdRng::seed_from_u64(plan.seed),
        outcome: Outcome::default(),
        round_times: Vec::new(),
        disk: None,
        next_document: 0,
    };
    if plan.classes.iter().any(|class| class.needs_disk()) {
        let disk = Disk::default();
        let mount = Mount::new(disk.clone()).context("the disk that can fail cannot be mounted")?;
        let place = disk.place(&Image::new());
        campaign.disk = Some(Ground::Faulty { disk, mount, place });
    }
    let mut decks = [Deck::new(plan, false), Deck::new(plan, true)];
    let mut left = plan.rounds;
    while left > 0 && started.elapsed() < plan.time && campaign.outcome.violations.is_empty() {
        let deck = &mut decks[0];
        if !deck.classes.is_empty() {
            let rounds = left.min(EPOCH_ROUNDS).min(deck.classes.len().max(10) as u64);
            left -= campaign.epoch(deck, rounds, &started, plan.time).await;
        }
        decks.rotate_left(1);
    }
    campaign.history.finish().context("the history could not be written")?;
    campaign.round_times.sort_unstable();
    let times = &campaign.round_times;
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    campaign.outcome.round_times = [at(0), at(times.len() / 2), at(times.len().saturating_sub(1))];
    campaign.outcome.time = started.elapsed();
    campaign.outcome.counts = campaign.checker.counts();
    Ok(campaign.outcome)
}

/// Classes in a drawn order, each as often as the others.
struct Deck {
    classes: Vec<Class>,
    drawn: Vec<Class>,
}

impl Deck {
    fn new(plan: &Plan, on_disk: bool) -> Self {
        let classes = plan.classes.iter().copied().filter(|class| class.needs_disk() == on_disk).collect();
        Self { classes, drawn: Vec::new() }
    }

    fn draw(&mut self, random: &mut StdRng) -> Option<Class> {
        if self.drawn.is_empty() {
            self.drawn.clone_from(&self.classes);
            self.drawn.shuffle(random);
        }
        self.drawn.pop()
    }
}

impl Campaign {
    /// One world from start to end; rounds that were begun.
    async fn epoch(&mut self, deck: &mut Deck, rounds: u64, started: &Instant, time: Duration) -> u64 {
        let mut begun = 0;
        if let Err(error) = self.play(deck, rounds, started, time, &mut begun).await {
            self.outcome.violations.push(format!("{error:#}"));
        }
        self.judge();
        begun
    }

    async fn play(
        &mut self,
        deck: &mut Deck,
        rounds: u64,
        started: &Instant,
        time: Duration,
        begun: &mut u64,
    ) -> anyhow::Result<()> {
        let on_disk = deck.classes.iter().any(|class| class.needs_disk());
        let ground = if on_disk { self.disk.take().context("the disk is in use")? } else { Ground::Plain };
        let random = StdRng::seed_from_u64(self.random.random());
        let mut world = World::start(self.history.clone(), ground, random, self.next_document).await?;
        self.next_document = world.next_document();
        while *begun < rounds && started.elapsed() < time {
            let Some(class) = deck.draw(&mut self.random) else { break };
            *begun += 1;
            let began = Instant::now();
            let hits = round(&mut world, class).await.with_context(|| format!("round of {class}"))?;
            self.round_times.push(began.elapsed());
            let counts = self.outcome.classes.entry(class).or_default();
            *counts = (counts.0 + 1, counts.1 + hits);
            self.judge();
            if !self.outcome.violations.is_empty() {
                bail!("found in a round of {class}");
            }
        }
        world.settle().await?;
        let ground = world.end().await?;
        if on_disk {
            self.disk = Some(ground);
        }
        Ok(())
    }

    fn judge(&mut self) {
        let events: Vec<Event> = self.history.take();
        let before = self.checker.violations().len();
        self.checker.observe(&events);
        let found = self.checker.violations()[before..].iter().map(|violation| format!("{violation:?}"));
        self.outcome.violations.extend(found);
    }
}

async fn round(world: &mut World, class: Class) -> anyhow::Result<u64> {
    match class {
        Class::Kill => rounds::kill(world).await,
        Class::Stop => rounds::stop(world).await,
        Class::Delay => rounds::weather(world, Weather::Delay(Duration::ZERO)).await,
        Class::Rate => rounds::weather(world, Weather::Rate(0)).await,
        Class::BlackHole => rounds::weather(world, Weather::BlackHole).await,
        Class::HalfOpen => rounds::weather(world, Weather::HalfOpen).await,
        Class::Reset => rounds::weather(world, Weather::Reset).await,
        Class::Cut => rounds::weather(world, Weather::Cut(0)).await,
        Class::Backup => rounds::backup(world).await,
        Class::Clone => rounds::clone(world).await,
        Class::Clock => rounds::clock(world).await,
        Class::LinkDown => rounds::outage(world, false).await,
        Class::OneWay => rounds::outage(world, true).await,
        Class::Strangers => strangers::strangers(world).await,
        Class::Expiry => expiry::expiry(world).await,
        Class::Power => disk_rounds::power(world).await,
        Class::Full => disk_rounds::full(world).await,
        Class::Fsync => disk_rounds::failed_sync(world).await,
    }
}

/// The classes that this machine can do, and why it cannot do the others.
#[must_use]
pub fn possible() -> (Vec<Class>, Vec<String>) {
    let mut reasons = Vec::new();
    let no_disk = syncline_disk::unavailable();
    let no_clock = clock::library().is_none();
    reasons.extend(no_disk.iter().map(|reason| format!("power, full and fsync are left out: {reason}")));
    if no_clock {
        reasons.push("clock and expiry are left out: libfaketime is not installed".to_owned());
    }
    let no_network = network::unavailable();
    reasons.extend(no_network.iter().map(|reason| format!("linkdown and oneway are left out: {reason}")));
    let cannot = |class: &Class| match class {
        Class::Power | Class::Full | Class::Fsync => no_disk.is_some(),
        Class::Clock | Class::Expiry => no_clock,
        Class::LinkDown | Class::OneWay => no_network.is_some(),
        Class::Kill
        | Class::Stop
        | Class::Delay
        | Class::Rate
        | Class::BlackHole
        | Class::HalfOpen
        | Class::Reset
        | Class::Cut
        | Class::Backup
        | Class::Clone
        | Class::Strangers => false,
    };
    (Class::ALL.iter().copied().filter(|class| !cannot(class)).collect(), reasons)
}
