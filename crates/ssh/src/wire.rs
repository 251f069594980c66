//! SSH's encoding of numbers and strings (RFC 4251 §5).

use thiserror::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    #[error("it ends before its last field does")]
    Short,
    #[error("{0} bytes follow its last field")]
    Trailing(usize),
    #[error("a truth value is 0 or 1, not {0}")]
    Boolean(u8),
}

/// Takes fields from the front; borrows all of them.
pub(crate) struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    pub(crate) const fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, WireError> {
        let (byte, rest) = self.0.split_first().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, WireError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(WireError::Boolean(other)),
        }
    }

    pub(crate) fn number(&mut self) -> Result<u32, WireError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    pub(crate) fn string(&mut self) -> Result<&'b [u8], WireError> {
        let length = usize::try_from(self.number()?).map_err(|_| WireError::Short)?;
        let (string, rest) = self.0.split_at_checked(length).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(string)
    }

    pub(crate) const fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.0.len())) }
    }
}

/// `bytes` are far below 4 GiB: nothing here takes or makes that much.
pub(crate) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(bytes);
}

pub(crate) fn strings<const N: usize>(fields: [&[u8]; N]) -> Vec<u8> {
    let mut out = Vec::with_capacity(fields.iter().map(|field| 4 + field.len()).sum());
    fields.iter().for_each(|field| put_string(&mut out, field));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_in_order_and_nothing_is_left_over() {
        let bytes = [&[7, 1][..], &[0, 0, 0, 2], b"ab", &[0, 0, 1, 0]].concat();
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.byte(), reader.boolean()), (Ok(7), Ok(true)));
        assert_eq!((reader.string(), reader.number()), (Ok(&b"ab"[..]), Ok(256)));
        assert_eq!(reader.end(), Ok(()));
        assert_eq!(Reader::new(b"x").end(), Err(WireError::Trailing(1)));
        assert_eq!(Reader::new(&[2]).boolean(), Err(WireError::Boolean(2)));
    }

    #[test]
    fn a_length_beyond_the_end_takes_nothing() {
        for short in [&[0, 0, 0, 3, 1, 2][..], &[0xff; 4], &[0, 0, 0], b""] {
            assert_eq!(Reader::new(short).string(), Err(WireError::Short));
        }
    }
}
