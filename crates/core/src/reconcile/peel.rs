//! Differences out of the difference of two sketches: whatever is alone in a symbol is taken out of all others.
//!
//! Owns: the symbols of a round, what was peeled off them, the estimate of how many more are needed.
//! Must not: trust a symbol. Next: `round.rs`; docs/protocol.md §10, "Sketches".

use super::ReconcileError;
use super::sketch::{Indices, Symbol};

#[derive(Debug, Default)]
pub(super) struct Peel {
    /// Theirs less ours, less what was peeled.
    symbols: Vec<Symbol>,
    /// Elements that only one side has, with the symbols that they reach beyond the last.
    peeled: Vec<(Symbol, Indices)>,
    /// How many more elements the peer has.
    surplus: i64,
    /// By how much the counts strayed from their share of the surplus, before anything was peeled.
    strays: f64,
}

impl Peel {
    pub(super) fn len(&self) -> u64 {
        self.symbols.len() as u64
    }

    /// Takes in the next symbols of both sides.
    pub(super) fn push(&mut self, pairs: impl Iterator<Item = (Symbol, Symbol)>) -> Result<(), ReconcileError> {
        let from = self.symbols.len();
        for (mut theirs, ours) in pairs {
            theirs.mix(&ours, -1);
            self.note_stray(theirs.count);
            self.symbols.push(theirs);
        }
        for at in 0..self.peeled.len() {
            let (symbol, indices) = &mut self.peeled[at];
            while let Some(index) = indices.below(self.symbols.len() as u64) {
                self.symbols[index].mix(symbol, -1);
            }
        }
        self.peel((from..self.symbols.len()).collect())
    }

    fn peel(&mut self, mut queue: Vec<usize>) -> Result<(), ReconcileError> {
        while let Some(index) = queue.pop() {
            let Some(symbol) = self.symbols[index].only() else { continue };
            // Each element empties the symbol in which it was alone, if the peer is honest.
            if self.peeled.len() >= self.symbols.len() {
                return Err(ReconcileError::Contradiction);
            }
            let mut indices = Indices::of(&symbol);
            while let Some(index) = indices.below(self.symbols.len() as u64) {
                self.symbols[index].mix(&symbol, -1);
                if self.symbols[index].count.unsigned_abs() == 1 {
                    queue.push(index);
                }
            }
            if self.symbols[index] != Symbol::default() {
                return Err(ReconcileError::Contradiction);
            }
            self.peeled.push((symbol, indices));
        }
        Ok(())
    }

    /// Everything that differs, if it is all known: the first symbol holds every element and is empty.
    pub(super) fn finished(&self) -> Option<impl Iterator<Item = &Symbol>> {
        let is_empty = self.symbols.first().is_some_and(|first| *first == Symbol::default());
        is_empty.then(|| self.peeled.iter().map(|(symbol, _)| symbol))
    }

    /// How many differences the symbols speak of: the more elements of either side are in a symbol, the further its
    /// count strays from its share of the surplus. Wrong by a factor of `1 ± sqrt(2 / symbols)`, typically.
    pub(super) fn estimate(&self) -> f64 {
        let strays = self.strays / (self.symbols.len().max(2) - 1) as f64;
        strays.max(self.surplus.unsigned_abs() as f64)
    }

    fn note_stray(&mut self, count: i64) {
        let index = self.symbols.len();
        if index == 0 {
            self.surplus = count;
            return;
        }
        let share = 2.0 / (index as f64 + 2.0);
        let stray = count as f64 - self.surplus as f64 * share;
        self.strays += stray * stray / (share * (1.0 - share));
    }
}
