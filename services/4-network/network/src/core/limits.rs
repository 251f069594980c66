//! Every limit of this service.

use std::time::Duration;

use base::limits::MESSAGE_BYTES_MAX;
use chain::payload::network::CallLimits;

/// Sockets of all callers together, and of one identity.
pub const SOCKETS_MAX: usize = 4_000;
pub const SOCKETS_OF_ONE_MAX: usize = 1_000;
/// Connections of programs, of all and of one identity: beside the sockets, since this service has no descriptor of them. What a
/// relay or the proxy has of them is limited there. Each costs some two kibibytes, and a question to the kernel at each look.
pub const FLOWS_MAX: usize = 16_000;
pub const FLOWS_OF_ONE_MAX: usize = 12_000;
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
/// Greetings that wait for the way out of one program while another opens it; one more is told nothing, and comes again.
pub const GREETINGS_OF_PROGRAM_MAX: usize = 2;
/// What was opened and taken by nobody is there for so long.
pub const OPENED_WAITS: Duration = Duration::from_secs(5);
/// Connects of one program that are being decided or are under way; the next is told to try again.
pub const CONNECTS_OF_PROGRAM_MAX: usize = 256;
/// The same of all programs together: each has a descriptor here meanwhile.
pub const CONNECTS_MAX: usize = 2_000;
/// Connects that one program may ask for in a row, and a second from then on; the next is told to try again. Each that is
/// permitted is three entries of the log.
pub const CONNECTS_AT_ONCE_MAX: u32 = 1_000;
pub const CONNECTS_A_SECOND_MAX: u32 = 500;
/// What the operator can set in their place at most.
pub const CONNECTS_SET_MAX: u32 = 1_000_000;
/// Of a program's connections the kernel is asked about so many in a row; whoever waits for a decision comes between.
pub const LOOKED_AT_IN_A_ROW_MAX: usize = 256;
/// What is remembered of who asked for what, to guess which rule decides about it the next time.
pub const EXPECTED_MAX: usize = 4_096;
/// Names of one program that are being asked for, and how many it may ask for in a row, and a second from then on; the next
/// hears that it failed.
pub const QUESTIONS_OF_PROGRAM_MAX: usize = 64;
pub const QUESTIONS_AT_ONCE_MAX: u32 = 200;
pub const QUESTIONS_A_SECOND_MAX: u32 = 50;
/// Questions under way of all who ask, each with a socket; the next is told that it is busy.
pub const QUESTIONS_MAX: usize = 256;
/// Of one program, and no more than a part of all of them.
pub const RELAYS_OF_PROGRAM_MAX: usize = 128;
/// Connections of programs that go through the relay at once; each holds two descriptors and two buffers.
pub const RELAYS_MAX: usize = 512;
/// Threads that carry what is relayed.
pub const CARRIERS_MAX: usize = 4;
pub const RELAY_BUFFER_BYTES: usize = 16_384;
/// What a buffer grows to while it is filled again and again, and what a pipe holds that takes its place then: copied with eight kibibytes a flow carries a quarter of a direct one, with so
/// many three quarters. Of all relays at once some 256 MiB, half of the service's memory.
pub const RELAY_BUFFER_BYTES_MAX: usize = 262_144;
/// How long the relay tries, as the kernel would.
pub const RELAY_CONNECT_TIMEOUT: Duration = Duration::from_secs(127);
/// How long a relay goes on that nobody has the program's end of: what was sent before arrives, and an answer reaches nobody.
pub const RELAY_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Within this time a connection has said whom it asks for.
pub const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);
/// To how many one program sends datagrams at once, and to how many more it may begin to in a row, and a second from then on; what it
/// sends to the next is dropped. Each that is permitted is three entries of the log.
pub const PEERS_OF_PROGRAM_MAX: usize = 128;
pub const NEW_PEERS_AT_ONCE_MAX: u32 = 100;
pub const NEW_PEERS_A_SECOND_MAX: u32 = 50;
/// Sockets for datagrams of one program, one for each of its ports and each peer, and of all.
pub const DATAGRAM_SOCKETS_OF_PROGRAM_MAX: usize = 128;
pub const DATAGRAM_SOCKETS_MAX: usize = 1_024;
/// Without a datagram in either direction its socket is given up, and with the last of a peer what was authorised.
pub const DATAGRAM_IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Datagrams to one peer that wait, for the decision or for their rate; bytes of them of one program, and of all.
pub const WAITING_DATAGRAMS_MAX: usize = 64;
pub const WAITING_BYTES_OF_PROGRAM_MAX: usize = 1024 * 1024;
pub const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// For how long policy is not asked again about a peer that it has refused, and how many of one program are remembered.
pub const DENIED_FOR: Duration = Duration::from_secs(10);
pub const DENIED_MAX: usize = 1_024;
/// Connections to the proxy of one program, and of all; another is closed at once.
pub const PROXIED_OF_PROGRAM_MAX: usize = 64;
pub const PROXIED_MAX: usize = 512;
/// How long an answer by the proxy goes on when its program has said all that it had to.
pub const PROXIED_HALF_OPEN_TIMEOUT: Duration = Duration::from_secs(300);
/// Connections of the proxy that wait for the next request to the same place, of one program and of all, and for how long: less than
/// most servers wait. A request that cannot be sent twice takes only one that was used a moment ago.
pub const PROXY_KEPT_OF_PROGRAM_MAX: usize = 32;
pub const PROXY_KEPT_MAX: usize = 256;
pub const PROXY_KEPT_FOR: Duration = Duration::from_secs(15);
pub const PROXY_KEPT_SURE_FOR: Duration = Duration::from_secs(1);
/// How long a host has to show that it is the one that a secret is for.
pub const EDGE_TLS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the proxy tries one address.
pub const PROXY_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Refusals by the proxy that a program's monitor is told, for `why`: in a row, and a second from then on; bytes of each.
pub const TOLD_AT_ONCE_MAX: u32 = 100;
pub const TOLD_A_SECOND_MAX: u32 = 5;
pub const TOLD_BYTES_MAX: usize = 512;
pub const BACKLOG_DEFAULT: u32 = 128;
pub const BACKLOG_MAX: u32 = 4_096;
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
pub const TIMEOUT_MAX: Duration = Duration::from_secs(300);
pub const REASON_BYTES_MAX: usize = 256;

/// Bytes of a URL, and of where a redirect leads.
pub const URL_BYTES_MAX: usize = 8_192;
/// Hops behind the first request (open point 9).
pub const REDIRECTS_MAX: u32 = 10;
/// Addresses of one name that are tried; each try is decided and recorded.
pub const ADDRESSES_TRIED_MAX: usize = 4;
/// Names of the headers of one request or answer.
pub const HEADERS_MAX: usize = 256;
/// Requests under way of one identity, and of all; each may hold a body of its own.
pub const FETCHES_OF_ONE_MAX: usize = 32;
pub const FETCHES_MAX: usize = 96;
/// Of them, those whose body did not fit into one message.
/// Of one identity.
pub const UPLOADS_OF_ONE_MAX: usize = 2;
pub const UPLOADS_MAX: usize = 8;
/// WebSockets of one identity, and of all; each may hold a message.
pub const WEB_SOCKETS_OF_ONE_MAX: usize = 32;
pub const WEB_SOCKETS_MAX: usize = 96;
/// Subprotocols that are offered, and bytes of one.
pub const PROTOCOLS_MAX: usize = 16;
/// Bytes of a reason to close: what fits into a control frame beside the code.
pub const CLOSE_REASON_BYTES_MAX: usize = 123;
/// For the peer's close to come after ours, and for a caller that does not read to take the last word.
pub const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(5);
/// Rules by URL, and bytes of an id or a name and of a pattern.
pub const URL_RULES_MAX: usize = 128;
pub const URL_PATTERN_BYTES_MAX: usize = 256;
/// Authorities beside those of the build, and bytes of one in PEM.
pub const AUTHORITIES_MAX: usize = 8;
pub const AUTHORITY_BYTES_MAX: usize = 4_096;
/// Windows of requests that are counted at a time. Beyond them a request is refused: nobody would count it.
pub const WINDOWS_OF_PROCESSES_MAX: usize = 2_048;
pub const WINDOWS_OF_HOSTS_MAX: usize = 8_192;

/// NET-56, NET-57, open point 11. A message of a WebSocket goes on in one message of the contract, which holds little less.
pub const CALL_LIMITS_DEFAULT: CallLimits = CallLimits {
    process_requests: 100,
    process_window_ms: 60_000,
    host_requests: 10,
    host_window_ms: 1_000,
    request_bytes: 4 * 1024 * 1024,
    response_bytes: 16 * 1024 * 1024,
    header_bytes: 64 * 1024,
    message_bytes: MESSAGE_BYTES_MAX as u32 - 4_096,
};
/// What an administrator can set at most.
pub const CALL_LIMITS_MAX: CallLimits = CallLimits {
    process_requests: 1_000_000,
    process_window_ms: 86_400_000,
    host_requests: 1_000_000,
    host_window_ms: 86_400_000,
    request_bytes: CALL_LIMITS_DEFAULT.request_bytes,
    response_bytes: 1 << 40,
    header_bytes: 256 * 1024,
    message_bytes: CALL_LIMITS_DEFAULT.message_bytes,
};
/// The HTTP client reads into no less.
pub const HEADER_BYTES_MIN: u32 = 8_192;

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

    /// Named constant, how many there can be, and how many descriptors each holds at most.
    macro_rules! descriptors {
        ($($name:ident * $each:literal,)*) => { [$((stringify!($name), $name * $each)),*] };
    }

    /// What counts something that holds no descriptor of its own: it is a part of another, or not a number of things.
    const NONE: [&str; 38] = [
        "GREETINGS_OF_PROGRAM_MAX",
        "SOCKETS_OF_ONE_MAX",
        // Their descriptors are the programs'.
        "FLOWS_MAX",
        "FLOWS_OF_ONE_MAX",
        "LOOKED_AT_IN_A_ROW_MAX",
        "TRANSFERS_OF_ONE_MAX",
        "TRANSFERS_MAX",
        "TRANSFER_BYTES_MAX",
        "DATAGRAM_BYTES_MAX",
        "PEERS_MAX",
        "CONNECTS_OF_PROGRAM_MAX",
        "EXPECTED_MAX",
        "QUESTIONS_OF_PROGRAM_MAX",
        "RELAYS_OF_PROGRAM_MAX",
        "PROXIED_OF_PROGRAM_MAX",
        "PROXY_KEPT_OF_PROGRAM_MAX",
        "TOLD_BYTES_MAX",
        "RELAY_BUFFER_BYTES_MAX",
        "PEERS_OF_PROGRAM_MAX",
        "DATAGRAM_SOCKETS_OF_PROGRAM_MAX",
        "WAITING_DATAGRAMS_MAX",
        "WAITING_BYTES_OF_PROGRAM_MAX",
        "WAITING_BYTES_MAX",
        "DENIED_MAX",
        "REASON_BYTES_MAX",
        "URL_BYTES_MAX",
        "ADDRESSES_TRIED_MAX",
        "HEADERS_MAX",
        // Each goes over one of the sockets.
        "FETCHES_OF_ONE_MAX",
        "FETCHES_MAX",
        "UPLOADS_OF_ONE_MAX",
        "UPLOADS_MAX",
        "WEB_SOCKETS_OF_ONE_MAX",
        "WEB_SOCKETS_MAX",
        "PROTOCOLS_MAX",
        "CLOSE_REASON_BYTES_MAX",
        "URL_RULES_MAX",
        "URL_PATTERN_BYTES_MAX",
    ];
    const NONE_OF_CALLS: [&str; 4] =
        ["AUTHORITIES_MAX", "AUTHORITY_BYTES_MAX", "WINDOWS_OF_PROCESSES_MAX", "WINDOWS_OF_HOSTS_MAX"];

    #[test]
    fn descriptors_are_not_used_up() {
        /// What the runtime, the edges and the log have.
        const OTHERS: usize = 300;
        let held = descriptors![
            SOCKETS_MAX * 1,
            // With the greetings that wait.
            PROGRAMS_MAX * 5,
            // Its two ends, and a pipe for each direction that carries much.
            RELAYS_MAX * 6,
            CARRIERS_MAX * 4,
            CONNECTS_MAX * 1,
            QUESTIONS_MAX * 1,
            DATAGRAM_SOCKETS_MAX * 1,
            // Where it leads to is one of the sockets.
            PROXIED_MAX * 1,
            PROXY_KEPT_MAX * 1,
        ];
        let most = OTHERS + held.iter().map(|(_, count)| count).sum::<usize>();
        let manifest = include_str!("../../manifest.toml");
        let given = manifest.lines().find_map(|line| line.strip_prefix("open_files_max = "));
        let given: usize = given.unwrap().parse().unwrap();
        assert!(most <= given, "{most} descriptors, the manifest gives {given}");

        // A new number of things stands in one of the lists.
        let text = include_str!("limits.rs");
        let numbers =
            text.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once("_MAX: usize"));
        for name in numbers.map(|(name, _)| format!("{name}_MAX")) {
            let counts = held.iter().any(|(one, _)| *one == name);
            let none = NONE.iter().chain(&NONE_OF_CALLS).any(|one| *one == name);
            assert!(counts != none, "{name}: how many descriptors does each hold?");
        }
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
