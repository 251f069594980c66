//! Everything that the supervisor decides, without a file, socket, clock, thread or dice.
//!
//! Read `state` first (eight states, seventeen transitions), then `supervisor` (the machine around them).

pub mod calendar;
pub mod catalogue;
pub mod elf;
pub mod generations;
pub mod graph;
pub mod hang;
pub mod health;
pub mod idle;
pub mod lifecycle;
pub mod ready;
pub mod restart;
pub mod state;
pub mod supervisor;
pub mod timer;
pub mod wall;
