//! How far the log goes, from its head file: written before an entry is acknowledged, so what any command was answered is in it.

use std::{fs::File, io::Read};

use base::{Sequence, layout::Layout};
use chain::{HEAD_FILE_BYTES, HeadFile};

/// None where it cannot be read, is not whole, or has no entry yet: then axiom is asked.
pub fn on_disk(layout: &Layout) -> Option<Sequence> {
    let mut bytes = Vec::with_capacity(HEAD_FILE_BYTES);
    // One more than it has, so that a longer file is none.
    File::open(layout.head()).ok()?.take(HEAD_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
    Some(HeadFile::decode(&bytes).ok()?.head?.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{AxiomRef, Hash};
    use chain::HeadSlot;

    #[test]
    fn the_newest_whole_slot_counts_and_no_other_file_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path()).unwrap();
        assert_eq!(on_disk(&layout), None);
        std::fs::create_dir_all(layout.head().parent().unwrap()).unwrap();
        let slot =
            |sequence| HeadSlot(AxiomRef { sequence: Sequence(sequence), hash: Hash::of(b"entry") }).encode();
        let mut bytes = vec![0; HEAD_FILE_BYTES];
        let (older, newer) = (slot(41), slot(42));
        bytes[..older.len()].copy_from_slice(&older);
        bytes[HEAD_FILE_BYTES / 2..][..newer.len()].copy_from_slice(&newer);
        let read = |bytes: &[u8]| {
            std::fs::write(layout.head(), bytes).unwrap();
            on_disk(&layout)
        };
        assert_eq!(read(&bytes), Some(Sequence(42)));
        let mut torn = bytes.clone();
        torn[HEAD_FILE_BYTES / 2] ^= 1;
        assert_eq!(read(&torn), Some(Sequence(41)), "the one being written was not acknowledged");
        assert_eq!(read(&bytes[1..]), None);
        assert_eq!(read(&[bytes.as_slice(), &[0]].concat()), None);
        assert_eq!(read(&[]), None);
    }
}
