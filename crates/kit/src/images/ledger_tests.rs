use super::*;
use base::{EntryKey, Hash, Sequence};
use chain::payload::{Body, Envelope, image::ImageForm};

const ALICE: IdentityId = IdentityId([1; 32]);
const BOB: IdentityId = IdentityId([2; 32]);
const ONE: TreeId = TreeId([0x11; 32]);
const TWO: TreeId = TreeId([0x22; 32]);

struct Log(ImageLedger, u64);

impl Log {
    fn new() -> Self {
        Self(ImageLedger::default(), 0)
    }

    fn fold<T: Body>(&mut self, body: T) {
        self.1 += 1;
        let (submitter, key) = (IdentityId([9; 32]), EntryKey([0; 16]));
        let envelope = Envelope { submitter, key, authorization: None, body };
        let payload = Payload::decode(T::ENTRY_TYPE, &envelope.to_bytes().unwrap()).unwrap();
        let at = AxiomRef { sequence: Sequence(self.1), hash: Hash::of(&self.1.to_le_bytes()) };
        self.0.apply(at, AxiomTime(self.1), &payload);
    }

    fn import(&mut self, name: &str, tree: TreeId, by: IdentityId, taken_from: Option<IdentityId>) {
        self.fold(ImageImport {
            name: name.to_owned(),
            tree,
            form: ImageForm::OciLayout,
            manifest: None,
            size_bytes: 1,
            entries: 1,
            by,
            taken_from,
        });
    }

    fn remove(&mut self, name: &str, tree: TreeId, by: IdentityId, taken_from: Option<IdentityId>) {
        self.fold(ImageRemove { name: name.to_owned(), tree, by, taken_from });
    }

    fn names(&self) -> Vec<(&str, TreeId, IdentityId)> {
        self.0.all().map(|(name, named)| (name.as_str(), named.tree, named.owner)).collect()
    }
}

#[test]
fn a_name_is_its_owners_until_it_is_taken_by_an_act_that_says_from_whom() {
    let mut log = Log::new();
    log.import("web", ONE, ALICE, None);
    assert_eq!((log.0.other_owner("web", BOB), log.0.other_owner("web", ALICE)), (Some(ALICE), None));
    assert_eq!(log.0.get("web").map(|named| named.since), Some(AxiomTime(1)));
    // Decided while the name was free, or while it was somebody else's: too late, nothing changes.
    log.import("web", TWO, BOB, None);
    log.import("web", TWO, BOB, Some(IdentityId([3; 32])));
    log.remove("web", ONE, BOB, None);
    log.remove("web", TWO, ALICE, None);
    assert_eq!(log.names(), [("web", ONE, ALICE)]);
    log.import("web", TWO, BOB, Some(ALICE));
    let id = ONE.to_string();
    assert_eq!(log.names(), [(id.as_str(), ONE, ALICE), ("web", TWO, BOB)], "what it was called is not lost");
    log.remove("web", TWO, ALICE, Some(BOB));
    log.remove(&id, ONE, ALICE, None);
    assert!(log.0.is_empty());
}

#[test]
fn an_image_stays_as_long_as_it_has_a_name() {
    let mut log = Log::new();
    log.import("a", ONE, ALICE, None);
    log.import("b", ONE, BOB, None);
    log.import("a", TWO, ALICE, None);
    assert_eq!(
        log.names(),
        [("a", TWO, ALICE), ("b", ONE, BOB)],
        "it has another name: none is made of its id"
    );
    log.import("a", TWO, ALICE, None);
    assert_eq!((log.0.len(), log.0.is_named(ONE), log.0.is_named(TWO)), (2, true, true));
    log.remove("b", ONE, BOB, None);
    assert!(!log.0.is_named(ONE));
}

#[test]
fn who_says_no_name_means_an_own_one_first() {
    let mut log = Log::new();
    log.import("a", ONE, ALICE, None);
    log.import("b", ONE, BOB, None);
    let meant = |tree, name: &str, by| log.0.meant(tree, name, by).map(|(name, _)| name);
    assert_eq!(meant(ONE, "", BOB).as_deref(), Some("b"));
    assert_eq!(meant(ONE, "", IdentityId([7; 32])).as_deref(), Some("a"));
    assert_eq!(meant(ONE, "a", BOB).as_deref(), Some("a"));
    assert_eq!((meant(TWO, "a", ALICE), meant(TWO, "", ALICE), meant(ONE, "c", ALICE)), (None, None, None));
}

#[test]
fn what_is_said_is_found_by_name_id_or_digest_also_when_its_name_went_elsewhere() {
    let mut log = Log::new();
    log.import("web", ONE, ALICE, None);
    let said = |log: &Log, text: &str| {
        log.0.said(&text.parse().unwrap(), ALICE).map(|(name, named)| (name, named.tree))
    };
    assert_eq!(said(&log, "web"), Some(("web".to_owned(), ONE)));
    assert_eq!(said(&log, &format!("web@{ONE}")), Some(("web".to_owned(), ONE)));
    assert_eq!((said(&log, "other"), said(&log, &TWO.to_string())), (None, None));
    log.import("web", TWO, ALICE, None);
    assert_eq!(said(&log, "web"), Some(("web".to_owned(), TWO)));
    assert_eq!(said(&log, &format!("web@{ONE}")), Some((ONE.to_string(), ONE)));
}

fn step(log: &mut Log, number: u64) {
    let (mine, theirs) = if number.is_multiple_of(2) { (ALICE, BOB) } else { (BOB, ALICE) };
    match number % 5 {
        0 => log.import("web", ONE, mine, Some(theirs)),
        1 => log.import(&format!("of-{number}"), TWO, mine, None),
        2 => log.import("web", TWO, mine, Some(theirs)),
        3 => log.remove(&format!("of-{}", number - 2), TWO, mine, None),
        _ => log.import("web", TWO, theirs, None),
    }
}

#[test]
fn names_that_were_written_down_anywhere_go_on_to_the_same_bytes() {
    let mut whole = Log::new();
    (0..20).for_each(|number| step(&mut whole, number));
    for cut in 0..=20 {
        let mut begun = Log::new();
        (0..cut).for_each(|number| step(&mut begun, number));
        let mut resumed = Log(ImageLedger::restore(&begun.0.save()).unwrap(), begun.1);
        (cut..20).for_each(|number| step(&mut resumed, number));
        assert_eq!(resumed.0.save(), whole.0.save(), "cut at {cut}");
    }
    let hash = Hash::of(&whole.0.save()).to_string();
    assert_eq!(
        hash, "blake3:ce2e97133d9b35e54ffe73bf10429ea3acbf9743fa77a3689810de1a162dd579",
        "a fold that changes has another FOLD_VERSION"
    );
    assert!(whole.0.len() > 2 && whole.0.is_named(ONE));
}
