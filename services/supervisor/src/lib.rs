//! First process: boots, watches, restarts, answers where a service is; and its keeper.

pub mod core;
pub mod keeper;
pub mod manifest;
