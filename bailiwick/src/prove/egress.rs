//! Section `egress`: an ordinary program reaches what it was given and policy allows, on record first, and what is taken back
//! is cut while it carries. To peers in this process, on this host's loopback; needs no internet.

use std::{
    io::{ErrorKind, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use super::{Context, LOOK_EVERY, Section, Site, attack, egress_names, hold_still, peer::Peer};

/// The program: a shell that knows how to connect, and nothing of this node.
const SHELL: &str = "/bin/bash";
const LIMIT: Duration = Duration::from_secs(20);
/// Long enough for a packet on this host to arrive.
const QUIET: Duration = Duration::from_millis(200);
/// Connections that are revoked while a program has them.
const CUTS: usize = 5;

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("egress");
    if !Path::new(SHELL).exists() {
        section.skip(format!("{SHELL} is not there"));
        return Ok(section);
    }
    let site = context.site()?;
    not_named(&mut section, site)?;
    on_record_first(&mut section, site)?;
    cut(&mut section, site)?;
    egress_names::run(&mut section, site)?;
    Ok(section)
}

/// Connects to `to`, having been given `place`, and then does as `then` says.
fn shell(
    site: &Site,
    folder: &Path,
    place: SocketAddr,
    to: SocketAddr,
    before: &str,
    then: &str,
) -> Result<Child> {
    let script = format!("{before} exec 3<>/dev/tcp/{}/{} && {then}", to.ip(), to.port());
    let (shown, place) = (format!("{}:ro", folder.display()), place.to_string());
    let mut command = site.command(&["run", "--fs", &shown, "--egress", &place, "--", SHELL, "-c", &script]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("starting a program")
}

/// Policy allows its identity everywhere; what it was given is less.
fn not_named(section: &mut Section, site: &Site) -> Result<()> {
    let (named, other) = (Peer::new()?, Peer::new()?);
    let folder = site.folder("egress")?;
    let mut running = shell(site, &folder, named.place, other.place, "", "true")?;
    running.wait().context("a program that tries")?;
    attack(section, other.accept(QUIET).is_some(), "a program connected to what it was not given");
    let mut running = shell(site, &folder, named.place, named.place, "", "true")?;
    let status = running.wait().context("a program that connects")?;
    let arrived = named.accept(LIMIT).is_some();
    section.check(status.success() && arrived, "a program did not reach what it was given");
    Ok(())
}

fn on_record_first(section: &mut Section, site: &Site) -> Result<()> {
    let peer = Peer::new()?;
    let folder = site.folder("egress-first")?;
    let go = folder.join("go");
    let before = format!("until [ -e {} ]; do sleep 0.01; done;", go.display());
    let running_before = programs(site)?;
    let mut running = shell(site, &folder, peer.place, peer.place, &before, "true")?;
    let starts = || programs(site).is_ok_and(|now| now > running_before).then_some(());
    section.check(sandbox::wait_for(LIMIT, LOOK_EVERY, starts).is_some(), "a program did not start");
    let axiom = site.pid("axiom")?;
    hold_still(section, axiom)?;
    let told = std::fs::write(&go, "");
    let early = peer.accept(QUIET);
    kill_process(axiom, Signal::CONT).context("letting axiom go on")?;
    told.context("telling the program to go on")?;
    let status = running.wait().context("a program that connects")?;
    attack(section, early.is_some(), "a program connected while nothing could be recorded");
    section.check(status.success(), "a program did not connect once the log went on");
    Ok(())
}

/// Programs that run now.
pub(super) fn programs(site: &Site) -> Result<usize> {
    let list = site.json(&["ps"])?;
    let rows = list.as_array().context("a list of programs")?;
    Ok(rows.iter().filter(|row| row["state"] == "running").count())
}

fn cut(section: &mut Section, site: &Site) -> Result<()> {
    let folder = site.folder("egress-cut")?;
    let mut worst = Duration::ZERO;
    for _ in 0..CUTS {
        let peer = Peer::new()?;
        let mut running = shell(site, &folder, peer.place, peer.place, "", "cat <&3")?;
        let Some(mut stream) = peer.accept(LIMIT) else { bail!("a program did not reach what it was given") };
        stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(LIMIT)))
            .context("the peer")?;
        let place = peer.place.to_string();
        let shown = || -> Option<Value> {
            let flows = site.json(&["network", "flows"]).ok()?;
            let is_it = |flow: &&Value| flow["remote"] == place.as_str() && flow["state"] == "connected";
            flows.as_array()?.iter().find(is_it).cloned()
        };
        let flow = sandbox::wait_for(LIMIT, LOOK_EVERY, shown)
            .context("the connection of a program is not shown")?;
        let connection = flow.get("connection").and_then(Value::as_str).context("a connection has a name")?;
        let since = Instant::now();
        site.done(&["network", "revoke", connection])?;
        let end = stream.read(&mut [0; 1]).map_err(|error| error.kind());
        worst = worst.max(since.elapsed());
        attack(section, end != Err(ErrorKind::ConnectionReset), "a program's revoked connection went on");
        running.wait().context("a program whose connection was cut")?;
    }
    section.count("slowest_cut_ms_with_the_command", u64::try_from(worst.as_millis()).unwrap_or(u64::MAX));
    Ok(())
}
