//! The keeper, as this service's tasks see it: requests in one ordered queue, answers in the same order, exits aside.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    time::Duration,
};

use sandbox::{
    Plan,
    fdpass::{Channel, PassError},
    keeper_protocol::{Child, Client, Exit, GroupUsage, ProtocolError, Reply, Request, launch_request},
};
use thiserror::Error;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, oneshot},
};

/// Requests that wait for the keeper: some for each of the programs that can exist.
const QUEUE_MAX: usize = 2048;
/// The keeper answers within milliseconds; one that does not answer `Hello` for so long is none.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// The keeper reads again when it has written; so long is waited before a full channel is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(1);

#[derive(Debug, Error)]
pub(super) enum KeeperError {
    #[error("the keeper cannot be reached: {0}")]
    Protocol(#[from] ProtocolError),
    #[error("the channel to the keeper cannot be used: {0}")]
    Io(#[from] io::Error),
    #[error("the keeper did not answer the greeting within {} s", HELLO_TIMEOUT.as_secs())]
    Silent,
    #[error("the keeper has gone, or its queue of {QUEUE_MAX} requests is full")]
    Gone,
    #[error("the keeper refuses: {0}")]
    Refused(String),
    #[error("launch failed at {step}: {text}")]
    Launch { step: String, text: String },
    #[error("the keeper answered with something else: {0}")]
    Unexpected(&'static str),
}

/// A monitor that was started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) host_pid: u32,
    /// Each with why.
    pub(super) missing: Vec<String>,
}

type Answer = (Reply, Vec<OwnedFd>);

struct Order {
    request: Request,
    fds: Vec<OwnedFd>,
    answer: oneshot::Sender<Answer>,
}

#[derive(Clone, Debug)]
pub(super) struct Keeper {
    orders: mpsc::Sender<Order>,
}

impl Keeper {
    /// Greets the keeper; ended children are told to `exits`, again those that were not acknowledged.
    pub(super) async fn connect(
        channel: OwnedFd,
        nonce: u64,
        exits: mpsc::UnboundedSender<(u64, Exit)>,
    ) -> Result<Self, KeeperError> {
        let client = Client::new(Channel::from(channel));
        client.set_nonblocking()?;
        let mut wire = register(client)?;
        let greeting = async {
            send(&wire, &Request::Hello(nonce)).await?;
            // What was meant for the process before this one comes first and is dropped.
            while receive(&mut wire).await?.0 != Reply::Hello(nonce) {}
            Ok::<(), KeeperError>(())
        };
        tokio::time::timeout(HELLO_TIMEOUT, greeting).await.map_err(|_| KeeperError::Silent)??;
        let (orders, queue) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(async move {
            if let Err(error) = drive(wire, queue, exits).await {
                tracing::error!(%error, "the channel to the keeper is lost");
            }
        });
        Ok(Self { orders })
    }

    async fn ask(&self, request: Request, fds: Vec<OwnedFd>) -> Result<Answer, KeeperError> {
        let (answer, waiting) = oneshot::channel();
        self.orders.try_send(Order { request, fds, answer }).map_err(|_| KeeperError::Gone)?;
        match waiting.await {
            Ok((Reply::Refused(text), _)) => Err(KeeperError::Refused(text)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(KeeperError::Gone),
        }
    }

    /// Starts a monitor; `fds` are the plan's slots.
    pub(super) async fn launch(
        &self,
        id: u64,
        plan: &Plan,
        fds: Vec<OwnedFd>,
    ) -> Result<Started, KeeperError> {
        let (request, memfd) = launch_request(id, plan, Vec::new())?;
        match self.ask(request, memfd.into_iter().chain(fds).collect()).await? {
            (Reply::Launched { pid, missing, .. }, _pidfd) => Ok(Started {
                host_pid: u32::try_from(pid).unwrap_or(0),
                missing: missing
                    .iter()
                    .map(|missing| format!("{}: {}", missing.guard, missing.why))
                    .collect(),
            }),
            (Reply::LaunchFailed { step, text, .. }, _) => Err(KeeperError::Launch { step, text }),
            _ => Err(KeeperError::Unexpected("launching")),
        }
    }

    pub(super) async fn kill(&self, id: u64) -> Result<(), KeeperError> {
        let signal = sandbox::process::Signal::KILL.as_raw();
        self.ask(Request::Signal { id, signal }, Vec::new()).await.map(drop)
    }

    pub(super) async fn acknowledge(&self, id: u64) -> Result<(), KeeperError> {
        self.ask(Request::Ack(id), Vec::new()).await.map(drop)
    }

    /// What the group of a program uses.
    pub(super) async fn measure(&self, id: u64) -> Result<GroupUsage, KeeperError> {
        match self.ask(Request::Measure(id), Vec::new()).await? {
            (Reply::Measured(used), _) => Ok(used),
            _ => Err(KeeperError::Unexpected("measuring")),
        }
    }

    /// All children of this service, ended ones included until they are acknowledged.
    pub(super) async fn children(&self) -> Result<Vec<Child>, KeeperError> {
        let mut all: Vec<Child> = Vec::new();
        loop {
            let after = all.last().map_or(0, |child| child.id);
            match self.ask(Request::List(after), Vec::new()).await? {
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

struct Wire(Client);

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[expect(
    deprecated,
    reason = "the form without the warning is unsafe; this one owns its descriptor and never swaps it"
)]
fn register(client: Client) -> io::Result<AsyncFd<Wire>> {
    AsyncFd::new(Wire(client))
}

async fn send(wire: &AsyncFd<Wire>, request: &Request) -> Result<(), KeeperError> {
    loop {
        let mut ready = wire.writable().await?;
        match wire.get_ref().0.send(request, &[]) {
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

async fn drive(
    mut wire: AsyncFd<Wire>,
    mut queue: mpsc::Receiver<Order>,
    exits: mpsc::UnboundedSender<(u64, Exit)>,
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
                Err(error) => drop(answer.send((Reply::Refused(error.to_string()), Vec::new()))),
            }
        }
        tokio::select! {
            order = queue.recv(), if unsent.is_none() => match order {
                Some(order) => unsent = Some(order),
                None => return Ok(()),
            },
            answer = receive(&mut wire) => match answer? {
                (Reply::Exited { id, exit }, _) => drop(exits.send((id, exit))),
                // Nobody may wait any more; the answer is still this request's.
                answer => if let Some(waiter) = waiting.pop_front() {
                    let _ = waiter.send(answer);
                },
            },
            () = tokio::time::sleep(FULL_PAUSE), if unsent.is_some() => {}
        }
    }
}
