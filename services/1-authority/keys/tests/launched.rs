//! The boundary under its launcher, as on a node: alone at first boot, then with its filter and namespaces, for both
//! kinds of user. This program is also the boundary itself.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers too")]

use std::{
    fs::File,
    io::Write,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use base::{Hash, KeyPath};
use keys::boundary::{
    BoundaryClient,
    protocol::{BoundaryState, Request, Response, SecretKind},
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use sandbox::{
    Descriptor, Executable, Features, Guard, GuardSet, Identity, Launched, Namespaces, Plan,
    process::{ExitStatus, reap},
    seccomp::Profile,
};

const NOBODY: u32 = 65534;
const LIMIT: Duration = Duration::from_secs(60);
const TESTS: [(&str, fn()); 3] = [
    ("the_boundary_works_under_the_launchers_filter", under_the_filter),
    ("the_boundary_works_for_an_ordinary_user", for_an_ordinary_user),
    ("the_boundary_refuses_other_inputs", refuses_other_inputs),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words == ["process", "boundary"] {
        return keys::boundary::run();
    }
    if words == ["scenario"] {
        scenario();
        return ExitCode::SUCCESS;
    }
    if words.contains(&"--list") {
        let ignored = words.contains(&"--ignored");
        TESTS.iter().filter(|_| !ignored).for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let named = words.iter().find(|word| !word.starts_with('-'));
    for (name, test) in TESTS.iter().filter(|(name, _)| named.is_none_or(|named| named == name)) {
        test();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

/// Shows KEY-17 and KEY-33; a test without the usual harness carries no mark.
fn under_the_filter() {
    scenario();
}

fn for_an_ordinary_user() {
    if rustix::process::geteuid().is_root() {
        let status = Command::new(std::env::current_exe().unwrap())
            .arg("scenario")
            .uid(NOBODY)
            .gid(NOBODY)
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
    } else {
        scenario();
    }
}

fn refuses_other_inputs() {
    let run = |fds: Option<&str>| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["process", "boundary"]).env_remove("BAILIWICK_FDS");
        command.envs(fds.map(|fds| ("BAILIWICK_FDS", fds)));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for fds in [None, Some(""), Some("boundary=200"), Some("boundary=1"), Some("admin=3")] {
        let (code, text) = run(fds);
        assert_eq!(code, Some(2), "{fds:?}");
        assert!(text.starts_with("key boundary: "), "{text}");
    }
}

/// First boot without a filter, later starts with one: the same keys.
fn scenario() {
    let folder = tempfile::tempdir().unwrap();
    let key = file(folder.path(), "seal.key", &[7; 32]);
    let path = KeyPath::parse("/orbital/users/alice").unwrap();

    let mut first = Boundary::start(None, (SecretKind::KeyFile, &key), false);
    let sealed = first.client.create(SecretKind::KeyFile).unwrap();
    let public = first.client.public_key(&path).unwrap();
    first.ends_with(0);

    let sealed = file(folder.path(), "seed.sealed", &sealed);
    let mut later = Boundary::start(Some(&sealed), (SecretKind::KeyFile, &key), true);
    assert_eq!(later.client.public_key(&path), Ok(public));
    let (signature, signer) = later.client.sign(&path, Hash([5; 32])).unwrap();
    assert_eq!(signer, public);
    assert_eq!(keys::core::verify(&public, &[5; 32], &signature), Ok(true));
    later.ends_with(0);

    // The passphrase costs memory and time: whatever stretching needs must pass the filter too.
    let words = file(folder.path(), "words", b"correct horse battery staple\n");
    let mut stretched = Boundary::start(None, (SecretKind::Passphrase, &words), true);
    let sealed = stretched.client.create(SecretKind::Passphrase).unwrap();
    stretched.ends_with(0);
    let sealed = file(folder.path(), "seed.sealed", &sealed);
    let mut opened = Boundary::start(Some(&sealed), (SecretKind::Passphrase, &words), true);
    let status = opened.client.ask(&Request::Status).unwrap();
    assert!(matches!(status, Response::Status { state: BoundaryState::Ready, .. }), "{status:?}");
    opened.ends_with(0);

    // What cannot be read as a question ends it with an error, not with a panic or by the filter.
    let wrong = Boundary::start(None, (SecretKind::KeyFile, &key), true);
    rustix::net::send(&wrong.raw, b"\xff", rustix::net::SendFlags::NOSIGNAL).unwrap();
    wrong.ends_with(3);
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    File::create(&path).unwrap().write_all(bytes).unwrap();
    path
}

struct Boundary {
    launched: Launched,
    client: BoundaryClient,
    raw: OwnedFd,
}

impl Boundary {
    fn start(sealed: Option<&Path>, (kind, secret): (SecretKind, &Path), filtered: bool) -> Self {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(LIMIT)).unwrap();
        let open = |path: &Path| OwnedFd::from(File::open(path).unwrap());
        let null = || open(Path::new("/dev/null"));
        let errors = rustix::io::dup(std::io::stderr()).unwrap();
        let mut slots =
            vec![open(&std::env::current_exe().unwrap()), null(), null(), errors, theirs, open(secret)];
        let mut tokens = format!("boundary=3,secret:{}=4", kind.name());
        if let Some(sealed) = sealed {
            slots.push(open(sealed));
            tokens.push_str(",sealed=5");
        }
        let mut plan = Plan::new("keys_boundary", Executable::Slot(0), Profile::Boundary);
        plan.arguments = ["bailiwick", "process", "boundary"].map(str::to_owned).to_vec();
        plan.environment = vec![("BAILIWICK_FDS".to_owned(), tokens)];
        plan.descriptors =
            (1..).take(slots.len() - 1).map(|slot| Descriptor { slot, target: slot - 1 }).collect();
        if filtered {
            let host = rustix::process::geteuid().is_root().then_some(NOBODY);
            plan.identity = Identity { uid: 1000, gid: 1000, host_uid: host, host_gid: host };
        } else {
            plan.namespaces = Namespaces { mount: false, pid: false, ..Namespaces::ALL };
            (plan.landlock, plan.seccomp) = (None, None);
            plan.required = GuardSet::of(&[Guard::NoNewPrivs, Guard::Caps]);
        }
        let launched = sandbox::launch(&plan, &slots, &Features::detect(), None).unwrap();
        Self { launched, raw: ours.try_clone().unwrap(), client: BoundaryClient::new(ours) }
    }

    /// Closes the socket and waits for the end.
    fn ends_with(self, code: i32) {
        let Self { launched, client, raw } = self;
        drop((client, raw));
        let start = Instant::now();
        loop {
            match reap().unwrap() {
                Some(reaped) if reaped.pid == launched.pid => {
                    assert!(
                        matches!(reaped.status, ExitStatus::Code(found) if found == code),
                        "{:?}",
                        reaped.status
                    );
                    return;
                }
                Some(_) => {}
                None if start.elapsed() > LIMIT => panic!("the boundary did not end"),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}
