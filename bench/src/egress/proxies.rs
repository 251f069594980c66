//! The proxy of a program beside proxies that a host has: requests, and one large page.

use std::{path::Path, process::Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::ways::{Way, need, until};
use crate::{process::Tree, report::Part, site::Site};

pub(super) const SQUID: &str = "squid";
const TINYPROXY: &str = "tinyproxy";
/// Where a program finds its own.
const OURS: &str = "127.0.0.1:3128";
/// Plain HTTP and no limit that is reached: what is measured is what a request costs.
const RULES: &str = "[limits]\nprocess_requests = 1000000\nhost_requests = 1000000\n[[rule]]\nid = \"plain\"\n\
    applies_to = \"application\"\nurl_pattern = \"http*://*\"\nallow = true\npriority = 60\n";

/// A proxy that was started here.
pub(super) struct Proxy {
    name: &'static str,
    tree: Tree,
    at: String,
}

impl Proxy {
    /// Those that are installed; of the others it is said how to get them.
    pub(super) fn all(folder: &Path, part: &mut Part) -> Vec<Self> {
        let mut there = Vec::new();
        for (name, start) in [(SQUID, Self::squid as fn(&Path) -> Result<Self>), (TINYPROXY, Self::tinyproxy)]
        {
            match start(folder) {
                Ok(proxy) => there.push(proxy),
                Err(why) => part.skip(name, format!("{why:#}")),
            }
        }
        there
    }

    fn squid(folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let configuration = format!(
            "http_port 127.0.0.1:{port}\nhttp_access allow all\ncache deny all\naccess_log none\ncache_log /dev/null\n\
             cache_store_log none\npid_filename none\ncoredump_dir /\nnetdb_filename none\nshutdown_lifetime 0 seconds\n\
             visible_hostname bench\n"
        );
        Self::start(folder, SQUID, port, &configuration, &["-N", "-f"])
    }

    fn tinyproxy(folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let configuration = format!(
            "Port {port}\nListen 127.0.0.1\nMaxClients 100\nTimeout 600\nLogLevel Critical\nAllow 127.0.0.1\n"
        );
        Self::start(folder, TINYPROXY, port, &configuration, &["-d", "-c"])
    }

    fn start(
        folder: &Path,
        name: &'static str,
        port: u16,
        configuration: &str,
        words: &[&str],
    ) -> Result<Self> {
        let program = need(name, name)?;
        let file = folder.join(format!("{name}.conf"));
        std::fs::write(&file, configuration).with_context(|| format!("writing {}", file.display()))?;
        let mut command = std::process::Command::new(program);
        command.args(words).arg(&file);
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let tree = Tree::spawn(quiet)?;
        let at = format!("127.0.0.1:{port}");
        let answers = until(name, || Ok(std::net::TcpStream::connect(&at).is_ok().then_some(())));
        if let Err(error) = answers {
            tree.end(Signal::TERM)?;
            return Err(error);
        }
        Ok(Self { name, tree, at })
    }

    pub(super) fn way<'a>(&self, client: &'a Path, port: u16) -> Way<'a> {
        Way::bare(self.name, client, format!("127.0.0.1:{port}@{}", self.at))
    }

    pub(super) fn end(self) -> Result<()> {
        self.tree.end(Signal::TERM)
    }
}

/// The program's own: the node is told to let plain HTTP be.
pub(super) fn ours<'a>(site: &'a Site, folder: &Path, client: &'a Path, port: u16) -> Result<Way<'a>> {
    let file = folder.join("rules.toml");
    std::fs::write(&file, RULES).context("writing rules")?;
    site.done(&["network", "rules", "set", &file.to_string_lossy()])?;
    Ok(Way::by_own_proxy("proxy of a program", site, client, port, OURS))
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    match listener.local_addr() {
        Ok(address) => Ok(address.port()),
        Err(error) => bail!("the port of a listener: {error}"),
    }
}
