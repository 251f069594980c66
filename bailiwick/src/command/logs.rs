//! `bailiwick service logs`: the file that a service's output goes to.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::node::Node;

/// How often a followed log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub fn show(node: &Node, name: &str, follow: bool, lines: Option<usize>) -> Result<()> {
    let path = node.layout.service_log(name);
    let mut log = match File::open(&path) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!(
                "no service {name:?} has ever run here; `bailiwick service list` shows those that are known"
            )
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let reading = || format!("reading {}", path.display());
    if let Some(lines) = lines {
        let skipped = before_last(&log, lines).with_context(reading)?;
        log.seek(SeekFrom::Start(skipped)).with_context(reading)?;
    }
    while copy(&mut log)? && follow {
        std::thread::sleep(LOOK_EVERY);
        // At a start a full log is put aside and a new one begun.
        if is_another(&log, &path) {
            copy(&mut log)?;
            log = File::open(&path).with_context(reading)?;
        } else if is_cut(&mut log) {
            log.seek(SeekFrom::Start(0)).with_context(reading)?;
        }
    }
    Ok(())
}

/// False when nobody reads any more.
fn copy(log: &mut File) -> Result<bool> {
    let mut out = io::stdout().lock();
    match io::copy(log, &mut out).and_then(|_| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("writing the log"),
    }
}

/// Where the last lines begin.
fn before_last(log: &File, lines: usize) -> io::Result<u64> {
    // The file is bounded: it is put aside above some megabytes.
    let mut starts = vec![0];
    let mut reader = BufReader::new(log);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        starts.push(starts.last().copied().unwrap_or(0) + read as u64);
    }
    // The last one is the end of the file.
    let kept = starts.len().saturating_sub(1).saturating_sub(lines);
    Ok(starts.get(kept).copied().unwrap_or(0))
}

/// A log that grew full while its service runs begins again in the same file.
fn is_cut(log: &mut File) -> bool {
    match (log.metadata(), log.stream_position()) {
        (Ok(data), Ok(here)) => data.len() < here,
        _ => false,
    }
}

fn is_another(log: &File, path: &Path) -> bool {
    let same = |a: std::fs::Metadata, b: std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    match (log.metadata(), std::fs::metadata(path)) {
        (Ok(log), Ok(now)) => !same(log, now),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_begin_where_they_do() {
        let mut file = tempfile::tempfile().unwrap();
        let mut last = |text: &str, lines: usize| {
            file.set_len(0).unwrap();
            file.rewind().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.rewind().unwrap();
            text[usize::try_from(before_last(&file, lines).unwrap()).unwrap()..].to_owned()
        };
        assert_eq!(last("a\nbb\nccc\n", 2), "bb\nccc\n");
        assert_eq!(last("a\nbb\nccc", 1), "ccc", "without an end of line");
        assert_eq!(last("a\nbb\n", 2), "a\nbb\n");
        assert_eq!(last("a\nbb\n", 9), "a\nbb\n");
        assert_eq!(last("a\n", 0), "");
        assert_eq!(last("", 3), "");
    }
}
