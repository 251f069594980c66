//! How a program's monitor comes to its channel to `network`; the messages stand in `network.proto`.

/// Encodes and decodes what is no call.
pub use prost::Message;

/// What the connection begins with that asks for one.
pub const GREETING: &[u8] = b"bailiwick way out 1\n";
/// Bytes of a hello or a welcome.
pub const HELLO_BYTES_MAX: usize = 128 * 1024;
/// Bytes of a packet on the channel.
pub const PACKET_BYTES_MAX: usize = 16 * 1024;

/// Sockets that a monitor keeps for calls that are still to come, of each family, and that it asks for at once.
pub const SPARE_MAX: usize = 8;

/// A message of the beginning, with its length before it.
#[must_use]
pub fn with_length(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    // In one piece: whoever wipes it has wiped all.
    let mut bytes = Vec::with_capacity(length.saturating_add(size_of::<u32>()));
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    // Fails where there is no room, and a vector has it.
    let _ = message.encode(&mut bytes);
    bytes
}

/// What the supervisor says to the init of a service that answers its program's calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToInit {
    /// A new channel to `network` comes along, in the place of the one before.
    Open,
    /// End these, by the kernel's numbers.
    Cut(Vec<u64>),
}

/// Connections that are ended by one message; others come in the next.
pub const CUT_MAX: usize = 1_000;
/// Bytes of a [`ToInit`].
pub const TO_INIT_BYTES_MAX: usize = 1 + CUT_MAX * size_of::<u64>();
const OPEN: u8 = b'O';
const CUT: u8 = b'C';

impl ToInit {
    /// Of more than [`CUT_MAX`] sockets, the first.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Open => vec![OPEN],
            Self::Cut(sockets) => {
                let numbers = sockets.iter().take(CUT_MAX).flat_map(|number| number.to_le_bytes());
                std::iter::once(CUT).chain(numbers).collect()
            }
        }
    }

    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&OPEN, []) => Some(Self::Open),
            (&CUT, numbers) if bytes.len() <= TO_INIT_BYTES_MAX => {
                let (numbers, rest) = numbers.as_chunks::<{ size_of::<u64>() }>();
                let sockets = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
                rest.is_empty().then_some(Self::Cut(sockets))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_init_is_told_survives_up_to_its_limit() {
        for word in [ToInit::Open, ToInit::Cut(Vec::new()), ToInit::Cut((0..CUT_MAX as u64).collect())] {
            let bytes = word.encode();
            assert!(bytes.len() <= TO_INIT_BYTES_MAX);
            assert_eq!(ToInit::decode(&bytes), Some(word));
        }
        let more = ToInit::Cut(vec![7; CUT_MAX + 1]).encode();
        assert_eq!(ToInit::decode(&more), Some(ToInit::Cut(vec![7; CUT_MAX])));
        let long = [&[CUT][..], &[0; TO_INIT_BYTES_MAX + 7]].concat();
        for wrong in [&b""[..], b"OO", b"C1234567", b"X", &long] {
            assert_eq!(ToInit::decode(wrong), None);
        }
    }
}
