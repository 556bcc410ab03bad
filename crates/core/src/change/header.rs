//! A change chunk's fields before its columns, and where the columns lie.
//!
//! Owns: the order of the fields, and the bounds that need no operation. Must not: read a column.
//! Next: `change/operations.rs`.

use automerge::ChangeHash;
use smallvec::SmallVec;

use super::{Actor, COUNTER_MAX, ChangeError, TIME_MAX};
use crate::chunk::reader::{Damage, Reader};
use crate::limits::Limits;

const HASH_BYTES: usize = 32;

/// Most actors besides the author. An entry takes more memory than bytes, so the message's bound is not enough.
const OTHERS_MAX: u64 = 65_536;

/// In a column specification: the column is deflated.
const DEFLATED: u64 = 0b1000;

/// The fields of a change, borrowed from its chunk.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub(super) deps: SmallVec<[ChangeHash; 2]>,
    pub(super) actor: Actor,
    pub(super) seq: u64,
    pub(super) start_op: u64,
    pub(super) time: i64,
    message: &'a [u8],
    /// The other actors that operations name; index 0 in columns is the author, the first of these is 1.
    pub(super) others: SmallVec<[Actor; 4]>,
    pub(super) columns: Columns<'a>,
}

/// The columns of a change; an absent column is empty.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    pub(super) object_actor: &'a [u8],
    pub(super) object_counter: &'a [u8],
    pub(super) key_actor: &'a [u8],
    pub(super) key_counter: &'a [u8],
    pub(super) key_string: &'a [u8],
    pub(super) insert: &'a [u8],
    pub(super) action: &'a [u8],
    pub(super) value_kind: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) predecessor_count: &'a [u8],
    pub(super) predecessor_actor: &'a [u8],
    pub(super) predecessor_counter: &'a [u8],
    pub(super) expand: &'a [u8],
    pub(super) mark_name: &'a [u8],
}

impl<'a> Header<'a> {
    /// Reads the fields of a change chunk's body.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, ChangeError> {
        let mut reader = Reader::new(body);
        let deps = read_dependencies(&mut reader)?;
        let actor = read_actor(&mut reader)?;
        let seq = reader.unsigned().map_err(damaged("sequence number"))?;
        let start_op = reader.unsigned().map_err(damaged("first operation counter"))?;
        let time = reader.signed().map_err(damaged("time"))?;
        let message = reader.prefixed().map_err(damaged("message"))?;
        let others = read_others(&mut reader, &actor)?;
        let columns = Columns::read(&mut reader)?;
        // A zero would make the last counter wrap below it.
        if seq == 0 || seq > COUNTER_MAX {
            return Err(ChangeError::SequenceOutOfRange { seq });
        }
        if start_op == 0 {
            return Err(ChangeError::StartOutOfRange { start_op, operations: 0, end_max: COUNTER_MAX });
        }
        Ok(Self { deps, actor, seq, start_op, time, message, others, columns })
    }

    /// The bounds for a change from a peer.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), ChangeError> {
        let (dependencies, dependencies_max) = (self.deps.len() as u64, limits.message_hashes_max as u64);
        if dependencies > dependencies_max {
            return Err(ChangeError::TooManyDependencies { dependencies, dependencies_max });
        }
        if !self.deps.is_sorted_by(|left, right| left < right) {
            return Err(ChangeError::DependenciesUnsorted);
        }
        if self.time.unsigned_abs() > TIME_MAX {
            return Err(ChangeError::TimeOutOfRange { time: self.time });
        }
        std::str::from_utf8(self.message).map_err(|_| damaged("message")(Damage::NotUtf8))?;
        Ok(())
    }
}

impl<'a> Columns<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ChangeError> {
        let count = reader.unsigned().map_err(damaged("table of columns"))?;
        let mut layout: SmallVec<[(u64, usize); 14]> = SmallVec::new();
        let mut previous = None;
        for _ in 0..count {
            let spec = reader.unsigned().map_err(damaged("table of columns"))?;
            let length = reader.unsigned().map_err(damaged("table of columns"))?;
            if spec & DEFLATED != 0 {
                return Err(ChangeError::CompressedColumn);
            }
            if previous >= Some(spec) || length == 0 {
                return Err(ChangeError::ColumnsUnsorted);
            }
            previous = Some(spec);
            layout.push((spec, usize::try_from(length).map_err(|_| damaged("columns")(Damage::Truncated))?));
            // The specifications ascend, so an unknown one ends the loop before the table can grow.
            if Self::default().slot(spec).is_none() {
                return Err(ChangeError::UnknownColumn { spec });
            }
        }
        let mut columns = Self::default();
        for (spec, length) in layout {
            let bytes = reader.take(length).map_err(damaged("columns"))?;
            if let Some(slot) = columns.slot(spec) {
                *slot = bytes;
            }
        }
        Ok(columns)
    }

    /// A specification is the column's number times 16, plus its type.
    fn slot(&mut self, spec: u64) -> Option<&mut &'a [u8]> {
        match spec {
            1 => Some(&mut self.object_actor),
            2 => Some(&mut self.object_counter),
            17 => Some(&mut self.key_actor),
            19 => Some(&mut self.key_counter),
            21 => Some(&mut self.key_string),
            52 => Some(&mut self.insert),
            66 => Some(&mut self.action),
            86 => Some(&mut self.value_kind),
            87 => Some(&mut self.value),
            112 => Some(&mut self.predecessor_count),
            113 => Some(&mut self.predecessor_actor),
            115 => Some(&mut self.predecessor_counter),
            148 => Some(&mut self.expand),
            165 => Some(&mut self.mark_name),
            _ => None,
        }
    }
}

fn read_dependencies(reader: &mut Reader<'_>) -> Result<SmallVec<[ChangeHash; 2]>, ChangeError> {
    let count = reader.unsigned().map_err(damaged("dependencies"))?;
    let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(HASH_BYTES));
    let bytes = length.ok_or(Damage::Truncated).and_then(|length| reader.take(length));
    let (hashes, _) = bytes.map_err(damaged("dependencies"))?.as_chunks::<HASH_BYTES>();
    Ok(hashes.iter().map(|hash| ChangeHash(*hash)).collect())
}

/// The actors besides the author, which must ascend.
fn read_others(reader: &mut Reader<'_>, author: &Actor) -> Result<SmallVec<[Actor; 4]>, ChangeError> {
    let count = reader.unsigned().map_err(damaged("table of actors"))?;
    if count > OTHERS_MAX {
        return Err(ChangeError::TooManyActors { actors: count, actors_max: OTHERS_MAX });
    }
    let mut others: SmallVec<[Actor; 4]> = SmallVec::new();
    for _ in 0..count {
        let actor = read_actor(reader)?;
        if others.last() >= Some(&actor) || actor == *author {
            return Err(ChangeError::ActorsUnsorted);
        }
        others.push(actor);
    }
    Ok(others)
}

fn read_actor(reader: &mut Reader<'_>) -> Result<Actor, ChangeError> {
    Actor::from_bytes(reader.prefixed().map_err(damaged("actor"))?)
}

pub(super) fn damaged(part: &'static str) -> impl Fn(Damage) -> ChangeError {
    move |damage| ChangeError::Damaged { part, damage }
}
