//! Section `services`: the program of a service reaches what its manifest names and policy allows, whoever hands it what, and is reached by whom
//! policy lets in. To peers in this process, on this host; needs no internet.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{Context, LOOK_EVERY, Section, Site, attack, datagrams::own_address, peer::Peer};

/// The program: a shell that knows how to connect, and nothing of this node.
const SHELL: &str = "/bin/bash";
/// What hands a socket over, and what listens.
const PYTHON: &str = "/usr/bin/python3";
const LIMIT: Duration = Duration::from_secs(20);
/// Long enough for a packet on this host to arrive.
const QUIET: Duration = Duration::from_millis(200);
/// How the defences are called that this section misses.
const OWN_BREAKS: &str = "service-";
const OUT: &str = "prove-connect";
const IN: &str = "prove-listen";

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("services");
    if !Path::new(SHELL).exists() {
        section.skip(format!("{SHELL} is not there"));
        return Ok(section);
    }
    // A node of its own: the one of the other sections permits every guard to be switched off, which no service's program has then.
    let broken = context.broken.clone().filter(|part| part.starts_with(OWN_BREAKS));
    let mut args = vec!["--name", "prove-services"];
    args.extend(broken.iter().flat_map(|part| ["--allow-break", part.as_str()]));
    let site = Site::start("s", &args)?;
    let done = attempts(&mut section, &site);
    site.end()?;
    done?;
    Ok(section)
}

fn attempts(section: &mut Section, site: &Site) -> Result<()> {
    allow(site, OUT, "connect")?;
    not_named(section, site)?;
    if Path::new(PYTHON).exists() {
        handed(section, site)?;
        let_in(section, site)?;
    } else {
        section.count("without_python3", 1);
    }
    taken_back(section, site)
}

/// Everybody, everywhere: what holds is what is attacked.
fn allow(site: &Site, rule: &str, action: &str) -> Result<()> {
    let file = site.folder("services")?.join("rule.toml");
    let text = format!(
        "[[rule]]\nid = \"{rule}\"\nname = \"{rule}\"\npriority = 100\neffect = \"Allow\"\n\
         [rule.condition]\naction = {{ kind = \"{action}\" }}\n"
    );
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    site.done(&["policy", "add", &file.to_string_lossy()]).map(drop)
}

fn apply(site: &Site, name: &str, rest: &str) -> Result<()> {
    let file = site.folder("services")?.join(format!("{name}.toml"));
    let text = format!(
        "version = 1\n[service]\nname = \"{name}\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n{rest}"
    );
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    site.done(&["service", "apply", &file.to_string_lossy()]).map(drop)
}

const STAYS: &str = "image = \"/bin/sleep\"\nargs = [\"100000\"]\n";

/// Whether a command beside a service connects.
fn connects(site: &Site, service: &str, to: SocketAddr) -> Result<bool> {
    let script = format!("exec 3<>/dev/tcp/{}/{}", to.ip(), to.port());
    let mut command = site.command(&["exec", service, "--", SHELL, "-c", &script]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    Ok(status.context("a command beside a service")?.success())
}

fn not_named(section: &mut Section, site: &Site) -> Result<()> {
    let (named, other) = (Peer::new()?, Peer::new()?);
    // Where a name could lead, if this host has an address beside its loopback; nobody asks for it.
    let by_name = Peer::at(own_address().unwrap_or(Ipv4Addr::LOCALHOST.into()))?;
    let name = format!("given.test:{}", by_name.place.port());
    apply(
        site,
        "prove-out",
        &format!("[program]\n{STAYS}[egress]\nallow = [\"{}\", \"{name}\"]\n", named.place),
    )?;
    let reached = || connects(site, "prove-out", named.place).unwrap_or(false).then_some(());
    let reached = sandbox::wait_for(LIMIT, LOOK_EVERY, reached).is_some();
    let arrived = named.accept(LIMIT).is_some();
    section.check(reached && arrived, "a service did not reach what its manifest names");
    connects(site, "prove-out", other.place)?;
    attack(section, other.accept(QUIET).is_some(), "a service connected to what its manifest does not name");
    connects(site, "prove-out", by_name.place)?;
    let arrived = by_name.accept(QUIET).is_some();
    attack(section, arrived, "a service connected to the address of a name that it has not asked for");
    Ok(())
}

/// What was allowed is refused from the moment on at which the rule is gone.
fn taken_back(section: &mut Section, site: &Site) -> Result<()> {
    let named = Peer::new()?;
    apply(site, "prove-out", &format!("[program]\n{STAYS}[egress]\nallow = [\"{}\"]\n", named.place))?;
    let reached = || connects(site, "prove-out", named.place).unwrap_or(false).then_some(());
    let reached = sandbox::wait_for(LIMIT, LOOK_EVERY, reached).is_some();
    section.check(reached && named.accept(LIMIT).is_some(), "a service did not reach what policy allows");
    while named.accept(QUIET).is_some() {}
    site.done(&["policy", "remove", OUT])?;
    connects(site, "prove-out", named.place)?;
    attack(section, named.accept(QUIET).is_some(), "a service connected when the rule that let it was gone");
    Ok(())
}

/// Hands a socket of the host's network to whoever comes, and waits until that one is done with it.
const GIVES: &str = "import os, socket, sys\n\
    idle = socket.socket()\n\
    door = socket.socket(socket.AF_UNIX)\n\
    door.bind(sys.argv[1] + '.new')\n\
    os.chmod(sys.argv[1] + '.new', 0o777)\n\
    door.listen()\n\
    os.rename(sys.argv[1] + '.new', sys.argv[1])\n\
    door.settimeout(20)\n\
    peer, _ = door.accept()\n\
    peer.settimeout(20)\n\
    socket.send_fds(peer, [b'x'], [idle.fileno()])\n\
    peer.recv(1)\n";
/// Connects with it.
const TAKES: &str = "import socket, sys\n\
    door = socket.socket(socket.AF_UNIX)\n\
    door.settimeout(20)\n\
    door.connect(sys.argv[1])\n\
    _, fds, _, _ = socket.recv_fds(door, 1, 1)\n\
    print('taken', flush=True)\n\
    socket.socket(fileno=fds[0]).connect((sys.argv[2], int(sys.argv[3])))\n";

/// A program with a way out hands a socket to a service that has none, in a folder that both see.
fn handed(section: &mut Section, site: &Site) -> Result<()> {
    let peer = Peer::new()?;
    let folder = site.folder("services-meet")?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).context("a folder of two")?;
    let (shown, meet) = (format!("{}:rw", folder.display()), folder.join("meet"));
    apply(site, "prove-shut", &format!("[program]\n{STAYS}fs = [\"{shown}\"]\n"))?;
    let (place, door) = (peer.place.to_string(), meet.to_string_lossy());
    let words = ["run", "--fs", &shown, "--egress", &place, "--", PYTHON, "-c", GIVES, &door];
    let mut gives =
        Ended(site.command(&words).stdin(Stdio::null()).spawn().context("a program that hands over")?);
    let is_there = || meet.exists().then_some(());
    section.check(
        sandbox::wait_for(LIMIT, LOOK_EVERY, is_there).is_some(),
        "a program that was to hand a socket over did not come so far",
    );
    let (ip, port) = (peer.place.ip().to_string(), peer.place.port().to_string());
    let words = ["exec", "prove-shut", "--", PYTHON, "-c", TAKES, &door, &ip, &port];
    let output = site.command(&words).stderr(Stdio::null()).output().context("a command that takes")?;
    let taken = String::from_utf8_lossy(&output.stdout).contains("taken");
    section.check(taken, "the socket was not handed over, so that nothing was tried");
    attack(section, peer.accept(QUIET).is_some(), "a service connected with a socket that it was handed");
    gives.0.wait().context("a program that hands over")?;
    Ok(())
}

/// Nothing that was started stays.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const ANSWERS: &str = "import socket\n\
    door = socket.create_server(('127.0.0.1', 8080))\n\
    while True:\n    peer, _ = door.accept()\n    peer.sendall(b'answer')\n    peer.close()\n";

/// What somebody hears who comes to the port.
fn hears(place: SocketAddr) -> String {
    let heard = || -> std::io::Result<String> {
        let mut peer = TcpStream::connect_timeout(&place, LIMIT)?;
        peer.set_read_timeout(Some(LIMIT))?;
        peer.write_all(b"question")?;
        let mut text = String::new();
        peer.read_to_string(&mut text)?;
        Ok(text)
    };
    heard().unwrap_or_default()
}

/// Nobody is let in before policy says so.
fn let_in(section: &mut Section, site: &Site) -> Result<()> {
    let place = {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a free port")?;
        free.local_addr().context("a free port")?
    };
    let file = site.folder("services")?.join("answers.py");
    std::fs::write(&file, ANSWERS).with_context(|| format!("writing {}", file.display()))?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).context("a program")?;
    let shown = file.display();
    apply(
        site,
        "prove-in",
        &format!(
            "[program]\nimage = \"{PYTHON}\"\nargs = [\"{shown}\"]\nfs = [\"{shown}\"]\n\
             [[sockets]]\nname = \"in\"\nlisten = \"tcp:{place}\"\npublish = 8080\n[restart]\nmax_restarts = 100\ndelay_ms = 50\n"
        ),
    )?;
    // It listens by now or soon: one who comes before that hears nothing for another reason.
    let listens = "import socket; socket.create_connection(('127.0.0.1', 8080)).close()";
    let listens = || {
        let tried =
            site.command(&["exec", "prove-in", "--", PYTHON, "-c", listens]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success()).then_some(())
    };
    section.check(sandbox::wait_for(LIMIT, LOOK_EVERY, listens).is_some(), "a service does not listen");
    attack(section, hears(place) == "answer", "somebody was let in to a service whom policy does not let in");
    allow(site, IN, "listen")?;
    section.check(hears(place) == "answer", "nobody reached what a service publishes");
    Ok(())
}
