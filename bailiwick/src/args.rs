//! The command line, as data. Every command has `-o json`; every one that changes something says what it did.

use std::{ffi::OsString, path::PathBuf};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PathBufValueParser, PossibleValue, TypedValueParser},
};

/// Makes a Linux machine a place where nothing consequential happens without authority.
#[derive(Debug, Parser)]
#[command(name = "bailiwick", version, disable_help_subcommand = true)]
pub struct Cli {
    /// Put or find the whole node under this folder.
    #[arg(long, global = true, value_name = "DIR", env = "BAILIWICK_ROOT")]
    pub root: Option<PathBuf>,
    /// Form of the output; `log export` and `log prove` also take the file to write.
    #[arg(short, long, global = true, value_parser = ToParser, default_value = "text")]
    pub output: To,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

/// What stands behind `-o`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    Form(Output),
    File(PathBuf),
}

/// A form if it has the name of one, else a file; help and completions offer the forms.
#[derive(Clone, Debug)]
struct ToParser;

impl TypedValueParser for ToParser {
    type Value = To;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<To, clap::Error> {
        match value.to_str().and_then(|name| Output::from_str(name, false).ok()) {
            Some(form) => Ok(To::Form(form)),
            None => PathBufValueParser::new().parse_ref(command, argument, value).map(To::File),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Output::value_variants().iter().filter_map(Output::to_possible_value)))
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the node; the first time, make its keys and its log.
    Up(Up),
    /// Stop the node in order.
    Down,
    /// Show services, what is not installed, and what this host cannot give.
    Status,
    /// Run a program in a sandbox, under authority, on record.
    Run(Run),
    /// Explain the last refusal, or one by its id.
    Why(Why),
    /// List programs.
    Ps,
    /// Send a signal to a program.
    Kill(Kill),
    /// Control services.
    #[command(subcommand)]
    Service(Service),
    /// Register services from their manifests and start them; the same as `service apply`.
    Apply {
        /// Manifests, or folders of them.
        #[arg(short = 'f', long = "file", value_name = "FILE", required = true, num_args = 1..)]
        files: Vec<PathBuf>,
    },
    /// Read and verify the log.
    #[command(subcommand)]
    Log(Log),
    /// Check evidence, a proof, or a published log, with nothing else.
    Verify(Verify),
    /// Witness logs: sign that they only grow.
    #[command(subcommand)]
    Witness(Witness),
    /// Read and change the rules.
    #[command(subcommand)]
    Policy(Policy),
    /// Use keys that never leave their boundary.
    #[command(subcommand)]
    Key(Key),
    /// Let git and ssh use keys of the node: an agent of theirs, where each use is decided and recorded.
    SshAgent(SshAgent),
    /// Read and change identities, issue tokens.
    #[command(subcommand)]
    Identity(Identity),
    /// Grant, pass on, check, use, list and revoke capabilities.
    #[command(subcommand)]
    Capability(Capability),
    /// Boot a node in a temporary place, do real work, then attack it, and print counts.
    Prove(Prove),
    /// Print completions for a shell.
    Completions { shell: clap_complete::Shell },
    /// Write the manual pages into a folder.
    Man { folder: PathBuf },
    /// A process of the node; started by the node alone.
    #[command(hide = true, subcommand)]
    Process(Process),
}

#[derive(Debug, Args)]
pub struct Up {
    /// Return as soon as all services run.
    #[arg(short, long)]
    pub detach: bool,
    /// Name of the node, used in its identity; the host's name by default.
    #[arg(long)]
    pub name: Option<String>,
    /// Have the TPM 2.0 at this path open the seals of a new node: `/dev/tpmrm0`, or a software TPM's Unix socket.
    #[arg(long, value_name = "PATH")]
    pub tpm: Option<PathBuf>,
    /// Stop when nobody has used the node for this long: no program, no service of yours, no entry.
    #[arg(long, value_name = "TIME")]
    pub idle_stop: Option<String>,
    /// Permit defences to be switched off by name; for `prove` alone.
    #[arg(long, hide = true)]
    pub allow_break: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Make a host path visible: PATH, PATH:ro or PATH:rw, or PATH:rw:INSIDE.
    #[arg(long = "fs", value_name = "PATH[:ro|:rw[:INSIDE]]")]
    pub paths: Vec<String>,
    /// Set a variable of the program's environment; nothing is inherited but TERM, LANG and PATH.
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Working directory inside; by default the current one if it is visible, else `/`.
    #[arg(short = 'C', long)]
    pub cwd: Option<String>,
    /// Identity to run as; by default your own.
    #[arg(long = "as", value_name = "NAME")]
    pub identity: Option<String>,
    /// Memory limit, for example 64M.
    #[arg(long = "mem", alias = "memory", value_name = "SIZE")]
    pub memory: Option<String>,
    /// Cores that it may use at once, for example 0.5 or 2.
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,
    /// Limit of threads and processes.
    #[arg(long)]
    pub threads: Option<u32>,
    /// Limit of open files.
    #[arg(long)]
    pub files: Option<u32>,
    /// Limit of processor time altogether, for example 10s.
    #[arg(long = "cpu-time", alias = "cpu", value_name = "TIME")]
    pub cpu_time: Option<String>,
    /// Limit of wall time, for example 5m.
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// Do not watch for refused calls (faster; `why` then cannot name them).
    #[arg(long)]
    pub no_notice: bool,
    /// Print the program's number and return.
    #[arg(short, long)]
    pub detach: bool,
    /// Run on a node that is made for this and removed with its log afterwards.
    #[arg(long, conflicts_with = "detach")]
    pub ephemeral: bool,
    /// Switch off one guard; only on a node that permits it.
    #[arg(long, hide = true)]
    pub disable: Vec<String>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Why {
    /// `last`, the id of a refusal, or `process:N`.
    #[arg(default_value = "last")]
    pub what: String,
}

#[derive(Debug, Args)]
pub struct Kill {
    pub pid: u64,
    /// `term kill stop cont user1 user2`
    #[arg(short, long, default_value = "term")]
    pub signal: String,
}

#[derive(Debug, Subcommand)]
pub enum Service {
    /// Show all services.
    List,
    /// Show one service.
    Status { name: String },
    /// Start a service and wait until it runs.
    Start { name: String },
    /// Stop a service and wait until it has ended.
    Stop { name: String },
    /// Stop a service and start it again.
    Restart { name: String },
    /// Register services from their manifests and start them.
    Apply {
        /// Manifests, or folders of them.
        #[arg(required = true)]
        manifests: Vec<PathBuf>,
    },
    /// Take a stopped service out of the registry.
    Remove { name: String },
    /// Show what a service wrote.
    Logs {
        name: String,
        /// Go on with what is written.
        #[arg(short, long)]
        follow: bool,
        /// Only so many of the last lines.
        #[arg(short = 'n', long)]
        lines: Option<usize>,
    },
    /// Follow what happens to services.
    Events,
}

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
        /// The log's folder; the node's own by default.
        folder: Option<PathBuf>,
        /// A signed head kept elsewhere, to find truncation.
        #[arg(long)]
        head: Option<PathBuf>,
        /// A signed checkpoint kept elsewhere: finds truncation, and a history that was changed before it.
        #[arg(long)]
        checkpoint: Option<PathBuf>,
    },
    /// Print the signed head; keep it elsewhere.
    Head,
    /// Fold the log from genesis and print the state's hash.
    Replay { folder: Option<PathBuf> },
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

/// Which log, and which of its checkpoints.
#[derive(Debug, Args)]
pub struct LogFrom {
    /// The log's folder; the node's own by default.
    #[arg(long, value_name = "FOLDER")]
    pub log: Option<PathBuf>,
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

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Print the public key of a path.
    Public {
        path: String,
        /// As ssh and git take it, `ssh-ed25519 AAAA…`; the path ends in `/@ssh`.
        #[arg(long)]
        ssh: bool,
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
        /// Kinds of action that the token permits; all that the credential does by default.
        #[arg(long = "action", value_name = "KIND")]
        actions: Vec<String>,
        /// Resource patterns (`type:id`) that the token permits; all that the credential does by default.
        #[arg(long = "resource", value_name = "PATTERN")]
        resources: Vec<String>,
        #[arg(long, default_value_t = 3600)]
        lifetime_s: u32,
        /// Keep the token for the next commands instead of printing it.
        #[arg(long)]
        keep: bool,
    },
    /// Issue a token for yourself, bound to this channel.
    Token {
        #[arg(long, default_value_t = 3600)]
        lifetime_s: u32,
    },
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
        /// Kinds of action that the token permits; all by default.
        #[arg(long = "action", value_name = "KIND")]
        actions: Vec<String>,
        /// Resource patterns (`type:id`) that the token permits; all by default.
        #[arg(long = "resource", value_name = "PATTERN")]
        resources: Vec<String>,
        #[arg(long, default_value_t = 3600)]
        lifetime_s: u32,
        /// Keep the token for the next commands instead of printing it.
        #[arg(long)]
        keep: bool,
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

#[derive(Debug, Args)]
pub struct Prove {
    /// Only this section; may be repeated.
    #[arg(long)]
    pub section: Vec<String>,
    /// Seed of everything random; printed, so that a run can be repeated.
    #[arg(long)]
    pub seed: Option<u64>,
    /// One JSON object at the end, progress on standard error.
    #[arg(long)]
    pub json: bool,
    /// Switch a defence off; the command must then fail.
    #[arg(long = "break", value_name = "PART")]
    pub break_part: Option<String>,
    /// List the parts that `--break` knows.
    #[arg(long)]
    pub list_breaks: bool,
}

#[derive(Debug, Subcommand)]
pub enum Process {
    Supervisor {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    Service {
        name: String,
    },
    Boundary,
    Monitor,
    /// One escape attempt of `prove`, made from inside the sandbox.
    Attempt {
        name: String,
    },
}
