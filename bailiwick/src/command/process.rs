//! `run`, `ps` and `kill`.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use base::{EntryKey, Hash, IdentityId, ProcessId, layout::Layout};
use contracts::{
    convert::bytes,
    process_manager::v1 as pb,
    process_manager::v1::{attach_input::Input, attach_output::Output as Out, exit_status::Status},
};
use kit::{Peer, error_info};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use super::{image, rootfs};
use crate::{
    args::{Kill, Output, Run},
    exit::{Failure, NOT_EXECUTABLE, NOT_FOUND, RUN_FAILED, UNREACHABLE},
    node::{Node, failed, runtime},
    output,
    site::Site,
    terminal, units, up,
};

/// Bytes of one piece of an image or of standard input; below the contract's limits.
const PIECE_BYTES: usize = 64 * 1024;
/// The node does not have the image that a spawn names.
const IMAGE_NOT_FOUND: &str = "ImageNotFound";
/// Pieces under way.
pub(super) const PIECES: usize = 8;
/// A throw-away node whose command was killed ends by itself.
const EPHEMERAL_IDLE_STOP: &str = "1m";
/// What a program inherits when it is set; everything else is given with `--env`.
const INHERITED: [&str; 4] = ["TERM", "LANG", "LC_ALL", "PATH"];

/// On the node that is meant; where none is up, the user's own is started in the background.
pub fn on_own_node(layout: Layout, output: Output, args: Run) -> Result<ExitCode> {
    up::ensure(&layout)?;
    runtime()?.block_on(run(&Node::find(layout)?, output, args))
}

/// On a node for this run alone, which is removed with its log.
pub fn ephemeral(output: Output, args: Run) -> Result<ExitCode> {
    if copies(&args) {
        bail!(
            "changes to a copy-on-write folder are kept by the node, and an ephemeral one is removed; use `:rw` or `:ro`"
        );
    }
    let site = Site::start("e", &["--name", "ephemeral", "--idle-stop", EPHEMERAL_IDLE_STOP])?;
    let node = site.node()?;
    let code = runtime()?.block_on(run(&node, output, args));
    site.end()?;
    code
}

/// `run` has exit codes of its own, so that its failures can be told from the program's.
pub fn failed_run(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Failure>() {
        Some(failure) if [NOT_EXECUTABLE, NOT_FOUND].contains(&failure.code) => error,
        _ => Failure::new(RUN_FAILED, format!("{error:#}")).into(),
    }
}

async fn run(node: &Node, output: Output, args: Run) -> Result<ExitCode> {
    let mut key = [0; EntryKey::BYTES];
    getrandom::fill(&mut key).context("the kernel's random source")?;
    let peer = node.peer("process_manager");
    let spawned = match start(node, &peer, &args, key).await {
        // The node may be on its way up, by somebody else's command. The key makes one program of two attempts.
        Err(error) if is_unreachable(&error) && node.has_booted().await => {
            start(node, &peer, &args, key).await?
        }
        outcome => outcome?,
    };
    for missing in &spawned.missing {
        eprintln!("bailiwick: this host cannot give: {missing}");
    }
    if args.detach {
        let started = Started { pid: ProcessId(spawned.pid) };
        output::show(output, &started, || format!("{}\n", started.pid))?;
        return Ok(ExitCode::SUCCESS);
    }
    let code = attach(node, &peer, spawned.pid, &args).await;
    if copies(&args) {
        super::layer::tell(node, spawned.pid).await;
    }
    code
}

/// Whether something is kept that the program changes.
fn copies(args: &Run) -> bool {
    let granted = args.paths.iter().any(|text| parse_grant(text).is_ok_and(|grant| grant.copy_on_write));
    granted || args.rootfs.as_deref().is_some_and(|text| rootfs::split(text).1)
}

#[derive(Serialize)]
struct Started {
    pid: ProcessId,
}

fn is_unreachable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.code == UNREACHABLE)
}

/// What is to be run, and in what.
pub struct Program {
    pub name: String,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: String,
    /// On this host; none if it lies in an image that the node has.
    pub file: Option<PathBuf>,
    /// Before those that were asked for.
    pub paths: Vec<pb::PathGrant>,
    pub root: Option<pb::Root>,
}

/// A program of the host, in the host's view.
fn of_host(args: &Run, paths: &[pb::PathGrant]) -> Result<Program> {
    let (name, rest) = args.command.split_first().context("no program was named")?;
    Ok(Program {
        name: name.clone(),
        args: rest.to_vec(),
        env: environment(&INHERITED, &args.env)?,
        cwd: working_folder(args.cwd.as_deref(), paths),
        file: Some(find(name)?),
        paths: Vec::new(),
        root: None,
    })
}

fn granted(args: &Run) -> Result<Vec<pb::PathGrant>> {
    args.paths.iter().map(|text| parse_grant(text)).collect()
}

async fn start(
    node: &Node,
    peer: &Peer,
    args: &Run,
    key: [u8; EntryKey::BYTES],
) -> Result<pb::SpawnResponse> {
    let granted = granted(args)?;
    let program = match (&args.image, &args.rootfs) {
        (Some(image), _) => image::program(node, image, args).await?,
        (None, Some(folder)) => rootfs::program(folder, args)?,
        (None, None) => of_host(args, &granted)?,
    };
    let Program { name, args: rest, env, cwd, file, mut paths, root } = program;
    paths.extend(granted);
    let identity = match &args.identity {
        Some(name) => node.identity_id(name).await?,
        None => node.admin(),
    };
    let image = match &file {
        Some(file) => {
            let hash = Hash::of_reader(open_program(file)?);
            hash.with_context(|| format!("reading {}", file.display()))?.0.to_vec()
        }
        None => Vec::new(),
    };
    let path = file.as_deref().map(std::path::absolute).transpose()?;
    let request = pb::SpawnRequest {
        // A name that is not UTF-8 cannot be said; it runs where images lie.
        path: path.as_deref().and_then(Path::to_str).unwrap_or_default().to_owned(),
        image,
        args: rest,
        capabilities: Vec::new(),
        resource_limits: Some(limits(args)?),
        identity: identity.0.to_vec(),
        env: env.into_iter().collect(),
        cwd: Some(cwd),
        paths,
        priority: None,
        name,
        timeout_ms: args.timeout.as_deref().map(units::parse_duration_ms).transpose()?.unwrap_or(0),
        idempotency_key: key.to_vec(),
        notice_refused: !args.no_notice,
        disabled_guards: args.disable.clone(),
        terminal: (!args.detach && terminal::is_one()).then(terminal::size).transpose()?,
        egress: args.egress.clone(),
        proxy: args.proxy,
        credentials: args.credentials.iter().map(|text| read_credential(text)).collect::<Result<_>>()?,
        secrets: args.secrets.iter().map(|text| read_secret(text)).collect::<Result<_>>()?,
        root,
        learn: args.learn.is_some(),
    };
    let mut processes = node.processes_over(peer, "system.process_manager.spawn").await?;
    let unknown =
        |status: &tonic::Status| error_info(status).is_some_and(|info| info.reason == IMAGE_NOT_FOUND);
    match (processes.spawn(request.clone()).await, &file) {
        (Ok(spawned), _) => Ok(spawned.into_inner()),
        // Most programs ran before: only one that the node has not seen is sent there.
        (Err(status), Some(file)) if unknown(&status) => {
            let sent = put_image(node, file).await?;
            if sent.hash != request.image {
                bail!("{} changed while it was read", file.display());
            }
            Ok(processes.spawn(request).await.map_err(failed)?.into_inner())
        }
        (Err(status), _) => Err(failed(status)),
    }
}

fn limits(args: &Run) -> Result<pb::ResourceLimits> {
    Ok(pb::ResourceLimits {
        cpu_time_ms: args.cpu_time.as_deref().map(units::parse_duration_ms).transpose()?.unwrap_or(0),
        memory_bytes: args.memory.as_deref().map(units::parse_size).transpose()?.unwrap_or(0),
        threads: args.threads.unwrap_or(0),
        files: args.files.unwrap_or(0),
        disk_bytes: args.disk.as_deref().map(units::parse_size).transpose()?.unwrap_or(0),
        cpu_millicores: args.cpus.as_deref().map(units::parse_millicores).transpose()?.unwrap_or(0),
        io: super::io_limits::parse(args)?,
        io_weight: super::io_limits::weight(args)?,
        ..pb::ResourceLimits::default()
    })
}

pub fn environment(inherited: &[&str], given: &[String]) -> Result<BTreeMap<String, String>> {
    let inherited = inherited.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let mut environment: BTreeMap<String, String> = inherited.collect();
    for pair in given {
        let (name, value) = self::pair(pair)?;
        environment.insert(name, value);
    }
    Ok(environment)
}

pub(super) fn pair(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').with_context(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// More than the node takes of one secret is not read.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// `NAME=FILE`. The content goes over the node's socket and nowhere else: a command's arguments can be read by others.
fn read_secret(text: &str) -> Result<pb::Secret> {
    let (name, file) = text.split_once('=').with_context(|| format!("--secret {text:?} is not NAME=FILE"))?;
    let content = read_file(&format!("--secret {name}"), file)?;
    Ok(pb::Secret { name: name.to_owned(), content })
}

fn read_file(what: &str, file: &str) -> Result<Vec<u8>> {
    let opened = std::fs::File::open(file).with_context(|| format!("{what}: opening {file}"))?;
    let mut content = Vec::new();
    opened
        .take(SECRET_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .with_context(|| format!("{what}: reading {file}"))?;
    if content.len() as u64 > SECRET_BYTES_MAX {
        bail!("{what}: {file} has more than {SECRET_BYTES_MAX} bytes");
    }
    Ok(content)
}

/// `HOST=FILE`, and what is to be known beside it. A comma stands in none of these.
fn read_credential(text: &str) -> Result<pb::Credential> {
    const FORM: &str = "HOST=FILE[,name=NAME][,header=HEADER][,format=TEXT][,ca=CA]";
    let mut parts = text.split(',');
    let (host, file) = parts
        .next()
        .and_then(|first| first.split_once('='))
        .with_context(|| format!("--credential {text:?} is not {FORM}"))?;
    let what = format!("--credential {host}");
    let base = Path::new(file).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut credential =
        pb::Credential { secret: base.to_owned(), host: host.to_owned(), ..pb::Credential::default() };
    for part in parts {
        match part.split_once('=') {
            Some(("name", name)) => credential.secret = name.to_owned(),
            Some(("header", header)) => credential.header = header.to_owned(),
            Some(("format", format)) => credential.format = format.to_owned(),
            Some(("ca", ca)) => {
                credential.authority = String::from_utf8(read_file(&what, ca)?)
                    .map_err(|_| anyhow::anyhow!("{what}: {ca} is no certificate in PEM"))?;
            }
            _ => bail!("{what}: {part:?} is none of {FORM}"),
        }
    }
    credential.value = read_file(&what, file)?;
    Ok(credential)
}

/// The current folder if the program can see it.
fn working_folder(given: Option<&str>, paths: &[pb::PathGrant]) -> String {
    if let Some(given) = given {
        return given.to_owned();
    }
    let current = std::env::current_dir().unwrap_or_default();
    let visible = paths.iter().any(|grant| grant.inside.is_empty() && current.starts_with(&grant.path));
    if visible { current.to_string_lossy().into_owned() } else { "/".to_owned() }
}

/// `PATH`, `PATH:ro`, `PATH:rw`, `PATH:cow` or `PATH:rw:INSIDE`; relative paths are taken from here.
pub fn parse_grant(text: &str) -> Result<pb::PathGrant> {
    let mut parts = text.split(':');
    let path = parts.next().unwrap_or_default();
    let (writable, copy_on_write) = match parts.next() {
        None | Some("ro") => (false, false),
        Some("rw") => (true, false),
        Some("cow") => (false, true),
        Some(other) => bail!("{text:?}: after the path comes `ro`, `rw` or `cow`, not {other:?}"),
    };
    let inside = parts.next().unwrap_or_default().to_owned();
    if parts.next().is_some() {
        bail!("{text:?} has too many parts; write PATH, PATH:rw or PATH:rw:INSIDE");
    }
    let path = std::fs::canonicalize(path).with_context(|| format!("--fs {path:?}"))?;
    if copy_on_write && !path.is_dir() {
        bail!("{text:?}: {} is not a folder, and only folders can be shown copy-on-write", path.display());
    }
    let path = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned();
    Ok(pb::PathGrant { path, writable, inside, copy_on_write })
}

/// A shell's codes for what cannot be run.
fn open_program(file: &Path) -> Result<std::fs::File> {
    let fails = |error: std::io::Error| {
        let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
        Failure::new(code, format!("opening {}: {error}", file.display()))
    };
    let opened = std::fs::File::open(file).map_err(fails)?;
    if !is_program(file) {
        let text = format!("{} is not an executable file", file.display());
        return Err(Failure::new(NOT_EXECUTABLE, text).into());
    }
    Ok(opened)
}

/// As a shell finds it.
fn find(name: &str) -> Result<PathBuf> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&search).map(|folder| folder.join(name)).find(|file| is_program(file));
    found.ok_or_else(|| Failure::new(NOT_FOUND, format!("{name}: not found in PATH")).into())
}

pub fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

async fn put_image(node: &Node, file: &Path) -> Result<pb::Image> {
    put_file(node, file, open_program(file)?).await
}

/// Sends a file to the node's content store.
pub(super) async fn put_file(node: &Node, file: &Path, mut opened: std::fs::File) -> Result<pb::Image> {
    let (send, receive) = mpsc::channel(PIECES);
    let reader = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let read = opened.read(&mut buffer)?;
            let data = buffer.get(..read).unwrap_or_default().to_vec();
            // The other side has seen enough, or is gone: its own answer says which.
            if read == 0 || send.blocking_send(pb::ImageChunk { data }).is_err() {
                return Ok(());
            }
        }
    });
    let mut processes = node.processes("system.process_manager.put_image").await?;
    let image = processes.put_image(ReceiverStream::new(receive)).await.map_err(failed)?.into_inner();
    reader.await.context("reading a file")?.with_context(|| format!("reading {}", file.display()))?;
    Ok(image)
}

/// Joins this terminal to the program until it ends; its exit code becomes ours.
async fn attach(node: &Node, peer: &Peer, pid: u64, args: &Run) -> Result<ExitCode> {
    let (send, receive) = mpsc::channel(PIECES);
    send.send(pb::AttachInput { input: Some(Input::Pid(pid)) }).await.context("attaching")?;
    let raw = terminal::is_one().then(terminal::Raw::enter).transpose()?;
    if raw.is_some() {
        let resized = |size| pb::AttachInput { input: Some(Input::Resize(size)) };
        tokio::spawn(terminal::forward_sizes(send.clone(), resized));
    }
    // Reading a terminal cannot be interrupted, so this thread is left behind when the program ends first.
    std::thread::spawn(move || {
        let said = |data: Option<Vec<u8>>| data.map_or(Input::StdinEnd(true), Input::Stdin);
        forward_stdin(&send, |data| pb::AttachInput { input: Some(said(data)) });
    });
    let mut interrupts = Interrupts::new()?;
    let mut processes = node.processes_over(peer, "system.process_manager.attach").await?;
    let mut streams = processes.attach(ReceiverStream::new(receive)).await.map_err(failed)?.into_inner();
    loop {
        let message = tokio::select! {
            message = streams.next() => message,
            signal = interrupts.next() => {
                // It may have ended meanwhile: then its end is on its way here.
                let _ = send_signal(node, pid, signal, "its `bailiwick run` was interrupted").await;
                continue;
            }
        };
        let Some(message) = message else { break };
        match message.map_err(failed)?.output {
            Some(Out::Stdout(data)) => write_all(&mut std::io::stdout(), &data)?,
            Some(Out::Stderr(data)) => write_all(&mut std::io::stderr(), &data)?,
            Some(Out::Exit(reply)) => {
                // Before anything is said here.
                drop(raw);
                if let Some(file) = &args.learn {
                    super::learn::write(file, &of_host(args, &granted(args)?)?, &granted(args)?, &reply)?;
                }
                return Ok(ended(pid, &reply));
            }
            None => {}
        }
    }
    Err(Failure::new(
        RUN_FAILED,
        format!("the connection ended before program {pid} did; `bailiwick ps` shows it"),
    )
    .into())
}

/// Signals that end a command end its program first; the second one insists.
pub(super) struct Interrupts {
    signals: [tokio::signal::unix::Signal; 3],
    seen: bool,
}

impl Interrupts {
    pub(super) fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let on = |kind| signal(kind).context("listening for signals");
        let signals = [on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?];
        Ok(Self { signals, seen: false })
    }

    /// The signal that the program is to get.
    pub(super) async fn next(&mut self) -> &'static str {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        if std::mem::replace(&mut self.seen, true) { "kill" } else { "term" }
    }
}

/// What is typed or piped, piece by piece; none is its end.
pub(super) fn forward_stdin<T>(send: &mpsc::Sender<T>, message: impl Fn(Option<Vec<u8>>) -> T) {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut stdin = std::io::stdin().lock();
    loop {
        let data = match stdin.read(&mut buffer) {
            Ok(0) | Err(_) => None,
            Ok(read) => Some(buffer.get(..read).unwrap_or_default().to_vec()),
        };
        let end = data.is_none();
        if send.blocking_send(message(data)).is_err() || end {
            return;
        }
    }
}

pub(super) fn write_all(target: &mut impl Write, data: &[u8]) -> Result<()> {
    match target.write_all(data).and_then(|()| target.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing the program's output"),
    }
}

/// What a shell would report; limits and refused calls are told on standard error.
pub(super) fn ended(pid: u64, reply: &pb::WaitReply) -> ExitCode {
    if !reply.refused.is_empty() {
        eprintln!(
            "bailiwick: {} calls were refused; `bailiwick why process:{pid}` names them",
            reply.refused.len()
        );
    }
    let code = match reply.status.as_ref().and_then(|status| status.status.as_ref()) {
        Some(Status::Code(code)) => *code,
        Some(Status::Signal(signal)) => 128 + signal,
        Some(Status::Limit(limit)) => {
            eprintln!("bailiwick: program {pid} was ended: it passed its limit of {limit}");
            137
        }
        Some(Status::Unknown(_)) | None => {
            eprintln!("bailiwick: nobody saw how program {pid} ended");
            i32::from(RUN_FAILED)
        }
    };
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(RUN_FAILED))
}

#[derive(Serialize)]
struct Process {
    pid: ProcessId,
    host_pid: u32,
    name: String,
    state: String,
    identity: IdentityId,
    image: Hash,
    threads: u32,
    memory_bytes: u64,
    cpu_time_ns: u64,
    created_at: u64,
}

pub async fn list(node: &Node, output: Output) -> Result<()> {
    let mut processes = node.processes("system.process_manager.list").await?;
    let list = processes.list(pb::ProcessFilter::default()).await.map_err(failed)?.into_inner().processes;
    let list = list.into_iter().map(process).collect::<Result<Vec<_>>>()?;
    output::show(output, &list, || {
        let row = |process: &Process| {
            vec![
                process.pid.to_string(),
                process.host_pid.to_string(),
                process.state.clone(),
                output::size(process.memory_bytes),
                output::duration(process.cpu_time_ns / 1_000_000),
                process.name.clone(),
            ]
        };
        output::table(
            &["ID", "PID", "STATE", "MEMORY", "CPU", "NAME"],
            &list.iter().map(row).collect::<Vec<_>>(),
        )
    })
}

fn process(info: pb::ProcessInfo) -> Result<Process> {
    let usage = info.resource_usage.unwrap_or_default();
    Ok(Process {
        pid: ProcessId(info.pid),
        host_pid: info.host_pid,
        name: info.name,
        state: info.state,
        identity: IdentityId(bytes("identity", &info.identity)?),
        image: Hash(bytes("image", &info.image)?),
        threads: info.thread_count,
        memory_bytes: usage.memory_bytes,
        cpu_time_ns: usage.cpu_time_ns,
        created_at: info.created_at.map_or(0, |at| at.sequence),
    })
}

pub async fn kill(node: &Node, output: Output, args: Kill) -> Result<()> {
    let entry = send_signal(node, args.pid, &args.signal, "asked by the operator").await?;
    output::show(output, &serde_json::json!({ "entry": entry }), || format!("signalled, entry {entry}\n"))
}

/// The entry that records it.
async fn send_signal(node: &Node, pid: u64, signal: &str, reason: &str) -> Result<u64> {
    let mut processes = node.processes("system.process_manager.kill").await?;
    let request = pb::KillRequest { pid, signal: signal.to_owned(), reason: reason.to_owned() };
    let reply = processes.kill(request).await.map_err(failed)?.into_inner();
    Ok(reply.axiom_ref.map_or(0, |at| at.sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read_only_unless_said_otherwise() {
        let grant = |text: &str| parse_grant(text).map(|grant| (grant.path, grant.writable, grant.inside));
        assert_eq!(grant("/usr").unwrap(), ("/usr".into(), false, String::new()));
        assert_eq!(grant("/usr:rw:/data").unwrap(), ("/usr".into(), true, "/data".into()));
        let copied = parse_grant("/usr:cow:/data").unwrap();
        assert!(copied.copy_on_write && !copied.writable && copied.inside == "/data");
        assert!(grant("/etc/passwd:cow").is_err());
        assert!(grant("/usr:xx").is_err());
        assert!(grant("/usr:ro:/a:b").is_err());
        assert!(grant("/no/such/folder").is_err());
    }

    #[test]
    fn the_current_folder_is_kept_only_if_it_is_visible() {
        let here = std::env::current_dir().unwrap().to_string_lossy().into_owned();
        let grant = pb::PathGrant { path: here.clone(), ..Default::default() };
        assert_eq!(working_folder(None, std::slice::from_ref(&grant)), here);
        assert_eq!(working_folder(None, &[]), "/");
        assert_eq!(working_folder(Some("/x"), &[grant]), "/x");
    }
}
