//! A memory that is written as it changes: one line with all of it, then a line for each change.
//!
//! The keeper holds the file, so a line that is written needs nobody else to outlive the supervisor. A supervisor that is
//! killed while it writes leaves a line without its end, which counts as not written.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Serialize, de::DeserializeOwned};

/// Bytes: a thousand services and a thousand waiting entries take about two megabytes.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of changes, beside the size of the whole, after which the whole is written again.
const CHANGES_MAX: u64 = 256 * 1024;

/// What can be told by how it changed.
pub(in super::super) trait Parts: Serialize + DeserializeOwned {
    type Change: Serialize + DeserializeOwned;

    /// None if nothing did.
    fn change_to(&self, after: &Self) -> Option<Self::Change>;

    fn apply(&mut self, change: Self::Change);
}

/// The writing end.
#[derive(Debug)]
pub(in super::super) struct Journal<T> {
    /// None before the first, and when it is not known what stands in the file.
    open: Option<Open<T>>,
}

#[derive(Debug)]
struct Open<T> {
    file: File,
    last: T,
    whole_bytes: u64,
    bytes: u64,
}

impl<T> Default for Journal<T> {
    fn default() -> Self {
        Self { open: None }
    }
}

impl<T: Parts> Journal<T> {
    /// A file for the keeper to hold in place of the one before, if there has to be a new one.
    pub(in super::super) fn write(&mut self, now: T) -> io::Result<Option<OwnedFd>> {
        // What fails on the way has not changed it in a way that anybody knows: the next one is whole.
        let Some(mut open) = self.open.take() else { return self.begin(now).map(Some) };
        if let Some(change) = open.last.change_to(&now) {
            let line = line(&change)?;
            let after = open.bytes + line.len() as u64;
            if after > open.whole_bytes.saturating_mul(2).saturating_add(CHANGES_MAX) {
                return self.begin(now).map(Some);
            }
            open.file.write_all_at(&line, open.bytes)?;
            open.bytes = after;
            open.last = now;
        }
        self.open = Some(open);
        Ok(None)
    }

    fn begin(&mut self, now: T) -> io::Result<OwnedFd> {
        let line = line(&now)?;
        let file = File::from(memfd_create("supervisor-memory", MemfdFlags::CLOEXEC)?);
        file.write_all_at(&line, 0)?;
        let held = file.as_fd().try_clone_to_owned()?;
        let bytes = line.len() as u64;
        self.open = Some(Open { file, last: now, whole_bytes: bytes, bytes });
        Ok(held)
    }
}

fn line(what: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    Ok(line)
}

/// What the file of a supervisor before says.
pub(in super::super) fn read<T: Parts>(fd: OwnedFd) -> io::Result<T> {
    let mut file = File::from(fd);
    if file.metadata()?.len() > BYTES_MAX {
        return Err(io::Error::other("the memory of the supervisor before is too large"));
    }
    // The descriptor shares its position with the one in the keeper.
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    // One that stands alone needs no end: it was written before the keeper heard of the file.
    let mut all: T = serde_json::from_slice(lines.next().unwrap_or_default())?;
    for line in lines.filter(|line| line.ends_with(b"\n")) {
        all.apply(serde_json::from_slice(line)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Parts for Vec<u32> {
        /// How much of the beginning stays, and what follows it.
        type Change = (usize, Vec<u32>);

        fn change_to(&self, after: &Self) -> Option<Self::Change> {
            let same = self.iter().zip(after).take_while(|(old, new)| old == new).count();
            (self != after).then(|| (same, after[same..].to_vec()))
        }

        fn apply(&mut self, (same, rest): Self::Change) {
            self.truncate(same);
            self.extend(rest);
        }
    }

    fn copy(fd: &OwnedFd) -> OwnedFd {
        fd.try_clone().unwrap()
    }

    #[test]
    fn a_reader_has_what_was_written_last_and_a_line_without_its_end_is_not_written() {
        let mut journal = Journal::default();
        let held = journal.write(vec![1]).unwrap().expect("the first file");
        assert_eq!(read::<Vec<u32>>(copy(&held)).unwrap(), [1]);
        for end in 2..50 {
            assert!(journal.write((1..=end).collect()).unwrap().is_none(), "the same file");
        }
        assert!(journal.write((1..50).collect()).unwrap().is_none());
        let bytes = File::from(copy(&held)).metadata().unwrap().len();
        assert!(journal.write((1..50).collect()).unwrap().is_none());
        let file = File::from(copy(&held));
        assert_eq!(file.metadata().unwrap().len(), bytes, "what has not changed is not said");
        let all: Vec<u32> = (1..50).collect();
        assert_eq!(read::<Vec<u32>>(copy(&held)).unwrap(), all);
        let torn = b"[49,[50]]";
        file.write_all_at(torn, bytes).unwrap();
        assert_eq!(read::<Vec<u32>>(copy(&held)).unwrap(), all);
        file.write_all_at(b"\n", bytes + torn.len() as u64).unwrap();
        assert_eq!(read::<Vec<u32>>(copy(&held)).unwrap(), (1..51).collect::<Vec<u32>>());
        file.write_all_at(b"{\n", bytes).unwrap();
        assert!(read::<Vec<u32>>(held).is_err(), "damage");
    }

    #[test]
    fn many_changes_are_followed_by_a_new_file_with_the_whole() {
        let mut journal = Journal::default();
        let mut held = journal.write(vec![0]).unwrap().expect("the first file");
        let mut files = 1;
        for number in 1..100_000 {
            if let Some(next) = journal.write(vec![number]).unwrap() {
                files += 1;
                held = next;
            }
            let bytes = File::from(copy(&held)).metadata().unwrap().len();
            assert!(bytes <= CHANGES_MAX + 64, "{bytes} after {number}");
        }
        assert_eq!(read::<Vec<u32>>(held).unwrap(), [99_999]);
        assert!((2..10).contains(&files), "{files} files");
    }

    #[test]
    fn after_a_failure_the_next_file_is_whole() {
        let mut journal = Journal::default();
        journal.write(vec![1]).unwrap().expect("the first file");
        let open = journal.open.as_mut().unwrap();
        open.file = File::open("/dev/null").unwrap();
        assert!(journal.write(vec![1, 2]).is_err());
        let held = journal.write(vec![1, 2, 3]).unwrap().expect("a new file");
        assert_eq!(read::<Vec<u32>>(held).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_file_beyond_the_limit_is_not_read() {
        let file = File::from(memfd_create("x", MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(b"[1]\n", 0).unwrap();
        let fd: OwnedFd = file.try_clone().unwrap().into();
        let hole = |bytes: u64| file.set_len(bytes).unwrap();
        hole(BYTES_MAX);
        assert_eq!(read::<Vec<u32>>(fd.try_clone().unwrap()).unwrap(), [1], "a last line without its end");
        hole(BYTES_MAX + 1);
        assert!(read::<Vec<u32>>(fd).is_err());
    }
}
