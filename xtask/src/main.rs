//! The project's own commands.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("contracts") => {
            let status = Command::new("cargo")
                .args(["run", "--quiet", "--package", "contracts-gen", "--"])
                .args(args)
                .status();
            if status.is_ok_and(|s| s.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        _ => {
            eprintln!("usage: cargo xtask contracts [--check]");
            ExitCode::from(2)
        }
    }
}
