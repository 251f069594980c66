//! The way out of a program: a channel from `network` to its monitor, and another one when `network` has come back.

use std::{io, os::fd::AsFd, sync::Arc, time::Duration};

use base::{IdentityId, ProcessId};
use contracts::network::v1 as wire;
use kit::way_out::{self, Asked, Credential};
use thiserror::Error;
use tokio::net::UnixStream;

use super::manager::Manager;
use crate::{
    core::{ProcessError, Viewer},
    monitor::protocol::{Reply, Request},
};

/// How long a start waits for `network`, which may just be starting itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// A monitor that does not end its program within this time is ended with it.
const END_TIMEOUT: Duration = Duration::from_millis(200);
/// Before a place in the grants of an entry.
const GRANT: &str = "egress:";

#[derive(Debug, Error)]
enum WayOutError {
    /// Trying again may help.
    #[error("the service network cannot be reached: {0}")]
    Away(#[from] io::Error),
    #[error("{0}")]
    Refused(String),
}

/// As the log has it.
pub(super) fn logged(place: &str) -> String {
    format!("{GRANT}{place}")
}

/// Of a grant in the log; none if it is another.
pub(super) fn parse(grant: &str) -> Option<String> {
    grant.strip_prefix(GRANT).map(str::to_owned)
}

impl Manager {
    /// Before the program runs: where there is no way out, one that asks for it is not started.
    pub(super) async fn open_way_out(
        self: &Arc<Self>,
        pid: ProcessId,
        identity: IdentityId,
        places: &[String],
        credentials: &[Credential],
    ) -> Result<(), ProcessError> {
        let open = async {
            loop {
                match self.way_out(pid, identity, places, credentials).await {
                    // One that is installed has a socket, whether it runs or not.
                    Err(WayOutError::Away(error)) if error.kind() == io::ErrorKind::NotFound => {
                        let text = "the service network is not installed; it is the only way out";
                        return Err(WayOutError::Refused(text.to_owned()));
                    }
                    Err(WayOutError::Away(_)) => tokio::time::sleep(PAUSE).await,
                    other => return other,
                }
            }
        };
        let held = match tokio::time::timeout(PATIENCE, open).await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => return Err(ProcessError::invalid("egress", error.to_string())),
            Err(_) => {
                let text = "the service network is not there; it is the only way out".to_owned();
                return Err(ProcessError::Launch { step: "way out".to_owned(), text });
            }
        };
        self.keep_way_out(pid, identity, places.to_vec(), credentials.to_vec(), Some(held));
        Ok(())
    }

    /// Opens another one whenever `network` has ended, for as long as the program lives.
    pub(super) fn keep_way_out(
        self: &Arc<Self>,
        pid: ProcessId,
        identity: IdentityId,
        places: Vec<String>,
        credentials: Vec<Credential>,
        mut held: Option<UnixStream>,
    ) {
        let manager = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                if let Some(mut held) = held.take() {
                    while let Ok(cut) = way_out::next_cut(&mut held).await {
                        manager.end_everywhere(pid, cut);
                    }
                }
                let lives = manager.state().table.get(pid).is_some_and(|process| process.exit.is_none());
                if !lives {
                    return;
                }
                match manager.way_out(pid, identity, &places, &credentials).await {
                    Ok(again) => held = Some(again),
                    Err(error) => {
                        tracing::debug!(%pid, %error, "no way out for a program");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
    }

    /// What was cut and is still there is ended in every program; they may have handed it to each other.
    fn end_everywhere(self: &Arc<Self>, of: ProcessId, cut: wire::ProgramCut) {
        tracing::warn!(pid = %of, sockets = ?cut.sockets, end = cut.end, "connections that were cut are looked for everywhere");
        let running: Vec<ProcessId> = {
            let state = self.state();
            state
                .table
                .list(Viewer::All)
                .filter(|process| process.exit.is_none())
                .map(|process| process.pid)
                .collect()
        };
        for pid in running {
            let (manager, sockets) = (Arc::clone(self), cut.sockets.clone());
            tokio::spawn(async move {
                // One that does not answer has ended, or is the one that is ended below.
                let _ = manager.ask_monitor(pid, &Request::Cut(sockets)).await;
            });
        }
        if cut.end {
            let manager = Arc::clone(self);
            tokio::spawn(async move { manager.end_hiding(of).await });
        }
    }

    /// Ends a program that has what was cut where nobody finds it: by its monitor, which then says how it ended, or without it.
    async fn end_hiding(&self, pid: ProcessId) {
        let kill = Request::Signal(sandbox::process::Signal::KILL.as_raw());
        if let Ok(Ok(Reply::Done)) = tokio::time::timeout(END_TIMEOUT, self.ask_monitor(pid, &kill)).await {
            return;
        }
        if let Err(error) = self.keeper.kill(pid.0).await {
            tracing::error!(%pid, %error, "a program that hides what was cut is not ended");
        }
    }

    /// Asks for a channel, and passes it on. What is returned ends with `network`.
    async fn way_out(
        &self,
        pid: ProcessId,
        identity: IdentityId,
        places: &[String],
        credentials: &[Credential],
    ) -> Result<UnixStream, WayOutError> {
        let peer = self.node.peer("network");
        let identity = identity.0.to_vec();
        let hello =
            wire::ProgramHello { process: pid.0, identity, egress: places.to_vec(), ..Default::default() };
        let Asked { stream, channel } = match way_out::ask(peer.path(), &hello, credentials).await? {
            Ok(asked) => asked,
            Err(refused) => return Err(WayOutError::Refused(refused)),
        };
        // Its monitor has one that lives.
        let Some(channel) = channel else { return Ok(stream) };
        match self.ask_monitor_with(pid, &Request::WayOut, Some(channel.as_fd())).await {
            Ok(Reply::Done) => Ok(stream),
            Ok(_) => Err(WayOutError::Refused("its monitor gave another answer".to_owned())),
            Err(error) => Err(WayOutError::Refused(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_the_log_and_a_path_is_none() {
        assert_eq!(parse(&logged("192.0.2.1:443")), Some("192.0.2.1:443".to_owned()));
        assert_eq!(parse("/srv/egress:rw"), None);
    }
}
