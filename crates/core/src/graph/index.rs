//! The stored form of graph nodes that lie under a snapshot.
//!
//! Owns: the record format, docs/store.md "Records". Must not: hold what can be computed (sequence numbers, bases).
//! Next: `graph.rs`.
//!
//! A record: 32 bytes of hash; varint count of dependencies, each as varint distance back from this node; varint actor
//! number, and at an actor's first record its length (varint) and bytes; varint start op; varint operation count.

use super::{Graph, GraphError};
use crate::ChangeHash;
use crate::change::Actor;

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
    }
    out
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
            Actor::from_bytes(reader.take(length)?).map_err(|_| reader.damaged())?
        } else {
            graph.actors.get(number).ok_or_else(|| reader.damaged())?.actor.clone()
        };
        let start_op = u32::try_from(reader.varint()?).ok().filter(|op| *op > 0).ok_or_else(|| reader.damaged())?;
        let operations = u32::try_from(reader.varint()?).map_err(|_| reader.damaged())?;
        graph.append(ChangeHash(hash), &deps, &actor, start_op, operations)?;
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
