//! Names of programs, in section `egress`: one that was given leads where it is resolved to, another is not even asked for,
//! and none leads to an address that means this host. The name server is one of this process, on this host's loopback.

use std::{
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{LOOK_EVERY, Section, Site, attack, peer::Peer};

const SHELL: &str = "/bin/bash";
const LIMIT: Duration = Duration::from_secs(20);
/// Long enough for a packet on this host to arrive.
const QUIET: Duration = Duration::from_millis(200);
/// Bytes of a message's head.
const HEAD: usize = 12;
/// How long the server waits before it looks whether it is to end.
const TURN: Duration = Duration::from_millis(100);

/// Says of every name that it is 127.0.0.1, as somebody does who wants a program to talk to its own host.
struct Names {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
}

impl Names {
    fn new() -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("a name server on the loopback")?;
        socket.set_read_timeout(Some(TURN)).context("the name server")?;
        let port = socket.local_addr().context("the name server")?.port();
        let (asked, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (seen, ends) = (Arc::clone(&asked), Arc::clone(&over));
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while !ends.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let Some((name, answer)) = buffer.get(..length).and_then(answer) else { continue };
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                let _ = socket.send_to(&answer, from);
            }
        });
        Ok(Self { port, asked, over })
    }

    fn was_asked(&self, name: &str) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|asked| asked == name)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// The name that is asked for, and what is said: 127.0.0.1 to who asks for IPv4, nothing to others.
fn answer(question: &[u8]) -> Option<(String, Vec<u8>)> {
    let (mut at, mut labels) = (HEAD, Vec::new());
    loop {
        let length = usize::from(*question.get(at)?);
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at + 1..at + 1 + length)?).into_owned());
        at += 1 + length;
    }
    let end = at + 5;
    let is_v4 = question.get(at + 1..at + 3)? == [0, 1];
    let mut said = question.get(..2)?.to_vec();
    said.extend([0x81, 0x80, 0, 1, 0, u8::from(is_v4), 0, 0, 0, 0]);
    said.extend(question.get(HEAD..end)?);
    if is_v4 {
        // The name of the question, for a minute.
        said.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        said.extend(Ipv4Addr::LOCALHOST.octets());
    }
    Some((labels.join(".").to_ascii_lowercase(), said))
}

/// Whether a program that was given these places connects to this name.
fn connects(site: &Site, places: &[&str], name: &str, port: u16) -> Result<bool> {
    let script = format!("exec 3<>/dev/tcp/{name}/{port}");
    let mut words = vec!["run"];
    places.iter().for_each(|place| words.extend(["--egress", place]));
    words.extend(["--", SHELL, "-c", &script]);
    let mut command = site.command(&words);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    Ok(status.context("a program that asks for a name")?.success())
}

pub(super) fn run(section: &mut Section, site: &Site) -> Result<()> {
    let names = Names::new()?;
    let config = site.layout()?.config;
    std::fs::create_dir_all(&config).with_context(|| format!("making {}", config.display()))?;
    let file = config.join("network.toml");
    let text = format!("nameservers = [\"127.0.0.1:{}\"]\n", names.port);
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    let done = ask(section, site, &names, &file);
    // Whatever came of it, the next section asks whom the host asks.
    let _ = std::fs::remove_file(&file);
    done
}

fn ask(section: &mut Section, site: &Site, names: &Names, file: &Path) -> Result<()> {
    site.done(&["service", "restart", "network"])?;
    let runs = || site.all_running().is_ok_and(|all| all).then_some(());
    let runs = sandbox::wait_for(LIMIT, LOOK_EVERY, runs);
    section.check(runs.is_some(), format!("network does not run with {}", file.display()));
    let peer = Peer::new()?;
    let port = peer.place.port();
    let place = |name: &str| format!("{name}:{port}");
    // The name, and the address that it leads to: this host's, which no name can lead to alone.
    let given = (place("given.test"), peer.place.to_string());
    let reached = connects(site, &[&given.0, &given.1], "given.test", port)?;
    let arrived = peer.accept(LIMIT).is_some();
    section.check(reached && arrived, "a program did not reach what its name leads to");
    let entries = site.json(&["log", "show", "0..", "--type", "ConnectionAuthorize"])?;
    let entries = entries.as_array().context("entries of the log")?;
    let has_name = |entry: &Value| entry.pointer("/body/name").is_some_and(|name| name == "given.test");
    section.check(entries.iter().any(has_name), "the name by which a program connected is not on record");
    connects(site, &[&given.0], "other.test", port)?;
    let other = names.was_asked("other.test") || peer.accept(QUIET).is_some();
    attack(section, other, "a name was asked for that the program was not given");
    connects(site, &[&given.0], "given.test", port)?;
    attack(section, peer.accept(QUIET).is_some(), "a name led a program to this host's own loopback");
    Ok(())
}
