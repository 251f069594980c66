//! What was saved and the entries behind it give what all entries give.

use std::{collections::HashMap, sync::Arc};

use chain::{
    EntryHeader,
    payload::service::{ServiceError, ServiceFailed, ServiceStop},
};
use proptest::prelude::*;

use super::*;
use crate::core::KeyRun;

/// One thing that happens: a kind, a small number, and the seconds before it.
type Step = (u8, u8, u16);

/// The log of some steps; what the sequencer refuses leaves nothing.
fn log(steps: &[Step]) -> Vec<chain::Entry> {
    let mut bed = Bed::new();
    let mut time_s = 100;
    for (n, (kind, id, seconds)) in (1_u8..).zip(steps) {
        bed.after_s(u64::from(*seconds));
        time_s += u64::from(*seconds);
        let (id, key, next) = (*id, n.wrapping_mul(2), n.wrapping_mul(2).wrapping_add(1));
        let parent = (id % 3 != 0).then_some(id / 2);
        let name = format!("service{}", id % 4);
        let supervisor = |draft| (Source::Supervisor, unit([draft]));
        let allow = |action| decision(key, n, action, PolicyEffect::Allow, time_s);
        let (source, units) = match kind % 8 {
            0 => supervisor(draft(key, None, register(&name))),
            1 => supervisor(draft(key, None, start(&name))),
            2 => supervisor(draft(key, None, ServiceStop { name, reason: String::new(), late: false })),
            3 => {
                let (error, text) = (ServiceError::StartupTimeout, String::new());
                supervisor(draft(key, None, ServiceFailed { name, error, text, late: false }))
            }
            4 => (Source::Policy, unit([receipt(key)])),
            // A decision that nobody redeems yet.
            5 => (Source::Policy, unit([allow(delegate())])),
            6 => {
                let revoke = PolicyAction::RevokeCapability { capability: CapabilityId([id; 16]) };
                let body = CapabilityRevoke {
                    capability: CapabilityId([id; 16]),
                    by: IdentityId([3; 32]),
                    reason: "x".into(),
                };
                (Source::Policy, unit([allow(revoke), draft(next, Some(request(n)), body)]))
            }
            _ => {
                let body = draft(next, Some(request(n)), grant(id, parent, true));
                (Source::Policy, unit([allow(delegate()), body]))
            }
        };
        bed.batch(ROOM, source, vec![units]);
    }
    bed.log
}

fn register(name: &str) -> ServiceRegister {
    ServiceRegister {
        name: name.into(),
        version: "0.1.0".into(),
        service_type: ServiceType::Core,
        binary: Hash::ZERO,
        manifest: Hash::ZERO,
        key_path: KeyPath::parse("/orbital/services/axiom").unwrap(),
    }
}

fn start(name: &str) -> ServiceStart {
    ServiceStart { name: name.into(), pid: 2, binary: Hash::ZERO, restarts: 0, late: false, missing: vec![] }
}

fn feed(sequencer: &mut Sequencer, entries: &[chain::Entry]) {
    for entry in entries {
        assert!(sequencer.replay(&entry.header, &entry.payload, entry.hash()));
    }
}

struct Kept(HashMap<Sequence, (EntryHeader, Hash)>);

impl Past for Kept {
    fn entry(&self, sequence: Sequence) -> Option<(EntryHeader, Hash)> {
        self.0.get(&sequence).copied()
    }
}

fn past(log: &[chain::Entry]) -> Box<dyn Past> {
    Box::new(Kept(log.iter().map(|entry| (entry.header.sequence, (entry.header, entry.hash()))).collect()))
}

/// Saved after each of the cuts, in turn, and taken up again each time, by way of the bytes of its runs.
fn resumed(log: &[chain::Entry], cuts: &[usize]) -> Sequencer {
    let mut sequencer = Sequencer::new();
    let mut from = 0;
    for cut in cuts {
        feed(&mut sequencer, &log[from..*cut]);
        from = *cut;
        sequencer.seal_keys();
        let saved = sequencer.save().unwrap();
        let runs = sequencer
            .key_runs()
            .iter()
            .map(|run| Arc::new(KeyRun::from_bytes(run.from(), run.end(), run.bytes().to_vec()).unwrap()));
        let last = sequencer.point().last().unwrap();
        sequencer = Sequencer::resume(last, &saved, runs.collect()).unwrap();
    }
    feed(&mut sequencer, &log[from..]);
    sequencer
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// covers: AX-49, AX-54, AX-59
    #[test]
    fn a_snapshot_and_the_rest_give_what_the_whole_log_gives(
        steps in prop::collection::vec((any::<u8>(), 1_u8..12, 0_u16..90), 1..60),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let log = log(&steps);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(log.len()) + 1).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let mut whole = Sequencer::new();
        feed(&mut whole, &log);
        let mut resumed = resumed(&log, &cuts);
        prop_assert_eq!(resumed.save(), whole.save());
        prop_assert_eq!(resumed.point(), whole.point());
        prop_assert_eq!(resumed.keys.all(), whole.keys.all());
        // And both judge what comes then alike: what is there again, the same key for something else, something new.
        resumed.look_back_with(past(&log));
        let now = Reading { wall_ns: 5, boot_ns: 1000 };
        whole.start(now);
        resumed.start(now);
        let again = log.iter().map(|entry| {
            unit([Draft { entry_type: entry.header.entry_type, payload: entry.payload.clone() }])
        });
        let mut units: Vec<Unit> = again.collect();
        units.extend((1..=u8::MAX).map(|key| unit([receipt(key)])));
        units.extend((1..100).map(|n| unit([act(255, n, n)])));
        let asked = |sequencer: &mut Sequencer| sequencer.batch(now, ROOM, Source::Policy, units.clone());
        prop_assert_eq!(asked(&mut resumed), asked(&mut whole));
    }
}

/// covers: AX-55
#[test]
fn what_was_saved_is_of_one_entry_one_fold_and_all_keys_before_it() {
    let log = log(&[(0, 1, 0), (7, 2, 1), (7, 4, 1), (4, 1, 1)]);
    let mut sequencer = Sequencer::new();
    feed(&mut sequencer, &log[..3]);
    assert_eq!(Sequencer::new().save(), None);
    sequencer.seal_keys();
    let (saved, last) = (sequencer.save().unwrap(), sequencer.point().last().unwrap());
    let runs = sequencer.key_runs().to_vec();
    let read = |last, saved: &[u8], runs: &[Arc<KeyRun>]| {
        Sequencer::resume(last, saved, runs.to_vec()).map(|sequencer| sequencer.point().last())
    };
    assert_eq!(read(last, &saved, &runs), Ok(Some(last)));
    let other = AxiomRef { hash: Hash::ZERO, ..last };
    assert_eq!(read(other, &saved, &runs), Err(ResumeError::Entry { expected: other, found: last }));
    assert_eq!(read(last, &saved, &[]), Err(ResumeError::Runs));
    assert!(matches!(read(last, &saved[1..], &runs), Err(ResumeError::Form(_))));
    let mut newer = saved.clone();
    assert_eq!(newer[1], FOLD_VERSION as u8);
    newer[1] += 1;
    assert_eq!(read(last, &newer, &runs), Err(ResumeError::Fold(FOLD_VERSION + 1)));
}

/// Without the entry itself nobody can say that it is the same.
#[test]
fn a_key_of_an_entry_that_cannot_be_read_counts_as_taken() {
    let log = log(&[(4, 1, 0), (4, 1, 0)]);
    let mut resumed = resumed(&log, &[2]);
    resumed.start(Reading::default());
    let mut ask = |entry: &chain::Entry| {
        let draft = Draft { entry_type: entry.header.entry_type, payload: entry.payload.clone() };
        resumed.batch(Reading::default(), ROOM, Source::Policy, vec![unit([draft])]).replies.remove(0)
    };
    assert_eq!(ask(&log[2]), UnitReply::Duplicate(log[2].reference()));
    let UnitReply::Rejected(refusal) = ask(&log[1]) else { panic!("taken for the same") };
    assert_eq!(refusal.reason, RejectionReason::DuplicateNonce);
}

/// Runs that another fold made take the place of what is in memory, and of nothing newer.
#[test]
fn adopted_runs_leave_the_newer_keys_in_memory() {
    let log = log(&[(4, 1, 0), (4, 1, 0), (4, 1, 0)]);
    let mut other = Sequencer::new();
    feed(&mut other, &log[..3]);
    other.seal_keys();
    let mut whole = Sequencer::new();
    feed(&mut whole, &log);
    let before = whole.keys.all();
    whole.adopt_key_runs(other.key_runs().to_vec());
    assert_eq!(whole.keys.all(), before);
    whole.seal_keys();
    assert_eq!((whole.keys.all(), whole.key_runs().last().unwrap().end()), (before, 4));
}

/// The bytes of a known log, and of what the gate makes of it. If they change, raise `FOLD_VERSION`: what was saved
/// before means something else now.
#[test]
fn the_same_log_folds_into_the_same_bytes_in_every_build() {
    let log = log(&[(0, 1, 0), (1, 1, 1), (7, 2, 1), (7, 5, 1), (6, 2, 1), (5, 1, 1), (4, 1, 200)]);
    let mut sequencer = Sequencer::new();
    feed(&mut sequencer, &log);
    let gate = kit::LocalState::new();
    assert!(log.iter().all(|entry| crate::start::tell(&gate, &entry.header, &entry.payload)));
    let saved = [sequencer.save().unwrap(), gate.to_bytes()].map(|bytes| Hash::of(&bytes).to_string());
    let saved = saved.each_ref().map(String::as_str);
    let expected = [
        "blake3:b3030b826dc52163674a5b99869bbf5dc3d7cd7326e33e5ced1b2c7b85b1801d",
        "blake3:70b2e89f9f79cf8b6437523fc15d19f34a83dc94e1013a9c21e2248c55142c05",
    ];
    assert_eq!((FOLD_VERSION, saved), (2, expected));
}
