//! The real disk: atomic replacement, single writer, zeroed files.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use durable::{
    Disk, DiskError, DiskFile, POOL_FILES_MAX, Pool, PoolError, RealDisk, read_small, replace, wipe,
};

fn disk() -> (tempfile::TempDir, RealDisk) {
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(folder.path().join("disk")).unwrap();
    (folder, disk)
}

#[test]
fn a_file_is_replaced_whole_even_over_the_rest_of_a_crash() {
    let (_folder, disk) = disk();
    assert_eq!(read_small(&disk, "state", 100).unwrap(), None);
    replace(&disk, "state", &[b"first"]).unwrap();
    disk.create("state.new").unwrap().write_at(0, b"half of a longer one").unwrap();
    replace(&disk, "state", &[b"sec", b"ond"]).unwrap();
    assert_eq!(read_small(&disk, "state", 6).unwrap().unwrap(), b"second");
    assert!(matches!(read_small(&disk, "state", 5), Err(DiskError::Failed { .. })));
    assert_eq!(disk.list("").unwrap(), ["state"]);
}

#[test]
fn a_wiped_file_is_zero_before_it_is_gone() {
    let (folder, disk) = disk();
    replace(&disk, "key", &[b"secret"]).unwrap();
    // The same content under another name outlives the removal.
    std::fs::hard_link(folder.path().join("disk/key"), folder.path().join("left")).unwrap();
    wipe(&disk, "key").unwrap();
    assert_eq!(disk.list("").unwrap(), Vec::<String>::new());
    assert_eq!(std::fs::read(folder.path().join("left")).unwrap(), [0; 6]);
    assert!(wipe(&disk, "key").unwrap_err().is_not_found());
}

/// The owner of a folder may be trusted less than the one who writes in it.
#[test]
fn a_link_is_not_followed() {
    let (folder, disk) = disk();
    let outside = folder.path().join("outside");
    std::fs::write(&outside, "not of this folder").unwrap();
    std::os::unix::fs::symlink(&outside, folder.path().join("disk/key")).unwrap();
    assert!(disk.open("key").is_err() && wipe(&disk, "key").is_err() && disk.lock("key").is_err());
    replace(&disk, "key", &[b"new"]).unwrap();
    assert_eq!(std::fs::read(&outside).unwrap(), b"not of this folder");
    assert_eq!(read_small(&disk, "key", 3).unwrap().unwrap(), b"new");
}

#[test]
fn a_store_is_for_its_user_and_what_is_published_for_everybody() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, disk) = disk();
    replace(&disk, "own", &[b"x"]).unwrap();
    replace(&disk.public(), "shown", &[b"x"]).unwrap();
    let mode = |name: &str| folder.path().join("disk").join(name).metadata().unwrap().permissions().mode();
    assert_eq!(mode("own") & 0o777, 0o600);
    assert_eq!(mode("shown") & 0o044, 0o044);
}

/// covers: AX-15
#[test]
fn a_second_writer_fails_at_once() {
    let (_folder, disk) = disk();
    let first = disk.lock("lock").unwrap();
    assert!(matches!(disk.lock("lock"), Err(DiskError::Locked { .. })));
    drop(first);
    disk.lock("lock").unwrap();
}

#[test]
fn taken_files_are_zero_and_used_ones_come_back_zeroed() {
    let (_folder, disk) = disk();
    let pool = Pool::open(&disk, "spare", 8192, 2, false).unwrap();
    let all_zero = |file: &durable::RealFile| {
        let mut bytes = vec![1; 8192];
        file.read_at(0, &mut bytes).unwrap();
        assert_eq!(file.size_bytes().unwrap(), 8192);
        assert!(bytes.iter().all(|byte| *byte == 0));
    };
    let (file, name) = pool.take().unwrap();
    all_zero(&file);
    file.write_at(100, b"used").unwrap();
    disk.rename(&name, "segment").unwrap();
    pool.recycle("segment").unwrap();
    assert!(pool.fill_one().unwrap() && pool.fill_one().unwrap());
    assert!(!pool.fill_one().unwrap());
    assert_eq!(pool.ready(), 2);
    for _ in 0..3 {
        all_zero(&pool.take().unwrap().0);
    }
    drop(pool);
    disk.open("spare/00000001.zero").unwrap().write_at(5, b"left by a crash").unwrap();
    let again = Pool::open(&disk, "spare", 8192, 1, false).unwrap();
    assert_eq!((again.ready(), disk.list("spare").unwrap().len()), (0, 1));
    again.fill_one().unwrap();
    all_zero(&again.take().unwrap().0);
    assert!(matches!(Pool::open(&disk, "x", 8192, 0, false), Err(PoolError::Size(0))));
    assert!(Pool::open(&disk, "x", 8192, POOL_FILES_MAX, false).is_ok());
    assert!(matches!(Pool::open(&disk, "x", 8192, POOL_FILES_MAX + 1, false), Err(PoolError::Size(_))));
}

#[test]
fn the_pool_fills_itself_in_the_background_and_ends_when_dropped() {
    let (_folder, disk) = disk();
    let pool = Arc::new(Pool::open(&disk, "spare", 4096, 3, true).unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    for _ in 0..2 {
        while pool.ready() < 3 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(pool.ready(), 3);
        pool.take().unwrap();
    }
}
