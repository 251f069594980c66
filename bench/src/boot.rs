//! Boot of a made node until all its services run, and the memory of everything together when it is idle.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    process,
    report::{Part, Row, Subject, Unit},
    site::{Folder, Site},
};

const ROUNDS: usize = 15;
const ROUNDS_QUICK: usize = 3;
const GOAL_BOOT_MS: f64 = 300.0;
const GOAL_MEMORY_MIB: f64 = 60.0;
/// After the boot, until what it allocated for a moment has gone.
const IDLE_AFTER: Duration = Duration::from_millis(500);
const SERVICES: usize = 6;

pub(crate) fn run(parent: &Path, quick: bool) -> Result<Part> {
    let folder = Folder::new(parent, "boot")?;
    let mut site = Site::started(folder.path().join("n"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    let (mut whole_ms, mut told_ms, mut memory_mib) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..if quick { ROUNDS_QUICK } else { ROUNDS } {
        site.down()?;
        let started = Instant::now();
        site.up()?;
        whole_ms.push(started.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(IDLE_AFTER);
        let operator = site.operator()?;
        let (boot_ms, keeper) = runtime.block_on(async {
            operator.settled(SERVICES).await?;
            operator.boot_ms_and_keeper().await
        })?;
        told_ms.push(boot_ms);
        let all: Vec<i32> = std::iter::once(keeper).chain(process::descendants(keeper)).collect();
        memory_mib.push(process::pss_mib(&all));
    }
    site.down()?;
    let mut part = Part::new("boot");
    let boot = vec![
        Subject::ours("until `up --detach` returns", &mut whole_ms),
        Subject::ours("as the supervisor tells it", &mut told_ms),
    ];
    part.rows.push(
        Row::new("boot of a made node until all services run", Unit::Milliseconds, boot).goal(GOAL_BOOT_MS),
    );
    let memory = vec![Subject::ours("keeper, supervisor, services, key boundary", &mut memory_mib)];
    part.rows.push(
        Row::new("memory (PSS) of an idle node, everything", Unit::Mebibytes, memory).goal(GOAL_MEMORY_MIB),
    );
    Ok(part)
}
