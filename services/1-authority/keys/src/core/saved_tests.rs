use super::*;
use chain::payload::identity::KeyRotation;

/// Four seconds of Axiom time lie between two entries, so decisions expire on the way.
fn time(number: u64) -> AxiomTime {
    AxiomTime(NOW.0 + number * 4_000_000_000)
}

fn usage(number: u64, operation: KeyOperation) -> KeyUsage {
    let rotation = KeyRotation {
        old_path: path("/orbital/users/alice/k"),
        old_epoch: 0,
        new_path: path("/orbital/users/alice/k"),
        new_epoch: 1,
        rotated_by: ALICE,
        reason: String::new(),
    };
    KeyUsage {
        identity: ALICE,
        key_path: path("/orbital/users/alice"),
        operation,
        message_hash: Some(MESSAGE),
        authorization: at(number),
        output_hash: None,
        refused: None,
        reason: None,
        epoch: None,
        rotation: (operation == KeyOperation::Rotate).then_some(rotation),
    }
}

/// Two decisions, of which one is used at once, then something about the keys.
fn entry(number: u64) -> Payload {
    let of = |operation, number| Payload::KeyUsage(envelope(usage(number, operation)));
    let request_hash = Hash::of(&number.to_le_bytes());
    match number % 4 {
        0 | 1 => {
            let decision = DecisionBody { request_hash, timestamp: time(number), ..body() };
            Payload::PolicyDecision(envelope(signed_by(&engine(), &decision)))
        }
        2 => of(KeyOperation::Sign, number - 1),
        _ if number == 3 => of(KeyOperation::Rotate, number),
        _ => of(KeyOperation::Lock, number),
    }
}

#[test]
fn keys_that_were_written_down_anywhere_go_on_to_the_same_bytes() {
    let fold = |core: &mut KeysCore, number: u64| {
        core.apply(at(number), time(number), &entry(number), None);
    };
    let mut whole = core();
    (1..32).for_each(|number| fold(&mut whole, number));
    for cut in 1..=32 {
        let mut begun = core();
        (1..cut).for_each(|number| fold(&mut begun, number));
        let mut resumed = KeysCore::new();
        resumed.restore(&begun.save()).unwrap();
        (cut..32).for_each(|number| fold(&mut resumed, number));
        assert_eq!(resumed.save(), whole.save(), "cut at {cut}");
    }
    let hash = Hash::of(&whole.save()).to_string();
    assert_eq!(
        hash, "blake3:3d979a69ce4b39cad1310c6f8706660e7a347161a511660d13f7bc2e781f3fcd",
        "a fold that changes has another FOLD_VERSION"
    );
    assert!(whole.is_locked() && whole.epoch(&path("/orbital/users/alice/k")) == 1);
}

#[test]
fn a_decision_that_was_used_stays_used_in_the_next_process() {
    let mut before = core();
    let decision = signed_by(&engine(), &body());
    commit(&mut before, &decision);
    let used = Payload::KeyUsage(envelope(usage(5, KeyOperation::Sign)));
    before.apply(at(6), NOW, &used, Some(NOW));
    let mut after = KeysCore::new();
    after.restore(&before.save()).unwrap();
    let error = refusal(&mut after, request(decision), Some(NOW));
    assert_eq!(error, KeyError::InvalidDecision("it was used before".to_owned()));
}
