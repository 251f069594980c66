//! As much of DER (X.690) as one certificate takes: single-byte tags, definite lengths in their shortest form.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
pub(crate) const TRUE: [u8; 3] = [0x01, 0x01, 0xff];

/// Constructed and of the context: `[number]`.
pub(crate) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// Primitive and of the context.
pub(crate) const fn implicit(number: u8) -> u8 {
    0x80 | number
}

/// Nothing here is made longer than 64 KiB.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=0x7f), _) => out.push(short),
        (Ok(byte), _) => out.extend([0x81, byte]),
        (_, Ok(two)) => {
            out.push(0x82);
            out.extend(two.to_be_bytes());
        }
        _ => out.extend([0x82, 0xff, 0xff]),
    }
    out.extend(content);
    out
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, &parts.concat())
}

/// Of a number of 32 bytes or the like, big-endian.
pub(crate) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len().saturating_sub(1));
    let digits = bytes.get(first..).unwrap_or_default();
    let sign = digits.first().is_none_or(|byte| *byte > 0x7f);
    element(INTEGER, &[if sign { &[0][..] } else { &[] }, digits].concat())
}

/// Takes elements from the front; borrows all of them. It only finds its way: what it lets pass is compared with what
/// the writer makes of it.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    pub(crate) const fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// The content of the next element, which has this tag.
    pub(crate) fn take(&mut self, tag: u8) -> Option<&'b [u8]> {
        let (found, content) = self.any()?;
        (found == tag).then_some(content)
    }

    /// Tag and content of the next element.
    pub(crate) fn any(&mut self) -> Option<(u8, &'b [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 => {
                let (&length, rest) = rest.split_first()?;
                (usize::from(length), rest)
            }
            0x82 => {
                let (&length, rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(length)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_their_shortest_form_and_read_back() {
        for (length, head) in [
            (0, vec![4, 0]),
            (0x7f, vec![4, 0x7f]),
            (0x80, vec![4, 0x81, 0x80]),
            (0xff, vec![4, 0x81, 0xff]),
            (0x100, vec![4, 0x82, 1, 0]),
            (0xffff, vec![4, 0x82, 0xff, 0xff]),
        ] {
            let content = vec![7; length];
            let bytes = element(OCTET_STRING, &content);
            assert_eq!(bytes, [&head[..], &content].concat());
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.take(OCTET_STRING), Some(&content[..]));
            assert!(reader.is_empty());
            if length > 0 {
                assert_eq!(Reader::new(&bytes[..bytes.len() - 1]).any(), None, "cut short");
            }
            assert_eq!(Reader::new(&bytes).take(SEQUENCE), None);
        }
        for no_length in [&[4, 0x80][..], &[4, 0x83, 0, 0, 1, 7], &[4, 0xff], &[4], &[]] {
            assert_eq!(Reader::new(no_length).any(), None);
        }
    }

    #[test]
    fn numbers_are_positive_and_have_no_needless_zero() {
        for (bytes, number) in [
            (&[0, 0, 5][..], &[2, 1, 5][..]),
            (&[0x80], &[2, 2, 0, 0x80]),
            (&[0, 0x7f], &[2, 1, 0x7f]),
            (&[0, 0], &[2, 1, 0]),
            (&[], &[2, 1, 0]),
        ] {
            assert_eq!(unsigned(bytes), number);
        }
    }
}
