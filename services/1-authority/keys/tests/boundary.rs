//! The boundary as a real process: what it answers, what it refuses, and what others can see of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, helpers too")]

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base::{Hash, KeyPath};
use keys::boundary::{
    BoundaryClient, ClientError, Inputs, main,
    protocol::{BoundaryState, MESSAGE_BYTES_MAX, Refusal, Request, Response, SecretKind},
};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

/// Set in the child: how it is to behave. `boundary` serves, `scan` looks for leftovers in its own memory.
const ROLE: &str = "BAILIWICK_TEST_BOUNDARY";
const SEALED: &str = "BAILIWICK_TEST_SEALED";
const SECRET: &str = "BAILIWICK_TEST_SECRET";
const LIMIT: Duration = Duration::from_secs(120);

/// Not a test of its own: the body of the child processes below, whose socket is their standard input.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let socket = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned().unwrap();
    let open = |name| std::env::var(name).ok().map(|path| OwnedFd::from(File::open(path).unwrap()));
    let secret = open(SECRET).map(|fd| (SecretKind::KeyFile, fd));
    let inputs = Inputs { socket, sealed: open(SEALED), secret, next: None, unlock: None, words: None };
    let ended = main(inputs);
    let code = match role.as_str() {
        "boundary" => u8::from(ended.is_err()),
        _ => {
            // Root may read its own memory although it is not dumpable; others are made dumpable again for the look.
            let dumpable = rustix::process::DumpableBehavior::Dumpable;
            rustix::process::set_dumpable_behavior(dumpable).unwrap();
            2 + leftovers()
        }
    };
    std::process::exit(code.into());
}

struct Boundary {
    child: Child,
    client: BoundaryClient,
    raw: OwnedFd,
}

impl Drop for Boundary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Boundary {
    fn start(role: &str, sealed: Option<&std::path::Path>, secret: Option<&std::path::Path>) -> Self {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(ROLE, role);
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        for (name, path) in [(SEALED, sealed), (SECRET, secret)] {
            if let Some(path) = path {
                command.env(name, path);
            }
        }
        let child = command.spawn().unwrap();
        let timeout = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(&ours, timeout, Some(LIMIT)).unwrap();
        Self { child, raw: ours.try_clone().unwrap(), client: BoundaryClient::new(ours) }
    }

    /// Closes the socket and waits for the end.
    fn end(mut self) -> i32 {
        let (unused, _) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        self.client = BoundaryClient::new(unused.try_clone().unwrap());
        self.raw = unused;
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(start.elapsed() < LIMIT, "the boundary did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn path(text: &str) -> KeyPath {
    KeyPath::parse(text).unwrap()
}

fn key_file(folder: &std::path::Path, byte: u8) -> std::path::PathBuf {
    let name = folder.join(format!("key-{byte}"));
    std::fs::write(&name, [byte; 32]).unwrap();
    name
}

/// covers: KEY-17, KEY-25
#[test]
fn a_seed_survives_its_process_and_its_keys_sign() {
    let folder = tempfile::tempdir().unwrap();
    let key = key_file(folder.path(), 1);
    let mut first = Boundary::start("boundary", None, Some(&key));
    let sealed = first.client.create(SecretKind::KeyFile).unwrap();
    let file = folder.path().join("seed.sealed");
    std::fs::write(&file, &sealed).unwrap();
    let alice = path("/orbital/users/alice");
    let (signature, public) = first.client.sign(&alice, Hash([7; 32])).unwrap();
    assert_eq!(keys::core::verify(&public, &[7; 32], &signature), Ok(true));
    let refused = first.client.sign_bytes(&alice.child("@ssh").unwrap(), &[7; 32]);
    assert!(matches!(refused, Err(ClientError::Refused(Refusal::Purpose(_)))), "{refused:?}");
    assert_eq!(first.end(), 0);

    let mut second = Boundary::start("boundary", Some(&file), Some(&key));
    assert_eq!(second.client.public_key(&alice), Ok(public));
    assert_eq!(second.end(), 0);

    let wrong = key_file(folder.path(), 2);
    let mut third = Boundary::start("boundary", Some(&file), Some(&wrong));
    assert_eq!(third.client.public_key(&alice), Err(ClientError::Refused(Refusal::Locked)));
    let status = third.client.ask(&Request::Status).unwrap();
    assert!(matches!(status, Response::Status { state: BoundaryState::Locked { .. }, .. }), "{status:?}");
}

#[test]
fn a_malformed_request_ends_the_connection_with_an_error() {
    for message in [&b"\xff"[..], b"\x82\x05\x80", &[0x80; MESSAGE_BYTES_MAX + 1]] {
        let folder = tempfile::tempdir().unwrap();
        let mut boundary = Boundary::start("boundary", None, Some(&key_file(folder.path(), 1)));
        boundary.client.ask(&Request::Status).unwrap();
        send(&boundary.raw, message, SendFlags::NOSIGNAL).unwrap();
        let mut buffer = [0; 512];
        let (_, bytes) =
            rustix::net::recv(&boundary.raw, &mut buffer[..], rustix::net::RecvFlags::empty()).unwrap();
        let answer = Response::from_bytes(&buffer[..bytes]).unwrap();
        assert!(matches!(answer, Response::Refused(Refusal::Malformed(_))), "{answer:?}");
        assert_eq!(boundary.client.ask(&Request::Status), Err(ClientError::Gone));
        // 1: an error of the boundary, not 101, a panic.
        assert_eq!(boundary.end(), 1);
    }
}

/// covers: KEY-18, KEY-33
#[test]
fn other_processes_cannot_look_in_and_no_core_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut boundary = Boundary::start("boundary", None, Some(&key_file(folder.path(), 1)));
    boundary.client.create(SecretKind::KeyFile).unwrap();
    let pid = boundary.child.id();
    // A property of the thread, and the test harness runs the boundary in one of its own.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let has_no_new_privs = |thread: std::io::Result<std::fs::DirEntry>| {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        status.lines().any(|line| line == "NoNewPrivs:\t1")
    };
    assert_eq!(threads.map(has_no_new_privs).filter(|has| *has).count(), 1);
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    // A process that is not dumpable belongs to root in /proc, so its own user cannot open its memory.
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{pid}/maps")).unwrap());
    assert_eq!(owner, 0);
    if !rustix::process::geteuid().is_root() {
        let refused = File::open(format!("/proc/{pid}/mem")).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    }
}

/// covers: KEY-22
#[test]
fn after_many_operations_no_seed_or_key_is_left_outside_the_secret_pages() {
    let folder = tempfile::tempdir().unwrap();
    // A file of the fixed seed, sealed by a key file of 1s (made once by `crates/seal`).
    let sealed = folder.path().join("seed.sealed");
    std::fs::write(&sealed, include_bytes!("../../../../crates/seal/src/counting-seed.sealed")).unwrap();
    let mut boundary = Boundary::start("scan", Some(&sealed), Some(&key_file(folder.path(), 1)));
    let alice = path("/orbital/users/alice/signing");
    for n in 0..50 {
        let (_, public) = boundary.client.sign(&alice, Hash([n; 32])).unwrap();
        assert_eq!(public.to_string(), "88848f5b82a818a92c943b4ddd79320df2d5689ab0fcfc6fd7f6359844c757c5");
    }
    assert_eq!(boundary.end(), 2, "2 + one for each secret found, 100 when the control was missed");
}

/// Prints what a signature costs its caller: `cargo test -p keys --release -- --ignored --nocapture cost`.
#[test]
#[ignore = "a measurement, not a check"]
fn cost_of_a_signature() {
    const TIMES: u32 = 2000;
    let folder = tempfile::tempdir().unwrap();
    let mut boundary = Boundary::start("boundary", None, Some(&key_file(folder.path(), 1)));
    boundary.client.create(SecretKind::KeyFile).unwrap();
    let alice = path("/orbital/users/alice/signing");
    let start = Instant::now();
    for _ in 0..TIMES {
        boundary.client.sign(&alice, Hash([7; 32])).unwrap();
    }
    println!("sign through the boundary: {:?}", start.elapsed() / TIMES);
}

/// What must not be found, each byte inverted so that this table is not found itself: the seed of the fixed vectors,
/// its master key, a derived key, and the sealing secret. Values as in the vectors of `core::derive`.
fn needles() -> [[u8; 32]; 4] {
    let mut seed = [0; 32];
    seed.iter_mut().zip(0_u8..).for_each(|(byte, n)| *byte = !n);
    let inverted = |text: &str| {
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = !u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
        bytes
    };
    [
        seed,
        inverted("7329de67323304d91ba55164511df4095e265a6cef9a9a13ea64aaf4794ac02d"),
        inverted("50033988fb909cba476414414fdec72fb6e8bfd4f547b61f52ee8f0423b4f08c"),
        [!1; 32],
    ]
}

/// How many of the needles are found in this process's memory; 98 more if a value that is there is not found.
fn leftovers() -> u8 {
    let control: Vec<u8> = (0..32).map(|n| n ^ 0xc3).collect();
    let mut inverted_control = [0; 32];
    inverted_control.iter_mut().zip(&control).for_each(|(byte, c)| *byte = !c);
    let mut wanted = needles().to_vec();
    wanted.push(inverted_control);
    let mut found = vec![false; wanted.len()];
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut memory = File::open("/proc/self/mem").unwrap();
    let mut buffer = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|bits| bits.starts_with("rw")))
    {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        // The secret pages lie between guard pages and cannot be read here when they are hidden from the kernel.
        buffer.resize((to - from) as usize, 0);
        if memory.seek(SeekFrom::Start(from)).is_err() || memory.read_exact(&mut buffer).is_err() {
            continue;
        }
        for (needle, found) in wanted.iter().zip(&mut found) {
            *found |= buffer.windows(32).any(|window| window.iter().zip(needle).all(|(a, b)| *a == !*b));
        }
        // The buffer is writable memory as well: what was copied must not be found in it again.
        buffer.fill(0);
    }
    std::hint::black_box(&control);
    let missed_control = !found.pop().unwrap();
    std::io::stderr().flush().unwrap();
    found.iter().map(|found| u8::from(*found)).sum::<u8>() + if missed_control { 98 } else { 0 }
}
