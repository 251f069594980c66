//! What a process sees of files: mounts, what covers parts of them, and the Landlock rules that say the same again.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// One thing in the new root. Targets are absolute and inside the sandbox, sources absolute and outside.
/// Later entries go on top of earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A file, folder, socket or device of the host, with everything mounted below it.
    #[n(0)]
    Bind {
        #[n(0)]
        source: String,
        #[n(1)]
        target: String,
        #[n(2)]
        writable: bool,
        /// Absent on the host: left out instead of an error (`/lib64` does not exist everywhere).
        #[n(3)]
        optional: bool,
    },
    #[n(1)]
    Tmpfs {
        #[n(0)]
        target: String,
        #[n(1)]
        size_bytes_max: u64,
        #[n(2)]
        mode: u32,
    },
    /// `/proc` of the sandbox's own pid namespace.
    #[n(2)]
    Proc,
    /// null zero full random urandom tty, fd links, an empty shm and a private pts.
    #[n(3)]
    Dev,
    #[n(4)]
    Symlink {
        #[n(0)]
        target: String,
        #[n(1)]
        points_to: String,
    },
    /// A folder of the process in what is mounted there already.
    #[n(5)]
    Folder {
        #[n(0)]
        target: String,
        #[n(1)]
        mode: u32,
    },
    /// A folder of the host that can be changed without being changed: the process writes into a layer above it
    /// (overlayfs). What is mounted below the folder on the host is not shown.
    #[n(6)]
    Overlay {
        #[n(0)]
        source: String,
        #[n(1)]
        target: String,
        /// Folder of the host for the layer; made if its parent is there. `upper` in it is what was written.
        #[n(2)]
        layer: String,
    },
    /// Small files that only this process reads, in memory: written at its start, read-only afterwards. Their content
    /// stands in no plan, so in no message about one.
    #[n(7)]
    Sealed {
        #[n(0)]
        target: String,
        /// Descriptor of the launch request that has the contents, one after the other.
        #[n(1)]
        slot: u32,
        #[n(2)]
        files: Vec<SealedFile>,
    },
}

/// One file of [`Mount::Sealed`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct SealedFile {
    /// A name, not a path.
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub size_bytes: u64,
}

/// Files of one mount, and bytes of all together; they lie in memory.
pub const SEALED_FILES_MAX: usize = 64;
pub const SEALED_BYTES_MAX: u64 = 1024 * 1024;

/// In the folder of an overlay's layer: what was written, and what the kernel needs to write it.
pub const OVERLAY_UPPER: &str = "upper";
pub const OVERLAY_WORK: &str = "work";

/// Paths of `/proc` and `/sys` that tell or change things of the host.
pub const MASKED_USUALLY: &[&str] = &[
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/acpi",
    "/proc/scsi",
    "/proc/interrupts",
    "/proc/pressure",
    // Root's alone on the host; but a program of a node that runs as root is root's to files of `/proc`.
    "/proc/slabinfo",
    "/proc/vmallocinfo",
    "/proc/pagetypeinfo",
    "/proc/kpageflags",
    "/proc/kpagecount",
    "/proc/kpagecgroup",
    "/proc/kallsyms",
];
/// Parts of `/proc` that root of the host could write to without any capability.
pub const READ_ONLY_USUALLY: &[&str] =
    &["/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/sysrq-trigger"];

/// What Landlock allows below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Access {
    /// Read, list, execute.
    #[n(0)]
    Read,
    /// Everything.
    #[n(1)]
    Write,
    /// Read and write existing files, no new ones (devices, `/proc`).
    #[n(2)]
    Modify,
    /// Reach through and list only.
    #[n(3)]
    List,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct PathRule {
    #[n(0)]
    pub path: String,
    #[n(1)]
    pub access: Access,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Landlock {
    /// Paths inside the sandbox. A path that is not there is skipped: it allows nothing.
    #[n(0)]
    pub rules: Vec<PathRule>,
    /// TCP connect and bind stay possible as far as the network namespace goes. Needs ABI 4 to be refused.
    #[n(1)]
    pub tcp: bool,
    /// Abstract sockets and signals to processes outside of this domain stay possible. Needs ABI 6 to be refused.
    #[n(2)]
    pub outside: bool,
}

impl Landlock {
    /// The rules that allow exactly what the mounts show.
    #[must_use]
    pub fn of_mounts(mounts: &[Mount]) -> Landlock {
        let mut rules = vec![PathRule { path: "/".to_owned(), access: Access::List }];
        for mount in mounts {
            let (path, access) = match mount {
                Mount::Bind { target, writable: true, .. } => (target.as_str(), Access::Write),
                Mount::Bind { target, .. } | Mount::Sealed { target, .. } => (target.as_str(), Access::Read),
                Mount::Tmpfs { target, .. } | Mount::Overlay { target, .. } => {
                    (target.as_str(), Access::Write)
                }
                Mount::Proc => ("/proc", Access::Modify),
                Mount::Dev => ("/dev", Access::Modify),
                Mount::Symlink { .. } | Mount::Folder { .. } => continue,
            };
            rules.push(PathRule { path: path.to_owned(), access });
            if matches!(mount, Mount::Dev) {
                rules.push(PathRule { path: "/dev/shm".to_owned(), access: Access::Write });
            }
        }
        Landlock { rules, tcp: false, outside: false }
    }
}
