use base::{CapabilityId, KeyPath, PublicKey, Sequence};
use chain::payload::{
    Body, Envelope, Receipt, ReceiptStatus,
    process::{ExitStatus, ProcessExit, ResourceLimits, ResourceUsage},
};

use super::*;

fn key(n: u64) -> EntryKey {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&n.to_be_bytes());
    EntryKey(key)
}

fn at(sequence: u64) -> AxiomRef {
    AxiomRef { sequence: Sequence(sequence), hash: Hash::of(&sequence.to_be_bytes()) }
}

fn envelope<T: Body>(key: EntryKey, body: T) -> Box<Envelope<T>> {
    Box::new(Envelope { submitter: IdentityId([0; 32]), key, authorization: None, body })
}

/// The creation of a process is the entry with its number.
fn create(ledger: &mut Ledger, pid: u64, under: EntryKey) {
    let body = ProcessCreate {
        pid: ProcessId(pid),
        image: Hash([1; 32]),
        identity: id(4),
        capabilities: vec![CapabilityId([5; 16])],
        limits: ResourceLimits::default(),
        by: id(4),
        args_hash: Hash([6; 32]),
        name: "cat".to_owned(),
        grants: vec![],
        missing: vec!["landlock".to_owned()],
    };
    ledger.apply(at(pid), &Payload::ProcessCreate(envelope(under, body)));
}

fn receipt(ledger: &mut Ledger, of: u64) {
    let body = Receipt {
        axiom_entry: at(of),
        inputs: vec![],
        outputs: vec![],
        environment: Hash::ZERO,
        status: ReceiptStatus::Success,
        proof: None,
    };
    ledger.apply(at(1000), &Payload::Receipt(envelope(key(0), body)));
}

fn exit(ledger: &mut Ledger, pid: u64) {
    let body = ProcessExit {
        pid: ProcessId(pid),
        status: ExitStatus::Code(0),
        usage: ResourceUsage::default(),
        refused: vec![],
    };
    ledger.apply(at(1001), &Payload::ProcessExit(envelope(key(0), body)));
}

fn id(n: u8) -> IdentityId {
    IdentityId([n; 32])
}

fn born(n: u8, identity_type: IdentityType, parent: Option<u8>) -> IdentityCreated {
    IdentityCreated {
        identity_id: id(n),
        name: format!("i{n}"),
        identity_type,
        parent: parent.map(id),
        public_key: PublicKey([n; 32]),
        key_path: KeyPath::parse("/orbital/users/i").unwrap(),
    }
}

/// covers: PRC-35
#[test]
fn a_process_is_open_from_its_creation_to_its_exit() {
    let mut ledger = Ledger::default();
    assert_eq!((ledger.highest(), ledger.open().len()), (0, 0));
    create(&mut ledger, 7, key(7));
    create(&mut ledger, 5, key(5));
    assert_eq!(ledger.highest(), 7);
    receipt(&mut ledger, 7);
    let receipted = |ledger: &Ledger| -> Vec<_> {
        ledger.open().values().map(|open| (open.create.pid.0, open.receipted)).collect()
    };
    assert_eq!(receipted(&ledger), [(5, false), (7, true)]);
    exit(&mut ledger, 7);
    receipt(&mut ledger, 7);
    assert_eq!(receipted(&ledger), [(5, false)]);
    exit(&mut ledger, 9);
    assert_eq!((ledger.highest(), ledger.open().len()), (7, 1), "an id on record stays used");
}

#[test]
fn what_a_key_started_is_remembered_for_so_many_keys() {
    let mut ledger = Ledger::default();
    let pids = 1..=KEYS_REMEMBERED_MAX as u64;
    pids.clone().for_each(|pid| create(&mut ledger, pid, key(pid)));
    create(&mut ledger, 1, key(1));
    assert!(pids.clone().all(|pid| ledger.started(&key(pid)).is_some()));
    let first = ledger.started(&key(1)).unwrap();
    assert_eq!((first.pid, first.at, first.image), (ProcessId(1), at(1), Hash([1; 32])));
    assert_eq!(
        (first.identity, first.args_hash, &first.missing[..]),
        (id(4), Hash([6; 32]), &["landlock".to_owned()][..])
    );
    let next = KEYS_REMEMBERED_MAX as u64 + 1;
    create(&mut ledger, next, key(next));
    assert!(ledger.started(&key(1)).is_none() && ledger.started(&key(2)).is_some());
    assert!(ledger.started(&key(next)).is_some());
}

#[test]
fn an_identity_is_what_its_birth_and_its_parents_say() {
    use IdentityType::{Organization, Service, System, User};
    let mut ledger = Ledger::default();
    for (n, kind, parent) in [
        (1, System, None),
        (2, Service, Some(1)),
        (3, User, Some(1)),
        (4, User, Some(3)),
        (5, Organization, Some(1)),
    ] {
        ledger.apply(at(u64::from(n)), &Payload::IdentityCreated(envelope(key(0), born(n, kind, parent))));
    }
    let those = |is: &dyn Fn(&IdentityId) -> bool| (1..=6).filter(|n| is(&id(*n))).collect::<Vec<_>>();
    assert_eq!(those(&|one| ledger.is_system_class(one)), [1]);
    assert_eq!(those(&|one| ledger.is_of_the_house(one)), [1, 2]);
    assert_eq!(those(&|one| ledger.descends(*one, id(1))), [1, 2, 3, 4, 5]);
    assert_eq!(those(&|one| ledger.descends(*one, id(3))), [3, 4]);
    assert_eq!(those(&|one| ledger.descends(*one, id(4))), [4]);
    assert_eq!(those(&|one| ledger.descends(*one, id(6))), [6], "whoever it is, it is itself");
}

#[test]
fn genesis_names_the_admin_and_the_first_identities() {
    let nobody = PublicKey([0; 32]);
    let genesis = chain::payload::service::Genesis {
        version: 1,
        image_hash: Hash::ZERO,
        initial_capabilities: vec![],
        genesis_time: base::AxiomTime(1),
        node_name: "desk".to_owned(),
        node_key: nobody,
        sequencer_key: nobody,
        policy_key: nobody,
        identity_key: nobody,
        identities: vec![born(1, IdentityType::System, None), born(2, IdentityType::User, Some(1))],
        admin: id(2),
        admin_uid: 1000,
        rules: vec![],
    };
    let mut ledger = Ledger::default();
    assert!(!ledger.is_system_class(&id(2)));
    ledger.apply(at(0), &Payload::Genesis(envelope(key(0), genesis)));
    assert!(ledger.is_system_class(&id(1)) && ledger.is_system_class(&id(2)));
    assert!(ledger.descends(id(2), id(1)) && !ledger.is_of_the_house(&id(2)));
}

fn step(ledger: &mut Ledger, number: u64) {
    match number % 4 {
        0 | 1 => create(ledger, number, key(number / 3)),
        2 => receipt(ledger, number - 1),
        _ => exit(ledger, number - 3),
    }
}

#[test]
fn a_ledger_that_was_written_down_anywhere_goes_on_to_the_same_bytes() {
    let mut whole = Ledger::default();
    (0..40).for_each(|number| step(&mut whole, number));
    for cut in 0..=40 {
        let mut begun = Ledger::default();
        (0..cut).for_each(|number| step(&mut begun, number));
        let mut resumed = Ledger::restore(&begun.save()).unwrap();
        (cut..40).for_each(|number| step(&mut resumed, number));
        assert_eq!(resumed.save(), whole.save(), "cut at {cut}");
        (0..14).for_each(|n| assert_eq!(resumed.started(&key(n)), whole.started(&key(n)), "cut at {cut}"));
        assert_eq!((resumed.open(), &resumed.by_entry), (whole.open(), &whole.by_entry), "cut at {cut}");
    }
    let hash = Hash::of(&whole.save()).to_string();
    assert_eq!(
        hash, "blake3:39f2495e5159a97b1f534dbf37cd8d561df273c6cafbd0697d533cbc060e530e",
        "a fold that changes has another FOLD_VERSION"
    );
    assert!(whole.open().values().any(|open| open.receipted) && whole.highest() == 37);
}
