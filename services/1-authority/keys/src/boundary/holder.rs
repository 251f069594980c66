//! The one owner of the seed: answers requests, hands out nothing private.

use std::time::Instant;

use base::KeyPath;
use rustix::{fd::OwnedFd, io::retry_on_intr};
use sandbox::secret_memory::{SecretMemory, SecretMemoryError, SecretProtection};
use seal::{Contents, SEAL_ENTROPY_BYTES, SECRET_BYTES_MAX, SealError, Signer};
use svid::P256Key;
use zeroize::{Zeroize, Zeroizing};

use super::protocol::{
    BoundaryState, Refusal, Request, Response, SecretKind, UNLOCK_TRIES_MAX, UNLOCK_WINDOW,
};
use crate::core::{
    VerifyingKey,
    derive::{DerivedKey, SEED_BYTES, public_half, recovery_secret, with_clean_stack},
    encryption::{ENTROPY_BYTES, EncryptionError},
    epochs,
    es256::Es256Key,
    purpose,
    words::{self, WORDS_TEXT_BYTES_MAX},
};

/// Fills a buffer with unpredictable bytes; false if it cannot.
pub(super) type Entropy = fn(&mut [u8]) -> bool;

/// The secret that opens the seal. Held only until there is a seed.
pub(super) struct Sealing {
    kind: SecretKind,
    memory: SecretMemory,
    bytes: usize,
}

impl Sealing {
    /// `read` writes the secret into the buffer and says how many bytes it is; a passphrase loses one line end.
    pub(super) fn read(
        kind: SecretKind,
        read: impl FnOnce(&mut [u8]) -> std::io::Result<usize>,
    ) -> Result<Self, SealingError> {
        // One byte more than allowed, so that too long is noticed; one for a line end.
        let mut memory = SecretMemory::new(SECRET_BYTES_MAX + 2)?;
        let mut bytes = read(memory.as_mut_slice())?;
        if kind == SecretKind::Passphrase
            && memory.as_slice().get(..bytes).is_some_and(|s| s.ends_with(b"\n"))
        {
            bytes -= 1;
        }
        let sealing = Self { kind, memory, bytes };
        kind.check(sealing.secret())?;
        Ok(sealing)
    }

    fn secret(&self) -> &[u8] {
        self.memory.as_slice().get(..self.bytes).unwrap_or_default()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    #[error("cannot hold the sealing secret")]
    Memory(#[from] SecretMemoryError),
    #[error("cannot read the sealing secret")]
    Read(#[from] std::io::Error),
    #[error(transparent)]
    Length(#[from] SealError),
}

pub(super) struct Holder {
    seed: SecretMemory,
    state: BoundaryState,
    sealing: Option<Sealing>,
    /// As it was handed over; opened by the first question but `Lock`, so that the seed of a locked node is not even
    /// opened at a start.
    sealed: Option<Vec<u8>>,
    /// It has not been tried to open it.
    is_fresh: bool,
    /// Until when, and how often still, a secret is taken.
    armed: Option<(Instant, u32)>,
    /// What the seed is to be sealed by anew. Only the operator's own commands give one, while the node is not up.
    next: Option<Sealing>,
    /// Where words are written, or read: the operator's terminal.
    words: Option<OwnedFd>,
    entropy: Entropy,
    /// Off for `prove` alone: any key then does anything.
    keeps_purposes: bool,
    /// Off for `prove` alone: a lock is confirmed and not carried out.
    keeps_locks: bool,
}

impl Holder {
    pub(super) fn new(sealing: Option<Sealing>, entropy: Entropy) -> Result<Self, SecretMemoryError> {
        let seed = SecretMemory::new(SEED_BYTES)?;
        Ok(Self {
            seed,
            state: BoundaryState::Empty,
            sealing,
            sealed: None,
            is_fresh: false,
            armed: None,
            next: None,
            words: None,
            entropy,
            keeps_purposes: true,
            keeps_locks: true,
        })
    }

    /// What it is to open when it is first asked for something.
    pub(super) fn hold(&mut self, sealed: Vec<u8>) {
        self.sealed = Some(sealed);
        self.is_fresh = true;
    }

    /// For `prove` alone.
    pub(super) const fn forget_locks(&mut self) {
        self.keeps_locks = false;
    }

    pub(super) fn seal_next_by(&mut self, next: Option<Sealing>) {
        self.next = next;
    }

    pub(super) fn words_at(&mut self, words: Option<OwnedFd>) {
        self.words = words;
    }

    /// For `prove` alone.
    pub(super) const fn forget_purposes(&mut self) {
        self.keeps_purposes = false;
    }

    pub(super) fn answer(&mut self, request: Request) -> Response {
        if std::mem::take(&mut self.is_fresh)
            && request != Request::Lock
            && let Some(sealed) = self.sealed.clone()
        {
            // How it went is kept in the state, which `Status` tells.
            drop(with_clean_stack(|| self.unseal(&sealed)));
        }
        let answered = with_clean_stack(|| match request {
            Request::Status => Ok(self.status()),
            Request::Create { sealing } => self.create(sealing),
            Request::Unseal { sealed } => self.unseal(&sealed),
            Request::PublicKey { path, epoch } => self.public_keys(&path, epoch),
            Request::Sign { path, message, epoch } => {
                self.for_hashes(&path, epoch).map(|key| Response::Signed {
                    signature: key.sign(&message),
                    public_key: VerifyingKey::Ed25519(key.public_key()),
                })
            }
            Request::SignBytes { path, message, epoch } => self.sign_bytes(&path, &message, epoch),
            Request::Encrypt { path, plain, epoch } => self.encrypt(&path, plain.as_bytes(), epoch),
            Request::Decrypt { path, sealed } => {
                let (epoch, sealed) = epochs::split(&sealed).ok_or(EncryptionError::Refused)?;
                let plain = self.for_hashes(&path, epoch)?.exchange().decrypt(&path, sealed)?;
                Ok(Response::Decrypted { plain })
            }
            Request::Seal => self.seal(),
            Request::Lock => Ok(self.lock()),
            Request::Arm => self.arm(),
            Request::WriteWords => self.write_words(),
            Request::ReadWords => self.read_words(),
            Request::Copy { signer, sealed } => self.reseal(signer, &sealed, true),
            Request::Restore { signer, sealed } => self.reseal(signer, &sealed, false),
        });
        answered.unwrap_or_else(Response::Refused)
    }

    fn status(&self) -> Response {
        Response::Status {
            state: self.state.clone(),
            secret: self.sealing.as_ref().map(|sealing| sealing.kind),
            hidden_from_kernel: self.seed.protection() == SecretProtection::HiddenFromKernel,
        }
    }

    fn derive(&self, path: &KeyPath, epoch: u32) -> Result<DerivedKey, Refusal> {
        match self.state {
            BoundaryState::Ready => Ok(DerivedKey::derive(self.seed.as_slice(), path, epoch)),
            BoundaryState::Empty | BoundaryState::Locked { .. } => Err(Refusal::Locked),
        }
    }

    /// The key of a path without a purpose, which signs hashes, encrypts and decrypts.
    fn for_hashes(&self, path: &KeyPath, epoch: u32) -> Result<DerivedKey, Refusal> {
        if self.keeps_purposes {
            purpose::for_hashes(path)?;
        }
        self.derive(path, epoch)
    }

    fn public_keys(&self, path: &KeyPath, epoch: u32) -> Result<Response, Refusal> {
        let (purpose, signer) = purpose::signer(path)?;
        let key = self.derive(path, epoch)?;
        let exchange_key = purpose.is_none().then(|| key.exchange().public_key());
        let public_key = match signer {
            purpose::Signer::Ed25519 => VerifyingKey::Ed25519(key.public_key()),
            purpose::Signer::Es256 => VerifyingKey::P256(es256(&key)?.1),
        };
        Ok(Response::PublicKey { public_key, exchange_key })
    }

    /// This process itself reads what it signs: whoever asks is not trusted with the difference between two formats.
    fn sign_bytes(&self, path: &KeyPath, message: &[u8], epoch: u32) -> Result<Response, Refusal> {
        let key = self.derive(path, epoch)?;
        let read = |public_key: &VerifyingKey| match self.keeps_purposes {
            true => purpose::for_bytes(path, public_key, message),
            false => Ok(()),
        };
        let signer =
            if self.keeps_purposes { purpose::signer(path)?.1 } else { purpose::signer_unchecked(path) };
        match signer {
            purpose::Signer::Ed25519 => {
                let public_key = VerifyingKey::Ed25519(key.public_key());
                read(&public_key)?;
                Ok(Response::Signed { signature: key.sign_bytes(message), public_key })
            }
            purpose::Signer::Es256 => {
                let (key, public_key) = es256(&key)?;
                let public_key = VerifyingKey::P256(public_key);
                read(&public_key)?;
                Ok(Response::Signed { signature: key.sign_bytes(message), public_key })
            }
        }
    }

    fn encrypt(&self, path: &KeyPath, plain: &[u8], epoch: u32) -> Result<Response, Refusal> {
        let key = self.for_hashes(path, epoch)?;
        let mut entropy = Zeroizing::new([0; ENTROPY_BYTES]);
        if !(self.entropy)(&mut entropy[..]) {
            return Err(Refusal::NoEntropy);
        }
        let mut sealed = epochs::header(epoch);
        sealed.extend(key.exchange().encrypt(path, plain, &entropy)?);
        Ok(Response::Encrypted { sealed })
    }

    /// Only a boundary that was given no sealed seed makes one: a seed that does not open is not replaced by another.
    fn create(&mut self, kind: SecretKind) -> Result<Response, Refusal> {
        if self.state != BoundaryState::Empty {
            return Err(Refusal::HasSeed);
        }
        let sealing = self.sealing.as_ref().filter(|s| s.kind == kind).ok_or(Refusal::NoSecret(kind))?;
        let mut entropy = [0; SEAL_ENTROPY_BYTES];
        let seed = seed_bytes(&mut self.seed)?;
        if !(self.entropy)(seed) || !(self.entropy)(&mut entropy) {
            seed.zeroize();
            return Err(Refusal::NoEntropy);
        }
        let sealed = seal::seal(Contents::Seed, seed, kind, sealing.secret(), &entropy)
            .inspect_err(|_| seed.zeroize())?;
        self.ready();
        Ok(Response::Created { sealed })
    }

    fn seal(&mut self) -> Result<Response, Refusal> {
        if self.state != BoundaryState::Ready {
            return Err(Refusal::Locked);
        }
        let next = self.next.as_ref().ok_or(Refusal::NoNextSecret)?;
        let mut entropy = [0; SEAL_ENTROPY_BYTES];
        if !(self.entropy)(&mut entropy) {
            return Err(Refusal::NoEntropy);
        }
        let seed = seed_bytes(&mut self.seed)?;
        let sealed = seal::seal(Contents::Seed, seed, next.kind, next.secret(), &entropy)?;
        Ok(Response::Created { sealed })
    }

    /// Afterwards there is nothing here that could open anything.
    fn lock(&mut self) -> Response {
        if self.keeps_locks {
            self.seed.wipe();
            self.sealing = None;
            self.armed = None;
            self.state = BoundaryState::Locked { why: "it was locked by a decision".to_owned() };
        }
        Response::Locked
    }

    fn write_words(&mut self) -> Result<Response, Refusal> {
        if self.state != BoundaryState::Ready {
            return Err(Refusal::Locked);
        }
        let place = self.words.as_ref().ok_or(Refusal::NoPlace)?;
        let mut page =
            SecretMemory::new(WORDS_TEXT_BYTES_MAX).map_err(|error| Refusal::Words(error.to_string()))?;
        let bytes = words::page(seed_bytes(&mut self.seed)?, page.as_mut_slice()).ok_or(Refusal::NoPlace)?;
        let mut rest = page.as_slice().get(..bytes).unwrap_or_default();
        while !rest.is_empty() {
            let written = retry_on_intr(|| rustix::io::write(place, rest));
            let written =
                written.map_err(|errno| Refusal::Words(format!("writing the words failed: {errno}")))?;
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(Response::WordsWritten)
    }

    fn read_words(&mut self) -> Result<Response, Refusal> {
        if self.state == BoundaryState::Ready {
            return Err(Refusal::HasSeed);
        }
        let place = self.words.as_ref().ok_or(Refusal::NoPlace)?;
        // One byte more than allowed, so that too long is noticed.
        let text = SecretMemory::new(WORDS_TEXT_BYTES_MAX + 1);
        let mut text = text.map_err(|error| Refusal::Words(error.to_string()))?;
        let mut bytes = 0;
        while let Some(rest) = text.as_mut_slice().get_mut(bytes..).filter(|rest| !rest.is_empty()) {
            let read = retry_on_intr(|| rustix::io::read(place, &mut *rest));
            match read.map_err(|errno| Refusal::Words(format!("reading the words failed: {errno}")))? {
                0 => break,
                read => bytes += read,
            }
            if text.as_slice().get(..bytes).is_some_and(words::is_whole) {
                break;
            }
        }
        let text = text.as_slice().get(..bytes).unwrap_or_default();
        words::seed(text, seed_bytes(&mut self.seed)?).map_err(|error| Refusal::Words(error.to_string()))?;
        self.ready();
        Ok(Response::WordsRead)
    }

    /// From the next secret to the seed, for a copy, or from the seed to the next secret.
    fn reseal(&mut self, signer: u8, sealed: &[u8], is_copy: bool) -> Result<Response, Refusal> {
        if self.state != BoundaryState::Ready {
            return Err(Refusal::Locked);
        }
        let signer = *Signer::ALL.get(usize::from(signer)).ok_or(Refusal::NoSigner(signer))?;
        let next = self.next.as_ref().ok_or(Refusal::NoNextSecret)?;
        let mut entropy = [0; SEAL_ENTROPY_BYTES];
        if !(self.entropy)(&mut entropy) {
            return Err(Refusal::NoEntropy);
        }
        let own = recovery_secret(self.seed.as_slice());
        let contents = Contents::SigningKey(signer);
        let by_next = (next.kind, next.secret());
        let by_seed = (SecretKind::RootSeed, &own[..]);
        let (from, to) = if is_copy { (by_next, by_seed) } else { (by_seed, by_next) };
        let mut key = Zeroizing::new([0; SEED_BYTES]);
        seal::open(contents, sealed, from.0, from.1, &mut key)?;
        let public_key = public_half(&key);
        let sealed = seal::seal(contents, &key, to.0, to.1, &entropy)?;
        Ok(Response::Resealed { sealed, public_key })
    }

    fn arm(&mut self) -> Result<Response, Refusal> {
        if self.state == BoundaryState::Ready {
            return Err(Refusal::HasSeed);
        }
        self.armed = Some((Instant::now() + UNLOCK_WINDOW, UNLOCK_TRIES_MAX));
        Ok(Response::Armed)
    }

    /// What the operator sent on the socket of their own. A wrong secret leaves the state as it is.
    pub(super) fn unlock(&mut self, message: &[u8]) -> Response {
        let answered = with_clean_stack(|| {
            let (until, tries) = self.armed.take().ok_or(Refusal::NotArmed)?;
            if Instant::now() >= until || self.state == BoundaryState::Ready {
                return Err(Refusal::NotArmed);
            }
            self.armed = tries.checked_sub(2).map(|left| (until, left + 1));
            let (kind, secret) = message.split_first().ok_or(Refusal::NoSecretSent)?;
            let kind = SecretKind::ALL.get(usize::from(*kind)).ok_or(Refusal::NoSecretSent)?;
            let sealed = self.sealed.clone().ok_or(Refusal::Locked)?;
            let read = |buffer: &mut [u8]| {
                let fits = buffer.get_mut(..secret.len()).ok_or(std::io::ErrorKind::InvalidInput)?;
                fits.copy_from_slice(secret);
                Ok(secret.len())
            };
            let sealing = Sealing::read(*kind, read).map_err(|error| Refusal::Seal(error.to_string()))?;
            self.sealing = Some(sealing);
            let opened = self.open(&sealed);
            self.sealing = None;
            opened?;
            self.armed = None;
            self.ready();
            Ok(Response::Unsealed)
        });
        answered.unwrap_or_else(Response::Refused)
    }

    fn unseal(&mut self, sealed: &[u8]) -> Result<Response, Refusal> {
        if self.state == BoundaryState::Ready {
            return Err(Refusal::HasSeed);
        }
        let opened = self.open(sealed);
        if let Err(why) = &opened {
            self.state = BoundaryState::Locked { why: why.to_string() };
        }
        opened.map(|()| {
            self.ready();
            Response::Unsealed
        })
    }

    fn open(&mut self, sealed: &[u8]) -> Result<(), Refusal> {
        let kind = seal::sealed_by(sealed)?;
        let sealing = self.sealing.as_ref().ok_or(Refusal::NoSecret(kind))?;
        let seed = seed_bytes(&mut self.seed)?;
        Ok(seal::open(Contents::Seed, sealed, sealing.kind, sealing.secret(), seed)?)
    }

    fn ready(&mut self) {
        self.state = BoundaryState::Ready;
        // Wiped and unmapped: it opens nothing any more here.
        self.sealing = None;
    }
}

fn es256(key: &DerivedKey) -> Result<(Es256Key, P256Key), Refusal> {
    let derived = key.es256().and_then(|key| key.public_key().map(|public| (key, public)));
    derived
        .ok_or_else(|| Refusal::Purpose("no ES256 key can be derived at this path; take another".to_owned()))
}

fn seed_bytes(memory: &mut SecretMemory) -> Result<&mut [u8; SEED_BYTES], Refusal> {
    memory.as_mut_slice().try_into().map_err(|_| Refusal::Locked)
}

#[cfg(test)]
#[path = "holder_tests.rs"]
mod tests;
