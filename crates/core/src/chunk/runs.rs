//! automerge's column encodings: run-length, delta and boolean.
//!
//! Owns: reading one column row by row, and counting its rows without expanding them. Must not: know what columns mean.
//! Next: `change/operations.rs`, `document.rs`.
//!
//! A run-length column is a sequence of runs, each behind a signed count: positive, one value that often; negative,
//! that many literal values; zero, an unsigned count of nulls. Source: the automerge binary format specification,
//! "Column data".

use std::marker::PhantomData;

use super::reader::{Damage, Reader};

/// A type of value in a run-length column.
pub(crate) trait CellKind<'a>: Copy + PartialEq {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Damage>;
}

impl<'a> CellKind<'a> for u64 {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Damage> {
        reader.unsigned()
    }
}

impl<'a> CellKind<'a> for i64 {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Damage> {
        reader.signed()
    }
}

impl<'a> CellKind<'a> for &'a str {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Damage> {
        std::str::from_utf8(reader.prefixed()?).map_err(|_| Damage::NotUtf8)
    }
}

/// The head of a run, and how many rows it covers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Run<V> {
    /// One value, repeated.
    Repeat(V, u64),
    /// Values that follow one by one.
    Literal(u64),
    /// Nulls.
    Null(u64),
}

impl<V> Run<V> {
    fn rows(&self) -> u64 {
        match self {
            Self::Repeat(_, rows) | Self::Literal(rows) | Self::Null(rows) => *rows,
        }
    }
}

fn read_run<'a, V: CellKind<'a>>(reader: &mut Reader<'a>) -> Result<Run<V>, Damage> {
    let count = reader.signed()?;
    match count {
        1.. => Ok(Run::Repeat(reader.cell()?, count.unsigned_abs())),
        0 => Ok(Run::Null(reader.unsigned()?)),
        ..0 => Ok(Run::Literal(count.unsigned_abs())),
    }
}

/// Visits every run, literal values one by one, without expanding the repeated ones. Returns the number of rows.
pub(crate) fn visit_runs<'a, V: CellKind<'a>>(
    bytes: &'a [u8],
    mut visit: impl FnMut(Option<V>, u64) -> Result<(), Damage>,
) -> Result<u64, Damage> {
    let mut reader = Reader::new(bytes);
    let mut rows = 0u64;
    while !reader.is_empty() {
        let run = read_run::<V>(&mut reader)?;
        rows = rows.checked_add(run.rows()).ok_or(Damage::RowCount)?;
        match run {
            Run::Repeat(value, count) => visit(Some(value), count)?,
            Run::Null(count) => visit(None, count)?,
            // Every literal takes a byte at least, so the loop is as long as the input, whatever the count says.
            Run::Literal(count) => {
                for _ in 0..count {
                    visit(Some(reader.cell()?), 1)?;
                }
            }
        }
    }
    Ok(rows)
}

/// The number of rows of a run-length column.
pub(crate) fn count_rows<'a, V: CellKind<'a>>(bytes: &'a [u8]) -> Result<u64, Damage> {
    visit_runs::<V>(bytes, |_, _| Ok(()))
}

/// The number of rows of a boolean column.
pub(crate) fn count_boolean_rows(bytes: &[u8]) -> Result<u64, Damage> {
    let mut reader = Reader::new(bytes);
    let mut rows = 0u64;
    while !reader.is_empty() {
        rows = rows.checked_add(reader.unsigned()?).ok_or(Damage::RowCount)?;
    }
    Ok(rows)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    Repeat,
    Literal,
    Null,
}

/// A run-length column, read row by row and held to the one encoding that automerge itself would write.
///
/// An absent column has nulls only.
#[derive(Debug)]
pub(crate) struct Cells<'a, V> {
    reader: Reader<'a>,
    absent: bool,
    left: u64,
    phase: Phase,
    last: Option<V>,
    any_value: bool,
    kind: PhantomData<V>,
}

impl<'a, V: CellKind<'a>> Cells<'a, V> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(bytes),
            absent: bytes.is_empty(),
            left: 0,
            phase: Phase::Start,
            last: None,
            any_value: false,
            kind: PhantomData,
        }
    }

    /// The next row's value.
    pub(crate) fn row(&mut self) -> Result<Option<V>, Damage> {
        if self.absent {
            return Ok(None);
        }
        if self.left == 0 {
            if self.reader.is_empty() {
                return Err(Damage::RowCount);
            }
            self.start_run()?;
        }
        self.left -= 1;
        if self.phase == Phase::Literal {
            let value = self.reader.cell()?;
            if self.last == Some(value) {
                return Err(Damage::NotCanonical);
            }
            self.last = Some(value);
        }
        Ok(self.last)
    }

    /// Checks that the column ends with the last row read.
    pub(crate) fn finish(self) -> Result<(), Damage> {
        if self.left > 0 || !self.reader.is_empty() {
            return Err(Damage::RowCount);
        }
        if !self.absent && !self.any_value {
            return Err(Damage::NotCanonical);
        }
        Ok(())
    }

    fn start_run(&mut self) -> Result<(), Damage> {
        let run = read_run::<V>(&mut self.reader)?;
        self.left = run.rows();
        let (phase, mergeable) = match run {
            Run::Repeat(value, count) => {
                let mergeable = count == 1 || self.last == Some(value);
                self.last = Some(value);
                (Phase::Repeat, mergeable)
            }
            Run::Literal(_) => (Phase::Literal, self.phase == Phase::Literal),
            Run::Null(count) => {
                self.last = None;
                (Phase::Null, count == 0 || self.phase == Phase::Null)
            }
        };
        if mergeable {
            return Err(Damage::NotCanonical);
        }
        self.any_value |= phase != Phase::Null;
        self.phase = phase;
        Ok(())
    }
}

/// A column of numbers stored as differences from the last number, the first one from zero.
#[derive(Debug)]
pub(crate) struct Deltas<'a> {
    cells: Cells<'a, i64>,
    value: i64,
}

impl<'a> Deltas<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { cells: Cells::new(bytes), value: 0 }
    }

    pub(crate) fn row(&mut self) -> Result<Option<i64>, Damage> {
        let Some(delta) = self.cells.row()? else {
            return Ok(None);
        };
        self.value = self.value.checked_add(delta).ok_or(Damage::OutOfRange)?;
        Ok(Some(self.value))
    }

    pub(crate) fn finish(self) -> Result<(), Damage> {
        self.cells.finish()
    }
}

/// A boolean column: lengths of alternating runs, the first one of `false`.
#[derive(Debug)]
pub(crate) struct Booleans<'a> {
    reader: Reader<'a>,
    absent: bool,
    first: bool,
    left: u64,
    value: bool,
}

impl<'a> Booleans<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), absent: bytes.is_empty(), first: true, left: 0, value: true }
    }

    /// The next row; an absent column has `false` only.
    pub(crate) fn row(&mut self) -> Result<bool, Damage> {
        if self.absent {
            return Ok(false);
        }
        while self.left == 0 {
            if self.reader.is_empty() {
                return Err(Damage::RowCount);
            }
            self.left = self.reader.unsigned()?;
            if self.left == 0 && !self.first {
                return Err(Damage::NotCanonical);
            }
            self.first = false;
            self.value = !self.value;
        }
        self.left -= 1;
        Ok(self.value)
    }

    pub(crate) fn finish(self) -> Result<(), Damage> {
        if self.left > 0 || !self.reader.is_empty() { Err(Damage::RowCount) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(bytes: &[u8], count: usize) -> Result<Vec<Option<u64>>, Damage> {
        let mut cells = Cells::<u64>::new(bytes);
        let rows = (0..count).map(|_| cells.row()).collect::<Result<_, _>>()?;
        cells.finish().map(|()| rows)
    }

    fn booleans(bytes: &[u8], count: usize) -> Result<Vec<bool>, Damage> {
        let mut column = Booleans::new(bytes);
        let rows = (0..count).map(|_| column.row()).collect::<Result<_, _>>()?;
        column.finish().map(|()| rows)
    }

    #[test]
    fn runs_literals_and_nulls_are_read() {
        let bytes = [3, 7, 0, 2, 0x7e, 1, 2];
        assert_eq!(rows(&bytes, 7), Ok(vec![Some(7), Some(7), Some(7), None, None, Some(1), Some(2)]));
        assert_eq!(count_rows::<u64>(&bytes), Ok(7));
        assert_eq!(rows(&bytes, 6), Err(Damage::RowCount));
        assert_eq!(rows(&bytes, 8), Err(Damage::RowCount));
        assert_eq!(rows(&[], 2), Ok(vec![None, None]));
    }

    #[test]
    fn encodings_that_automerge_would_not_write_are_refused() {
        for bytes in [
            &[1, 7][..],         // a run of one
            &[2, 7, 2, 7],       // two runs of one value
            &[0x7f, 7, 0x7f, 8], // two literal runs
            &[0x7e, 7, 7],       // a repeated literal
            &[2, 7, 0x7f, 7],    // a literal that belongs to the run before it
            &[0x7f, 7, 2, 7],    // a run that begins in the literals before it
            &[0, 1, 0, 1],       // two null runs
            &[0, 0, 2, 7],       // an empty null run
            &[0, 2],             // nulls only
        ] {
            let count = count_rows::<u64>(bytes).expect("well formed") as usize;
            assert_eq!(rows(bytes, count), Err(Damage::NotCanonical), "{bytes:?}");
        }
    }

    #[test]
    fn a_run_length_bomb_is_counted_without_expansion() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 1];
        assert_eq!(count_rows::<u64>(&huge), Ok(i64::MAX as u64));
        assert_eq!(count_rows::<u64>(&[&huge[..], &huge, &huge].concat()), Err(Damage::RowCount));
        let literals = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f, 1];
        assert_eq!(count_rows::<u64>(&literals), Err(Damage::Truncated));
    }

    #[test]
    fn booleans_alternate_and_only_the_first_run_may_be_empty() {
        assert_eq!(booleans(&[1, 2], 3), Ok(vec![false, true, true]));
        assert_eq!(booleans(&[0, 2], 2), Ok(vec![true, true]));
        assert_eq!(booleans(&[1, 0, 1], 2), Err(Damage::NotCanonical));
        assert_eq!(booleans(&[2], 3), Err(Damage::RowCount));
        assert_eq!(booleans(&[3], 2), Err(Damage::RowCount));
        assert_eq!(count_boolean_rows(&[1, 2]), Ok(3));
    }

    #[test]
    fn deltas_add_up_and_never_overflow() {
        let mut column = Deltas::new(&[2, 5, 0x7f, 0x7e]);
        let values: Vec<_> = (0..3).map(|_| column.row()).collect();
        assert_eq!(values, [Ok(Some(5)), Ok(Some(10)), Ok(Some(8))]);
        let huge = [2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00];
        let mut column = Deltas::new(&huge);
        assert_eq!((column.row(), column.row()), (Ok(Some(i64::MAX)), Err(Damage::OutOfRange)));
    }
}
