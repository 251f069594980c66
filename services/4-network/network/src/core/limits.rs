//! Every limit of this service.

use std::time::Duration;

/// Sockets of all callers together, and of one identity.
pub const SOCKETS_MAX: usize = 4_000;
pub const SOCKETS_OF_ONE_MAX: usize = 1_000;
/// Sends and receives under way of one identity, and of all: each may hold [`TRANSFER_BYTES_MAX`].
pub const TRANSFERS_OF_ONE_MAX: usize = 256;
pub const TRANSFERS_MAX: usize = 2_048;
/// Bytes of one send or receive.
pub const TRANSFER_BYTES_MAX: usize = 65_536;
/// What fits into a datagram of IPv4.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Peers that one datagram socket has been authorised to send to.
pub const PEERS_MAX: usize = 1_024;
/// Programs with a way out; process_manager keeps as many.
pub const PROGRAMS_MAX: usize = 512;
/// Connects of one program that are being decided or are under way; the next is told to try again.
pub const CONNECTS_OF_PROGRAM_MAX: usize = 256;
/// The same of all programs together: each has a descriptor here meanwhile. With [`SOCKETS_MAX`], two for each program and three
/// for each of [`RELAYS_MAX`] it stays below what the manifest gives (`open_files_max`).
pub const CONNECTS_MAX: usize = 2_000;
/// Connects that one program may ask for in a row, and a second from then on; the next is told to try again. Each that is
/// permitted is three entries of the log.
pub const CONNECTS_AT_ONCE_MAX: u32 = 1_000;
pub const CONNECTS_A_SECOND_MAX: u32 = 500;
/// Connections of programs that go through the relay at once; each holds two descriptors and two buffers.
pub const RELAYS_MAX: usize = 512;
pub const RELAY_BUFFER_BYTES: usize = 65_536;
/// How long the relay tries, as the kernel would.
pub const RELAY_CONNECT_TIMEOUT: Duration = Duration::from_secs(127);
/// Within this time a connection has said whom it asks for.
pub const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);
pub const BACKLOG_DEFAULT: u32 = 128;
pub const BACKLOG_MAX: u32 = 4_096;
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
pub const TIMEOUT_MAX: Duration = Duration::from_secs(300);
pub const REASON_BYTES_MAX: usize = 256;

/// What a caller asked for, in milliseconds; beyond the largest it is the largest.
#[must_use]
pub fn time_limit(asked_ms: u32) -> Duration {
    Duration::from_millis(u64::from(asked_ms)).min(TIMEOUT_MAX)
}

/// The same where 0 stands for the usual.
#[must_use]
pub fn time_limit_or_default(asked_ms: u32) -> Duration {
    if asked_ms == 0 { TIMEOUT_DEFAULT } else { time_limit(asked_ms) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_not_used_up() {
        /// `open_files_max` of the manifest, and what the runtime, the edges and the log have.
        const OPEN_FILES_MAX: usize = 9_000;
        const OTHERS: usize = 300;
        // A relay that is being made listens too.
        let most = SOCKETS_MAX + 2 * PROGRAMS_MAX + 3 * RELAYS_MAX + CONNECTS_MAX + OTHERS;
        assert!(most <= OPEN_FILES_MAX, "{most}");
        assert!(include_str!("../../manifest.toml").contains("open_files_max = 9000"));
    }

    #[test]
    fn time_limits_are_kept_within_bounds() {
        assert_eq!(time_limit(0), Duration::ZERO);
        assert_eq!(time_limit(300_000), TIMEOUT_MAX);
        assert_eq!(time_limit(300_001), TIMEOUT_MAX);
        assert_eq!(time_limit_or_default(0), TIMEOUT_DEFAULT);
        assert_eq!(time_limit_or_default(1), Duration::from_millis(1));
    }
}
