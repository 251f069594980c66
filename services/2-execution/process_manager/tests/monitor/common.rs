//! A keeper, and a program under its monitor.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use base::{Hash, cbor};
use contracts::process_manager::v1 as pb;
use process_manager::{
    core::{Execution, Host, Spawn, plans},
    monitor::protocol::{Config, Ended, Reply, Request, Status, Stream, frame, next_frame},
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use sandbox::{
    Guard, StartToken,
    fdpass::Channel,
    keeper_protocol::{Client, Reply as KeeperReply, Request as KeeperRequest},
};

pub(crate) const NOBODY: u32 = 65534;
/// Everything here ends long before; a test that hangs must not.
const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    Root,
    Nobody,
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Both keepers where the tests run as root, else the one there is.
pub(crate) fn keepers() -> &'static [As] {
    if is_root() { &[As::Root, As::Nobody] } else { &[As::Nobody] }
}

/// One keeper and one folder; both go with it.
pub(crate) struct House {
    keeper: Child,
    client: Option<Client>,
    folder: tempfile::TempDir,
}

impl House {
    pub(crate) fn new(who: As) -> Self {
        let folder = tempfile::Builder::new().prefix("pm").tempdir_in("/tmp").unwrap();
        std::fs::create_dir(folder.path().join("images")).unwrap();
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = OwnedFd::from(theirs);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec 3<&0 0</dev/null; exec \"$0\" keeper 3", stage()]);
        if who == As::Nobody && is_root() {
            own(folder.path());
            own(&folder.path().join("images"));
            command.uid(NOBODY).gid(NOBODY);
        }
        let keeper = command.stdin(Stdio::from(theirs)).spawn().unwrap();
        // What it inherited is closed here too.
        drop(command);
        let mut client = Client::new(ours);
        rustix::net::sockopt::set_socket_timeout(
            client.as_fd(),
            rustix::net::sockopt::Timeout::Recv,
            Some(TIMEOUT),
        )
        .unwrap();
        client.hello(1).unwrap();
        Self { keeper, client: Some(client), folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn client(&mut self) -> &mut Client {
        self.client.as_mut().unwrap()
    }

    /// Puts an image and describes a run of it; `name` and `args` as a caller would give them.
    pub(crate) fn request(&self, image: &[u8], name: &str, args: &[&str]) -> pb::SpawnRequest {
        let hash = Hash::of(image);
        let path = self.folder.path().join(format!("images/blake3-{}", hash.to_hex()));
        if !path.exists() {
            std::fs::write(&path, image).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
        }
        pb::SpawnRequest {
            image: hash.0.to_vec(),
            identity: vec![2; 32],
            idempotency_key: vec![3; 16],
            name: name.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            notice_refused: true,
            ..pb::SpawnRequest::default()
        }
    }

    /// A shell script.
    pub(crate) fn script(&self, text: &str) -> pb::SpawnRequest {
        self.request(format!("#!/bin/sh\n{text}\n").as_bytes(), "script", &[])
    }

    /// Launches a monitor that holds the program.
    pub(crate) fn hold(&mut self, id: u64, request: pb::SpawnRequest) -> Held {
        let all: Vec<String> = Guard::ALL.iter().map(|guard| guard.name().to_owned()).collect();
        let spawn = Spawn::parse(request, &all).unwrap();
        let images = self.path().join("images");
        let host = Host {
            images: images.to_str().unwrap().to_owned(),
            hidden: Vec::new(),
            monitor: ["bailiwick", "process", "monitor"].map(str::to_owned).to_vec(),
        };
        let plans = plans(&spawn, &host, base::ProcessId(id));
        let config = Config {
            plan: plans.program.clone(),
            watch: plans.watch.clone(),
            image_path: plans.image_path.clone(),
            timeout_ms: spawn.timeout_ms,
            cpu_time_ms: spawn.limits.cpu_time_ms,
            own_network: true,
            output_bytes_max: 256 * 1024,
            terminal: spawn.terminal,
            layers_bytes_max: None,
            fixed: None,
            calls_pass: false,
            outputs: Vec::new(),
            way_out: false,
            datagrams: false,
            proxy: false,
            outputs_bytes_max: 0,
            learn: false,
        };
        let folder = self.path().join(id.to_string());
        std::fs::create_dir(&folder).unwrap();
        let output = |name: &str| {
            OpenOptions::new().read(true).write(true).create_new(true).open(folder.join(name)).unwrap()
        };
        let slots: Vec<OwnedFd> = vec![
            File::open(stage()).unwrap().into(),
            memory(&cbor::encode(&config)),
            UnixListener::bind(folder.join("control.sock")).unwrap().into(),
            File::open(images.join(format!("blake3-{}", spawn.image.to_hex()))).unwrap().into(),
            output("stdout").into(),
            output("stderr").into(),
            std::io::stderr().as_fd().try_clone_to_owned().unwrap(),
        ];
        let fds: Vec<_> = slots.iter().map(AsFd::as_fd).collect();
        self.client().launch(id, &plans.monitor, Vec::new(), &fds).unwrap();
        let socket = folder.join("control.sock");
        match self.client().receive().unwrap().0 {
            KeeperReply::Launched { pid, .. } => Held { socket, pid },
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn acknowledge(&mut self, id: u64) {
        self.client().send(&KeeperRequest::Ack(id), &[]).unwrap();
        assert_eq!(self.client().receive().unwrap().0, KeeperReply::Acked);
    }

    /// Runs to the end: standard output, how it ended.
    pub(crate) fn run(&mut self, id: u64, request: pb::SpawnRequest) -> (String, Ended) {
        let held = self.hold(id, request);
        let mut control = held.connect();
        assert_eq!(control.call(&Request::Release), Reply::Started);
        let text = control.read_all(Stream::Stdout);
        let errors = control.read_all(Stream::Stderr);
        let ended = control.wait();
        control.call(&Request::Acknowledge);
        assert!(matches!(self.client().receive().unwrap().0, KeeperReply::Exited { .. }));
        self.acknowledge(id);
        (text + &errors, ended)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // The stage ends everything when its channel closes.
        self.client = None;
        let _ = self.keeper.wait();
    }
}

fn stage() -> &'static str {
    env!("CARGO_BIN_EXE_process_stage")
}

fn own(path: &Path) {
    std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

fn memory(bytes: &[u8]) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file.into()
}

/// A launched monitor.
pub(crate) struct Held {
    pub(crate) socket: PathBuf,
    pub(crate) pid: i32,
}

impl Held {
    pub(crate) fn connect(&self) -> Control {
        let socket = UnixStream::connect(&self.socket).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Control { socket, input: Vec::new(), id: 0 }
    }
}

pub(crate) struct Control {
    socket: UnixStream,
    input: Vec<u8>,
    id: u64,
}

impl Control {
    pub(crate) fn call(&mut self, request: &Request) -> Reply {
        self.id += 1;
        self.socket.write_all(&frame(self.id, request)).unwrap();
        self.reply(self.id)
    }

    /// Sends a command with the token of whoever waits for it, and does not wait.
    pub(crate) fn ask(&mut self, execution: &Execution) -> StartToken {
        let (token, theirs) = StartToken::new().unwrap();
        self.id += 1;
        let bytes = frame(self.id, &Request::Execute(execution.clone()));
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [theirs.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let parts = [std::io::IoSlice::new(&bytes)];
        let sent = rustix::net::sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL).unwrap();
        self.socket.write_all(&bytes[sent..]).unwrap();
        token
    }

    pub(crate) fn answer(&mut self) -> Reply {
        self.reply(self.id)
    }

    /// One that is waited for.
    pub(crate) fn execute(&mut self, execution: &Execution) -> Reply {
        let _token = self.ask(execution);
        self.answer()
    }

    fn reply(&mut self, id: u64) -> Reply {
        let mut buffer = [0; 4096];
        loop {
            if let Some((of, reply)) = next_frame::<Reply>(&mut self.input).unwrap() {
                assert_eq!(of, id);
                return reply;
            }
            let read = self.socket.read(&mut buffer).unwrap();
            assert!(read > 0, "the monitor closed the connection");
            self.input.extend(&buffer[..read]);
        }
    }

    pub(crate) fn status(&mut self) -> Status {
        match self.call(&Request::Status) {
            Reply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn read(&mut self, stream: Stream, offset: u64) -> (u64, Vec<u8>, bool) {
        match self.call(&Request::Read { stream, offset }) {
            Reply::Output { offset, data, end } => (offset, data, end),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn read_all(&mut self, stream: Stream) -> String {
        let (mut text, mut offset) = (Vec::new(), 0);
        loop {
            let (at, data, end) = self.read(stream, offset);
            offset = at + data.len() as u64;
            text.extend(data);
            if end {
                return String::from_utf8_lossy(&text).into_owned();
            }
        }
    }

    pub(crate) fn wait(&mut self) -> Ended {
        match self.call(&Request::Wait) {
            Reply::Ended(ended) => ended,
            other => panic!("{other:?}"),
        }
    }
}
