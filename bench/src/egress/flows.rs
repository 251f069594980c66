//! Many flows at once: how fast they come about with the limits of a program lifted, and what those that are open cost while nothing is
//! said on them.

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{row, ways::Way};
use crate::{
    process,
    report::{Part, Row, Subject, Unit},
    site::{Folder, NODE_SERVICES, Site},
};

const THREADS: usize = 64;
const ROUNDS: usize = 5;
const ROUNDS_QUICK: usize = 3;
const NEW: usize = 9_984;
const NEW_QUICK: usize = 1_984;
const OPEN: usize = 9_984;
const OPEN_QUICK: usize = 1_984;
/// Of a program beside its connections, and of this process.
const OTHER_FILES: usize = 200;
const GOAL_NEW: f64 = 10_000.0;
/// What came about at the start has settled by then.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(20);
const LOOK_QUICK: Duration = Duration::from_secs(6);
/// For the operator to lift what holds one program by default.
const SETTINGS: &str = "[programs]\nconnects_at_once = 1000000\nconnects_a_second = 1000000\n";
const OURS: &str = "handed socket";

pub(super) fn rows(folder: &Folder, client: &Path, quick: bool, port: u16, part: &mut Part) -> Result<()> {
    let (rounds, new, open, look) = match quick {
        true => (ROUNDS_QUICK, NEW_QUICK, OPEN_QUICK, LOOK_QUICK),
        false => (ROUNDS, NEW, OPEN, LOOK),
    };
    let root = folder.path().join("m");
    let config = root.join("config");
    std::fs::create_dir_all(&config).context("a folder for settings")?;
    std::fs::write(config.join("network.toml"), SETTINGS).context("writing settings")?;
    let mut site = Site::started(root)?;
    let mut ways =
        vec![Way::with_files(OURS, &site, client, port, new + OTHER_FILES), Way::direct(client, port)];
    let words = ["connects".to_owned(), THREADS.to_string(), new.to_string()];
    let what =
        format!("connections with one byte, {THREADS} threads, {new} in a row, rate of the program lifted");
    let measured = row(&mut ways, part, what, Unit::PerSecond, rounds, &words)?.goal(GOAL_NEW);
    part.rows.push(measured);
    drop(ways);
    match files_allow(open + OTHER_FILES) {
        true => open_rows(&site, client, open, look, part)?,
        false => part.skip(
            "open flows",
            format!(
                "{open} descriptors are more than this process may have; `ulimit -Hn {}`",
                open + OTHER_FILES
            ),
        ),
    }
    site.down()
}

/// Raises what this process may have open, if it may.
fn files_allow(count: usize) -> bool {
    let resource = rustix::process::Resource::Nofile;
    let maximum = rustix::process::getrlimit(resource).maximum;
    let raised = rustix::process::Rlimit { current: maximum, maximum };
    rustix::process::setrlimit(resource, raised).is_ok() && maximum.is_none_or(|most| most >= count as u64)
}

/// Takes connections and has them.
struct Holder {
    port: u16,
    held: Arc<Mutex<Vec<TcpStream>>>,
}

impl Holder {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening")?;
        let port = listener.local_addr().context("the port of a listener")?.port();
        let held = Arc::<Mutex<Vec<TcpStream>>>::default();
        let kept = Arc::clone(&held);
        let hold = move || {
            for connection in listener.incoming().flatten() {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
        };
        thread::Builder::new().spawn(hold).context("starting a thread")?;
        Ok(Self { port, held })
    }

    fn count(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// What a process has cost so far.
struct Cost {
    pss_kib: f64,
    wakes: u64,
    cpu_ns: u64,
}

impl Cost {
    fn of(pid: i32) -> Self {
        Self {
            pss_kib: process::pss_mib(&[pid]) * 1024.0,
            wakes: process::sleeps(pid),
            cpu_ns: process::cpu_ns(pid),
        }
    }

    /// A second: wake-ups, and microseconds of processor time.
    fn over(pid: i32, time: Duration) -> (f64, f64) {
        let (before, since) = (Self::of(pid), Instant::now());
        thread::sleep(time);
        let (after, seconds) = (Self::of(pid), since.elapsed().as_secs_f64());
        let wakes = after.wakes.saturating_sub(before.wakes) as f64;
        (wakes / seconds, after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e3 / seconds)
    }
}

fn open_rows(site: &Site, client: &Path, open: usize, look: Duration, part: &mut Part) -> Result<()> {
    let holder = Holder::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    let operator = site.operator()?;
    let keeper = runtime.block_on(async {
        operator.settled(NODE_SERVICES).await?;
        operator.boot_ms_and_keeper().await
    })?;
    let network = process::descendants(keeper.1)
        .into_iter()
        .find(|pid| process::node_name(*pid) == "network")
        .context("no process is `network`")?;
    let way = Way::with_files(OURS, site, client, holder.port, open + OTHER_FILES);
    // With one flow, so that what the first of them starts is not counted for each.
    let costs = |count: usize| -> Result<(Cost, Cost, (f64, f64), f64)> {
        let words = ["hold".to_owned(), THREADS.min(count).to_string(), count.to_string()];
        let mut program = way.start(&words)?;
        let (stdin, stdout) = (program.stdin.take(), program.stdout.take());
        let mut said = String::new();
        BufReader::new(stdout.context("no output")?).read_line(&mut said).context("reading")?;
        if said.is_empty() {
            bail!("{count} flows were not opened: {}", program.wait().context("waiting")?);
        }
        let rate = said.trim().parse().with_context(|| format!("the program said {said:?}"))?;
        thread::sleep(SETTLED_AFTER);
        // What is connected there need not be accepted here yet.
        if holder.count() < count {
            bail!("{} of {count} flows have come", holder.count());
        }
        let monitor = monitor_of(keeper.1, client)?;
        let costs = (Cost::of(network), Cost::of(monitor), Cost::over(network, look), rate);
        drop(stdin);
        program.wait().context("waiting")?;
        holder.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(costs)
    };
    let (network_before, monitor_before, (wakes_before, _), _) = costs(1)?;
    let (network_after, monitor_after, (wakes, cpu_us), rate) = costs(open)?;
    let each = |before: &Cost, after: &Cost| (after.pss_kib - before.pss_kib) * 1024.0 / (open - 1) as f64;
    let mut push = |what: String, unit, value: f64| {
        part.rows.push(Row::new(what, unit, vec![Subject::ours(OURS, &mut [value])]));
    };
    push(format!("{open} flows that stay open, as they come about"), Unit::PerSecond, rate);
    push(
        format!("memory of `network` for each of {open} open flows"),
        Unit::Bytes,
        each(&network_before, &network_after),
    );
    push("… of the program's monitor".to_owned(), Unit::Bytes, each(&monitor_before, &monitor_after));
    push(format!("wake-ups of `network` with {open} idle flows"), Unit::TimesASecond, wakes);
    push("… with one".to_owned(), Unit::TimesASecond, wakes_before);
    push(
        format!("processor time of `network` in a second with {open} idle flows"),
        Unit::Microseconds,
        cpu_us,
    );
    Ok(())
}

/// The process below which the client runs.
fn monitor_of(keeper: i32, client: &Path) -> Result<i32> {
    let name = client.file_name().unwrap_or_default();
    let below = process::descendants(keeper);
    let is_client =
        |pid: &&i32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.ends_with(name));
    let program = below.iter().find(is_client).context("the program does not run")?;
    process::parent(*program).context("the program has no parent")
}
