//! Anything that strangers, the store, the clock and the application may do to sessions and a hub, in any order.
//!
//! Owns: the script's actions. Must not: judge outputs; `world.rs` does.
//! Next: `session/world.rs`, `session/memory.rs`.

mod memory;
mod world;

use std::time::Duration;

use bytes::Bytes;
use syncline_core::ChangeHash;
use syncline_core::clock::Stamp;
use syncline_core::hub::Input;
use syncline_core::id::{DocumentId, ReplicaId};
use syncline_core::life::Life;
use syncline_core::limits::Limits;
use syncline_core::native::NativeMessage;
use syncline_core::sync::bloom::Bloom;
use syncline_core::sync::message::{Flags, Have, Message, Version};
use syncline_core::wire::{Body, encode};

use crate::forge;
use crate::pool::{Pool, pool};
use crate::script::Script;
use world::{DOCUMENTS, World};

/// Limits so low that a short script meets all of them.
fn limits() -> Limits {
    Limits {
        join_frame_bytes_max: 300,
        message_bytes_max: 16 * 1024,
        inflate_bytes_max: 64 * 1024,
        orphans_max: 3,
        session_documents_max: 2,
        queue_messages_max: 6,
        queue_bytes_max: 3 * 1024,
        ephemeral_bytes_max: 100,
        ephemeral_per_second_max: 3,
        message_hashes_max: 16,
        remote_subscriptions_max: 3,
        graph_cache_bytes: 2 * 1024,
        fetch_bytes_max: 1024,
        ..crate::limits()
    }
}

/// Actions, each a byte and what it needs.
pub fn session(data: &[u8]) {
    let mut world = World::new(limits());
    let mut script = Script::new(data);
    while !script.is_empty() {
        act(&mut world, &mut script);
    }
    world.settle();
    world.leave_nothing_behind();
}

fn act(world: &mut World, script: &mut Script<'_>) {
    match script.byte() % 20 {
        0 => world.connect(script.byte()),
        1 => {
            let who = script.byte();
            let frame = script.block();
            world.frame(who, Bytes::copy_from_slice(frame));
        }
        2 => {
            let who = script.byte();
            world.text(who);
        }
        3..=6 => {
            let who = script.byte();
            let frame = sync_frame(world, who, script);
            world.frame(who, frame);
        }
        7 => {
            let who = script.byte();
            let frame = other_frame(world, who, script);
            world.frame(who, frame);
        }
        8..=11 => world.store_answers(true),
        12 => world.store_answers(false),
        13 => {
            let millis = script.number(2) * 4;
            world.advance(Duration::from_millis(millis));
        }
        14 => {
            let who = script.byte();
            world.drained(who);
        }
        15 => {
            let who = script.byte();
            world.disconnect(who);
        }
        16 => {
            let document = DOCUMENTS[script.below(DOCUMENTS.len())];
            let covered = script.byte();
            world.compact(document, covered.into());
        }
        17 => local(world, script),
        18 => world.store_answers_all(),
        _ => {
            let who = script.byte();
            world.join_timed_out(who);
        }
    }
}

/// What the application does.
fn local(world: &mut World, script: &mut Script<'_>) {
    let document = world::id(DOCUMENTS[script.below(DOCUMENTS.len())]);
    match script.byte() {
        choice @ 224.. => {
            let (deleted, ticket) = (choice % 2 == 0, u64::from(choice));
            world.input(Input::SetLife { document, deleted, ticket });
        }
        choice => local_change(world, script, document, choice),
    }
}

fn local_change(world: &mut World, script: &mut Script<'_>, document: DocumentId, choice: u8) {
    match choice % 4 {
        0 => world.input(Input::Watch { document }),
        1 => world.input(Input::Unwatch { document }),
        2 => {
            let session = world.session(script.byte());
            world.input(Input::Initiate { session, document });
        }
        _ => {
            let from = script.below(pool().honest);
            let until = (from + 1 + script.below(4)).min(pool().honest);
            let changes = pool().changes[from..until].to_vec();
            world.input(Input::Local { document, changes, ticket: from as u64 });
        }
    }
}

/// A sync message made of the pool, which may be true or not.
fn sync_frame(world: &World, who: u8, script: &mut Script<'_>) -> Bytes {
    let pool = pool();
    let document = world::id(DOCUMENTS[script.below(DOCUMENTS.len())]);
    let shape = script.byte();
    let mut message = Message {
        version: if shape & 1 == 0 { Version::V1 } else { Version::V2 },
        heads: hashes(script),
        need: if shape & 2 == 0 { Vec::new() } else { hashes(script) },
        have: Vec::new(),
        changes: Vec::new(),
        flags: None,
    };
    if shape & 4 != 0 {
        let members = hashes(script);
        let mut bloom = Vec::new();
        Bloom::from_hashes(&members).encode(&mut bloom);
        if let (Some(byte), true) = (bloom.get_mut(script.below(4)), shape & 8 != 0) {
            *byte = script.byte();
        }
        message.have.push(Have { last_sync: hashes(script), bloom: bloom.into() });
    }
    if shape & 16 != 0 {
        let bits = script.byte();
        message.flags = Some(Flags { reset: bits & 1 != 0, read_only: bits & 2 != 0, supports_reset: bits & 4 != 0 });
    }
    if shape & 32 != 0 {
        message.changes = brought(pool, script);
    }
    let mut data = Vec::new();
    message.encode(&mut data);
    let data = Bytes::from(data);
    let body = if shape & 64 == 0 { Body::Sync { document, data } } else { Body::Request { document, data } };
    let mut frame = Vec::new();
    encode(&world.name(who), None, &body, &mut frame);
    Bytes::from(frame)
}

fn hashes(script: &mut Script<'_>) -> Vec<ChangeHash> {
    let count = script.below(4);
    let choose = |choice: u8| {
        let known = pool().changes.get(usize::from(choice));
        known.map_or(ChangeHash([choice; 32]), |change| change.hash)
    };
    let mut hashes: Vec<_> = (0..count).map(|_| choose(script.byte())).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// Elements of a message: stretches of the pool, documents, and damaged ones of both.
fn brought(pool: &Pool, script: &mut Script<'_>) -> Vec<Bytes> {
    let mut elements = Vec::new();
    for _ in 0..1 + script.below(4) {
        let kind = script.byte();
        let from = script.below(pool.len());
        let until = (from + 1 + script.below(16)).min(pool.len());
        let mut element: Vec<u8> = match kind % 4 {
            0 | 1 => pool.changes[from..until].iter().flat_map(|change| change.bytes.to_vec()).collect(),
            2 => pool.saved(from),
            _ => {
                let own = script.block();
                forge::chunk(script.byte() % 5, own)
            }
        };
        if kind & 0x80 != 0 && element.len() > 9 {
            let bit = script.number(2) as usize % (forge::body(&element).len().max(1) * 8);
            element = if forge::body(&element).is_empty() { element } else { forge::flipped(&element, bit) };
        }
        elements.push(element.into());
    }
    elements
}

/// A message of the native extension, and now and then something like one.
fn native(script: &mut Script<'_>, document: DocumentId) -> Bytes {
    let (choice, stamp) = (script.byte(), script.number(8));
    if choice >= 192 {
        return Bytes::copy_from_slice(script.block());
    }
    let life = Life { stamp: Stamp::from_u64(stamp), replica: ReplicaId([choice % 3; 16]), deleted: choice % 2 == 0 };
    NativeMessage::Life { document, life }.encode()
}

fn other_frame(world: &World, who: u8, script: &mut Script<'_>) -> Bytes {
    let document = world::id(DOCUMENTS[script.below(DOCUMENTS.len())]);
    let store = |script: &mut Script<'_>| world::storage(script.byte() % 4);
    let choice = script.byte();
    let body = match choice % 8 {
        _ if choice >= 224 => Body::Native { data: native(script, document) },
        0 => Body::DocUnavailable { document },
        1 => Body::Leave,
        2 => {
            let (count, data) = (script.number(1), Bytes::copy_from_slice(script.block()));
            Body::Ephemeral { document, count, session: "tab", data }
        }
        3 => Body::RemoteSubscriptionChange { add: vec![store(script), store(script)], remove: vec![store(script)] },
        4 => {
            let heads = hashes(script);
            let storage_id = store(script);
            let heads =
                vec![syncline_core::wire::RemoteHeads { storage_id, heads, timestamp_ms: script.number(2) as f64 }];
            Body::RemoteHeadsChanged { document, heads }
        }
        5 => Body::Error { message: "said the peer" },
        6 => Body::Join { metadata: world::metadata(script.byte()), versions: Some(vec!["1"]) },
        _ => Body::Peer { metadata: world::metadata(script.byte()), selected_version: Some("1") },
    };
    let mut frame = Vec::new();
    encode(&world.name(who), None, &body, &mut frame);
    Bytes::from(frame)
}
