//! What attempts aim at: things of the same user outside of the sandbox, made for this and removed after it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::calls::call;
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
/// POSSESSOR and USER, everything.
const KEY_RIGHTS: u64 = 0x3f3f_0000;
const PROCESS_KEYRING: u64 = -2i64 as u64;

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
    group: Option<PathBuf>,
    shared_file: PathBuf,
}

impl Canaries {
    /// Makes all that this host and user can have, in a new folder below `parent`. `target` starts the process that
    /// is a canary: this crate's [`super::main`] with [`TARGET`].
    pub fn make(parent: &Path, mut target: Command) -> io::Result<Canaries> {
        let secret = secret()?;
        let folder = parent.join(format!("bailiwick-canaries-{}", std::process::id()));
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o700))?;
        target.env(SECRET_VARIABLE, &secret).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut target = target.spawn()?;
        let address = first_line(&mut target)?;
        let shared_file = PathBuf::from(format!("/dev/shm/bailiwick-canary-{}", std::process::id()));
        let mut names = BTreeMap::new();
        let mut name = |name: &str, value: String| {
            names.insert(name.to_owned(), value);
        };
        let servers = Servers::start(&folder, &secret)?;
        servers.describe(&mut name);
        name("folder", path_text(&folder)?);
        name("process", target.id().to_string());
        name("address", address);
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
        if let Ok((keyring, key)) = keys(&secret) {
            name("keyring", keyring.to_string());
            name("key", key.to_string());
        }
        if fs::write(&shared_file, &secret).is_ok() {
            name("shared_file", path_text(&shared_file)?);
        }
        let group = group();
        if let Some(group) = &group {
            name("group", path_text(group)?);
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
            group,
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
        for (number, id) in [(libc::SYS_shmctl, self.shared_memory), (libc::SYS_msgctl, self.queue)] {
            if let Some(id) = id {
                // SAFETY: removing takes no pointer.
                let _ = unsafe { call(number, [id as u64, libc::IPC_RMID as u64, 0, 0, 0]) };
            }
        }
        if let Some(group) = &self.group {
            let _ = fs::remove_dir(group);
        }
        let _ = fs::remove_file(&self.shared_file);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn path_text(path: &Path) -> io::Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| io::Error::other("the path of a canary is not UTF-8"))
}

fn secret() -> io::Result<String> {
    let mut bytes = [0u8; 12];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold("canary-".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

fn first_line(child: &mut Child) -> io::Result<String> {
    let mut line = String::new();
    let out = child.stdout.take().ok_or_else(|| io::Error::other("the target has no output"))?;
    BufReader::new(out).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// A pseudo-terminal of the maker: its master, and the path of what others would write to.
fn terminal() -> io::Result<(OwnedFd, String)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = ptsname(&master, Vec::new())?;
    Ok((master, path.to_string_lossy().into_owned()))
}

fn shared_memory(secret: &str) -> io::Result<i32> {
    // SAFETY: plain numbers; the attached segment is as long as it was made, which is more than the secret, and is
    // detached before anything else sees it.
    unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, 4096, 0o600 | libc::IPC_CREAT);
        if id < 0 {
            return Err(io::Error::last_os_error());
        }
        let at = libc::shmat(id, std::ptr::null(), 0);
        if at as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        std::ptr::copy_nonoverlapping(secret.as_ptr(), at.cast(), secret.len().min(4096));
        libc::shmdt(at);
        Ok(id)
    }
}

fn queue() -> io::Result<i32> {
    // SAFETY: plain numbers.
    match unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600 | libc::IPC_CREAT) } {
        -1 => Err(io::Error::last_os_error()),
        id => Ok(id),
    }
}

/// A keyring and a key in it, of this process: they go when it goes.
fn keys(secret: &str) -> io::Result<(i64, i64)> {
    let add = |kind: &std::ffi::CStr, name: &std::ffi::CStr, payload: &[u8], into: u64| {
        let arguments =
            [kind.as_ptr() as u64, name.as_ptr() as u64, payload.as_ptr() as u64, payload.len() as u64, into];
        // SAFETY: two C strings and a slice with its length.
        let key = unsafe { call(libc::SYS_add_key, arguments) }?;
        // SAFETY: plain numbers.
        unsafe {
            call(libc::SYS_keyctl, [u64::from(libc::KEYCTL_SETPERM), key as u64, KEY_RIGHTS, 0, 0])?;
        }
        Ok::<i64, io::Error>(key)
    };
    let keyring = add(c"keyring", c"bailiwick-canaries", &[], PROCESS_KEYRING)?;
    Ok((keyring, add(c"user", c"bailiwick-canary", secret.as_bytes(), keyring as u64)?))
}

/// A control group that this user may move processes to.
fn group() -> Option<PathBuf> {
    let detected = cgroup::detect();
    let own = detected.pids.or(detected.memory).map(|controller| controller.own).or(detected.unified)?;
    let group = own.join(format!("bailiwick-canary-{}", std::process::id()));
    fs::create_dir(&group).ok().map(|()| group)
}

/// A program that says who it is, set-uid to somebody else; only root can make one.
fn set_uid_file(folder: &Path) -> Option<PathBuf> {
    let file = folder.join("id");
    fs::copy("/usr/bin/id", &file).ok()?;
    chown(&file, Some(OTHER_UID), None).ok()?;
    fs::set_permissions(&file, PermissionsExt::from_mode(0o4755)).ok()?;
    Some(file)
}

/// The process that is a canary: as open to its own user as a process can be, with the secret in its environment and
/// memory. Ends with whoever made it.
pub(super) fn be_target() -> u8 {
    let secret = std::env::var(SECRET_VARIABLE).unwrap_or_default();
    // Root's other processes cannot look into one with more rights than theirs.
    let _ = sys::set_capabilities(0, 0);
    // SAFETY: plain numbers. Where only ancestors may trace, it lets everybody.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
    println!("{}", secret.as_ptr() as usize);
    let _ = io::stdout().flush();
    let _ = io::stdin().read_to_end(&mut Vec::new());
    drop(secret);
    SUCCEEDED
}
