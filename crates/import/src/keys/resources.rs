use super::{Key, Treat::*};
use crate::report::Fate::{Approximated, Ignored as Passed, Mapped, Refused as Denied};

pub(crate) const RESOURCES: &[Key] = &[
    Key {
        names: &[
            "CPUAccounting",
            "MemoryAccounting",
            "TasksAccounting",
            "IOAccounting",
            "IPAccounting",
            "BlockIOAccounting",
        ],
        treat: Ignored,
        text: "each service is counted",
    },
    Key {
        names: &["CPUWeight", "CPUShares"],
        treat: Code(&[Mapped, Approximated]),
        text: "`[resources] cpu_shares`, 100 is usual in both; `CPUShares=` has 1024 there",
    },
    Key {
        names: &["MemoryMax"],
        treat: Code(&[Mapped, Denied]),
        text: "`[resources] memory_mb`, rounded up; a percentage is refused: write the size",
    },
    Key {
        names: &["MemoryHigh"],
        treat: Code(&[Approximated, Passed, Denied]),
        text: "without `MemoryMax=`: `[resources] memory_mb`, where the service is not slowed but ended",
    },
    Key {
        names: &["TasksMax"],
        treat: Code(&[Mapped, Approximated]),
        text: "`[sandbox] processes_max`, at most 32768, which also stands for `infinity` and percentages; left out: 4915, systemd's 15 %",
    },
    Key {
        names: &[
            "MemoryMin",
            "MemoryLow",
            "MemorySwapMax",
            "MemoryZSwapMax",
            "DefaultMemoryLow",
            "DefaultMemoryMin",
            "StartupCPUWeight",
            "CPUQuota",
            "CPUQuotaPeriodSec",
            "AllowedCPUs",
            "StartupAllowedCPUs",
            "AllowedMemoryNodes",
            "StartupAllowedMemoryNodes",
            "StartupIOWeight",
            "IODeviceWeight",
            "IODeviceLatencyTargetSec",
            "DisableControllers",
        ],
        treat: Refused,
        text: "a manifest limits memory, share of the processor, disks, processes and open files",
    },
    Key {
        names: &["IOReadBandwidthMax", "IOWriteBandwidthMax", "IOReadIOPSMax", "IOWriteIOPSMax"],
        treat: Code(&[Mapped, Passed, Denied]),
        text: "`[resources] io`, K, M and G by 1000 as there; a path means its disk. With `io_optional`: where no cgroup holds it, the service starts all the same",
    },
    Key {
        names: &["IOWeight"],
        treat: Code(&[Mapped, Denied]),
        text: "`[resources] io_weight`, with `io_optional`",
    },
    Key {
        names: &[
            "BlockIOWeight",
            "StartupBlockIOWeight",
            "BlockIODeviceWeight",
            "BlockIOReadBandwidth",
            "BlockIOWriteBandwidth",
        ],
        treat: Refused,
        text: "a setting of cgroup v1, which systemd has dropped; write IOWeight=, IOReadBandwidthMax= or IOWriteBandwidthMax=",
    },
    Key {
        names: &[
            "IPAddressAllow",
            "IPAddressDeny",
            "IPIngressFilterPath",
            "IPEgressFilterPath",
            "BPFProgram",
            "SocketBindAllow",
            "SocketBindDeny",
        ],
        treat: Refused,
        text: "there is no packet filter yet: `network = \"own\"` reaches nothing, `\"host\"` everything",
    },
    Key {
        names: &["DeviceAllow", "DelegateSubgroup"],
        treat: Refused,
        text: "no device of the host is shown, and no cgroup is handed over",
    },
    Key { names: &["DevicePolicy"], treat: Code(&[Mapped, Approximated]), text: "`closed` is what is done" },
    Key { names: &["Slice"], treat: Ignored, text: "the node has a cgroup tree of its own" },
    Key {
        names: &["Delegate"],
        treat: Code(&[Passed, Denied]),
        text: "on is refused: no cgroup can be made inside",
    },
    Key {
        names: &[
            "ManagedOOMSwap",
            "ManagedOOMMemoryPressure",
            "ManagedOOMMemoryPressureLimit",
            "ManagedOOMPreference",
            "MemoryPressureWatch",
            "MemoryPressureThresholdSec",
        ],
        treat: Ignored,
        text: "systemd-oomd does not watch the node's cgroups one by one",
    },
];
