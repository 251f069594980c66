//! How a program's monitor comes to its channel to `network`; the messages stand in `network.proto`.

/// Encodes and decodes what is no call.
pub use prost::Message;

/// What the connection begins with that asks for one.
pub const GREETING: &[u8] = b"bailiwick way out 1\n";
/// Bytes of a hello or a welcome.
pub const HELLO_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a packet on the channel: as many sockets as one identity may have.
pub const PACKET_BYTES_MAX: usize = 16 * 1024;

/// Sockets that a monitor keeps for calls that are still to come, of each family, and that it asks for at once.
pub const SPARE_MAX: usize = 8;

/// A message of the beginning, with its length before it.
#[must_use]
pub fn with_length(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut bytes = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    bytes.extend(body);
    bytes
}
