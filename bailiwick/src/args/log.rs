//! `bailiwick log`, `verify` and `witness`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Log {
    /// Show entries.
    Show {
        /// Sequence, or FROM..TO; the last 20 by default.
        range: Option<String>,
        /// Only these types, by name.
        #[arg(long = "type")]
        types: Vec<String>,
        /// Go on with what is appended.
        #[arg(short, long)]
        follow: bool,
    },
    /// Show the last entries.
    Tail {
        /// How many.
        #[arg(short = 'n', long = "lines", default_value_t = 20, value_name = "NUMBER")]
        lines: u64,
        /// Only these types, by name.
        #[arg(long = "type")]
        types: Vec<String>,
        /// Go on with what is appended.
        #[arg(short, long)]
        follow: bool,
    },
    /// Show entries as they are appended.
    Follow {
        /// Only these types, by name.
        #[arg(long = "type")]
        types: Vec<String>,
    },
    /// Verify a log without any service: every entry, group, header and padding byte.
    Verify {
        /// The log's folder, the node's own by default; several are one log: archives and what is left.
        folder: Vec<PathBuf>,
        /// A signed head kept elsewhere, to find truncation.
        #[arg(long)]
        head: Option<PathBuf>,
        /// A signed checkpoint kept elsewhere: finds truncation, and a history that was changed before it.
        #[arg(long)]
        checkpoint: Option<PathBuf>,
        /// The log's key, as `bailiwick log checkpoint -o json` names it: the log is one that this key signs.
        #[arg(long)]
        key: Option<String>,
    },
    /// Check the receipts of a range of the log, and print one hash over its entries and what closes them.
    Audit {
        /// Sequence, or FROM..TO; the whole log by default.
        range: Option<String>,
        /// The log's folder; the node's own by default.
        #[arg(long, value_name = "FOLDER")]
        log: Option<PathBuf>,
        /// Where the receipts of jobs are, by their hashes; the node's images by default.
        #[arg(long, value_name = "FOLDER")]
        images: Option<PathBuf>,
    },
    /// Print the signed head; keep it elsewhere.
    Head,
    /// Fold the log from genesis and print the state's hash.
    Replay {
        /// The log's folder, the node's own by default; archives of it behind it.
        folder: Vec<PathBuf>,
    },
    /// Take whole segments below a cosigned checkpoint out of the log, into a folder of your own.
    Archive(ArchiveArgs),
    /// Put archived segments back, on a node that is down.
    Restore {
        /// Where they are, from genesis on.
        #[arg(required = true)]
        dir: Vec<PathBuf>,
    },
    /// Print the signed checkpoint of the log's tree; keep it elsewhere.
    Checkpoint,
    /// Publish the log into a folder for any web server: tiles, entries, checkpoint. Run again, it adds what is new.
    Publish {
        dir: PathBuf,
        #[command(flatten)]
        log: LogFrom,
    },
    /// Prove that one entry stands in the log, as a C2SP proof with the entry in it.
    Prove {
        sequence: u64,
        /// File to write, also as `-o FILE`; standard output by default.
        file: Option<PathBuf>,
        #[command(flatten)]
        log: LogFrom,
    },
    /// Write entries, proofs, checkpoint and public keys into one file for a third party.
    Export {
        /// File to write, also as `-o FILE`.
        file: Option<PathBuf>,
        /// First entry.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Last entry; by default the last one of the checkpoint.
        #[arg(long)]
        to: Option<u64>,
        /// Key of a witness whose signature the checkpoint must carry and the file is to name; may be repeated.
        #[arg(long, value_name = "KEY")]
        witness: Vec<String>,
        /// An older checkpoint of this log: the file then shows that the log still contains it.
        #[arg(long, value_name = "CHECKPOINT")]
        since: Option<PathBuf>,
        #[command(flatten)]
        log: LogFrom,
    },
    /// Print what to send to a witness (`add-checkpoint`) for a published log.
    Request {
        dir: PathBuf,
        /// Entries of the checkpoint that the witness signed last.
        #[arg(long, default_value_t = 0)]
        old: u64,
    },
    /// Add a witness' answer, read from standard input, to the checkpoint of a published log.
    Cosign {
        dir: PathBuf,
        /// Key of the witness.
        #[arg(long, value_name = "KEY", required = true)]
        witness: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct ArchiveArgs {
    /// Folder for the segments; made if its parent is there.
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    pub to: Option<PathBuf>,
    /// The checkpoint with the signatures of witnesses: that of a published log, after `log cosign`.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// Key of a witness that signed it; may be repeated.
    #[arg(long, value_name = "KEY", required = true)]
    pub witness: Vec<String>,
    /// Only what lies before this entry.
    #[arg(long, value_name = "SEQUENCE")]
    pub before: Option<u64>,
    /// Only what is older than so many days.
    #[arg(long, value_name = "NUMBER")]
    pub keep_days: Option<u64>,
    /// Say what it would take, and take nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Which log, and which of its checkpoints.
#[derive(Debug, Args)]
pub struct LogFrom {
    /// The log's folder; the node's own by default.
    #[arg(long, value_name = "FOLDER")]
    pub log: Option<PathBuf>,
    /// Where segments of it are archived; may be repeated. The places that its edge names are looked at anyway.
    #[arg(long, value_name = "FOLDER")]
    pub archive: Vec<PathBuf>,
    /// A signed checkpoint of it; by default the node is asked, or the one that it kept is taken.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// Evidence, a proof, or the folder of a published log.
    pub path: PathBuf,
    /// The log's key as you know it from elsewhere, NAME+ID+BASE64.
    #[arg(long)]
    pub key: Option<String>,
    /// Key of a witness that must have signed; may be repeated.
    #[arg(long, value_name = "KEY")]
    pub witness: Vec<String>,
    /// A checkpoint of this log that you kept: the log must still contain it.
    #[arg(long, value_name = "CHECKPOINT")]
    pub remembered: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Witness {
    /// Make a witness in a folder and print its key.
    Init {
        folder: PathBuf,
        /// Its name, a host and path without scheme, for example `witness.example/w1`.
        name: String,
    },
    /// Witness the log with this key, NAME+ID+BASE64.
    Trust { folder: PathBuf, key: String },
    /// Answer a request read from standard input: sign, or refuse and say why.
    Add { folder: PathBuf },
}
