//! `bailiwick capability`.

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub enum Capability {
    /// Grant rights (`rwxdv`: read, write, execute, delegate, revoke) on `TYPE:ID` to an identity.
    Grant {
        resource: String,
        rights: String,
        to: String,
        #[command(flatten)]
        limits: Limits,
    },
    /// Pass a part of a capability that you hold on to another identity.
    Delegate { id: String, rights: String, to: String },
    /// Tell whether an identity has rights on `TYPE:ID`.
    Check { identity: String, resource: String, rights: String },
    /// Check a use and count it: what has a rate or a context is confirmed by this alone.
    Use {
        identity: String,
        resource: String,
        rights: String,
        /// What is so about this use; may be repeated.
        #[arg(long, value_name = "KEY=VALUE")]
        context: Vec<String>,
    },
    /// Show who holds what on `TYPE:ID`.
    Who { resource: String },
    /// Show a capability and all above it, back to the grant at its root.
    Chain { id: String },
    /// Show what is derived from what: from one capability on, from one holder's, or all.
    Tree {
        id: Option<String>,
        #[arg(long, conflicts_with = "id")]
        holder: Option<String>,
    },
    /// Show what was granted, passed on and taken back; of one capability, or of all.
    History {
        id: Option<String>,
        /// Only what this identity did.
        #[arg(long, value_name = "IDENTITY")]
        by: Option<String>,
        #[arg(long)]
        operation: Option<CapabilityOperation>,
        /// Not older than this: `10m`, `2h`.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Older than this.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// So many at most, the newest.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show capabilities, all or one holder's.
    List {
        #[arg(long)]
        holder: Option<String>,
    },
    /// Take a capability back.
    Revoke {
        id: String,
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// When, how often and where a capability may be used.
#[derive(Debug, Args)]
pub struct Limits {
    /// End it after this time: `10m`, `2h`.
    #[arg(long, value_name = "TIME")]
    pub expires_in: Option<String>,
    /// Hours of the day in UTC: `08:00-16:30`.
    #[arg(long, value_name = "FROM-TO")]
    pub hours: Option<String>,
    /// Uses in any window of at most an hour: `10/60s`.
    #[arg(long, value_name = "COUNT/TIME")]
    pub rate: Option<String>,
    /// What must be so about each use; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub context: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
pub enum CapabilityOperation {
    Grant,
    Delegate,
    Revoke,
}
