//! Layers made by hand: marks as attributes, which need no privilege.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use rustix::fs::{XattrFlags, setxattr};

use super::*;

struct Bench {
    top: tempfile::TempDir,
}

impl Bench {
    /// A folder with `kept`, `changed`, `removed`, and `folder/inner`.
    fn new() -> Self {
        let bench = Self { top: tempfile::tempdir().unwrap() };
        fs::create_dir_all(bench.upper("")).unwrap();
        fs::create_dir_all(bench.base("folder")).unwrap();
        for name in ["kept", "changed", "removed", "folder/inner"] {
            fs::write(bench.base(name), "old").unwrap();
        }
        bench
    }

    fn upper(&self, name: &str) -> PathBuf {
        self.top.path().join("layer/0/upper").join(name)
    }

    fn base(&self, name: &str) -> PathBuf {
        self.top.path().join("base/0").join(name)
    }

    fn whiteout(&self, name: &str) {
        fs::write(self.upper(name), "").unwrap();
        mark(&self.upper(name), "user.overlay.whiteout", b"");
    }

    fn run(&self, change: impl FnOnce(&mut Job)) -> Report {
        // As long after now as no file system's clock is coarse.
        let mut job = Job {
            task: Task::Diff,
            folders: vec![Folder { number: 0, shown: "/host".to_owned(), under: String::new() }],
            made_at: (i64::MAX, 0),
            force: false,
            mark: 7,
            prune: false,
        };
        change(&mut job);
        let path = |name| self.top.path().join(name).to_str().unwrap().to_owned();
        run(&job, &path("layer"), &path("base"))
    }

    fn commit(&self) -> Report {
        self.run(|job| job.task = Task::Commit)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.base(name)).unwrap()
    }
}

fn mark(path: &Path, name: &str, value: &[u8]) {
    setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn said(report: &Report) -> Vec<String> {
    assert_eq!(report.failed, None);
    let say = |change: &Change| {
        let blocked = change.blocked.map(|blocked| format!(" {blocked:?}")).unwrap_or_default();
        format!("{:?} {:?} {} {}{blocked}", change.what, change.kind, change.path, change.size_bytes)
    };
    report.changes.iter().map(say).collect()
}

#[test]
fn what_differs_is_told_and_what_was_only_touched_is_not() {
    let bench = Bench::new();
    fs::write(bench.upper("changed"), "newer").unwrap();
    fs::write(bench.upper("kept"), "old").unwrap();
    bench.whiteout("removed");
    bench.whiteout("never_there");
    fs::create_dir(bench.upper("made")).unwrap();
    symlink("/etc/passwd", bench.upper("made/link")).unwrap();
    fs::create_dir(bench.upper("folder")).unwrap();
    fs::set_permissions(bench.upper("folder"), fs::metadata(bench.base("folder")).unwrap().permissions())
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bench.upper("socket")).unwrap();
    let report = bench.run(|_| {});
    assert_eq!(
        said(&report),
        [
            "Changed File /host/changed 5",
            "Added Folder /host/made 0",
            "Added Symlink /host/made/link 0",
            "Removed File /host/removed 3"
        ]
    );
    let below = bench.run(|job| job.folders[0].under = "made/link".to_owned());
    assert_eq!(said(&below).len(), 2, "a folder that is needed comes with it: {below:?}");
    assert_eq!(said(&bench.run(|job| job.folders[0].under = "changed".to_owned())).len(), 1);
    assert_eq!(bench.read("changed"), "old", "nothing is done");
}

#[test]
fn a_commit_makes_the_folder_what_the_program_saw_and_leaves_nothing() {
    let bench = Bench::new();
    fs::write(bench.upper("changed"), "newer").unwrap();
    fs::set_permissions(bench.upper("changed"), Permissions::from_mode(0o640)).unwrap();
    mark(&bench.upper("changed"), "user.kind", b"text");
    mark(&bench.upper("changed"), "user.overlay.origin", b"");
    bench.whiteout("removed");
    fs::create_dir_all(bench.upper("made/deeper")).unwrap();
    fs::write(bench.upper("made/deeper/one"), "1").unwrap();
    fs::hard_link(bench.upper("made/deeper/one"), bench.upper("two")).unwrap();
    symlink("../outside", bench.upper("link")).unwrap();
    // Removed and made again: what was in it is gone.
    fs::create_dir(bench.upper("folder")).unwrap();
    mark(&bench.upper("folder"), "user.overlay.opaque", b"y");
    fs::write(bench.upper("folder/other"), "new").unwrap();
    // A folder where a file was.
    fs::create_dir(bench.upper("kept")).unwrap();
    fs::write(bench.upper("kept/inside"), "x").unwrap();
    let report = bench.commit();
    assert_eq!(report.failed, None);
    assert!(report.emptied && !report.stopped, "{report:?}");
    assert_eq!(bench.read("changed"), "newer");
    assert_eq!(fs::metadata(bench.base("changed")).unwrap().mode() & 0o7777, 0o640);
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(bench.base("changed"), "user.kind", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"text");
    assert!(rustix::fs::getxattr(bench.base("changed"), "user.overlay.origin", &mut value[..]).is_err());
    assert!(!bench.base("removed").exists() && !bench.base("folder/inner").exists());
    assert_eq!((bench.read("folder/other"), bench.read("kept/inside")), ("new".to_owned(), "x".to_owned()));
    assert_eq!(fs::read_link(bench.base("link")).unwrap(), Path::new("../outside"));
    let inode = |name| fs::metadata(bench.base(name)).unwrap().ino();
    assert_eq!(inode("two"), inode("made/deeper/one"));
    let names: Vec<_> =
        fs::read_dir(bench.base("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 6, "nothing unfinished is left: {names:?}");
    assert_eq!(fs::read_dir(bench.top.path().join("layer")).unwrap().count(), 0);
}

#[test]
fn what_was_changed_meanwhile_stops_a_commit_unless_it_is_forced() {
    type Act = fn(&Bench);
    let cases: [(&str, Act); 4] = [
        ("changed", |bench| fs::write(bench.upper("changed"), "newer").unwrap()),
        ("removed", |bench| bench.whiteout("removed")),
        ("folder", |bench| bench.whiteout("folder")),
        ("folder/inner", |bench| {
            fs::create_dir(bench.upper("folder")).unwrap();
            fs::write(bench.upper("folder/inner"), "newer").unwrap();
        }),
    ];
    for (name, change) in cases {
        let bench = Bench::new();
        change(&bench);
        fs::write(bench.upper("made"), "new").unwrap();
        let made_at = fs::metadata(bench.base(name)).unwrap();
        let made_at = (made_at.ctime(), u32::try_from(made_at.ctime_nsec()).unwrap());
        let commit = |force| {
            bench.run(|job| {
                (job.task, job.made_at, job.force) = (Task::Commit, made_at, force);
            })
        };
        let report = commit(false);
        assert!(report.stopped && report.applied == 0, "{name}: {report:?}");
        let conflict = |change: &Change| change.blocked == Some(Blocked::Conflict);
        assert!(
            report.changes.iter().any(|change| conflict(change) && change.path.contains(name)),
            "{report:?}"
        );
        assert!(!bench.base("made").exists(), "nothing was applied");
        let forced = commit(true);
        assert!(forced.emptied, "{name}: {forced:?}");
        assert_eq!(bench.read("made"), "new");
    }
}

#[test]
fn a_change_of_something_that_was_removed_meanwhile_is_a_conflict_and_a_moved_file_is_none() {
    let bench = Bench::new();
    fs::write(bench.upper("gone"), "changed").unwrap();
    mark(&bench.upper("gone"), "user.overlay.origin", b"");
    let moved = bench.run(|_| {});
    assert_eq!(said(&moved), ["Added File /host/gone 7"]);
    let removed = bench.run(|job| job.made_at = (0, 0));
    assert_eq!(said(&removed), ["Added File /host/gone 7 Conflict"]);
}

#[test]
fn a_cut_commit_is_completed_by_saying_it_again() {
    let bench = Bench::new();
    fs::write(bench.upper("changed"), "newer").unwrap();
    bench.whiteout("folder");
    fs::write(bench.upper("made"), "new").unwrap();
    // As a cut one leaves it: some is done, some is half done under unfinished names.
    fs::write(bench.base("changed"), "newer").unwrap();
    fs::rename(bench.base("folder"), bench.base(".bailiwick-commit-7-old")).unwrap();
    fs::write(bench.base(".bailiwick-commit-7-new"), "ne").unwrap();
    let report = bench.commit();
    assert_eq!(said(&report), ["Added File /host/made 3"]);
    assert!(report.emptied);
    let names: Vec<_> =
        fs::read_dir(bench.base("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn what_cannot_be_applied_is_refused_by_name_even_when_forced() {
    let bench = Bench::new();
    fs::write(bench.upper("becomes_owner"), "x").unwrap();
    fs::set_permissions(bench.upper("becomes_owner"), Permissions::from_mode(0o4755)).unwrap();
    fs::create_dir(bench.upper("moved")).unwrap();
    mark(&bench.upper("moved"), "user.overlay.redirect", b"/elsewhere");
    fs::write(bench.upper(".bailiwick-commit-7-new"), "x").unwrap();
    let deep = "d/".repeat(walk::DEPTH_MAX);
    fs::create_dir_all(bench.upper(&deep).join("deeper")).unwrap();
    let report = bench.run(|job| (job.task, job.force) = (Task::Commit, true));
    let blocked: Vec<Blocked> = report.changes.iter().filter_map(|change| change.blocked).collect();
    assert!(report.stopped && report.applied == 0);
    assert_eq!(blocked, [Blocked::Reserved, Blocked::SetId, Blocked::TooDeep, Blocked::Mark]);
    let removed = bench.run(|job| job.task = Task::Remove);
    assert!(removed.emptied, "{removed:?}");
    assert_eq!(fs::read_dir(bench.top.path().join("layer")).unwrap().count(), 0);
}

#[test]
fn a_link_in_the_folder_below_leads_nowhere() {
    let bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "untouched").unwrap();
    symlink(outside.path(), bench.base("way")).unwrap();
    fs::create_dir(bench.upper("way")).unwrap();
    fs::write(bench.upper("way/file"), "new").unwrap();
    let report = bench.commit();
    assert!(report.emptied, "{report:?}");
    assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "untouched");
    assert!(fs::symlink_metadata(bench.base("way")).unwrap().is_dir());
    assert_eq!(bench.read("way/file"), "new");
}

#[test]
fn a_list_ends_at_its_limit_and_the_rest_is_counted() {
    let bench = Bench::new();
    for number in 0..=CHANGES_MAX {
        fs::write(bench.upper(&format!("{number}")), "").unwrap();
    }
    let report = bench.run(|_| {});
    assert_eq!((report.changes.len(), report.more), (CHANGES_MAX, 1));
    assert!(bench.commit().emptied);
    assert!(bench.base(&CHANGES_MAX.to_string()).exists());
    assert!(bench.run(|job| job.prune = true).emptied);
}
