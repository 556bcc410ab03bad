//! Bytes as a list of decisions.
//!
//! Owns: reading on when there is nothing left: then every number is zero. Must not: fail.
//! Next: `session.rs`, `graph.rs`, `store.rs`.

/// The bytes that are still to be decided by.
pub(crate) struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// A number below `end`, which is at least 1.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let number = if end <= 256 { usize::from(self.byte()) } else { self.number(4) as usize };
        number % end
    }

    /// A number of so many bytes, at most 8, the lowest first.
    pub(crate) fn number(&mut self, bytes: usize) -> u64 {
        self.take(bytes).iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// The next bytes, or what there is of them.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Bytes with their length in front, in two bytes.
    pub(crate) fn block(&mut self) -> &'a [u8] {
        let length = self.number(2) as usize;
        self.take(length)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }
}
