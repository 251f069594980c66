//! `network`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
    /// Make one request of HTTP, decided and on record as any service's.
    Fetch(Fetch),
    /// Ask for the addresses of a name.
    Resolve { name: String },
    /// Show the rules by URL that are in force, with limits and authorities; or put others in their place.
    Rules {
        #[command(subcommand)]
        change: Option<RulesChange>,
    },
    /// Say which rules would decide about a URL, by URL and by address. Nothing is sent.
    Test {
        url: String,
        /// Whose request it would be: a service, or `system`, `runtime`, `application`.
        #[arg(long = "as", value_name = "SERVICE|CLASS")]
        whom: Option<String>,
        /// The address that the URL's name would lead to: what rules about connections see.
        #[arg(long)]
        address: Option<std::net::IpAddr>,
    },
}

#[derive(Debug, Args)]
pub struct Fetch {
    pub url: String,
    #[arg(short = 'X', long, default_value = "GET")]
    pub method: String,
    /// `Name: value`. Can be given again.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub headers: Vec<String>,
    /// What is sent: text, or `@FILE`. The method is POST then, unless it is given.
    #[arg(short, long, value_name = "TEXT|@FILE")]
    pub data: Option<String>,
    /// Where the body goes; standard output otherwise.
    #[arg(short = 'O', long = "out", value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[arg(long, default_value_t = 30_000)]
    pub timeout_ms: u32,
    /// A redirect is the answer.
    #[arg(long)]
    pub no_redirects: bool,
}

#[derive(Debug, Subcommand)]
pub enum RulesChange {
    /// Everything that is in force is replaced; `network rules` shows the form of the file.
    Set { file: PathBuf },
}
