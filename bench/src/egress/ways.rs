//! How a program comes to the server: through a node, bare, or out of a network namespace that something joins to the host.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::{
    process::{self, Tree},
    site::Site,
};

/// More than a program has by default, for one that asks from 64 of them.
const THREADS: &str = "100";
pub(super) const DIRECT: &str = "direct";
pub(super) const RECORDED: &str = "one durable write, then direct";
pub(super) const SLIRP: &str = "slirp4netns";
const VETH: &str = "veth";
const PASTA: &str = "pasta";
/// Of the network for measurements (RFC 2544): nobody else's.
const HOST_END: &str = "198.18.97.1";
const FAR_END: &str = "198.18.97.2";
/// Where slirp4netns shows the host.
const SLIRP_HOST: &str = "10.0.2.2";
const READY_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) struct Way<'a> {
    pub(super) name: &'static str,
    pub(super) is_ours: bool,
    command: Box<dyn Fn() -> Command + 'a>,
}

impl<'a> Way<'a> {
    pub(super) fn ours(name: &'static str, site: &'a Site, client: &'a Path, port: u16) -> Self {
        let place = format!("127.0.0.1:{port}");
        let shown = client.parent().unwrap_or(client).to_string_lossy().into_owned();
        let client = client.to_string_lossy().into_owned();
        let command =
            move || site.command(&["run", "--fs", &shown, "--egress", &place, "--", &client, &place]);
        Self { name, is_ours: true, command: Box::new(command) }
    }

    /// Of which so many descriptors may be open.
    pub(super) fn with_files(
        name: &'static str,
        site: &'a Site,
        client: &'a Path,
        port: u16,
        files: usize,
    ) -> Self {
        let (place, files) = (format!("127.0.0.1:{port}"), files.to_string());
        let shown = client.parent().unwrap_or(client).to_string_lossy().into_owned();
        let client = client.to_string_lossy().into_owned();
        let words = [
            "run",
            "--threads",
            THREADS,
            "--files",
            &files,
            "--fs",
            &shown,
            "--egress",
            &place,
            "--",
            &client,
            &place,
        ]
        .map(str::to_owned);
        let command = move || site.command(&words.each_ref().map(String::as_str));
        Self { name, is_ours: true, command: Box::new(command) }
    }

    /// Runs with these words, until it is told to end.
    pub(super) fn start(&self, words: &[String]) -> Result<Child> {
        let mut command = (self.command)();
        let held = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        held.spawn().context("starting the program")
    }

    pub(super) fn direct(client: &'a Path, port: u16) -> Self {
        Self::bare(DIRECT, client, format!("127.0.0.1:{port}"))
    }

    /// Direct, with one durable write before each connection and nothing else: less it cannot be for whoever is on record first.
    pub(super) fn recorded(client: &'a Path, port: u16, file: &'a Path) -> Self {
        let direct = Self::direct(client, port);
        let command = move || {
            let mut command = (direct.command)();
            command.env("RECORD_IN", file);
            command
        };
        Self { name: RECORDED, is_ours: false, command: Box::new(command) }
    }

    /// On the host, in no sandbox.
    pub(super) fn bare(name: &'static str, client: &'a Path, to: String) -> Self {
        let command = move || {
            let mut command = Command::new(client);
            command.arg(&to);
            command
        };
        Self { name, is_ours: false, command: Box::new(command) }
    }

    pub(super) fn by_own_proxy(
        name: &'static str,
        site: &'a Site,
        client: &'a Path,
        port: u16,
        proxy: &str,
    ) -> Self {
        let place = format!("127.0.0.1:{port}");
        let shown = client.parent().unwrap_or(client).to_string_lossy().into_owned();
        let (client, to) = (client.to_string_lossy().into_owned(), format!("{place}@{proxy}"));
        let command =
            move || site.command(&["run", "--proxy", "--fs", &shown, "--egress", &place, "--", &client, &to]);
        Self { name, is_ours: true, command: Box::new(command) }
    }

    pub(super) fn through(neighbour: &Neighbour, client: &'a Path, port: u16) -> Self {
        let (holder, host) = (neighbour.holder.pid(), neighbour.host.clone());
        let command = move || {
            let mut command = Command::new("nsenter");
            command.args(["--net", "--target"]).arg(holder.to_string()).arg("--").arg(client);
            command.arg(format!("{host}:{port}"));
            command
        };
        Self { name: neighbour.name, is_ours: false, command: Box::new(command) }
    }

    /// It makes its network namespace itself, for each run, and shows the host's loopback as the gateway.
    pub(super) fn pasta(client: &'a Path, port: u16) -> Result<Self, (&'static str, anyhow::Error)> {
        let make = || {
            let program = need(PASTA, "passt")?;
            let gateway = gateway(None)?.context("the host has no gateway, which pasta takes for its own")?;
            let command = move || {
                let mut command = Command::new(&program);
                command.args(["--config-net", "--quiet", "--runas", "0", "--"]).arg(client);
                command.arg(format!("{gateway}:{port}"));
                command
            };
            let way = Self { name: PASTA, is_ours: false, command: Box::new(command) };
            // Installed is not usable: where it may not make its namespace it says so at its start.
            way.figure(&["latency".to_owned(), "1".to_owned()]).context("it does not run here")?;
            Ok(way)
        };
        make().map_err(|why| (PASTA, why))
    }

    /// What the program says of its run.
    pub(super) fn figure(&self, words: &[String]) -> Result<f64> {
        let output =
            (self.command)().args(words).stdin(Stdio::null()).output().context("starting the program")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}", output.status, said.trim().lines().collect::<Vec<_>>().join("; "));
        }
        let said = String::from_utf8_lossy(&output.stdout);
        said.trim().parse().with_context(|| format!("the program said {said:?}"))
    }
}

/// A network namespace, with what joins it to the host. Needs root.
pub(super) struct Neighbour {
    name: &'static str,
    holder: Tree,
    joiner: Option<Tree>,
    /// The host as it is seen from there.
    host: String,
}

type Made = Result<Neighbour, (&'static str, anyhow::Error)>;

impl Neighbour {
    pub(super) fn veth() -> Made {
        let make = || {
            let holder = holder()?;
            let pid = holder.pid().to_string();
            let name = format!("bwb{pid}");
            ip(None, &["link", "add", &name, "type", VETH, "peer", "name", "out", "netns", &pid])?;
            ip(None, &["addr", "add", &format!("{HOST_END}/30"), "dev", &name])?;
            ip(None, &["link", "set", &name, "up"])?;
            ip(Some(&holder), &["addr", "add", &format!("{FAR_END}/30"), "dev", "out"])?;
            ip(Some(&holder), &["link", "set", "out", "up"])?;
            Ok(Self { name: VETH, holder, joiner: None, host: HOST_END.to_owned() })
        };
        make().map_err(|why| (VETH, why))
    }

    pub(super) fn slirp4netns() -> Made {
        let make = || {
            let program = need(SLIRP, SLIRP)?;
            let holder = holder()?;
            let mut command = Command::new(program);
            command.args(["--configure", "--mtu=65520"]).arg(holder.pid().to_string()).arg("tap0");
            let joiner =
                Tree::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
            wait_for_route(&holder)?;
            Ok(Self { name: SLIRP, holder, joiner: Some(joiner), host: SLIRP_HOST.to_owned() })
        };
        make().map_err(|why| (SLIRP, why))
    }

    pub(super) fn end(self) -> Result<()> {
        self.joiner.map_or(Ok(()), |joiner| joiner.end(Signal::TERM))?;
        self.holder.end(Signal::TERM)
    }
}

pub(super) fn need(program: &str, package: &str) -> Result<std::path::PathBuf> {
    process::installed(program).with_context(|| process::missing(program, package))
}

/// Keeps a new network namespace for as long as it lives; its loopback is up.
fn holder() -> Result<Tree> {
    if !rustix::process::geteuid().is_root() {
        bail!("only root can make a network namespace that is not a user's");
    }
    let own = std::fs::read_link("/proc/self/ns/net").context("the own network namespace")?;
    let mut command = Command::new("unshare");
    let holder = Tree::spawn(command.args(["--net", "--", "sleep", "86400"]).stdin(Stdio::null()))?;
    let file = format!("/proc/{}/ns/net", holder.pid());
    until("unshare", || Ok(std::fs::read_link(&file).is_ok_and(|other| other != own).then_some(())))?;
    ip(Some(&holder), &["link", "set", "lo", "up"])?;
    Ok(holder)
}

/// The gateway, once there is one.
fn wait_for_route(holder: &Tree) -> Result<String> {
    until("what joins the network namespace to the host", || gateway(Some(holder)))
}

fn gateway(inside: Option<&Tree>) -> Result<Option<String>> {
    let routes = ip(inside, &["-4", "route", "show", "default"])?;
    Ok(routes.split_whitespace().nth(2).map(str::to_owned))
}

pub(super) fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let since = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if since.elapsed() > READY_TIMEOUT {
            bail!("{what} was not ready within {} s", READY_TIMEOUT.as_secs());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn ip(inside: Option<&Tree>, words: &[&str]) -> Result<String> {
    let mut command = match inside {
        None => Command::new("ip"),
        Some(holder) => {
            let mut command = Command::new("nsenter");
            command.args(["--net", "--target"]).arg(holder.pid().to_string()).args(["--", "ip"]);
            command
        }
    };
    let output = command.args(words).output().context("starting ip (package iproute2)")?;
    if !output.status.success() {
        bail!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
