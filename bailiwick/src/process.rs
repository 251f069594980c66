//! The entry that becomes any process of a node. Packaging only: each function is its crate's own.

use std::process::ExitCode;

use crate::args::Process;

/// A process that was started otherwise than by the node ends with this code, and says so.
const NOT_FROM_THE_NODE: u8 = 2;

/// What the keeper has for its children.
pub const PARTS: sandbox::Parts =
    sandbox::Parts { part: become_part, watch: process_manager::monitor::watch };

/// What the keeper's children go on as without an image. The monitor alone: one stands before each program.
fn become_part(arguments: &[String]) -> u8 {
    match arguments {
        [_, process, monitor] if process == "process" && monitor == "monitor" => {
            process_manager::monitor::part()
        }
        other => {
            eprintln!("bailiwick: this build has no part {other:?}");
            NOT_FROM_THE_NODE
        }
    }
}

/// As the service `network` will.
fn read_place(place: &str) -> Result<(), String> {
    network::core::Places::parse(&[place.to_owned()]).map(drop).map_err(|error| match error {
        network::core::NetError::InvalidArgument { text, .. } => text,
        other => other.to_string(),
    })
}

pub fn become_process(process: &Process) -> ExitCode {
    match process {
        Process::Supervisor { arguments } => match supervisor::Arguments::from_strings(arguments) {
            Ok(arguments) => supervisor::main(arguments, read_place),
            Err(error) => {
                eprintln!("bailiwick: the supervisor's arguments: {error}");
                ExitCode::from(NOT_FROM_THE_NODE)
            }
        },
        Process::Boundary => keys::boundary::run(),
        Process::Monitor => process_manager::monitor::main(),
        Process::Layer => process_manager::layer::main(),
        Process::Unpack => process_manager::unpack::main(),
        Process::JobAttempt { name } => crate::job_attempt::main(name),
        Process::Attempt { name } => ExitCode::from(sandbox::attempts::main(name)),
        Process::Service { name } => match name.as_str() {
            "axiom" => axiom::main(),
            "policy" => policy::main(),
            "keys" => keys::main(),
            "identity" => identity::main(),
            "capability_service" => capability_service::main(),
            "process_manager" => process_manager::main(),
            "driver_manager" => driver_manager::main(),
            "network" => network::main(),
            other => {
                eprintln!("bailiwick: this build has no service {other:?}");
                ExitCode::from(NOT_FROM_THE_NODE)
            }
        },
    }
}
