//! The stored form of graph nodes that lie under a snapshot.
//!
//! Owns: the record format, docs/store.md "Records". Must not: hold what can be computed (sequence numbers, bases).
//! Next: `graph.rs`.
//!
//! A record: 32 bytes of hash; varint count of dependencies, each as varint distance back from this node; varint actor
//! number, and at an actor's first record its length (varint) and bytes; varint start op; varint operation count; varint
//! count of the runs of operations of one kind that begin here, and for each: varint distance of its first operation from
//! the start op; varint of what the operations are (bits 0 and 1: 1 makes a map, 2 a list, 3 a text; bit 2: inserts); where
//! they insert, varint actor number and varint counter of the list or text.

use super::kinds::{ActorNumber, Kind, KindRun, Object};
use super::{Graph, GraphError};
use crate::ChangeHash;
use crate::change::{Actor, ObjectType};

/// In what a run's operations are: they insert into a list or text.
const INSERTS: u64 = 0b100;

pub(super) fn encode(graph: &Graph, from: u32, to: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity((to.saturating_sub(from)) as usize * 40);
    for index in from..to.min(graph.len()) {
        let node = graph.nodes.at(index);
        out.extend_from_slice(&graph.hashes.at(index).0);
        let deps = graph.deps(index);
        write_varint(&mut out, deps.len() as u64);
        for dep in &deps {
            write_varint(&mut out, u64::from(index - dep));
        }
        write_varint(&mut out, u64::from(node.actor));
        let log = &graph.actors[node.actor as usize];
        if log.nodes.at(0) == index {
            write_varint(&mut out, log.actor.as_bytes().len() as u64);
            out.extend_from_slice(log.actor.as_bytes());
        }
        write_varint(&mut out, u64::from(node.start_op));
        write_varint(&mut out, u64::from(node.operations));
        let runs: smallvec::SmallVec<[KindRun; 4]> = graph.kinds_of(index).collect();
        write_varint(&mut out, runs.len() as u64);
        for run in &runs {
            write_run(&mut out, node.start_op, run);
        }
    }
    out
}

fn write_run(out: &mut Vec<u8>, start_op: u32, run: &KindRun) {
    write_varint(out, u64::from(run.first - start_op));
    let makes = match run.kind.makes {
        None => 0,
        Some(ObjectType::Map) => 1,
        Some(ObjectType::List) => 2,
        Some(ObjectType::Text) => 3,
    };
    match run.kind.inserts_into {
        None => write_varint(out, makes),
        Some(object) => {
            write_varint(out, makes | INSERTS);
            write_varint(out, u64::from(object.actor.get() - 1));
            write_varint(out, u64::from(object.counter));
        }
    }
}

pub(super) fn decode(graph: &mut Graph, piece: &[u8]) -> Result<(), GraphError> {
    let mut reader = Reader { bytes: piece, at: 0 };
    while reader.at < piece.len() {
        let hash: [u8; 32] = reader.take(32)?.try_into().map_err(|_| reader.damaged())?;
        let index = graph.len();
        let mut deps = smallvec::SmallVec::<[u32; 4]>::new();
        for _ in 0..reader.varint()? {
            let distance = u32::try_from(reader.varint()?).map_err(|_| reader.damaged())?;
            let dep = index.checked_sub(distance).filter(|dep| *dep < index).ok_or_else(|| reader.damaged())?;
            deps.push(dep);
        }
        let number = usize::try_from(reader.varint()?).map_err(|_| reader.damaged())?;
        let actor = if number == graph.actors.len() {
            let length = usize::try_from(reader.varint()?).map_err(|_| reader.damaged())?;
            let actor = Actor::from_bytes(reader.take(length)?).map_err(|_| reader.damaged())?;
            if graph.actor_numbers.contains_key(&actor) {
                return Err(reader.damaged());
            }
            actor
        } else {
            graph.actors.get(number).ok_or_else(|| reader.damaged())?.actor.clone()
        };
        let start_op = u32::try_from(reader.varint()?).ok().filter(|op| *op > 0).ok_or_else(|| reader.damaged())?;
        let operations = u32::try_from(reader.varint()?).map_err(|_| reader.damaged())?;
        // Both lists of an actor are searched by counter, so both must rise.
        let before = graph.actors.get(number).map(|log| log.nodes.at(log.nodes.len() as u32 - 1));
        if before.is_some_and(|before| graph.last_op(before) >= u64::from(start_op)) {
            return Err(reader.damaged());
        }
        graph.append(ChangeHash(hash), &deps, &actor, start_op, operations)?;
        for _ in 0..reader.varint()? {
            let run = reader.run(start_op, operations, graph.actors.len() as u64)?;
            let runs = &mut graph.actors[number].kinds;
            if (runs.len() as u32).checked_sub(1).is_some_and(|last| runs.at(last).first >= run.first) {
                return Err(reader.damaged());
            }
            runs.push(run);
        }
    }
    Ok(())
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], GraphError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or_else(|| self.damaged())?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn run(&mut self, start_op: u32, operations: u32, actors: u64) -> Result<KindRun, GraphError> {
        let distance = self.varint_below(u64::from(operations))?;
        let what = self.varint_below(2 * INSERTS)?;
        let makes = match what & !INSERTS {
            0 => None,
            1 => Some(ObjectType::Map),
            2 => Some(ObjectType::List),
            _ => Some(ObjectType::Text),
        };
        let inserts_into = if what & INSERTS == 0 {
            None
        } else {
            let actor = ActorNumber::MIN.saturating_add(self.varint_below(actors)? as u32);
            Some(Object { actor, counter: self.varint_below(1 << 32)? as u32 })
        };
        let first = start_op.checked_add(distance as u32).ok_or_else(|| self.damaged())?;
        Ok(KindRun { first, kind: Kind { makes, inserts_into } })
    }

    fn varint_below(&mut self, end: u64) -> Result<u64, GraphError> {
        let value = self.varint()?;
        if value < end { Ok(value) } else { Err(self.damaged()) }
    }

    fn varint(&mut self) -> Result<u64, GraphError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.damaged())
    }

    fn damaged(&self) -> GraphError {
        GraphError::DamagedIndex { at: self.at }
    }
}
