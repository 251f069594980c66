//! After a restart: the log says what was to run, the keeper what does, and each monitor how far it is.

use std::{collections::BTreeMap, sync::Arc};

use base::ProcessId;
use chain::payload::{ReceiptStatus, process::ExitStatus};

use super::{egress, exits::unseen, keeper::KeeperError, layers::HELPERS_MIN, manager::Manager};
use crate::{
    core::{Event, Open, PathGrant, Process, ProcessState, parse_credential},
    monitor::protocol::{Phase, Reply, Request, Status},
};

impl Manager {
    /// Every committed creation ends in one of two ways: its program is taken over, or it is closed as `Unknown`.
    /// Nothing is started that was started before; a held program that was committed is released, which happens once.
    pub(super) async fn take_over(self: &Arc<Self>) -> Result<(), KeeperError> {
        let children = self.keeper.children().await?;
        let open: BTreeMap<ProcessId, Open> = self.state().ledger.open().clone();
        // Work on a layer goes on to its end, which is told when it comes.
        for child in children.iter().filter(|child| child.id < HELPERS_MIN) {
            let pid = ProcessId(child.id);
            self.state().table.saw(child.id);
            match (open.get(&pid), child.exit) {
                (Some(open), None) => self.adopt(pid, open, child.pid).await,
                // Started before its commit, by a process that is gone: nobody was told of it.
                (None, None) => {
                    self.abandon(pid).await;
                    self.prune(pid);
                }
                (Some(open), Some(exit)) => {
                    self.insert(open, child.pid, ProcessState::Running);
                    let (status, usage) = unseen(&exit);
                    self.finish(pid, status, usage, Vec::new());
                    self.receipt_if_missing(open, ReceiptStatus::Success);
                }
                (None, Some(_)) => {}
            }
        }
        for pid in self.folders().unwrap_or_default() {
            if !children.iter().any(|child| child.id == pid.0) {
                self.remove_folder(pid);
            }
        }
        self.close_orphans();
        Ok(())
    }

    async fn adopt(self: &Arc<Self>, pid: ProcessId, open: &Open, host_pid: i32) {
        let phase = match self.ask_monitor(pid, &Request::Status).await {
            Ok(Reply::Status(Status { phase, suspended, .. })) => {
                let state = if suspended { ProcessState::Suspended } else { ProcessState::Running };
                self.insert(open, host_pid, state);
                phase
            }
            other => {
                tracing::error!(%pid, ?other, "a monitor cannot be taken over; its program is ended");
                self.insert(open, host_pid, ProcessState::Running);
                let _ = self.keeper.kill(pid.0).await;
                return;
            }
        };
        let mut status = ReceiptStatus::Success;
        if phase == Phase::Held || phase == Phase::Failed {
            match self.ask_monitor(pid, &Request::Release).await {
                Ok(Reply::Started) => {}
                other => {
                    tracing::warn!(%pid, ?other, "a committed program could not be started");
                    status = ReceiptStatus::Failed { exit_code: 126 };
                }
            }
        }
        self.receipt_if_missing(open, status);
        self.watch(pid);
        let places: Vec<String> =
            open.create.grants.iter().filter_map(|grant| egress::parse(grant)).collect();
        if !places.is_empty() {
            let credentials = open.create.grants.iter().filter_map(|grant| parse_credential(grant)).collect();
            self.keep_way_out(pid, open.create.identity, places, credentials, None);
        }
    }

    fn insert(&self, open: &Open, host_pid: i32, state: ProcessState) {
        let create = &open.create;
        self.state().table.insert(Process {
            pid: create.pid,
            state,
            image: create.image,
            identity: create.identity,
            by: create.by,
            name: create.name.clone(),
            paths: create.grants.iter().filter_map(|grant| parse_grant(grant)).collect(),
            created_at: Some(open.at),
            host_pid: u32::try_from(host_pid).unwrap_or(0),
            exit: None,
            attached: 0,
        });
    }

    fn receipt_if_missing(self: &Arc<Self>, open: &Open, status: ReceiptStatus) {
        if open.receipted {
            return;
        }
        let (manager, pid, at, image) = (Arc::clone(self), open.create.pid, open.at, open.create.image);
        tokio::spawn(async move { manager.record_receipt(pid, at, image, status).await });
    }

    /// Creations in the log of which nothing runs and nothing is under way: their effect was lost with the process
    /// that committed them, and is not done again.
    pub(super) fn close_orphans(self: &Arc<Self>) {
        let orphans: Vec<Open> = {
            let state = self.state();
            let known = |open: &&Open| state.table.get(open.create.pid).is_none();
            state.ledger.open().values().filter(known).cloned().collect()
        };
        for open in orphans {
            let pid = open.create.pid;
            self.insert(&open, 0, ProcessState::Running);
            self.receipt_if_missing(&open, ReceiptStatus::Cancelled);
            self.finish(pid, ExitStatus::Unknown, Default::default(), Vec::new());
        }
    }

    /// A held program that will never be released, and what was made for it.
    pub(super) async fn abandon(&self, pid: ProcessId) {
        if self.ask_monitor(pid, &Request::Abort).await.is_err() {
            // Gone already, or it does not answer; either way nothing of it may stay.
            let _ = self.keeper.kill(pid.0).await;
        }
        // Fails for one that was taken over and is not in the table.
        let _ = self.state().table.step(pid, Event::Failed);
    }
}

/// How a grant is shown: what follows its path, whether it is writable, whether it is copied.
const MODES: [(&str, bool, bool); 3] = [(":rw", true, false), (":ro", false, false), (":cow", false, true)];

/// As `grants` of an entry has it.
pub(super) fn format_grant(grant: &PathGrant) -> String {
    let mode = match grant {
        PathGrant { copied: true, .. } => "cow",
        PathGrant { writable: true, .. } => "rw",
        _ => "ro",
    };
    if grant.inside == grant.source {
        format!("{}:{mode}", grant.source)
    } else {
        format!("{}:{mode}:{}", grant.source, grant.inside)
    }
}

fn parse_grant(text: &str) -> Option<PathGrant> {
    // A root and a secret are none.
    if !text.starts_with('/') {
        return None;
    }
    for (mark, writable, copied) in MODES {
        if let Some(source) = text.strip_suffix(mark) {
            let source = source.to_owned();
            return Some(PathGrant { inside: source.clone(), source, writable, copied });
        }
    }
    for (mark, writable, copied) in MODES {
        if let Some((source, inside)) = text.rsplit_once(&format!("{mark}:/")) {
            let (source, inside) = (source.to_owned(), format!("/{inside}"));
            return Some(PathGrant { source, inside, writable, copied });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_and_a_root_are_no_paths() {
        assert_eq!(parse_grant("secret:key:7"), None);
        assert_eq!(parse_grant("image:sha256:00:cow"), None);
        assert_eq!(parse_grant("root:/srv/a:ro"), None);
    }

    #[test]
    fn grants_survive_the_log() {
        for (source, inside) in [("/a", "/a"), ("/a:b", "/a:b"), ("/a", "/c"), ("/a b", "/c:d")] {
            for (_, writable, copied) in MODES {
                let (source, inside) = (source.to_owned(), inside.to_owned());
                let grant = PathGrant { source, inside, writable, copied };
                assert_eq!(parse_grant(&format_grant(&grant)), Some(grant));
            }
        }
    }
}
