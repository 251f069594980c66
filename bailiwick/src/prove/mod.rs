//! `bailiwick prove`: the product's conscience. Boots a node in a temporary place, does real work, then attacks it.
//!
//! Each section works from outside, through the command line and the sockets that everybody has. `--break PART`
//! switches one defence off; a run that does not notice is worthless, so it must then fail.

mod authority;
mod crash;
mod datagrams;
mod disk_full;
mod egress;
mod egress_names;
mod images;
mod jobs;
mod keys;
mod network;
mod node;
mod orphans;
mod peer;
mod proxy;
mod refuse;
mod replay;
mod revoke;
mod rights;
mod services;
mod tamper;
mod urls;
mod verify;
mod work;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::{args::Prove, output, site::Site};

/// A process takes a signal within this, however busy the machine is.
const STILL_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What `--break` knows, and the section that must notice.
const BREAKS: [(&str, &str); 49] = [
    ("userns", "refuse"),
    ("mountns", "refuse"),
    ("pidns", "refuse"),
    ("netns", "refuse"),
    ("ipcns", "refuse"),
    ("utsns", "refuse"),
    ("cgroupns", "refuse"),
    ("landlock", "refuse"),
    ("seccomp", "refuse"),
    ("rlimits", "refuse"),
    ("no_new_privs", "refuse"),
    ("caps", "refuse"),
    ("cgroup", "refuse"),
    ("policy", "authority"),
    ("decision-signature", "authority"),
    ("token-binding", "authority"),
    ("hash-pin", "authority"),
    ("revocation", "revoke"),
    ("cascade", "revoke"),
    ("job-calls", "jobs"),
    ("job-compare", "jobs"),
    ("image-record", "images"),
    ("replay", "replay"),
    ("key-purpose", "keys"),
    ("key-lock", "keys"),
    ("key-decision", "keys"),
    ("key-record", "keys"),
    ("record-first", "network"),
    ("cut", "network"),
    ("special-urls", "network"),
    ("egress-list", "egress"),
    ("egress-record-first", "egress"),
    ("egress-pins", "egress"),
    ("datagrams-list", "datagrams"),
    ("datagrams-record-first", "datagrams"),
    ("proxy-places", "proxy"),
    ("proxy-rules", "proxy"),
    ("service-list", "services"),
    ("service-pins", "services"),
    ("service-policy", "services"),
    ("service-handed", "services"),
    ("service-let-in", "services"),
    ("edge-tls", "proxy"),
    ("chain", "tamper"),
    ("tree", "verify"),
    ("checkpoint-signature", "verify"),
    ("fsync", "crash"),
    ("ack", "crash"),
    ("reserve", "disk-full"),
];

/// Counts an attack that must not succeed.
fn attack(section: &mut Section, succeeded: bool, what: &str) {
    section.count("attacks", 1);
    if succeeded {
        section.miss(what);
    }
}

/// Stops a process, and waits until it stands: the signal is sent before it is taken, and on a busy machine much can happen
/// between the two.
fn hold_still(section: &mut Section, pid: Pid) -> Result<()> {
    kill_process(pid, Signal::STOP)
        .with_context(|| format!("holding process {} still", pid.as_raw_nonzero()))?;
    let stands = || stands_still(pid).then_some(());
    section.check(
        sandbox::wait_for(STILL_TIMEOUT, LOOK_EVERY, stands).is_some(),
        "a process does not stand still",
    );
    Ok(())
}

/// Every thread of the process is stopped.
fn stands_still(pid: Pid) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else { return false };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // Behind the name, which may hold anything.
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    })
}

type Run = fn(&mut Context) -> Result<Section>;

const SECTIONS: [(&str, Run); 18] = [
    ("node", node::run),
    ("work", work::run),
    ("jobs", jobs::run),
    ("images", images::run),
    ("authority", authority::run),
    ("revoke", revoke::run),
    ("refuse", refuse::run),
    ("network", network::run),
    ("egress", egress::run),
    ("datagrams", datagrams::run),
    ("proxy", proxy::run),
    ("services", services::run),
    ("crash", crash::run),
    ("tamper", tamper::run),
    ("verify", verify::run),
    ("replay", replay::run),
    ("disk-full", disk_full::run),
    // Last, so that the decision that it lets expire has less to be waited for.
    ("keys", keys::run),
];

/// What all sections share.
pub struct Context {
    pub seed: u64,
    /// The one defence that is switched off.
    pub broken: Option<String>,
    site: Option<Site>,
    /// For the section `keys`.
    early: Option<Result<keys::Early>>,
}

impl Context {
    /// The running node; started by the first section that needs it.
    pub fn site(&mut self) -> Result<&mut Site> {
        if self.site.is_none() {
            let args = up_args(self.broken.as_deref());
            self.site = Some(Site::start("p", &args)?);
        }
        match &mut self.site {
            Some(site) => Ok(site),
            None => bail!("the node was not started"),
        }
    }

    pub fn is_broken(&self, part: &str) -> bool {
        self.broken.as_deref() == Some(part)
    }
}

/// What a section found.
#[derive(Serialize, Deserialize)]
pub struct Section {
    pub name: Cow<'static, str>,
    pub ok: bool,
    pub counts: BTreeMap<Cow<'static, str>, u64>,
    /// Why it could not be tried here; not the same as passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// What was missed, for people; empty when all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missed: Vec<String>,
}

impl Section {
    pub fn new(name: &'static str) -> Self {
        Self { name: name.into(), ok: true, counts: BTreeMap::new(), skipped: None, missed: Vec::new() }
    }

    pub fn count(&mut self, what: &'static str, number: u64) {
        *self.counts.entry(what.into()).or_default() += number;
    }

    /// Counts a check, and remembers it when it failed.
    pub fn check(&mut self, passed: bool, what: impl Into<String>) {
        self.count("checks", 1);
        if !passed {
            self.miss(what);
        }
    }

    pub fn skip(&mut self, why: impl Into<String>) {
        self.skipped = Some(why.into());
    }

    pub fn miss(&mut self, what: impl Into<String>) {
        self.ok = false;
        self.missed.push(what.into());
    }
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    seed: u64,
    broken: Option<String>,
    seconds: f64,
    sections: Vec<Section>,
}

pub fn run(args: &Prove) -> Result<ExitCode> {
    if args.list_breaks {
        BREAKS.iter().for_each(|(part, _)| println!("{part}"));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = chosen_sections(args)?;
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let mut context = Context { seed, broken: args.break_part.clone(), site: None, early: None };
    let since = Instant::now();
    eprintln!("prove: seed {seed:#x}, sections {}", names(&chosen));
    if chosen.iter().any(|(name, _)| *name == "keys") {
        context.early = Some(keys::Early::decided(&mut context));
    }
    let mut sections = Vec::new();
    for (name, section) in chosen {
        let begun = Instant::now();
        eprintln!("prove: {name} …");
        let found = section(&mut context).unwrap_or_else(|error| {
            let mut failed = Section::new(name);
            failed.miss(format!("could not be carried out: {error:#}"));
            failed
        });
        for missed in &found.missed {
            eprintln!("prove: {name}: {} {missed}", output::bad("missed"));
        }
        if let Some(why) = &found.skipped {
            eprintln!("prove: {name}: skipped: {why}");
        }
        let verdict = match (&found.skipped, found.ok) {
            (_, false) => output::bad("FAILED"),
            (Some(_), true) => "skipped".to_owned(),
            (None, true) => output::good("ok"),
        };
        eprintln!("prove: {name} {verdict} after {:.1} s", begun.elapsed().as_secs_f64());
        sections.push(found);
    }
    if let Some(site) = context.site.take() {
        site.end()?;
    }
    let ok = sections.iter().all(|section| section.ok);
    let report = Report {
        ok,
        seed,
        broken: args.break_part.clone(),
        seconds: since.elapsed().as_secs_f64(),
        sections,
    };
    show(&report, args.json)?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Guards are switched off for one program at a time, so the node permits all of them; of the rest only the broken one.
fn up_args(broken: Option<&str>) -> Vec<&'static str> {
    let permitted = BREAKS.iter().filter(|(part, section)| *section == "refuse" || broken == Some(*part));
    let permits = permitted.flat_map(|(part, _)| ["--allow-break", *part]);
    ["--name", "prove"].into_iter().chain(permits).collect()
}

fn names(sections: &[(&'static str, Run)]) -> String {
    sections.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
}

/// Those named, or all; with `--break`, the one that must notice.
fn chosen_sections(args: &Prove) -> Result<Vec<(&'static str, Run)>> {
    let mut wanted: Vec<&str> = args.section.iter().map(String::as_str).collect();
    if let Some(part) = &args.break_part {
        let Some((_, section)) = BREAKS.iter().find(|(known, _)| known == part) else {
            let known: Vec<&str> = BREAKS.iter().map(|(part, _)| *part).collect();
            bail!("there is no defence {part:?} to switch off; there are {}", known.join(", "));
        };
        if wanted.is_empty() {
            wanted.push(section);
        }
    }
    for name in &wanted {
        if !SECTIONS.iter().any(|(known, _)| known == name) {
            bail!("there is no section {name:?}; there are {}", names(&SECTIONS));
        }
    }
    Ok(SECTIONS.into_iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)).collect())
}

fn fresh_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() ^ u64::from(since.subsec_nanos())
}

fn show(report: &Report, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    let row = |section: &Section| {
        let counts = section.counts.iter().map(|(what, number)| format!("{what} {number}"));
        vec![
            section.name.to_string(),
            match (&section.skipped, section.ok) {
                (_, false) => format!("{} missed", section.missed.len()),
                (Some(_), true) => "skipped".to_owned(),
                (None, true) => "ok".to_owned(),
            },
            counts.collect::<Vec<_>>().join(", "),
        ]
    };
    print!(
        "{}",
        output::table(&["SECTION", "RESULT", "COUNTS"], &report.sections.iter().map(row).collect::<Vec<_>>())
    );
    let verdict = if report.ok { output::good("all held") } else { output::bad("NOT ALL HELD") };
    println!("{verdict} in {:.1} s, seed {:#x}", report.seconds, report.seed);
    if let Some(part) = &report.broken {
        println!("{part} was switched off: a failure is what this run was to show");
    }
    Ok(())
}
