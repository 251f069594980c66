//! The supervisor's decisions, driven through its public interface by a world without processes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests end the test like the tests do"
)]

mod adoption;
mod boot;
mod calendar;
mod catalogue;
mod defects;
mod demand;
mod failures;
mod health;
mod late;
mod limits;
mod manifests;
mod records;
mod requests;
mod shipped;
mod shutdown;
mod simulation;
mod stops_taken_over;
mod timers;
mod wire;
mod world;
