//! What can happen in a world, as data: a scenario is a list of these and nothing else.
//!
//! Owns: the kinds, their class, their text form. Must not: know what a kind does; `world.rs` does.
//! Next: `scenario.rs`, `world/act.rs`.

use std::fmt;
use std::str::FromStr;

use crate::scenario::Tier;

/// One step of a scenario. `who` and `value` are taken modulo what there is, so that every action means something in
/// every world, also after others were cut out of the scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) kind: Kind,
    pub(crate) who: u8,
    pub(crate) value: u64,
}

/// The stream that an action is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Workload,
    Network,
    Disk,
    Clock,
    Crash,
    Hostile,
    Access,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $kind:ident, $class:ident, $fault:literal;)*) => {
        /// The kinds of actions. Their text form is the name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($(#[doc = $doc])* $kind,)* }

        impl Kind {
            pub(crate) const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Whether it comes in this tier: some mean something only to a store on a disk.
            pub(crate) fn is_of(self, tier: Tier) -> bool {
                match tier {
                    // Forged changes are not to be read.
                    Tier::T0 => self < Self::SyncFails && self != Self::Undo,
                    Tier::T1 => self < Self::SyncFails,
                    // Thirty days do not pass in such a world.
                    // Who may do what is played where the disk is an image: it says what was stored of whom.
                    Tier::T2 => self < Self::Lose && self != Self::Purge && self.class() != Class::Access,
                    Tier::Mesh => self >= Self::Lose || crate::mesh::SHARED.contains(&self),
                }
            }

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)* }
            }

            pub(crate) fn class(self) -> Class {
                match self { $(Self::$kind => Class::$class,)* }
            }

            /// Whether it is a fault: off in half of all scenarios, and missed in the report if it never came.
            pub(crate) fn is_fault(self) -> bool {
                match self { $(Self::$kind => $fault,)* }
            }
        }
    };
}

kinds! {
    /// A client writes.
    Edit, Workload, false;
    /// A machine's application writes.
    LocalEdit, Workload, false;
    /// A client says something that is not stored.
    Ephemeral, Workload, true;
    /// A client asks for the heads of another store.
    Subscribe, Workload, true;
    /// Somebody carries one client's changes to another by hand.
    CarryOver, Workload, true;
    /// Something that is under way arrives.
    Deliver, Network, false;
    /// A client or a machine dials, if it has no connection.
    Dial, Network, false;
    /// A connection breaks; both ends notice.
    Cut, Network, true;
    /// A connection breaks; only the dialler notices.
    HalfOpen, Network, true;
    /// A peer reads no more; what is sent to it waits.
    ClogDown, Network, true;
    /// What a peer sends is stuck on the way.
    ClogUp, Network, true;
    /// Stuck connections move again.
    Unclog, Network, false;
    /// The next commit finds the disk full.
    DiskFull, Disk, true;
    /// The next commit fails for good; it may be there after a restart all the same.
    DiskDies, Disk, true;
    /// The next read fails.
    ReadFails, Disk, true;
    /// Commits take long.
    DiskStalls, Disk, true;
    /// The store puts old changes into a snapshot.
    Compact, Disk, true;
    /// Time passes.
    Advance, Clock, false;
    /// So much time passes that everything idle leaves memory.
    LongPause, Clock, true;
    /// A machine's wall clock is set.
    WallJump, Clock, true;
    /// A machine's wall clock stands still.
    WallFreeze, Clock, true;
    /// A machine's clock runs too fast or too slowly.
    ClockRate, Clock, true;
    /// A machine loses power and starts again.
    PowerCut, Crash, true;
    /// A copy of a machine's disk is put aside.
    Backup, Crash, false;
    /// A machine starts from the copy.
    RestoreBackup, Crash, true;
    /// A machine starts with an empty disk.
    LoseDisk, Crash, true;
    /// A machine starts from a copy of another's disk, which goes on in use.
    CloneDisk, Crash, true;
    /// A client connects anew without what it knew of the server.
    ForgetSyncState, Crash, true;
    /// A client goes back to an older state of its document, under a new actor.
    ClientRollback, Crash, true;
    /// A client starts with nothing.
    ClientLoss, Crash, true;
    /// A hostile peer does something.
    HostileAct, Hostile, true;
    /// Whoever a machine belongs to deletes a document.
    Delete, Workload, true;
    /// Whoever a machine belongs to restores a document.
    Restore, Workload, true;
    /// Whoever a machine belongs to lets a document stay there alone.
    Withhold, Workload, true;
    /// Whoever a machine belongs to lets others have the document.
    Release, Workload, true;
    /// A machine's application takes its last change back.
    Undo, Workload, true;
    /// The grace period of a deleted document is over on a machine.
    Purge, Disk, true;
    /// A machine compares its documents with those of a peer.
    Compare, Network, false;
    /// Somebody may do something else on a machine than before.
    AccessChange, Access, true;
    /// What somebody may do on a machine ends soon.
    TokenEnds, Access, true;
    /// How much a document or a subject may have on a machine is another.
    Quota, Access, true;
    /// A machine has no room for what peers bring, or has again.
    RoomEnds, Access, true;
    /// A sync of the next few operations on the disk fails, and what it should have synced is forgotten.
    SyncFails, Disk, true;
    /// A write fails after half of it is on the disk.
    TornWrite, Disk, true;
    /// A write takes half, and says so.
    ShortWrite, Disk, true;
    /// A write goes to another place in the file, and says that all is well.
    Astray, Disk, true;
    /// A bit of the database changes by itself.
    BitRot, Disk, true;
    /// A message of the broadcast between members of a mesh is lost.
    Lose, Network, true;
    /// One comes twice.
    Repeat, Network, true;
    /// One overtakes the one before it.
    Overtake, Network, true;
    /// The members are cut in two.
    Partition, Network, true;
    /// They are not any more.
    Heal, Network, false;
    /// A member leaves the mesh for a while.
    GoOffline, Network, true;
    /// It is back.
    GoOnline, Network, false;
    /// Somebody without the key wants to be a member, or is dialled as one.
    Stranger, Hostile, true;
    /// A member sends again what was said before, to it or to others.
    Replay, Hostile, true;
    /// A member sends a notice that its author has not sealed.
    Forge, Hostile, true;
    /// A member seals a notice of something that is nothing.
    BadNotice, Hostile, true;
    /// A member lies in a round.
    LieInRound, Hostile, true;
    /// A member never agrees in a round, or never answers.
    EndlessRound, Hostile, true;
    /// A member has elements of documents that it never delivers.
    Undeliverable, Hostile, true;
    /// A member sends more than anybody may.
    Flood, Hostile, true;
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.kind.name(), self.who, self.value)
    }
}

impl FromStr for Action {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [name, who, value] = words[..] else { anyhow::bail!("not an action: {text}") };
        Ok(Self { kind: name.parse()?, who: who.parse()?, value: value.parse()? })
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        let kind = Self::ALL.iter().copied().find(|kind| kind.name() == name);
        kind.ok_or_else(|| anyhow::anyhow!("no such kind of action: {name}"))
    }
}
