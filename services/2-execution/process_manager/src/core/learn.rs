//! Which paths a program used, for the smallest manifest that would run it. What it names is what it wants: a program can
//! name more than it needs, so what is learned is read by a person before it is granted.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use super::watch::is_below;

/// Bytes of all paths together; beyond it folders stand for what is in them. With the refused calls they fit a frame.
pub const LEARNED_BYTES_MAX: usize = 64 * 1024;
/// Bytes that a path takes beside its own.
const ENTRY_BYTES: usize = 16;
/// Bytes of a path that is taken down.
const PATH_BYTES_MAX: usize = 1024;
/// Names of the kernel: no file of the host's.
const KERNEL: [&str; 3] = ["/proc", "/dev", "/sys"];

/// What was done with a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Uses {
    #[n(0)]
    pub read: bool,
    /// Of a folder: a name in it.
    #[n(1)]
    pub write: bool,
    #[n(2)]
    pub execute: bool,
    #[n(3)]
    pub connect: bool,
}

impl Uses {
    pub const READ: Self = Self { read: true, write: false, execute: false, connect: false };
    pub const WRITE: Self = Self { read: false, write: true, execute: false, connect: false };
    pub const EXECUTE: Self = Self { read: false, write: false, execute: true, connect: false };
    pub const CONNECT: Self = Self { read: false, write: false, execute: false, connect: true };

    fn or(self, other: Self) -> Self {
        Self {
            read: self.read || other.read,
            write: self.write || other.write,
            execute: self.execute || other.execute,
            connect: self.connect || other.connect,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct UsedPath {
    #[n(0)]
    pub path: String,
    #[n(1)]
    pub uses: Uses,
    /// It stands for what is below it.
    #[n(2)]
    pub below: bool,
}

/// All that was used so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    paths: BTreeMap<String, (Uses, bool)>,
    bytes: usize,
    /// Something is missing that no folder could stand for.
    incomplete: bool,
}

impl Learned {
    /// `path` is absolute and normalized.
    pub fn add(&mut self, path: &str, uses: Uses) {
        if KERNEL.iter().any(|top| is_below(path, top)) {
            return;
        }
        if path.len() > PATH_BYTES_MAX {
            self.incomplete = true;
            return;
        }
        let standing =
            ancestors(path).find(|folder| self.paths.get(*folder).is_some_and(|(_, below)| *below));
        let standing = standing.unwrap_or(path).to_owned();
        self.put(standing, uses, false);
        while self.bytes > LEARNED_BYTES_MAX && self.fold() {}
    }

    fn put(&mut self, path: String, uses: Uses, below: bool) {
        let length = path.len();
        let mut is_new = false;
        let entry = self.paths.entry(path).or_insert_with(|| {
            is_new = true;
            (Uses::default(), false)
        });
        *entry = (entry.0.or(uses), entry.1 || below);
        if is_new {
            self.bytes += length + ENTRY_BYTES;
        }
    }

    /// The deepest paths become one with their folders. False, and something is dropped, when they are in the root.
    fn fold(&mut self) -> bool {
        let depth = |path: &str| path.matches('/').count();
        let deepest = self.paths.keys().map(|path| depth(path)).max().unwrap_or(0);
        let all: Vec<String> = self.paths.keys().filter(|path| depth(path) == deepest).cloned().collect();
        for path in all {
            let Some((uses, _)) = self.paths.remove(&path) else { continue };
            self.bytes = self.bytes.saturating_sub(path.len() + ENTRY_BYTES);
            match parent(&path).filter(|_| deepest > 1) {
                Some(folder) => self.put(folder.to_owned(), uses, true),
                None => self.incomplete = true,
            }
        }
        deepest > 1
    }

    /// By path; true if it is not all.
    #[must_use]
    pub fn told(&self) -> (Vec<UsedPath>, bool) {
        let all = self.paths.iter();
        let all =
            all.map(|(path, (uses, below))| UsedPath { path: path.clone(), uses: *uses, below: *below });
        (all.collect(), self.incomplete)
    }
}

fn parent(path: &str) -> Option<&str> {
    let (folder, _) = path.rsplit_once('/')?;
    Some(if folder.is_empty() { "/" } else { folder })
}

/// The folders above a path, the nearest first; the root is none.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(parent(path), |folder| parent(folder)).take_while(|folder| *folder != "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(learned: &Learned) -> Vec<(String, Uses, bool)> {
        learned.told().0.into_iter().map(|used| (used.path, used.uses, used.below)).collect()
    }

    #[test]
    fn a_path_is_told_once_with_all_that_was_done() {
        let mut learned = Learned::default();
        learned.add("/work/a", Uses::READ);
        learned.add("/work/a", Uses::EXECUTE);
        learned.add("/etc/x", Uses::WRITE);
        learned.add("/proc/self/maps", Uses::READ);
        learned.add("/dev/null", Uses::WRITE);
        let both = Uses { execute: true, ..Uses::READ };
        let expected = [("/etc/x", Uses::WRITE), ("/work/a", both)];
        assert_eq!(told(&learned), expected.map(|(path, uses)| (path.to_owned(), uses, false)));
        assert!(!learned.told().1);
    }

    #[test]
    fn so_many_that_they_do_not_fit_become_their_folders() {
        let mut learned = Learned::default();
        learned.add("/work/top", Uses::READ);
        for n in 0..10_000 {
            learned.add(
                &format!("/work/deep/{}/file-{n}", n % 50),
                if n == 77 { Uses::WRITE } else { Uses::READ },
            );
            assert!(learned.bytes <= LEARNED_BYTES_MAX);
        }
        let all = told(&learned);
        assert!(
            all.contains(&("/work/top".to_owned(), Uses::READ, false)),
            "what is not deep stays as it is"
        );
        let of_27 = all.iter().find(|(path, ..)| path == "/work/deep/27").unwrap();
        assert_eq!((of_27.1, of_27.2), (Uses { write: true, ..Uses::READ }, true));
        assert_eq!(all.len(), 51);
        let bytes: usize = learned.paths.keys().map(|path| path.len() + ENTRY_BYTES).sum();
        assert_eq!(bytes, learned.bytes, "the account is right");
    }

    #[test]
    fn what_cannot_be_told_is_said() {
        let mut learned = Learned::default();
        learned.add(&format!("/{}", "x".repeat(PATH_BYTES_MAX - 1)), Uses::READ);
        assert!(!learned.told().1);
        learned.add(&format!("/{}", "x".repeat(PATH_BYTES_MAX)), Uses::READ);
        assert!(learned.told().1 && learned.told().0.len() == 1);
        let mut flat = Learned::default();
        for n in 0..10_000 {
            flat.add(&format!("/{n:05}"), Uses::READ);
        }
        assert!(flat.told().1 && flat.bytes <= LEARNED_BYTES_MAX);
    }
}
