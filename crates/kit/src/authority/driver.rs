//! The one task that owns the stream: collects what waits, sends it, matches the answers, and begins again.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    time::Duration,
};

use contracts::policy::v1::{
    AuthorityBatch, AuthorityItem, AuthorityReplies, authority_client::AuthorityClient, authority_item::Item,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    AuthorityError, BATCH_BYTES_MAX, BATCH_ITEMS_MAX, BATCHES, Committed, IN_FLIGHT_MAX, ITEMS, RESENT,
    UNSENT_MAX, read_reply,
};
use crate::client::Peer;

/// Pause before the stream is made anew, doubled up to the maximum.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(10);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long policy may take to open the stream; its socket accepts even while it is down.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// An item that nobody has answered yet.
#[derive(Debug)]
pub(super) struct Pending {
    item: Item,
    bytes: usize,
    reply: oneshot::Sender<Result<Committed, AuthorityError>>,
    since: Instant,
    sent: bool,
    _permit: OwnedSemaphorePermit,
}

impl Pending {
    pub(super) fn new(
        item: Item,
        bytes: usize,
        reply: oneshot::Sender<Result<Committed, AuthorityError>>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { item, bytes, reply, since: Instant::now(), sent: false, _permit: permit }
    }
}

pub(super) struct Driver {
    socket: PathBuf,
    queue: mpsc::Receiver<Pending>,
    next_id: u64,
    /// By id, which is the order of submission.
    waiting: BTreeMap<u64, Pending>,
    /// Ids to be sent on this stream, in order.
    unsent: VecDeque<u64>,
}

struct Stream {
    batches: mpsc::Sender<AuthorityBatch>,
    replies: Streaming<AuthorityReplies>,
}

/// Why a stream came to its end.
enum End {
    /// All handles are gone and everything was answered.
    Done,
    Broken(String),
}

impl Driver {
    pub(super) fn new(socket: PathBuf, queue: mpsc::Receiver<Pending>) -> Self {
        Self { socket, queue, next_id: 1, waiting: BTreeMap::new(), unsent: VecDeque::new() }
    }

    pub(super) async fn run(mut self) {
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            if self.waiting.is_empty() {
                match self.queue.recv().await {
                    Some(pending) => self.take(pending),
                    None => return,
                }
            }
            let cause = match self.open().await {
                Ok(mut stream) => {
                    pause = RETRY_PAUSE_MIN;
                    self.send_all_again();
                    match self.exchange(&mut stream).await {
                        End::Done => return,
                        End::Broken(cause) => cause,
                    }
                }
                Err(cause) => cause,
            };
            tracing::info!(cause, waiting = self.waiting.len(), "decision channel interrupted");
            self.give_up_unsent();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    fn take(&mut self, pending: Pending) {
        self.waiting.insert(self.next_id, pending);
        self.unsent.push_back(self.next_id);
        self.next_id += 1;
    }

    async fn open(&self) -> Result<Stream, String> {
        // One batch at a time: while it is on its way the next one grows.
        let (batches, outgoing) = mpsc::channel(1);
        let mut client = AuthorityClient::new(Peer::at(&self.socket).channel());
        let opening = client.channel(ReceiverStream::new(outgoing));
        match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
            Ok(Ok(response)) => Ok(Stream { batches, replies: response.into_inner() }),
            Ok(Err(status)) => Err(status.to_string()),
            Err(_) => Err(format!("no answer within {} ms", OPEN_TIMEOUT.as_millis())),
        }
    }

    /// Nobody knows what the other side made of what was under way; the log recognises the keys.
    fn send_all_again(&mut self) {
        RESENT.add(self.waiting.values().filter(|pending| pending.sent).count() as u64);
        self.unsent = self.waiting.keys().copied().collect();
    }

    async fn exchange(&mut self, stream: &mut Stream) -> End {
        let mut open = true;
        loop {
            if !open && self.waiting.is_empty() {
                return End::Done;
            }
            tokio::select! {
                reply = stream.replies.message() => match reply {
                    Ok(Some(replies)) => self.answer(replies),
                    Ok(None) => return End::Broken("policy ended the stream".to_owned()),
                    Err(status) => return End::Broken(status.to_string()),
                },
                permit = stream.batches.reserve(), if !self.unsent.is_empty() => match permit {
                    Ok(permit) => {
                        self.take_waiting();
                        if let Some(batch) = self.next_batch() {
                            permit.send(batch);
                        }
                    }
                    Err(_) => return End::Broken("policy takes no more".to_owned()),
                },
                pending = self.queue.recv(), if open => match pending {
                    Some(pending) => self.take(pending),
                    None => open = false,
                },
            }
        }
    }

    /// Everything that has arrived meanwhile goes into the same batch.
    fn take_waiting(&mut self) {
        while self.unsent.len() < IN_FLIGHT_MAX
            && let Ok(pending) = self.queue.try_recv()
        {
            self.take(pending);
        }
    }

    fn next_batch(&mut self) -> Option<AuthorityBatch> {
        let mut items = Vec::with_capacity(self.unsent.len().min(BATCH_ITEMS_MAX));
        let mut bytes = 0;
        while items.len() < BATCH_ITEMS_MAX
            && let Some(id) = self.unsent.front().copied()
        {
            let Some(pending) = self.waiting.get_mut(&id) else {
                self.unsent.pop_front();
                continue;
            };
            if !pending.sent && pending.reply.is_closed() {
                // Its caller went away before anything was said: nothing has happened.
                self.unsent.pop_front();
                self.waiting.remove(&id);
                continue;
            }
            bytes += pending.bytes;
            if bytes > BATCH_BYTES_MAX && !items.is_empty() {
                break;
            }
            self.unsent.pop_front();
            pending.sent = true;
            items.push(AuthorityItem { id, item: Some(pending.item.clone()) });
        }
        if items.is_empty() {
            return None;
        }
        ITEMS.add(items.len() as u64);
        BATCHES.add(1);
        Some(AuthorityBatch { items })
    }

    fn answer(&mut self, replies: AuthorityReplies) {
        for reply in replies.replies {
            match self.waiting.remove(&reply.id) {
                // A caller that is gone does not need it.
                Some(pending) => drop(pending.reply.send(read_reply(reply.result))),
                // Answered before, on a stream that broke after that.
                None => tracing::debug!(id = reply.id, "answer to nothing that waits"),
            }
        }
    }

    /// What was never sent has changed nothing, so its caller may be told.
    fn give_up_unsent(&mut self) {
        self.take_waiting();
        let late: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, pending)| !pending.sent && pending.since.elapsed() >= UNSENT_MAX)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(pending) = self.waiting.remove(&id) {
                let _ = pending.reply.send(Err(AuthorityError::Unavailable));
            }
        }
    }
}
