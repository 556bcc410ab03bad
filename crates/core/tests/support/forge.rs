//! Change chunks with any content: an encoder that refuses nothing.
//!
//! Owns: lengths, checksums and column encodings, written without the code under test.
//! Must not: know which changes are valid.
//! Next: `tests/gatekeeper.rs`.

use std::io::Write;

use bytes::Bytes;
use sha2::{Digest, Sha256};

pub const DOCUMENT: u8 = 0;
pub const CHANGE: u8 = 1;
pub const COMPRESSED: u8 = 2;
pub const BUNDLE: u8 = 3;

/// One row of an operation; ids are (counter, index of the actor), the author has index 0.
#[derive(Debug, Clone)]
pub struct Row {
    pub object: Option<(u64, u64)>,
    pub key: Key,
    pub insert: bool,
    pub action: u64,
    pub value: (u64, Vec<u8>),
    pub predecessors: Vec<(u64, u64)>,
    pub expand: bool,
    pub mark_name: Option<&'static str>,
}

#[derive(Debug, Clone)]
pub enum Key {
    Property(&'static str),
    Head,
    Element(u64, u64),
}

impl Row {
    /// Puts the number 1.
    pub fn put(key: Key) -> Self {
        Self {
            object: None,
            key,
            insert: false,
            action: 1,
            value: (3, vec![1]),
            predecessors: Vec::new(),
            expand: false,
            mark_name: None,
        }
    }

    /// An operation without a value: 0 map, 2 list, 3 delete, 4 text.
    pub fn bare(action: u64, key: Key) -> Self {
        Self { action, value: (0, Vec::new()), ..Self::put(key) }
    }

    pub fn insert(key: Key) -> Self {
        Self { insert: true, ..Self::put(key) }
    }

    pub fn within(self, counter: u64, actor: u64) -> Self {
        Self { object: Some((counter, actor)), ..self }
    }

    pub fn after(self, predecessors: &[(u64, u64)]) -> Self {
        Self { predecessors: predecessors.to_vec(), ..self }
    }
}

/// A change chunk in parts. Length, checksum and hash follow from the parts.
#[derive(Debug, Clone)]
pub struct Forged {
    pub deps: Vec<[u8; 32]>,
    pub actor: Vec<u8>,
    pub seq: u64,
    pub start_op: u64,
    pub time: i64,
    pub message: Vec<u8>,
    pub others: Vec<Vec<u8>>,
    /// Column specifications with their data, written as they stand here.
    pub columns: Vec<(u64, Vec<u8>)>,
    pub extra: Vec<u8>,
}

/// A valid change: the first of its actor, with one put into the root map.
pub fn change() -> Forged {
    let plain = Forged {
        deps: Vec::new(),
        actor: vec![0xaa; 16],
        seq: 1,
        start_op: 1,
        time: 0,
        message: Vec::new(),
        others: Vec::new(),
        columns: Vec::new(),
        extra: Vec::new(),
    };
    plain.rows(&[Row::put(Key::Property("key"))])
}

impl Forged {
    /// Encodes these operations as automerge would.
    pub fn rows(mut self, rows: &[Row]) -> Self {
        let elements = |row: &Row| match row.key {
            Key::Property(_) => (None, None),
            Key::Head => (None, Some(0)),
            Key::Element(counter, actor) => (Some(actor), Some(counter as i64)),
        };
        let strings = |row: &Row| match row.key {
            Key::Property(name) => Some(name.as_bytes().to_vec()),
            Key::Head | Key::Element(..) => None,
        };
        let predecessors: Vec<_> = rows.iter().flat_map(|row| row.predecessors.clone()).collect();
        let expand =
            if rows.iter().any(|row| row.expand) { booleans(rows.iter().map(|row| row.expand)) } else { vec![] };
        let columns = vec![
            (1, numbers(rows.iter().map(|row| row.object.map(|id| id.1)))),
            (2, numbers(rows.iter().map(|row| row.object.map(|id| id.0)))),
            (17, numbers(rows.iter().map(|row| elements(row).0))),
            (19, deltas(rows.iter().map(|row| elements(row).1))),
            (21, cells(rows.iter().map(|row| strings(row).map(|text| prefixed(&text))))),
            (52, booleans(rows.iter().map(|row| row.insert))),
            (66, numbers(rows.iter().map(|row| Some(row.action)))),
            (86, numbers(rows.iter().map(|row| Some((row.value.1.len() as u64) << 4 | row.value.0)))),
            (87, rows.iter().flat_map(|row| row.value.1.clone()).collect()),
            (112, numbers(rows.iter().map(|row| Some(row.predecessors.len() as u64)))),
            (113, numbers(predecessors.iter().map(|id| Some(id.1)))),
            (115, deltas(predecessors.iter().map(|id| Some(id.0 as i64)))),
            (148, expand),
            (165, cells(rows.iter().map(|row| row.mark_name.map(|name| prefixed(name.as_bytes()))))),
        ];
        self.columns = columns.into_iter().filter(|(_, data): &(u64, Vec<u8>)| !data.is_empty()).collect();
        self
    }

    /// Replaces or adds a column; no data removes it.
    pub fn column(mut self, spec: u64, data: &[u8]) -> Self {
        self.columns.retain(|(other, _)| *other != spec);
        if !data.is_empty() {
            self.columns.push((spec, data.to_vec()));
            self.columns.sort();
        }
        self
    }

    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(256);
        push_unsigned(&mut body, self.deps.len() as u64);
        self.deps.iter().for_each(|dep| body.extend(dep));
        push_prefixed(&mut body, &self.actor);
        push_unsigned(&mut body, self.seq);
        push_unsigned(&mut body, self.start_op);
        body.extend(signed(self.time));
        push_prefixed(&mut body, &self.message);
        push_unsigned(&mut body, self.others.len() as u64);
        self.others.iter().for_each(|actor| push_prefixed(&mut body, actor));
        push_unsigned(&mut body, self.columns.len() as u64);
        for (spec, data) in &self.columns {
            push_unsigned(&mut body, *spec);
            push_unsigned(&mut body, data.len() as u64);
        }
        self.columns.iter().for_each(|(_, data)| body.extend(data));
        body.extend(&self.extra);
        body
    }

    /// The chunk, with a right checksum.
    pub fn bytes(&self) -> Bytes {
        chunk(CHANGE, &self.body()).into()
    }

    pub fn hash(&self) -> [u8; 32] {
        hash(CHANGE, &self.body())
    }

    /// The chunk, deflated.
    pub fn compressed(&self) -> Bytes {
        compressed(&self.body()).into()
    }
}

/// A chunk of this kind around a body, with a right checksum.
pub fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
    framed(kind, body, hash(kind, body))
}

/// A compressed change chunk around the deflated body, with the checksum of the inflated one.
pub fn compressed(body: &[u8]) -> Vec<u8> {
    framed(COMPRESSED, &deflated(body), hash(CHANGE, body))
}

/// A chunk around a body, with the checksum of this hash.
pub fn framed(kind: u8, body: &[u8], hash: [u8; 32]) -> Vec<u8> {
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83];
    bytes.extend(&hash[..4]);
    bytes.push(kind);
    push_prefixed(&mut bytes, body);
    bytes
}

/// The body of a chunk.
pub fn body(chunk: &[u8]) -> &[u8] {
    let length = chunk[9..].iter().position(|byte| byte & 0x80 == 0).expect("a length ends");
    &chunk[9 + length + 1..]
}

/// Flips one bit of a chunk's body and mends the checksum.
pub fn flipped(whole: &[u8], bit: usize) -> Vec<u8> {
    let mut changed = body(whole).to_vec();
    changed[bit / 8] ^= 1 << (bit % 8);
    chunk(whole[8], &changed)
}

pub fn hash(kind: u8, body: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update([kind]).chain_update(unsigned(body.len() as u64)).chain_update(body).finalize().into()
}

pub fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).expect("a vector takes all");
    encoder.finish().expect("a vector takes all")
}

pub fn prefixed(data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.len() + 4);
    push_prefixed(&mut bytes, data);
    bytes
}

fn push_prefixed(bytes: &mut Vec<u8>, data: &[u8]) {
    push_unsigned(bytes, data.len() as u64);
    bytes.extend(data);
}

pub fn unsigned(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_unsigned(&mut bytes, value);
    bytes
}

fn push_unsigned(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

pub fn signed(mut value: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !(-64..64).contains(&value) {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8 & 0x7f);
    bytes
}

/// A run of one value.
pub fn repeat(count: i64, value: u64) -> Vec<u8> {
    [signed(count), unsigned(value)].concat()
}

pub fn numbers(values: impl Iterator<Item = Option<u64>>) -> Vec<u8> {
    cells(values.map(|value| value.map(unsigned)))
}

pub fn deltas(values: impl Iterator<Item = Option<i64>>) -> Vec<u8> {
    let mut last = 0;
    cells(values.map(|value| {
        value.map(|value| {
            let delta = value - last;
            last = value;
            signed(delta)
        })
    }))
}

pub fn booleans(values: impl Iterator<Item = bool>) -> Vec<u8> {
    let mut runs = vec![(false, 0)];
    for value in values {
        match runs.last_mut() {
            Some((last, count)) if *last == value => *count += 1,
            _ => runs.push((value, 1)),
        }
    }
    if runs == [(false, 0)] { Vec::new() } else { runs.iter().flat_map(|(_, count)| unsigned(*count)).collect() }
}

/// A run-length column of encoded values.
fn cells(values: impl Iterator<Item = Option<Vec<u8>>>) -> Vec<u8> {
    let mut runs: Vec<(Option<Vec<u8>>, u64)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((last, count)) if *last == value => *count += 1,
            _ => runs.push((value, 1)),
        }
    }
    if runs.iter().all(|(value, _)| value.is_none()) {
        return Vec::new();
    }
    let mut bytes = Vec::new();
    for group in runs.chunk_by(|left, right| left.0.is_some() && right.0.is_some() && left.1 == 1 && right.1 == 1) {
        match &group[0] {
            (None, count) => bytes.extend([signed(0), unsigned(*count)].concat()),
            (Some(value), count) if *count > 1 => bytes.extend([signed(*count as i64), value.clone()].concat()),
            (Some(_), _) => {
                bytes.extend(signed(-(group.len() as i64)));
                bytes.extend(group.iter().flat_map(|(value, _)| value.clone().unwrap_or_default()));
            }
        }
    }
    bytes
}
