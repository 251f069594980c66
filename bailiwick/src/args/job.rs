use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Deterministic jobs: declared inputs, outputs by hash, a signed receipt.
#[derive(Debug, Subcommand)]
pub enum Job {
    /// Submit a job and follow it to its end.
    Submit(SubmitJob),
    /// List jobs, oldest first.
    List {
        /// Only those in this state.
        #[arg(long)]
        state: Option<String>,
    },
    /// Show one job.
    Status {
        /// Its id, or the beginning of it.
        job: String,
    },
    /// End a job that is not over.
    Cancel {
        job: String,
        #[arg(long, default_value = "asked by the operator")]
        reason: String,
    },
    /// List the outputs of a job, or write them into a folder.
    Outputs {
        job: String,
        /// Write each under its name into this folder, where none of them is yet.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Show the signed receipt of a job, or write its bytes.
    Receipt {
        job: String,
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Check a receipt, run its job again and compare.
    Verify(VerifyJob),
}

#[derive(Debug, Args)]
pub struct SubmitJob {
    /// The manifest, in TOML.
    pub manifest: PathBuf,
    /// Send this file as an input; its hash and size are filled in where the manifest has none.
    #[arg(long = "input", value_name = "NAME=FILE")]
    pub inputs: Vec<String>,
    /// Send this file as the executable; its hash is filled in where the manifest has none.
    #[arg(long, value_name = "FILE")]
    pub executable: Option<PathBuf>,
    /// Do not follow it; print its id.
    #[arg(short, long)]
    pub detach: bool,
    /// Show the whole manifest that would be submitted, and submit nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct VerifyJob {
    /// A job's id, or a file with a receipt.
    pub what: String,
    /// Only look at the file: hash, issuer, signature. No node is asked.
    #[arg(long)]
    pub offline: bool,
    /// Identity that is trusted to issue it; by default the node's own process_manager.
    #[arg(long, value_name = "ID")]
    pub issuer: Option<String>,
}
