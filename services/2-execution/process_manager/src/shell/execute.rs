//! One more command beside a program: decided, recorded, run by its monitor, closed with how it ended.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use base::{AxiomRef, ProcessId};
use chain::payload::{
    Receipt, ReceiptStatus,
    policy::{ExecuteTarget, PolicyAction, ResourceRef, ResourceType},
    process::{ExitStatus, ResourceUsage},
};
use contracts::process_manager::v1::{
    self as pb, attach_input::Input, attach_output::Output as Out, execute_input::Input as Given,
};
use kit::{Requestor, authority::random_16};
use sandbox::StartToken;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{
    attach::{QUEUE, Receiver, Said, Sender, carry, internal},
    control::{Control, ControlError},
    manager::Manager,
};
use crate::{
    core::{Execution, ProcessError, ProcessState, Viewer},
    monitor::protocol::{Reply, Request},
};

/// A monitor starts a command within the time limit of a launch (5 s).
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// What a shell adds to the number of a signal.
const SIGNALLED: i32 = 128;

impl Manager {
    pub(super) async fn execute(
        self: &Arc<Self>,
        begin: pb::Execution,
        messages: Streaming<pb::ExecuteInput>,
        requestor: Requestor,
        viewer: Viewer,
    ) -> Result<Receiver, Status> {
        self.ready().await?;
        let (pid, execution) = Execution::parse(begin)?;
        self.check_execution(pid, viewer)?;
        // Before it is decided: a monitor that is gone needs no decision.
        let mut control = Control::connect(&self.socket(pid)).await.map_err(|error| internal(pid, &error))?;
        let at = self.decide_execution(pid, &execution, &requestor).await?;
        let started = start(&mut control, execution).await;
        if let Some(refusal) = refusal(pid, started) {
            self.close_execution(at, ReceiptStatus::Failed { exit_code: refusal.exit_code });
            return Err(refusal.error.into());
        }
        let (send, receive) = mpsc::channel(QUEUE);
        let manager = Arc::clone(self);
        let said = Said { messages, input: input_of };
        tokio::spawn(async move {
            let status = follow(pid, control, said, &send).await;
            manager.close_execution(at, status);
        });
        Ok(receive)
    }

    fn check_execution(&self, pid: ProcessId, viewer: Viewer) -> Result<(), ProcessError> {
        let state = self.state();
        let process = state.table.find(pid, viewer)?;
        if viewer != Viewer::All && state.ledger.is_of_the_house(&process.identity) {
            return Err(ProcessError::SystemProcess(pid));
        }
        match process.state {
            ProcessState::Running => Ok(()),
            state => Err(ProcessError::NotRunning { pid, state }),
        }
    }

    /// The decision is the record.
    async fn decide_execution(
        &self,
        pid: ProcessId,
        execution: &Execution,
        requestor: &Requestor,
    ) -> Result<AxiomRef, Status> {
        let resource = ResourceRef { resource_type: ResourceType::Process, id: pid.to_string() };
        let action = PolicyAction::Execute { target: ExecuteTarget::Process(pid) };
        let mut request = requestor.ask(&self.node, action, resource)?;
        request.context.process = pid;
        let logged = execution.logged().map(|(name, value)| (name.to_owned(), value));
        request.context.metadata.extend(logged);
        let committed = self.node.authority().evaluate(&request).await?;
        committed.decision.ok_or_else(|| ProcessError::Internal("policy named no entry".to_owned()).into())
    }

    fn close_execution(self: &Arc<Self>, at: AxiomRef, status: ReceiptStatus) {
        let Ok(key) = random_16() else { return };
        let receipt = Receipt::closing(at, status);
        let manager = Arc::clone(self);
        tokio::spawn(async move { manager.record(base::EntryKey(key), receipt).await });
    }
}

/// None: given up, and it is certain that nothing runs. A monitor that has taken the token is starting it, which takes at
/// most the time of a launch once the monitor goes on.
async fn start(control: &mut Control, execution: Execution) -> Option<Result<Reply, ControlError>> {
    let (token, theirs) = match StartToken::new() {
        Ok(both) => both,
        Err(error) => return Some(Err(error.into())),
    };
    let request = Request::Execute(execution);
    let call = control.call_with(&request, Some(theirs.as_fd()));
    let mut call = std::pin::pin!(call);
    match tokio::time::timeout(START_TIMEOUT, &mut call).await {
        Ok(started) => Some(started),
        Err(_) if token.withdraw() => None,
        Err(_) => Some(call.await),
    }
}

struct Refusal {
    error: ProcessError,
    exit_code: i32,
}

fn refusal(pid: ProcessId, started: Option<Result<Reply, ControlError>>) -> Option<Refusal> {
    const NOT_EXECUTABLE: i32 = 126;
    const NOT_FOUND: i32 = 127;
    let (error, exit_code) = match started {
        Some(Ok(Reply::Started)) => return None,
        Some(Ok(Reply::StartFailed { step, errno, text })) => {
            let absent = errno == rustix::io::Errno::NOENT.raw_os_error();
            (ProcessError::Launch { step, text }, if absent { NOT_FOUND } else { NOT_EXECUTABLE })
        }
        Some(Err(ControlError::Refused(text))) => (ProcessError::NoCommand { pid, text }, NOT_EXECUTABLE),
        Some(Err(error)) => {
            let text = format!("the monitor of process {pid} runs no command: {error}");
            (ProcessError::Internal(text), NOT_EXECUTABLE)
        }
        Some(Ok(other)) => (ProcessError::Internal(format!("another answer: {other:?}")), NOT_EXECUTABLE),
        None => {
            let text = format!(
                "the monitor of process {pid} does not answer; the command was given up and does not run"
            );
            (ProcessError::Internal(text), NOT_EXECUTABLE)
        }
    };
    Some(Refusal { error, exit_code })
}

fn input_of(message: pb::ExecuteInput) -> Option<Input> {
    match message.input? {
        Given::Stdin(data) => Some(Input::Stdin(data)),
        Given::StdinEnd(end) => Some(Input::StdinEnd(end)),
        Given::Resize(size) => Some(Input::Resize(size)),
        // Named once, in the first message.
        Given::Begin(begin) => Some(Input::Pid(begin.pid)),
    }
}

/// Carries its streams to the end, which is told to the caller and returned for the record. A caller who goes first
/// takes the connection away, and the monitor kills the command.
async fn follow(
    pid: ProcessId,
    mut control: Control,
    said: Said<pb::ExecuteInput>,
    send: &Sender,
) -> ReceiptStatus {
    match carry(pid, &mut control, said, send).await {
        Ok(true) => {}
        Ok(false) => return ReceiptStatus::Cancelled,
        Err(status) => {
            let _ = send.send(Err(status)).await;
            return ReceiptStatus::Cancelled;
        }
    }
    let ended = tokio::select! {
        ended = control.call(&Request::Wait) => ended,
        // It has closed its streams and runs on.
        () = send.closed() => return ReceiptStatus::Cancelled,
    };
    let (status, usage, with_program) = match ended {
        Ok(Reply::Executed { status, usage, with_program }) => (status, usage, with_program),
        _ => (ExitStatus::Unknown, ResourceUsage::default(), true),
    };
    let reply =
        pb::WaitReply { status: Some((&status).into()), usage: Some((&usage).into()), ..Default::default() };
    let _ = send.send(Ok(pb::AttachOutput { output: Some(Out::Exit(reply)) })).await;
    receipt_of(&status, with_program)
}

/// As a shell counts.
fn receipt_of(status: &ExitStatus, with_program: bool) -> ReceiptStatus {
    match status {
        _ if with_program => ReceiptStatus::Cancelled,
        ExitStatus::Code(0) => ReceiptStatus::Success,
        ExitStatus::Code(code) => ReceiptStatus::Failed { exit_code: *code },
        ExitStatus::Signal(signal) => ReceiptStatus::Failed { exit_code: SIGNALLED + signal },
        ExitStatus::Limit(_) => ReceiptStatus::Timeout,
        ExitStatus::Unknown => ReceiptStatus::Cancelled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_on_record_as_a_shell_counts_it() {
        use ReceiptStatus as R;
        for (status, with_program, expected) in [
            (ExitStatus::Code(0), false, R::Success),
            (ExitStatus::Code(7), false, R::Failed { exit_code: 7 }),
            (ExitStatus::Signal(9), false, R::Failed { exit_code: 137 }),
            (ExitStatus::Signal(9), true, R::Cancelled),
            (ExitStatus::Limit("wall_time".to_owned()), false, R::Timeout),
            (ExitStatus::Unknown, false, R::Cancelled),
        ] {
            assert_eq!(receipt_of(&status, with_program), expected);
        }
    }
}
