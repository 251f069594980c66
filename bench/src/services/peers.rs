//! runit, s6 and supervisord, each as its manual has it, and each at its best: no shell, no logger.

use std::{
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::{Stage, Supervision};
use crate::process::{Tree, descendants};

/// With the program that must be installed, and the Debian package that brings it.
pub(super) fn all() -> Vec<(Box<dyn Supervision>, &'static str, &'static str)> {
    let peer = |kind| -> Box<dyn Supervision> { Box::new(Peer { kind, command: None, tree: None }) };
    vec![
        (peer(Kind::Runit), "runsvdir", "runit"),
        (peer(Kind::S6), "s6-svscan", "s6"),
        (peer(Kind::Supervisord), "supervisord", "supervisor"),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Runit,
    S6,
    Supervisord,
}

struct Peer {
    kind: Kind,
    command: Option<Command>,
    tree: Option<Tree>,
}

impl Peer {
    fn folder(&self, stage: &Stage) -> PathBuf {
        stage.folder.join(self.name())
    }

    /// One folder for each service with `run` in it: runit and s6 alike.
    fn write_folders(&self, stage: &Stage) -> Result<PathBuf> {
        let folder = self.folder(stage);
        for name in &stage.names {
            let service = folder.join(name);
            std::fs::create_dir_all(&service).with_context(|| format!("making {}", service.display()))?;
            symlink(&stage.program, service.join("run")).context("linking the service")?;
        }
        Ok(folder)
    }

    fn write_config(&self, stage: &Stage) -> Result<PathBuf> {
        let folder = self.folder(stage);
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let here = folder.display();
        let mut text = format!(
            "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={here}/pid\nchildlogdir={here}\n"
        );
        for name in &stage.names {
            text.push_str(&format!(
                "[program:{name}]\ncommand={} {} {name}\nautorestart=true\nstdout_logfile=NONE\nstderr_logfile=NONE\n",
                stage.program.display(),
                stage.socket().display()
            ));
        }
        let file = folder.join("supervisord.conf");
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }

    fn command_for(&self, stage: &Stage) -> Result<Command> {
        let mut command = match self.kind {
            Kind::Runit => {
                let mut command = Command::new("runsvdir");
                command.arg(self.write_folders(stage)?);
                command
            }
            Kind::S6 => {
                let mut command = Command::new("s6-svscan");
                command.arg(self.write_folders(stage)?);
                command
            }
            Kind::Supervisord => {
                let mut command = Command::new("supervisord");
                command.arg("-c").arg(self.write_config(stage)?);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Ok(command)
    }

    /// Asks for an orderly end of the services too.
    const fn ending(&self) -> Signal {
        match self.kind {
            Kind::Runit => Signal::HUP,
            Kind::S6 | Kind::Supervisord => Signal::TERM,
        }
    }
}

impl Supervision for Peer {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Runit => "runit",
            Kind::S6 => "s6",
            Kind::Supervisord => "supervisord",
        }
    }

    fn is_throttled(&self) -> bool {
        self.kind != Kind::Runit
    }

    fn prepare(&mut self, stage: &Stage) -> Result<()> {
        remove(&self.folder(stage))?;
        self.command = Some(self.command_for(stage)?);
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let command = self.command.as_mut().context("nothing was prepared")?;
        self.tree = Some(Tree::spawn(command)?);
        Ok(())
    }

    /// Everything that is not the trivial service.
    fn supervisors(&mut self) -> Result<Vec<i32>> {
        let top = self.tree.as_ref().context("it does not run")?.pid();
        let is_service = |pid: &i32| {
            let name = std::fs::read_link(format!("/proc/{pid}/exe"));
            name.is_ok_and(|path| path.ends_with("bench-service"))
        };
        let below = descendants(top).into_iter().filter(|pid| !is_service(pid));
        Ok(std::iter::once(top).chain(below).collect())
    }

    fn stop(&mut self) -> Result<()> {
        match self.tree.take() {
            Some(tree) => tree.end(self.ending()),
            None => Ok(()),
        }
    }
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}
