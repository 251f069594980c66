//! `bailiwick witness`: a C2SP witness as a command, so that anything that takes a request can stand before it. Its folder
//! holds its key, the logs that it knows, and for each the latest checkpoint at the path where monitors look for it.

use std::{
    io::Read,
    os::unix::fs::DirBuilderExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use chain::{
    checkpoint::SignedCheckpoint,
    note::{Algorithm, KEY_NAME_BYTES_MAX, NOTE_BYTES_MAX, Note, NoteSigner, VerifierKey},
    witness::{AddCheckpoint, REQUEST_BYTES_MAX, RequestError, WitnessRefusal},
};
use durable::{Disk, RealDisk, read_small, replace};
use ed25519_dalek::SigningKey;
use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    args::{Output, Witness},
    exit::{Failure, REFUSED},
    output,
};

const NAME_FILE: &str = "name";
/// 32 bytes of an Ed25519 seed, for its owner alone.
const KEY_FILE: &str = "signing.key";
const LOCK: &str = ".lock";

pub fn run(output: Output, command: Witness) -> Result<()> {
    match command {
        Witness::Init { folder, name } => init(output, &folder, &name),
        Witness::Trust { folder, key } => trust(output, &folder, &key),
        Witness::Add { folder } => add(output, &folder),
    }
}

struct Home {
    disk: RealDisk,
    name: String,
    key: SigningKey,
}

impl Home {
    fn open(folder: &Path) -> Result<Self> {
        let missing = || format!("{} is no witness; `bailiwick witness init` makes one", folder.display());
        if !folder.is_dir() {
            bail!(missing());
        }
        let disk = RealDisk::open(folder)?;
        let name = read_small(&disk, NAME_FILE, KEY_NAME_BYTES_MAX)?.with_context(missing)?;
        let seed = Zeroizing::new(read_small(&disk, KEY_FILE, 32)?.with_context(missing)?);
        let seed: &[u8; 32] = seed.as_slice().try_into().context("the witness' key is not 32 bytes")?;
        Ok(Self { disk, name: String::from_utf8(name)?, key: SigningKey::from_bytes(seed) })
    }

    fn signer(&self) -> NoteSigner<'_> {
        NoteSigner { name: &self.name, key: &self.key }
    }
}

/// Where a log's files are: the hash of its origin, as monitors compute it.
fn folder_of(origin: &str) -> String {
    Sha256::digest(origin).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Serialize)]
struct Key {
    key: VerifierKey,
}

fn init(output: Output, folder: &Path, name: &str) -> Result<()> {
    let context = || format!("making {}", folder.display());
    std::fs::DirBuilder::new().mode(0o700).create(folder).with_context(context)?;
    let disk = RealDisk::open(folder)?;
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).context("the kernel's random source")?;
    let key = SigningKey::from_bytes(&seed);
    let key = NoteSigner { name, key: &key }.verifier(Algorithm::Cosignature)?;
    replace(&disk, KEY_FILE, &[seed.as_slice()])?;
    replace(&disk, NAME_FILE, &[name.as_bytes()])?;
    output::show(output, &Key { key: key.clone() }, || format!("{key}\n"))
}

fn trust(output: Output, folder: &Path, key: &str) -> Result<()> {
    let home = Home::open(folder)?;
    let key: VerifierKey = key.parse()?;
    if key.algorithm() != Algorithm::Ed25519 {
        bail!("{key} is a witness' key; a log's is of type 1");
    }
    let place = folder_of(key.name());
    home.disk.create_dir(&place)?;
    home.disk.sync_dir("")?;
    replace(&home.disk, &format!("{place}/key"), &[key.to_string().as_bytes()])?;
    let text = format!("{} is witnessed from now on\n", key.name());
    output::show(output, &Key { key }, || text)
}

#[derive(Serialize)]
struct Answer {
    /// As over HTTP.
    status: u16,
    /// Signature lines, or why not.
    body: String,
}

/// `add-checkpoint`: keeps the new checkpoint before it answers, one request at a time.
fn add(output: Output, folder: &Path) -> Result<()> {
    let home = Home::open(folder)?;
    let mut request = String::new();
    let limit = REQUEST_BYTES_MAX as u64 + 1;
    std::io::stdin().take(limit).read_to_string(&mut request).context("reading the request")?;
    let _lock = home.disk.lock(LOCK)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs();
    match answer(&home, &request, now)? {
        Ok(body) => output::show(output, &Answer { status: 200, body: body.clone() }, || body),
        Err(refusal) => {
            let (status, body) = match &refusal {
                // What the log needs to ask again rightly.
                WitnessRefusal::Conflict { latest, .. } => (refusal.status(), format!("{latest}\n")),
                other => (other.status(), format!("{other}\n")),
            };
            if output == Output::Json {
                output::show(output, &Answer { status, body }, String::new)?;
            }
            Err(Failure::new(REFUSED, format!("refused ({status}): {refusal}")).into())
        }
    }
}

fn answer(home: &Home, request: &str, now: u64) -> Result<Result<String, WitnessRefusal>> {
    let request: AddCheckpoint = match request.parse() {
        Ok(request) => request,
        Err(error) => return Ok(Err(RequestError::into(error))),
    };
    let place = folder_of(&request.checkpoint.unverified().origin);
    let key = read_small(&home.disk, &format!("{place}/key"), 1024)?;
    let key: Option<VerifierKey> = match key {
        Some(key) => Some(String::from_utf8(key)?.parse()?),
        None => None,
    };
    let kept = format!("{place}/checkpoint");
    let latest = match read_small(&home.disk, &kept, NOTE_BYTES_MAX)? {
        Some(kept) => Some(String::from_utf8(kept)?.parse::<SignedCheckpoint>()?),
        None => None,
    };
    // Written by nobody but this witness: what stands there it has signed.
    let latest = latest.as_ref().map(SignedCheckpoint::unverified);
    let checkpoint = match (request.decide(key.as_ref(), latest), &key) {
        (Ok(_), Some(key)) => only_of_log(&request.checkpoint, key)?,
        (Err(refusal), _) => return Ok(Err(refusal)),
        (Ok(_), None) => bail!("a witness cannot sign for a log without a key"),
    };
    let line = home.signer().cosign(checkpoint.text(), now)?;
    let mut keep = checkpoint;
    keep.add(line.clone())?;
    replace(&home.disk, &kept, &[keep.to_string().as_bytes()])?;
    Ok(Ok(format!("{line}\n")))
}

/// The checkpoint with the log's signature alone: what strangers signed is not kept.
fn only_of_log(signed: &SignedCheckpoint, key: &VerifierKey) -> Result<Note> {
    let note = signed.note();
    let own = note.signatures().iter().find_map(|line| {
        let alone = Note::new(note.text().to_owned(), line.clone()).ok()?;
        alone.verify(key).is_ok().then_some(alone)
    });
    own.context("the log's own signature is not there")
}
