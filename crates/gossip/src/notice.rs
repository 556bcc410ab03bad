//! What a notice says: that a document has changed, and the changes themselves when they are small; or what somebody says
//! that is not stored.
//!
//! Owns: the body's bytes. Must not: know how it travels. Next: `membership.rs`; docs/protocol.md §11, "Notices".

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use syncline_core::ChangeHash;
use syncline_core::clock::Stamp;
use syncline_core::id::{DocumentId, PeerId};

use crate::message::MessageError;

/// Most bytes of changes in a notice.
pub const CHANGES_BYTES_MAX: usize = 4 * 1024;

/// Most heads in a notice.
pub const HEADS_MAX: usize = 64;

const DOCUMENT: u8 = 1;
const SPOKEN: u8 = 2;

/// Most bytes of an ephemeral message in a notice.
pub const DATA_BYTES_MAX: usize = 4 * 1024;

/// What a body says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A document has changed.
    Document(DocumentNotice),
    /// Somebody says something that is not stored.
    Spoken(SpokenNotice),
    /// Something of a later version.
    Unknown,
}

impl Told {
    /// Reads a body.
    ///
    /// # Errors
    /// [`MessageError`] when it is not one, or beyond a bound.
    pub fn decode(body: Bytes) -> Result<Self, MessageError> {
        match *body.first().ok_or(MessageError::Truncated)? {
            DOCUMENT => Ok(DocumentNotice::decode(body)?.map_or(Self::Unknown, Self::Document)),
            SPOKEN => SpokenNotice::decode(body.slice(1..)).map(Self::Spoken),
            _ => Ok(Self::Unknown),
        }
    }
}

/// The body of a notice about something that is said at a document and not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpokenNotice {
    /// The document.
    pub document: DocumentId,
    /// Who says it.
    pub sender: PeerId,
    /// The sender's process.
    pub session: Arc<str>,
    /// Counts up within it.
    pub count: u64,
    /// CBOR of the application's value.
    pub data: Bytes,
}

impl SpokenNotice {
    /// The notice's body, if it is not too large for one.
    #[must_use]
    pub fn encode(&self) -> Option<Bytes> {
        let fits = self.data.len() <= DATA_BYTES_MAX && self.session.len() <= SESSION_BYTES_MAX;
        let mut out = Vec::with_capacity(64 + self.data.len());
        out.put_u8(SPOKEN);
        out.put_u8(self.document.as_bytes().len() as u8);
        out.put_slice(self.document.as_bytes());
        for text in [self.sender.as_str(), &self.session] {
            out.put_u16(text.len() as u16);
            out.put_slice(text.as_bytes());
        }
        out.put_u64(self.count);
        out.put_slice(&self.data);
        fits.then(|| Bytes::from(out))
    }

    fn decode(mut body: Bytes) -> Result<Self, MessageError> {
        let cut = |_| MessageError::Truncated;
        let length = usize::from(body.try_get_u8().map_err(cut)?);
        let document = DocumentId::from_bytes(&take(&mut body, length)?);
        let document = document.map_err(|_| MessageError::Bad("document id"))?;
        let text = |body: &mut Bytes| {
            let length = usize::from(body.try_get_u16().map_err(cut)?);
            let bytes = take(body, length)?;
            String::from_utf8(bytes.to_vec()).map_err(|_| MessageError::Bad("text"))
        };
        let sender = PeerId::new(&text(&mut body)?).map_err(|_| MessageError::Bad("sender"))?;
        let session = text(&mut body)?;
        let count = body.try_get_u64().map_err(cut)?;
        if body.len() > DATA_BYTES_MAX || session.len() > SESSION_BYTES_MAX {
            return Err(MessageError::Bad("length"));
        }
        Ok(Self { document, sender, session: session.into(), count, data: body })
    }
}

/// Longest name of a process.
const SESSION_BYTES_MAX: usize = 256;

/// The body of a notice about a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentNotice {
    /// The author's clock when this was durable there.
    pub stamp: Stamp,
    /// The document.
    pub document: DocumentId,
    /// Its heads, sorted; those of some of its changes if it has very many.
    pub heads: Vec<ChangeHash>,
    /// The changes that led to them, dependencies first; none if they are large.
    pub changes: Vec<Bytes>,
}

impl DocumentNotice {
    /// The notice's body.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + self.heads.len() * 32);
        out.put_u8(DOCUMENT);
        out.put_u64(self.stamp.as_u64());
        let document = self.document.as_bytes();
        // An id has 128 bytes at most.
        out.put_u8(document.len() as u8);
        out.put_slice(document);
        let heads = &self.heads[..self.heads.len().min(HEADS_MAX)];
        out.put_u16(heads.len() as u16);
        heads.iter().for_each(|head| out.put_slice(&head.0));
        let changes = if fits(&self.changes) { &self.changes[..] } else { &[] };
        out.put_u16(changes.len() as u16);
        for change in changes {
            out.put_u32(change.len() as u32);
            out.put_slice(change);
        }
        Bytes::from(out)
    }

    /// Reads a body; `None` if it is of a kind that this version does not know.
    ///
    /// # Errors
    /// [`MessageError`] when it is not one, or beyond a bound.
    pub fn decode(mut body: Bytes) -> Result<Option<Self>, MessageError> {
        let cut = |_| MessageError::Truncated;
        if body.try_get_u8().map_err(cut)? != DOCUMENT {
            return Ok(None);
        }
        let stamp = Stamp::from_u64(body.try_get_u64().map_err(cut)?);
        let length = usize::from(body.try_get_u8().map_err(cut)?);
        let id = take(&mut body, length)?;
        let document = DocumentId::from_bytes(&id).map_err(|_| MessageError::Bad("document id"))?;
        let heads = usize::from(body.try_get_u16().map_err(cut)?);
        if heads > HEADS_MAX {
            return Err(MessageError::Bad("number of heads"));
        }
        let head = |body: &mut Bytes| {
            let mut hash = [0; 32];
            body.try_copy_to_slice(&mut hash).map_err(cut)?;
            Ok(ChangeHash(hash))
        };
        let heads = (0..heads).map(|_| head(&mut body)).collect::<Result<_, MessageError>>()?;
        let count = usize::from(body.try_get_u16().map_err(cut)?);
        let mut changes = Vec::new();
        for _ in 0..count {
            let length = body.try_get_u32().map_err(cut)? as usize;
            changes.push(take(&mut body, length)?);
        }
        if !fits(&changes) {
            return Err(MessageError::Bad("length"));
        }
        Ok(Some(Self { stamp, document, heads, changes }))
    }
}

/// Whether changes are small enough for a notice.
#[must_use]
pub fn fits(changes: &[Bytes]) -> bool {
    changes.iter().map(Bytes::len).sum::<usize>() <= CHANGES_BYTES_MAX && changes.len() <= usize::from(u16::MAX)
}

fn take(body: &mut Bytes, length: usize) -> Result<Bytes, MessageError> {
    if body.len() < length {
        return Err(MessageError::Truncated);
    }
    Ok(body.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn notice() -> DocumentNotice {
        DocumentNotice {
            stamp: Stamp::new(1_700_000_000_000, 3),
            document: DocumentId::from_bytes(&[7; 16]).expect("16 bytes"),
            heads: vec![ChangeHash([1; 32]), ChangeHash([2; 32])],
            changes: vec![Bytes::from_static(b"change"), Bytes::from_static(b"another")],
        }
    }

    #[test]
    fn a_notice_survives_its_bytes_and_is_nothing_when_cut() {
        let bytes = notice().encode();
        assert_eq!(DocumentNotice::decode(bytes.clone()), Ok(Some(notice())));
        for end in 0..bytes.len() {
            assert!(DocumentNotice::decode(bytes.slice(..end)).is_err(), "cut to {end}");
        }
        assert_eq!(DocumentNotice::decode(Bytes::from_static(&[9, 1, 2])), Ok(None), "another kind");
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let golden = [
            &[1][..],
            &[0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00, 0, 3],
            &[16],
            &[7; 16],
            &[0, 2],
            &[1; 32],
            &[2; 32],
            &[0, 2, 0, 0, 0, 6],
            b"change",
            &[0, 0, 0, 7],
            b"another",
        ];
        assert_eq!(notice().encode(), golden.concat());
    }

    fn spoken() -> SpokenNotice {
        let (document, sender) = (notice().document, PeerId::new("anna").expect("a name"));
        SpokenNotice { document, sender, session: "s1".into(), count: 3, data: Bytes::from_static(b"here") }
    }

    #[test]
    fn words_survive_their_bytes_and_too_many_are_none() {
        let bytes = spoken().encode().expect("few");
        let golden = [&[2, 16][..], &[7; 16], &[0, 4], b"anna", &[0, 2], b"s1", &3_u64.to_be_bytes(), b"here"].concat();
        assert_eq!(bytes, golden);
        assert_eq!(Told::decode(bytes.clone()), Ok(Told::Spoken(spoken())));
        for end in 0..bytes.len() - 4 {
            assert!(Told::decode(bytes.slice(..end)).is_err(), "cut to {end}");
        }
        let long = Bytes::from([&bytes[..], &[0; DATA_BYTES_MAX]].concat());
        assert_eq!(Told::decode(long), Err(MessageError::Bad("length")));
        assert_eq!(SpokenNotice { data: Bytes::from(vec![0; DATA_BYTES_MAX + 1]), ..spoken() }.encode(), None);
        assert_eq!(Told::decode(Bytes::from_static(&[9, 1])), Ok(Told::Unknown));
        assert_eq!(Told::decode(notice().encode()), Ok(Told::Document(notice())));
    }

    #[test]
    fn large_changes_stay_out() {
        let large = DocumentNotice { changes: vec![Bytes::from(vec![0; CHANGES_BYTES_MAX + 1])], ..notice() };
        let read = DocumentNotice::decode(large.encode()).expect("it is good").expect("it is known");
        assert_eq!(read, DocumentNotice { changes: Vec::new(), ..large });
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(mut bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
            bytes[0] = DOCUMENT;
            if let Ok(Some(notice)) = DocumentNotice::decode(Bytes::from(bytes)) {
                prop_assert_eq!(DocumentNotice::decode(notice.encode()), Ok(Some(notice)));
            }
        }
    }
}
