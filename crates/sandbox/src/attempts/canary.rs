//! What attempts aim at: things of the same user outside of the sandbox, made for this and removed after it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::calls::call;
use super::making::{
    first_line, group, handle_of, keys, message_queue, program, queue, secret, semaphore, set_uid_file,
    shared_memory, terminal,
};
use super::servers::Servers;
use super::{Failure, SUCCEEDED};
use crate::cgroup;
use crate::sys;

/// The name of the process that is a canary, where an attempt's name stands otherwise.
pub const TARGET: &str = "be-the-target";
/// The variable in its environment.
pub(super) const SECRET_VARIABLE: &str = "BAILIWICK_SECRET";
/// Whom a set-uid file belongs to; no user of any host.
pub(super) const OTHER_UID: u32 = 65533;

/// Where everything is, by name. For an attempt this is all; for whoever made them see [`Made`].
#[derive(Debug, Default)]
pub struct Canaries {
    names: BTreeMap<String, String>,
    made: Option<Made>,
}

#[derive(Debug)]
struct Made {
    folder: PathBuf,
    /// Ends when its standard input closes.
    target: Child,
    _servers: Servers,
    _terminal: Option<OwnedFd>,
    shared_memory: Option<i32>,
    queue: Option<i32>,
    semaphore: Option<i32>,
    message_queue: Option<CString>,
    groups: Vec<PathBuf>,
    shared_file: PathBuf,
}

/// One process may make canaries more than once.
static MADE: AtomicU32 = AtomicU32::new(0);

impl Canaries {
    /// Makes all that this host and user can have, in a new folder below `parent`. `target` starts the process that
    /// is a canary: this crate's [`super::main`] with [`TARGET`].
    pub fn make(parent: &Path, mut target: Command) -> io::Result<Canaries> {
        let secret = secret()?;
        let mark = format!("{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let folder = parent.join(format!("bailiwick-canaries-{mark}"));
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o700))?;
        fs::write(folder.join("secret"), &secret)?;
        program(&folder.join("program"), &secret)?;
        target.current_dir(&folder);
        target.env(SECRET_VARIABLE, &secret).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut target = target.spawn()?;
        let said = first_line(&mut target)?;
        let (address, descriptor) = said.split_once(' ').unwrap_or_default();
        let shared_file = PathBuf::from(format!("/dev/shm/bailiwick-canary-{mark}"));
        let mut names = BTreeMap::new();
        let mut name = |name: &str, value: String| {
            names.insert(name.to_owned(), value);
        };
        let servers = Servers::start(&folder, &secret)?;
        servers.describe(&mut name);
        name("folder", path_text(&folder)?);
        name("process", target.id().to_string());
        name("address", address.to_owned());
        name("descriptor", descriptor.to_owned());
        if let Ok(handle) = handle_of(&folder.join("secret")) {
            name("handle", handle.iter().map(|byte| format!("{byte:02x}")).collect());
            name("disk", fs::metadata(folder.join("secret"))?.dev().to_string());
        }
        name("uid", rustix::process::getuid().as_raw().to_string());
        name("host_name", rustix::system::uname().nodename().to_string_lossy().into_owned());
        let terminal = terminal().ok();
        if let Some((_, path)) = &terminal {
            name("terminal", path.clone());
        }
        let shared_memory = shared_memory(&secret).ok();
        shared_memory.iter().for_each(|id| name("shared_memory", id.to_string()));
        let queue = queue().ok();
        queue.iter().for_each(|id| name("queue", id.to_string()));
        let semaphore = semaphore().ok();
        semaphore.iter().for_each(|id| name("semaphore", id.to_string()));
        let message_queue = message_queue(&mark).ok();
        message_queue.iter().for_each(|queue| name("message_queue", queue.to_string_lossy().into_owned()));
        if let Ok((keyring, key)) = keys(&secret) {
            name("keyring", keyring.to_string());
            name("key", key.to_string());
        }
        if fs::write(&shared_file, &secret).is_ok() {
            name("shared_file", path_text(&shared_file)?);
        }
        let detected = cgroup::detect();
        let limiting = detected.pids.or(detected.memory).map(|controller| controller.own);
        let unified = detected.unified.and_then(|own| group(&own, &mark));
        let limiting = limiting.and_then(|own| group(&own, &mark)).or_else(|| unified.clone());
        if let Some(group) = &limiting {
            name("group", path_text(group)?);
        }
        if let Some(group) = &unified {
            name("unified_group", path_text(group)?);
        }
        if let Some(file) = set_uid_file(&folder) {
            name("set_uid_file", path_text(&file)?);
        }
        name("secret", secret);
        let made = Made {
            folder,
            target,
            _servers: servers,
            _terminal: terminal.map(|(fd, _)| fd),
            shared_memory,
            queue,
            semaphore,
            message_queue,
            groups: limiting.into_iter().chain(unified).collect(),
            shared_file,
        };
        let canaries = Canaries { names, made: Some(made) };
        canaries.refresh()?;
        Ok(canaries)
    }

    /// Makes good again what an attempt that succeeded has changed.
    pub fn refresh(&self) -> io::Result<()> {
        let (Some(made), Ok(secret)) = (&self.made, self.get("secret")) else { return Ok(()) };
        for file in FILES {
            let path = made.folder.join(file);
            let mut options = fs::OpenOptions::new();
            options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(FILE_MODE)
                .open(&path)?
                .write_all(secret.as_bytes())?;
            fs::set_permissions(&path, PermissionsExt::from_mode(FILE_MODE))?;
        }
        Ok(())
    }

    /// What of the canaries was changed or taken from outside of an attempt's own word; `None` when nothing was.
    #[must_use]
    pub fn harm(&self) -> Option<String> {
        let (Some(made), Ok(secret)) = (&self.made, self.get("secret")) else { return None };
        for file in FILES {
            let path = made.folder.join(file);
            if fs::read(&path).ok().as_deref() != Some(secret.as_bytes()) {
                return Some(format!("the canary {} was changed", path.display()));
            }
            let mode = fs::metadata(&path).map(|data| data.permissions().mode() & 0o7777);
            if mode.ok() != Some(FILE_MODE) {
                return Some(format!("the mode of the canary {} was changed", path.display()));
            }
        }
        let visits = made._servers.take_visits();
        (visits > 0).then(|| format!("{visits} messages reached the servers that are canaries"))
    }

    /// The text for [`super::CANARY_VARIABLE`].
    #[must_use]
    pub fn text(&self) -> String {
        self.names.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    #[must_use]
    pub fn parse(text: &str) -> Canaries {
        let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Canaries { names: text.lines().filter_map(pair).collect(), made: None }
    }

    pub(super) fn get(&self, name: &'static str) -> Result<&str, Failure> {
        self.names.get(name).map(String::as_str).ok_or(Failure::Absent(name))
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, Failure> {
        self.get(name)?.parse().map_err(|_| Failure::Broken(format!("the canary {name:?} is no number")))
    }

    /// Bytes that stand there as two digits each.
    pub(super) fn bytes(&self, name: &'static str) -> Result<Vec<u8>, Failure> {
        let digits = self.get(name)?.as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        bytes.ok_or_else(|| Failure::Broken(format!("the canary {name:?} is no bytes")))
    }

    /// A file of the canaries' folder.
    pub(super) fn file(&self, file: &str) -> Result<PathBuf, Failure> {
        Ok(Path::new(self.get("folder")?).join(file))
    }
}

/// Files of the folder: one to read, one to write to, one to delete, one whose mode is to be changed.
const FILES: [&str; 4] = ["secret", "written", "victim", "mode"];
const FILE_MODE: u32 = 0o600;

impl Drop for Made {
    fn drop(&mut self) {
        drop(self.target.stdin.take());
        // Only when it does not end by itself; this handle is not reaped, so the number is its own.
        let _ = self.target.kill();
        let _ = self.target.wait();
        // What is removed stands second, but for semaphores third.
        let remove = libc::IPC_RMID as u64;
        for (number, id, arguments) in [
            (libc::SYS_shmctl, self.shared_memory, [remove, 0]),
            (libc::SYS_msgctl, self.queue, [remove, 0]),
            (libc::SYS_semctl, self.semaphore, [0, remove]),
        ] {
            let [second, third] = arguments;
            if let Some(id) = id {
                // SAFETY: removing takes no pointer.
                let _ = unsafe { call(number, [id as u64, second, third, 0, 0]) };
            }
        }
        if let Some(queue) = &self.message_queue {
            // SAFETY: a C string.
            unsafe { libc::mq_unlink(queue.as_ptr()) };
        }
        for group in &self.groups {
            let _ = fs::remove_dir(group);
        }
        let _ = fs::remove_file(&self.shared_file);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn path_text(path: &Path) -> io::Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| io::Error::other("the path of a canary is not UTF-8"))
}

/// The process that is a canary: as open to its own user as a process can be, with the secret in its environment and
/// memory. Ends with whoever made it.
pub(super) fn be_target() -> u8 {
    let secret = std::env::var(SECRET_VARIABLE).unwrap_or_default();
    // Root's other processes cannot look into one with more rights than theirs.
    let _ = sys::set_capabilities(0, 0);
    // SAFETY: plain numbers. Where only ancestors may trace, it lets everybody.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
    let file = memory_file(&secret);
    println!("{} {}", secret.as_ptr() as usize, file.as_ref().map_or(-1, AsRawFd::as_raw_fd));
    let _ = io::stdout().flush();
    let _ = io::stdin().read_to_end(&mut Vec::new());
    drop((secret, file));
    SUCCEEDED
}

/// A file without a name, which only a descriptor of the process leads to.
fn memory_file(secret: &str) -> io::Result<fs::File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = fs::File::from(rustix::fs::memfd_create("bailiwick-canary", flags)?);
    file.write_all(secret.as_bytes())?;
    Ok(file)
}
