//! What is kept of an image beside its files, and where both lie.

use std::path::{Path, PathBuf};

use base::{TreeId, layout::Layout};
use chain::payload::image::ImageForm;
use minicbor::{Decode, Encode};

/// Of a record, with room; its texts come from a configuration of at most 512 KiB.
pub const RECORD_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// In an image's folder: its files.
pub const ROOT: &str = "root";
/// The sandbox's own: what a root has there is not shown.
pub const NOT_SHOWN: [&str; 5] = ["proc", "dev", "sys", "tmp", "run"];
/// Where programs are looked for, if nothing else is said.
pub const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Names in the top of a root; each costs a mount.
pub const ROOT_ENTRIES_MAX: usize = 64;
/// The service that keeps images, and in its folder the records.
const KEEPER: &str = "process_manager";
const RECORDS: &str = "trees";

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Kind {
    #[n(0)]
    Folder,
    #[n(1)]
    File,
    #[n(2)]
    Link(#[n(0)] String),
}

/// A name in the top of an image.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Top {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub kind: Kind,
}

/// What an image says of itself, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Content {
    #[n(0)]
    pub entrypoint: Vec<String>,
    #[n(1)]
    pub cmd: Vec<String>,
    /// `NAME=VALUE`.
    #[n(2)]
    pub env: Vec<String>,
    #[n(3)]
    pub working_dir: String,
    /// As the image says it, and what it means by its own list of users.
    #[n(4)]
    pub user: String,
    #[n(5)]
    pub uid: u32,
    #[n(6)]
    pub gid: u32,
    #[n(7)]
    pub home: String,
    #[n(8)]
    pub top: Vec<Top>,
    #[n(9)]
    pub layers: u32,
    #[n(10)]
    pub entries: u64,
    #[n(11)]
    pub size_bytes: u64,
    /// Devices and pipes.
    #[n(12)]
    pub left_out: u64,
    /// Files that had a setuid or setgid bit.
    #[n(13)]
    pub set_id: u64,
    #[n(14)]
    pub form: ImageForm,
    /// SHA-256 of the manifest that named it, where one did.
    #[n(15)]
    pub manifest: Option<TreeId>,
}

/// Kept beside the folder. By which names it is found, the log says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Tree {
    #[n(0)]
    pub id: TreeId,
    #[n(1)]
    pub content: Content,
}

/// Where images lie, one folder for each, below the place of the node's images.
#[must_use]
pub fn trees_folder(images: &Path) -> PathBuf {
    images.join("trees")
}

/// Where the files of an image lie.
#[must_use]
pub fn tree_folder(images: &Path, id: TreeId) -> PathBuf {
    trees_folder(images).join(format!("sha256-{}", id.to_hex())).join(ROOT)
}

/// Where the record of an image lies.
#[must_use]
pub fn record_file(layout: &Layout, id: TreeId) -> PathBuf {
    layout.service_state(KEEPER).join(RECORDS).join(id.to_hex())
}

impl Tree {
    /// What an unpacking reports is as little believed as what it unpacked.
    pub fn check(&self) -> Result<(), String> {
        let content = &self.content;
        if content.top.len() > ROOT_ENTRIES_MAX {
            return Err(format!(
                "{} names in the image's top; at most {ROOT_ENTRIES_MAX}",
                content.top.len()
            ));
        }
        content.top.iter().try_for_each(|entry| {
            top_name(&entry.name)?;
            match &entry.kind {
                Kind::Link(target) => points_to(target),
                Kind::Folder | Kind::File => Ok(()),
            }
        })
    }
}

impl Content {
    /// That what lies in the top of an image's files is of the kind on record: a link where a folder was would show what it leads
    /// to, of the host.
    pub fn check_top(&self, folder: &Path) -> Result<(), String> {
        self.top.iter().try_for_each(|Top { name, kind }| {
            let found = folder.join(name).symlink_metadata();
            let found = found.map_err(|error| format!("{name:?} in its top cannot be looked at: {error}"))?;
            let (is_that, expected) = match kind {
                Kind::Folder => (found.is_dir(), "folder"),
                Kind::File => (found.is_file(), "file"),
                Kind::Link(_) => (found.is_symlink(), "link"),
            };
            if is_that { Ok(()) } else { Err(format!("{name:?} in its top is no {expected} any more")) }
        })
    }
}

/// A name that can stand in the top of a root.
pub fn top_name(name: &str) -> Result<(), String> {
    let plain = !name.is_empty() && name.len() <= 255 && name != "." && name != "..";
    if !plain || name.contains(['/', '\0']) || NOT_SHOWN.contains(&name) {
        return Err(format!("{name:?} cannot stand in the top of a root"));
    }
    Ok(())
}

/// What a link in the top of a root may lead to.
pub fn points_to(target: &str) -> Result<(), String> {
    if target.is_empty() || target.contains('\0') {
        return Err("a link points to nothing".to_owned());
    }
    if target.len() > sandbox::PATH_BYTES_MAX {
        return Err(format!("a link has {} bytes; at most {}", target.len(), sandbox::PATH_BYTES_MAX));
    }
    Ok(())
}

/// Without `.`, `..`, doubled and trailing slashes. Lexical: a link on the way is not followed.
#[must_use]
pub fn normalize(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Where a program may stand, in the order in which it is looked for.
#[must_use]
pub fn candidates(name: &str, cwd: &str, path: Option<&str>) -> Vec<String> {
    if name.starts_with('/') {
        return vec![normalize(name)];
    }
    if name.contains('/') {
        return vec![normalize(&format!("{cwd}/{name}"))];
    }
    let folders = path.unwrap_or(USUAL_PATH).split(':');
    folders.map(|folder| normalize(&format!("{folder}/{name}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_the_top_is_what_the_record_says() {
        use std::{fs, os::unix::fs::symlink};

        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        fs::create_dir(place("usr")).unwrap();
        fs::write(place("app"), "").unwrap();
        symlink("usr/bin", place("bin")).unwrap();
        let kinds = [("usr", Kind::Folder), ("app", Kind::File), ("bin", Kind::Link("usr/bin".to_owned()))];
        let top = kinds.map(|(name, kind)| Top { name: name.to_owned(), kind }).to_vec();
        let content = Content { top, ..Content::default() };
        assert_eq!(content.check_top(folder.path()), Ok(()));
        let remove = |name: &str| {
            let gone = fs::remove_file(place(name)).or_else(|_| fs::remove_dir(place(name)));
            gone.unwrap();
        };
        for (name, points_to) in [("usr", "/etc"), ("app", "/etc/passwd")] {
            let before = place(name).is_dir();
            remove(name);
            let refused = || content.check_top(folder.path()).unwrap_err();
            assert!(refused().contains(&format!("{name:?} in its top cannot be looked at")), "{}", refused());
            symlink(points_to, place(name)).unwrap();
            assert!(refused().contains(&format!("{name:?} in its top is no ")), "{}", refused());
            remove(name);
            if before {
                fs::create_dir(place(name)).unwrap()
            } else {
                fs::write(place(name), "").unwrap()
            }
            assert_eq!(content.check_top(folder.path()), Ok(()));
        }
        remove("bin");
        fs::create_dir(place("bin")).unwrap();
        assert_eq!(content.check_top(folder.path()).unwrap_err(), "\"bin\" in its top is no link any more");
    }

    #[test]
    fn a_program_is_looked_for_as_a_shell_does() {
        assert_eq!(candidates("/bin/../bin/a", "/x", None), ["/bin/a"]);
        assert_eq!(candidates("./a", "/x", None), ["/x/a"]);
        assert_eq!(candidates("a", "/x", Some("/b:/c/")), ["/b/a", "/c/a"]);
        assert_eq!(candidates("a", "/x", None).len(), 6);
    }
}
