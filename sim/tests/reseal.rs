//! The seals of a node move to another secret: the power is cut at every step of it, and either all old ones open or all new.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests may stop the test"
)]

use durable::{Disk, read_small, replace};
use seal::{Contents, SEAL_ENTROPY_BYTES, SecretKind, Signer};
use sim::{Fault, SimDisk};
use supervisor::{
    reseal::{self, Settled},
    sealing::Secret,
    signing::SecretKey,
};

const SEED: [u8; 32] = [0x5e; 32];
const OLD: [u8; 32] = [0x01; 32];
const NEW: [u8; 32] = [0x02; 32];

fn key(signer: Signer) -> [u8; 32] {
    [0x40 + signer as u8; 32]
}

/// Everything that is sealed, by its name in the state folder.
fn all() -> Vec<(String, Contents, [u8; 32])> {
    let folders = ["axiom", "policy", "identity", "node"];
    let keys = Signer::ALL.into_iter().zip(folders).map(|(signer, folder)| {
        (format!("{folder}/signing.sealed"), Contents::SigningKey(signer), key(signer))
    });
    std::iter::once(("keys/seed.sealed".to_owned(), Contents::Seed, SEED)).chain(keys).collect()
}

fn sealed(contents: Contents, plain: &[u8; 32], kind: SecretKind, secret: &[u8]) -> Vec<u8> {
    seal::seal(contents, plain, kind, secret, &[9; SEAL_ENTROPY_BYTES]).unwrap()
}

/// A node whose seals a local key file opens, durable.
fn old_node(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    replace(&disk, "keys/seal.key", &[&OLD]).unwrap();
    for (name, contents, plain) in all() {
        replace(&disk, &name, &[&sealed(contents, &plain, SecretKind::KeyFile, &OLD)]).unwrap();
    }
    disk
}

/// As `bailiwick key reseal` does it, with the seed sealed by somebody else.
fn moved(disk: &SimDisk, kind: SecretKind) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    reseal::settle(disk).map_err(|e| text(&e))?;
    reseal::stage_secret(disk, kind, &NEW).map_err(|e| text(&e))?;
    reseal::stage_seed(disk, &sealed(Contents::Seed, &SEED, kind, &NEW)).map_err(|e| text(&e))?;
    for signer in Signer::ALL {
        let secret = Secret::new(kind, &NEW);
        reseal::stage_key(disk, signer, &SecretKey::new(key(signer)), &secret).map_err(|e| text(&e))?;
    }
    reseal::switch(disk, &[kind]).map_err(|e| text(&e))
}

/// Which secret opens everything; fails if none does.
fn opens_by(disk: &SimDisk) -> SecretKind {
    let kinds: Vec<SecretKind> = all()
        .into_iter()
        .map(|(name, contents, plain)| {
            let bytes = read_small(disk, &name, 200).unwrap().unwrap_or_else(|| panic!("{name} is lost"));
            let kind = seal::sealed_by(&bytes).unwrap();
            let file = |name: &str| read_small(disk, name, 64).unwrap().unwrap_or_default();
            let secret = match kind {
                SecretKind::KeyFile => file("keys/seal.key"),
                _ => file("keys/seal.tpm"),
            };
            let mut opened = [0; 32];
            seal::open(contents, &bytes, kind, &secret, &mut opened)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(opened, plain, "{name}");
            kind
        })
        .collect();
    assert!(kinds.iter().all(|kind| *kind == kinds[0]), "{kinds:?}");
    kinds[0]
}

fn shows(disk: &SimDisk, secret: &[u8; 32]) -> bool {
    disk.files().values().any(|bytes| bytes.windows(32).any(|window| window == secret))
}

/// covers: KEY-41
#[test]
fn at_no_power_cut_is_a_node_without_seals_that_open() {
    let (mut before, mut after, mut cuts) = (0, 0, 0);
    for seed in 0..12 {
        // Those that need no stretching, which would take minutes: where a secret lies differs, the steps do not.
        for kind in [SecretKind::Tpm2, SecretKind::KeyFile] {
            for fault in [Fault::PowerCut, Fault::Failed, Fault::FailedButHappened] {
                for step in 0.. {
                    let disk = old_node(seed);
                    disk.plan(step, fault);
                    if moved(&disk, kind).is_ok() {
                        assert!(step > 30, "a run has more steps than {step}");
                        break;
                    }
                    cuts += 1;
                    if fault == Fault::PowerCut {
                        disk.restart_machine();
                    } else {
                        disk.restart_process();
                        disk.no_plan();
                    }
                    let settled = reseal::settle(&disk).unwrap();
                    let why = format!("seed {seed} step {step} {fault:?} to {kind:?}");
                    let by = opens_by(&disk);
                    let is_new = read_small(&disk, "keys/seal.key", 64).unwrap().as_deref() != Some(&OLD[..]);
                    assert_eq!(by == kind && (kind != SecretKind::KeyFile || is_new), is_new, "{why}");
                    match is_new {
                        true => after += 1,
                        false => before += 1,
                    }
                    if settled == Settled::Switched {
                        assert!(is_new, "{why}");
                    }
                    assert_eq!(shows(&disk, &OLD), !is_new, "{why}: the old key");
                    assert!(is_new || !shows(&disk, &NEW), "{why}: the new key of a run that failed");
                    assert!(!disk.files().keys().any(|name| name.ends_with(".next")), "{why}");
                    assert_eq!(reseal::settle(&disk).unwrap(), Settled::Clean, "{why}");
                    // Once more, and nothing stands in its way.
                    moved(&disk, kind).unwrap();
                    disk.restart_machine();
                    assert_eq!(opens_by(&disk), kind, "{why}");
                    assert!(!shows(&disk, &OLD), "{why}");
                }
            }
        }
    }
    assert!(cuts > 3_000 && before > 1_000 && after > 500, "{cuts} faults: {before} before, {after} after");
}

#[test]
fn a_folder_without_seals_has_nothing_to_settle() {
    let disk = SimDisk::new(1);
    assert_eq!(reseal::settle(&disk).unwrap(), Settled::Clean);
    assert!(disk.list("").unwrap().is_empty());
}
