//! What is archived: one act at a time, closed by axiom's own receipt, and keys whose entry is gone.

use chain::{
    EntryHeader,
    payload::{log::LogArchive, policy::ServiceOperation},
};

use super::*;

const BY: IdentityId = IdentityId([3; 32]);

fn archive(key: u8, n: u8, last: u64) -> [Draft; 2] {
    let action =
        PolicyAction::ControlService { service: "axiom".into(), operation: ServiceOperation::Archive };
    let body = LogArchive {
        from: Sequence(0),
        last: AxiomRef { sequence: Sequence(last), hash: Hash::ZERO },
        segments: 1,
        checkpoint: String::new(),
        witnesses: vec![],
        place: "/archive".into(),
        by: BY,
    };
    let decided = decision(key, n, action, PolicyEffect::Allow, 100);
    [decided, draft(key + 1, Some(request(n)), body)]
}

fn receipt_of(key: u8, entry: AxiomRef) -> Draft {
    let body = chain::payload::Receipt::closing(entry, chain::payload::ReceiptStatus::Success);
    draft(key, None, body)
}

#[test]
fn one_archiving_is_open_at_a_time_until_axiom_closes_it() {
    let mut bed = Bed::new();
    assert!(matches!(bed.one(unit(archive(10, 1, 1))), UnitReply::Rejected(_)), "entry 1 is not there");
    let entry = bed.accepted(unit(archive(12, 2, 0)))[1];
    assert_eq!(bed.sequencer.open_archive().unwrap().entry, entry);
    let refusal = match bed.one(unit(archive(14, 3, 0))) {
        UnitReply::Rejected(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    assert!(refusal.text.contains("has no receipt yet"), "{refusal}");
    // What is saved of it is taken up.
    bed.sequencer.seal_keys();
    let (last, saved) = (bed.sequencer.point().last().unwrap(), bed.sequencer.save().unwrap());
    let resumed = Sequencer::resume(last, &saved, bed.sequencer.key_runs().to_vec()).unwrap();
    assert_eq!(resumed.open_archive(), bed.sequencer.open_archive());
    // Axiom records receipts and nothing else.
    let mut own = |draft| bed.batch(ROOM, Source::Own, vec![unit([draft])]).remove(0);
    let other = draft(16, None, chain::payload::service::Shutdown { reason: "x".into() });
    assert!(matches!(own(other), UnitReply::Rejected(_)));
    assert!(matches!(own(receipt_of(17, entry)), UnitReply::Accepted(_)));
    assert!(matches!(own(receipt_of(17, entry)), UnitReply::Duplicate(_)), "it is closed once");
    assert_eq!(bed.sequencer.open_archive(), None);
    assert!(matches!(bed.one(unit(archive(18, 4, 0))), UnitReply::Accepted(_)));
}

/// What makes room is closed where there is none, or no other could be begun.
#[test]
fn an_archiving_is_decided_and_closed_from_the_reserve() {
    let mut bed = Bed::new();
    let reserve = Limits { reserve_only: true, ..ROOM };
    bed.accepted(unit([allow(20, 1), act(21, 1, 5)]));
    let archived = bed.batch(reserve, Source::Policy, vec![unit(archive(10, 2, 0))]).remove(0);
    assert!(matches!(archived, UnitReply::Accepted(_)), "{archived:?}");
    let entry = bed.sequencer.open_archive().unwrap().entry;
    // Only axiom's own: those of others wait until there is room.
    let other = AxiomRef { sequence: Sequence(0), hash: Hash::ZERO };
    for source in [Source::Policy, Source::Supervisor] {
        let reply = bed.batch(reserve, source, vec![unit([receipt_of(17, other)])]).remove(0);
        assert!(!matches!(reply, UnitReply::Accepted(_)), "{source:?}");
    }
    let full = Limits { full: true, ..reserve };
    let reply = bed.batch(full, Source::Own, vec![unit([receipt_of(18, entry)])]).remove(0);
    assert!(matches!(reply, UnitReply::Rejected(_)), "behind the reserve there is nothing");
    let reply = bed.batch(reserve, Source::Own, vec![unit([receipt_of(18, entry)])]).remove(0);
    assert!(matches!(reply, UnitReply::Accepted(_)), "{reply:?}");
    assert_eq!(bed.sequencer.open_archive(), None);
}

struct Left(Sequence);

impl Past for Left {
    fn entry(&self, _: Sequence) -> Option<(EntryHeader, Hash)> {
        None
    }

    fn first(&self) -> Sequence {
        self.0
    }
}

/// covers: AX-41
#[test]
fn who_sends_an_archived_entry_again_is_refused_and_told_why() {
    let mut bed = Bed::new();
    let sent = || unit([allow(20, 1), act(21, 1, 5)]);
    let entries = bed.accepted(sent());
    bed.sequencer.seal_keys();
    let refusal = |bed: &mut Bed| match bed.one(sent()) {
        UnitReply::Rejected(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    bed.sequencer.look_back_with(Box::new(Left(Sequence(entries[1].sequence.0 + 1))));
    let archived = refusal(&mut bed);
    assert_eq!(archived.reason, RejectionReason::DuplicateNonce);
    assert!(archived.text.contains("is archived"), "{archived}");
    // One that is in the log still, and cannot be read, is another matter.
    bed.sequencer.look_back_with(Box::new(Left(entries[1].sequence)));
    assert!(refusal(&mut bed).text.contains("which is another one"));
}
