//! A vector that grows by whole chunks.
//!
//! Owns: the storage of one column of the graph. Must not: move what it holds: a plain vector of 100,000 nodes copies
//! megabytes when it regrows, which shows as a millisecond's pause in the middle of a sync.
//! Next: `graph.rs`.

const CHUNK: usize = 1024;

/// A growable array whose elements stay where they are.
#[derive(Debug, Clone)]
pub(super) struct Chunked<T> {
    chunks: Vec<Vec<T>>,
    length: usize,
}

impl<T: Copy> Chunked<T> {
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), length: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, value: T) {
        if self.length.is_multiple_of(CHUNK) {
            // Most documents are small: only the second and later chunks are allocated whole.
            let capacity = if self.length == 0 { 4 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        if let Some(last) = self.chunks.last_mut() {
            last.push(value);
            self.length += 1;
        }
    }

    /// The element at `index`, which must be below [`Self::len`].
    pub(super) fn at(&self, index: u32) -> T {
        self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    /// Bytes of heap that the chunks hold.
    pub(super) fn heap_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<T>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_stay_at_their_index_across_chunks() {
        let mut column = Chunked::new();
        for value in 0..(3 * CHUNK as u32 + 7) {
            column.push(value);
        }
        assert_eq!(column.len(), 3 * CHUNK + 7);
        for index in 0..column.len() as u32 {
            assert_eq!(column.at(index), index);
        }
    }
}
