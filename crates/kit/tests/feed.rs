//! A service follows the log over the socket, across restarts of axiom.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use base::Sequence;
use common::{Following, Wish, init_request, rig, until};
use contracts::{
    axiom::v1::{
        Entry, FeedBatch, FollowRequest, FollowStart,
        feed_server::{Feed, FeedServer},
        follow_request::Step,
    },
    lifecycle::v1 as lifecycle,
};
use kit::{AxiomClock, FeedPlan, boot_time_ns, snapshot::SNAPSHOT_FILE};
use tokio::{net::UnixListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// What axiom was asked, and what it says on the connection that is open.
#[derive(Default)]
struct Script {
    starts: Vec<FollowStart>,
    /// The next follow is refused: the log has not what its follower has seen.
    truncated: bool,
    acks: Vec<u64>,
    awaited: Vec<u64>,
    open: Option<mpsc::Sender<Result<FeedBatch, Status>>>,
}

#[derive(Clone, Default)]
struct FakeAxiom(Arc<Mutex<Script>>);

#[tonic::async_trait]
impl Feed for FakeAxiom {
    type FollowStream = ReceiverStream<Result<FeedBatch, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let mut steps = request.into_inner();
        let script = Arc::clone(&self.0);
        if std::mem::take(&mut script.lock().unwrap().truncated) {
            if let Some(Step::Start(start)) = steps.message().await?.and_then(|first| first.step) {
                script.lock().unwrap().starts.push(start);
            }
            return Err(Status::data_loss("Truncated: the log has no such entry"));
        }
        let (open, batches) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok(Some(FollowRequest { step: Some(step) })) = steps.message().await {
                let mut script = script.lock().unwrap();
                match step {
                    Step::Start(start) => {
                        script.starts.push(start);
                        script.open = Some(open.clone());
                    }
                    Step::Folded(sequence) => script.acks.push(sequence),
                    Step::Saved(_) => {}
                    Step::Awaited(sequence) => script.awaited.push(sequence),
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(batches)))
    }
}

impl FakeAxiom {
    fn serve(&self, socket: &std::path::Path) -> JoinHandle<()> {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let server = Server::builder().add_service(FeedServer::new(self.clone()));
        tokio::spawn(
            async move { server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap() },
        )
    }

    async fn say(&self, sequences: &[u64], up_to: u64, replay: bool) {
        until("a follow is open", || self.0.lock().unwrap().open.is_some()).await;
        let entries = sequences
            .iter()
            .map(|sequence| Entry {
                sequence: *sequence,
                hash: vec![1; 32],
                entry_type: 30,
                ..Entry::default()
            })
            .collect();
        let up_to_hash = vec![up_to as u8 + 1; 32];
        let batch = FeedBatch {
            entries,
            up_to,
            up_to_hash,
            replay,
            axiom_time_ns: 500,
            boot_time_ns: boot_time_ns(),
            save: false,
        };
        let open = self.0.lock().unwrap().open.clone().unwrap();
        open.send(Ok(batch)).await.unwrap();
    }

    fn hang_up(&self) {
        self.0.lock().unwrap().open = None;
    }
}

#[tokio::test]
async fn start_is_answered_after_the_replay_and_a_broken_feed_goes_on_where_it_was() {
    let rig = rig::<Following>(Wish::default());
    let axiom = FakeAxiom::default();
    let _server = axiom.serve(&rig.socket("feed"));
    rig.lifecycle().init(init_request()).await.unwrap();
    let mut supervisor = rig.lifecycle();
    let mut starting = tokio::spawn(async move { supervisor.start(lifecycle::StartRequest {}).await });
    axiom.say(&[0, 1], 1, true).await;
    until("two entries are folded", || rig.probe.folded.lock().unwrap().len() == 2).await;
    assert!(
        tokio::time::timeout(Duration::from_millis(50), &mut starting).await.is_err(),
        "the replay has not ended"
    );
    axiom.say(&[2], 2, false).await;
    starting.await.unwrap().unwrap();
    axiom.hang_up();
    // The fold asks for what comes next and tells what it has seen; what comes twice is folded once.
    axiom.say(&[2, 3], 3, false).await;
    until("the last is folded", || rig.probe.folded.lock().unwrap().len() == 4).await;
    assert_eq!(*rig.probe.folded.lock().unwrap(), [0, 1, 2, 3]);
    until("all is acknowledged", || axiom.0.lock().unwrap().acks == [1, 2, 3]).await;
    let starts = axiom.0.lock().unwrap().starts.clone();
    assert_eq!(starts.iter().map(|start| start.from).collect::<Vec<_>>(), [0, 3]);
    assert_eq!((starts[0].seen.clone(), starts[1].seen.as_ref().map(|seen| seen.sequence)), (None, Some(2)));
    let status =
        rig.lifecycle().status_request(lifecycle::ServiceStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.folded_sequence, 3);
}

#[tokio::test]
async fn a_gap_is_asked_for_again_and_nothing_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let axiom = FakeAxiom::default();
    let _server = axiom.serve(&folder.path().join("feed.sock"));
    let folded = Arc::new(Mutex::new(Vec::new()));
    let (feed, clock, seen) = (kit::Feed::new(), AxiomClock::new(), Arc::clone(&folded));
    feed.follow(folder.path().join("feed.sock"), FeedPlan::all(), clock.clone(), move |entry| {
        seen.lock().unwrap().push(entry.sequence.0);
        Ok(())
    });
    assert_eq!(clock.now(), None, "nothing heard");
    axiom.say(&[0], 0, false).await;
    feed.wait_for(Sequence(0)).await.ok();
    until("the clock was told", || clock.now().is_some()).await;
    axiom.say(&[2], 2, false).await;
    until("the follow begins again", || axiom.0.lock().unwrap().starts.len() == 2).await;
    assert_eq!(axiom.0.lock().unwrap().starts[1].from, 1);
    axiom.say(&[1, 2], 2, false).await;
    until("all is folded", || *folded.lock().unwrap() == [0, 1, 2]).await;
}

#[tokio::test]
async fn axiom_hears_what_is_waited_for_once_and_again_when_it_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let axiom = FakeAxiom::default();
    let _server = axiom.serve(&folder.path().join("feed.sock"));
    let feed = kit::Feed::new();
    feed.follow(folder.path().join("feed.sock"), FeedPlan::of_types(&[30]), AxiomClock::new(), |_| Ok(()));
    axiom.say(&[0], 0, false).await;
    until("it follows", || !axiom.0.lock().unwrap().starts.is_empty()).await;
    let waits: Vec<_> = [5, 4, 5]
        .into_iter()
        .map(|sequence| {
            let feed = feed.clone();
            tokio::spawn(async move { while feed.wait_for(Sequence(sequence)).await.is_err() {} })
        })
        .collect();
    until("it is said", || axiom.0.lock().unwrap().awaited.last() == Some(&5)).await;
    let before = axiom.0.lock().unwrap().awaited.clone();
    assert!(before.is_sorted() && before.iter().filter(|it| **it == 5).count() == 1, "{before:?}");
    axiom.hang_up();
    until("it is said again", || axiom.0.lock().unwrap().awaited.len() > before.len()).await;
    // Of entries that nobody wants nothing comes but that they are there.
    axiom.say(&[], 5, false).await;
    for wait in waits {
        wait.await.unwrap();
    }
    let said = axiom.0.lock().unwrap().awaited.len();
    feed.wait_for(Sequence(3)).await.unwrap();
    axiom.say(&[], 6, false).await;
    until("the next is folded", || feed.folded() == Sequence(6)).await;
    assert_eq!(axiom.0.lock().unwrap().awaited.len(), said, "what is folded is not waited for");
}

#[tokio::test]
async fn a_log_that_lost_what_was_seen_stops_the_fold() {
    let folder = tempfile::tempdir().unwrap();
    let axiom = FakeAxiom::default();
    let _server = axiom.serve(&folder.path().join("feed.sock"));
    let (feed, clock) = (kit::Feed::new(), AxiomClock::new());
    feed.follow(folder.path().join("feed.sock"), FeedPlan::all(), clock, |_| Ok(()));
    axiom.say(&[0, 1], 1, false).await;
    until("folded", || feed.folded() == Sequence(1)).await;
    let rewritten = Entry { sequence: 1, hash: vec![2; 32], entry_type: 30, ..Entry::default() };
    let batch = FeedBatch { entries: vec![rewritten], up_to: 5, ..FeedBatch::default() };
    let open = axiom.0.lock().unwrap().open.clone().unwrap();
    open.send(Ok(batch)).await.unwrap();
    until("the connection is closed", || open.is_closed()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(axiom.0.lock().unwrap().starts.len(), 1, "it does not follow such a log again");
    assert_eq!(feed.folded(), Sequence(1));
}

/// Two entries are folded and two more were not wanted; then the service ends as the supervisor ends one.
async fn a_service_that_has_ended() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let (rig, axiom) = (following(&state), FakeAxiom::default());
    let server = axiom.serve(&rig.socket("feed"));
    rig.lifecycle().init(init_request()).await.unwrap();
    axiom.say(&[0, 1], 1, false).await;
    until("two entries are folded", || rig.probe.folded.lock().unwrap().len() == 2).await;
    rig.lifecycle().prepare_stop(lifecycle::PrepareStopRequest {}).await.unwrap();
    assert!(state.path().join(SNAPSHOT_FILE).exists());
    server.abort();
    state
}

fn following(state: &tempfile::TempDir) -> common::Rig {
    rig::<Following>(Wish { state_folder: Some(state.path().to_owned()), ..Wish::default() })
}

#[tokio::test]
async fn the_next_process_goes_on_where_the_last_one_has_written_down_its_fold() {
    let state = a_service_that_has_ended().await;
    let (rig, axiom) = (following(&state), FakeAxiom::default());
    let _server = axiom.serve(&rig.socket("feed"));
    rig.lifecycle().init(init_request()).await.unwrap();
    axiom.say(&[2], 2, false).await;
    until("the third is folded", || *rig.probe.folded.lock().unwrap() == [0, 1, 2]).await;
    let start = axiom.0.lock().unwrap().starts[0].clone();
    assert_eq!((start.from, start.seen.map(|seen| (seen.sequence, seen.hash))), (2, Some((1, vec![2; 32]))));
}

#[tokio::test]
async fn a_snapshot_that_the_log_does_not_know_is_removed_and_all_is_folded() {
    let state = a_service_that_has_ended().await;
    let (rig, axiom) = (following(&state), FakeAxiom::default());
    axiom.0.lock().unwrap().truncated = true;
    let _server = axiom.serve(&rig.socket("feed"));
    rig.lifecycle().init(init_request()).await.unwrap();
    axiom.say(&[0, 1, 2], 2, false).await;
    until("all is folded", || *rig.probe.folded.lock().unwrap() == [0, 1, 2]).await;
    let starts = axiom.0.lock().unwrap().starts.clone();
    assert_eq!(
        starts.iter().map(|start| (start.from, start.seen.is_some())).collect::<Vec<_>>(),
        [(2, true), (0, false)]
    );
    assert!(!state.path().join(SNAPSHOT_FILE).exists());
}

#[tokio::test]
async fn a_snapshot_that_is_damaged_or_cannot_be_restored_is_as_if_it_were_not_there() {
    let state = a_service_that_has_ended().await;
    let file = state.path().join(SNAPSHOT_FILE);
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (rig, axiom) = (following(&state), FakeAxiom::default());
    let _server = axiom.serve(&rig.socket("feed"));
    rig.lifecycle().init(init_request()).await.unwrap();
    assert!(!file.exists());
    axiom.say(&[0, 1, 2], 2, false).await;
    until("all is folded", || *rig.probe.folded.lock().unwrap() == [0, 1, 2]).await;
    assert_eq!(axiom.0.lock().unwrap().starts[0].from, 0);
    rig.lifecycle().prepare_stop(lifecycle::PrepareStopRequest {}).await.unwrap();
    let (rig, axiom) = (following(&state), FakeAxiom::default());
    let _server = axiom.serve(&rig.socket("feed"));
    rig.lifecycle().init(init_request()).await.unwrap();
    until("it asks for all of it", || axiom.0.lock().unwrap().starts.len() == 2).await;
    let starts = axiom.0.lock().unwrap().starts.clone();
    assert_eq!(starts.iter().map(|start| start.from).collect::<Vec<_>>(), [3, 0]);
    assert!(!file.exists());
}
