//! One file for each group of commands; each asks a service and shows the answer.

mod archive;
mod capability;
mod cedar;
mod checkpoint;
mod credential;
mod evidence;
mod exec;
mod identity;
mod image;
mod import;
mod io_limits;
mod job;
mod key;
mod layer;
mod learn;
mod lock;
mod log;
mod log_files;
mod log_writer;
mod logs;
mod network;
mod passkey;
mod plan;
mod policy;
mod process;
mod publish;
mod published;
mod pull;
mod recovery;
mod reseal;
mod rootfs;
mod score;
mod service;
mod ssh_agent;
mod status;
mod svid;
mod trial;
mod verify;
mod why;
mod witness;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use base::layout::Layout;

use crate::{
    args::{Cli, Command, Job, Key, Log, Output, Policy, Sandbox, To},
    exit::{Failure, USAGE},
    node::{Node, runtime},
    prove, up,
};

/// Runs one command of a person.
pub fn run(mut cli: Cli) -> Result<ExitCode> {
    let output = form(&mut cli)?;
    match cli.command {
        Command::Prove(args) => return prove::run(&args),
        Command::Man { folder } => return write_manual(&folder).map(|()| ExitCode::SUCCESS),
        Command::Sandbox(Sandbox::Score { manifest, max }) => return score::manifest(output, &manifest, max),
        Command::Run(args) if args.score => return score::flags(output, &args),
        Command::Run(args) if args.ephemeral => {
            return process::ephemeral(output, *args).map_err(process::failed_run);
        }
        Command::Policy(Policy::Check { file }) => return policy::check(output, &file).map(done),
        Command::Policy(Policy::Export(args)) => {
            return cedar::export(|| layout(cli.common.root), output, &args).map(done);
        }
        Command::Policy(Policy::Import(args)) => return cedar::import(output, &args).map(done),
        Command::Policy(Policy::Test { file }) => {
            return trial::test(|| layout(cli.common.root), output, &file).map(done);
        }
        // These work on the files that are named, also where no node can be.
        Command::Import(args) => return import::run(output, &args),
        Command::Job(Job::Verify(args)) if args.offline => {
            return job::verify_offline(output, &args).map(done);
        }
        Command::Verify(args) => return verify::run(output, &args).map(done),
        Command::Witness(args) => return witness::run(output, args).map(done),
        Command::Log(Log::Verify { folder, head, checkpoint, key }) if !folder.is_empty() => {
            let (head, checkpoint, key) = (head.as_deref(), checkpoint.as_deref(), key.as_deref());
            let against = log::Against { head, checkpoint, key, genesis: None };
            return log::verify(output, &folder, &against).map(done);
        }
        Command::Log(Log::Replay { folder }) if !folder.is_empty() => {
            return log::replay(output, &folder).map(done);
        }
        Command::Log(Log::Request { dir, old }) => return published::request(&dir, old).map(done),
        Command::Log(Log::Cosign { dir, witness }) => {
            return published::cosign(output, &dir, &witness).map(done);
        }
        _ => {}
    }
    let layout = layout(cli.common.root)?;
    match cli.command {
        Command::Up(args) => up::run(&layout, &args),
        Command::SshAgent(args) => ssh_agent::run(&layout, output, &args),
        Command::Run(args) => process::on_own_node(layout, output, *args).map_err(process::failed_run),
        Command::Exec(args) => exec::on_node(layout, args).map_err(process::failed_run),
        // These work on the node's files alone.
        Command::Key(Key::Reseal { by, now, new_passphrase_file }) => {
            reseal::run(&layout, output, &by, &now, new_passphrase_file.as_deref()).map(done)
        }
        Command::Recovery(args) => recovery::run(&layout, output, args).map(done),
        Command::Log(args) if !needs_service(&args) => offline(&layout, output, args).map(done),
        Command::Policy(Policy::WhatIf(args)) => trial::what_if(&layout, output, &args).map(done),
        Command::Policy(Policy::WhoCan { action, resource }) => {
            trial::who(&layout, output, &action, &resource).map(done)
        }
        command => {
            let node = Node::find(layout)?;
            runtime()?.block_on(ask(&node, output, command)).map(done)
        }
    }
}

/// The form of the output. A file behind `-o` goes to the commands that write one.
fn form(cli: &mut Cli) -> Result<Output> {
    let named = match &cli.common.output {
        To::Form(form) => return Ok(*form),
        To::File(named) => named.clone(),
    };
    if let Command::Log(Log::Export { file: file @ None, .. } | Log::Prove { file: file @ None, .. }) =
        &mut cli.command
    {
        *file = Some(named);
        return Ok(Output::Text);
    }
    let what = format!("-o takes `text` or `json` here, not {}", named.display());
    Err(Failure::new(USAGE, what).into())
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

/// What a running node answers.
async fn ask(node: &Node, output: Output, command: Command) -> Result<()> {
    match command {
        Command::Down => status::down(node).await,
        Command::Status => status::show(node, output).await,
        Command::Why(args) => why::run(node, output, &args.what).await,
        Command::Job(args) => job::run(node, output, args).await,
        Command::Ps => process::list(node, output).await,
        Command::Kill(args) => process::kill(node, output, args).await,
        Command::Layers => layer::list(node, output).await,
        Command::Diff(args) => layer::diff(node, output, args).await,
        Command::Commit(args) => layer::commit(node, output, args).await,
        Command::Discard { pid } => layer::discard(node, output, pid).await,
        Command::Image(args) => image::run(node, output, args).await,
        Command::Apply { files } => service::apply(node, output, &files).await,
        Command::Plan { files } => plan::show(node, output, &files).await,
        Command::Rollback { number, dry_run } => plan::rollback(node, output, number, dry_run).await,
        Command::Service(args) => service::run(node, output, args).await,
        Command::Log(args) => log::online(node, output, args).await,
        Command::Policy(args) => policy::run(node, output, args).await,
        Command::Key(args) => key::run(node, output, args).await,
        Command::Identity(args) => identity::run(node, output, args).await,
        Command::Capability(args) => capability::run(node, output, args).await,
        Command::Network(args) => network::run(node, output, args).await,
        // Answered before a node was looked for.
        Command::Up(_)
        | Command::SshAgent(_)
        | Command::Recovery(_)
        | Command::Run(_)
        | Command::Exec(_)
        | Command::Import(_)
        | Command::Sandbox(_)
        | Command::Verify(_)
        | Command::Witness(_)
        | Command::Prove(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Process(_) => Ok(()),
    }
}

const fn needs_service(log: &Log) -> bool {
    matches!(
        log,
        Log::Head | Log::Follow { .. } | Log::Show { follow: true, .. } | Log::Tail { follow: true, .. }
    )
}

/// What works on the log's files; the checkpoint may come from a node that runs.
fn offline(layout: &Layout, output: Output, log: Log) -> Result<()> {
    match log {
        Log::Verify { folder, head, checkpoint, key } => {
            let genesis = folder.is_empty().then(|| layout.genesis());
            let (head, checkpoint, key) = (head.as_deref(), checkpoint.as_deref(), key.as_deref());
            let against = log::Against { head, checkpoint, key, genesis };
            log::verify(output, &log::folders(layout, folder), &against)
        }
        Log::Replay { folder } => log::replay(output, &log::folders(layout, folder)),
        Log::Audit { range, log, images } => {
            let (log, images) =
                (log.unwrap_or_else(|| layout.log()), images.unwrap_or_else(|| layout.images()));
            log::audit(output, &log, &images, range.as_deref())
        }
        Log::Archive(args) => archive::archive(layout, output, &args),
        Log::Restore { dir } => archive::restore(layout, output, &dir),
        Log::Show { range, types, .. } => {
            log::show(output, &layout.log(), log::Which::of(range.as_deref()), &types)
        }
        Log::Tail { lines, types, .. } => log::show(output, &layout.log(), log::Which::Last(lines), &types),
        Log::Checkpoint => checkpoint::show(layout, output),
        Log::Publish { dir, log } => publish::publish(layout, output, &dir, &log),
        Log::Prove { sequence, file, log } => {
            evidence::prove(layout, output, sequence, file.as_deref(), &log)
        }
        Log::Export { file, from, to, witness, since, log } => {
            let wanted = evidence::Wanted { from, to, witnesses: &witness, since: since.as_deref() };
            let file = file
                .ok_or_else(|| Failure::new(USAGE, "which file to write? `log export -o FILE`".to_owned()))?;
            evidence::export(layout, output, &file, &wanted, &log)
        }
        Log::Request { dir, old } => published::request(&dir, old),
        Log::Cosign { dir, witness } => published::cosign(output, &dir, &witness),
        // Asked of the node.
        Log::Head | Log::Follow { .. } => Ok(()),
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
