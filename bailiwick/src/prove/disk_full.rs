//! Section `disk-full`: a node on a file system that fills up under load. Nothing acknowledged is lost, rights can still be
//! taken back, and it goes on by itself once there is room.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use base::CapabilityId;
use contracts::policy::v1 as policy;
use kit::CallError;
use sandbox::wait_for;
use serde::Deserialize as _;
use serde_json::Value;

use super::{
    Context, Section, Site, attack, crash,
    rights::{Acknowledged, READ, Rights},
};
use crate::node::{Node, failed, runtime};

/// The small file system, for the run inside of it.
const PLACE_VARIABLE: &str = "BAILIWICK_SMALL_DISK";
const DISK_MIB: u64 = 256;
/// A log's first segment, its reserve, and twenty for everything else; the filler has the rest.
const LEFT_MIB: u64 = 148;
const FILLER_MIB: u64 = DISK_MIB - LEFT_MIB;
/// The right that is taken back once the disk is full.
const KEPT: &str = "/kept";
/// A decision on a path of this length takes some eight thousand bytes of the log, and none of anybody's memory.
const PATH_BYTES: usize = 4000;
/// One act that is remembered to so many such decisions.
const DECISIONS_TO_AN_ACT: usize = 16;
/// Acts under way at once while the disk fills.
const LOAD: usize = 32;
/// Refusals in a row after which the disk counts as full.
const REFUSED_IN_A_ROW: usize = 64;
/// A snapshot that finds no room gives back what it had taken; then the log is filled again, until nothing fits.
const FILL_ROUNDS_MAX: usize = 6;
const SETTLE: Duration = Duration::from_millis(1_500);
/// The log is full before so many, or it does not fill at all.
const DECISIONS_MAX: usize = 60_000;
const BACK_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);
pub fn run(context: &mut Context) -> Result<Section> {
    match std::env::var_os(PLACE_VARIABLE) {
        Some(_) => inside(context.is_broken("reserve")),
        None => outside(context.broken.as_deref()),
    }
}

/// Runs this section again on a file system of its own, in namespaces that end with it.
fn outside(broken: Option<&str>) -> Result<Section> {
    let place = Place::make()?;
    let mut command = place.command()?;
    command.args(["prove", "--section", "disk-full", "--json"]);
    if let Some(part) = broken {
        command.args(["--break", part]);
    }
    let output = command.stdin(Stdio::null()).output().context("running unshare (util-linux)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    let Some(found) = report.as_ref().and_then(|report| report.pointer("/sections/0")) else {
        if said.contains("unshare:") || said.contains("mount:") {
            let mut section = Section::new("disk-full");
            section.skip(format!("no file system of its own can be mounted here: {}", said.trim()));
            return Ok(section);
        }
        bail!("the run on the small file system ended with {}: {}", output.status, said.trim());
    };
    let mut section = Section::deserialize(found).context("reading the report of the inner run")?;
    section.check(
        section.ok == output.status.success(),
        "the run on the small file system says one thing and ends otherwise",
    );
    Ok(section)
}

/// A folder for the mount, which exists in the namespace alone.
struct Place(PathBuf);

impl Place {
    fn make() -> Result<Self> {
        let place = std::env::temp_dir().join(format!("bwd{}", std::process::id()));
        fs::create_dir(&place).with_context(|| format!("making {}", place.display()))?;
        Ok(Self(place))
    }

    /// `unshare` makes the namespaces. Without privileges it becomes root in them to mount, and the caller again after.
    fn command(&self) -> Result<Command> {
        let exe = std::env::current_exe().context("this program")?;
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let mut command = Command::new("unshare");
        let mount = format!("mount -t tmpfs -o size={DISK_MIB}m,mode=0700 none \"$0\"");
        let then = if uid.is_root() {
            "exec \"$@\"".to_owned()
        } else {
            command.args(["--user", "--map-root-user"]);
            format!("exec unshare --user --map-user={} --map-group={} -- \"$@\"", uid.as_raw(), gid.as_raw())
        };
        command.args(["--mount", "--propagation", "private", "sh", "-c", &format!("{mount} && {then}")]);
        command.arg(&self.0).arg(exe).env(PLACE_VARIABLE, &self.0).env("TMPDIR", &self.0);
        Ok(command)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn inside(broken: bool) -> Result<Section> {
    let mut section = Section::new("disk-full");
    let filler = std::env::temp_dir().join("filler");
    fill(&filler)?;
    let args: &[&str] = if broken { &["--allow-break", "reserve"] } else { &[] };
    let mut site = Site::start("f", &[&["--name", "prove"], args].concat())?;
    let before = site.pids()?;
    let node = site.node()?;
    let (runtime, rights) = (runtime()?, Rights { node: &node });
    let acknowledged = runtime.block_on(async {
        let mut kept = Acknowledged::new();
        let right = grant(&rights, KEPT, &mut kept).await?.map_err(failed)?;
        let load = filled(&mut section, &node).await?;
        kept.extend(load);
        taken_back(&mut section, &rights, right).await?;
        anyhow::Ok(kept)
    })?;
    let told = wait_for(BACK_TIMEOUT, LOOK_EVERY, || shortage(&site));
    section.check(
        told.is_some_and(|text| text.contains("full")),
        "the status of axiom does not tell of a full disk",
    );
    fs::remove_file(&filler).context("removing the filler")?;
    let began = std::time::Instant::now();
    let mut more = Acknowledged::new();
    let back = wait_for(BACK_TIMEOUT, LOOK_EVERY, || {
        runtime.block_on(grant(&rights, "/more", &mut more)).ok()?.ok()
    });
    section.check(back.is_some(), "with room on the disk again nothing is recorded");
    section.check(site.pids()? == before, "a service ended for want of room");
    section.count("ms until it went on", u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
    section.count("acts acknowledged", acknowledged.len() as u64);
    let all = acknowledged.into_iter().chain(more).collect::<Acknowledged>();
    let lost = crash::missing(&site, all.clone())?;
    site.down()?;
    let lost_after = crash::missing(&site, all)?;
    section.count("acts lost", lost.max(lost_after));
    section.check(
        lost + lost_after == 0,
        format!("{} acknowledged acts are not in the log", lost.max(lost_after)),
    );
    site.up()?;
    let verified = site.json(&["log", "verify"])?;
    section.check(verified.get("ok") == Some(&Value::Bool(true)), "the log does not verify");
    site.end()?;
    Ok(section)
}

/// What axiom says of its room, once the supervisor has asked it again.
fn shortage(site: &Site) -> Option<String> {
    let status = site.json(&["service", "status", "axiom"]).ok()?;
    status.pointer("/limited/0").and_then(Value::as_str).map(str::to_owned)
}

fn fill(filler: &Path) -> Result<()> {
    let mut file = fs::File::create(filler).with_context(|| format!("making {}", filler.display()))?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..FILLER_MIB {
        file.write_all(&zeros).context("filling the small file system")?;
    }
    Ok(())
}

/// Grants the operator something; remembers what was acknowledged.
async fn grant(
    rights: &Rights<'_>,
    object: &str,
    acknowledged: &mut Acknowledged,
) -> Result<Result<CapabilityId, tonic::Status>> {
    Ok(rights.try_grant(object, READ).await?.map(|granted| {
        acknowledged.insert(granted.id, granted.sequence);
        granted.id
    }))
}

/// Acts until the log takes no more.
async fn filled(section: &mut Section, node: &Node) -> Result<Acknowledged> {
    let mut all = Filled::default();
    for round in 0..FILL_ROUNDS_MAX {
        let before = all.decisions;
        let callers = (0..LOAD).map(|caller| Box::pin(fill_log(node, round, caller))).collect();
        for found in crash::join_all(callers).await {
            let found = found?;
            all.acknowledged.extend(found.acknowledged);
            all.decisions += found.decisions;
            all.refused += found.refused;
            all.said = found.said;
        }
        if all.decisions == before {
            break;
        }
        tokio::time::sleep(SETTLE).await;
    }
    section.count("refused for room", all.refused);
    section.count("decisions", all.decisions);
    section.check(all.refused > 0, "the log did not fill up");
    section.check(!all.said.is_empty(), "a refusal for want of room says nothing");
    Ok(all.acknowledged)
}

#[derive(Default)]
struct Filled {
    acknowledged: Acknowledged,
    decisions: u64,
    refused: u64,
    said: String,
}

async fn fill_log(node: &Node, round: usize, caller: usize) -> Result<Filled> {
    let mut found = Filled::default();
    let mut in_a_row = 0;
    let mut path_bytes = PATH_BYTES;
    for number in 0..DECISIONS_MAX / LOAD {
        let asked = if number % DECISIONS_TO_AN_ACT == 0 {
            grant(&Rights { node }, &format!("/{round}/{caller}/{number}"), &mut found.acknowledged)
                .await?
                .map(drop)
        } else {
            decide(node, &format!("/{round}/{caller}/{number}/{}", "x".repeat(path_bytes))).await?
        };
        match asked {
            Ok(()) => {
                in_a_row = 0;
                found.decisions += 1;
            }
            Err(status) if CallError::from(status.clone()).reason() == "Busy" => {
                in_a_row += 1;
                found.refused += 1;
                status.message().clone_into(&mut found.said);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(status) => return Err(failed(status)).context("an act on a full disk"),
        }
        if in_a_row >= REFUSED_IN_A_ROW {
            if path_bytes == 0 {
                break;
            }
            // What is left is too little for a long one; a revocation would still fit.
            (path_bytes, in_a_row) = (0, 0);
        }
    }
    Ok(found)
}

/// A question whose answer is recorded, whatever it is.
async fn decide(node: &Node, path: &str) -> Result<Result<(), tonic::Status>> {
    let request = policy::PolicyRequest {
        requestor: node.admin().0.to_vec(),
        action: Some(policy::Action {
            kind: "read_file".to_owned(),
            path: path.to_owned(),
            ..policy::Action::default()
        }),
        resource: Some(policy::ResourceRef { r#type: "file".to_owned(), id: path.to_owned() }),
        ..policy::PolicyRequest::default()
    };
    let mut calls = node.policy("system.policy.evaluate").await?;
    Ok(calls.evaluate(request).await.map(drop))
}

/// What only takes away has room of its own.
async fn taken_back(section: &mut Section, rights: &Rights<'_>, right: CapabilityId) -> Result<()> {
    let revoked = rights.revoke(&right.0).await?;
    let why = revoked.as_ref().err().map(ToString::to_string).unwrap_or_default();
    attack(section, revoked.is_err(), &format!("on a full disk a right cannot be taken back: {why}"));
    attack(section, rights.holds(KEPT).await?, "on a full disk a right that was taken back is held");
    Ok(())
}
