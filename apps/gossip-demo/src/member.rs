//! This machine: its documents, its place in the mesh, its board.
//!
//! Owns: the start and the end, what neighbours are shown, what people are told of neighbours.
//! Must not: draw or read keys. Next: `board.rs`, `screen.rs`, `headless.rs`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde_json::{Value, json};
use syncline::mesh::{MeshConfig, MeshKey, MeshStatus, NeighbourStatus};
use syncline::{Mesh, Repo, block_on};

use crate::board::{Board, BoardState};

/// Heads that neighbours are shown.
const HEADS_SHOWN: usize = 4;

/// Longest name, characters.
const NAME_MAX: usize = 24;

pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) board: Board,
    pub(crate) mesh: Arc<Mesh>,
    repo: Repo,
}

/// What people are told at one time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Status {
    pub(crate) name: String,
    pub(crate) member: String,
    pub(crate) listening: String,
    pub(crate) online: bool,
    /// Others that are known beside the neighbours.
    pub(crate) known: usize,
    /// The clock's stamp: time of day, and the counter behind it.
    pub(crate) stamp: String,
    pub(crate) peers: Vec<Peer>,
    pub(crate) board: BoardState,
    pub(crate) notices: (u64, u64, u64),
}

/// A neighbour, in words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) standing: Standing,
    pub(crate) heads: Vec<String>,
    pub(crate) changes: u64,
    pub(crate) latency: Option<Duration>,
    /// How far its clock is ahead of ours, milliseconds.
    pub(crate) skew_ms: Option<i64>,
    /// How long ago it was compared with, and how much that found.
    pub(crate) repaired: Option<(Duration, u64)>,
    pub(crate) since: Duration,
}

/// Who is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing is known of its board yet.
    Unknown,
    /// It has what is here.
    Same,
    /// It lacks something that is here.
    Behind,
    /// It has something that is not here.
    Ahead,
}

impl Member {
    pub(crate) fn start(name: &str, data: &Path, key: &MeshKey, config: MeshConfig) -> anyhow::Result<Self> {
        let repo = Repo::open(data).with_context(|| format!("cannot open {}", data.display()))?;
        let board = Board::open(&repo, key)?;
        let config = config.only([&board.document().url()]);
        let mesh = Arc::new(block_on(repo.join_mesh(config))?);
        let member = Self { name: name.chars().take(NAME_MAX).collect(), board, mesh, repo };
        show(&member.mesh, &member.name, &member.board.progress()?);
        Ok(member)
    }

    /// Shows neighbours how far the board is here whenever it changes, and tells the caller too, until the repo is closed.
    pub(crate) fn follow(&self, mut tell: impl FnMut(&(Vec<String>, u64)) + Send + 'static) {
        let (mut watch, board) = (self.board.document().watch(), self.board.clone());
        let (mesh, name) = (Arc::clone(&self.mesh), self.name.clone());
        std::thread::spawn(move || {
            while block_on(watch.changed()).is_ok() {
                let Ok(progress) = board.progress() else { return };
                show(&mesh, &name, &progress);
                tell(&progress);
            }
        });
    }

    /// All of it, with so many lines of the chat at most.
    pub(crate) fn status(&self, lines_max: usize) -> anyhow::Result<Status> {
        let status = self.mesh.status();
        let board = self.board.state(lines_max)?;
        let peers = status.neighbours.iter().map(|neighbour| self.peer(neighbour, &status, &board)).collect();
        let notices = (status.notices.published, status.notices.received, status.notices.repeated);
        let listening = self.mesh.listening().map(|address| format!("ws://{address}"));
        Ok(Status {
            name: self.name.clone(),
            member: status.member.to_string(),
            listening: listening.unwrap_or_default(),
            online: status.online,
            known: status.known,
            stamp: format!("{}+{}", time_of_day(status.stamp.millis()), status.stamp.counter()),
            peers,
            board,
            notices,
        })
    }

    fn peer(&self, neighbour: &NeighbourStatus, mesh: &MeshStatus, board: &BoardState) -> Peer {
        let about: Value = serde_json::from_slice(&neighbour.about).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(printable).unwrap_or_default();
        let heads: Vec<String> = about["heads"].as_array().into_iter().flatten().map(text).collect();
        let changes = about["changes"].as_u64().unwrap_or_default();
        let latency = neighbour.latency;
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let skew_ms = neighbour.stamp.zip(latency).map(|((stamp, heard_at), latency)| {
            let ago = mesh.at.saturating_sub(heard_at) + latency;
            stamp.millis() as i64 - (wall_ms - ago.as_millis() as i64)
        });
        let name = text(&about["name"]);
        Peer {
            name: if name.is_empty() { neighbour.member.to_string() } else { name },
            standing: self.standing(&heads, changes, board),
            heads,
            changes,
            latency,
            skew_ms,
            repaired: neighbour.repaired.map(|(at, found)| (mesh.at.saturating_sub(at), found)),
            since: mesh.at.saturating_sub(neighbour.since),
        }
    }

    fn standing(&self, heads: &[String], changes: u64, board: &BoardState) -> Standing {
        if heads.is_empty() {
            Standing::Unknown
        } else if heads == &board.heads[..board.heads.len().min(HEADS_SHOWN)] && changes == board.changes {
            Standing::Same
        } else if heads.iter().all(|head| self.board.knows(head)) {
            Standing::Behind
        } else {
            Standing::Ahead
        }
    }

    /// Leaves the mesh and makes everything durable.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.mesh.set_online(false);
        block_on(self.repo.close())?;
        Ok(())
    }
}

/// Shows neighbours the name and how far the board is here.
fn show(mesh: &Mesh, name: &str, (heads, changes): &(Vec<String>, u64)) {
    let heads = &heads[..heads.len().min(HEADS_SHOWN)];
    let about = json!({ "name": name, "heads": heads, "changes": changes });
    mesh.show(about.to_string());
}

/// What a neighbour says of itself reaches a terminal: nothing in it may move a cursor.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Hours, minutes, seconds and milliseconds, UTC.
fn time_of_day(millis: u64) -> String {
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_neighbour_says_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a[2Jb");
        assert_eq!(printable(&"x".repeat(100)).len(), 64);
    }

    #[test]
    fn a_stamp_is_shown_as_a_time_of_day() {
        assert_eq!(time_of_day(1_700_000_000_123), "22:13:20.123");
    }
}
