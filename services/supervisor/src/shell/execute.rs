//! One more command beside a running program of the user: decided, run by the program's init, carried to its caller, closed
//! with how it ended.
//!
//! All of it is tasks: the one that owns the machine says where the program is, and is told nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base::{AxiomRef, EntryKey, IdentityId};
use chain::payload::{
    Receipt, ReceiptStatus,
    policy::{ExecuteTarget, PolicyAction, ResourceRef, ResourceType},
};
use contracts::supervisor::v1::{
    ExecuteInput, ExecuteOutput, ExecutionEnd, execute_input::Input, execute_output::Output,
    execution_end::End,
};
use kit::authority::{AuthorityError, Entry, random_16};
use sandbox::{StartToken, process::ExitStatus};
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

use super::{
    apply::Applier,
    execute_streams::{Reader, Streams, Writer},
    execute_wanted::{Wanted, window},
};
use crate::core::supervisor::{LaunchId, SupervisorError};

/// Pieces of output on their way to the caller.
const QUEUE: usize = 8;
/// Pieces of a stream that are read after the end: more than a pipe holds.
const REST_PIECES_MAX: usize = 64;
/// Bytes of one piece of standard input.
const STDIN_BYTES_MAX: usize = 64 * 1024;
/// What is killed is gone within milliseconds; where it takes longer somebody may want to know.
const END_SOON: Duration = Duration::from_secs(60);
/// How long the keeper may take to pass a command on before its caller is listened to again, who may give it up.
const KEEPER_PATIENCE: Duration = Duration::from_secs(1);
/// Between two attempts to record how it ended.
const RECORD_PAUSE_MIN: Duration = Duration::from_millis(100);
const RECORD_PAUSE_MAX: Duration = Duration::from_secs(10);
/// What a shell adds to the number of a signal, and says of what cannot be executed.
const SIGNALLED: i32 = 128;
const NOT_EXECUTABLE: i32 = 126;

pub(super) type Receiver = mpsc::Receiver<Result<ExecuteOutput, Status>>;
type Sender = mpsc::Sender<Result<ExecuteOutput, Status>>;

/// How a command came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Own(ExitStatus),
    /// Its service ended, and everything there with it.
    WithService,
}

struct Running {
    launch: LaunchId,
    ended: oneshot::Sender<Ended>,
}

/// Commands under way, by their number with the keeper. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Executions(Arc<Mutex<BTreeMap<u64, Running>>>);

impl std::fmt::Debug for Executions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Executions").field(&self.all().len()).finish()
    }
}

impl Executions {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before the keeper is asked, so that no end is missed.
    fn begin(&self, run: u64, launch: LaunchId) -> oneshot::Receiver<Ended> {
        let (ended, end) = oneshot::channel();
        self.all().insert(run, Running { launch, ended });
        end
    }

    fn forget(&self, run: u64) {
        self.all().remove(&run);
    }

    pub(super) fn ended(&self, run: u64, status: ExitStatus) {
        if let Some(running) = self.all().remove(&run) {
            let _ = running.ended.send(Ended::Own(status));
        }
    }

    /// The service of this launch has ended.
    pub(super) fn end_with(&self, launch: LaunchId) {
        let mut all = self.all();
        let gone: Vec<u64> =
            all.iter().filter(|(_, running)| running.launch == launch).map(|(run, _)| *run).collect();
        for running in gone.iter().filter_map(|run| all.remove(run)) {
            let _ = running.ended.send(Ended::WithService);
        }
    }
}

impl Applier {
    pub(super) async fn execute(
        &self,
        by: IdentityId,
        first: Option<Input>,
        messages: Streaming<ExecuteInput>,
    ) -> Result<Receiver, Status> {
        let Some(Input::Begin(begin)) = first else {
            return Err(Status::invalid_argument("the first message names service and command"));
        };
        let wanted = Wanted::parse(begin)?;
        self.program_of(&wanted.service).await?;
        let at = self.decide_execution(by, &wanted).await?;
        match self.begin(&wanted).await {
            Ok(begun) => {
                let (send, receive) = mpsc::channel(QUEUE);
                let applier = self.clone();
                tokio::spawn(async move {
                    let status = begun.carry(messages, &send).await;
                    applier.close_execution(at, status).await;
                });
                Ok(receive)
            }
            Err(error) => {
                self.close_execution(at, ReceiptStatus::Failed { exit_code: NOT_EXECUTABLE }).await;
                Err(error.into())
            }
        }
    }

    async fn program_of(&self, service: &str) -> Result<LaunchId, SupervisorError> {
        let name = service.to_owned();
        self.inbox.view(move |machine| machine.running_program(&name)).await?
    }

    /// The decision is the record.
    async fn decide_execution(&self, by: IdentityId, wanted: &Wanted) -> Result<AxiomRef, Status> {
        let service = wanted.service.clone();
        let resource = ResourceRef { resource_type: ResourceType::Service, id: service.clone() };
        let action = PolicyAction::Execute { target: ExecuteTarget::Service(service) };
        let mut request = self.authority.request(by, action, resource)?;
        request.context.metadata.extend(wanted.logged());
        let committed = self.authority.evaluate(&request).await?;
        let unnamed = || SupervisorError::Unavailable("policy named no entry".to_owned()).into();
        committed.decision.ok_or_else(unnamed)
    }

    async fn begin(&self, wanted: &Wanted) -> Result<Begun, SupervisorError> {
        // It may be another process than the one that was there before the decision.
        let launch = self.program_of(&wanted.service).await?;
        let refuse = |text: String| SupervisorError::NotExecuted { service: wanted.service.clone(), text };
        let (streams, theirs) = Streams::open(wanted.terminal)
            .map_err(|error| refuse(format!("its standard streams cannot be made: {error}")))?;
        let (token, its) = StartToken::new()
            .map_err(|error| refuse(format!("it cannot be made sure that it can be given up: {error}")))?;
        let run = self.keeper.next_run();
        let end = self.executions.begin(run, launch);
        let order = Arc::new(Order { applier: self.clone(), launch, run, token });
        let mut starting = Box::pin(self.keeper.execute(launch.0, run, wanted.encoded.clone(), theirs, its));
        match tokio::time::timeout(KEEPER_PATIENCE, &mut starting).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                order.give_up().await;
                self.executions.forget(run);
                return Err(refuse(error.to_string()));
            }
            // It stands still. What it says in the end matters only if nobody has given the command up by then.
            Err(_) => {
                let order = Arc::clone(&order);
                tokio::spawn(async move {
                    if let Err(error) = starting.await {
                        tracing::warn!(%error, launch = %order.launch, "a command was not started");
                        order.give_up().await;
                    }
                });
            }
        }
        let limit = wanted.timeout.map(|timeout| TimeLimit::new(&order, timeout));
        Ok(Begun { order, streams, end, limit })
    }

    /// Until it stands: while the log is down, and not after this process.
    async fn close_execution(&self, at: AxiomRef, status: ReceiptStatus) {
        let receipt = Receipt::closing(at, status);
        let entry =
            random_16().and_then(|key| Entry::build(self.knowledge.own, None, EntryKey(key), receipt));
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return tracing::error!(%error, "the receipt of a command cannot be made"),
        };
        let mut pause = RECORD_PAUSE_MIN;
        loop {
            match self.authority.record(entry.clone()).await {
                Ok(_) => return,
                Err(AuthorityError::Busy { .. } | AuthorityError::Unavailable) => {}
                Err(error) => return tracing::warn!(%error, "the receipt of a command was refused"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECORD_PAUSE_MAX);
        }
    }
}

/// Kills the command when its time is over, whatever its caller reads meanwhile.
struct TimeLimit {
    is_over: Arc<AtomicBool>,
    task: tokio::task::AbortHandle,
}

impl TimeLimit {
    fn new(order: &Arc<Order>, timeout: Duration) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, order) = (Arc::clone(&is_over), Arc::clone(order));
        let task = tokio::spawn(async move {
            tokio::time::sleep(timeout).await;
            over.store(true, Ordering::Release);
            order.give_up().await;
        });
        Self { is_over, task: task.abort_handle() }
    }
}

impl Drop for TimeLimit {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A command that the init of its service was asked to start.
struct Order {
    applier: Applier,
    launch: LaunchId,
    run: u64,
    token: StartToken,
}

impl Order {
    /// It is not started any more, or killed. Its end comes by itself; at once, if the init had not come to it: it may stand
    /// still for as long as it likes, and finds nothing to start then.
    async fn give_up(&self) {
        let Self { applier, launch, run, token } = self;
        let (launch, ending) = (*launch, applier.keeper.end_executed(launch.0, *run));
        let ending = async move {
            if let Err(error) = ending.await {
                tracing::debug!(%error, %launch, "a command is not ended: its service has");
            }
        };
        if token.withdraw() {
            applier.executions.ended(*run, ExitStatus::Code(NOT_EXECUTABLE));
            // The keeper may stand still, too.
            tokio::spawn(ending);
        } else {
            ending.await;
        }
    }
}

/// A command that runs, or is about to.
struct Begun {
    order: Arc<Order>,
    streams: Streams,
    end: oneshot::Receiver<Ended>,
    limit: Option<TimeLimit>,
}

impl Begun {
    /// Carries its streams to the end, which is told to the caller and returned for the record. A caller who goes first has
    /// it killed.
    async fn carry(mut self, messages: Streaming<ExecuteInput>, send: &Sender) -> ReceiptStatus {
        match carry(&mut self.streams, &mut self.end, messages, send).await {
            Ok(ended) => {
                let over_time = self.limit.is_some_and(|limit| limit.is_over.load(Ordering::Acquire));
                let end = ExecutionEnd { end: Some(end_of(ended, over_time)) };
                let (mut streams, send) = (self.streams, send.clone());
                // Whoever had it run may take their time to hear the rest; the record does not wait for them.
                tokio::spawn(async move {
                    if say_rest(&mut streams, &send).await.is_ok() {
                        let _ = send.send(Ok(ExecuteOutput { output: Some(Output::End(end)) })).await;
                    }
                });
                receipt_of(ended, over_time)
            }
            Err(why) => {
                if let Some(status) = why {
                    let _ = send.send(Err(status)).await;
                }
                self.order.give_up().await;
                // Its caller is told no more; the record is not made before it is gone, however long that takes: what is
                // on record as ended must not run.
                if tokio::time::timeout(END_SOON, &mut self.end).await.is_err() {
                    let launch = self.order.launch;
                    tracing::warn!(%launch, "a command that was killed does not end; it is on record once it has");
                    let _ = self.end.await;
                }
                ReceiptStatus::Cancelled
            }
        }
    }
}

/// Until it has ended. An error is a caller who is gone, or who breaks the protocol.
async fn carry(
    streams: &mut Streams,
    end: &mut oneshot::Receiver<Ended>,
    mut messages: Streaming<ExecuteInput>,
    send: &Sender,
) -> Result<Ended, Option<Status>> {
    let mut listens = true;
    let ended = loop {
        tokio::select! {
            data = Reader::next(&mut streams.stdout) => say(send, Output::Stdout(data)).await?,
            data = Reader::next(&mut streams.stderr) => say(send, Output::Stderr(data)).await?,
            () = Writer::feed(&mut streams.stdin) => {}
            message = messages.message(), if listens && streams.takes_more() => {
                match message.map_err(|_| None)?.map(|message| message.input) {
                    // Nothing more is typed; what it says is still read.
                    None => {
                        listens = false;
                        streams.end_input();
                    }
                    Some(input) => take(streams, input)?,
                }
            }
            ended = &mut *end => break ended.unwrap_or(Ended::WithService),
            () = send.closed() => return Err(None),
        }
    };
    Ok(ended)
}

/// What a command's streams still hold. What it left behind may have them open; that is nothing that it says, and does not go on for ever.
async fn say_rest(streams: &mut Streams, send: &Sender) -> Result<(), Option<Status>> {
    for _ in 0..REST_PIECES_MAX {
        let Some(data) = streams.stdout.as_mut().and_then(Reader::rest) else { break };
        say(send, Output::Stdout(data)).await?;
    }
    for _ in 0..REST_PIECES_MAX {
        let Some(data) = streams.stderr.as_mut().and_then(Reader::rest) else { break };
        say(send, Output::Stderr(data)).await?;
    }
    Ok(())
}

async fn say(send: &Sender, output: Output) -> Result<(), Option<Status>> {
    send.send(Ok(ExecuteOutput { output: Some(output) })).await.map_err(|_| None)
}

fn take(streams: &mut Streams, input: Option<Input>) -> Result<(), Option<Status>> {
    let refuse = |text: String| Err(Some(Status::invalid_argument(text)));
    match input {
        Some(Input::Stdin(data)) if data.len() > STDIN_BYTES_MAX => {
            refuse(format!("stdin: {} bytes, at most {STDIN_BYTES_MAX} are allowed", data.len()))
        }
        Some(Input::Stdin(data)) => {
            streams.give(data);
            Ok(())
        }
        Some(Input::StdinEnd(_)) => {
            streams.end_input();
            Ok(())
        }
        Some(Input::Resize(size)) => match window(&size) {
            Ok(size) => {
                streams.resize(size);
                Ok(())
            }
            Err(text) => refuse(text),
        },
        Some(Input::Begin(_)) => refuse("the command is named once, in the first message".to_owned()),
        None => refuse("a message without content".to_owned()),
    }
}

fn end_of(ended: Ended, over_time: bool) -> End {
    match ended {
        Ended::WithService => End::WithService(true),
        Ended::Own(_) if over_time => End::OverTime(true),
        Ended::Own(ExitStatus::Code(code)) => End::Code(code),
        Ended::Own(ExitStatus::Signal(signal)) => End::Signal(signal),
    }
}

/// As a shell counts.
fn receipt_of(ended: Ended, over_time: bool) -> ReceiptStatus {
    match ended {
        Ended::WithService => ReceiptStatus::Cancelled,
        Ended::Own(_) if over_time => ReceiptStatus::Timeout,
        Ended::Own(ExitStatus::Code(0)) => ReceiptStatus::Success,
        Ended::Own(ExitStatus::Code(code)) => ReceiptStatus::Failed { exit_code: code },
        Ended::Own(ExitStatus::Signal(signal)) => ReceiptStatus::Failed { exit_code: SIGNALLED + signal },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_and_on_record_as_a_shell_counts_it() {
        use ReceiptStatus as R;
        for (ended, over_time, end, receipt) in [
            (Ended::Own(ExitStatus::Code(0)), false, End::Code(0), R::Success),
            (Ended::Own(ExitStatus::Code(7)), false, End::Code(7), R::Failed { exit_code: 7 }),
            (Ended::Own(ExitStatus::Signal(9)), false, End::Signal(9), R::Failed { exit_code: 137 }),
            (Ended::Own(ExitStatus::Signal(9)), true, End::OverTime(true), R::Timeout),
            (Ended::WithService, true, End::WithService(true), R::Cancelled),
        ] {
            assert_eq!((end_of(ended, over_time), receipt_of(ended, over_time)), (end, receipt));
        }
    }

    #[test]
    fn commands_end_with_the_service_that_they_run_beside_and_with_no_other() {
        let executions = Executions::default();
        let mut first = executions.begin(1, LaunchId(7));
        let mut second = executions.begin(2, LaunchId(8));
        executions.ended(3, ExitStatus::Code(0));
        executions.end_with(LaunchId(7));
        assert_eq!(first.try_recv(), Ok(Ended::WithService));
        assert!(second.try_recv().is_err());
        executions.ended(2, ExitStatus::Code(4));
        assert_eq!(second.try_recv(), Ok(Ended::Own(ExitStatus::Code(4))));
    }
}
