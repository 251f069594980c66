//! Looks at, applies and removes what a program changed in folders that were shown copy-on-write.
//!
//! A process of its own, started by the keeper as the program was: with the program's ids, in a sandbox that has the
//! layer and the folders below it and nothing else. So it can change on the host what a writable grant would have let
//! the program change, and no name in a layer leads anywhere else. It is told one job through a descriptor, answers
//! one report on its standard output, and ends.
//!
//! A commit is one rename, one new name or one removal at a time, each whole or not done at all. What is done already
//! is no difference any more; so a commit that was cut is completed by saying it again.

mod apply;
pub(crate) mod entry;
pub(crate) mod remove;
mod walk;

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    process::ExitCode,
};

use base::cbor;
use minicbor::{Decode, Encode};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock};
use sandbox::inherited::adopt_descriptor;

use apply::Apply;
use walk::{Filter, Visit, Walk};

/// Where the job stands.
const JOB_FD: i32 = 3;
const JOB_BYTES_MAX: u64 = 1024 * 1024;
/// Changes that one report lists; the others are counted.
pub const CHANGES_MAX: usize = 4096;
/// Bytes of their paths in one report; below what a message may have.
pub const CHANGE_BYTES_MAX: usize = 512 * 1024;
/// Of a report, with room.
pub const REPORT_BYTES_MAX: u64 = 1024 * 1024;
/// Where the layers of a program are mounted for this process, and the folders below them; by number.
pub const LAYER: &str = "/layer";
pub const BASE: &str = "/base";
/// In the layer's folder: a commit has begun to change the folders below.
const BEGUN: &str = "begun";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Task {
    /// List what differs; a layer in which nothing does is emptied if `Job::prune` says so.
    #[n(0)]
    Diff,
    /// Apply what differs; afterwards nothing is left if nothing was left out.
    #[n(1)]
    Commit,
    /// Empty the layer, whatever is in it.
    #[n(2)]
    Remove,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Folder {
    /// In `LAYER` and `BASE`.
    #[n(0)]
    pub number: u32,
    /// The host's name of it, for people.
    #[n(1)]
    pub shown: String,
    /// Only this path below it and what it needs; empty for all.
    #[n(2)]
    pub under: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Job {
    #[n(0)]
    pub task: Task,
    #[n(1)]
    pub folders: Vec<Folder>,
    /// Seconds and nanoseconds: what was changed on the host at this time or later was changed meanwhile.
    #[n(2)]
    pub made_at: (i64, u32),
    /// Apply also what was changed meanwhile.
    #[n(3)]
    pub force: bool,
    /// Goes into the names of files that are not finished.
    #[n(4)]
    pub mark: u64,
    /// Of `Diff`: empty a layer in which nothing differs.
    #[n(5)]
    pub prune: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum What {
    #[n(0)]
    Added,
    #[n(1)]
    Changed,
    #[n(2)]
    Removed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    #[n(0)]
    File,
    #[n(1)]
    Folder,
    #[n(2)]
    Symlink,
    #[n(3)]
    Fifo,
    #[n(4)]
    Device,
    #[n(5)]
    Socket,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Change {
    /// As the host names it; what is not UTF-8 is shown with replacement characters.
    #[n(0)]
    pub path: String,
    #[n(1)]
    pub what: What,
    /// Of what is there afterwards, or of what was removed.
    #[n(2)]
    pub kind: Kind,
    #[n(3)]
    pub size_bytes: u64,
    /// Why a commit would not apply it.
    #[n(4)]
    pub blocked: Option<Blocked>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Blocked {
    /// Changed, removed or made on the host since the program started; `force` overrides it.
    #[n(0)]
    Conflict,
    #[n(1)]
    Device,
    #[n(2)]
    SetId,
    /// A mark of overlayfs that is not understood.
    #[n(3)]
    Mark,
    #[n(4)]
    TooDeep,
    /// A name that unfinished files of a commit have.
    #[n(5)]
    Reserved,
}

impl Blocked {
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Conflict => "it was changed on the host since the program started",
            Self::Device => "it is a device",
            Self::SetId => "it is a program that would run as its owner (setuid or setgid)",
            Self::Mark => "it carries a mark of overlayfs that is not understood",
            Self::TooDeep => "it lies too deep",
            Self::Reserved => "its name is one that unfinished files of a commit have",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Report {
    /// What differs, or of a commit: what was applied, or what stops it.
    #[n(0)]
    pub changes: Vec<Change>,
    /// Not listed.
    #[n(1)]
    pub more: u64,
    #[n(2)]
    pub applied: u64,
    /// Changes stand in the way, which are listed; nothing was applied.
    #[n(3)]
    pub stopped: bool,
    /// Nothing is left in the layer.
    #[n(4)]
    pub emptied: bool,
    /// It ended with this error; what was applied before is applied.
    #[n(5)]
    pub failed: Option<String>,
}

impl Report {
    fn list(&mut self, change: Change) {
        let listed: usize = self.changes.iter().map(|change| change.path.len()).sum();
        if self.changes.len() < CHANGES_MAX && listed + change.path.len() <= CHANGE_BYTES_MAX {
            self.changes.push(change);
        } else {
            self.more += 1;
        }
    }
}

/// Entry of `bailiwick process layer`.
#[must_use]
pub fn main() -> ExitCode {
    let report = match read_job() {
        Ok(job) => run(&job, LAYER, BASE),
        Err(error) => {
            eprintln!("layer: {error}: this process is started by process_manager");
            return ExitCode::from(2);
        }
    };
    // Nobody may listen any more: what was done is done.
    match io::stdout().write_all(&cbor::encode(&report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn read_job() -> io::Result<Job> {
    let mut bytes = Vec::new();
    File::from(adopt_descriptor(JOB_FD)?).take(JOB_BYTES_MAX).read_to_end(&mut bytes)?;
    cbor::decode(&bytes).map_err(|error| io::Error::other(error.to_string()))
}

/// Does a job on the layers in one folder and the folders in another.
#[must_use]
pub fn run(job: &Job, layer: &str, base: &str) -> Report {
    let mut report = Report::default();
    if let Err(error) = carry_out(job, layer, base, &mut report) {
        report.failed = Some(error.to_string());
    }
    report
}

fn carry_out(job: &Job, layer: &str, base: &str, report: &mut Report) -> io::Result<()> {
    let top = open_folder(layer)?;
    // A job of an earlier process_manager may still be at it.
    flock(&top, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::other("another command is working on this layer; say it again later"))?;
    match job.task {
        Task::Remove => {
            remove::everything(&top)?;
            report.emptied = true;
            return Ok(());
        }
        Task::Diff => {
            walk(job, layer, base, &mut |visit| {
                report.list(visit.change());
                Ok(())
            })?;
        }
        Task::Commit => {
            let mut stops = Report::default();
            walk(job, layer, base, &mut |visit| {
                let change = visit.change();
                if change.blocked.is_some_and(|blocked| !job.force || blocked != Blocked::Conflict) {
                    stops.list(change);
                }
                Ok(())
            })?;
            if !stops.changes.is_empty() {
                *report = Report { stopped: true, ..stops };
                return Ok(());
            }
            rustix::fs::openat(&top, BEGUN, OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR)?;
            for folder in &job.folders {
                let root = open_folder(&format!("{base}/{}", folder.number))?;
                let mut apply = Apply::new(&root, job.mark);
                let applied = walk_one(job, folder, layer, base, &mut |visit| {
                    apply.change(visit)?;
                    report.applied += 1;
                    report.list(Change { blocked: None, ..visit.change() });
                    Ok(())
                });
                // What was applied survives a power cut before the layer that could repeat it is gone.
                rustix::fs::syncfs(&root)?;
                applied?;
            }
        }
    }
    if job.prune || job.task == Task::Commit {
        let mut left = false;
        let whole = Job { folders: job.folders.iter().map(Folder::whole).collect(), ..job.clone() };
        walk(&whole, layer, base, &mut |_| {
            left = true;
            Ok(())
        })?;
        if !left {
            remove::everything(&top)?;
            report.emptied = true;
        }
    }
    Ok(())
}

impl Folder {
    fn whole(&self) -> Self {
        Self { under: String::new(), ..self.clone() }
    }
}

fn open_folder(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|error| io::Error::new(error.kind(), format!("opening {path}: {error}")))
}

type OnChange<'a> = dyn FnMut(&mut Visit<'_>) -> io::Result<()> + 'a;

fn walk(job: &Job, layer: &str, base: &str, on_change: &mut OnChange<'_>) -> io::Result<()> {
    job.folders.iter().try_for_each(|folder| walk_one(job, folder, layer, base, on_change))
}

fn walk_one(
    job: &Job,
    folder: &Folder,
    layer: &str,
    base: &str,
    on_change: &mut OnChange<'_>,
) -> io::Result<()> {
    let upper = format!("{layer}/{}/{}", folder.number, sandbox::OVERLAY_UPPER);
    // The mount never came to be: nothing was changed.
    if matches!(std::fs::symlink_metadata(&upper), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    let begun = std::fs::symlink_metadata(format!("{layer}/{BEGUN}")).is_ok();
    let walk = Walk {
        shown: &folder.shown,
        made_at: job.made_at,
        begun,
        mark: job.mark,
        filter: Filter::new(&folder.under),
    };
    walk.folder(&open_folder(&upper)?, Some(&open_folder(&format!("{base}/{}", folder.number))?), on_change)
}

/// What an unfinished file, folder or link of a commit is called: its new form, and the old one on its way out.
fn unfinished(mark: u64) -> [String; 2] {
    ["new", "old"].map(|what| format!(".bailiwick-commit-{mark}-{what}"))
}

#[cfg(test)]
mod tests;
