//! Limits, each with its reason.

/// Bytes of a manifest: some hundred inputs with long paths; read whole before it is parsed.
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a signed receipt: every binding of the largest manifest, with room.
pub const RECEIPT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a job's or binding's name.
pub const NAME_BYTES_MAX: usize = 64;
/// Inputs of one job; each is a mount.
pub const INPUTS_MAX: usize = 64;
/// Outputs of one job; each is a binding in an entry of the log.
pub const OUTPUTS_MAX: usize = 64;
/// Bytes of a path inside a job.
pub const PATH_BYTES_MAX: usize = 255;
/// Arguments, and bytes of all of them.
pub const ARGUMENTS_MAX: usize = 256;
pub const ARGUMENT_BYTES_MAX: usize = 16 * 1024;
/// Words that a manifest may say about itself under `constraints`, and bytes of each.
pub const CONSTRAINTS_MAX: usize = 16;
pub const CONSTRAINT_BYTES_MAX: usize = 128;
/// Bytes of the name of a schema.
pub const SCHEMA_BYTES_MAX: usize = 256;
/// Bytes of memory: less starts no program, more has no machine.
pub const MEMORY_BYTES_MIN: u64 = 4 * 1024 * 1024;
pub const MEMORY_BYTES_MAX: u64 = 1024 * 1024 * 1024 * 1024;
/// Milliseconds of processor time and of wall time.
pub const CPU_MS_MAX: u64 = 24 * 3_600_000;
pub const WALL_MS_MAX: u64 = 24 * 3_600_000;
/// Bytes of the stack.
pub const STACK_BYTES_MIN: u64 = 64 * 1024;
pub const STACK_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Open files: three streams and one input at least.
pub const FILES_MIN: u32 = 8;
pub const FILES_MAX: u32 = 1024;
/// Threads of a fork-join.
pub const THREADS_MAX: u32 = 256;
/// Bytes of everything that a job writes.
pub const OUTPUT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes of standard error that a failed job reports.
pub const STDERR_BYTES_MAX: usize = 4096;
/// Verifiers of a proof by several parties.
pub const VERIFIERS_MAX: usize = 16;
