//! A cursor over bytes that a peer chose.
//!
//! Owns: bounds checks and LEB128. Must not: allocate, or believe a length.
//! Next: `chunk/runs.rs`.

use super::runs::CellKind;

/// What is wrong with a field or column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It ends before its last value. **State:** nothing was kept. **Do:** send the change again, whole.
    #[error("is cut off")]
    Truncated,
    /// A number that is too long, or not minimal. **State:** nothing was kept. **Do:** repair the sender.
    #[error("holds a malformed number")]
    BadNumber,
    /// A number outside of what the column may hold. **State:** nothing was kept. **Do:** repair the sender.
    #[error("holds a number out of range")]
    OutOfRange,
    /// Text that is not UTF-8. **State:** nothing was kept. **Do:** repair the sender.
    #[error("holds text that is not UTF-8")]
    NotUtf8,
    /// Fewer or more rows than there are operations. **State:** nothing was kept. **Do:** repair the sender.
    #[error("has another number of rows than there are operations")]
    RowCount,
    /// An encoding that automerge would write differently, so that the change's hash would not survive a save.
    /// **State:** nothing was kept. **Do:** repair the sender.
    #[error("is not encoded as automerge would encode it")]
    NotCanonical,
}

/// A cursor over borrowed bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that was not read yet.
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Damage> {
        let (first, rest) = self.rest.split_first().ok_or(Damage::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Damage::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Bytes behind their length.
    pub(crate) fn prefixed(&mut self) -> Result<&'a [u8], Damage> {
        let length = self.unsigned()?;
        self.take(usize::try_from(length).map_err(|_| Damage::Truncated)?)
    }

    /// A minimal unsigned LEB128 number.
    pub(crate) fn unsigned(&mut self) -> Result<u64, Damage> {
        let mut value = 0;
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(Damage::BadNumber);
            }
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 7 { Err(Damage::BadNumber) } else { Ok(value) };
            }
        }
    }

    /// A minimal signed LEB128 number.
    pub(crate) fn signed(&mut self) -> Result<i64, Damage> {
        let mut value = 0i64;
        let mut shift = 0;
        let mut previous = 0;
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte != 0 && byte != 0x7f {
                return Err(Damage::BadNumber);
            }
            value |= i64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 != 0 {
                previous = byte;
                continue;
            }
            let sign_repeated = (byte == 0 && previous & 0x40 == 0) || (byte == 0x7f && previous & 0x40 != 0);
            if shift > 7 && sign_repeated {
                return Err(Damage::BadNumber);
            }
            if shift < 64 && byte & 0x40 != 0 {
                value |= -1 << shift;
            }
            return Ok(value);
        }
    }

    /// One value of a run-length column.
    pub(crate) fn cell<V: CellKind<'a>>(&mut self) -> Result<V, Damage> {
        V::read(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unsigned(bytes: &[u8]) -> Result<u64, Damage> {
        Reader::new(bytes).unsigned()
    }

    fn signed(bytes: &[u8]) -> Result<i64, Damage> {
        Reader::new(bytes).signed()
    }

    fn signed_bytes(mut value: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let byte = (value & 0x7f) as u8;
            value >>= 7;
            let done = (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0);
            bytes.push(if done { byte } else { byte | 0x80 });
            if done {
                return bytes;
            }
        }
    }

    #[test]
    fn numbers_must_be_minimal_and_fit() {
        assert_eq!(unsigned(&[0x80, 0x00]), Err(Damage::BadNumber));
        assert_eq!(unsigned(&[0xff; 20]), Err(Damage::BadNumber));
        assert_eq!(unsigned(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Ok(u64::MAX));
        assert_eq!(unsigned(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), Err(Damage::BadNumber));
        assert_eq!(unsigned(&[0x80]), Err(Damage::Truncated));
        assert_eq!(signed(&[0x80, 0x00]), Err(Damage::BadNumber));
        assert_eq!(signed(&[0xff, 0x7f]), Err(Damage::BadNumber));
        assert_eq!(signed(&[0xff, 0x00]), Ok(127));
    }

    proptest! {
        #[test]
        fn signed_numbers_survive(value in any::<i64>(), shift in 0u32..64) {
            let value = value >> shift;
            prop_assert_eq!(signed(&signed_bytes(value)), Ok(value));
        }
    }
}
