//! Which notices have been seen, in bounded memory.
//!
//! Owns: for each author the highest number and which of the 1,024 below it came. Must not: forget an author that
//! speaks while others are silent. Next: `../broadcast.rs`.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::{Member, NoticeId};

const WINDOW: u64 = 1_024;
const WORDS: usize = WINDOW as usize / 64;

/// The notices that are known.
#[derive(Debug)]
pub(super) struct Known {
    authors: BTreeMap<Member, Window>,
    /// By last use, the longest silent first.
    by_use: BTreeSet<(u64, Member)>,
    uses: u64,
    authors_max: usize,
}

#[derive(Debug)]
struct Window {
    highest: u64,
    /// A bit for each number, at its rest of a division by the window.
    seen: Box<[u64; WORDS]>,
    used: u64,
}

impl Window {
    fn has(&self, number: u64) -> bool {
        if number > self.highest {
            return false;
        }
        self.highest - number >= WINDOW || self.seen[word(number)] & bit(number) != 0
    }

    fn insert(&mut self, number: u64) {
        if number > self.highest {
            let skipped = (self.highest + 1..=number).rev().take(WINDOW as usize);
            skipped.for_each(|number| self.seen[word(number)] &= !bit(number));
            self.highest = number;
        }
        self.seen[word(number)] |= bit(number);
    }
}

fn word(number: u64) -> usize {
    (number % WINDOW / 64) as usize
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

impl Known {
    pub(super) fn new(authors_max: usize) -> Self {
        Self { authors: BTreeMap::new(), by_use: BTreeSet::new(), uses: 0, authors_max }
    }

    pub(super) fn contains(&self, id: &NoticeId) -> bool {
        self.authors.get(&id.author).is_some_and(|window| window.has(id.number))
    }

    /// Notes a notice; false if it was known, or is so old that it counts as known.
    pub(super) fn insert(&mut self, id: NoticeId) -> bool {
        self.uses += 1;
        let fresh = || Window { highest: id.number, seen: Box::new([0; WORDS]), used: 0 };
        let window = self.authors.entry(id.author).or_insert_with(fresh);
        let new = !window.has(id.number);
        if new {
            window.insert(id.number);
        }
        self.by_use.remove(&(window.used, id.author));
        window.used = self.uses;
        self.by_use.insert((self.uses, id.author));
        while self.authors.len() > self.authors_max {
            if let Some((_, silent)) = self.by_use.pop_first() {
                self.authors.remove(&silent);
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn id(author: u8, number: u64) -> NoticeId {
        NoticeId { author: Member([author; 16]), number }
    }

    #[test]
    fn old_numbers_count_as_known_and_the_longest_silent_author_is_forgotten() {
        let mut known = Known::new(2);
        assert!(known.insert(id(1, 5_000)));
        assert!(known.insert(id(1, 5_000 - WINDOW + 1)));
        assert!(!known.insert(id(1, 5_000 - WINDOW)), "too old to tell");
        assert!(known.insert(id(2, 1)) && known.insert(id(1, 5_001)) && known.insert(id(3, 1)));
        assert!(known.contains(&id(1, 5_001)) && known.contains(&id(3, 1)));
        assert!(!known.contains(&id(2, 1)), "forgotten");
        assert_eq!(known.by_use.len(), 2);
    }

    proptest! {
        #[test]
        fn within_the_window_it_is_a_set(numbers in proptest::collection::vec(1_u64..WINDOW, 0..200), jump in 0_u64..3_000) {
            let (mut known, mut set) = (Known::new(8), BTreeSet::new());
            for number in &numbers {
                prop_assert_eq!(known.insert(id(1, *number)), set.insert(*number));
            }
            let highest = set.last().copied().unwrap_or(0) + jump + 1;
            prop_assert!(known.insert(id(1, highest)));
            for number in 1..highest {
                let told = known.contains(&id(1, number));
                prop_assert_eq!(told, highest - number >= WINDOW || set.contains(&number));
            }
        }
    }
}
