//! `exec`: one more command in the sandbox of a running program, or of a running service.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use base::layout::Layout;
use contracts::{
    process_manager::v1::{
        self as pb, WindowSize, attach_output::Output as Out, execute_input::Input, exit_status,
    },
    supervisor::v1::{
        self as sv, execute_input::Input as ServiceInput, execute_output::Output as ServiceOut,
        execution_end::End,
    },
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};

use super::process::{Interrupts, PIECES, ended, forward_stdin, pair, write_all};
use crate::{
    args::Exec,
    exit::{Failure, RUN_FAILED},
    node::{Node, failed, runtime},
    terminal, units,
};

/// Of a terminal that was asked for where none is.
const USUAL_WINDOW: WindowSize = WindowSize { rows: 24, columns: 80 };
/// The signal that ends what has no more time, or no service any more.
const KILLED: i32 = 9;
/// What a shell says of a command that was interrupted.
const INTERRUPTED: u8 = 130;

pub fn on_node(layout: Layout, args: Exec) -> Result<ExitCode> {
    runtime()?.block_on(run(&Node::find(layout)?, args))
}

async fn run(node: &Node, args: Exec) -> Result<ExitCode> {
    let target = find(node, &args).await?;
    let has_terminal = args.terminal || terminal::is_one();
    let window = || terminal::size().unwrap_or(USUAL_WINDOW);
    let mut env: Vec<(String, String)> = args.env.iter().map(|text| pair(text)).collect::<Result<_>>()?;
    if let (true, Ok(kind)) = (has_terminal, std::env::var("TERM")) {
        env.insert(0, ("TERM".to_owned(), kind));
    }
    let begin = pb::Execution {
        pid: if let Target::Program(pid) = target { pid } else { 0 },
        command: args.command,
        env: env.into_iter().collect(),
        cwd: args.cwd,
        terminal: has_terminal.then(window),
        timeout_ms: args.timeout.as_deref().map(units::parse_duration_ms).transpose()?.unwrap_or(0),
    };
    let (send, receive) = mpsc::channel(PIECES);
    send.send(Input::Begin(begin.clone())).await.context("asking for the command")?;
    let input = ReceiverStream::new(receive);
    let given = Given { send, has_terminal };
    match target {
        Target::Program(pid) => {
            let mut processes = node.processes("system.process_manager.execute").await?;
            let input = input.map(|input| pb::ExecuteInput { input: Some(input) });
            let interrupts = Interrupts::new()?;
            let streams = processes.execute(input).await.map_err(failed)?.into_inner();
            follow(given, interrupts, streams.map(|said| said.map(|said| said.output)), pid).await
        }
        Target::Service(name) => {
            let mut supervisor = node.supervisor_patient("system.supervisor.execute")?;
            let input = input.map(move |input| to_service(&name, input));
            let interrupts = Interrupts::new()?;
            let streams = supervisor.execute(input).await.map_err(failed)?.into_inner();
            follow(given, interrupts, streams.map(|said| said.map(|said| of_service(said.output))), 0).await
        }
    }
}

enum Target {
    Program(u64),
    Service(String),
}

async fn find(node: &Node, args: &Exec) -> Result<Target> {
    if args.service {
        return Ok(Target::Service(args.target.clone()));
    }
    if let Ok(pid) = args.target.parse() {
        return Ok(Target::Program(pid));
    }
    let mut supervisor = node.supervisor("system.supervisor.list_services")?;
    let services =
        supervisor.list_services(sv::ListServicesRequest {}).await.map_err(failed)?.into_inner().services;
    let is_service = services.iter().any(|service| service.name == args.target);
    match find_program(node, &args.target).await? {
        Some(_) if is_service => bail!(
            "{target:?} is a service and the name of a running program; say --service, or the program's number as \
             `bailiwick ps` shows it",
            target = args.target
        ),
        Some(pid) => Ok(Target::Program(pid)),
        None if is_service => Ok(Target::Service(args.target.clone())),
        None => bail!(
            "no running program has the name {target:?}, and no service; `bailiwick ps` lists the programs that run, \
             `bailiwick service list` the services",
            target = args.target
        ),
    }
}

/// By the name that one running program has.
async fn find_program(node: &Node, target: &str) -> Result<Option<u64>> {
    let mut processes = node.processes("system.process_manager.list").await?;
    let filter = pb::ProcessFilter { state: "running".to_owned(), ..Default::default() };
    let list = processes.list(filter).await.map_err(failed)?.into_inner().processes;
    let is_it = |name: &str| name == target || name.rsplit('/').next() == Some(target);
    let found: Vec<u64> = list.iter().filter(|process| is_it(&process.name)).map(|it| it.pid).collect();
    match found.as_slice() {
        [pid] => Ok(Some(*pid)),
        [] => Ok(None),
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

/// What the command is given.
struct Given {
    send: mpsc::Sender<Input>,
    has_terminal: bool,
}

/// Joins this terminal to the command until it ends; its exit code becomes ours.
async fn follow(
    Given { send, has_terminal }: Given,
    mut interrupts: Interrupts,
    mut streams: impl Stream<Item = Result<Option<Out>, tonic::Status>> + Unpin,
    pid: u64,
) -> Result<ExitCode> {
    // After it was allowed: what is typed before is this shell's.
    let raw = (has_terminal && terminal::is_one()).then(terminal::Raw::enter).transpose()?;
    if raw.is_some() {
        tokio::spawn(terminal::forward_sizes(send.clone(), Input::Resize));
    }
    // Reading a terminal cannot be interrupted, so this thread is left behind when the command ends first.
    std::thread::spawn(move || {
        forward_stdin(&send, |data| data.map_or(Input::StdinEnd(true), Input::Stdin));
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
        match message.map_err(failed)? {
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

fn to_service(name: &str, input: Input) -> sv::ExecuteInput {
    let size = |size: WindowSize| sv::TerminalSize { rows: size.rows, columns: size.columns };
    let input = match input {
        Input::Begin(begin) => ServiceInput::Begin(sv::Execution {
            name: name.to_owned(),
            command: begin.command,
            env: begin.env,
            cwd: begin.cwd,
            terminal: begin.terminal.map(size),
            timeout_ms: begin.timeout_ms,
        }),
        Input::Stdin(data) => ServiceInput::Stdin(data),
        Input::StdinEnd(end) => ServiceInput::StdinEnd(end),
        Input::Resize(new) => ServiceInput::Resize(size(new)),
    };
    sv::ExecuteInput { input: Some(input) }
}

fn of_service(output: Option<ServiceOut>) -> Option<Out> {
    Some(match output? {
        ServiceOut::Stdout(data) => Out::Stdout(data),
        ServiceOut::Stderr(data) => Out::Stderr(data),
        ServiceOut::End(end) => {
            let status = match end.end? {
                End::Code(code) => exit_status::Status::Code(code),
                End::Signal(signal) => exit_status::Status::Signal(signal),
                End::OverTime(_) => {
                    eprintln!("bailiwick: the command was ended: its time was over");
                    exit_status::Status::Signal(KILLED)
                }
                End::WithService(_) => {
                    eprintln!("bailiwick: its service ended, and the command with it");
                    exit_status::Status::Signal(KILLED)
                }
            };
            let status = Some(pb::ExitStatus { status: Some(status) });
            Out::Exit(pb::WaitReply { status, ..Default::default() })
        }
    })
}
