//! What a node costs while nothing happens: how often it wakes, processor time and memory, alone and with a thousand
//! services up, each in its sandbox and on record.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    beacon::Beacon,
    process,
    report::{Part, Row, Subject, Unit},
    site::{self, Folder, NODE_SERVICES, Site},
};

const SERVICES: usize = 1000;
const SERVICES_QUICK: usize = 100;
/// What wakes beside health checks, a second.
const GOAL_WAKES: f64 = 5.0;
/// Of one health check: who asks and who answers.
const WAKES_OF_A_CHECK: f64 = 2.0;
/// What a start leaves behind has settled by then.
const SETTLED_AFTER: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_secs(10);
const LOOK_QUICK: Duration = Duration::from_secs(4);
const UP_TIMEOUT: Duration = Duration::from_secs(300);

/// What was seen of all processes together.
struct Seen {
    wakes: f64,
    /// Processor time of one second.
    cpu_us: f64,
    pss_mib: f64,
}

pub(crate) fn run(parent: &Path, quick: bool) -> Result<Part> {
    let (services, look) = if quick { (SERVICES_QUICK, LOOK_QUICK) } else { (SERVICES, LOOK) };
    let folder = Folder::new(parent, "idle")?;
    let program = site::trivial_service(folder.path())?;
    let socket = folder.path().join("here.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    let mut site = Site::started(folder.path().join("n"))?;
    let operator = site.operator()?;
    let keeper = runtime.block_on(async {
        operator.settled(NODE_SERVICES).await?;
        operator.boot_ms_and_keeper().await
    })?;
    let alone = look_at(keeper.1, &program, look);

    let names: Vec<String> = (0..services).map(|n| format!("s{n:04}")).collect();
    let manifests: Vec<String> = names.iter().map(|name| manifest(&program, &socket, name)).collect();
    let beacon = Beacon::new(&socket)?;
    runtime.block_on(operator.apply(&manifests)).context("registering the services")?;
    site.down()?;
    beacon.forget();
    let started = Instant::now();
    site.up()?;
    let up = beacon.wait_for(&names, UP_TIMEOUT)?;
    let operator = site.operator()?;
    let keeper = runtime.block_on(async {
        operator.settled(NODE_SERVICES + services).await?;
        operator.boot_ms_and_keeper().await
    })?;
    let full = look_at(keeper.1, &program, look);
    site.down()?;

    let mut part = Part::new("idle");
    let mut row = |what: String, unit, value: f64| {
        let row = Row::new(what, unit, vec![Subject::ours("bailiwick", &mut [value])]);
        part.rows.push(match unit {
            Unit::TimesASecond => row.goal(GOAL_WAKES + WAKES_OF_A_CHECK * NODE_SERVICES as f64),
            _ => row,
        });
    };
    let with = format!("with {services} services");
    row("wake-ups of an idle node, everything".to_owned(), Unit::TimesASecond, alone.wakes);
    row(format!("… {with}"), Unit::TimesASecond, full.wakes);
    row("processor time of an idle node in a second".to_owned(), Unit::Microseconds, alone.cpu_us);
    row(format!("… {with}"), Unit::Microseconds, full.cpu_us);
    let up_ms = up.duration_since(started).as_secs_f64() * 1e3;
    row(format!("{services} services up, from the start of the whole"), Unit::Milliseconds, up_ms);
    row(format!("memory (PSS) of everything but the services, {with}"), Unit::Mebibytes, full.pss_mib);
    let each = (full.pss_mib - alone.pss_mib) * 1024.0 / services as f64;
    row(format!("… more than alone, for each of {services}"), Unit::Kibibytes, each);
    part.note("a wake-up is a voluntary switch of any thread; the goal counts two for each of the node's own health checks in a second and five for all else");
    Ok(part)
}

/// All processes below the keeper but the services themselves, after they have settled.
fn look_at(keeper: i32, program: &Path, during: Duration) -> Seen {
    std::thread::sleep(SETTLED_AFTER);
    let is_service = |pid: &i32| {
        let name = program.file_name().unwrap_or_default();
        std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.ends_with(name))
    };
    let below = process::descendants(keeper).into_iter().filter(|pid| !is_service(pid));
    let all: Vec<i32> = std::iter::once(keeper).chain(below).collect();
    // Of each by itself: one that ends meanwhile takes nothing from the others.
    let count = || -> Vec<(u64, u64)> {
        all.iter().map(|pid| (process::sleeps(*pid), process::cpu_ns(*pid))).collect()
    };
    let (before, since) = (count(), Instant::now());
    std::thread::sleep(during);
    let (after, seconds) = (count(), since.elapsed().as_secs_f64());
    let more = |of: fn(&(u64, u64)) -> u64| -> u64 {
        before.iter().zip(&after).map(|(before, after)| of(after).saturating_sub(of(before))).sum()
    };
    Seen {
        wakes: more(|one| one.0) as f64 / seconds,
        cpu_us: more(|one| one.1) as f64 / 1e3 / seconds,
        pss_mib: process::pss_mib(&all),
    }
}

fn manifest(program: &Path, socket: &Path, name: &str) -> String {
    format!(
        "version = 1\n[service]\nname = \"{name}\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n\
         [program]\nimage = \"{program}\"\nargs = [\"{socket}\", \"{name}\"]\nfs = [\"{folder}\", \"{socket}:rw\"]\n\
         [health]\nstop_timeout_ms = 100\n",
        program = program.display(),
        socket = socket.display(),
        folder = program.parent().unwrap_or(program).display(),
    )
}
