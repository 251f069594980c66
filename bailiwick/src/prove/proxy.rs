//! Section `proxy`: the proxy of a program leads where its places and the rules by URL both allow, and nowhere else. To peers in this
//! process, on this host's loopback; needs no internet.

use std::{io::Read as _, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result};

use super::{Context, Section, Site, attack, peer::Peer};

/// The program: a shell that says to its proxy what it is told to.
const SHELL: &str = "/bin/bash";
const LIMIT: Duration = Duration::from_secs(20);
const SECRET: &str = "put-in-at-the-edge-4f1c";
/// Long enough for a packet on this host to arrive.
const QUIET: Duration = Duration::from_millis(200);

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("proxy");
    if !Path::new(SHELL).exists() {
        section.skip(format!("{SHELL} is not there"));
        return Ok(section);
    }
    let site = context.site()?;
    let (named, other) = (Peer::new()?, Peer::new()?);
    let connect = |peer: &Peer| format!("CONNECT {0} HTTP/1.1\\r\\nHost: {0}\\r\\n\\r\\n", peer.place);
    let get = format!("GET http://{0}/ HTTP/1.1\\r\\nHost: {0}\\r\\n\\r\\n", named.place);
    // SOCKS5: no authentication, CONNECT by IPv4, 127.0.0.1.
    let [high, low] = other.place.port().to_be_bytes();
    let socks = format!("\\x05\\x01\\x00\\x05\\x01\\x00\\x01\\x7f\\x00\\x00\\x01\\x{high:02x}\\x{low:02x}");
    says(site, &named, &connect(&other))?;
    attack(&mut section, other.accept(QUIET).is_some(), "the proxy led a program to what it was not given");
    says(site, &named, &socks)?;
    attack(&mut section, other.accept(QUIET).is_some(), "SOCKS led a program to what it was not given");
    // Of applications nothing but https is allowed where nobody has said more.
    says(site, &named, &get)?;
    let came = named.accept(QUIET).is_some();
    attack(&mut section, came, "a request went out that the rules by URL do not allow");
    let answer = says(site, &named, &connect(&named))?;
    let arrived = named.accept(LIMIT).is_some();
    section
        .check(arrived && answer.contains(" 200 "), "the proxy did not lead a program to what it was given");
    unproven(&mut section, site)?;
    Ok(section)
}

/// A host that does not show that it is the one is told no secret that is put into what goes there.
fn unproven(section: &mut Section, site: &Site) -> Result<()> {
    let peer = Peer::new()?;
    let key = site.folder("edge")?.join("key");
    std::fs::write(&key, SECRET).context("a secret")?;
    let place = peer.place.to_string();
    let credential = format!("{place}={}", key.display());
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/3128 || exit 1; \
         printf 'GET http://{place}/ HTTP/1.1\\r\\nHost: {place}\\r\\n\\r\\n' >&3; read -r -t 10 line <&3"
    );
    let words =
        ["run", "--proxy", "--egress", &place, "--credential", &credential, "--", SHELL, "-c", &script];
    let mut command = site.command(&words);
    let running = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut running = running.context("a program that asks its proxy")?;
    let mut heard = Vec::new();
    if let Some(mut stream) = peer.accept(LIMIT) {
        stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(QUIET)))
            .context("the peer")?;
        let mut buffer = [0; 4096];
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            heard.extend_from_slice(buffer.get(..bytes).unwrap_or_default());
        }
    }
    running.wait().context("a program that asks its proxy")?;
    let told = heard.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    attack(section, told, "a host that showed no certificate was told a secret");
    section.check(!heard.is_empty(), "nobody asked the host of a secret");
    Ok(())
}

/// The first line that a program that was given `place` hears from its proxy.
fn says(site: &Site, place: &Peer, words: &str) -> Result<String> {
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/3128 || exit 1; printf '{words}' >&3; read -r -t 10 line <&3; echo \"$line\""
    );
    let place = place.place.to_string();
    let words = ["run", "--proxy", "--egress", &place, "--", SHELL, "-c", &script];
    let mut command = site.command(&words);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = output.context("a program that asks its proxy")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
