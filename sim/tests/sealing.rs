//! A signing key of an earlier build, which lies in the clear, is sealed in place: the power is cut at every step of it.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

use base::PublicKey;
use durable::{read_small, replace};
use ed25519_dalek::SigningKey;
use seal::{Contents, SEAL_ENTROPY_BYTES, SecretKind, Signer};
use sim::{Fault, SimDisk};
use supervisor::{sealing::Secrets, signing};

const KEY: [u8; 32] = [0x6b; 32];
const SEAL_KEY: [u8; 32] = [3; 32];

fn pinned() -> PublicKey {
    PublicKey(SigningKey::from_bytes(&KEY).verifying_key().to_bytes())
}

/// The state folder as an earlier build left it, durable.
fn old_node(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let sealed = seal::seal(
        Contents::Seed,
        &[9; 32],
        SecretKind::KeyFile,
        &SEAL_KEY,
        &[seed as u8; SEAL_ENTROPY_BYTES],
    );
    replace(&disk, "keys/seed.sealed", &[&sealed.unwrap()]).unwrap();
    replace(&disk, "policy/signing.key", &[&KEY]).unwrap();
    disk
}

fn shows_the_key(disk: &SimDisk) -> bool {
    disk.files().values().any(|bytes| bytes.windows(KEY.len()).any(|window| window == KEY))
}

#[test]
fn no_power_cut_loses_the_key_or_leaves_it_in_the_clear_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("seal.key");
    std::fs::write(&key_file, SEAL_KEY).unwrap();
    let secrets = Secrets::at(key_file, None);
    let seal_plain = |disk: &SimDisk| signing::seal_plain(disk, Signer::Policy, &secrets, &pinned());
    let (mut cut, mut lost_name, mut both) = (0, 0, 0);
    for seed in 0..40 {
        for fault in [Fault::PowerCut, Fault::Failed, Fault::FailedButHappened] {
            for step in 0.. {
                let disk = old_node(seed);
                assert!(shows_the_key(&disk), "the search finds it");
                disk.plan(step, fault);
                if seal_plain(&disk).is_ok() {
                    assert!(step > 6, "a run has more steps than {step}");
                    break;
                }
                cut += 1;
                if fault == Fault::PowerCut {
                    disk.restart_machine();
                } else {
                    disk.restart_process();
                }
                let (sealed, plain) = ("policy/signing.sealed", "policy/signing.key");
                let has = |name: &str| read_small(&disk, name, 200).unwrap().is_some();
                let intact = read_small(&disk, plain, 200).unwrap().as_deref() == Some(&KEY[..]);
                let opens = signing::open(&disk, Signer::Policy, &secrets, &pinned()).is_ok();
                assert!(intact || opens, "seed {seed} step {step} {fault:?}: the key is lost");
                lost_name += u32::from(!has(sealed));
                both += u32::from(has(sealed) && has(plain));
                let had_plain = has(plain);
                disk.no_plan();
                assert_eq!(seal_plain(&disk).unwrap(), had_plain);
                disk.restart_machine();
                assert_eq!(*signing::open(&disk, Signer::Policy, &secrets, &pinned()).unwrap(), KEY);
                // A name may come back whose removal failed; its content was zero before.
                assert!(!shows_the_key(&disk), "seed {seed} step {step} {fault:?}: the key shows");
                seal_plain(&disk).unwrap();
                assert!(!has(plain), "seed {seed} step {step} {fault:?}");
            }
        }
    }
    assert!(cut > 500 && lost_name > 50 && both > 50, "{cut} faults, {lost_name} before, {both} between");
}
