//! `bailiwick identity`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub enum Identity {
    /// Show all identities.
    List,
    /// Show one identity.
    Show { name: String },
    /// Make an identity with a key of its own.
    Create {
        name: String,
        /// `Organization`, `User`, `Service` or `Node`
        #[arg(long = "type", default_value = "User")]
        identity_type: String,
        /// Parent by name; your own by default.
        #[arg(long)]
        parent: Option<String>,
        #[arg(long)]
        key_path: Option<String>,
    },
    /// Take an identity's rights away until it is resumed.
    Suspend {
        name: String,
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Give a suspended identity its rights back.
    Resume {
        name: String,
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Take an identity's rights away for good.
    Revoke {
        name: String,
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Show who you are to the node.
    Whoami,
    /// Show which SVIDs a service gets, if its manifest says `[identity] workload_api = true`; none is issued.
    Svid {
        /// The service's name.
        service: String,
    },
    /// Print what SVIDs of this node are verified with, as a SPIFFE bundle (JSON web keys).
    Bundle {
        /// The authority's certificate as PEM instead, for X.509 alone.
        #[arg(long)]
        pem: bool,
        /// Where it goes; standard output by default.
        #[arg(long, short = 'O', value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// What an identity proves itself with: keys that can be shown, hashed and revoked.
    #[command(subcommand)]
    Credential(Credential),
    /// Make or use a passkey, on a page that this command shows to a browser of this machine.
    #[command(subcommand)]
    Passkey(Passkey),
    /// Answer a challenge with a credential; prints a token that is bound to this channel.
    Login {
        #[arg(long, value_name = "ID")]
        credential: String,
        /// File with the API or recovery key (`-` for standard input). Without one, the key path of a derived key signs.
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        /// Key path of a derived key; your own by default.
        #[arg(long, default_value = "/orbital/users/admin", conflicts_with = "key_file")]
        key_path: String,
        #[command(flatten)]
        token: TokenArgs,
    },
    /// Issue a token for yourself, bound to this channel.
    Token {
        #[arg(long, default_value_t = 3600)]
        lifetime_s: u32,
    },
}

/// The token that a login gives.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Kinds of action that the token permits; all that the credential does by default.
    #[arg(long = "action", value_name = "KIND")]
    pub actions: Vec<String>,
    /// Resource patterns (`type:id`) that the token permits; all that the credential does by default.
    #[arg(long = "resource", value_name = "PATTERN")]
    pub resources: Vec<String>,
    #[arg(long, default_value_t = 3600)]
    pub lifetime_s: u32,
    /// Keep the token for the next commands instead of printing it.
    #[arg(long)]
    pub keep: bool,
}

#[derive(Debug, Subcommand)]
pub enum Passkey {
    /// Make a passkey and add it to an identity.
    Add {
        /// A name for people.
        #[arg(default_value = "")]
        name: String,
        /// Whose it is; your own by default.
        #[arg(long)]
        identity: Option<String>,
        #[command(flatten)]
        page: PasskeyPage,
    },
    /// Log in with a passkey; prints a token that is bound to this channel.
    Login {
        /// Whose passkey; your own by default.
        #[arg(long)]
        identity: Option<String>,
        /// Which passkey, for an identity with several.
        #[arg(long, value_name = "ID")]
        credential: Option<String>,
        #[command(flatten)]
        token: TokenArgs,
        #[command(flatten)]
        page: PasskeyPage,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub struct PasskeyPage {
    /// Port of the page on this machine's loopback; a free one by default.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// How long the page waits for an answer, in seconds.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub wait_s: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[expect(clippy::enum_variant_names, reason = "the kinds are called so on the command line")]
pub enum CredentialKind {
    /// Shown once; permits what you name, for as long as you say.
    ApiKey,
    /// Shown once, works once, permits all that its identity may.
    RecoveryKey,
    /// A key path of the identity, which signs inside the key boundary.
    DerivedKey,
}

#[derive(Debug, Subcommand)]
pub enum Credential {
    /// Add a credential; a new key is shown this once.
    Add {
        /// A name for people.
        #[arg(default_value = "")]
        name: String,
        #[arg(long)]
        kind: CredentialKind,
        /// Whose it is; your own by default.
        #[arg(long)]
        identity: Option<String>,
        /// `KIND=PATTERN`, such as `sign=key:/orbital/users/admin/**`; `KIND` alone is on everything, `*` is every kind.
        #[arg(long = "permission", value_name = "KIND[=PATTERN]")]
        permissions: Vec<String>,
        /// How long an API key lives, such as 30d; for ever by default.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// Key path of a derived key; the identity's own by default.
        #[arg(long)]
        key_path: Option<String>,
    },
    /// Show an identity's credentials.
    List {
        #[arg(long)]
        identity: Option<String>,
    },
    /// Revoke a credential and every token that was issued for it.
    Revoke {
        id: String,
        #[arg(long)]
        identity: Option<String>,
        #[arg(long, default_value = "")]
        reason: String,
    },
}
