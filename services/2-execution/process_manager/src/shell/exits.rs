//! The end of programs: taken over from the monitor, recorded, kept, forgotten.

use std::{sync::Arc, time::Duration};

use base::{AxiomRef, EntryKey, Hash, ProcessId};
use chain::payload::{
    Body, Receipt, ReceiptStatus,
    process::{ExitStatus, ProcessExit, RefusedCall, ResourceUsage},
};
use kit::authority::{AuthorityError, Entry};
use sandbox::keeper_protocol::Exit as KeeperExit;

use super::{control::Control, layers::HELPERS_MIN, manager::Manager};
use crate::{
    core::{Exit, UsedPath},
    monitor::protocol::{Ended, Reply, Request},
};

/// Pause before a record is tried again, doubled up to the maximum.
const RECORD_PAUSE_MIN: Duration = Duration::from_millis(20);
const RECORD_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Who waits learns of the end once it stands in the log, so that whoever then asks `why` finds it there; a log that is
/// away delays nobody for longer than this.
const RECORD_WAIT: Duration = Duration::from_millis(500);
const KILLED: i32 = 9;

/// The key of a record that may be written again after a crash.
fn record_key(what: &str, pid: ProcessId) -> EntryKey {
    let hash = Hash::of_parts(&[b"bailiwick process record v1\0", what.as_bytes(), &pid.0.to_le_bytes()]);
    let mut key = [0; 16];
    key.iter_mut().zip(hash.0).for_each(|(to, from)| *to = from);
    EntryKey(key)
}

impl Manager {
    /// Follows a monitor to the end of its program.
    pub(super) fn watch(self: &Arc<Self>, pid: ProcessId) {
        let manager = Arc::clone(self);
        tokio::spawn(async move {
            let ended = async {
                let mut control = Control::connect(&manager.socket(pid)).await?;
                control.call(&Request::Wait).await
            };
            match ended.await {
                Ok(Reply::Ended(ended)) => manager.ended(pid, ended).await,
                // Then the keeper tells that the monitor has ended, or this process ends.
                Ok(_) => tracing::warn!(%pid, "a monitor gave another answer than the end"),
                Err(error) => tracing::debug!(%pid, %error, "a monitor went away"),
            }
        });
    }

    async fn ended(self: &Arc<Self>, pid: ProcessId, ended: Ended) {
        let Ended { mut status, mut usage, refused, used, used_is_incomplete, .. } = ended;
        if let Ok(group) = self.keeper.measure(pid.0).await {
            usage.memory_peak_bytes = usage.memory_peak_bytes.max(group.memory_peak_bytes);
            usage.cpu_time_ns = usage.cpu_time_ns.max(group.cpu_time_us.saturating_mul(1000));
            if status == ExitStatus::Signal(KILLED) && group.oom_kills > 0 {
                status = ExitStatus::Limit("memory".to_owned());
            }
        }
        self.finish_with(pid, status, usage, refused, (used, used_is_incomplete));
    }

    /// The end of a process, whoever saw it. Told twice, the first counts.
    pub(super) fn finish(
        self: &Arc<Self>,
        pid: ProcessId,
        status: ExitStatus,
        usage: ResourceUsage,
        refused: Vec<RefusedCall>,
    ) {
        self.finish_with(pid, status, usage, refused, (Vec::new(), false));
    }

    fn finish_with(
        self: &Arc<Self>,
        pid: ProcessId,
        status: ExitStatus,
        usage: ResourceUsage,
        refused: Vec<RefusedCall>,
        used: (Vec<UsedPath>, bool),
    ) {
        let exit = Exit {
            status: status.clone(),
            usage,
            refused: refused.clone(),
            used,
            ended_at_ms: self.now_ms(),
            waited: false,
            recorded: false,
        };
        if !self.state().table.ended(pid, exit) {
            return;
        }
        self.prune(pid);
        self.changed.send_replace(());
        let manager = Arc::clone(self);
        tokio::spawn(async move {
            manager.record_exit(pid, status, usage, refused).await;
            if let Some(exit) = manager.state().table.get_mut(pid).and_then(|process| process.exit.as_mut()) {
                exit.recorded = true;
            }
            manager.changed.send_replace(());
        });
    }

    pub(super) async fn record_exit(
        &self,
        pid: ProcessId,
        status: ExitStatus,
        usage: ResourceUsage,
        refused: Vec<RefusedCall>,
    ) {
        self.record(record_key("exit", pid), ProcessExit { pid, status, usage, refused }).await;
    }

    /// Closes the act of creating a process.
    pub(super) async fn record_receipt(
        &self,
        pid: ProcessId,
        at: AxiomRef,
        image: Hash,
        status: ReceiptStatus,
    ) {
        let receipt = Receipt { inputs: vec![image], ..Receipt::closing(at, status) };
        self.record(record_key("receipt", pid), receipt).await;
    }

    /// Records until it is done, and tells whether it is on record. A refusal is final: the entry stands there already, with
    /// what was seen first.
    pub(super) async fn record<T: Body>(&self, key: EntryKey, body: T) -> bool {
        let entry = match Entry::build(self.node.identity(), None, key, body) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::error!(%error, "a record cannot be made");
                return false;
            }
        };
        let mut pause = RECORD_PAUSE_MIN;
        loop {
            match self.node.authority().record(entry.clone()).await {
                // Until it is folded here too, the ledger would still call the process open.
                Ok(committed) => {
                    while let Some(entry) = committed.entry
                        && self.node.feed().wait_for(entry.sequence).await.is_err()
                    {}
                    return true;
                }
                Err(AuthorityError::Busy { .. } | AuthorityError::Unavailable) => {}
                Err(AuthorityError::Ended) => return false,
                Err(error) => {
                    tracing::warn!(%error, "a record was refused");
                    return false;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECORD_PAUSE_MAX);
        }
    }

    /// A monitor has ended: after its program was forgotten, or before, and then nobody saw how the program ended.
    pub(super) async fn monitor_ended(self: &Arc<Self>, pid: ProcessId, exit: KeeperExit) {
        if pid.0 < HELPERS_MIN {
            let (status, usage) = unseen(&exit);
            self.finish(pid, status, usage, Vec::new());
            self.remove_folder(pid);
        }
        if let Err(error) = self.keeper.acknowledge(pid.0).await {
            tracing::warn!(%pid, %error, "an exit cannot be acknowledged");
        }
    }

    /// Lets go of those that were waited for or that nobody waited for.
    pub(super) async fn forget(&self) {
        let gone = self.state().table.forget(self.now_ms());
        for pid in gone {
            self.dismiss(pid).await;
        }
    }

    /// Ends a monitor that has nothing left to keep; the keeper's notice does the rest.
    pub(super) async fn dismiss(&self, pid: ProcessId) {
        if self.ask_monitor(pid, &Request::Acknowledge).await.is_err() {
            // Its monitor has gone already, or does not answer and must.
            let _ = self.keeper.kill(pid.0).await;
        }
    }

    /// Waits for the end; everyone who waits gets the same (open point 8).
    pub(super) async fn wait(
        &self,
        pid: ProcessId,
        viewer: crate::core::Viewer,
    ) -> Result<Exit, crate::core::ProcessError> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let has_ended = {
                let mut state = self.state();
                state.table.find(pid, viewer)?;
                let exit = state.table.get_mut(pid).and_then(|process| process.exit.as_mut());
                if let Some(exit) = exit {
                    let since = Duration::from_millis(self.now_ms().saturating_sub(exit.ended_at_ms));
                    if exit.recorded || since >= RECORD_WAIT {
                        exit.waited = true;
                        return Ok(exit.clone());
                    }
                    true
                } else {
                    false
                }
            };
            let patience = if has_ended { RECORD_WAIT } else { Duration::MAX };
            let told = tokio::time::timeout(patience, changed.changed()).await;
            if told.is_ok_and(|told| told.is_err()) {
                return Err(crate::core::ProcessError::NoSuchProcess(pid));
            }
        }
    }
}

/// What is known of a program whose monitor ended first.
pub(super) fn unseen(exit: &KeeperExit) -> (ExitStatus, ResourceUsage) {
    let status = match exit.group.oom_kills {
        0 => ExitStatus::Unknown,
        _ => ExitStatus::Limit("memory".to_owned()),
    };
    let usage = ResourceUsage {
        cpu_time_ns: exit.group.cpu_time_us.saturating_mul(1000),
        memory_bytes: 0,
        memory_peak_bytes: exit.group.memory_peak_bytes,
        io_read_bytes: 0,
        io_write_bytes: 0,
    };
    (status, usage)
}
