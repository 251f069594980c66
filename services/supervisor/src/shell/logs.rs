//! Keeps the log of each service within its bound while it runs.
//!
//! A service writes into its file itself, at its end, so the file cannot be exchanged under it: what is above the bound is
//! copied beside it and cut off. A thread of its own waits for writes and costs nothing while there are none. Who writes
//! faster than a log is of use loses what came between two looks, and the log says how much.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};

use super::plans::LOG_BYTES_MAX;
use super::sockets;

/// Between two looks while something is written. At two gigabytes a second, which is memory's speed, a log is at most
/// 40 MB above its bound.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A log is put aside once in this time; what comes faster is cut off.
const ASIDE_EVERY: Duration = Duration::from_secs(10);
/// Of file events, whose content does not matter.
const EVENT_BYTES: usize = 4096;

/// Watches the folder of logs for as long as this process lives.
pub(super) fn keep_within_bounds(folder: PathBuf) {
    let thread = std::thread::Builder::new().name("logs".to_owned());
    let spawned = thread.spawn(move || {
        if let Err(error) = watch(&folder) {
            tracing::error!(%error, folder = %folder.display(), "logs are not kept within their bounds any more");
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread keeps logs within their bounds");
    }
}

fn watch(folder: &Path) -> io::Result<()> {
    sockets::make_folder(folder)?;
    let watcher = init(CreateFlags::CLOEXEC)?;
    add_watch(&watcher, folder, WatchFlags::MODIFY)?;
    let mut aside = BTreeMap::new();
    loop {
        for entry in std::fs::read_dir(folder)?.flatten() {
            let path = entry.path();
            let is_log = path.extension().is_some_and(|extension| extension == "log");
            let bytes = entry.metadata().map(|data| data.len()).unwrap_or(0);
            if is_log && bytes > LOG_BYTES_MAX {
                let now = Instant::now();
                let soon = aside.get(&path).is_some_and(|at| now.duration_since(*at) < ASIDE_EVERY);
                if !soon {
                    tracing::warn!(log = %path.display(), bytes, "a full log is put aside while its service runs");
                    aside.insert(path.clone(), now);
                }
                if let Err(error) = cut(&path, !soon) {
                    // The others are still to be kept within theirs.
                    tracing::warn!(%error, log = %path.display(), "a full log is not cut");
                }
            }
        }
        let mut space = [MaybeUninit::uninit(); EVENT_BYTES];
        // Any event: which file it was says the next look.
        match Reader::new(&watcher, &mut space).next() {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(LOOK_EVERY);
        drain(&watcher)?;
    }
}

/// What came meanwhile is looked at in one go.
fn drain(watcher: &impl std::os::fd::AsFd) -> io::Result<()> {
    let mut waiting = rustix::io::ioctl_fionread(watcher)?;
    let mut space = [0; EVENT_BYTES];
    while waiting > 0 {
        let read = rustix::io::read(watcher, &mut space)? as u64;
        waiting = if read == 0 { 0 } else { waiting.saturating_sub(read) };
    }
    Ok(())
}

/// Cuts a log, after putting its end aside; says in it how much is gone.
fn cut(path: &Path, keep: bool) -> io::Result<()> {
    let mut log = OpenOptions::new().read(true).append(true).open(path)?;
    let bytes = log.metadata()?.len();
    let kept = if keep { bytes.min(LOG_BYTES_MAX) } else { 0 };
    if keep {
        log.seek(SeekFrom::Start(bytes - kept))?;
        let mut options = OpenOptions::new();
        let aside = path.with_extension("log.1");
        let opened = options.write(true).create(true).truncate(true).mode(0o600).open(aside);
        let copied =
            opened.and_then(|mut other| io::copy(&mut Read::by_ref(&mut log).take(kept), &mut other));
        if let Err(error) = copied {
            // A full disk is the last reason to leave the log as it is.
            tracing::warn!(%error, log = %path.display(), "the end of a full log is not put aside");
        }
    }
    log.set_len(0)?;
    let dropped = bytes - kept;
    writeln!(
        log,
        "bailiwick: the log was full at {bytes} bytes: {kept} are put aside in .log.1, {dropped} and what came \
         meanwhile are gone"
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_log_that_is_cut_keeps_its_end_aside_and_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut writer = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        writer.write_all(&[b'a'; 100]).unwrap();
        writer.write_all(&vec![b'b'; LOG_BYTES_MAX as usize]).unwrap();
        cut(&path, true).unwrap();
        writer.write_all(b"goes on\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("bailiwick: the log was full") && text.contains(" 100 and"), "{text}");
        assert!(text.ends_with("gone\ngoes on\n"), "{text}");
        let aside = std::fs::read(path.with_extension("log.1")).unwrap();
        assert_eq!(aside.len() as u64, LOG_BYTES_MAX);
        assert!(aside.iter().all(|byte| *byte == b'b'));
        let mode = std::fs::metadata(path.with_extension("log.1")).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
        writer.write_all(&vec![b'c'; 1000]).unwrap();
        cut(&path, false).unwrap();
        assert_eq!(std::fs::read(path.with_extension("log.1")).unwrap(), aside);
        assert!(std::fs::metadata(&path).unwrap().len() < 200);
    }

    #[test]
    fn a_log_is_cut_while_it_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.log");
        // At its bound one stays; it stands before the other, so it was looked at when that one is cut.
        let at_the_bound = folder.path().join("a.log");
        File::create(&at_the_bound).unwrap().set_len(LOG_BYTES_MAX).unwrap();
        let mut writer = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        keep_within_bounds(folder.path().to_owned());
        for _ in 0..2 {
            writer.write_all(&vec![b'a'; LOG_BYTES_MAX as usize + 1]).unwrap();
            let cut = || (std::fs::metadata(&path).unwrap().len() < 1000).then_some(());
            assert!(sandbox::wait_for(Duration::from_secs(10), LOOK_EVERY, cut).is_some());
        }
        assert_eq!(std::fs::metadata(&at_the_bound).unwrap().len(), LOG_BYTES_MAX);
    }
}
