//! What goes through the pipe: one request, then one answer.
//!
//! Owns: the layout of both. Must not: trust a length that the other end names: it may have been overwritten.
//! Next: `process.rs`, `serve.rs`.
//!
//! Numbers are 8 bytes, little end first; bytes and lists come after their length. Both ends are one executable, so the
//! layout has no version.

use std::io::{self, Read, Write};

use bytes::Bytes;
use syncline_core::ChangeHash;
use syncline_core::loader::{LoadError, Merged, Old};

/// Longest text of a refusal that is read, bytes.
const REASON_BYTES_MAX: u64 = 4 * 1024;

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Request {
    Changes { document: Bytes, wanted: Vec<ChangeHash> },
    Merge(Stored),
    View { stored: Stored, question: Bytes },
}

/// A document as it is stored.
#[derive(Debug)]
pub(crate) struct Stored {
    snapshot: Option<Bytes>,
    changes: Vec<Bytes>,
    count: u32,
}

impl Stored {
    pub(crate) fn old(&self) -> Old<'_> {
        let changes = self.changes.iter().map(|bytes| &bytes[..]).collect();
        Old { snapshot: self.snapshot.as_deref(), changes, count: self.count }
    }
}

impl Request {
    /// Reads a request; `None` at the end of the input.
    pub(crate) fn read(input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut kind = [0];
        if input.read(&mut kind)? == 0 {
            return Ok(None);
        }
        let mut reader = Reader { input, bytes_left: u64::MAX };
        match kind[0] {
            0 => Ok(Some(Self::Changes { document: reader.bytes()?, wanted: reader.hashes()? })),
            1 => Ok(Some(Self::Merge(reader.stored()?))),
            2 => Ok(Some(Self::View { stored: reader.stored()?, question: reader.bytes()? })),
            kind => Err(invalid(format!("a request of kind {kind}"))),
        }
    }
}

/// Asks for a document's changes.
pub(crate) fn write_changes(document: &[u8], wanted: &[ChangeHash], output: &mut impl Write) -> io::Result<()> {
    output.write_all(&[0])?;
    write_bytes(document, output)?;
    write_hashes(wanted, output)
}

/// Asks for a document in one chunk.
pub(crate) fn write_merge(old: &Old<'_>, output: &mut impl Write) -> io::Result<()> {
    output.write_all(&[1])?;
    write_stored(old, output)
}

/// Asks a question about a document.
pub(crate) fn write_view(stored: &Old<'_>, question: &[u8], output: &mut impl Write) -> io::Result<()> {
    output.write_all(&[2])?;
    write_stored(stored, output)?;
    write_bytes(question, output)
}

fn write_stored(old: &Old<'_>, output: &mut impl Write) -> io::Result<()> {
    match old.snapshot {
        Some(snapshot) => {
            write_number(1, output)?;
            write_bytes(snapshot, output)?;
        }
        None => write_number(0, output)?,
    }
    write_number(u64::from(old.count), output)?;
    write_number(old.changes.len() as u64, output)?;
    old.changes.iter().try_for_each(|change| write_bytes(change, output))
}

/// Whether the process takes another request after this answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Request,
    End,
}

/// What can be answered.
pub(crate) trait Answer: Sized {
    fn write(&self, output: &mut impl Write) -> io::Result<()>;
    fn read<R: Read>(reader: &mut Reader<'_, R>) -> io::Result<Self>;
}

impl Answer for Vec<Bytes> {
    fn write(&self, output: &mut impl Write) -> io::Result<()> {
        write_number(self.len() as u64, output)?;
        self.iter().try_for_each(|bytes| write_bytes(bytes, output))
    }

    fn read<R: Read>(reader: &mut Reader<'_, R>) -> io::Result<Self> {
        reader.list()
    }
}

impl Answer for Merged {
    fn write(&self, output: &mut impl Write) -> io::Result<()> {
        write_bytes(&self.snapshot, output)?;
        write_hashes(&self.heads, output)
    }

    fn read<R: Read>(reader: &mut Reader<'_, R>) -> io::Result<Self> {
        Ok(Self { snapshot: reader.bytes()?, heads: reader.hashes()? })
    }
}

/// Answers a request.
pub(crate) fn write_answer<T: Answer>(
    answer: &Result<T, LoadError>,
    next: Next,
    output: &mut impl Write,
) -> io::Result<()> {
    output.write_all(&[u8::from(next == Next::End)])?;
    match answer {
        Ok(answer) => {
            write_number(0, output)?;
            answer.write(output)
        }
        Err(LoadError::Refused { reason }) => {
            write_number(1, output)?;
            write_bytes(&reason.as_bytes()[..reason.len().min(REASON_BYTES_MAX as usize)], output)
        }
        Err(LoadError::Panicked) => write_number(2, output),
        Err(error @ (LoadError::Died { .. } | LoadError::Unavailable { .. })) => Err(invalid(error.clone())),
    }
}

/// Reads an answer of at most so many bytes.
pub(crate) fn read_answer<T: Answer>(
    input: &mut impl Read,
    bytes_max: u64,
) -> io::Result<(Result<T, LoadError>, Next)> {
    let mut next = [0];
    input.read_exact(&mut next)?;
    let next = if next[0] == 0 { Next::Request } else { Next::End };
    let mut reader = Reader { input, bytes_left: bytes_max };
    let answer = match reader.number()? {
        0 => Ok(T::read(&mut reader)?),
        1 => {
            reader.bytes_left = REASON_BYTES_MAX;
            Err(LoadError::Refused { reason: String::from_utf8_lossy(&reader.bytes()?).into_owned() })
        }
        2 => Err(LoadError::Panicked),
        kind => return Err(invalid(format!("an answer of kind {kind}"))),
    };
    Ok((answer, next))
}

/// Reads fields, of at most so many bytes in all.
pub(crate) struct Reader<'a, R> {
    input: &'a mut R,
    bytes_left: u64,
}

impl<R: Read> Reader<'_, R> {
    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.input.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn bytes(&mut self) -> io::Result<Bytes> {
        let length = self.length()?;
        let mut bytes = Vec::new();
        // Grows with what comes, not with what is announced.
        self.input.by_ref().take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == length { Ok(Bytes::from(bytes)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn stored(&mut self) -> io::Result<Stored> {
        let snapshot = if self.number()? == 1 { Some(self.bytes()?) } else { None };
        let count = u32::try_from(self.number()?).map_err(invalid)?;
        Ok(Stored { snapshot, changes: self.list()?, count })
    }

    fn list(&mut self) -> io::Result<Vec<Bytes>> {
        (0..self.number()?).map(|_| self.bytes()).collect()
    }

    fn hashes(&mut self) -> io::Result<Vec<ChangeHash>> {
        let bytes = self.bytes()?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        if rest.is_empty() {
            Ok(hashes.iter().map(|hash| ChangeHash(*hash)).collect())
        } else {
            Err(invalid("a list of hashes of another length"))
        }
    }

    fn length(&mut self) -> io::Result<u64> {
        let length = self.number()?;
        self.bytes_left = self.bytes_left.checked_sub(length).ok_or_else(|| invalid("more bytes than can be true"))?;
        Ok(length)
    }
}

fn write_number(number: u64, output: &mut impl Write) -> io::Result<()> {
    output.write_all(&number.to_le_bytes())
}

fn write_bytes(bytes: &[u8], output: &mut impl Write) -> io::Result<()> {
    write_number(bytes.len() as u64, output)?;
    output.write_all(bytes)
}

fn write_hashes(hashes: &[ChangeHash], output: &mut impl Write) -> io::Result<()> {
    write_number(hashes.len() as u64 * 32, output)?;
    hashes.iter().try_for_each(|hash| output.write_all(&hash.0))
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_out_as_they_went_in() {
        let hashes = [ChangeHash([1; 32]), ChangeHash([2; 32])];
        let old = Old { snapshot: Some(b"snapshot"), changes: vec![b"one", b""], count: 7 };
        let mut pipe = Vec::new();
        write_changes(b"document", &hashes, &mut pipe).expect("whole");
        write_merge(&old, &mut pipe).expect("whole");
        write_view(&Old { snapshot: None, changes: vec![b"x"], count: 1 }, b"what", &mut pipe).expect("whole");
        let mut input = &pipe[..];
        let first = Request::read(&mut input).expect("whole").expect("whole");
        assert!(
            matches!(first, Request::Changes { document, wanted } if document == b"document"[..] && wanted == hashes)
        );
        let Some(Request::Merge(stored)) = Request::read(&mut input).expect("whole") else {
            panic!("a request to merge")
        };
        let read = stored.old();
        assert_eq!((read.snapshot, &read.changes, read.count), (old.snapshot, &old.changes, old.count));
        let Some(Request::View { stored, question }) = Request::read(&mut input).expect("whole") else {
            panic!("a question")
        };
        let read = stored.old();
        assert_eq!((read.snapshot, read.changes, read.count), (None, vec![&b"x"[..]], 1));
        assert_eq!(question, b"what"[..]);
        assert!(Request::read(&mut input).expect("whole").is_none(), "the end of the input is the end of the requests");
    }

    #[test]
    fn answers_come_out_as_they_went_in() {
        let merged = Merged { snapshot: Bytes::from("all"), heads: vec![ChangeHash([3; 32])] };
        let refused = LoadError::Refused { reason: "no".to_owned() };
        for answer in [Ok(merged), Err(refused), Err(LoadError::Panicked)] {
            let mut pipe = Vec::new();
            write_answer(&answer, Next::End, &mut pipe).expect("whole");
            let read = read_answer::<Merged>(&mut &pipe[..], 1_000).expect("whole");
            assert_eq!(read, (answer, Next::End));
        }
    }

    #[test]
    fn an_answer_beyond_its_bound_is_not_read() {
        let mut pipe = Vec::new();
        write_answer(&Ok(vec![Bytes::from(vec![0; 60]); 2]), Next::Request, &mut pipe).expect("whole");
        let error = read_answer::<Vec<Bytes>>(&mut &pipe[..], 119).expect_err("an error");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        read_answer::<Vec<Bytes>>(&mut &pipe[..], 120).expect("whole").0.expect("whole");
    }
}
