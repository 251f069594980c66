//! `bailiwick policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Show the rules in force, in the order in which they are tried.
    List,
    /// Add the rules of a TOML file.
    Add { file: PathBuf },
    /// Take a rule out of force.
    Remove { id: String },
    /// Check a rule file without adding it; needs no node.
    Check { file: PathBuf },
    /// Write rules as policies of another engine; needs no node for the rules of a file, and no running node for its own.
    ///
    /// Ends with 0 if the policies decide as the rules do, with 1 if some rules were left out and named, and with 2 if the
    /// rules cannot be used.
    Export(ExportArgs),
    /// Write policies of another engine as a rule file that `policy add` takes; needs no node.
    ///
    /// Ends with 0 if the rules decide as the policies do, with 1 if some policies were left out and named, and with 2 if
    /// the file cannot be used.
    Import(ImportArgs),
    /// Run the cases of a file against its rules; needs no node.
    ///
    /// The file is TOML: `[[rule]]` tables, `rules = "FILE"` or `rules = "node"` for the rules of the node's log; an
    /// `[[identity]]` for everybody the cases speak of (name, type, parent, key_path); and a `[[case]]` each with
    /// requestor, action, resource and effect, if need be also rule, conditions, context, time_ns and times.
    /// Ends with 1 if a case fails and with 2 if the file cannot be used.
    Test { file: PathBuf },
    /// Make recorded decisions again under changed rules and show those that would differ; needs no running node.
    ///
    /// Ends with 0 if none differs, with 1 if some do and with 2 if it could not be tried.
    WhatIf(WhatIfArgs),
    /// Show which identities would be allowed something now, by which rule; needs no running node.
    WhoCan {
        /// Action kind, for example `sign`.
        action: String,
        /// Resource, for example `/orbital/users/admin`.
        resource: String,
    },
    /// Print how many rules and identities are in force, and the hash over them.
    State,
    /// Ask for a decision, on record.
    Evaluate {
        /// Action kind, for example `sign`.
        action: String,
        /// Resource, for example `/orbital/users/admin`.
        resource: String,
        #[arg(long = "as")]
        identity: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// As Cedar policies.
    #[arg(long, required = true)]
    pub cedar: bool,
    /// A rule file; the rules of the node's log by default.
    pub rules: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// From Cedar policies.
    #[arg(long, required = true)]
    pub cedar: bool,
    /// The policies.
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct WhatIfArgs {
    /// A rule file; each rule takes the place of the one with its id, or is one more.
    pub rules: PathBuf,
    /// First entry to try it on: its sequence, or a time before the last entry such as 2h.
    #[arg(long, default_value = "0")]
    pub since: String,
    /// The file's rules are all that there are.
    #[arg(long)]
    pub only: bool,
    /// Without this rule; can be given more than once.
    #[arg(long, value_name = "RULE")]
    pub without: Vec<base::RuleId>,
}
