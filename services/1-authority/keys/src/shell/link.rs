//! The service's end of the boundary's socket: one task owns it, one request is under way at a time.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustix::{
    fd::OwnedFd,
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
};
use thiserror::Error;
use tokio::{
    net::UnixDatagram,
    sync::{mpsc, oneshot},
};

use crate::{
    boundary::protocol::{MESSAGE_BYTES_MAX, Request, Response},
    core::PENDING_MAX,
};

/// Opening a seal takes the longest: Argon2id at its highest accepted cost. What takes longer is taken for dead.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the boundary is taken for gone; it is not asked again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum LinkError {
    #[error("the key boundary has ended")]
    Gone,
    #[error("the socket to the key boundary failed: {0}")]
    Socket(Errno),
    #[error("the key boundary did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Silent,
    #[error("the key boundary sent what nobody asked for, or what cannot be read")]
    Malformed,
}

struct Question {
    request: Request,
    answer: oneshot::Sender<Response>,
}

/// Cheap to clone. Ends its task when the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct Link {
    questions: mpsc::Sender<Question>,
    fault: Arc<OnceLock<LinkError>>,
}

impl Link {
    /// Takes the socket. `on_gone` runs once, after whoever waited for an answer was told.
    pub(super) fn start(
        socket: OwnedFd,
        on_gone: impl FnOnce(LinkError) + Send + 'static,
    ) -> std::io::Result<Self> {
        fcntl_setfl(&socket, fcntl_getfl(&socket)? | OFlags::NONBLOCK)?;
        // One message for each call, as with datagrams, and an end that is read as nothing: the same calls fit both.
        let socket = UnixDatagram::from_std(socket.into())?;
        // As many as the core lets in, so that a question finds room.
        let (questions, mut waiting) = mpsc::channel(PENDING_MAX);
        let fault = Arc::new(OnceLock::new());
        let told = Arc::clone(&fault);
        tokio::spawn(async move {
            let Err(error) = serve(&socket, &mut waiting).await else { return };
            let _ = told.set(error.clone());
            waiting.close();
            // Dropped unanswered: who asked hears that it is gone.
            while waiting.try_recv().is_ok() {}
            on_gone(error);
        });
        Ok(Self { questions, fault })
    }

    pub(super) async fn ask(&self, request: Request) -> Result<Response, LinkError> {
        let (answer, answered) = oneshot::channel();
        let gone = || self.fault.get().cloned().unwrap_or(LinkError::Gone);
        self.questions.send(Question { request, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }

    /// Asked before this returns and so before whatever is asked later; the answer is awaited.
    pub(super) fn begin(&self, request: Request) -> oneshot::Receiver<Response> {
        let (answer, answered) = oneshot::channel();
        // Without room nothing could have been asked before: then the receiver ends, as with a boundary that is gone.
        let _ = self.questions.try_send(Question { request, answer });
        answered
    }

    /// Why it is taken for gone, if it is.
    pub(super) fn fault(&self) -> Option<&LinkError> {
        self.fault.get()
    }
}

async fn serve(socket: &UnixDatagram, waiting: &mut mpsc::Receiver<Question>) -> Result<(), LinkError> {
    loop {
        let question = tokio::select! {
            question = waiting.recv() => match question {
                Some(question) => question,
                None => return Ok(()),
            },
            // Nothing was asked: what comes now is its end, or wrong.
            unasked = receive(socket) => return Err(unasked.err().unwrap_or(LinkError::Malformed)),
        };
        let exchange = async {
            transmit(socket, &question.request.to_bytes()).await?;
            receive(socket).await
        };
        let response =
            tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_| LinkError::Silent)??;
        let _ = question.answer.send(response);
    }
}

async fn transmit(socket: &UnixDatagram, message: &[u8]) -> Result<(), LinkError> {
    socket.send(message).await.map(|_| ()).map_err(|error| failed(&error))
}

async fn receive(socket: &UnixDatagram) -> Result<Response, LinkError> {
    // One byte more than a message has, so that a longer one is noticed.
    let mut buffer = vec![0; MESSAGE_BYTES_MAX + 1];
    let bytes = socket.recv(&mut buffer).await.map_err(|error| failed(&error))?;
    if bytes == 0 {
        return Err(LinkError::Gone);
    }
    let message = buffer.get(..bytes).ok_or(LinkError::Malformed)?;
    Response::from_bytes(message).map_err(|_| LinkError::Malformed)
}

fn failed(error: &std::io::Error) -> LinkError {
    match Errno::from_io_error(error) {
        Some(Errno::PIPE | Errno::CONNRESET) | None => LinkError::Gone,
        Some(errno) => LinkError::Socket(errno),
    }
}
