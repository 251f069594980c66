use super::{Key, Treat::*};
use crate::report::Fate::{Approximated, Ignored as Passed, Mapped, Refused as Denied};

pub(crate) const SOCKET: &[Key] = &[
    Key {
        names: &["ListenStream"],
        treat: Code(&[Mapped, Approximated, Denied]),
        text: "`[[sockets]] listen = \"tcp:…\"` or `\"unix:…\"`; abstract names and vsock are refused",
    },
    Key {
        names: &["ListenDatagram"],
        treat: Code(&[Mapped, Approximated, Denied]),
        text: "`\"udp:…\"` or `\"unix-dgram:…\"`",
    },
    Key {
        names: &[
            "ListenSequentialPacket",
            "ListenFIFO",
            "ListenSpecial",
            "ListenNetlink",
            "ListenMessageQueue",
            "ListenUSBFunction",
        ],
        treat: Refused,
        text: "sockets are tcp, udp, unix streams and unix datagrams",
    },
    Key { names: &["SocketProtocol"], treat: Refused, text: "no SCTP, no UDP-Lite" },
    Key {
        names: &["BindIPv6Only"],
        treat: Code(&[Mapped, Approximated]),
        text: "`both` and `default` take IPv4 as well on `[::]`; `ipv6-only` is approximated where the unit also listens on `0.0.0.0`",
    },
    Key { names: &["Backlog"], treat: Code(&[Mapped, Denied]), text: "`backlog`" },
    Key {
        names: &["SocketUser", "SocketGroup"],
        treat: Code(&[Mapped]),
        text: "`user = \"NAME:GROUP\"` of a unix socket's file",
    },
    Key {
        names: &["SocketMode"],
        treat: Code(&[Mapped, Denied]),
        text: "`mode` of a unix socket's file; left out, 0666 as with systemd",
    },
    Key { names: &["DirectoryMode"], treat: Ignored, text: "a missing folder of a socket is made 0755" },
    Key {
        names: &["Accept"],
        treat: Code(&[Mapped, Denied]),
        text: "`no` is what is done; `yes`, one process for each connection, is refused",
    },
    Key {
        names: &["MaxConnections", "MaxConnectionsPerSource"],
        treat: Ignored,
        text: "they count with `Accept=yes` only",
    },
    Key { names: &["ReusePort"], treat: Code(&[Mapped]), text: "`reuse_port`" },
    Key {
        names: &["FileDescriptorName"],
        treat: Code(&[Mapped, Denied]),
        text: "`name`; left out, the socket unit's full name as with systemd",
    },
    Key {
        names: &["Service"],
        treat: Code(&[Mapped, Denied]),
        text: "the service of the import that the socket belongs to; left out, the one of the same name",
    },
    Key {
        names: &["RemoveOnStop"],
        treat: Code(&[Approximated]),
        text: "the file of a socket goes with its service",
    },
    Key {
        names: &["TriggerLimitIntervalSec", "TriggerLimitBurst"],
        treat: Code(&[Mapped, Approximated, Passed, Denied]),
        text: "`[trigger_limit] interval_ms` and `burst` (at most 1000), one for all sockets of a service: of several the first; ignored where the service starts with the node",
    },
    Key {
        names: &["PollLimitIntervalSec", "PollLimitBurst"],
        treat: Ignored,
        text: "the trigger limit of the service stops it",
    },
    Key {
        names: &[
            "KeepAlive",
            "KeepAliveTimeSec",
            "KeepAliveIntervalSec",
            "KeepAliveProbes",
            "NoDelay",
            "DeferAcceptSec",
        ],
        treat: Code(&[Approximated, Passed]),
        text: "not set on the socket; a program that wants it sets it on its connections",
    },
    Key {
        names: &[
            "BindToDevice",
            "Writable",
            "FlushPending",
            "Priority",
            "ReceiveBuffer",
            "SendBuffer",
            "IPTOS",
            "IPTTL",
            "Mark",
            "SmackLabel",
            "SmackLabelIPIn",
            "SmackLabelIPOut",
            "SELinuxContextFromNet",
            "PipeSize",
            "MessageQueueMaxMessages",
            "MessageQueueMessageSize",
            "FreeBind",
            "Transparent",
            "Broadcast",
            "PassCredentials",
            "PassSecurity",
            "PassPacketInfo",
            "Timestamping",
            "TCPCongestion",
            "Symlinks",
        ],
        treat: Refused,
        text: "it is not set on a socket here; a program that binds itself can",
    },
    Key {
        names: &["ExecStartPre", "ExecStartPost", "ExecStopPre", "ExecStopPost", "TimeoutSec"],
        treat: Refused,
        text: "a socket runs no commands; put them into the service",
    },
];

pub(crate) const TIMER: &[Key] = &[
    Key {
        names: &["OnCalendar"],
        treat: Code(&[Mapped, Denied]),
        text: "`[timer] calendar`, as it stands, at most 16; the supervisor reads all of systemd.time(7) but time zones other than UTC",
    },
    Key {
        names: &["OnBootSec", "OnStartupSec", "OnActiveSec"],
        treat: Code(&[Mapped, Approximated, Denied]),
        text: "`after_boot_ms`; of several the first; the two others count from the node's start",
    },
    Key {
        names: &["OnUnitActiveSec", "OnUnitInactiveSec"],
        treat: Code(&[Mapped, Approximated, Denied]),
        text: "`every_ms`, from the last start; `OnUnitInactiveSec=`, from the last end, is approximated",
    },
    Key {
        names: &["RandomizedDelaySec", "RandomizedOffsetSec"],
        treat: Code(&[Mapped, Denied]),
        text: "`random_delay_ms`",
    },
    Key { names: &["Persistent"], treat: Code(&[Mapped]), text: "`catch_up`" },
    Key { names: &["AccuracySec"], treat: Ignored, text: "a timer is due when it says, not somewhat later" },
    Key {
        names: &["FixedRandomDelay"],
        treat: Code(&[Mapped, Approximated]),
        text: "the delay is the same for each time of a node: on is mapped, off is approximated",
    },
    Key {
        names: &["OnClockChange", "OnTimezoneChange", "WakeSystem"],
        treat: Code(&[Passed, Denied]),
        text: "on is refused: the time alone starts a service, and the host is not woken",
    },
    Key {
        names: &["Unit"],
        treat: Code(&[Mapped, Denied]),
        text: "the service of the import that is started; left out, the one of the same name",
    },
    Key {
        names: &["RemainAfterElapse", "DeferReactivation"],
        treat: Ignored,
        text: "a timer is there as long as its service",
    },
];
