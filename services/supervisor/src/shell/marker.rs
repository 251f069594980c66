//! The mark that an emergency leaves and the next boot reads (SUP-98, SUP open point 15).

use std::path::{Path, PathBuf};

use base::layout::Layout;
use durable::{DiskError, RealDisk};

use crate::core::supervisor::BootMode;

/// So many boots in a row that ended in an emergency: the next one is without what is not needed to repair the node.
pub(super) const FAILED_BOOTS_MAX: u32 = 3;
const FILE: &str = "emergency";
/// Bytes of the mark: a number and a reason.
const BYTES_MAX: usize = 4096;

/// A folder of the supervisor's own, on the disk of the state.
#[derive(Clone, Debug)]
pub(super) struct Marker {
    folder: PathBuf,
}

impl Marker {
    #[must_use]
    pub(super) fn new(layout: &Layout) -> Self {
        Self { folder: layout.service_state(super::sockets::SUPERVISOR) }
    }

    fn disk(&self) -> Result<RealDisk, DiskError> {
        // Made here or there already; if neither, opening says so.
        let _ = super::sockets::make_folder(&self.folder);
        RealDisk::open(&self.folder)
    }

    #[must_use]
    pub(super) fn mode(&self) -> BootMode {
        if self.count() >= FAILED_BOOTS_MAX { BootMode::Recovery } else { BootMode::Normal }
    }

    /// A mark that cannot be read counts as none: it must not keep the node from booting as it should.
    fn count(&self) -> u32 {
        let bytes = self.disk().and_then(|disk| durable::read_small(&disk, FILE, BYTES_MAX)).ok().flatten();
        let text = String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default();
        text.lines().next().and_then(|line| line.parse().ok()).unwrap_or(0)
    }

    pub(super) fn leave(&self, reason: &str) -> Result<(), DiskError> {
        let text = format!("{}\n{reason}\n", self.count().saturating_add(1));
        durable::replace(&self.disk()?, FILE, &[text.as_bytes()])
    }

    /// The node has booted.
    pub(super) fn clear(&self) {
        let file: &Path = &self.folder.join(FILE);
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, file = %file.display(), "the mark of an emergency cannot be removed");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: SUP-98
    #[test]
    fn repeated_emergencies_lead_to_recovery_and_a_boot_ends_the_count() {
        let root = tempfile::tempdir().unwrap();
        let marker = Marker::new(&Layout::under(root.path()).unwrap());
        for _ in 0..FAILED_BOOTS_MAX {
            assert_eq!(marker.mode(), BootMode::Normal);
            marker.leave("no log").unwrap();
        }
        assert_eq!(marker.mode(), BootMode::Recovery);
        marker.clear();
        assert_eq!(marker.mode(), BootMode::Normal);
        marker.clear();
    }

    #[test]
    fn a_damaged_mark_counts_as_none() {
        let root = tempfile::tempdir().unwrap();
        let marker = Marker::new(&Layout::under(root.path()).unwrap());
        marker.leave("x").unwrap();
        std::fs::write(root.path().join("state/supervisor/emergency"), [0xff, 0xfe]).unwrap();
        assert_eq!(marker.mode(), BootMode::Normal);
    }
}
