//! Limits, each with its reason.

use std::time::Duration;

/// Arguments of a program, without its own name.
pub const ARGUMENTS_MAX: usize = 4096;
/// Bytes of all arguments with their ends; the kernel's share for one string is of this order.
pub const ARGUMENT_BYTES_MAX: usize = 128 * 1024;
/// Pairs of an environment.
pub const ENVIRONMENT_MAX: usize = 1024;
/// Bytes of all pairs; together with the arguments below what a plan may carry.
pub const ENVIRONMENT_BYTES_MAX: usize = 256 * 1024;
/// Host paths granted to one program; each costs a mount.
pub const PATHS_MAX: usize = 64;
/// Programs whose changes to copy-on-write folders are kept at once; the next one is refused until some are committed
/// or discarded, for nobody's work is thrown away to make room.
pub const LAYERS_MAX: usize = 64;
/// Places that one program may connect to, and bytes of each as it is written.
pub use kit::way_out::{EGRESS_BYTES_MAX, EGRESS_MAX};
/// Secrets of one program, bytes of one and of all: keys and passwords, kept in memory.
pub const SECRETS_MAX: usize = 32;
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
pub const SECRETS_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a secret's name, which is recorded.
pub const SECRET_NAME_BYTES_MAX: usize = 64;
/// Bytes of a program's name: a path on the host.
pub const NAME_BYTES_MAX: usize = 1024;
/// Bytes of a name as the log keeps it.
pub const LOGGED_NAME_BYTES_MAX: usize = 64;
/// Bytes of a reason given for a signal.
pub const REASON_BYTES_MAX: usize = 256;
/// Capabilities of one program, whatever its own limit says.
pub const CAPABILITIES_MAX: usize = 256;
/// Programs kept at once, ended ones included; the keeper has 1 024 children for the whole node.
pub const PROCESSES_MAX: usize = 512;
/// How long an exit status is kept for somebody to wait for (open point 8).
pub const ZOMBIE_LIFE_MS: u64 = 60_000;
/// Longest wall time that can be asked for: 30 days; longer is no limit but a typing error.
pub const TIMEOUT_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// Idempotency keys remembered here. An older one is still recognised by the log itself, which refuses the entry.
pub const KEYS_REMEMBERED_MAX: usize = 4096;
/// Largest image; it is hashed at each start unless it is unchanged since the last.
pub const IMAGE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes of one chunk of an image.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one piece of standard input.
pub const STDIN_BYTES_MAX: usize = 64 * 1024;
/// Smallest memory limit with which a program can be started at all.
pub const MEMORY_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// What a program may write to its copy-on-write folders if nothing else is said.
pub const LAYER_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Least that a program's disk can be limited to.
pub const DISK_BYTES_MIN: u64 = 1024 * 1024;
/// Private `/tmp` and home folder, each. They count towards the memory limit too.
pub const TMP_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Bytes of a refused call's target as it is kept; 32 of them fit an entry.
pub const TARGET_BYTES_MAX: usize = 1024;
/// Least and most processor time at once, in thousandths of a core: what the kernel's quota can express.
pub const CPU_MILLICORES_MIN: u32 = 10;
pub const CPU_MILLICORES_MAX: u32 = 1_000_000;
/// Bytes of a place whose disk is limited: 16 of them go into the entry.
pub const IO_PLACE_BYTES_MAX: usize = 1024;
pub use kit::images::ROOT_ENTRIES_MAX;
/// Names of container images kept at once; the next one is refused until one is removed.
pub const TREES_MAX: usize = 64;
/// Images that are unpacked at once: each may take 768 MiB of memory and a core.
pub const IMPORTS_AT_ONCE: usize = 2;
/// How long an image may take from its first byte to its last file.
pub const IMPORT_TIME_MAX: Duration = Duration::from_secs(30 * 60);
/// How long an import waits for the next piece of its archive.
pub const PIECE_WAIT_MAX: Duration = Duration::from_secs(60);
pub use kit::images::NAME_BYTES_MAX as TREE_NAME_BYTES_MAX;
/// Jobs that are remembered here, the oldest finished ones given up first; the log has them all.
pub const JOBS_MAX: usize = 1024;
/// Jobs that wait or run; the next one is refused.
pub const JOBS_OPEN_MAX: usize = 64;
/// Beyond its own wall limit, a verification may wait for its turn so long, and take so long to begin and to end.
pub const VERIFY_MARGIN: Duration = Duration::from_secs(10);
/// How long content is kept ready for a reader who does not take the next piece.
pub const READER_WAIT_MAX: Duration = Duration::from_secs(30);
/// Jobs that run at once: what else a node does goes on.
pub const JOBS_AT_ONCE: usize = 2;
