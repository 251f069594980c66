//! The supervisor as a process: performs what the machine in `core` decides.
//!
//! Reading order: `start` from the command line to the first step, `takeover` what a supervisor before left; `run` the loop; `launches`, `settling` and `plans` how a
//! service comes into being; `sockets` who can talk to whom, `clients` how a running service learns of it; `contract` what callers see.

mod activation;
mod acts;
mod apply;
mod arguments;
mod clients;
mod contract;
mod control;
mod execute;
mod execute_streams;
mod execute_wanted;
mod fd_store;
mod foresight;
mod grants;
mod history;
mod host_manager;
mod idle;
mod image_holds;
mod inputs;
mod keeper_client;
mod knowledge;
mod launches;
mod lifecycle;
mod listeners;
mod logs;
mod marker;
mod measure;
mod memory;
mod noticed;
mod notify;
mod ownership;
mod pin;
mod plans;
mod preparing;
mod pressure;
mod probes;
mod records;
mod refusal;
mod registry;
mod run;
mod settling;
mod socket_changes;
mod sockets;
mod start;
mod takeover;
mod timers;
mod turns;
mod way_out;

use std::process::ExitCode;

use sandbox::Features;

pub use apply::ReadPlace;
pub use arguments::{Arguments, ArgumentsError};

use crate::keeper::KEEPER_FD;

/// After an emergency shutdown; the mark on the disk says why.
pub const EXIT_EMERGENCY: u8 = 3;
/// Started otherwise than by the keeper.
const EXIT_NO_KEEPER: u8 = 2;
/// Stack of a thread for blocking work.
const THREAD_STACK_BYTES: usize = 512 * 1024;

/// Becomes the supervisor of a node. The keeper is its parent and has left the channel at [`KEEPER_FD`].
#[must_use]
pub fn main(arguments: Arguments, read_place: ReadPlace) -> ExitCode {
    kit::observe::start_log(sockets::SUPERVISOR);
    let channel = match i32::try_from(KEEPER_FD)
        .map_err(std::io::Error::other)
        .and_then(sandbox::inherited::adopt_descriptor)
    {
        Ok(channel) => channel,
        Err(error) => {
            tracing::error!(%error, "a supervisor is started by the keeper; use `bailiwick up`");
            return ExitCode::from(EXIT_NO_KEEPER);
        }
    };
    // Makes and ends a child, which only a process with one thread may do.
    let features = Features::detect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(THREAD_STACK_BYTES)
        .max_blocking_threads(preparing::BLOCKING_THREADS_MAX)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(start::run(arguments, features, channel, read_place));
    runtime.shutdown_background();
    match result {
        Ok(end) if end.emergency => ExitCode::from(EXIT_EMERGENCY),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the node cannot be supervised");
            ExitCode::FAILURE
        }
    }
}
