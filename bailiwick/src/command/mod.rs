//! One file for each group of commands; each asks a service and shows the answer.

mod capability;
mod identity;
mod key;
mod log;
mod logs;
mod policy;
mod process;
mod service;
mod status;
mod why;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use base::layout::Layout;

use crate::{
    args::{Cli, Command, Log, Output, Policy},
    node::Node,
    prove, up,
};

/// Runs one command of a person.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let output = cli.output;
    match cli.command {
        Command::Prove(args) => return prove::run(&args),
        Command::Man { folder } => return write_manual(&folder).map(|()| ExitCode::SUCCESS),
        Command::Run(args) if args.ephemeral => {
            return process::ephemeral(output, args).map_err(process::failed_run);
        }
        Command::Policy(Policy::Check { file }) => return policy::check(output, &file).map(done),
        _ => {}
    }
    let layout = layout(cli.root)?;
    match cli.command {
        Command::Up(args) => up::run(&layout, &args),
        Command::Run(args) => process::on_own_node(layout, output, args).map_err(process::failed_run),
        // These work on files alone.
        Command::Log(Log::Verify { folder, head }) => {
            log::verify(output, &log::folder(&layout, folder), head.as_deref()).map(done)
        }
        Command::Log(Log::Replay { folder }) => log::replay(output, &log::folder(&layout, folder)).map(done),
        Command::Log(Log::Show { range, types, follow: false }) => {
            log::show(output, &layout.log(), log::Which::of(range.as_deref()), &types).map(done)
        }
        Command::Log(Log::Tail { lines, types, follow: false }) => {
            log::show(output, &layout.log(), log::Which::Last(lines), &types).map(done)
        }
        command => {
            let node = Node::find(layout)?;
            runtime()?.block_on(ask(&node, output, command)).map(done)
        }
    }
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")
}

/// What a running node answers.
async fn ask(node: &Node, output: Output, command: Command) -> Result<()> {
    match command {
        Command::Down => status::down(node).await,
        Command::Status => status::show(node, output).await,
        Command::Why(args) => why::run(node, output, &args.what).await,
        Command::Ps => process::list(node, output).await,
        Command::Kill(args) => process::kill(node, output, args).await,
        Command::Apply { files } => service::apply(node, output, &files).await,
        Command::Service(args) => service::run(node, output, args).await,
        Command::Log(args) => log::online(node, output, args).await,
        Command::Policy(args) => policy::run(node, output, args).await,
        Command::Key(args) => key::run(node, output, args).await,
        Command::Identity(args) => identity::run(node, output, args).await,
        Command::Capability(args) => capability::run(node, output, args).await,
        // Answered before a node was looked for.
        Command::Up(_)
        | Command::Run(_)
        | Command::Prove(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Process(_) => Ok(()),
    }
}

/// The folders of the node that is meant.
pub fn layout(root: Option<PathBuf>) -> Result<Layout> {
    match root {
        Some(root) => {
            let absolute =
                std::path::absolute(&root).with_context(|| format!("resolving {}", root.display()))?;
            Ok(Layout::under(&absolute)?)
        }
        None => {
            let uid = rustix::process::getuid().as_raw();
            Ok(Layout::usual(uid, |name| {
                std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
            })?)
        }
    }
}

fn write_manual(folder: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    clap_mangen::generate_to(<Cli as clap::CommandFactory>::command(), folder)
        .with_context(|| format!("writing manual pages into {}", folder.display()))
}
