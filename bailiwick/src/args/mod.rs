//! The command line, as data. Every command has `-o json`; every one that changes something says what it did.

mod capability;
mod frequent;
mod identity;
mod image;
mod import;
mod job;
mod key;
mod log;
mod network;
mod policy;

use std::path::PathBuf;

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PathBufValueParser, PossibleValue, TypedValueParser},
};

pub use capability::{Capability, CapabilityOperation, Limits};
pub use identity::{Credential, CredentialKind, Identity, Passkey, PasskeyPage, TokenArgs};
pub use image::{Image, ImportImage, PullImage};
pub use import::Import;
pub use job::{Job, SubmitJob, VerifyJob};
pub use key::{Key, Opens, Recovery, SealBy, SshAgent};
pub use log::{ArchiveArgs, Log, LogFrom, Verify, Witness};
pub use network::{Fetch, Network, RulesChange};
pub use policy::{ExportArgs, ImportArgs, Policy, WhatIfArgs};

/// Makes a Linux machine a place where nothing consequential happens without authority.
#[derive(Debug, Parser)]
#[command(name = "bailiwick", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub struct Common {
    /// Put or find the whole node under this folder.
    #[arg(long, global = true, value_name = "DIR", env = "BAILIWICK_ROOT")]
    pub root: Option<PathBuf>,
    /// Form of the output; `log export` and `log prove` also take the file to write.
    #[arg(short, long, global = true, value_parser = ToParser, default_value = "text")]
    pub output: To,
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
    Run(Box<Run>),
    /// Run deterministic jobs, and verify their receipts.
    #[command(subcommand)]
    Job(Job),
    /// Explain the last refusal, or one by its id.
    Why(Why),
    /// List programs.
    Ps,
    /// Send a signal to a program.
    Kill(Kill),
    /// Run one more command in the sandbox of a running program, on record.
    Exec(Exec),
    /// List programs whose changes to copy-on-write folders are kept.
    Layers,
    /// Show what a program changed in its copy-on-write folders.
    Diff(Diff),
    /// Apply on the host what a program changed in its copy-on-write folders.
    Commit(Commit),
    /// Throw away what a program changed in its copy-on-write folders.
    Discard {
        /// The program's number.
        pid: u64,
    },
    /// Container images of this node: import, list, inspect and remove them; `run --image` runs them.
    #[command(subcommand)]
    Image(Image),
    /// Look at what a sandbox leaves open; needs no node.
    #[command(subcommand)]
    Sandbox(Sandbox),
    /// Control services.
    #[command(subcommand)]
    Service(Service),
    /// Register services from their manifests and start them; the same as `service apply`.
    Apply {
        /// Manifests, or folders of them.
        #[arg(short = 'f', long = "file", value_name = "FILE", required = true, num_args = 1..)]
        files: Vec<PathBuf>,
    },
    /// Show what `apply` would change: differences, what policy would say, which services start anew.
    Plan {
        /// Manifests, or folders of them.
        #[arg(short = 'f', long = "file", value_name = "FILE", required = true, num_args = 1..)]
        files: Vec<PathBuf>,
    },
    /// Put the services of an earlier generation back; `service generations` lists them.
    Rollback {
        /// By default the one before the last change.
        number: Option<u64>,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Make manifests out of systemd units, Quadlet containers and compose files; needs no node.
    ///
    /// Says of each setting whether it is mapped, approximated (and how), refused (and why) or ignored. Ends with 0 if
    /// nothing is lost that changes what the services do or how they are protected, with 6 if something is, and with 2 if a
    /// file cannot be used or a manifest is there already.
    Import(Import),
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
    /// Recovery words: print them, test them, restore from them.
    #[command(subcommand)]
    Recovery(Recovery),
    /// Let git and ssh use keys of the node: an agent of theirs, where each use is decided and recorded.
    SshAgent(SshAgent),
    /// Read and change identities, issue tokens.
    #[command(subcommand)]
    Identity(Identity),
    /// Grant, pass on, check, use, list and revoke capabilities.
    #[command(subcommand)]
    Capability(Capability),
    /// Show connections and interfaces, and cut connections.
    #[command(subcommand)]
    Network(Network),
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
    /// Leave out a service that the node can be without: `network`, `driver_manager`. Can be given again.
    #[arg(long, value_name = "SERVICE")]
    pub without: Vec<String>,
    /// Permit defences to be switched off by name; for `prove` alone.
    #[arg(long, hide = true)]
    pub allow_break: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Make a host path visible: PATH, PATH:ro, PATH:rw, or PATH:cow, which keeps changes apart until `commit`; and
    /// PATH:rw:INSIDE.
    #[arg(long = "fs", value_name = "PATH[:ro|:rw|:cow[:INSIDE]]")]
    pub paths: Vec<String>,
    /// Run a container image: the name or id of an imported one, or a file or folder that is imported first, as `image import`
    /// names it. What the program changes in it goes with the program. Without a command, the image's own.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Show the image read-only.
    #[arg(long, requires = "image")]
    pub read_only: bool,
    /// Show this folder as the root instead of the host's `/usr`, `/etc` and so on, read-only or copy-on-write.
    #[arg(long, value_name = "DIR[:ro|:cow]", conflicts_with = "image")]
    pub rootfs: Option<String>,
    /// Let it connect over TCP to a name or an address, if policy allows it too: api.example.com, *.example.com:8443,
    /// 192.0.2.1:443, 203.0.113.0/24:*, [2001:db8::1]:443. With `/udp` behind the port it may send datagrams there, and hear from
    /// there: 192.0.2.53:53/udp, ntp.example.com:123/udp. A name is for port 443 unless it has one, and leads where it is
    /// resolved to for this program; never to a private or otherwise special address that is not given itself.
    #[arg(long, value_name = "NAME[:PORT][/udp] | ADDRESS[/BITS]:PORT[/udp]")]
    pub egress: Vec<String>,
    /// Give it a proxy (HTTP and SOCKS5) on its own loopback, 127.0.0.1:3128, and set HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and
    /// NO_PROXY. It leads to the places of --egress; each request is decided by the rules by URL too, and counted.
    #[arg(long, requires = "egress")]
    pub proxy: bool,
    /// Have the secret in FILE put into what the program asks its proxy for at http://HOST, which then goes on by TLS to HOST
    /// alone; the program never has it. It needs `use_secret` for NAME@HOST:PORT (NAME is the file's name if none is given).
    /// HEADER is authorization if it is left out, TEXT is `Bearer {}`, or `{}` of another header; CA is the one certificate
    /// that vouches for HOST.
    #[arg(
        long = "credential",
        value_name = "HOST[:PORT]=FILE[,name=NAME][,header=HEADER][,format=TEXT][,ca=CA]",
        requires = "proxy"
    )]
    pub credentials: Vec<String>,
    /// Show the program a file's content as the secret NAME in `$CREDENTIALS_DIRECTORY`; it is never recorded.
    #[arg(long = "secret", value_name = "NAME=FILE")]
    pub secrets: Vec<String>,
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
    /// Limit of each of its private folders, of all copy-on-write folders together, and of one file, for example 100M.
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<String>,
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
    /// Limit of what it reads from disks per second, for example 10M of each disk or /data=10M of the disk that /data is on.
    #[arg(long, value_name = "[PATH=]SIZE")]
    pub io_read: Vec<String>,
    /// The same of what it writes.
    #[arg(long, value_name = "[PATH=]SIZE")]
    pub io_write: Vec<String>,
    /// Limit of reads from disks per second, for example 500 or /data=500.
    #[arg(long, value_name = "[PATH=]NUMBER")]
    pub io_read_ops: Vec<String>,
    /// The same of writes.
    #[arg(long, value_name = "[PATH=]NUMBER")]
    pub io_write_ops: Vec<String>,
    /// Its share of the disks among others, 1 to 10000; 100 is usual.
    #[arg(long, value_name = "NUMBER")]
    pub io_weight: Option<u32>,
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
    /// Run it as it would run without this, take down what it uses, and write the smallest manifest that would run it so as a
    /// service to this file.
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["detach", "image", "rootfs", "no_notice", "score"])]
    pub learn: Option<PathBuf>,
    /// Do not run it: rate what these flags leave open, as `sandbox score` does for manifests.
    #[arg(long)]
    pub score: bool,
    /// Switch off one guard; only on a node that permits it.
    #[arg(long, hide = true)]
    pub disable: Vec<String>,
    /// The program and its arguments; of an image with an entry point, arguments of that.
    #[arg(required_unless_present = "image", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Sandbox {
    /// Rate how exposed the host is to a service, line by line of its manifest: 0.0 (shut in) to 10.0.
    Score {
        manifest: PathBuf,
        /// End with 1 if the total is higher, for example 2.5.
        #[arg(long, value_name = "TOTAL")]
        max: Option<f32>,
    },
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

#[derive(Debug, Args)]
pub struct Exec {
    /// The program's number, or its name where one of that name runs; or the name of a running service of the user.
    pub target: String,
    /// The target is a service, also where a program has its name.
    #[arg(long)]
    pub service: bool,
    /// Give it a terminal; that is so anyway where one is used here.
    #[arg(short = 't', long = "tty")]
    pub terminal: bool,
    /// Set a variable beside what the program was given.
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Working directory inside; by default the program's.
    #[arg(short = 'C', long)]
    pub cwd: Option<String>,
    /// Limit of wall time, for example 5m.
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// The command and its arguments, as the program could start it.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Diff {
    /// The program's number.
    pub pid: u64,
    /// Only this path and what is below it.
    pub path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Commit {
    /// The program's number.
    pub pid: u64,
    /// Only this path and what is below it.
    pub path: Option<PathBuf>,
    /// Apply also what was changed on the host since the program started.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Subcommand)]
pub enum Service {
    /// Show all services.
    List,
    /// Show which services a time starts, and when it will next.
    Timers,
    /// Show one service.
    Status { name: String },
    /// Start a service and wait until it runs.
    Start { name: String },
    /// Stop a service and wait until it has ended.
    Stop { name: String },
    /// Stop a service and start it again.
    Restart { name: String },
    /// Have a service read its configuration again, as its manifest says.
    Reload { name: String },
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
    /// List the changes of the configuration, to each of which `rollback` can go back.
    Generations,
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
    /// Works on the changes to copy-on-write folders.
    Layer,
    /// Unpacks a container image.
    Unpack,
    /// What a job of `prove` does, run as one.
    JobAttempt {
        name: String,
    },
    /// One escape attempt of `prove`, made from inside the sandbox.
    Attempt {
        name: String,
    },
}
