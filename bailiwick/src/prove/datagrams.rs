//! Section `datagrams`: what a program sends by UDP reaches whom it was given, on record first, and nobody else. To peers in this process, on an
//! address of this host beside its loopback, to which no datagram of a program leads; needs no internet.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::{Signal, kill_process};

use super::{Context, LOOK_EVERY, Section, Site, attack, egress::programs, hold_still};

/// The program: a shell that knows how to send, and nothing of this node.
const SHELL: &str = "/bin/bash";
const LIMIT: Duration = Duration::from_secs(20);
/// Long enough for a packet on this host to arrive.
const QUIET: Duration = Duration::from_millis(200);

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("datagrams");
    if !Path::new(SHELL).exists() {
        section.skip(format!("{SHELL} is not there"));
        return Ok(section);
    }
    let Some(own) = own_address() else {
        section.skip("this host has no address but its loopback");
        return Ok(section);
    };
    let site = context.site()?;
    not_named(&mut section, site, own)?;
    on_record_first(&mut section, site, own)?;
    Ok(section)
}

/// Of this host. Nothing is sent to find it.
pub(super) fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((std::net::Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|own| own.ip()).filter(|ip| !ip.is_loopback())
}

struct Peer {
    socket: UdpSocket,
    place: SocketAddr,
}

impl Peer {
    fn new(own: IpAddr) -> Result<Self> {
        let socket = UdpSocket::bind((own, 0)).with_context(|| format!("a socket at {own}"))?;
        let place = socket.local_addr().context("the socket")?;
        Ok(Self { socket, place })
    }

    /// Whether something comes within the time.
    fn hears(&self, limit: Duration) -> Result<bool> {
        self.socket.set_read_timeout(Some(limit)).context("the socket")?;
        Ok(self.socket.recv(&mut [0; 64]).is_ok())
    }
}

/// Sends to `to`, having been given `place`.
fn shell(site: &Site, folder: &Path, place: SocketAddr, to: SocketAddr, before: &str) -> Result<Child> {
    let script = format!("{before} echo question >/dev/udp/{}/{}", to.ip(), to.port());
    let (shown, place) = (format!("{}:ro", folder.display()), format!("{place}/udp"));
    let mut command = site.command(&["run", "--fs", &shown, "--egress", &place, "--", SHELL, "-c", &script]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("starting a program")
}

/// Policy allows its identity everywhere; what it was given is less.
fn not_named(section: &mut Section, site: &Site, own: IpAddr) -> Result<()> {
    let (named, other) = (Peer::new(own)?, Peer::new(own)?);
    let folder = site.folder("datagrams")?;
    // Until the program has ended, what it has sent is still on its way.
    let wait = "trap 'sleep 0.3' EXIT;";
    let mut running = shell(site, &folder, named.place, other.place, wait)?;
    running.wait().context("a program that tries")?;
    attack(section, other.hears(QUIET)?, "a program sent to whom it was not given");
    let mut running = shell(site, &folder, named.place, named.place, wait)?;
    let arrived = named.hears(LIMIT)?;
    running.wait().context("a program that sends")?;
    section.check(arrived, "what a program sent did not reach whom it was given");
    Ok(())
}

fn on_record_first(section: &mut Section, site: &Site, own: IpAddr) -> Result<()> {
    let peer = Peer::new(own)?;
    let folder = site.folder("datagrams-first")?;
    let (go, over) = (folder.join("go"), folder.join("over"));
    let until = |file: &Path| format!("until [ -e {} ]; do sleep 0.01; done;", file.display());
    let before = format!("trap '{}' EXIT; {}", until(&over), until(&go));
    let running_before = programs(site)?;
    let mut running = shell(site, &folder, peer.place, peer.place, &before)?;
    let starts = || programs(site).is_ok_and(|now| now > running_before).then_some(());
    section.check(sandbox::wait_for(LIMIT, LOOK_EVERY, starts).is_some(), "a program did not start");
    let axiom = site.pid("axiom")?;
    hold_still(section, axiom)?;
    let told = std::fs::write(&go, "");
    let early = peer.hears(QUIET);
    kill_process(axiom, Signal::CONT).context("letting axiom go on")?;
    told.context("telling the program to go on")?;
    let early = early?;
    attack(section, early, "a program sent while nothing could be recorded");
    section.check(early || peer.hears(LIMIT)?, "what a program sent did not arrive once the log went on");
    std::fs::write(&over, "").context("telling the program to end")?;
    running.wait().context("a program that sends")?;
    Ok(())
}
