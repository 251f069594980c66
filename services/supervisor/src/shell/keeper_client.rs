//! The keeper, as the supervisor's tasks see it: requests in one ordered queue, answers in the same order, notices aside.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sandbox::{
    Plan,
    fdpass::{Channel, PassError},
    keeper_protocol::{Child, Client, Exit, ProtocolError, Reply, Request, launch_request},
    process::ExitStatus,
};
use thiserror::Error;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, oneshot},
};

/// Requests that wait for the keeper; a boot of a thousand services with their sockets fits.
const QUEUE_MAX: usize = 16 * 1024;
/// The keeper answers within milliseconds; one that does not answer `Hello` for so long is none.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
pub(super) enum KeeperError {
    #[error("the keeper cannot be reached: {0}")]
    Protocol(#[from] ProtocolError),
    #[error("the channel to the keeper cannot be used")]
    Io(#[from] std::io::Error),
    #[error("the keeper did not answer the greeting within {} s", HELLO_TIMEOUT.as_secs())]
    Silent,
    #[error("the keeper has gone, or its queue of {QUEUE_MAX} requests is full")]
    Gone,
    #[error("the keeper refuses: {0}")]
    Refused(String),
    #[error("the keeper answered with something else: {0}")]
    Unexpected(&'static str),
}

/// What the keeper says without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Exited {
        id: u64,
        exit: Exit,
    },
    /// The program that stays is there.
    Settled {
        id: u64,
        pid: i32,
    },
    /// A command of its plan has ended.
    Done {
        id: u64,
        command: u16,
        status: ExitStatus,
        run: u64,
    },
    ShutdownRequested,
}

/// A child that the keeper started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: u32,
    /// Each with why.
    pub(super) missing: Vec<String>,
}

type Answer = (Reply, Vec<OwnedFd>);

struct Order {
    request: Request,
    fds: Vec<OwnedFd>,
    answer: oneshot::Sender<Answer>,
}

/// Cheap to clone. A request is in the queue when the method has returned its future, not when that is awaited: the
/// order of calls is the order of requests.
#[derive(Clone, Debug)]
pub(super) struct Keeper {
    orders: mpsc::Sender<Order>,
    /// The last number of a run; those of a supervisor before are elsewhere.
    runs: Arc<AtomicU64>,
}

/// Resolves to the keeper's answer.
pub(super) struct Pending(Result<oneshot::Receiver<Answer>, KeeperError>);

impl Pending {
    async fn wait(self) -> Result<Answer, KeeperError> {
        match self.0?.await {
            Ok((Reply::Refused(text), _)) => Err(KeeperError::Refused(text)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(KeeperError::Gone),
        }
    }
}

impl Keeper {
    /// Greets the keeper over the inherited channel; notices go to `notices`.
    pub(super) async fn connect(
        channel: OwnedFd,
        nonce: u64,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> Result<Self, KeeperError> {
        let client = Client::new(Channel::from(channel));
        client.set_nonblocking()?;
        let mut wire = kit::watch(client, Interest::READABLE | Interest::WRITABLE)?;
        let greeting = async {
            send(&wire, &Request::Hello(nonce), &[]).await?;
            // What was meant for a supervisor before this one comes first and is dropped.
            while receive(&mut wire).await?.0 != Reply::Hello(nonce) {}
            Ok::<(), KeeperError>(())
        };
        tokio::time::timeout(HELLO_TIMEOUT, greeting).await.map_err(|_| KeeperError::Silent)??;
        let (orders, queue) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(async move {
            if let Err(error) = drive(wire, queue, notices).await {
                tracing::error!(%error, "the channel to the keeper is lost");
            }
        });
        Ok(Self { orders, runs: Arc::new(AtomicU64::new(nonce)) })
    }

    fn order(&self, request: Request, fds: Vec<OwnedFd>) -> Pending {
        let (answer, waiting) = oneshot::channel();
        let order = Order { request, fds, answer };
        Pending(self.orders.try_send(order).map(|()| waiting).map_err(|_| KeeperError::Gone))
    }

    pub(super) fn store(
        &self,
        name: &str,
        fd: OwnedFd,
    ) -> impl Future<Output = Result<(), KeeperError>> + use<> {
        done(self.order(Request::Store(name.to_owned()), vec![fd]), Reply::Stored, "storing")
    }

    /// None if nothing is stored under this name.
    pub(super) async fn fetch(&self, name: &str) -> Result<Option<OwnedFd>, KeeperError> {
        match self.order(Request::Fetch(name.to_owned()), Vec::new()).wait().await {
            Ok((Reply::Fetched, mut fds)) => Ok(fds.pop()),
            Ok(_) => Err(KeeperError::Unexpected("fetching")),
            Err(KeeperError::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn forget(&self, name: &str) -> impl Future<Output = Result<(), KeeperError>> + use<> {
        done(self.order(Request::Forget(name.to_owned()), Vec::new()), Reply::Forgotten, "forgetting")
    }

    /// Starts what the plan says; its slots are the `stored` descriptors, then `fds`. The error is a text for people.
    pub(super) fn launch(
        &self,
        id: u64,
        plan: &Plan,
        stored: Vec<String>,
        fds: Vec<OwnedFd>,
    ) -> impl Future<Output = Result<Started, String>> + use<> {
        let pending = launch_request(id, plan, stored).map(|(request, memfd)| {
            let all = memfd.into_iter().chain(fds).collect();
            self.order(request, all)
        });
        async move {
            let pending = pending.map_err(|error| error.to_string())?;
            match pending.wait().await {
                Ok((Reply::Launched { pid, missing, .. }, _pidfd)) => Ok(Started {
                    pid: u32::try_from(pid).unwrap_or(0),
                    missing: missing
                        .iter()
                        .map(|missing| format!("{}: {}", missing.guard, missing.why))
                        .collect(),
                }),
                Ok((Reply::LaunchFailed { step, errno, text, .. }, _)) => {
                    Err(format!("launch failed at `{step}` (errno {errno}): {text}"))
                }
                Ok(_) => Err(KeeperError::Unexpected("launching").to_string()),
                Err(error) => Err(error.to_string()),
            }
        }
    }

    pub(super) fn signal(
        &self,
        id: u64,
        signal: i32,
    ) -> impl Future<Output = Result<(), KeeperError>> + use<> {
        done(self.order(Request::Signal { id, signal }, Vec::new()), Reply::Signalled, "signalling")
    }

    /// Has a command of the child's plan run beside it; its end is a [`Notice::Done`].
    pub(super) fn run(&self, id: u64, command: u8) -> impl Future<Output = Result<(), KeeperError>> + use<> {
        self.run_as(id, command, self.next_run())
    }

    /// The same, where one end has to be told from another.
    pub(super) fn run_as(
        &self,
        id: u64,
        command: u8,
        run: u64,
    ) -> impl Future<Output = Result<(), KeeperError>> + use<> {
        done(self.order(Request::Run { id, command, run }, Vec::new()), Reply::Running, "running a command")
    }

    pub(super) fn next_run(&self) -> u64 {
        // 0 is nobody's.
        self.runs.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1)
    }

    /// Has one more process run beside the child, with these standard streams and this token; its end is a
    /// [`Notice::Done`].
    pub(super) fn execute(
        &self,
        id: u64,
        run: u64,
        execution: Vec<u8>,
        streams: [OwnedFd; 3],
        token: OwnedFd,
    ) -> impl Future<Output = Result<(), KeeperError>> + use<> {
        let request = Request::Execute { id, run, execution };
        let fds = streams.into_iter().chain([token]).collect();
        done(self.order(request, fds), Reply::Running, "executing")
    }

    pub(super) fn end_executed(
        &self,
        id: u64,
        run: u64,
    ) -> impl Future<Output = Result<(), KeeperError>> + use<> {
        done(self.order(Request::EndExecuted { id, run }, Vec::new()), Reply::Signalled, "ending a command")
    }

    /// Ends such a command, if it runs.
    pub(super) fn end_command(
        &self,
        id: u64,
        command: u8,
    ) -> impl Future<Output = Result<(), KeeperError>> + use<> {
        done(
            self.order(Request::EndCommand { id, command }, Vec::new()),
            Reply::Signalled,
            "ending a command",
        )
    }

    pub(super) fn acknowledge(&self, id: u64) -> impl Future<Output = Result<(), KeeperError>> + use<> {
        done(self.order(Request::Ack(id), Vec::new()), Reply::Acked, "acknowledging")
    }

    /// Ends every child and the keeper.
    pub(super) fn shutdown(&self) -> impl Future<Output = Result<(), KeeperError>> + use<> {
        done(self.order(Request::Shutdown, Vec::new()), Reply::ShuttingDown, "shutting down")
    }

    /// All children, ended ones included until they are acknowledged.
    pub(super) async fn children(&self) -> Result<Vec<Child>, KeeperError> {
        let mut all: Vec<Child> = Vec::new();
        loop {
            let after = all.last().map_or(0, |child| child.id);
            match self.order(Request::List(after), Vec::new()).wait().await? {
                (Reply::Children { children, more }, _) => {
                    let is_last = !more || children.is_empty();
                    all.extend(children);
                    if is_last {
                        return Ok(all);
                    }
                }
                _ => return Err(KeeperError::Unexpected("listing")),
            }
        }
    }
}

async fn done(pending: Pending, expected: Reply, what: &'static str) -> Result<(), KeeperError> {
    match pending.wait().await? {
        (reply, _) if reply == expected => Ok(()),
        _ => Err(KeeperError::Unexpected(what)),
    }
}

type Wire = kit::Watched<Client>;

async fn send(wire: &AsyncFd<Wire>, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), KeeperError> {
    loop {
        let mut ready = wire.writable().await?;
        match wire.get_ref().0.send(request, fds) {
            Err(ProtocolError::Pass(PassError::Full)) => ready.clear_ready(),
            result => return Ok(result?),
        }
    }
}

async fn receive(wire: &mut AsyncFd<Wire>) -> Result<Answer, KeeperError> {
    loop {
        let mut ready = wire.ready_mut(Interest::READABLE).await?;
        match ready.get_inner_mut().0.receive() {
            Err(ProtocolError::Pass(PassError::Full)) => ready.clear_ready(),
            result => return Ok(result?),
        }
    }
}

/// Sends orders as they come and as the socket takes them, and hands answers out in the same order.
async fn drive(
    mut wire: AsyncFd<Wire>,
    mut queue: mpsc::Receiver<Order>,
    notices: mpsc::UnboundedSender<Notice>,
) -> Result<(), KeeperError> {
    let mut waiting: VecDeque<oneshot::Sender<Answer>> = VecDeque::new();
    let mut unsent: Option<Order> = None;
    loop {
        if let Some(Order { request, fds, answer }) = unsent.take() {
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            match wire.get_ref().0.send(&request, &borrowed) {
                Ok(()) => waiting.push_back(answer),
                Err(ProtocolError::Pass(PassError::Full)) => {
                    drop(borrowed);
                    unsent = Some(Order { request, fds, answer });
                }
                // A request that cannot be sent as it is fails alone; a broken channel shows at the next receive.
                Err(error) => {
                    tracing::warn!(%error, "a request to the keeper cannot be sent");
                    let _ = answer.send((Reply::Refused(error.to_string()), Vec::new()));
                }
            }
        }
        tokio::select! {
            order = queue.recv(), if unsent.is_none() => match order {
                Some(order) => unsent = Some(order),
                None if waiting.is_empty() => return Ok(()),
                None => take(receive(&mut wire).await?, &mut waiting, &notices),
            },
            answer = receive(&mut wire) => take(answer?, &mut waiting, &notices),
            // The keeper reads again when it has written: room comes with its next answer or soon after.
            () = tokio::time::sleep(Duration::from_millis(1)), if unsent.is_some() => {}
        }
    }
}

fn take(
    answer: Answer,
    waiting: &mut VecDeque<oneshot::Sender<Answer>>,
    notices: &mpsc::UnboundedSender<Notice>,
) {
    let notice = match &answer.0 {
        Reply::Exited { id, exit } => Notice::Exited { id: *id, exit: *exit },
        Reply::Settled { id, pid } => Notice::Settled { id: *id, pid: *pid },
        Reply::Done { id, command, status, run } => {
            Notice::Done { id: *id, command: *command, status: *status, run: *run }
        }
        Reply::ShutdownRequested => Notice::ShutdownRequested,
        _ => {
            // Nobody may wait any more; the answer is still this request's.
            if let Some(waiter) = waiting.pop_front() {
                let _ = waiter.send(answer);
            }
            return;
        }
    };
    let _ = notices.send(notice);
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox::keeper_protocol::encode_reply;

    fn exit(code: i32) -> Exit {
        Exit { status: ExitStatus::Code(code), usage: Default::default(), group: Default::default() }
    }

    fn next(keeper: &Channel) -> Request {
        let mut buffer = vec![0; sandbox::fdpass::MESSAGE_BYTES_MAX];
        let length = keeper.receive(&mut buffer, &mut Vec::new()).unwrap();
        base::cbor::decode(&buffer[..length]).unwrap()
    }

    fn say(keeper: &Channel, reply: &Reply) {
        keeper.send(&encode_reply(reply), &[]).unwrap();
    }

    #[tokio::test]
    async fn answers_come_in_order_with_notices_between_and_old_ones_are_dropped() {
        let (ours, theirs) = Channel::pair().unwrap();
        let fake = std::thread::spawn(move || {
            say(&ours, &Reply::Stored);
            assert_eq!(next(&ours), Request::Hello(7));
            say(&ours, &Reply::Hello(7));
            assert_eq!(next(&ours), Request::Ack(1));
            assert_eq!(next(&ours), Request::Fetch("x".to_owned()));
            say(&ours, &Reply::Exited { id: 5, exit: exit(3) });
            say(&ours, &Reply::Acked);
            say(&ours, &Reply::ShutdownRequested);
            say(&ours, &Reply::Refused("no descriptor".to_owned()));
        });
        let (notices, mut told) = mpsc::unbounded_channel();
        let keeper = Keeper::connect(theirs.into(), 7, notices).await.unwrap();
        // Ordered by the calls, whichever is awaited first.
        let acknowledged = keeper.acknowledge(1);
        assert!(keeper.fetch("x").await.unwrap().is_none());
        acknowledged.await.unwrap();
        assert_eq!(told.recv().await, Some(Notice::Exited { id: 5, exit: exit(3) }));
        assert_eq!(told.recv().await, Some(Notice::ShutdownRequested));
        fake.join().unwrap();
        assert!(matches!(keeper.acknowledge(2).await, Err(KeeperError::Gone)));
    }

    #[tokio::test]
    async fn a_list_is_asked_for_until_it_is_whole() {
        let (ours, theirs) = Channel::pair().unwrap();
        let child = |id| Child { id, pid: 10, exit: Some(exit(0)), settled: true };
        let fake = std::thread::spawn(move || {
            assert_eq!(next(&ours), Request::Hello(1));
            say(&ours, &Reply::Hello(1));
            assert_eq!(next(&ours), Request::List(0));
            say(&ours, &Reply::Children { children: vec![child(2), child(4)], more: true });
            assert_eq!(next(&ours), Request::List(4));
            say(&ours, &Reply::Children { children: vec![child(9)], more: false });
        });
        let (notices, _told) = mpsc::unbounded_channel();
        let keeper = Keeper::connect(theirs.into(), 1, notices).await.unwrap();
        let ids: Vec<u64> = keeper.children().await.unwrap().iter().map(|child| child.id).collect();
        assert_eq!(ids, [2, 4, 9]);
        fake.join().unwrap();
    }
}
