//! Deterministic CBOR: one value, one encoding. What was hashed or signed is kept as bytes and never encoded again.

use minicbor::{Decode, Decoder, Encode, data::Type, encode::Write};
use thiserror::Error;

use crate::limits::NESTING_MAX;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CborError {
    #[error("not valid cbor for this type: {0}")]
    Decode(String),
    #[error("{0} bytes are left over after the value")]
    Trailing(usize),
    #[error("the value is not in its one canonical encoding")]
    NotCanonical,
    #[error("nested deeper than {NESTING_MAX}")]
    TooDeep,
    #[error("indefinite lengths, tags and floats are not used here")]
    Unsupported,
}

/// Encodes a value. Writing to memory cannot fail.
#[must_use]
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    // Most of what the log holds fits; the largest decisions grow it once.
    let mut bytes = Vec::with_capacity(512);
    // The writer is a Vec: its error type has no values.
    let _ = minicbor::encode(value, &mut bytes);
    bytes
}

/// Decodes exactly one value that fills `bytes` and stands in its canonical encoding.
pub fn decode<'b, T: Decode<'b, ()> + Encode<()>>(bytes: &'b [u8]) -> Result<T, CborError> {
    check_structure(bytes)?;
    let mut decoder = Decoder::new(bytes);
    let value: T = decoder.decode().map_err(|error| CborError::Decode(error.to_string()))?;
    if decoder.position() != bytes.len() {
        return Err(CborError::Trailing(bytes.len().saturating_sub(decoder.position())));
    }
    match is_encoding_of(bytes, &value) {
        true => Ok(value),
        false => Err(CborError::NotCanonical),
    }
}

/// Whether `encode` would give these bytes; without writing them down once more.
fn is_encoding_of<T: Encode<()>>(bytes: &[u8], value: &T) -> bool {
    let mut rest = Rest(bytes);
    minicbor::encode(value, &mut rest).is_ok() && rest.0.is_empty()
}

/// Takes in only what stands there already.
struct Rest<'b>(&'b [u8]);

/// Something else was written than what stands there.
#[derive(Debug)]
struct Differs;

impl Write for Rest<'_> {
    type Error = Differs;

    fn write_all(&mut self, written: &[u8]) -> Result<(), Differs> {
        self.0 = self.0.strip_prefix(written).ok_or(Differs)?;
        Ok(())
    }
}

/// Bounds the nesting before any recursive decoder runs, without recursion.
fn check_structure(bytes: &[u8]) -> Result<(), CborError> {
    let wrap = |error: minicbor::decode::Error| CborError::Decode(error.to_string());
    let mut decoder = Decoder::new(bytes);
    let mut open = Open { left: [0; NESTING_MAX], depth: 0 };
    loop {
        match decoder.datatype().map_err(wrap)? {
            Type::Array => open.push(decoder.array().map_err(wrap)?.ok_or(CborError::Unsupported)?)?,
            Type::Map => {
                let pairs = decoder.map().map_err(wrap)?.ok_or(CborError::Unsupported)?;
                open.push(pairs.checked_mul(2).ok_or(CborError::TooDeep)?)?;
            }
            Type::Tag | Type::F16 | Type::F32 | Type::F64 | Type::ArrayIndef | Type::MapIndef => {
                return Err(CborError::Unsupported);
            }
            Type::BytesIndef | Type::StringIndef | Type::Break => return Err(CborError::Unsupported),
            Type::Bytes => {
                decoder.bytes().map_err(wrap)?;
                open.close_one();
            }
            Type::String => {
                decoder.str().map_err(wrap)?;
                open.close_one();
            }
            _ => {
                decoder.skip().map_err(wrap)?;
                open.close_one();
            }
        }
        if open.is_done() {
            return Ok(());
        }
    }
}

/// Arrays and maps that are not read to their end, outermost first, with what is left in each.
struct Open {
    left: [u64; NESTING_MAX],
    depth: usize,
}

impl Open {
    fn push(&mut self, members: u64) -> Result<(), CborError> {
        *self.left.get_mut(self.depth).ok_or(CborError::TooDeep)? = members;
        self.depth += 1;
        Ok(())
    }

    fn innermost(&mut self) -> Option<&mut u64> {
        self.left.get_mut(..self.depth)?.last_mut()
    }

    fn close_one(&mut self) {
        if let Some(left) = self.innermost() {
            *left = left.saturating_sub(1);
        }
    }

    /// Leaves what has come to its end, and tells whether that is all.
    fn is_done(&mut self) -> bool {
        while self.innermost().is_some_and(|left| *left == 0) {
            self.depth -= 1;
            self.close_one();
        }
        self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AxiomRef, Hash, Sequence};

    /// covers: SUP-77
    #[test]
    fn only_the_canonical_encoding_is_accepted() {
        let value = AxiomRef { sequence: Sequence(7), hash: Hash::of(b"x") };
        let bytes = encode(&value);
        assert_eq!(decode::<AxiomRef>(&bytes), Ok(value));
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(decode::<AxiomRef>(&longer), Err(CborError::Trailing(1)));
        assert!(decode::<AxiomRef>(&bytes[..bytes.len() - 1]).is_err());
        // 7 written as a one-byte argument is the same number in another encoding.
        let mut padded = bytes[..1].to_vec();
        padded.extend([0x18, 7]);
        padded.extend(&bytes[2..]);
        assert_eq!(decode::<AxiomRef>(&padded), Err(CborError::NotCanonical));
        let mut missing = vec![0x81, 7];
        assert!(matches!(decode::<AxiomRef>(&missing), Err(CborError::Decode(_))));
        missing[0] = 0x9f;
        assert_eq!(decode::<AxiomRef>(&missing), Err(CborError::Unsupported));
    }

    #[test]
    fn nesting_is_bounded_at_the_limit() {
        let nested = |depth: usize| {
            let mut bytes = vec![0x81; depth];
            bytes.push(0);
            bytes
        };
        assert_eq!(check_structure(&nested(NESTING_MAX)), Ok(()));
        assert_eq!(check_structure(&nested(NESTING_MAX + 1)), Err(CborError::TooDeep));
    }
}
