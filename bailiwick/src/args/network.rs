//! `network`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Network {
    /// List sockets and connections of all services: whose, where to, how much, by which entry of the log.
    Flows,
    /// List the interfaces of this host.
    Interfaces,
    /// Cut a live connection; what it has queued is not delivered.
    Revoke {
        /// As `network flows` shows it.
        connection: String,
        /// For the record.
        #[arg(long, default_value = "asked by the operator")]
        reason: String,
    },
}
