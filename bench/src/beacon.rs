//! Where services say that they are there.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The last one of each name.
#[derive(Debug)]
struct Here {
    pid: i32,
    at: Instant,
    /// Open until the bench lets go of it: then the service ends.
    _stream: UnixStream,
}

#[derive(Debug, Default)]
struct Shared {
    here: Mutex<HashMap<String, Here>>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Here>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens as long as it is there.
#[derive(Debug)]
pub(crate) struct Beacon {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Beacon {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let listener = UnixListener::bind(path).with_context(|| format!("binding {}", path.display()))?;
        // Services of ours have uids of their own.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
            .context("opening the socket to all")?;
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("beacon".into())
            .spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    // The socket is gone once the beacon ends: its own connection says so.
                    if listen(&own, stream).is_none() {
                        return;
                    }
                }
            })
            .context("starting a thread")?;
        Ok(Self { path: path.to_owned(), shared, thread: Some(thread) })
    }

    /// The moment at which the last of these names was there.
    pub(crate) fn wait_for(&self, names: &[String], limit: Duration) -> Result<Instant> {
        let found = self.wait(limit, |here| {
            let all: Option<Vec<Instant>> =
                names.iter().map(|name| here.get(name).map(|one| one.at)).collect();
            all.and_then(|all| all.into_iter().max())
        });
        let there = self.shared.lock().len();
        found.with_context(|| format!("{there} of {} services are there", names.len()))
    }

    /// The moment at which another process than `pid` was there under this name.
    pub(crate) fn wait_for_next(&self, name: &str, pid: i32, limit: Duration) -> Result<Instant> {
        let next =
            |here: &HashMap<String, Here>| here.get(name).filter(|one| one.pid != pid).map(|one| one.at);
        self.wait(limit, next).with_context(|| format!("{name} was not started again"))
    }

    /// Nobody is there until it says so again.
    pub(crate) fn forget(&self) {
        self.shared.lock().clear();
    }

    pub(crate) fn pid(&self, name: &str) -> Option<i32> {
        self.shared.lock().get(name).map(|one| one.pid)
    }

    fn wait<T>(&self, limit: Duration, look: impl Fn(&HashMap<String, Here>) -> Option<T>) -> Result<T> {
        let since = Instant::now();
        let mut here = self.shared.lock();
        loop {
            if let Some(found) = look(&here) {
                return Ok(found);
            }
            let Some(left) = limit.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) else {
                bail!("not within {} s", limit.as_secs())
            };
            here = self.shared.changed.wait_timeout(here, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// None when the beacon itself called.
fn listen(shared: &Shared, stream: UnixStream) -> Option<()> {
    let at = Instant::now();
    let mut name = String::new();
    let read = BufReader::new(&stream).read_line(&mut name);
    let credentials = rustix::net::sockopt::socket_peercred(&stream);
    if let (Ok(bytes), Ok(credentials)) = (read, credentials) {
        if bytes == 0 && credentials.pid == rustix::process::getpid() {
            return None;
        }
        let pid = credentials.pid.as_raw_nonzero().get();
        let name = name.trim_end().to_owned();
        shared.lock().insert(name, Here { pid, at, _stream: stream });
        shared.changed.notify_all();
    }
    Some(())
}

impl Drop for Beacon {
    fn drop(&mut self) {
        // The file first: what is started from now on finds nobody.
        let listening = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
        drop(listening);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
