//! A node of its own in a temporary folder, used from outside as a person would: for `prove`, and for `run --ephemeral`.

use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};
use base::layout::Layout;
use rustix::process::Pid;
use serde_json::Value;

use crate::node::Node;

/// Socket paths are short, so the folder is too; see `base::layout`.
const FOLDER_PREFIX: &str = "bw";

pub struct Site {
    root: PathBuf,
    exe: PathBuf,
    up: bool,
}

impl Site {
    /// Makes a folder that nobody else can look into, and starts a node in it; `args` are for `up`.
    pub fn start(name: &str, args: &[&str]) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("{FOLDER_PREFIX}{name}{}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        made.with_context(|| format!("making {}", folder.display()))?;
        let mut site =
            Self { root: folder, exe: std::env::current_exe().context("this program")?, up: false };
        site.done(&[&["up", "--detach"], args].concat())?;
        site.up = true;
        Ok(site)
    }

    /// Again, after `down`.
    pub fn up(&mut self) -> Result<()> {
        self.done(&["up", "--detach"])?;
        self.up = true;
        Ok(())
    }

    pub fn down(&mut self) -> Result<()> {
        self.done(&["down"])?;
        self.up = false;
        Ok(())
    }

    pub fn layout(&self) -> Result<Layout> {
        Ok(Layout::under(&self.root)?)
    }

    pub fn node(&self) -> Result<Node> {
        Node::find(self.layout()?)
    }

    /// A folder for a section's own files, outside the node's.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(folder)
    }

    pub fn exe(&self) -> &Path {
        &self.exe
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command.arg("--root").arg(&self.root).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command of the product, whatever comes of it.
    pub fn tell(&self, args: &[&str]) -> Result<Output> {
        self.command(args).output().with_context(|| format!("running bailiwick {}", args.join(" ")))
    }

    /// Runs a command that must succeed; its standard output.
    pub fn done(&self, args: &[&str]) -> Result<String> {
        let output = self.tell(args)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("bailiwick {} ended with {}: {}", args.join(" "), output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same with `-o json`.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.done(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("bailiwick {} -o json", args.join(" ")))
    }

    /// Services by name, with their pids.
    pub fn pids(&self) -> Result<Vec<(String, i64)>> {
        let status = self.json(&["status"])?;
        let services =
            status.get("services").and_then(Value::as_array).context("no services in the status")?;
        let pid = |service: &Value| {
            Some((service.get("name")?.as_str()?.to_owned(), service.get("pid")?.as_i64()?))
        };
        Ok(services.iter().filter_map(pid).collect())
    }

    /// Process of a service.
    pub fn pid(&self, service: &str) -> Result<Pid> {
        let found = self.pids()?.into_iter().find(|(name, _)| name == service);
        let pid = found.and_then(|(_, pid)| Pid::from_raw(i32::try_from(pid).ok()?));
        pid.with_context(|| format!("{service} does not run"))
    }

    /// Whether every service runs; a node that tells no status is not there yet.
    pub fn all_running(&self) -> Result<bool> {
        let Ok(status) = self.json(&["status"]) else { return Ok(false) };
        let services =
            status.get("services").and_then(Value::as_array).context("no services in the status")?;
        Ok(services.iter().all(|service| service.get("state").and_then(Value::as_str) == Some("Running")))
    }

    /// Stops the node and removes what it left.
    pub fn end(mut self) -> Result<()> {
        if self.up {
            self.down()?;
        }
        std::fs::remove_dir_all(&self.root).with_context(|| format!("removing {}", self.root.display()))
    }
}

impl Drop for Site {
    /// Only on an error path: what was started must not stay.
    fn drop(&mut self) {
        if self.up {
            let _ = self.tell(&["down"]);
        }
        let _ = std::fs::remove_dir_all(&self.root);
    }
}
