//! Streams of a program, carried between its monitor and a caller.

use std::sync::Arc;

use base::ProcessId;
use contracts::process_manager::v1::{self as pb, attach_input::Input, attach_output::Output as Out};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{
    control::{Control, ControlError},
    handlers::wait_reply,
    manager::Manager,
};
use crate::{
    core::{ProcessError, Viewer, WindowSize, limits::STDIN_BYTES_MAX},
    monitor::protocol::{Reply, Request, Stream},
};

/// Messages under way to a caller; one that does not read makes its program wait.
pub(super) const QUEUE: usize = 8;
/// Ids of what can be under way with the monitor at once.
const STDOUT: u64 = 1;
const STDERR: u64 = 2;
const STDIN: u64 = 3;

pub(super) type Receiver = mpsc::Receiver<Result<pb::AttachOutput, Status>>;
pub(super) type Sender = mpsc::Sender<Result<pb::AttachOutput, Status>>;

/// What a caller says, message by message.
pub(super) struct Said<T> {
    pub(super) messages: Streaming<T>,
    pub(super) input: fn(T) -> Option<Input>,
}

impl<T> Said<T> {
    /// None when the caller has nothing more to say, which is not the end of the program's input.
    async fn next(&mut self) -> Result<Option<Request>, Status> {
        let Ok(Some(message)) = self.messages.message().await else { return Ok(None) };
        stdin((self.input)(message)).map(Some)
    }
}

/// Counts a caller that follows the streams; a process is not forgotten while there is one.
struct Attached {
    manager: Arc<Manager>,
    pid: ProcessId,
}

impl Attached {
    fn new(manager: &Arc<Manager>, pid: ProcessId, viewer: Viewer) -> Result<Self, ProcessError> {
        let mut state = manager.state();
        state.table.find(pid, viewer)?;
        if let Some(process) = state.table.get_mut(pid) {
            process.attached += 1;
        }
        Ok(Self { manager: Arc::clone(manager), pid })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(process) = self.manager.state().table.get_mut(self.pid) {
            process.attached = process.attached.saturating_sub(1);
        }
    }
}

impl Manager {
    pub(super) async fn attach(
        self: &Arc<Self>,
        pid: ProcessId,
        viewer: Viewer,
        input: Streaming<pb::AttachInput>,
    ) -> Result<Receiver, Status> {
        self.ready().await?;
        let attached = Attached::new(self, pid, viewer)?;
        let mut control = Control::connect(&self.socket(pid)).await.map_err(|error| internal(pid, &error))?;
        let (send, receive) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let manager = Arc::clone(&attached.manager);
            let said = Said { messages: input, input: |message: pb::AttachInput| message.input };
            match carry(pid, &mut control, said, &send).await {
                Ok(true) => manager.tell_end(pid, viewer, &send).await,
                Ok(false) => {}
                // Gone is nobody to tell.
                Err(status) => drop(send.send(Err(status)).await),
            }
            drop(attached);
        });
        Ok(receive)
    }

    async fn tell_end(&self, pid: ProcessId, viewer: Viewer, send: &Sender) {
        let exit = self.wait(pid, viewer).await;
        let last = exit.map(|exit| pb::AttachOutput { output: Some(Out::Exit(wait_reply(&exit))) });
        let _ = send.send(last.map_err(Status::from)).await;
    }
}

/// Moves streams until both outputs have ended; false if the caller went first.
pub(super) async fn carry<T>(
    pid: ProcessId,
    control: &mut Control,
    mut said: Said<T>,
    send: &Sender,
) -> Result<bool, Status> {
    let lost = |error: ControlError| internal(pid, &error);
    for (id, stream) in [(STDOUT, Stream::Stdout), (STDERR, Stream::Stderr)] {
        control.send(id, &Request::Read { stream, offset: 0 }).await.map_err(lost)?;
    }
    let (mut streams, mut listens, mut stdin_busy) = (2, true, false);
    while streams > 0 {
        tokio::select! {
            reply = control.receive() => {
                let (id, reply) = match reply {
                    Ok(reply) => reply,
                    // Its monitor died and the program with it: the end says the rest.
                    Err(_) => break,
                };
                if id == STDIN {
                    stdin_busy = false;
                    continue;
                }
                let Reply::Output { offset, data, end } = reply else { break };
                let next = offset + data.len() as u64;
                if !data.is_empty() {
                    let output = if id == STDOUT { Out::Stdout(data) } else { Out::Stderr(data) };
                    if send.send(Ok(pb::AttachOutput { output: Some(output) })).await.is_err() {
                        return Ok(false);
                    }
                }
                if end {
                    streams -= 1;
                } else {
                    let stream = if id == STDOUT { Stream::Stdout } else { Stream::Stderr };
                    control.send(id, &Request::Read { stream, offset: next }).await.map_err(lost)?;
                }
            }
            request = said.next(), if listens && !stdin_busy => {
                let Some(request) = request? else {
                    listens = false;
                    continue;
                };
                listens = request != Request::StdinEnd;
                stdin_busy = true;
                control.send(STDIN, &request).await.map_err(lost)?;
            }
            () = send.closed() => return Ok(false),
        }
    }
    Ok(true)
}

pub(super) fn internal(pid: ProcessId, error: &ControlError) -> Status {
    ProcessError::Internal(format!("the monitor of process {pid}: {error}")).into()
}

fn stdin(input: Option<Input>) -> Result<Request, Status> {
    match input {
        Some(Input::Stdin(data)) if data.len() > STDIN_BYTES_MAX => {
            let text = format!("{} bytes, at most {STDIN_BYTES_MAX} are allowed", data.len());
            Err(ProcessError::invalid("stdin", text).into())
        }
        Some(Input::Stdin(data)) => Ok(Request::Stdin(data)),
        Some(Input::StdinEnd(_)) => Ok(Request::StdinEnd),
        Some(Input::Resize(size)) => Ok(Request::Resize(WindowSize::parse(&size)?)),
        Some(Input::Pid(_)) => {
            Err(ProcessError::invalid("pid", "it is named once, in the first message").into())
        }
        None => Err(ProcessError::invalid("input", "a message without content").into()),
    }
}
