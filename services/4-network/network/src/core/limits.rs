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
/// Connects that one program may ask for in a row, and a second from then on; the next is told to try again. Each that is
/// permitted is three entries of the log.
pub const CONNECTS_AT_ONCE_MAX: u32 = 1_000;
pub const CONNECTS_A_SECOND_MAX: u32 = 500;
/// Names of one program that are being asked for, and how many it may ask for in a row, and a second from then on; the next
/// hears that it failed.
pub const QUESTIONS_OF_PROGRAM_MAX: usize = 64;
pub const QUESTIONS_AT_ONCE_MAX: u32 = 200;
pub const QUESTIONS_A_SECOND_MAX: u32 = 50;
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
    fn time_limits_are_kept_within_bounds() {
        assert_eq!(time_limit(0), Duration::ZERO);
        assert_eq!(time_limit(300_000), TIMEOUT_MAX);
        assert_eq!(time_limit(300_001), TIMEOUT_MAX);
        assert_eq!(time_limit_or_default(0), TIMEOUT_DEFAULT);
        assert_eq!(time_limit_or_default(1), Duration::from_millis(1));
    }
}
