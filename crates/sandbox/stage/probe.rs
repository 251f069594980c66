//! Attempts from inside. Each prints `ok …` or `error ERRNO …`.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs several attempts, separated by `,`.
pub(crate) fn run(words: &[&str]) -> io::Result<ExitCode> {
    for attempt in words.split(|word| *word == ",") {
        match one(attempt) {
            Ok(text) => println!("ok {} {text}", attempt.join(" ")),
            Err(error) => println!("error {} {}", error.raw_os_error().unwrap_or(-1), attempt.join(" ")),
        }
        io::stdout().flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn one(words: &[&str]) -> io::Result<String> {
    match words {
        ["priority"] => Ok(rustix::process::getpriority_process(None)?.to_string()),
        ["pid"] => Ok(std::process::id().to_string()),
        ["uid"] => {
            Ok(format!("{} {}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()))
        }
        ["read", path] => Ok(fs::read_to_string(path)?.split_whitespace().collect::<Vec<_>>().join("_")),
        ["stat", path] => fs::metadata(path).map(|_| String::new()),
        ["write", path] => fs::write(path, "x").map(|()| String::new()),
        ["list", path] => {
            let mut names: Vec<String> = fs::read_dir(path)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<_>>()?;
            names.sort();
            Ok(names.join(" "))
        }
        ["status", field] => {
            let text = fs::read_to_string("/proc/self/status")?;
            let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned()).ok_or_else(|| io::Error::other("no such field"))
        }
        ["fds"] => Ok(open_descriptors()),
        ["clock"] => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            Ok(now.map_err(io::Error::other)?.as_nanos().to_string())
        }
        ["random"] => {
            use std::hash::{BuildHasher, RandomState};
            Ok(RandomState::new().hash_one(1).to_string())
        }
        ["tsc"] => Ok(time_stamp().to_string()),
        ["start", path] => std::process::Command::new(path).spawn().map(|_| String::new()),
        ["thread"] => {
            let thread = std::thread::Builder::new().spawn(|| "ran")?;
            thread.join().map(str::to_owned).map_err(|_| io::Error::other("it panicked"))
        }
        ["heap"] => Ok(format!("{:p}", Box::new(7).as_ref())),
        ["env"] => {
            Ok(std::env::vars().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
        }
        ["host_name"] => Ok(rustix::system::uname().nodename().to_string_lossy().into_owned()),
        ["set_host_name"] => Ok(rustix::system::sethostname(b"changed").map(|()| String::new())?),
        ["packet", number, address] => packet_of(number, address),
        ["connect", address] => TcpStream::connect(address).map(|_| String::new()),
        ["listen", address] => TcpListener::bind(address).map(|_| String::new()),
        ["abstract", name] => {
            UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?).map(|_| String::new())
        }
        ["socket", domain] => {
            let family = rustix::net::AddressFamily::from_raw(domain.parse().map_err(io::Error::other)?);
            Ok(rustix::net::socket(family, rustix::net::SocketType::DGRAM, None).map(|_| String::new())?)
        }
        ["kill", pid] => {
            let pid = rustix::process::Pid::from_raw(pid.parse().map_err(io::Error::other)?);
            Ok(rustix::process::test_kill_process(pid.ok_or(io::ErrorKind::InvalidInput)?)
                .map(|()| String::new())?)
        }
        ["mount"] => {
            let flags = rustix::mount::MountFlags::empty();
            Ok(rustix::mount::mount("none", "/tmp", "tmpfs", flags, None::<&std::ffi::CStr>)
                .map(|()| String::new())?)
        }
        ["message_queue", id] => message_queue(id),
        ["cgroups"] => Ok(fs::read_to_string("/proc/self/cgroup")?.lines().collect::<Vec<_>>().join(" ")),
        ["memory", bytes] => memory(bytes.parse().map_err(io::Error::other)?),
        ["processes", count] => processes(count.parse().map_err(io::Error::other)?),
        ["spin"] => {
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(1) {}
            Ok(String::new())
        }
        ["spin_on"] => loop {
            std::hint::spin_loop();
        },
        ["sleep"] => {
            std::thread::sleep(Duration::from_secs(60));
            Ok(String::new())
        }
        ["open_files"] => {
            let mut files = Vec::new();
            while files.len() < 5000 {
                match fs::File::open("/") {
                    Ok(file) => files.push(file),
                    Err(_) => break,
                }
            }
            Ok(files.len().to_string())
        }
        ["call", number, first] => {
            call(number.parse().map_err(io::Error::other)?, first.parse().map_err(io::Error::other)?)
        }
        ["call32"] => Ok(call_32().to_string()),
        ["stdin"] => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            Ok(text)
        }
        _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// Numbers that are open, without opening any.
fn open_descriptors() -> String {
    let open = |number: &i32| {
        // SAFETY: asks for the flags of a number.
        unsafe { libc::fcntl(*number, libc::F_GETFD) >= 0 }
    };
    (0..4096).filter(open).map(|number| number.to_string()).collect::<Vec<_>>().join(" ")
}

fn call(number: i64, first: u64) -> io::Result<String> {
    // SAFETY: the tests name calls that fail or change nothing when their other arguments are zero.
    let result = unsafe { libc::syscall(number, first, 0, 0, 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result.to_string()) }
}

/// `getpid` through the 32-bit entry of the kernel.
fn call_32() -> u64 {
    let result: u64;
    // SAFETY: call 20 of the i386 table is getpid, which has no arguments; rbx and others are kept by the kernel.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20u64 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result
}

/// Attaches to a System V message queue by its id: visible in the same ipc namespace only.
fn message_queue(id: &str) -> io::Result<String> {
    let id: i32 = id.parse().map_err(io::Error::other)?;
    // SAFETY: msqid_ds is plain data, filled by the kernel.
    let mut state: libc::msqid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the call.
    match unsafe { libc::msgctl(id, libc::IPC_STAT, &raw mut state) } {
        0 => Ok(String::new()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn memory(bytes: usize) -> io::Result<String> {
    let mut held: Vec<Vec<u8>> = Vec::new();
    const STEP: usize = 1 << 20;
    for _ in 0..bytes / STEP {
        let mut part: Vec<u8> = Vec::new();
        part.try_reserve_exact(STEP).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        part.resize(STEP, 1);
        held.push(part);
    }
    Ok(held.len().to_string())
}

/// Forks until it is refused or `count` run.
fn processes(count: usize) -> io::Result<String> {
    let mut children = Vec::new();
    let mut refused = None;
    for _ in 0..count {
        // SAFETY: one thread; the child only waits for its end.
        match unsafe { libc::fork() } {
            0 => loop {
                // SAFETY: no preconditions.
                unsafe { libc::pause() };
            },
            -1 => {
                refused = Some(io::Error::last_os_error());
                break;
            }
            pid => children.push(pid),
        }
    }
    for child in &children {
        // SAFETY: children of this process that nobody has reaped.
        unsafe {
            libc::kill(*child, libc::SIGKILL);
            libc::waitpid(*child, std::ptr::null_mut(), 0);
        }
    }
    refused.map_or(Ok(children.len().to_string()), Err)
}

fn time_stamp() -> u64 {
    // SAFETY: reads a counter of the processor; every x86-64 has it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// What comes out at a descriptor of packets when a datagram is sent there: from whom it is, and to whom.
fn packet_of(number: &str, address: &str) -> io::Result<String> {
    let wrong = |text: &str| io::Error::other(text.to_owned());
    let number = number.parse().map_err(|_| wrong("no number"))?;
    let to: std::net::SocketAddr = address.parse().map_err(|_| wrong("no address"))?;
    let packets = fs::File::from(sandbox::inherited::adopt_descriptor(number)?);
    let socket = std::net::UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.send_to(b"hello", to)?;
    let (from_at, to_at, width) = if to.is_ipv4() { (26, 30, 4) } else { (22, 38, 16) };
    let until = Instant::now() + Duration::from_secs(20);
    let mut buffer = vec![0; 70_000];
    while Instant::now() < until {
        let Ok(length) = (&packets).read(&mut buffer) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let packet = buffer.get(..length).unwrap_or_default();
        if packet.ends_with(b"hello") {
            let part = |at: usize| packet.get(at..at + width).unwrap_or_default();
            return Ok(format!("{:?} {:?}", part(from_at), part(to_at)));
        }
    }
    Err(wrong("nothing came out"))
}
