//! From bytes to messages of the mesh.
//!
//! Owns: every bound on what is read. Must not: take memory for what is only announced.
//! Next: `../message.rs`; docs/protocol.md §11.

use super::{
    ABOUT_BYTES_MAX, ADDRESS_BYTES_MAX, ADDRESSES_MAX, Address, BODY_BYTES_MAX, Beat, Buf, Bytes, CONTACTS_MAX,
    Contact, Member, Message, MessageError, NAMES_MAX, Notice, NoticeId, Purpose, Refusal, Stamp, WALK_STEPS_MAX,
};

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// [`MessageError`] when it is not one, or beyond a bound.
    pub fn decode(mut data: Bytes) -> Result<Self, MessageError> {
        let data = &mut data;
        Ok(match byte(data)? {
            1 => Self::Hello {
                purpose: purpose(byte(data)?)?,
                member: Member(array(data)?),
                nonce: array(data)?,
                addresses: addresses(data)?,
            },
            2 => Self::Challenge {
                member: Member(array(data)?),
                nonce: array(data)?,
                addresses: addresses(data)?,
                proof: array(data)?,
            },
            3 => Self::Proof { proof: array(data)? },
            4 => Self::Welcome { contacts: contacts(data)? },
            5 => Self::Refusal { reason: Refusal::from_code(byte(data)?), contacts: contacts(data)? },
            6 => {
                let steps = byte(data)?;
                if steps > WALK_STEPS_MAX {
                    return Err(MessageError::Bad("number of steps"));
                }
                Self::Walk { steps, contact: contact(data)? }
            }
            7 => Self::Exchange { contacts: contacts(data)? },
            8 => Self::Exchanged { contacts: contacts(data)? },
            9 => Self::Beat(beat(data)?),
            10 => Self::BeatBack(beat(data)?),
            16 => Self::Notice(notice(data)?),
            17 => {
                let count = usize::from(data.try_get_u16().map_err(|_| MessageError::Truncated)?);
                if count > NAMES_MAX {
                    return Err(MessageError::Bad("number of names"));
                }
                Self::Have { names: (0..count).map(|_| name(data)).collect::<Result<_, _>>()? }
            }
            18 => Self::Graft { id: name(data)? },
            19 => Self::Prune,
            tag => return Err(MessageError::UnknownTag(tag)),
        })
    }
}

fn purpose(code: u8) -> Result<Purpose, MessageError> {
    match code {
        0 => Ok(Purpose::IfRoom),
        1 => Ok(Purpose::TooFew),
        2 => Ok(Purpose::New),
        _ => Err(MessageError::Bad("purpose")),
    }
}

fn notice(data: &mut Bytes) -> Result<Notice, MessageError> {
    let (hops, id, seal) = (byte(data)?, name(data)?, array(data)?);
    if data.len() > BODY_BYTES_MAX {
        return Err(MessageError::Bad("length"));
    }
    Ok(Notice { hops, id, seal, body: std::mem::take(data) })
}

fn beat(data: &mut Bytes) -> Result<Beat, MessageError> {
    let number = data.try_get_u32().map_err(|_| MessageError::Truncated)?;
    let stamp = Stamp::from_u64(data.try_get_u64().map_err(|_| MessageError::Truncated)?);
    let length = usize::from(data.try_get_u16().map_err(|_| MessageError::Truncated)?);
    if length > ABOUT_BYTES_MAX {
        return Err(MessageError::Bad("length"));
    }
    Ok(Beat { number, stamp, about: take(data, length)? })
}

fn name(data: &mut Bytes) -> Result<NoticeId, MessageError> {
    let author = Member(array(data)?);
    let number = data.try_get_u64().map_err(|_| MessageError::Truncated)?;
    if number == 0 {
        return Err(MessageError::Bad("number"));
    }
    Ok(NoticeId { author, number })
}

fn addresses(data: &mut Bytes) -> Result<Vec<Address>, MessageError> {
    let count = usize::from(byte(data)?);
    if count > ADDRESSES_MAX {
        return Err(MessageError::Bad("number of addresses"));
    }
    (0..count).map(|_| address(data)).collect()
}

fn address(data: &mut Bytes) -> Result<Address, MessageError> {
    let length = usize::from(byte(data)?);
    if length > ADDRESS_BYTES_MAX {
        return Err(MessageError::Bad("address"));
    }
    let bytes = take(data, length)?;
    std::str::from_utf8(&bytes).ok().and_then(Address::new).ok_or(MessageError::Bad("address"))
}

fn contact(data: &mut Bytes) -> Result<Contact, MessageError> {
    Ok(Contact { member: Member(array(data)?), addresses: addresses(data)? })
}

fn contacts(data: &mut Bytes) -> Result<Vec<Contact>, MessageError> {
    let count = usize::from(byte(data)?);
    if count > CONTACTS_MAX {
        return Err(MessageError::Bad("number of contacts"));
    }
    (0..count).map(|_| contact(data)).collect()
}

fn byte(data: &mut Bytes) -> Result<u8, MessageError> {
    data.try_get_u8().map_err(|_| MessageError::Truncated)
}

fn array<const N: usize>(data: &mut Bytes) -> Result<[u8; N], MessageError> {
    let mut array = [0; N];
    data.try_copy_to_slice(&mut array).map_err(|_| MessageError::Truncated)?;
    Ok(array)
}

fn take(data: &mut Bytes, length: usize) -> Result<Bytes, MessageError> {
    if data.len() < length {
        return Err(MessageError::Truncated);
    }
    Ok(data.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages() -> Vec<Message> {
        let address = |text| Address::new(text).expect("short");
        let contact =
            Contact { member: Member([5; 16]), addresses: vec![address("ws://10.0.0.1:4000"), address("ws://b:1")] };
        let id = NoticeId { author: Member([6; 16]), number: 77 };
        let beat = Beat { number: 3, stamp: Stamp::new(1_700_000_000_000, 9), about: Bytes::from_static(b"laptop") };
        vec![
            Message::Hello {
                purpose: Purpose::New,
                member: Member([1; 16]),
                nonce: [2; 32],
                addresses: vec![address("ws://a:1")],
            },
            Message::Challenge { member: Member([1; 16]), nonce: [2; 32], addresses: Vec::new(), proof: [3; 32] },
            Message::Proof { proof: [4; 32] },
            Message::Welcome { contacts: vec![contact.clone()] },
            Message::Refusal { reason: Refusal::Offences, contacts: Vec::new() },
            Message::Walk { steps: 4, contact: contact.clone() },
            Message::Exchange { contacts: vec![contact.clone(), contact.clone()] },
            Message::Exchanged { contacts: vec![contact] },
            Message::Beat(beat.clone()),
            Message::BeatBack(beat),
            Message::Have { names: vec![id, id] },
            Message::Graft { id },
            Message::Prune,
            Message::Notice(Notice { hops: 2, id, seal: [8; 32], body: Bytes::from_static(b"body") }),
        ]
    }

    #[test]
    fn messages_survive_their_bytes_and_fields_of_later_versions() {
        for message in messages() {
            let bytes = message.encode();
            assert_eq!(Message::decode(bytes.clone()), Ok(message.clone()));
            // A notice's body is the rest, so that nothing can follow it.
            if matches!(message, Message::Notice(_)) {
                continue;
            }
            let longer = Bytes::from([&bytes[..], b"more"].concat());
            assert_eq!(Message::decode(longer), Ok(message));
            for end in 0..bytes.len() {
                assert!(Message::decode(bytes.slice(..end)).is_err(), "cut to {end}: {bytes:?}");
            }
        }
    }

    #[test]
    fn the_bytes_of_a_hello_and_of_a_notice_are_as_documented() {
        let golden = [&[1, 2][..], &[1; 16], &[2; 32], &[1, 8], b"ws://a:1"].concat();
        assert_eq!(messages()[0].encode(), golden);
        let golden = [&[16, 2][..], &[6; 16], &77_u64.to_be_bytes(), &[8; 32], b"body"].concat();
        assert_eq!(messages()[13].encode(), golden);
    }

    #[test]
    fn what_is_announced_beyond_a_bound_is_refused() {
        let bad = |bytes: &[u8]| Message::decode(Bytes::copy_from_slice(bytes));
        assert_eq!(bad(&[17, 0xff, 0xff]), Err(MessageError::Bad("number of names")));
        assert_eq!(bad(&[7, 17]), Err(MessageError::Bad("number of contacts")));
        assert_eq!(bad(&[6, 9]), Err(MessageError::Bad("number of steps")));
        assert_eq!(bad(&[77]), Err(MessageError::UnknownTag(77)));
        let large = Notice {
            hops: 0,
            id: NoticeId { author: Member([0; 16]), number: 1 },
            seal: [0; 32],
            body: Bytes::from(vec![0; BODY_BYTES_MAX + 1]),
        };
        assert_eq!(Message::decode(Message::Notice(large).encode()), Err(MessageError::Bad("length")));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(message) = Message::decode(Bytes::from(bytes)) {
                prop_assert_eq!(Message::decode(message.encode()), Ok(message));
            }
        }
    }
}
