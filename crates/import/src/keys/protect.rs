use super::{Key, Treat::*};
use crate::report::Fate::{Approximated, Ignored as Passed, Mapped, Refused as Denied};

pub(crate) const PROTECT: &[Key] = &[
    Key {
        names: &["CapabilityBoundingSet"],
        treat: Code(&[Mapped, Approximated, Denied]),
        text: "of a unit that runs as root: `privileges`; with `~`: the fixed list without those; of any other user mapped, since it has none",
    },
    Key { names: &["AmbientCapabilities"], treat: Code(&[Mapped, Denied]), text: "`privileges`" },
    Key { names: &["NoNewPrivileges"], treat: Always, text: "nothing that is executed gains a right" },
    Key { names: &["SecureBits"], treat: Refused, text: "it cannot be set here" },
    Key {
        names: &["SELinuxContext", "AppArmorProfile", "SmackProcessLabel"],
        treat: Refused,
        text: "no other security module is asked; the sandbox has Landlock and a system call filter",
    },
    Key {
        names: &["ProtectSystem"],
        treat: Code(&[Mapped, Approximated]),
        text: "`/usr` and `/etc` are read-only, and `/var` but for what is granted: `strict`; less is approximated",
    },
    Key {
        names: &["ProtectHome"],
        treat: Code(&[Mapped, Approximated]),
        text: "homes are not shown: on is mapped; `read-only` grants them, off is approximated",
    },
    Key {
        names: &["PrivateTmp"],
        treat: Code(&[Mapped, Approximated]),
        text: "`/tmp` is its own, of 512 MiB, and there is no `/var/tmp` to write to",
    },
    Key {
        names: &["PrivateDevices"],
        treat: Always,
        text: "`/dev` is its own: null zero full random urandom tty",
    },
    Key {
        names: &["PrivateNetwork"],
        treat: Code(&[Mapped]),
        text: "`[sandbox] network = \"own\"`; off or left out `\"host\"`",
    },
    Key {
        names: &["NetworkNamespacePath", "IPCNamespacePath"],
        treat: Refused,
        text: "no namespace is joined",
    },
    Key { names: &["PrivateIPC", "PrivatePIDs"], treat: Always, text: "the namespace is its own" },
    Key {
        names: &["PrivateUsers"],
        treat: Code(&[Mapped, Approximated]),
        text: "a user namespace is its own where no `privileges` are kept",
    },
    Key {
        names: &["PrivateMounts", "MountFlags"],
        treat: Code(&[Mapped, Approximated]),
        text: "mounts are its own",
    },
    Key {
        names: &["ProtectHostname"],
        treat: Always,
        text: "the host's name is its own, and is the service's",
    },
    Key { names: &["ProtectClock"], treat: Always, text: "the clock cannot be set" },
    Key {
        names: &[
            "ProtectKernelTunables",
            "ProtectKernelModules",
            "ProtectKernelLogs",
            "ProtectControlGroups",
        ],
        treat: Always,
        text: "there is no `/sys`, `/proc/sys` is read-only, no module is loaded, the cgroup is its own",
    },
    Key {
        names: &["ProtectProc", "ProcSubset"],
        treat: Code(&[Mapped, Approximated]),
        text: "`/proc` shows the service's own processes only",
    },
    Key {
        names: &["RestrictAddressFamilies"],
        treat: Code(&[Approximated]),
        text: "a fixed list in any case: unix, inet, inet6, netlink for routes; a shorter list is not narrowed, a family beyond it is not there",
    },
    Key {
        names: &["RestrictFileSystems", "RestrictNetworkInterfaces"],
        treat: Refused,
        text: "grants are by path and by network, not by kind",
    },
    Key {
        names: &["RestrictNamespaces"],
        treat: Code(&[Mapped, Approximated]),
        text: "no namespace can be made in any case",
    },
    Key { names: &["LockPersonality"], treat: Always, text: "the personality cannot be changed" },
    Key {
        names: &["MemoryDenyWriteExecute"],
        treat: Code(&[Passed, Denied]),
        text: "on is refused: memory that is written and executed is not forbidden here",
    },
    Key {
        names: &["RestrictRealtime"],
        treat: Code(&[Mapped, Approximated]),
        text: "without the privilege `sys_nice` nothing runs in real time",
    },
    Key {
        names: &["RestrictSUIDSGID"],
        treat: Code(&[Approximated, Passed]),
        text: "the bits can be set, but gain nothing: nothing that is executed gains a right",
    },
    Key { names: &["RemoveIPC"], treat: Always, text: "the IPC namespace ends with the service" },
    Key {
        names: &["ExecPaths", "NoExecPaths"],
        treat: Refused,
        text: "which files can be executed is not limited; what can be written is",
    },
    Key {
        names: &["SystemCallFilter"],
        treat: Code(&[Approximated]),
        text: "a fixed filter in any case, which refuses about a hundred calls: mounts, modules, keyrings, namespaces, ptrace, bpf, io_uring, the clock; not narrowed to the unit's list",
    },
    Key {
        names: &["SystemCallErrorNumber", "SystemCallLog"],
        treat: Ignored,
        text: "a refused call fails with EPERM or ENOSYS, and `watch_refusals` records it",
    },
    Key {
        names: &["SystemCallArchitectures"],
        treat: Code(&[Mapped, Approximated]),
        text: "native only in any case",
    },
];
