//! `bailiwick key` and `ssh-agent`.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Print the public key of a path; for `@x509` as PEM, for `@jwt` as a JSON web key.
    Public {
        path: String,
        /// As ssh and git take it, `ssh-ed25519 AAAA…`; the path ends in `/@ssh`.
        #[arg(long)]
        ssh: bool,
        /// Of this epoch instead of the current one.
        #[arg(long, value_name = "NUMBER")]
        epoch: Option<u32>,
    },
    /// Sign a file (`-` for standard input); each use is decided and recorded.
    Sign { path: String, file: PathBuf },
    /// Verify a signature over a file.
    Verify { public_key: String, signature: String, file: PathBuf },
    /// Encrypt a file (`-` for standard input, at most 64 KiB) to a key path; each use is decided and recorded.
    Encrypt {
        path: String,
        file: PathBuf,
        /// Where the result goes; standard output by default.
        #[arg(long, short = 'O', value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Decrypt what was encrypted to a key path; each use is decided and recorded.
    Decrypt {
        path: String,
        file: PathBuf,
        /// Where the result goes; standard output by default.
        #[arg(long, short = 'O', value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Print what is public about a key path.
    Info { path: String },
    /// Move a key path to its next epoch: a new key signs and encrypts, the old ones still verify and decrypt.
    Rotate {
        path: String,
        /// Why; on record.
        #[arg(long)]
        reason: String,
    },
    /// Move the seals of the seed and the signing keys to what will open them from now on; the node is stopped.
    Reseal {
        #[command(flatten)]
        by: SealBy,
        #[command(flatten)]
        now: Opens,
        /// Read the new passphrase from this file (`-` for standard input).
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
    /// Wipe the seed from the boundary: no key is used until somebody unlocks it, also after a restart.
    Lock {
        /// Why; on record.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Open the seed again; a passphrase is asked for, and reaches the boundary alone.
    Unlock {
        #[command(flatten)]
        now: Opens,
        /// Why; on record.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

impl SealBy {
    pub const fn is_given(&self) -> bool {
        self.tpm.is_some() || self.credential.is_some() || self.passphrase || self.local
    }
}

/// What opens the seed as it is sealed now, where it cannot be found.
#[derive(Debug, Args)]
pub struct Opens {
    /// Read the passphrase from this file (`-` for standard input) instead of asking on the terminal.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// The folder that holds the credential; `$CREDENTIALS_DIRECTORY` by default.
    #[arg(long, value_name = "DIR")]
    pub credential_from: Option<PathBuf>,
}

/// What opens the seals.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct SealBy {
    /// The TPM 2.0 at this path: `/dev/tpmrm0`, or a software TPM's Unix socket.
    #[arg(long, value_name = "PATH")]
    pub tpm: Option<PathBuf>,
    /// The file `bailiwick.seal` of this folder, which is `$CREDENTIALS_DIRECTORY` at the next start; as now by default.
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    pub credential: Option<Option<PathBuf>>,
    /// A passphrase for the seed alone: the node comes up locked, and the signing keys stay sealed as they are.
    #[arg(long)]
    pub passphrase: bool,
    /// A key file beside the seals, which protects no stolen disk.
    #[arg(long)]
    pub local: bool,
}

/// Prints what a shell evaluates, as `ssh-agent` does, and serves in the background.
#[derive(Debug, Args)]
pub struct SshAgent {
    /// Key path to offer, ending in `/@ssh`; may be repeated. Your own by default, `/orbital/users/admin/@ssh`.
    #[arg(long = "path", value_name = "KEYPATH")]
    pub paths: Vec<String>,
    /// Where to listen; `ssh-agent.sock` in the node's runtime folder by default.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Stay in the foreground.
    #[arg(short = 'D', long)]
    pub foreground: bool,
    /// Standard input is the socket that listens; only this program itself does so.
    #[arg(long, hide = true)]
    pub inherited: bool,
    /// Run this with the agent instead, and end with it.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "foreground")]
    pub command: Vec<OsString>,
}

/// Recovery words: the root seed on paper.
#[derive(Debug, Subcommand)]
pub enum Recovery {
    /// Print the root seed as 24 words, on a terminal; the node is stopped. Whoever reads them has every key.
    Words {
        #[command(flatten)]
        now: Opens,
        /// Print them also where standard output is no terminal.
        #[arg(long)]
        force: bool,
    },
    /// Ask for the words and show that they would restore this node; nothing is written.
    Test,
    /// Seal the seed and the signing keys anew from the words, where nothing opens the seals any more.
    Restore {
        #[command(flatten)]
        by: SealBy,
    },
}
