//! Signals: decided, recorded, sent, closed.

use std::sync::Arc;

use base::{AxiomRef, ProcessId};
use chain::payload::{
    Receipt, ReceiptStatus,
    policy::{PolicyAction, ProcessOperation, ResourceRef, ResourceType},
    process::{ProcessKill, Signal},
};
use kit::{
    Requestor,
    authority::{Entry, random_16},
};
use tonic::Status;

use super::manager::Manager;
use crate::{
    core::{Event, ProcessError, ProcessState, Viewer, limits::REASON_BYTES_MAX, next},
    monitor::protocol::{Reply, Request},
};

/// The names of the contract (PRC-26).
pub(super) fn parse(name: &str) -> Result<Signal, ProcessError> {
    Ok(match name {
        "term" => Signal::Term,
        "kill" => Signal::Kill,
        "stop" => Signal::Stop,
        "cont" => Signal::Cont,
        "user1" => Signal::User1,
        "user2" => Signal::User2,
        other => {
            let text = format!("{other:?} is none of term, kill, stop, cont, user1, user2");
            return Err(ProcessError::invalid("signal", text));
        }
    })
}

pub(super) fn number(signal: Signal) -> i32 {
    use sandbox::process::Signal as Kernel;
    match signal {
        Signal::Term => Kernel::TERM,
        Signal::Kill => Kernel::KILL,
        Signal::Stop => Kernel::STOP,
        Signal::Cont => Kernel::CONT,
        Signal::User1 => Kernel::USR1,
        Signal::User2 => Kernel::USR2,
    }
    .as_raw()
}

/// Where a signal leads the process; none for those that it may take as it likes.
fn event(signal: Signal) -> Option<Event> {
    match signal {
        Signal::Stop => Some(Event::Suspend),
        Signal::Cont => Some(Event::Resume),
        _ => None,
    }
}

impl Manager {
    pub(super) async fn signal(
        self: &Arc<Self>,
        pid: ProcessId,
        signal: Signal,
        reason: String,
        requestor: Requestor,
        viewer: Viewer,
    ) -> Result<AxiomRef, Status> {
        self.ready().await?;
        if reason.len() > REASON_BYTES_MAX {
            let text = format!("{} bytes, at most {REASON_BYTES_MAX} are allowed", reason.len());
            return Err(ProcessError::invalid("reason", text).into());
        }
        self.check_signal(pid, signal, viewer)?;
        let at = self.decide(pid, signal, reason, &requestor).await?;
        let result = self.ask_monitor(pid, &Request::Signal(number(signal))).await;
        let sent = matches!(result, Ok(Reply::Done));
        if sent && let Some(event) = event(signal) {
            // It may have ended meanwhile; the end wins.
            let _ = self.state().table.step(pid, event);
        }
        self.close(at, sent);
        if sent {
            return Ok(at);
        }
        let state = self.state().table.get(pid).map(|process| process.state);
        Err(match state {
            Some(state @ ProcessState::Zombie) => ProcessError::WrongState { pid, state },
            None => ProcessError::NoSuchProcess(pid),
            Some(_) => ProcessError::Internal(format!("the signal could not be sent: {result:?}")),
        }
        .into())
    }

    fn check_signal(&self, pid: ProcessId, signal: Signal, viewer: Viewer) -> Result<(), ProcessError> {
        let state = self.state();
        let process = state.table.find(pid, viewer)?;
        if viewer != Viewer::All && state.ledger.is_of_the_house(&process.identity) {
            return Err(ProcessError::SystemProcess(pid));
        }
        let alive = matches!(process.state, ProcessState::Running | ProcessState::Suspended);
        let moves = event(signal).is_none_or(|event| next(process.state, event).is_ok());
        if alive && moves { Ok(()) } else { Err(ProcessError::WrongState { pid, state: process.state }) }
    }

    /// Ending and telling is `TerminateProcess` with its entry; suspending and resuming is `ControlProcess`, whose
    /// decision is the record.
    async fn decide(
        &self,
        pid: ProcessId,
        signal: Signal,
        reason: String,
        requestor: &Requestor,
    ) -> Result<AxiomRef, Status> {
        let resource = ResourceRef { resource_type: ResourceType::Process, id: pid.to_string() };
        let operation = match signal {
            Signal::Stop => Some(ProcessOperation::Suspend),
            Signal::Cont => Some(ProcessOperation::Resume),
            _ => None,
        };
        let action = match operation {
            Some(operation) => PolicyAction::ControlProcess { pid, operation },
            None => PolicyAction::TerminateProcess { pid },
        };
        let mut request = requestor.ask(&self.node, action, resource)?;
        request.context.process = pid;
        let committed = if operation.is_some() {
            request.context.metadata.insert("reason".to_owned(), reason);
            let committed = self.node.authority().evaluate(&request).await?;
            committed.decision
        } else {
            let kill = ProcessKill { pid, signal, by: requestor.id(), reason };
            let entry = Entry::for_request(self.node.identity(), &request, kill)?;
            self.node.authority().act(&request, entry).await?.entry
        };
        committed.ok_or_else(|| ProcessError::Internal("policy named no entry".to_owned()).into())
    }

    fn close(self: &Arc<Self>, at: AxiomRef, sent: bool) {
        let Ok(key) = random_16() else { return };
        let receipt = Receipt::closing(at, ReceiptStatus::of(sent));
        let manager = Arc::clone(self);
        tokio::spawn(async move { manager.record(base::EntryKey(key), receipt).await });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: PRC-26
    #[test]
    fn six_signals_have_names_and_the_kernels_numbers() {
        let numbers: Vec<i32> = ["term", "kill", "stop", "cont", "user1", "user2"]
            .map(|name| number(parse(name).unwrap()))
            .to_vec();
        assert_eq!(numbers, [15, 9, 19, 18, 10, 12]);
        for wrong in ["", "TERM", "hup", "9"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
