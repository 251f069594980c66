use super::*;
use contracts::axiom::v1::FeedBatch;
use std::path::PathBuf;

fn entry(sequence: u64, hash: u8) -> Entry {
    Entry { sequence, hash: vec![hash; 32], entry_type: 30, ..Entry::default() }
}

fn batch(entries: Vec<Entry>, up_to: u64) -> FeedBatch {
    FeedBatch { entries, up_to, axiom_time_ns: 1000, boot_time_ns: 10, ..FeedBatch::default() }
}

type Folded = Arc<std::sync::Mutex<Vec<u64>>>;

fn follower(plan: FeedPlan) -> (Follower<impl Fold>, Folded) {
    let folded = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&folded);
    let fold = move |entry: &FeedEntry| -> Result<(), BoxError> {
        if entry.sequence.0 == 66 {
            return Err("cannot".into());
        }
        seen.lock().unwrap().push(entry.sequence.0);
        Ok(())
    };
    let progress = Feed::new().progress;
    let follower = Follower::new(progress, PathBuf::new(), plan, AxiomClock::new(), Unsaved(fold), None);
    (follower, folded)
}

#[test]
fn entries_are_folded_in_order_and_once() {
    let (mut follower, folded) = follower(FeedPlan::all());
    follower.fold_batch(batch(vec![entry(0, 1), entry(1, 2)], 1)).unwrap();
    follower.fold_batch(batch(vec![entry(1, 2), entry(2, 3)], 2)).unwrap();
    follower.fold_batch(batch(vec![], 2)).unwrap();
    assert_eq!(*folded.lock().unwrap(), [0, 1, 2]);
    assert_eq!(follower.next(), 3);
    assert_eq!(follower.clock.at(10), Some(AxiomTime(1000)));
}

#[test]
fn a_gap_is_refused_unless_entries_are_filtered() {
    let (mut whole, folded) = follower(FeedPlan::all());
    whole.fold_batch(batch(vec![entry(0, 1)], 0)).unwrap();
    assert!(matches!(
        whole.fold_batch(batch(vec![entry(2, 3)], 2)),
        Err(FeedFault::Gap { wanted: 1, found: 2 })
    ));
    assert!(matches!(whole.fold_batch(batch(vec![], 5)), Err(FeedFault::Gap { wanted: 1, found: 5 })));
    assert_eq!((whole.next(), folded.lock().unwrap().len()), (1, 1));
    let (mut filtered, _) = follower(FeedPlan::of_types(&[30]));
    filtered.fold_batch(batch(vec![entry(7, 1)], 9)).unwrap();
    assert_eq!(filtered.next(), 10);
    assert!(matches!(filtered.fold_batch(batch(vec![entry(12, 1)], 11)), Err(FeedFault::Malformed(_))));
}

#[test]
fn a_rewritten_log_and_a_failed_fold_are_final() {
    let (mut follower, folded) = follower(FeedPlan::all());
    follower.fold_batch(batch(vec![entry(0, 1)], 0)).unwrap();
    let rewritten = follower.fold_batch(batch(vec![entry(0, 9)], 0)).unwrap_err();
    assert!(rewritten.is_final(), "{rewritten}");
    let (mut filtered, _) = self::follower(FeedPlan::of_types(&[30]));
    let failed = filtered.fold_batch(batch(vec![entry(65, 1), entry(66, 1)], 66)).unwrap_err();
    assert!(failed.is_final(), "{failed}");
    assert_eq!(filtered.next(), 66, "what came before it stays folded");
    assert_eq!(folded.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_sequence_ends_after_a_tenth_of_a_second() {
    let feed = Feed::new();
    let began = tokio::time::Instant::now();
    assert!(matches!(feed.wait_for(Sequence(0)).await, Err(KitError::Behind { .. })));
    assert_eq!(began.elapsed(), FEED_WAIT_MAX);
    feed.progress.next.send_replace(8);
    assert!(feed.wait_for(Sequence(7)).await.is_ok());
    assert!(feed.wait_for(Sequence(8)).await.is_err());
}
