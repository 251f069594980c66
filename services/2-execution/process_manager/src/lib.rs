//! Runs programs from content-addressed images under an identity and limits.
//!
//! Promises: a program runs only after its creation is in the log, from exactly the content that the entry names, in a
//! sandbox that shows it what it was granted and nothing else; the same idempotency key starts one process; a process
//! id is never used twice; an exit status is kept until somebody has waited or 60 s have passed.
//! Never does: decide (policy does), fork (the keeper does), parse what a program writes, give a network.
//! Calls policy and the log feed through the kit, the keeper over an inherited channel, and each program's monitor
//! over a socket in its own state folder. When it dies, programs and monitors go on; its replacement reads the log,
//! connects to the monitors again, closes what was committed and never ran as `Unknown`, and starts nothing twice.
//! When a monitor dies, its program dies with it and its exit is recorded as `Unknown`.

pub mod core;
pub mod layer;
pub mod monitor;
mod shell;
pub mod unpack;

pub use shell::main;
