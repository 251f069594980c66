//! What reaches the one task that owns the machine.

use std::os::fd::OwnedFd;

use base::IdentityId;
use chain::payload::service::ServiceError;
use tokio::sync::{mpsc, oneshot};

use super::keeper_client::Started;
use crate::core::supervisor::{
    Event, EventFilter, LaunchId, Reply, RequestId, ServiceEvent, Supervisor, SupervisorError,
};

/// Events that one listener may be behind; beyond it the listener is dropped, so that nobody waits for it.
pub(super) const EVENTS_BEHIND_MAX: usize = 256;

pub(super) type Answer = Result<Reply, SupervisorError>;
pub(super) type Told = Result<ServiceEvent, SupervisorError>;

pub(super) enum Input {
    Event(Event),
    /// A caller's wish; `by` is in whose name it is decided.
    Call {
        event: Box<dyn FnOnce(RequestId) -> Event + Send>,
        by: Option<IdentityId>,
        answer: oneshot::Sender<Answer>,
    },
    View(Box<dyn FnOnce(&Supervisor) + Send>),
    Subscribe {
        filter: EventFilter,
        events: mpsc::Sender<Told>,
    },
    /// What a program says by sd_notify arrives here from now on.
    Listen {
        service: String,
        socket: OwnedFd,
    },
    StopListening {
        service: String,
    },
    /// This check of the launch was not run.
    CheckGone {
        launch: LaunchId,
        run: u64,
    },
    /// The command that reloads it does not run.
    NotReloaded {
        launch: LaunchId,
        text: String,
    },
    /// A program leaves descriptors to be given back to its next process.
    StoreDescriptors {
        service: String,
        name: String,
        fds: Vec<OwnedFd>,
    },
    /// The keeper does not hold the file that it was given: the next one is whole.
    NotKept,
    ForgetDescriptors {
        service: String,
        name: String,
    },
    /// The keeper's answer to a launch.
    Launched {
        launch: LaunchId,
        result: Result<Started, (ServiceError, String)>,
    },
}

/// A caller's way to the machine. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    inputs: mpsc::UnboundedSender<Input>,
}

impl Inbox {
    #[must_use]
    pub(super) fn new(inputs: mpsc::UnboundedSender<Input>) -> Self {
        Self { inputs }
    }

    pub(super) async fn call(
        &self,
        by: Option<IdentityId>,
        event: impl FnOnce(RequestId) -> Event + Send + 'static,
    ) -> Answer {
        let (answer, waiting) = oneshot::channel();
        let _ = self.inputs.send(Input::Call { event: Box::new(event), by, answer });
        waiting.await.unwrap_or(Err(SupervisorError::ShuttingDown))
    }

    /// Something that has happened; nobody waits for what comes of it.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.inputs.send(Input::Event(event));
    }

    pub(super) async fn view<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Supervisor) -> T + Send + 'static,
    ) -> Result<T, SupervisorError> {
        let (answer, waiting) = oneshot::channel();
        let _ = self.inputs.send(Input::View(Box::new(move |machine| {
            let _ = answer.send(look(machine));
        })));
        waiting.await.map_err(|_| SupervisorError::ShuttingDown)
    }

    #[must_use]
    pub(super) fn subscribe(&self, filter: EventFilter) -> mpsc::Receiver<Told> {
        let (events, told) = mpsc::channel(EVENTS_BEHIND_MAX);
        let _ = self.inputs.send(Input::Subscribe { filter, events });
        told
    }
}
