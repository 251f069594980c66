//! The commands that are started most often, read without building the others: the whole command line has some hundred
//! arguments, which takes longer than all else that such a command does by itself.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use super::{Cli, Command, Common, Process, Run};

#[derive(Debug, Parser)]
#[command(name = "bailiwick", disable_help_subcommand = true)]
struct Frequent {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: FrequentCommand,
}

#[derive(Debug, Subcommand)]
enum FrequentCommand {
    Run(Box<Run>),
    #[command(subcommand)]
    Process(Process),
}

impl Cli {
    /// What these arguments say; ends the process with help or an error if they say nothing else.
    #[must_use]
    pub fn read(arguments: &[OsString]) -> Cli {
        // Whatever is wrong with one of the frequent ones, the whole command line says it.
        Self::frequent(arguments).unwrap_or_else(|| Self::parse_from(arguments))
    }

    fn frequent(arguments: &[OsString]) -> Option<Cli> {
        let Frequent { common, command } = Frequent::try_parse_from(arguments).ok()?;
        let command = match command {
            FrequentCommand::Run(run) => Command::Run(run),
            FrequentCommand::Process(process) => Command::Process(process),
        };
        Some(Cli { common, command })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn what_is_read_apart_is_what_the_whole_would_say() {
        for line in [
            "bailiwick run -- /bin/true --help -o json",
            "bailiwick --root /r run -o json --mem 64M --fs /a:rw -e A=1 prog a b",
            "bailiwick run --root /r --detach prog --root x",
            "bailiwick process monitor",
            "bailiwick process service axiom",
            "bailiwick process supervisor --state /s --run /r",
        ] {
            let (apart, whole) = (Cli::frequent(&words(line)), Cli::try_parse_from(words(line)));
            assert_eq!(
                apart.map(|cli| format!("{cli:?}")),
                whole.ok().map(|cli| format!("{cli:?}")),
                "{line}"
            );
        }
    }

    #[test]
    fn help_errors_and_all_others_are_left_to_the_whole() {
        for line in [
            "bailiwick",
            "bailiwick run",
            "bailiwick run --help",
            "bailiwick --help",
            "bailiwick --version",
            "bailiwick status",
            "bailiwick run --mem",
            "bailiwick process",
        ] {
            assert!(Cli::frequent(&words(line)).is_none(), "{line}");
        }
    }
}
