//! The project's own commands: `cargo xtask test` is the one to know, `cargo xtask ci` is all that CI runs.
//!
//! Promise: each command does its own set-up, says what it is doing, shows the time of each step and exits with a
//! code that means something (0 held, 1 did not, 2 wrong arguments).
//! Never: part of the product; nothing depends on this crate.

mod bench;
mod ci;
mod conformance;
mod fuzz;
mod leftovers;
mod mutants;
mod new_service;
mod proc;
mod source;
mod spec;
mod steps;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>
  test [--judge-skips]              all tests of the workspace, then the system tests again without privileges;
                                    with the option, a skip that .ci/skips does not expect is a failure
  ci [--nightly]                    everything that CI runs; --nightly fuzzes longer and adds mutants and the bench
  tidy                              layering, pure cores, manifests, comments on dependencies; prints sizes
  conformance [-o json] [--missing] every row of docs/spec with the tests that cover it
  contracts [--check | --new-baseline]
                                    generates crates/contracts from proto/, refuses what breaks older clients
  new-service NAME [--phase FOLDER] makes a service (in services/6-node unless said) that passes all checks
  fuzz [NAME [FILE]] [--seconds N]  each fuzz target, or the named one, for N seconds (10 unless said);
                                    with FILE, the named target on that one input
  bench [PART...] [--quick] [-o json] [--dir DIR]
                                    measures ours beside its peers in one run, and prints the table of docs/performance.md
  mutants [PACKAGE...] [--shard K/N]
                                    how many mutants of the pure cores the tests kill; part K of N, from 0";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["test"] => test::run(test::Skips::Shown),
        ["test", "--judge-skips"] => test::run(test::Skips::Judged),
        ["ci"] => ci::run(ci::Extent::EveryChange),
        ["ci", "--nightly"] => ci::run(ci::Extent::Nightly),
        ["tidy"] => tidy::run(),
        ["conformance", options @ ..] => match conformance::Options::parse(options) {
            Some(options) => conformance::run(&options),
            None => return usage(),
        },
        ["contracts", options @ ..] => ci::contracts(options),
        ["new-service", name] => new_service::run(name, new_service::DEFAULT_PHASE),
        ["new-service", name, "--phase", phase] => new_service::run(name, phase),
        ["fuzz", options @ ..] => match fuzz::Options::parse(options) {
            Some(options) => fuzz::run(&options),
            None => return usage(),
        },
        ["bench", words @ ..] => bench::run(words),
        ["mutants", options @ ..] => match mutants::Options::parse(options) {
            Some(options) => mutants::run(&options),
            None => return usage(),
        },
        ["-h" | "--help" | "help"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => return usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
