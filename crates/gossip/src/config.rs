//! Every number of the overlay, with its default.
//!
//! Owns: the numbers. Must not: enforce them. Next: `overlay.rs`; docs/protocol.md §11.

use std::time::Duration;

/// How a member behaves. The defaults are those of docs/protocol.md §11.
#[derive(Debug, Clone)]
pub struct Config {
    /// Neighbours below which others are dialled.
    pub neighbours_wanted: usize,
    /// Neighbours above which one goes when another comes.
    pub neighbours_max: usize,
    /// Members that are remembered beside the neighbours.
    pub contacts_max: usize,
    /// Steps of the walk that makes a new member known.
    pub walk_steps: u8,
    /// Longest handshake.
    pub handshake_timeout: Duration,
    /// Between two looks at who could be dialled.
    pub dial_interval: Duration,
    /// The first wait after an address could not be dialled; doubles each time.
    pub dial_wait: Duration,
    /// The longest such wait.
    pub dial_wait_max: Duration,
    /// Between two exchanges of contacts.
    pub exchange_interval: Duration,
    /// Between two dials by a member that has enough neighbours.
    pub rotate_interval: Duration,
    /// Between two beats.
    pub beat_interval: Duration,
    /// Silence after which a neighbour counts as gone.
    pub silence_max: Duration,
    /// Longest wait before the names of notices are told to lazy neighbours.
    pub names_wait: Duration,
    /// Wait for a notice of which the name is known.
    pub graft_wait: Duration,
    /// Wait for a notice of what came by sync before the others are told of it; half of it for certain, half by chance.
    pub hearsay_wait: Duration,
    /// Notices kept to be sent again.
    pub kept_max: usize,
    /// Their bytes.
    pub kept_bytes_max: usize,
    /// How long they are kept.
    pub kept_for: Duration,
    /// Authors whose notices are told apart from repeated ones.
    pub authors_max: usize,
    /// Notices whose names are known and that are waited for.
    pub missing_max: usize,
    /// Notices that are not durable here yet.
    pub waiting_max: usize,
    /// Messages of one neighbour in a second, beyond a burst of twice as many.
    pub received_per_second_max: u32,
    /// Messages of the broadcast to one neighbour in a second, beyond a burst of twice as many.
    pub sent_per_second_max: u32,
    /// Notices of what is not stored, to one neighbour in a second, beyond a burst of twice as many. Together with the number
    /// above it is no more than a neighbour takes.
    pub fleeting_per_second_max: u32,
    /// Offences of one connection after which it is closed.
    pub offences_max: u32,
    /// The wait between repairs after a start.
    pub repair_wait: Duration,
    /// The shortest such wait.
    pub repair_wait_min: Duration,
    /// The longest such wait.
    pub repair_wait_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let (seconds, millis) = (Duration::from_secs, Duration::from_millis);
        Self {
            neighbours_wanted: 4,
            neighbours_max: 6,
            contacts_max: 64,
            walk_steps: 4,
            handshake_timeout: seconds(5),
            dial_interval: millis(500),
            dial_wait: seconds(1),
            dial_wait_max: seconds(15),
            exchange_interval: seconds(10),
            rotate_interval: seconds(15),
            beat_interval: seconds(2),
            silence_max: seconds(7),
            names_wait: millis(100),
            graft_wait: millis(400),
            hearsay_wait: seconds(2),
            kept_max: 1_024,
            kept_bytes_max: 4 * 1024 * 1024,
            kept_for: seconds(60),
            authors_max: 4_096,
            missing_max: 4_096,
            waiting_max: 1_024,
            received_per_second_max: 500,
            sent_per_second_max: 300,
            fleeting_per_second_max: 100,
            offences_max: 32,
            repair_wait: seconds(5),
            repair_wait_min: seconds(4),
            repair_wait_max: seconds(30),
        }
    }
}
