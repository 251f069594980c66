//! `bailiwick import`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct Import {
    /// Units by path or by name (`nginx.service`, `postgresql@15-main.service`), each with its drop-ins; `.socket` and `.timer`
    /// units beside their service; Quadlet's `.container`; compose files (`.yml`, `.yaml`).
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Folder for the manifests, one NAME.toml each; made if it is not there.
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    pub out: Option<PathBuf>,
    /// Only report; write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Overwrite manifests that are there.
    #[arg(long)]
    pub force: bool,
    /// Show every setting, also those that are mapped and those that change nothing.
    #[arg(long)]
    pub all: bool,
    /// A key whose loss is known and accepted: refused, it no longer makes the command end with 6. May be repeated.
    #[arg(long, value_name = "KEY")]
    pub accept: Vec<String>,
}
