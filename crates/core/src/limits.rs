//! Every bound of the engine, with its default.
//!
//! Owns: the numbers. Must not: enforce them; that is the part's that meets the input.
//! Next: `change.rs`, `session.rs`, `hub.rs`; docs/protocol.md §7.

use std::time::Duration;

/// Bounds on what peers may make a replica do. Each field's unit ends its name.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest frame before a peer has joined, bytes.
    pub join_frame_bytes_max: usize,
    /// Longest wait between a connection and its join.
    pub join_timeout: Duration,
    /// Largest message, and so the largest document that can travel, bytes.
    pub message_bytes_max: usize,
    /// Largest size to which one compressed chunk may inflate, bytes.
    pub inflate_bytes_max: usize,
    /// Most operations in one change.
    pub change_operations_max: u64,
    /// Most operations in one document.
    pub document_operations_max: u64,
    /// Most changes that wait for their dependencies, per document.
    pub orphans_max: usize,
    /// Most bytes of changes that wait for their dependencies, per document.
    pub orphan_bytes_max: usize,
    /// Most documents that one connection may have open.
    pub session_documents_max: usize,
    /// Most bytes of received but not yet handled messages of one connection, beyond one message.
    pub receive_bytes_max: usize,
    /// Most messages queued for one connection by one hub.
    pub queue_messages_max: usize,
    /// Most bytes queued for one connection by one hub, beyond one message.
    pub queue_bytes_max: usize,
    /// Longest that a connection may take nothing of what is queued for it.
    pub stall_timeout: Duration,
    /// Silence after which a connection is pinged, and at twice of which it is closed.
    pub ping_interval: Duration,
    /// Largest ephemeral message, bytes.
    pub ephemeral_bytes_max: usize,
    /// Most ephemeral messages per second of a peer that dialled us; so many are also passed on to one that we dialled.
    pub ephemeral_per_second_max: u32,
    /// Most ephemeral messages per second of a peer that we dialled: it passes on what everybody says there.
    pub ephemeral_relayed_per_second_max: u32,
    /// Most messages per second and connection, in the long run; what comes faster is read later.
    pub messages_per_second_max: u32,
    /// Most bytes per second and connection, in the long run; what comes faster is read later.
    pub bytes_per_second_max: u64,
    /// Most changes in one document that peers may add to.
    pub document_changes_max: u32,
    /// Most bytes of one document that peers may add to, about.
    pub document_bytes_max: u64,
    /// Most bytes of changes that one subject may have stored, in all documents; `None` counts nothing.
    pub subject_bytes_max: Option<u64>,
    /// Whether an actor belongs to the subject that first wrote as it. Only from the start on.
    pub bind_actors: bool,
    /// Most connections at one time of one subject.
    pub subject_connections_max: usize,
    /// Most heads, needs or last-sync hashes in one message.
    pub message_hashes_max: usize,
    /// Most probes of a Bloom filter.
    pub bloom_probes_max: u32,
    /// Most bits per entry of a Bloom filter.
    pub bloom_bits_per_entry_max: u32,
    /// Most storage ids one connection may subscribe to.
    pub remote_subscriptions_max: usize,
    /// Bytes of change graphs that a hub keeps loaded before it evicts the least recently used.
    pub graph_cache_bytes: usize,
    /// Bytes of document payloads that a hub may have asked the store for at one time, beyond one document.
    pub fetch_bytes_max: usize,
    /// Largest blob that is taken from a peer, bytes.
    pub blob_bytes_max: u64,
    /// Most bytes that all blobs on a server take; a client's bound is in its store's options.
    pub blobs_bytes_max: u64,
    /// Bytes of one blob that may be asked for and not be stored yet.
    pub blob_window_bytes: u64,
    /// Most blobs that one connection may send at one time, and most that it may want.
    pub blob_transfers_max: usize,
    /// Longest that whoever sends a blob may send nothing of it.
    pub blob_stall_timeout: Duration,
    /// Most rounds that a peer begins on one connection in a minute, and most at once.
    pub rounds_per_minute_max: u32,
    /// Most bytes that are received in one round.
    pub round_bytes_max: usize,
    /// Longest that the other side of a round may say nothing.
    pub round_stall_timeout: Duration,
    /// Most elements of a peer of which one round asks for the documents.
    pub round_missing_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            join_frame_bytes_max: 4 * 1024,
            join_timeout: Duration::from_secs(5),
            message_bytes_max: 64 * MIB,
            inflate_bytes_max: 64 * MIB,
            change_operations_max: 100_000,
            document_operations_max: 20_000_000,
            orphans_max: 256,
            orphan_bytes_max: MIB,
            session_documents_max: 10_000,
            receive_bytes_max: MIB,
            queue_messages_max: 256,
            queue_bytes_max: MIB,
            stall_timeout: Duration::from_secs(20),
            ping_interval: Duration::from_secs(30),
            ephemeral_bytes_max: 32 * 1024,
            ephemeral_per_second_max: 50,
            ephemeral_relayed_per_second_max: 1_000,
            messages_per_second_max: 5_000,
            bytes_per_second_max: 64 * MIB as u64,
            document_changes_max: 10_000_000,
            document_bytes_max: 1024 * MIB as u64,
            subject_bytes_max: None,
            bind_actors: false,
            subject_connections_max: 256,
            message_hashes_max: 65_536,
            bloom_probes_max: 16,
            bloom_bits_per_entry_max: 64,
            remote_subscriptions_max: 1_024,
            graph_cache_bytes: 64 * MIB,
            fetch_bytes_max: 8 * MIB,
            blob_bytes_max: 1024 * MIB as u64,
            blobs_bytes_max: 16 * 1024 * MIB as u64,
            blob_window_bytes: 512 * 1024,
            blob_transfers_max: 16,
            blob_stall_timeout: Duration::from_secs(30),
            rounds_per_minute_max: 30,
            round_bytes_max: 64 * MIB,
            round_stall_timeout: Duration::from_secs(30),
            round_missing_max: 65_536,
        }
    }
}
