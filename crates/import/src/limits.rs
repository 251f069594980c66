//! What an import reads at most. Each is checked before memory is taken for what it limits.

/// Bytes of one unit, drop-in, environment file or compose file. systemd's own files have some hundred to ten thousand.
pub const FILE_BYTES_MAX: usize = 256 * 1024;
/// Files of one import, drop-ins counted.
pub const FILES_MAX: usize = 1024;
/// Settings of one unit with its drop-ins.
pub const SETTINGS_MAX: usize = 4096;
/// Bytes of one value, continuation lines joined.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Words of one value: arguments of a command, paths of a list.
pub const WORDS_MAX: usize = 512;
/// Bytes that one command line may grow to when its specifiers and variables are put in.
pub const EXPANDED_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a value that the report shows.
pub const SHOWN_BYTES_MAX: usize = 200;
/// Bytes of a service's name: the supervisor's `SERVICE_NAME_BYTES_MAX`.
pub const SERVICE_NAME_BYTES_MAX: usize = 32;
/// Bytes of a description: the supervisor's `DESCRIPTION_BYTES_MAX`.
pub const DESCRIPTION_BYTES_MAX: usize = 1024;
/// Longest duration of a manifest, milliseconds: the supervisor's `DURATION_MAX`, a day.
pub const DURATION_MS_MAX: u64 = 24 * 60 * 60 * 1000;
