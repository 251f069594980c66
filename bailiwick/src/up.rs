//! `bailiwick up`: becomes the keeper, the parent of everything.

use std::{
    fs::{DirBuilder, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::DirBuilderExt, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use base::{Hash, layout::Layout};
use durable::RealDisk;
use rustix::fs::{FlockOperation, flock};
use sandbox::Features;
use supervisor::{
    keeper::{self, Ending, KeeperConfig},
    reseal::{self, Settled},
};

use crate::{
    args::Up,
    first_boot::FirstBoot,
    node::{Node, runtime},
    output, process, units,
};

/// A node that has not answered by then has failed; its log says why.
const UP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node that `run` has started stays without use.
const IDLE_STOP: &str = "10m";
/// Less would end a node before its first command has reached it.
const IDLE_STOP_MS_MIN: u64 = 1_000;
/// How often a waiting `up` looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// True while a keeper holds the node's lock.
pub fn is_up(layout: &Layout) -> bool {
    let Ok(file) = File::options().read(true).write(true).open(layout.lock()) else { return false };
    flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
}

pub fn run(layout: &Layout, args: &Up) -> Result<ExitCode> {
    for folder in [&layout.state, &layout.run, &layout.config] {
        make_folder(folder)?;
    }
    if args.detach {
        return detach(layout, args).map(|()| ExitCode::SUCCESS);
    }
    let began_ns = kit::boot_time_ns();
    let lock = take_lock(layout)?;
    let features = Features::detect();
    let image = OwnedFd::from(File::open("/proc/self/exe").context("opening the running program")?);
    let node_name = match &args.name {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let admin_uid = rustix::process::getuid().as_raw();
    settle_seals(layout)?;
    if layout.genesis().exists() {
        if args.tpm.is_some() {
            bail!(
                "--tpm is for a new node; `bailiwick key reseal --tpm` moves the seals of the one that is there ({})",
                layout.state.display()
            );
        }
    } else {
        eprintln!("bailiwick: making a node under {}", layout.state.display());
        let opened = File::from(clone(image.as_fd())?);
        let image_hash = Hash::of_reader(opened).context("hashing the running program")?;
        FirstBoot {
            layout,
            node_name: &node_name,
            admin_uid,
            image: &image,
            image_hash,
            features: &features,
            tpm: args.tpm.as_deref(),
        }
        .make()
        .context("first boot")?;
    }
    let arguments = supervisor::Arguments {
        layout: layout.clone(),
        node_name,
        allow_break: args.allow_break.clone(),
        boot_began_boottime_ns: began_ns,
        idle_stop: args.idle_stop.as_deref().map(idle_stop).transpose()?,
        without: args.without.clone(),
    };
    // Refused here, where somebody reads it, and not by the supervisor.
    supervisor::Arguments::from_strings(&arguments.to_strings())?;
    let streams = [null()?, clone(io::stdout().as_fd())?, clone(io::stderr().as_fd())?];
    let config = KeeperConfig {
        image,
        arguments: ["bailiwick", "process", "supervisor"]
            .map(str::to_owned)
            .into_iter()
            .chain(arguments.to_strings())
            .collect(),
        environment: inherited_environment(&args.allow_break),
        streams,
        features,
        cgroup: format!("bailiwick-{}", std::process::id()),
        parts: process::PARTS,
    };
    let ending = keeper::run(config).context("the keeper")?;
    drop(lock);
    Ok(match ending {
        Ending::Shutdown => ExitCode::SUCCESS,
        Ending::Forced => ExitCode::from(130),
        Ending::SupervisorLost => {
            eprintln!("bailiwick: the supervisor died too often; the node was stopped");
            ExitCode::FAILURE
        }
    })
}

/// What `--allow-break` calls the node's belief in the host's wall clock.
const WALL_CLOCK: &str = "wall-clock";

fn idle_stop(text: &str) -> Result<Duration> {
    let ms = units::parse_duration_ms(text).context("--idle-stop")?;
    if ms < IDLE_STOP_MS_MIN {
        bail!("--idle-stop {text}: a node that is to be used at all needs at least {IDLE_STOP_MS_MIN} ms");
    }
    Ok(Duration::from_millis(ms))
}

/// Variables that the supervisor may need; services get none of them. The clock of a node is moved by a test that said so
/// at its start, which `status` shows.
fn inherited_environment(allow_break: &[String]) -> Vec<(String, String)> {
    let mut wanted =
        vec!["CREDENTIALS_DIRECTORY", "BAILIWICK_LOG", "BAILIWICK_SEGMENT_BYTES", "NOTIFY_SOCKET", "PATH"];
    wanted.extend(allow_break.iter().any(|part| part == WALL_CLOCK).then_some(kit::WALL_MOVED));
    wanted.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}

/// Ends what a `key reseal` began that was cut off.
pub fn settle_seals(layout: &Layout) -> Result<()> {
    match reseal::settle(&RealDisk::open(&layout.state)?).context("settling the seals of the node's keys")? {
        Settled::Clean => {}
        Settled::Discarded => {
            eprintln!("bailiwick: an unfinished move of the seals was undone; the old ones are in force")
        }
        Settled::Switched => eprintln!(
            "bailiwick: a move of the seals that was cut off is finished; the new ones are in force"
        ),
    }
    Ok(())
}

pub fn take_lock(layout: &Layout) -> Result<File> {
    let path = layout.lock();
    let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => {
            bail!("a node is up here already ({} is locked); `bailiwick status` shows it", path.display())
        }
    }
}

fn make_folder(folder: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("making {}", folder.display()))
}

fn null() -> Result<OwnedFd> {
    Ok(File::open("/dev/null").context("opening /dev/null")?.into())
}

fn clone(fd: std::os::fd::BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().context("standard streams")
}

/// The node that `run` uses where none is up: its log stays, and it ends when it has not been used for a while.
pub fn ensure(layout: &Layout) -> Result<()> {
    let since = Instant::now();
    while is_up(layout) {
        // Sockets stand before their services do; calls wait in them.
        if layout.genesis().exists() && layout.socket("admin", "process_manager").exists() {
            return Ok(());
        }
        if since.elapsed() > UP_TIMEOUT {
            bail!("the node that is coming up takes too long; `bailiwick status` shows how far it is");
        }
        std::thread::sleep(LOOK_EVERY);
    }
    for folder in [&layout.state, &layout.run, &layout.config] {
        make_folder(folder)?;
    }
    let args = Up {
        detach: true,
        name: None,
        tpm: None,
        idle_stop: Some(IDLE_STOP.to_owned()),
        without: Vec::new(),
        allow_break: Vec::new(),
    };
    in_background(layout, &args)?;
    eprintln!(
        "bailiwick: this is your own node; it stops after {IDLE_STOP} without use, or by `bailiwick down`"
    );
    Ok(())
}

fn detach(layout: &Layout, args: &Up) -> Result<()> {
    if is_up(layout) {
        bail!("a node is up here already; `bailiwick status` shows it");
    }
    in_background(layout, args)
}

/// Starts the same command in a session of its own and waits until the node runs.
fn in_background(layout: &Layout, args: &Up) -> Result<()> {
    let logs = layout.state.join("logs");
    make_folder(&logs)?;
    let log_path = logs.join("node.log");
    let log = File::options().create(true).append(true).open(&log_path);
    let log = log.with_context(|| format!("opening {}", log_path.display()))?;
    let mut child = command(layout, args, &log)?.spawn().context("starting the node")?;
    let since = Instant::now();
    let mut told = since;
    loop {
        // One that found the lock taken has not failed us: somebody else's node comes up here at the same time.
        if let Some(status) = child.try_wait().context("waiting for the node")?
            && !is_up(layout)
        {
            bail!("the node ended at once ({status}); {} says why:\n{}", log_path.display(), tail(&log_path));
        }
        if let Some(state) = state(layout) {
            let ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            let hint = if state == "running" { "" } else { "; `bailiwick status` shows what does not run" };
            eprintln!("node {state} after {}{hint}", output::duration(ms));
            return Ok(());
        }
        if told.elapsed() > output::SLOW {
            told = Instant::now();
            eprintln!("bailiwick: the node is booting …");
        }
        if since.elapsed() > UP_TIMEOUT {
            end(&mut child);
            bail!(
                "the node did not come up within {} s; {} says why",
                UP_TIMEOUT.as_secs(),
                log_path.display()
            );
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn command(layout: &Layout, args: &Up, log: &File) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("the running program")?);
    if let Some(root) = root_of(layout) {
        command.arg("--root").arg(root);
    }
    command.arg("up");
    if let Some(name) = &args.name {
        command.args(["--name", name]);
    }
    if let Some(device) = &args.tpm {
        command.arg("--tpm").arg(device);
    }
    if let Some(time) = &args.idle_stop {
        command.args(["--idle-stop", time]);
    }
    for service in &args.without {
        command.args(["--without", service]);
    }
    for part in &args.allow_break {
        command.args(["--allow-break", part]);
    }
    let errors = log.try_clone().context("the node's log")?;
    command.stdin(Stdio::null()).stdout(errors.try_clone().context("the node's log")?).stderr(errors);
    // Out of this terminal's reach: a hang-up or an interrupt here is not meant for the node.
    command.process_group(0);
    Ok(command)
}

/// The folder given with `--root`, if the layout has that form.
pub fn root_of(layout: &Layout) -> Option<&Path> {
    let root = layout.state.parent()?;
    Layout::under(root).ok().filter(|under| under == layout).map(|_| root)
}

/// The node's state once it is past booting.
fn state(layout: &Layout) -> Option<String> {
    let node = Node::find(layout.clone()).ok()?;
    if !node.admin_socket("supervisor").exists() {
        return None;
    }
    let state = runtime().ok()?.block_on(async {
        let mut supervisor = node.supervisor("system.supervisor.get_node").ok()?;
        let request = contracts::supervisor::v1::GetNodeRequest {};
        Some(supervisor.get_node(request).await.ok()?.into_inner().state)
    })?;
    (state != "booting").then_some(state)
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n")
}

/// Asks the node to stop, and insists.
fn end(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    for _ in 0..2 {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        std::thread::sleep(Duration::from_secs(1));
    }
    let _ = child.wait();
}
