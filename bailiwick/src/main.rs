//! The one binary: the command line, and the entry point that becomes any process of a node.
//!
//! It only parses, asks services, and shows; what is decided is decided elsewhere.

#![allow(unreachable_pub, reason = "in a program `pub` marks what a module shows to its siblings")]

mod args;
mod command;
mod exit;
mod first_boot;
mod head;
mod job_attempt;
mod lone_boundary;
mod node;
mod output;
mod passphrase;
mod process;
mod prove;
mod recovery;
mod site;
mod terminal;
mod token;
mod units;
mod up;

use std::process::ExitCode;

use clap::CommandFactory;

use args::{Cli, Command};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = Cli::read(&arguments);
    match cli.command {
        // Processes of the node choose their own runtime and answer with their own codes.
        Command::Process(process) => process::become_process(&process),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "bailiwick", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        _ => match command::run(cli) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("bailiwick: {error:#}");
                exit::code_of(&error)
            }
        },
    }
}
