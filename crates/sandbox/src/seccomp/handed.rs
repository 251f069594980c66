//! What guards the sockets of another network that a program is handed (`NotifyCall::Socket`): they are born outside of its
//! namespace, so what its own empty network makes harmless is not harmless on them.

use libc::*;

use super::Action::{Allow, Errno};
use super::Rule;
use super::When::{AllBits, Always, AnyBit, BothEqual, Equals};
use super::profiles::on;

const TCP_NOTSENT_LOWAT: i32 = 25;
const SO_RCVTIMEO_NEW: i32 = 66;
const SO_SNDTIMEO_NEW: i32 = 67;
const SO_TIMESTAMP_NEW: i32 = 63;
const NETLINK_PKTINFO: i32 = 3;
const NETLINK_EXT_ACK: i32 = 11;
const NETLINK_GET_STRICT_CHK: i32 = 12;

const fn set(level: i32, name: i32, why: &'static str) -> Rule {
    let when = BothEqual { first: (1, level as u32), second: (2, name as u32) };
    on(&[SYS_setsockopt], when, Allow, why)
}

const fn foreign(level: i32, name: i32, why: &'static str) -> Rule {
    let when = BothEqual { first: (1, level as u32), second: (2, name as u32) };
    on(&[SYS_setsockopt], when, Errno(ENOPROTOOPT), why)
}

const FAST_OPEN_SENDTO: Rule = on(
    &[SYS_sendto, SYS_sendmmsg],
    AnyBit { argument: 3, bits: MSG_FASTOPEN as u32 },
    Errno(EOPNOTSUPP),
    "it connects without a connect",
);
const FAST_OPEN_SENDMSG: Rule = on(
    &[SYS_sendmsg],
    AnyBit { argument: 2, bits: MSG_FASTOPEN as u32 },
    Errno(EOPNOTSUPP),
    "it connects without a connect",
);

const fn asks(request: u64, why: &'static str) -> Rule {
    on(&[SYS_ioctl], Equals { argument: 1, value: request as u32 }, Allow, why)
}

const SO_BINDTOIFINDEX: i32 = 62;
const TCP_FASTOPEN_CONNECT: i32 = 30;
const IP_UNICAST_IF: i32 = 50;
const IPV6_2292PKTOPTIONS: i32 = 6;
const IPV6_NEXTHOP: i32 = 9;
const IPV6_FREEBIND: i32 = 78;
const IPV6_UNICAST_IF: i32 = 76;
const FIOSETOWN: u64 = 0x8901;
const SIOCSPGRP: u64 = 0x8902;
const FIOGETOWN: u64 = 0x8903;
const SIOCGPGRP: u64 = 0x8904;
const SIOCATMARK: u64 = 0x8905;
const SIOCGSTAMP: u64 = 0x8906;
const SIOCGSTAMPNS: u64 = 0x8907;
const SIOCGSTAMP_NEW: u64 = 0x8010_8906;
const SIOCGSTAMPNS_NEW: u64 = 0x8010_8907;
/// What every request to a socket's network has: routes, neighbours, interfaces, bridges and tunnels are 0x89.., wireless 0x8b...
/// Requests of other devices that have these bits too are of none that a program is shown.
const OF_NETWORKS: u32 = 0x8900;

/// The first line that matches decides; these stand before the profile's.
pub(super) const HANDED: &[Rule] = &[
    set(SOL_SOCKET, SO_REUSEADDR, "own servers"),
    set(SOL_SOCKET, SO_REUSEPORT, "own servers"),
    set(SOL_SOCKET, SO_KEEPALIVE, "long connections"),
    set(SOL_SOCKET, SO_LINGER, "how a connection ends"),
    set(SOL_SOCKET, SO_RCVBUF, "sizes, within the system's limits"),
    set(SOL_SOCKET, SO_SNDBUF, "sizes, within the system's limits"),
    set(SOL_SOCKET, SO_RCVLOWAT, "when it is woken"),
    set(SOL_SOCKET, SO_RCVTIMEO, "how long it waits"),
    set(SOL_SOCKET, SO_SNDTIMEO, "how long it waits"),
    set(SOL_SOCKET, SO_RCVTIMEO_NEW, "how long it waits"),
    set(SOL_SOCKET, SO_SNDTIMEO_NEW, "how long it waits"),
    set(SOL_SOCKET, SO_OOBINLINE, "old protocols"),
    set(SOL_SOCKET, SO_BROADCAST, "own datagrams, which have no way out"),
    set(SOL_SOCKET, SO_PASSCRED, "Unix sockets"),
    set(SOL_SOCKET, SO_TIMESTAMP, "when a datagram came"),
    set(SOL_SOCKET, SO_TIMESTAMP_NEW, "when a datagram came"),
    set(SOL_SOCKET, SO_PRIORITY, "own queueing; what is high needs a right"),
    set(IPPROTO_TCP, TCP_NODELAY, "small messages"),
    set(IPPROTO_TCP, TCP_MAXSEG, "sizes"),
    set(IPPROTO_TCP, TCP_CORK, "small messages"),
    set(IPPROTO_TCP, TCP_KEEPIDLE, "long connections"),
    set(IPPROTO_TCP, TCP_KEEPINTVL, "long connections"),
    set(IPPROTO_TCP, TCP_KEEPCNT, "long connections"),
    set(IPPROTO_TCP, TCP_SYNCNT, "how long it tries"),
    set(IPPROTO_TCP, TCP_LINGER2, "how a connection ends"),
    set(IPPROTO_TCP, TCP_DEFER_ACCEPT, "own servers"),
    set(IPPROTO_TCP, TCP_WINDOW_CLAMP, "sizes"),
    set(IPPROTO_TCP, TCP_QUICKACK, "small messages"),
    set(IPPROTO_TCP, TCP_CONGESTION, "of those that the system permits"),
    set(IPPROTO_TCP, TCP_USER_TIMEOUT, "how long it tries"),
    set(IPPROTO_TCP, TCP_NOTSENT_LOWAT, "when it is woken"),
    set(IPPROTO_IP, IP_TOS, "kind of service"),
    set(IPPROTO_IP, IP_TTL, "how far packets go"),
    set(IPPROTO_IP, IP_RECVERR, "errors by packet"),
    set(IPPROTO_IP, IP_MTU_DISCOVER, "sizes"),
    set(IPPROTO_IP, IP_PKTINFO, "own datagrams"),
    set(IPPROTO_IP, IP_RECVTOS, "own datagrams"),
    set(IPPROTO_IP, IP_RECVTTL, "own datagrams"),
    set(IPPROTO_IPV6, IPV6_V6ONLY, "one family or both"),
    set(IPPROTO_IPV6, IPV6_TCLASS, "kind of service"),
    set(IPPROTO_IPV6, IPV6_UNICAST_HOPS, "how far packets go"),
    set(IPPROTO_IPV6, IPV6_RECVERR, "errors by packet"),
    set(IPPROTO_IPV6, IPV6_MTU_DISCOVER, "sizes"),
    set(IPPROTO_IPV6, IPV6_RECVPKTINFO, "own datagrams"),
    set(SOL_NETLINK, NETLINK_PKTINFO, "look-ups of the C library"),
    set(SOL_NETLINK, NETLINK_EXT_ACK, "look-ups of the C library"),
    set(SOL_NETLINK, NETLINK_GET_STRICT_CHK, "look-ups of the C library"),
    on(
        &[SYS_setsockopt],
        Always,
        Errno(ENOPROTOOPT),
        "source routes reach what was denied; devices, foreign addresses, filters and repair are the host's",
    ),
    FAST_OPEN_SENDTO,
    FAST_OPEN_SENDMSG,
    asks(FIOSETOWN, "who hears of it"),
    asks(SIOCSPGRP, "who hears of it"),
    asks(FIOGETOWN, "who hears of it"),
    asks(SIOCGPGRP, "who hears of it"),
    asks(SIOCATMARK, "old protocols"),
    asks(SIOCGSTAMP, "when a datagram came"),
    asks(SIOCGSTAMPNS, "when a datagram came"),
    asks(SIOCGSTAMP_NEW, "when a datagram came"),
    asks(SIOCGSTAMPNS_NEW, "when a datagram came"),
    on(
        &[SYS_ioctl],
        AllBits { argument: 1, bits: OF_NETWORKS },
        Errno(ENOTTY),
        "the host's interfaces, routes and neighbours",
    ),
];

/// Of a program that was handed none itself: another one that sees the same folder may pass on what it was handed, and take it
/// back. What sends elsewhere than the connect says, or without one, is refused, and all else is its own network's.
pub(super) const FOREIGN: &[Rule] = &[
    foreign(SOL_SOCKET, SO_BINDTODEVICE, "a device of the host's"),
    foreign(SOL_SOCKET, SO_BINDTOIFINDEX, "a device of the host's"),
    foreign(IPPROTO_IP, IP_OPTIONS, "source routes"),
    foreign(IPPROTO_IP, IP_FREEBIND, "foreign addresses"),
    foreign(IPPROTO_IP, IP_TRANSPARENT, "foreign addresses"),
    foreign(IPPROTO_IP, IP_UNICAST_IF, "a device of the host's"),
    foreign(IPPROTO_IPV6, IPV6_RTHDR, "source routes"),
    foreign(IPPROTO_IPV6, IPV6_RTHDRDSTOPTS, "source routes"),
    foreign(IPPROTO_IPV6, IPV6_HOPOPTS, "options that routers read"),
    foreign(IPPROTO_IPV6, IPV6_DSTOPTS, "options that name another address"),
    foreign(IPPROTO_IPV6, IPV6_2292PKTOPTIONS, "source routes, as they were once set"),
    foreign(IPPROTO_IPV6, IPV6_NEXTHOP, "another way than the host's"),
    foreign(IPPROTO_IPV6, IPV6_PKTINFO, "foreign addresses"),
    foreign(IPPROTO_IPV6, IPV6_FREEBIND, "foreign addresses"),
    foreign(IPPROTO_IPV6, IPV6_TRANSPARENT, "foreign addresses"),
    foreign(IPPROTO_IPV6, IPV6_UNICAST_IF, "a device of the host's"),
    foreign(IPPROTO_IPV6, IPV6_ADDRFORM, "one that is of another family than it was"),
    foreign(IPPROTO_TCP, TCP_FASTOPEN, "it connects without a connect"),
    foreign(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, "it connects without a connect"),
    FAST_OPEN_SENDTO,
    FAST_OPEN_SENDMSG,
];
