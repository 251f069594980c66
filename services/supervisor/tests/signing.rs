//! Signing keys: sealed, opened, handed over, and what is refused.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

use std::{fs, io::Read, path::PathBuf};

use base::{AxiomTime, Hash, PublicKey, layout::Layout};
use chain::{genesis, payload::service::Genesis};
use durable::RealDisk;
use seal::{Contents, SEAL_ENTROPY_BYTES, SecretKind, Signer};
use supervisor::{
    sealing::Secrets,
    signing::{self, PLAIN_KEY_FILE, SEALED_KEY_FILE, SigningFault},
};

/// A state folder with the keys of a node, sealed by a local key file.
struct Place {
    _root: tempfile::TempDir,
    layout: Layout,
    state: RealDisk,
    secrets: Secrets,
    genesis: Genesis,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path()).unwrap();
        let state = RealDisk::open(&layout.state).unwrap();
        for folder in ["keys", "axiom", "policy", "identity", "node"] {
            fs::create_dir(layout.service_state(folder)).unwrap();
        }
        let folder = layout.service_state("keys");
        fs::write(folder.join("seal.key"), [3; 32]).unwrap();
        let entropy = [5; SEAL_ENTROPY_BYTES];
        let seed = seal::seal(Contents::Seed, &[9; 32], SecretKind::KeyFile, &[3; 32], &entropy).unwrap();
        fs::write(folder.join("seed.sealed"), seed).unwrap();
        let secrets = Secrets::of(&layout);
        let secret = secrets.read(SecretKind::KeyFile).unwrap();
        let key = |signer| signing::create(&state, signer, &secret).unwrap();
        let plan = genesis::GenesisPlan {
            image_hash: Hash::ZERO,
            genesis_time: AxiomTime(1),
            node_name: "desk".to_owned(),
            node_key: key(Signer::Node),
            sequencer_key: key(Signer::Sequencer),
            policy_key: key(Signer::Policy),
            identity_key: key(Signer::Identity),
            admin_uid: 0,
            rules: Vec::new(),
            initial_capabilities: Vec::new(),
        };
        let derived = |path: &base::KeyPath| Some(PublicKey(Hash::of(path.to_string().as_bytes()).0));
        let genesis = genesis::build(plan, derived).unwrap();
        Self { _root: root, layout, state, secrets, genesis }
    }

    fn sealed(&self, signer: Signer) -> PathBuf {
        self.layout.service_state(signing::folder(signer)).join(SEALED_KEY_FILE)
    }

    fn plain(&self, signer: Signer) -> PathBuf {
        self.layout.service_state(signing::folder(signer)).join(PLAIN_KEY_FILE)
    }

    fn open(&self, signer: Signer) -> Result<signing::SecretKey, SigningFault> {
        signing::open(&self.state, signer, &self.secrets, &signing::pinned(&self.genesis, signer))
    }

    #[track_caller]
    fn refused(&self, signer: Signer, text: &str) {
        let error = signing::hand_over(&self.layout, &self.genesis, signer).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

fn public(secret: &[u8]) -> PublicKey {
    let key = ed25519_dalek::SigningKey::from_bytes(secret.try_into().unwrap());
    PublicKey(key.verifying_key().to_bytes())
}

#[test]
fn a_service_gets_its_own_key_once_and_the_file_does_not_show_it() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    for signer in Signer::ALL {
        let mut pipe = fs::File::from(signing::hand_over(&place.layout, &place.genesis, signer).unwrap());
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        assert_eq!(public(&bytes), signing::pinned(&place.genesis, signer), "{signer:?}");
        assert_eq!(pipe.read(&mut [0; 1]).unwrap(), 0, "it is still in the pipe");
        let file = fs::read(place.sealed(signer)).unwrap();
        assert!(!file.windows(16).any(|window| window == &bytes[..16]));
        assert_eq!(fs::metadata(place.sealed(signer)).unwrap().mode() & 0o777, 0o600);
    }
    assert_eq!(signing::signer_of("policy"), Some(Signer::Policy));
    assert_eq!((signing::signer_of("keys"), signing::signer_of("node")), (None, None));
}

#[test]
fn a_wrong_secret_a_flipped_byte_and_swapped_files_are_refused_each_by_name() {
    let place = Place::new();
    let seal_key = place.layout.service_state("keys").join("seal.key");
    let right = fs::read(&seal_key).unwrap();
    fs::write(&seal_key, [4; 32]).unwrap();
    place
        .refused(Signer::Policy, "policy/signing.sealed does not open: the seal does not open: wrong secret");
    fs::write(&seal_key, [4; 31]).unwrap();
    place.refused(Signer::Policy, "KeyFile has 32 to 32 bytes");
    fs::remove_file(&seal_key).unwrap();
    place.refused(Signer::Policy, "restore state/keys/seal.key from a copy");
    fs::write(&seal_key, right).unwrap();
    let (policy, identity) = (place.sealed(Signer::Policy), place.sealed(Signer::Identity));
    let sealed = fs::read(&policy).unwrap();
    for byte in 0..sealed.len() {
        let mut flipped = sealed.clone();
        flipped[byte] ^= 0x10;
        fs::write(&policy, flipped).unwrap();
        place.refused(Signer::Policy, "policy/signing.sealed");
    }
    fs::copy(&identity, &policy).unwrap();
    fs::write(&identity, &sealed).unwrap();
    let holds =
        |found, wanted| format!("this file holds the {found} signing key, not the {wanted} signing key");
    place.refused(Signer::Policy, &holds("identity", "policy"));
    place.refused(Signer::Identity, &holds("policy", "identity"));
    fs::remove_file(&policy).unwrap();
    place.refused(Signer::Policy, "policy/signing.sealed is not there: restore it");
}

#[test]
fn a_key_that_genesis_does_not_pin_is_handed_to_nobody() {
    let place = Place::new();
    let secret = place.secrets.read(SecretKind::KeyFile).unwrap();
    let found = signing::create(&place.state, Signer::Sequencer, &secret).unwrap();
    place.refused(Signer::Sequencer, &format!("axiom/signing.sealed belongs to {found}, genesis pins"));
    // In the clear, it is not sealed either.
    fs::remove_file(place.sealed(Signer::Sequencer)).unwrap();
    fs::write(place.plain(Signer::Sequencer), [8; 32]).unwrap();
    let faults = signing::seal_plain_keys(&place.layout, &place.genesis);
    assert!(matches!(&faults[..], [SigningFault::NotPinned { name, .. }] if name == "axiom/signing.key"));
    assert_eq!(fs::read(place.plain(Signer::Sequencer)).unwrap(), [8; 32], "what is not understood is kept");
    assert!(!place.sealed(Signer::Sequencer).exists());
}

#[test]
fn keys_of_an_earlier_build_are_sealed_in_place_and_the_plain_ones_are_gone() {
    let place = Place::new();
    let keys = Signer::ALL.map(|signer| place.open(signer).unwrap());
    for (signer, key) in Signer::ALL.into_iter().zip(&keys) {
        fs::remove_file(place.sealed(signer)).unwrap();
        fs::write(place.plain(signer), **key).unwrap();
    }
    assert!(signing::seal_plain_keys(&place.layout, &place.genesis).is_empty());
    for (signer, key) in Signer::ALL.into_iter().zip(&keys) {
        assert_eq!(place.open(signer).unwrap(), *key);
        assert!(!place.plain(signer).exists());
    }
    // A plain key beside a sealed one that does not open may be the last copy.
    fs::write(place.plain(Signer::Node), *keys[3]).unwrap();
    fs::write(place.sealed(Signer::Node), [0; 136]).unwrap();
    assert_eq!(signing::seal_plain_keys(&place.layout, &place.genesis).len(), 1);
    assert_eq!(fs::read(place.plain(Signer::Node)).unwrap(), *keys[3]);
    for (bytes, text) in [(vec![1; 31], "31 bytes"), (vec![1; 33], "33 bytes"), (vec![1; 137], "at most 136")]
    {
        fs::remove_file(place.sealed(Signer::Node)).ok();
        fs::write(place.plain(Signer::Node), bytes).unwrap();
        let faults = signing::seal_plain_keys(&place.layout, &place.genesis);
        let told = |fault: &SigningFault| {
            format!(
                "{fault} {}",
                std::error::Error::source(fault).map(ToString::to_string).unwrap_or_default()
            )
        };
        assert!(told(&faults[0]).contains(text), "{}", told(&faults[0]));
    }
}

#[test]
fn a_link_planted_in_a_services_folder_is_not_followed() {
    let place = Place::new();
    let outside = place.layout.state.join("outside");
    fs::write(&outside, [1; 32]).unwrap();
    std::os::unix::fs::symlink(&outside, place.plain(Signer::Policy)).unwrap();
    assert_eq!(signing::seal_plain_keys(&place.layout, &place.genesis).len(), 1);
    assert_eq!(fs::read(&outside).unwrap(), [1; 32]);
}
