//! Calls over real sockets, to servers of these tests on this host.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, helpers too"
)]

#[path = "calls/fetch.rs"]
mod fetch;
#[path = "calls/hostile.rs"]
mod hostile;
#[path = "../../../../crates/kit/tests/support/node.rs"]
mod node;
#[path = "calls/policy.rs"]
mod policy;
#[path = "calls/rig.rs"]
mod rig;
#[path = "calls/web_socket.rs"]
mod web_socket;
