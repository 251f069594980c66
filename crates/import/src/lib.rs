//! Manifests out of systemd units, Quadlet containers and compose files.
//!
//! Promises: each setting that is read has its fate in the report: mapped, approximated (and how), refused (and why), or
//! ignored (and why); nothing is passed over in silence, and what is not known is refused. The same files and the same
//! answers of the host give the same manifests. Takes any text without a panic, and no memory for what a text claims.
//! Never does: I/O, clocks, dice; `Host` is asked through a trait. Knows no service: what comes out is text.

mod compose;
mod fits;
mod host;
pub mod keys;
pub mod limits;
mod manifest;
mod parts;
mod ports;
mod report;
mod service;
mod unit;
mod units;
mod yaml;

pub use compose::compose;
pub use host::{Host, Unknown};
pub use manifest::Manifest;
pub use report::{Entry, Fate, Place, Report};
pub use units::{Named, units};

/// What comes out of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    pub manifests: Vec<Manifest>,
    pub report: Report,
}
