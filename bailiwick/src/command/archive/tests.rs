use std::{fs, io::IoSliceMut};

use rustix::io::{ReadWriteFlags, preadv2};

use super::*;

const NAME: &str = "00000000000000000000.seg";

/// A folder on a disk: what lies in memory alone has no page cache to be dropped.
fn place() -> tempfile::TempDir {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    tempfile::tempdir_in(folder).unwrap()
}

fn log(folder: &Path) -> (PathBuf, PathBuf, Vec<String>) {
    let (from, to) = (folder.join("log"), folder.join("archive"));
    fs::create_dir_all(&from).unwrap();
    fs::write(from.join(NAME), vec![7; 3 * COPY_BYTES + 5]).unwrap();
    (from, to, vec![NAME.to_owned()])
}

/// Whether a read of the file would not have to ask the disk.
fn is_cached(path: &Path) -> bool {
    let file = File::open(path).unwrap();
    let mut buffer = [0; 1];
    let at = (COPY_BYTES + 1) as u64;
    preadv2(&file, &mut [IoSliceMut::new(&mut buffer)], at, ReadWriteFlags::NOWAIT).is_ok()
}

#[test]
fn a_copy_is_checked_as_the_disk_has_it() {
    let folder = place();
    let (from, to, names) = log(folder.path());
    assert!(is_cached(&from.join(NAME)));
    for what in ["made", "found"] {
        copy(&from, &to, &names).unwrap();
        assert!(!is_cached(&to.join(NAME)), "{what}");
        assert_eq!(fs::read(to.join(NAME)).unwrap(), fs::read(from.join(NAME)).unwrap());
        assert!(is_cached(&to.join(NAME)));
    }
}

#[test]
fn a_copy_with_another_name_is_none() {
    let folder = place();
    let (from, to, names) = log(folder.path());
    copy(&from, &to, &names).unwrap();
    let other = folder.path().join("other");
    fs::hard_link(to.join(NAME), &other).unwrap();
    let refused = copy(&from, &to, &names).unwrap_err();
    assert!(refused.to_string().contains("hard links"), "{refused:#}");
    fs::remove_file(&other).unwrap();
    copy(&from, &to, &names).unwrap();
    // The log's own file under the copy's name.
    fs::remove_file(to.join(NAME)).unwrap();
    fs::hard_link(from.join(NAME), to.join(NAME)).unwrap();
    let refused = copy(&from, &to, &names).unwrap_err();
    assert!(refused.to_string().contains("the log's own file"), "{refused:#}");
}
