//! `bailiwick ssh-agent`: lets git and ssh use keys of the node, each use decided and recorded.
//!
//! The agent holds nothing: it asks the node for public keys, and for each signature, as any command does.

mod serve;
mod socket;

use std::{
    fs::File,
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use base::{KeyPath, layout::Layout};
use keys::core::Purpose;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use self::{serve::Agent, socket::SocketFile};
use super::key;
use crate::{
    args::{Output, SshAgent},
    exit::{Failure, USAGE},
    node::{Node, runtime},
    output, up,
};

/// Read by ssh, git and ssh-add.
const VARIABLE: &str = "SSH_AUTH_SOCK";
const FILE: &str = "ssh-agent.sock";
/// In the node's folder of logs: what an agent in the background has to say.
const LOG: &str = "ssh-agent.log";
/// How long a command that is told to end may take before it is ended.
const COMMAND_GRACE: Duration = Duration::from_secs(5);

pub fn run(layout: &Layout, output: Output, args: &SshAgent) -> Result<ExitCode> {
    let node = Node::find(layout.clone())?;
    let paths = paths(&node, &args.paths)?;
    let runtime = runtime()?;
    // Before anything listens: whoever waits for the socket finds an agent that has keys.
    let offered = runtime.block_on(async {
        let mut offered = Vec::new();
        for path in paths {
            offered.push((key::public_key(&node, &path.to_string()).await?, path));
        }
        anyhow::Ok(offered)
    })?;
    let agent = Agent::new(node, offered);
    let place = args.socket.clone().unwrap_or_else(|| layout.run.join(FILE));
    let place = std::path::absolute(&place).with_context(|| format!("resolving {}", place.display()))?;
    if args.inherited {
        let (socket, listener) = SocketFile::inherited(place)?;
        let served = runtime.block_on(until_told(agent, listener));
        drop(socket);
        return served.map(|()| ExitCode::SUCCESS);
    }
    let (socket, listener) = SocketFile::bind(place)?;
    if let Some((program, words)) = args.command.split_first() {
        let mut command = tokio::process::Command::new(program);
        command.args(words).env(VARIABLE, socket.path()).env_remove("SSH_AGENT_PID");
        return runtime.block_on(beside(agent, listener, command));
    }
    if args.foreground {
        tell(output, socket.path(), None)?;
        return runtime.block_on(until_told(agent, listener)).map(|()| ExitCode::SUCCESS);
    }
    let pid = in_background(layout, &socket, listener, args)?;
    tell(output, socket.path(), Some(pid))?;
    // It is the other process's from here on.
    socket.keep();
    Ok(ExitCode::SUCCESS)
}

/// Those named, or the operator's own.
fn paths(node: &Node, named: &[String]) -> Result<Vec<KeyPath>> {
    let wrong = |text: String| -> anyhow::Error { Failure::new(USAGE, text).into() };
    if named.is_empty() {
        return Ok(vec![node.admin_key_path()?.child(Purpose::Ssh.segment())?]);
    }
    if named.len() > ssh::agent::IDENTITIES_MAX {
        let most = ssh::agent::IDENTITIES_MAX;
        return Err(wrong(format!("an agent offers at most {most} keys, not {}", named.len())));
    }
    named.iter().map(|text| key::ssh_path(text).map_err(|error| wrong(format!("{error:#}")))).collect()
}

#[derive(Serialize)]
struct Told<'a> {
    socket: &'a Path,
    /// Of the agent in the background.
    pid: Option<u32>,
}

/// As ssh-agent tells it, for `eval` in a shell of Bourne's kind.
fn tell(output: Output, socket: &Path, pid: Option<u32>) -> Result<()> {
    output::show(output, &Told { socket, pid }, || {
        let mut text = format!("{VARIABLE}={}; export {VARIABLE};\n", quoted(socket));
        if let Some(pid) = pid {
            text += &format!("SSH_AGENT_PID={pid}; export SSH_AGENT_PID;\necho Agent pid {pid};\n");
        }
        text
    })?;
    std::io::stdout().flush().context("writing to standard output")
}

/// One word for a shell, whatever is in it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The same command in a process of its own, which inherits the socket that listens already.
fn in_background(
    layout: &Layout,
    socket: &SocketFile,
    listener: std::os::unix::net::UnixListener,
    args: &SshAgent,
) -> Result<u32> {
    let file = layout.state.join("logs").join(LOG);
    let log = File::options().create(true).append(true).open(&file);
    let log = log.with_context(|| format!("opening {}", file.display()))?;
    let mut command = Command::new(std::env::current_exe().context("the running program")?);
    if let Some(root) = up::root_of(layout) {
        command.arg("--root").arg(root);
    }
    command.args(["ssh-agent", "--inherited", "--socket"]).arg(socket.path());
    command.args(args.paths.iter().flat_map(|path| ["--path", path]));
    command.stdin(std::os::fd::OwnedFd::from(listener)).stdout(Stdio::null()).stderr(log);
    // Out of this terminal's reach, as the node itself.
    command.process_group(0);
    Ok(command.spawn().context("starting the agent")?.id())
}

/// Serves until a signal says that it is over.
async fn until_told(agent: Agent, listener: std::os::unix::net::UnixListener) -> Result<()> {
    let mut signals = Signals::new()?;
    tokio::select! {
        failed = agent.serve(listener) => failed,
        _ = signals.next() => Ok(()),
    }
}

/// Serves as long as the command runs; its exit code.
async fn beside(
    agent: Agent,
    listener: std::os::unix::net::UnixListener,
    mut command: tokio::process::Command,
) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut child = command.spawn().map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => crate::exit::NOT_FOUND,
            _ => crate::exit::NOT_EXECUTABLE,
        };
        Failure::new(
            code,
            format!("cannot run {}: {error}", command.as_std().get_program().to_string_lossy()),
        )
    })?;
    let serving = agent.serve(listener);
    tokio::pin!(serving);
    loop {
        tokio::select! {
            failed = &mut serving => {
                let _ = child.kill().await;
                failed?;
                bail!("the agent's socket was closed");
            }
            ended = child.wait() => return code_of(ended.context("waiting for the command")?),
            // An interrupt reaches the command as well, which decides what it means.
            told = signals.next() => if told == SignalKind::terminate() {
                return end(child).await;
            },
        }
    }
}

/// Asks, waits, insists.
async fn end(mut child: tokio::process::Child) -> Result<ExitCode> {
    let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    match tokio::time::timeout(COMMAND_GRACE, child.wait()).await {
        Ok(ended) => code_of(ended.context("waiting for the command")?),
        Err(_) => {
            child.kill().await.context("ending the command")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn code_of(status: std::process::ExitStatus) -> Result<ExitCode> {
    use std::os::unix::process::ExitStatusExt;
    let signal = status.signal().map(|signal| 128 + signal);
    let code = status.code().or(signal).context("the command has neither code nor signal")?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

struct Signals([(SignalKind, tokio::signal::unix::Signal); 3]);

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| anyhow::Ok((kind, signal(kind).context("listening for signals")?));
        Ok(Self([
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) -> SignalKind {
        let [(term, one), (int, two), (hup, three)] = &mut self.0;
        tokio::select! {
            _ = one.recv() => *term,
            _ = two.recv() => *int,
            _ = three.recv() => *hup,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        let word = |text: &str| quoted(Path::new(text));
        assert_eq!(word("/run/user/0/bailiwick/ssh-agent.sock"), "/run/user/0/bailiwick/ssh-agent.sock");
        assert_eq!(word("/a b/$(x)"), "'/a b/$(x)'");
        assert_eq!(word("/it's"), r"'/it'\''s'");
    }
}
