//! `exec`: one more command in the sandbox of a running program.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use base::layout::Layout;
use contracts::process_manager::v1::{
    self as pb, WindowSize, attach_output::Output as Out, execute_input::Input,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use super::process::{Interrupts, PIECES, ended, forward_stdin, pair, write_all};
use crate::{
    args::Exec,
    exit::{Failure, RUN_FAILED},
    node::{Node, failed, runtime},
    terminal, units,
};

/// Of a terminal that was asked for where none is.
const USUAL_WINDOW: WindowSize = WindowSize { rows: 24, columns: 80 };
/// What a shell says of a command that was interrupted.
const INTERRUPTED: u8 = 130;

pub fn on_node(layout: Layout, args: Exec) -> Result<ExitCode> {
    runtime()?.block_on(run(&Node::find(layout)?, args))
}

async fn run(node: &Node, args: Exec) -> Result<ExitCode> {
    let pid = find(node, &args.target).await?;
    let has_terminal = args.terminal || terminal::is_one();
    let window = || terminal::size().unwrap_or(USUAL_WINDOW);
    let mut env: Vec<(String, String)> = args.env.iter().map(|text| pair(text)).collect::<Result<_>>()?;
    if let (true, Ok(kind)) = (has_terminal, std::env::var("TERM")) {
        env.insert(0, ("TERM".to_owned(), kind));
    }
    let begin = pb::Execution {
        pid,
        command: args.command,
        env: env.into_iter().collect(),
        cwd: args.cwd,
        terminal: has_terminal.then(window),
        timeout_ms: args.timeout.as_deref().map(units::parse_duration_ms).transpose()?.unwrap_or(0),
    };
    follow(node, pid, begin).await
}

/// By number, or by the name that one running program has.
async fn find(node: &Node, target: &str) -> Result<u64> {
    if let Ok(pid) = target.parse() {
        return Ok(pid);
    }
    let mut processes = node.processes("system.process_manager.list").await?;
    let filter = pb::ProcessFilter { state: "running".to_owned(), ..Default::default() };
    let list = processes.list(filter).await.map_err(failed)?.into_inner().processes;
    let is_it = |name: &str| name == target || name.rsplit('/').next() == Some(target);
    let found: Vec<u64> = list.iter().filter(|process| is_it(&process.name)).map(|it| it.pid).collect();
    match found.as_slice() {
        [pid] => Ok(*pid),
        [] => bail!("no running program has the name {target:?}; `bailiwick ps` lists those that run"),
        several => {
            let numbers: Vec<String> = several.iter().map(ToString::to_string).collect();
            bail!(
                "{} programs have the name {target:?}; name one by number: {}",
                several.len(),
                numbers.join(", ")
            )
        }
    }
}

/// Joins this terminal to the command until it ends; its exit code becomes ours.
async fn follow(node: &Node, pid: u64, begin: pb::Execution) -> Result<ExitCode> {
    let has_terminal = begin.terminal.is_some();
    let (send, receive) = mpsc::channel(PIECES);
    send.send(said(Input::Begin(begin))).await.context("asking for the command")?;
    let mut processes = node.processes("system.process_manager.execute").await?;
    let mut interrupts = Interrupts::new()?;
    let mut streams = processes.execute(ReceiverStream::new(receive)).await.map_err(failed)?.into_inner();
    // After it was allowed: what is typed before is this shell's.
    let raw = (has_terminal && terminal::is_one()).then(terminal::Raw::enter).transpose()?;
    if raw.is_some() {
        tokio::spawn(terminal::forward_sizes(send.clone(), |size| said(Input::Resize(size))));
    }
    // Reading a terminal cannot be interrupted, so this thread is left behind when the command ends first.
    std::thread::spawn(move || {
        forward_stdin(&send, |data| said(data.map_or(Input::StdinEnd(true), Input::Stdin)));
    });
    loop {
        let message = tokio::select! {
            message = streams.next() => message,
            // The call ends with this process, and the command with it.
            _ = interrupts.next() => {
                drop(raw);
                return Ok(ExitCode::from(INTERRUPTED));
            }
        };
        let Some(message) = message else { break };
        match message.map_err(failed)?.output {
            Some(Out::Stdout(data)) => write_all(&mut std::io::stdout(), &data)?,
            Some(Out::Stderr(data)) => write_all(&mut std::io::stderr(), &data)?,
            Some(Out::Exit(reply)) => {
                // Before anything is said here.
                drop(raw);
                return Ok(ended(pid, &reply));
            }
            None => {}
        }
    }
    Err(Failure::new(RUN_FAILED, "the connection ended before the command did, which was killed then").into())
}

fn said(input: Input) -> pb::ExecuteInput {
    pb::ExecuteInput { input: Some(input) }
}
