//! The decision channel against a policy that answers, stalls and dies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

use std::{collections::BTreeSet, path::Path, time::Duration};

use base::{EntryKey, IdentityId, Sequence};
use chain::payload::service::Shutdown;
use contracts::{
    common::v1::AxiomRef,
    policy::v1::{
        AuthorityBatch, AuthorityItem, AuthorityReplies, AuthorityReply, Committed, Denied,
        authority_item::Item,
        authority_reply::Result as Answer,
        authority_server::{Authority as Contract, AuthorityServer},
    },
};
use kit::{
    Feed,
    authority::{Authority, AuthorityError, BATCH_ITEMS_MAX, Entry, IN_FLIGHT_MAX, ITEM_BYTES_MAX},
};
use tokio::{net::UnixListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

type Replies = mpsc::Sender<Result<AuthorityReplies, Status>>;

/// Hands every stream and every batch to the test.
#[derive(Clone)]
struct FakePolicy {
    streams: mpsc::Sender<(Streaming<AuthorityBatch>, Replies)>,
}

#[tonic::async_trait]
impl Contract for FakePolicy {
    type ChannelStream = ReceiverStream<Result<AuthorityReplies, Status>>;

    async fn channel(
        &self,
        request: Request<Streaming<AuthorityBatch>>,
    ) -> Result<Response<Self::ChannelStream>, Status> {
        let (replies, answers) = mpsc::channel(16);
        self.streams.send((request.into_inner(), replies)).await.unwrap();
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

struct Rig {
    folder: tempfile::TempDir,
    authority: Authority,
    streams: mpsc::Receiver<(Streaming<AuthorityBatch>, Replies)>,
    _server: JoinHandle<()>,
}

fn serve(socket: &Path) -> (mpsc::Receiver<(Streaming<AuthorityBatch>, Replies)>, JoinHandle<()>) {
    let (sender, streams) = mpsc::channel(4);
    let listener = UnixListener::bind(socket).unwrap();
    let server = Server::builder().add_service(AuthorityServer::new(FakePolicy { streams: sender }));
    let task =
        tokio::spawn(
            async move { server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap() },
        );
    (streams, task)
}

fn rig() -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("authority.sock");
    let (streams, _server) = serve(&socket);
    Rig { authority: Authority::at(socket, "keys", Feed::new()), folder, streams, _server }
}

fn record(key: u8) -> Entry {
    let body = Shutdown { reason: "test".to_owned() };
    Entry::build(IdentityId([1; 32]), None, EntryKey([key; 16]), body).unwrap()
}

fn submit(
    authority: &Authority,
    count: u8,
) -> Vec<JoinHandle<Result<kit::authority::Committed, AuthorityError>>> {
    (0..count)
        .map(|key| {
            let authority = authority.clone();
            tokio::spawn(async move { authority.record(record(key)).await })
        })
        .collect()
}

fn payload(item: &AuthorityItem) -> Vec<u8> {
    match item.item.as_ref().unwrap() {
        Item::Record(entry) => entry.payload.clone(),
        other => panic!("{other:?}"),
    }
}

fn committed(id: u64) -> AuthorityReply {
    let entry = Some(AxiomRef { sequence: id + 100, hash: vec![7; 32] });
    AuthorityReply { id, result: Some(Answer::Committed(Committed { entry, ..Committed::default() })) }
}

async fn next_batch(stream: &mut Streaming<AuthorityBatch>) -> Vec<AuthorityItem> {
    tokio::time::timeout(Duration::from_secs(5), stream.message())
        .await
        .expect("a batch")
        .unwrap()
        .unwrap()
        .items
}

#[tokio::test]
async fn what_waits_goes_together_and_answers_find_their_callers_in_any_order() {
    let mut rig = rig();
    let calls = submit(&rig.authority, 200);
    let (mut batches, replies) = rig.streams.recv().await.unwrap();
    let mut items = Vec::new();
    let mut count = 0;
    while items.len() < 200 {
        let batch = next_batch(&mut batches).await;
        assert!(batch.len() <= BATCH_ITEMS_MAX);
        items.extend(batch);
        count += 1;
    }
    assert!(count <= 20, "{count} batches for 200 items that waited together");
    let ids: Vec<u64> = items.iter().map(|item| item.id).collect();
    assert!(ids.is_sorted() && ids.iter().collect::<BTreeSet<_>>().len() == 200);
    for (key, item) in items.iter().enumerate() {
        assert_eq!(payload(item), record(u8::try_from(key).unwrap()).payload, "order of submission");
    }
    let answers = ids.iter().rev().map(|id| committed(*id)).collect();
    replies.send(Ok(AuthorityReplies { replies: answers })).await.unwrap();
    for (call, id) in calls.into_iter().zip(ids) {
        assert_eq!(call.await.unwrap().unwrap().entry.unwrap().sequence, Sequence(id + 100));
    }
}

#[tokio::test]
async fn what_was_not_answered_is_sent_again_in_order_with_the_same_bytes() {
    let mut rig = rig();
    let calls = submit(&rig.authority, 40);
    let (mut batches, replies) = rig.streams.recv().await.unwrap();
    let mut first = Vec::new();
    while first.len() < 40 {
        first.extend(next_batch(&mut batches).await);
    }
    replies.send(Ok(AuthorityReplies { replies: vec![committed(first[3].id)] })).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop((batches, replies));
    let late = submit(&rig.authority, 1);
    let (mut batches, replies) = rig.streams.recv().await.unwrap();
    let mut second = Vec::new();
    while second.len() < 40 {
        second.extend(next_batch(&mut batches).await);
    }
    let unanswered: Vec<_> =
        first.iter().enumerate().filter(|(place, _)| *place != 3).map(|(_, item)| item.clone()).collect();
    assert_eq!(second[..39], unanswered, "all but the answered one, same ids, same bytes, same order");
    assert!(second[39].id > second[38].id, "what is new comes after it");
    replies
        .send(Ok(AuthorityReplies { replies: second.iter().map(|item| committed(item.id)).collect() }))
        .await
        .unwrap();
    for call in calls.into_iter().chain(late) {
        assert!(call.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn busy_at_the_limit_and_room_again_after_an_answer() {
    let mut rig = rig();
    let calls: Vec<_> = (0..IN_FLIGHT_MAX)
        .map(|_| {
            let authority = rig.authority.clone();
            tokio::spawn(async move { authority.record(record(1)).await })
        })
        .collect();
    let (mut batches, replies) = rig.streams.recv().await.unwrap();
    let mut items = Vec::new();
    while items.len() < IN_FLIGHT_MAX {
        items.extend(next_batch(&mut batches).await);
    }
    assert!(matches!(rig.authority.record(record(1)).await, Err(AuthorityError::Busy { .. })));
    for part in items.chunks(100) {
        let answers = part.iter().map(|item| committed(item.id)).collect();
        replies.send(Ok(AuthorityReplies { replies: answers })).await.unwrap();
    }
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    let authority = rig.authority.clone();
    let one_more = tokio::spawn(async move { authority.record(record(1)).await });
    assert_eq!(next_batch(&mut batches).await.len(), 1);
    drop(one_more);
}

#[tokio::test]
async fn denials_refusals_and_malformed_answers_reach_the_caller_as_what_they_are() {
    let mut rig = rig();
    let calls = submit(&rig.authority, 4);
    let (mut batches, replies) = rig.streams.recv().await.unwrap();
    let mut items = Vec::new();
    while items.len() < 4 {
        items.extend(next_batch(&mut batches).await);
    }
    let reference = || Some(AxiomRef { sequence: 5, hash: vec![1; 32] });
    let short = Some(AxiomRef { sequence: 5, hash: vec![1; 31] });
    let answers = [
        Some(Answer::Denied(Denied { decision: reference(), later_by: None })),
        Some(Answer::BusyRetryAfterMs(9)),
        None,
        Some(Answer::Committed(Committed { entry: short, ..Committed::default() })),
    ];
    let answers =
        items.iter().zip(answers).map(|(item, result)| AuthorityReply { id: item.id, result }).collect();
    // An answer to nothing is passed over.
    replies.send(Ok(AuthorityReplies { replies: vec![committed(999_999)] })).await.unwrap();
    replies.send(Ok(AuthorityReplies { replies: answers })).await.unwrap();
    let mut results = Vec::new();
    for call in calls {
        results.push(call.await.unwrap());
    }
    assert!(
        matches!(&results[0], Err(AuthorityError::Denied { decision, .. }) if decision.sequence == Sequence(5))
    );
    assert_eq!(results[1], Err(AuthorityError::Busy { retry_after_ms: 9 }));
    assert!(matches!(&results[2], Err(AuthorityError::MalformedReply(_))));
    assert!(matches!(&results[3], Err(AuthorityError::MalformedReply(_))));
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_fails_after_five_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::at(folder.path().join("authority.sock"), "keys", Feed::new());
    let began = tokio::time::Instant::now();
    assert_eq!(authority.record(record(1)).await, Err(AuthorityError::Unavailable));
    assert!(
        began.elapsed() >= kit::authority::UNSENT_MAX && began.elapsed() < 2 * kit::authority::UNSENT_MAX
    );
}

#[tokio::test]
async fn a_policy_that_comes_later_gets_what_waited() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("authority.sock");
    let authority = Authority::at(socket.clone(), "keys", Feed::new());
    let calls = submit(&authority, 3);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (mut streams, _server) = serve(&socket);
    let (mut batches, replies) = streams.recv().await.unwrap();
    let items = next_batch(&mut batches).await;
    assert_eq!(items.len(), 3);
    replies
        .send(Ok(AuthorityReplies { replies: items.iter().map(|item| committed(item.id)).collect() }))
        .await
        .unwrap();
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn an_item_is_bounded_at_the_limit() {
    let rig = rig();
    let sized = |bytes: usize| Entry { entry_type: 1, payload: vec![0; bytes], key: EntryKey([0; 16]) };
    let refused = rig.authority.record(sized(ITEM_BYTES_MAX)).await;
    assert!(matches!(refused, Err(AuthorityError::TooLarge { .. })), "{refused:?}");
    let authority = rig.authority.clone();
    let waits = tokio::spawn(async move { authority.record(sized(ITEM_BYTES_MAX - 64)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waits.is_finished(), "at the limit it is sent");
    waits.abort();
    drop(rig.folder);
}

/// How many items a second pass the channel when policy answers at once; prints, does not judge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; run with --release --run-ignored only --no-capture"]
async fn measure_items_per_second() {
    const CALLERS: usize = 256;
    const EACH: usize = 400;
    let mut rig = rig();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let authority = rig.authority.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    authority.record(record(1)).await.unwrap();
                }
            })
        })
        .collect();
    let (mut batches, replies) = rig.streams.recv().await.unwrap();
    let began = std::time::Instant::now();
    let mut count = 0;
    let mut messages = 0;
    while count < CALLERS * EACH {
        let items = next_batch(&mut batches).await;
        count += items.len();
        messages += 1;
        let answers = items.iter().map(|item| committed(item.id)).collect();
        replies.send(Ok(AuthorityReplies { replies: answers })).await.unwrap();
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{:.0} items/s, {:.1} items a batch",
        count as f64 / seconds,
        count as f64 / f64::from(messages)
    );
}
