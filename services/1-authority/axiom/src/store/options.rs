use base::PublicKey;

/// One segment: long enough that beginning one is rare, short enough to zero in the background within 0.2 s.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// Zeroed files kept ready beside the reserve.
pub const SPARE_FILES_DEFAULT: usize = 2;
/// Most that the log may take unless told otherwise.
pub(super) const LOG_BYTES_DEFAULT: u64 = 64 * 1024 * 1024 * 1024;

pub const LOG_FOLDER: &str = "log";
pub const SPARE_FOLDER: &str = "spare";
pub const LOCK_FILE: &str = "lock";
/// On the head's own disk.
pub const HEAD_FILE: &str = "head";

#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub segment_bytes: u64,
    pub spare_files: usize,
    /// All segments together; beyond it only the reserve (one segment) is left.
    pub log_bytes_max: u64,
    /// Spare files are made by a thread; without it, when they are needed.
    pub fill_in_background: bool,
    /// From the kernel's random source: the segments' salts are derived from it.
    pub salt_seed: [u8; 32],
    /// The key that signed the log's edge, if there is one.
    pub sequencer_key: Option<PublicKey>,
}

impl StoreOptions {
    #[must_use]
    pub const fn new(salt_seed: [u8; 32]) -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            spare_files: SPARE_FILES_DEFAULT,
            log_bytes_max: LOG_BYTES_DEFAULT,
            fill_in_background: true,
            salt_seed,
            sequencer_key: None,
        }
    }
}
