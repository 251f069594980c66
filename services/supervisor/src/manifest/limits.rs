//! What a manifest may hold at most. Each is checked before the value is used.

use std::time::Duration;

/// Bytes of one manifest file; the contract's limit for `ApplyManifest` too.
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024;
/// Services of one node; each costs sockets, a cgroup and a few kilobytes here.
pub const SERVICES_MAX: usize = 1024;
/// Dependencies of one service; each is a socket of its own.
pub const DEPENDENCIES_MAX: usize = 64;
/// Endpoints of one service.
pub const ENDPOINTS_MAX: usize = 64;
/// Permissions of an identity or of one capability.
pub const PERMISSIONS_MAX: usize = 64;
/// Capabilities of one kind (required, optional); `Init` carries 256 at most.
pub const CAPABILITIES_MAX: usize = 128;
/// Arguments of a program or of an exec check.
pub const ARGUMENTS_MAX: usize = 256;
/// Environment variables of a program.
pub const ENVIRONMENT_MAX: usize = 256;
/// Folders and files that a program is granted.
pub const FS_GRANTS_MAX: usize = 64;
/// Commands that run before a program.
pub const BEFORE_MAX: usize = 32;
/// Commands that run once it is ready.
pub const AFTER_MAX: usize = 32;
/// More groups of a program.
pub const GROUPS_MAX: usize = sandbox::GROUPS_MAX;
/// Files with variables of a program, and bytes of one of them.
pub const ENV_FILES_MAX: usize = 16;
pub const ENV_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Secrets of a program; all together have at most [`sandbox::SEALED_BYTES_MAX`] bytes.
pub const SECRETS_MAX: usize = sandbox::SEALED_FILES_MAX;
/// Permission bits: all, with set-user-id, set-group-id and sticky.
pub const MODE_MAX: u32 = 0o7777;
/// Folders that are made for a program.
pub const FOLDERS_MAX: usize = 32;
/// Starts by connections within an interval, as with systemd's sockets of `Accept=no`, and most that are counted: each is
/// remembered singly.
pub const TRIGGER_INTERVAL_DEFAULT: Duration = Duration::from_secs(2);
pub const TRIGGER_BURST_DEFAULT: u32 = 20;
pub const TRIGGER_BURST_MAX: u32 = 1000;
/// Calendar times of one timer.
pub const CALENDAR_MAX: usize = 16;
/// Shortest time between two starts by `every_ms`: each is a decision and three entries of the log.
pub const TIMER_EVERY_MIN: Duration = Duration::from_secs(1);
/// Longest time of a timer: a leap year.
pub const TIMER_DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Sockets that one service is handed.
pub const SOCKETS_MAX: usize = 16;
/// Descriptors that one service leaves with the keeper over its restarts (`FDSTORE=1`).
pub const STORED_DESCRIPTORS_MAX: usize = 16;
/// Bytes of the path of a unix socket: the kernel's 108 with the terminating zero.
pub const UNIX_PATH_BYTES_MAX: usize = 107;
/// Connections that wait to be accepted, where a manifest does not say it: the kernel's own default.
pub const SOCKET_BACKLOG_DEFAULT: u32 = 4096;
/// Most that the kernel counts.
pub const SOCKET_BACKLOG_MAX: u32 = 65_535;
/// Bytes of a name that becomes part of socket paths: two of them and the runtime folder stay below the kernel's 107.
pub const SERVICE_NAME_BYTES_MAX: usize = 32;
/// Bytes of an endpoint, capability, permission or protocol name.
pub const NAME_BYTES_MAX: usize = base::limits::NAME_BYTES_MAX;
/// Bytes of a description.
pub const DESCRIPTION_BYTES_MAX: usize = 1024;
/// Bytes of any other text: a path, an argument, a variable.
pub const TEXT_BYTES_MAX: usize = 4095;
/// Longest duration: a day. Longer is a mistake of unit.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Shortest check interval and watchdog: below it the checks would be the load.
pub const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Highest failure and success threshold.
pub const THRESHOLD_MAX: u32 = 1000;
/// Highest restart budget; the starts inside one window are remembered singly.
pub const RESTARTS_MAX: u32 = 1000;
/// Highest backoff multiplier.
pub const BACKOFF_MAX: f32 = 100.0;
/// Memory of one service, mebibytes: one tebibyte.
pub const MEMORY_MB_MAX: u32 = 1024 * 1024;
/// The kernel's range of cpu shares.
pub const CPU_SHARES_MIN: u32 = 2;
pub const CPU_SHARES_MAX: u32 = 262_144;
/// Processes and threads of one service at most.
pub const PROCESSES_MAX: u32 = 32_768;
/// Open files of one process at most.
pub const OPEN_FILES_MAX: u32 = 1_048_576;
/// The manifest format that this build reads.
pub const MANIFEST_VERSION: u32 = 1;
