//! The feed: entries in order to each follower, a heartbeat when there are none, and what each has folded.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use base::{AxiomRef, Sequence};
use contracts::axiom::v1::{FeedBatch, FollowRequest, FollowStart, feed_server::Feed, follow_request::Step};
use durable::RealDisk;
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    AxiomService,
    reads::{status, wire_entry},
};
use crate::store::{Follow, Follower};

/// Axiom time goes on without entries: followers hear it at least so often, well within their 5 s of patience.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// That the log has grown by entries which a follower does not want is told at most so often, where nobody waits for it: it changes
/// nothing there, and with many acts under way each group would wake every service of the node.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);
/// Entries of one message; with payloads of the largest size they are split further by `MESSAGE_BYTES`.
const BATCH_ENTRIES_MAX: usize = 1024;
/// Bytes of payloads after which a message is sent.
const MESSAGE_BYTES: usize = 512 * 1024;
/// Messages under way to one follower; a slower one reads later, from the files.
const MESSAGES_QUEUED_MAX: usize = 16;
/// Entry types that one follower names.
const ENTRY_TYPES_MAX: usize = 64;

pub(super) struct Feeds(pub(super) Arc<AxiomService>);

type Batches = Pin<Box<dyn Stream<Item = Result<FeedBatch, Status>> + Send>>;

#[tonic::async_trait]
impl Feed for Feeds {
    type FollowStream = Batches;

    async fn follow(&self, request: Request<Streaming<FollowRequest>>) -> Result<Response<Batches>, Status> {
        let name = Arc::clone(&kit::caller(&request)?.client);
        let mut steps = request.into_inner();
        let start = match steps.message().await?.and_then(|first| first.step) {
            Some(Step::Start(start)) => start,
            _ => {
                return Err(Status::invalid_argument("the first message of a follower says where it starts"));
            }
        };
        if start.entry_types.len() > ENTRY_TYPES_MAX {
            let text = format!("a follower names at most {ENTRY_TYPES_MAX} entry types");
            return Err(Status::invalid_argument(text));
        }
        check_seen(&self.0, &start)?;
        let before = hash_before(&self.0, start.from);
        let (send, receive) = mpsc::channel(MESSAGES_QUEUED_MAX);
        let service = Arc::clone(&self.0);
        service.followers.join(&name);
        let awaited = watch::Sender::new(0);
        let telling = Telling {
            follower: Follower::new(service.reader.clone(), Sequence(start.from)),
            wanted: start.entry_types.into_iter().collect(),
            grown: service.grown.clone(),
            service: Arc::clone(&service),
            awaited: awaited.subscribe(),
            awaited_of_all: service.followers.awaited(),
            told_to: 0,
            up_to_hash: before,
            replay_to: None,
            told_at: Instant::now(),
            owes_progress: false,
            save_asked: 0,
        };
        tokio::spawn(async move {
            tokio::select! {
                () = telling.run(&send) => {}
                () = listen(&service, &name, steps, &awaited) => {}
            }
            service.followers.leave(&name);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }
}

/// A follower remembers what it has seen: a log that lacks it was cut or exchanged, and must not be believed.
fn check_seen(service: &AxiomService, start: &FollowStart) -> Result<(), Status> {
    let begin = service.reader.begin();
    if Sequence(start.from) < begin.point.next_sequence {
        return Err(status(begin.archived(Sequence(start.from))));
    }
    let Some(seen) = &start.seen else { return Ok(()) };
    let seen = AxiomRef::try_from(seen).map_err(|error| Status::invalid_argument(error.to_string()))?;
    // The last archived entry is known by its hash; what lies before it, by who goes on there alone.
    let same = match begin.point.last() {
        Some(last) if seen.sequence == last.sequence => seen.hash == last.hash,
        Some(last) if seen.sequence < last.sequence => return Err(status(begin.archived(seen.sequence))),
        _ => {
            let there = service.reader.read(seen.sequence).ok();
            there.is_some_and(|entry| entry.header.entry_hash(&entry.payload) == seen.hash)
        }
    };
    if same { Ok(()) } else { Err(Status::data_loss(format!("Truncated: the log has no entry {seen}"))) }
}

/// Of the entry before the first one that is wanted; empty at genesis, and where the log has no such entry.
fn hash_before(service: &AxiomService, from: u64) -> Vec<u8> {
    let begin = service.reader.begin().point;
    if begin.next_sequence == Sequence(from) {
        return begin.last().map(|last| last.hash.0.to_vec()).unwrap_or_default();
    }
    let before = from.checked_sub(1).and_then(|before| service.reader.read(Sequence(before)).ok());
    before.map(|entry| entry.hash().0.to_vec()).unwrap_or_default()
}

/// Takes in what the follower has folded, until it goes away.
async fn listen(
    service: &AxiomService,
    name: &str,
    mut steps: Streaming<FollowRequest>,
    awaited: &watch::Sender<u64>,
) {
    while let Ok(Some(FollowRequest { step })) = steps.message().await {
        match step {
            Some(Step::Folded(sequence)) => service.followers.folded(name, sequence),
            Some(Step::Saved(sequence)) => service.followers.saved(name, sequence),
            Some(Step::Awaited(sequence)) => drop(awaited.send_replace(sequence)),
            _ => {}
        }
    }
}

struct Telling {
    service: Arc<AxiomService>,
    follower: Follower<RealDisk>,
    wanted: BTreeSet<u32>,
    grown: watch::Receiver<u64>,
    /// Somebody there waits until this is folded.
    awaited: watch::Receiver<u64>,
    /// Somebody waits until all have folded this.
    awaited_of_all: watch::Receiver<u64>,
    /// Up to where the follower was told.
    told_to: u64,
    /// Of the last entry that was looked at.
    up_to_hash: Vec<u8>,
    /// What was there when the follow began ends here.
    replay_to: Option<u64>,
    told_at: Instant,
    owes_progress: bool,
    /// How often this follower was asked to write its fold down.
    save_asked: u64,
}

impl Telling {
    async fn run(mut self, send: &mpsc::Sender<Result<FeedBatch, Status>>) {
        // The first message comes at once, so that a follower of an old log knows the time.
        let mut silent = true;
        loop {
            let batch = match self.follower.poll(BATCH_ENTRIES_MAX) {
                Ok(Follow::Replay { to, .. }) => {
                    self.replay_to = Some(to.0);
                    continue;
                }
                Ok(Follow::Entries(entries)) => {
                    let batch = self.batch(&entries);
                    if batch.entries.is_empty()
                        && !batch.replay
                        && !batch.save
                        && !self.is_awaited()
                        && self.told_at.elapsed() < PROGRESS_EVERY
                    {
                        self.owes_progress = true;
                        continue;
                    }
                    batch
                }
                // Told at once when the replay is over: until then a service does not serve.
                Ok(Follow::CaughtUp) if silent || self.is_awaited() || self.replay_to.take().is_some() => {
                    self.replay_to = None;
                    self.batch(&[])
                }
                Ok(Follow::CaughtUp) => {
                    let patience = match self.owes_progress {
                        true => PROGRESS_EVERY.saturating_sub(self.told_at.elapsed()),
                        // All followers at the same moment: one wake-up of this process is enough for them.
                        false => kit::until_next(HEARTBEAT),
                    };
                    let news = async {
                        tokio::select! {
                            _ = self.grown.changed() => {}
                            // What ends it ends this task too.
                            Ok(()) = self.awaited.changed() => {}
                            Ok(()) = self.awaited_of_all.changed() => {}
                        }
                    };
                    silent = tokio::time::timeout(patience, news).await.is_err();
                    continue;
                }
                Err(error) => {
                    let _ = send.send(Err(Status::internal(error.to_string()))).await;
                    return;
                }
            };
            silent = false;
            self.told_at = Instant::now();
            self.told_to = batch.up_to;
            self.owes_progress = false;
            for message in split(batch) {
                if send.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Whether somebody waits for what has come and was not told there yet.
    fn is_awaited(&self) -> bool {
        let untold = self.told_to.saturating_add(1)..self.follower.next_sequence().0;
        untold.contains(&self.awaited.borrow()) || untold.contains(&self.awaited_of_all.borrow())
    }

    fn batch(&mut self, entries: &[Arc<chain::Entry>]) -> FeedBatch {
        let up_to = self.follower.next_sequence().0.saturating_sub(1);
        let (axiom_time, boot_time_ns) = self.service.identity.time();
        let asked = self.service.followers.save_asked();
        let save = std::mem::replace(&mut self.save_asked, asked) != asked;
        if let Some(last) = entries.last() {
            self.up_to_hash = last.hash().0.to_vec();
        }
        let wanted = entries
            .iter()
            .filter(|entry| self.wanted.is_empty() || self.wanted.contains(&entry.header.entry_type.code()));
        FeedBatch {
            entries: wanted.map(|entry| wire_entry(entry)).collect(),
            up_to,
            replay: self.replay_to.is_some_and(|to| up_to <= to),
            axiom_time_ns: axiom_time.0,
            boot_time_ns,
            up_to_hash: self.up_to_hash.clone(),
            save,
        }
    }
}

/// Messages of bounded size; all but the last reach only as far as their own entries.
fn split(mut batch: FeedBatch) -> Vec<FeedBatch> {
    let mut messages = Vec::with_capacity(1);
    let mut entries = std::mem::take(&mut batch.entries).into_iter().peekable();
    while entries.peek().is_some() {
        let mut bytes = 0;
        let mut part = Vec::new();
        while let Some(entry) =
            entries.next_if(|entry| bytes == 0 || bytes + entry.payload.len() <= MESSAGE_BYTES)
        {
            bytes += entry.payload.len().max(1);
            part.push(entry);
        }
        let (up_to, up_to_hash) = match (entries.peek(), part.last()) {
            (Some(_), Some(last)) => (last.sequence, last.hash.clone()),
            _ => (batch.up_to, batch.up_to_hash.clone()),
        };
        let save = batch.save && entries.peek().is_none();
        messages.push(FeedBatch { entries: part, up_to, up_to_hash, save, ..batch.clone() });
    }
    if messages.is_empty() {
        messages.push(batch);
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::axiom::v1::Entry;

    fn entry(sequence: u64, bytes: usize) -> Entry {
        Entry { sequence, payload: vec![0; bytes], hash: vec![sequence as u8; 32], ..Entry::default() }
    }

    /// covers: AX-51
    #[test]
    fn messages_are_bounded_and_each_reaches_as_far_as_it_says() {
        let batch = |entries| FeedBatch { entries, up_to: 40, ..FeedBatch::default() };
        let shape =
            |batch| split(batch).iter().map(|part| (part.entries.len(), part.up_to)).collect::<Vec<_>>();
        assert_eq!(shape(batch(vec![])), [(0, 40)]);
        assert_eq!(shape(batch(vec![entry(7, 10), entry(9, 10)])), [(2, 40)]);
        let large = vec![entry(1, MESSAGE_BYTES), entry(2, 1), entry(3, MESSAGE_BYTES - 1), entry(4, 5)];
        assert_eq!(shape(batch(large.clone())), [(1, 1), (2, 3), (1, 40)]);
        let whole = FeedBatch { up_to_hash: vec![40; 32], ..batch(large) };
        let hashes = split(whole).iter().map(|part| part.up_to_hash[0]).collect::<Vec<_>>();
        assert_eq!(hashes, [1, 3, 40], "each says which entry it reaches to");
    }
}
