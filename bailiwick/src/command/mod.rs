//! One file for each group of commands; each asks a service and shows the answer.

mod capability;
mod identity;
mod key;
mod log;
mod policy;
mod process;
mod service;
mod status;
mod why;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use base::layout::Layout;

use crate::{
    args::{Cli, Command, Log},
    node::Node,
    prove, up,
};

/// Runs one command of a person.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let output = cli.output;
    match cli.command {
        Command::Prove(args) => return prove::run(&args),
        Command::Man { folder } => return write_manual(&folder).map(|()| ExitCode::SUCCESS),
        _ => {}
    }
    let layout = layout(cli.root)?;
    match cli.command {
        Command::Up(args) => return up::run(&layout, &args),
        // These work on files alone.
        Command::Log(Log::Verify { folder, head }) => {
            log::verify(output, &log::folder(&layout, folder), head.as_deref())?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Log(Log::Replay { folder }) => {
            log::replay(output, &log::folder(&layout, folder))?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Log(Log::Show { range, types, follow: false }) => {
            log::show(output, &layout.log(), range.as_deref(), &types)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let node = Node::find(layout)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        match cli.command {
            Command::Down => status::down(&node).await?,
            Command::Status => status::show(&node, output).await?,
            Command::Run(args) => return process::run(&node, output, args).await,
            Command::Why(args) => why::run(&node, output, &args.what).await?,
            Command::Ps => process::list(&node, output).await?,
            Command::Kill(args) => process::kill(&node, output, args).await?,
            Command::Service(args) => service::run(&node, output, args).await?,
            Command::Log(args) => log::online(&node, output, args).await?,
            Command::Policy(args) => policy::run(&node, output, args).await?,
            Command::Key(args) => key::run(&node, output, args).await?,
            Command::Identity(args) => identity::run(&node, output, args).await?,
            Command::Capability(args) => capability::run(&node, output, args).await?,
            Command::Up(_) | Command::Prove(_) | Command::Completions { .. } | Command::Man { .. } => {}
            Command::Process(_) => {}
        }
        Ok(ExitCode::SUCCESS)
    })
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
