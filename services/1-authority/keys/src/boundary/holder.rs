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
mod tests {
    use super::*;
    use crate::core::Plain;
    use base::Hash;

    fn counting(buffer: &mut [u8]) -> bool {
        buffer.iter_mut().zip(0..).for_each(|(byte, n)| *byte = n);
        true
    }

    fn sealing(kind: SecretKind, secret: &[u8]) -> Option<Sealing> {
        let read = |buffer: &mut [u8]| {
            buffer[..secret.len()].copy_from_slice(secret);
            Ok(secret.len())
        };
        Some(Sealing::read(kind, read).unwrap())
    }

    fn holder(secret: &[u8; 32]) -> Holder {
        Holder::new(sealing(SecretKind::KeyFile, secret), counting).unwrap()
    }

    fn path() -> KeyPath {
        KeyPath::parse("/orbital/users/alice/signing").unwrap()
    }

    fn state(holder: &mut Holder) -> (BoundaryState, Option<SecretKind>) {
        match holder.answer(Request::Status) {
            Response::Status { state, secret, .. } => (state, secret),
            other => panic!("{other:?}"),
        }
    }

    fn create(holder: &mut Holder) -> Vec<u8> {
        match holder.answer(Request::Create { sealing: SecretKind::KeyFile }) {
            Response::Created { sealed } => sealed,
            other => panic!("{other:?}"),
        }
    }

    /// covers: KEY-25
    #[test]
    fn a_seed_made_sealed_and_opened_elsewhere_gives_the_same_keys() {
        let mut first = holder(&[1; 32]);
        assert_eq!(state(&mut first), (BoundaryState::Empty, Some(SecretKind::KeyFile)));
        assert_eq!(
            first.answer(Request::PublicKey { path: path(), epoch: 0 }),
            Response::Refused(Refusal::Locked)
        );
        let sealed = create(&mut first);
        assert_eq!(state(&mut first), (BoundaryState::Ready, None), "the secret is dropped");
        let mut second = holder(&[1; 32]);
        assert_eq!(second.answer(Request::Unseal { sealed }), Response::Unsealed);
        let ask = || Request::Sign { path: path(), message: Hash([7; 32]), epoch: 0 };
        let signed = second.answer(ask());
        assert_eq!(signed, first.answer(ask()));
        // The seed of counting bytes is the one of the fixed vectors.
        let public_key = "88848f5b82a818a92c943b4ddd79320df2d5689ab0fcfc6fd7f6359844c757c5".parse().unwrap();
        let public_key = VerifyingKey::Ed25519(public_key);
        assert!(matches!(signed, Response::Signed { public_key: key, .. } if key == public_key));
        let told = first.answer(Request::PublicKey { path: path(), epoch: 0 });
        assert!(matches!(told, Response::PublicKey { public_key: key, .. } if key == public_key));
        // What one encrypts, the other opens, under the same path alone.
        let encrypt = Request::Encrypt { path: path(), plain: Plain::new(b"hello".to_vec()), epoch: 0 };
        let Response::Encrypted { sealed } = first.answer(encrypt) else { panic!() };
        let decrypt = |path| Request::Decrypt { path, sealed: sealed.clone() };
        let plain = Plain::new(b"hello".to_vec());
        assert_eq!(second.answer(decrypt(path())), Response::Decrypted { plain });
        let other = KeyPath::parse("/orbital/users/alice").unwrap();
        assert!(matches!(second.answer(decrypt(other)), Response::Refused(Refusal::Encryption(_))));
    }

    fn sshsig(namespace: &str) -> Vec<u8> {
        let mut bytes = b"SSHSIG".to_vec();
        for field in [namespace.as_bytes(), b"", b"sha512", &[1; 64]] {
            bytes.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
            bytes.extend(field);
        }
        bytes
    }

    #[test]
    fn a_key_with_a_purpose_signs_its_format_and_nothing_else() {
        let mut holder = holder(&[1; 32]);
        create(&mut holder);
        let ssh = || path().child("@ssh").unwrap();
        let bytes = |path: KeyPath, message: Vec<u8>| Request::SignBytes { path, message, epoch: 0 };
        let Response::Signed { signature, public_key } = holder.answer(bytes(ssh(), sshsig("git"))) else {
            panic!()
        };
        let VerifyingKey::Ed25519(key) = public_key else { panic!() };
        assert_eq!(crate::core::verify(&key, &sshsig("git"), &signature), Ok(true));
        let told = holder.answer(Request::PublicKey { path: ssh(), epoch: 0 });
        assert_eq!(told, Response::PublicKey { public_key, exchange_key: None });
        let plain = Plain::new(b"hello".to_vec());
        let Response::Encrypted { sealed } =
            holder.answer(Request::Encrypt { path: path(), plain: plain.clone(), epoch: 0 })
        else {
            panic!()
        };
        let jwt = || path().child("@jwt").unwrap();
        let attacks = [
            Request::Sign { path: ssh(), message: Hash([7; 32]), epoch: 0 },
            Request::Encrypt { path: ssh(), plain: plain.clone(), epoch: 0 },
            Request::Decrypt { path: ssh(), sealed: sealed.clone() },
            bytes(path(), sshsig("git")),
            bytes(ssh(), sshsig("mail")),
            bytes(ssh(), vec![7; 32]),
            bytes(jwt(), sshsig("git")),
            bytes(path().child("@x509").unwrap(), sshsig("git")),
            Request::Sign { path: jwt(), message: Hash([7; 32]), epoch: 0 },
            Request::Encrypt { path: jwt(), plain: plain.clone(), epoch: 0 },
            bytes(ssh().child("below").unwrap(), sshsig("git")),
            Request::PublicKey { path: KeyPath::parse("/@jwt").unwrap(), epoch: 0 },
        ];
        for attack in &attacks {
            let answer = holder.answer(attack.clone());
            assert!(matches!(answer, Response::Refused(Refusal::Purpose(_))), "{attack:?}: {answer:?}");
        }
        // What `prove` must notice the absence of: the same are carried out, but for what there is no key of.
        holder.forget_purposes();
        for attack in attacks.iter().filter(|attack| !matches!(attack, Request::PublicKey { .. })) {
            let answer = holder.answer(attack.clone());
            assert!(!matches!(answer, Response::Refused(Refusal::Purpose(_))), "{attack:?}: {answer:?}");
        }
    }

    #[test]
    fn certificates_and_tokens_are_signed_by_the_authority_that_the_path_names() {
        let mut holder = holder(&[1; 32]);
        create(&mut holder);
        // The seed of counting bytes, and the path of the fixed vectors.
        let authority = || KeyPath::parse("/orbital/services/identity/node-a/@x509").unwrap();
        let Response::PublicKey { public_key: VerifyingKey::P256(key), exchange_key: None } =
            holder.answer(Request::PublicKey { path: authority(), epoch: 0 })
        else {
            panic!()
        };
        let domain = svid::TrustDomain::parse("node-a").unwrap();
        let own = svid::Certificate {
            serial: svid::serial([1; svid::SERIAL_BYTES]),
            subject: svid::Subject::Authority(domain.clone()),
            key,
            not_before_s: 0,
            not_after_s: 1,
        };
        let message = own.to_sign(&key).unwrap();
        let ask = |path, message: &[u8]| Request::SignBytes { path, message: message.to_vec(), epoch: 0 };
        let answer = holder.answer(ask(authority(), &message));
        let Response::Signed { signature, public_key } = answer else { panic!("{answer:?}") };
        assert_eq!(public_key, VerifyingKey::P256(key));
        assert!(key.verify(&message, &signature.0));
        // The same bytes with the key of another trust domain, and another authority with this key.
        let elsewhere = KeyPath::parse("/orbital/services/identity/node-b/@x509").unwrap();
        let other =
            svid::Certificate { key: es256(&DerivedKey::derive(&[1; 32], &elsewhere, 0)).unwrap().1, ..own };
        let attacks = [ask(elsewhere, &message), ask(authority(), &other.to_sign(&other.key).unwrap())];
        for attack in attacks {
            let answer = holder.answer(attack.clone());
            assert!(matches!(answer, Response::Refused(Refusal::Purpose(_))), "{attack:?}: {answer:?}");
        }
    }

    #[test]
    fn a_seed_is_never_replaced() {
        let mut ready = holder(&[1; 32]);
        let sealed = create(&mut ready);
        let again = Request::Create { sealing: SecretKind::KeyFile };
        assert_eq!(ready.answer(again.clone()), Response::Refused(Refusal::HasSeed));
        assert_eq!(
            ready.answer(Request::Unseal { sealed: sealed.clone() }),
            Response::Refused(Refusal::HasSeed)
        );
        let mut locked = holder(&[2; 32]);
        assert!(matches!(locked.answer(Request::Unseal { sealed }), Response::Refused(Refusal::Seal(_))));
        assert!(matches!(state(&mut locked), (BoundaryState::Locked { .. }, Some(_))));
        assert_eq!(locked.answer(again), Response::Refused(Refusal::HasSeed));
        assert_eq!(
            locked.answer(Request::PublicKey { path: path(), epoch: 0 }),
            Response::Refused(Refusal::Locked)
        );
    }

    fn hex(text: &str) -> Vec<u8> {
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        text.as_bytes().chunks(2).map(byte).collect()
    }

    #[test]
    fn each_epoch_has_a_key_of_its_own_and_opens_what_was_encrypted_in_it() {
        let mut holder = holder(&[1; 32]);
        create(&mut holder);
        let mut key = |epoch| match holder.answer(Request::PublicKey { path: path(), epoch }) {
            Response::PublicKey { public_key, exchange_key } => (public_key, exchange_key.unwrap()),
            other => panic!("{other:?}"),
        };
        let keys: std::collections::BTreeSet<_> =
            [0, 1, 2, 256].map(|epoch| format!("{:?}", key(epoch))).into();
        assert_eq!(keys.len(), 4);
        // As docs/format.md has it, computed with PyNaCl and Python's hmac.
        assert_eq!(key(1).1.to_string(), "a73c9c798c8971696206ed6dc3386738439710f92c753bbab2399801a88fe960");
        let vector = "0201000000018f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f\
                      202122232425262728292a2b2c2d2e2f3031323334353637\
                      14e391e8bdb2bb5cc447b9164fa7936a7efb9662a27617cba582b2068999";
        let sealed = hex(vector);
        let plain = Plain::new(b"attack at dawn".to_vec());
        let opened = holder.answer(Request::Decrypt { path: path(), sealed: sealed.clone() });
        assert_eq!(opened, Response::Decrypted { plain });
        let mut other = sealed;
        other[1] = 2;
        let refused = holder.answer(Request::Decrypt { path: path(), sealed: other });
        assert!(matches!(refused, Response::Refused(Refusal::Encryption(_))), "{refused:?}");
        for epoch in [0, 1, 7] {
            let plain = Plain::new(b"hello".to_vec());
            let encrypt = Request::Encrypt { path: path(), plain: plain.clone(), epoch };
            let Response::Encrypted { sealed } = holder.answer(encrypt) else { panic!() };
            assert_eq!(sealed.first(), Some(&if epoch == 0 { 1 } else { 2 }));
            let opened = holder.answer(Request::Decrypt { path: path(), sealed });
            assert_eq!(opened, Response::Decrypted { plain });
        }
    }

    fn message(kind: u8, secret: &[u8]) -> Vec<u8> {
        [&[kind], secret].concat()
    }

    /// covers: KEY-32
    #[test]
    fn a_locked_boundary_does_nothing_until_it_is_armed_and_gets_the_right_secret() {
        let mut holder = holder(&[1; 32]);
        let sealed = create(&mut holder);
        let public = holder.answer(Request::PublicKey { path: path(), epoch: 0 });
        holder.sealed = Some(sealed);
        assert_eq!(holder.answer(Request::Arm), Response::Refused(Refusal::HasSeed));
        assert_eq!(holder.answer(Request::Lock), Response::Locked);
        assert!(holder.seed.as_slice().iter().all(|byte| *byte == 0), "the seed is wiped");
        let asks = [
            Request::PublicKey { path: path(), epoch: 0 },
            Request::Sign { path: path(), message: Hash([7; 32]), epoch: 0 },
            Request::SignBytes { path: path().child("@ssh").unwrap(), message: sshsig("git"), epoch: 0 },
            Request::Encrypt { path: path(), plain: Plain::new(b"hello".to_vec()), epoch: 0 },
            Request::Decrypt { path: path(), sealed: vec![1; 80] },
            Request::Seal,
        ];
        for ask in &asks {
            assert_eq!(holder.answer(ask.clone()), Response::Refused(Refusal::Locked), "{ask:?}");
        }
        let right = message(0, &[1; 32]);
        assert_eq!(holder.unlock(&right), Response::Refused(Refusal::NotArmed), "nobody allowed it");
        assert_eq!(holder.answer(Request::Arm), Response::Armed);
        assert_eq!(holder.unlock(&right), Response::Unsealed);
        assert_eq!(holder.answer(Request::PublicKey { path: path(), epoch: 0 }), public);
        // It is locked again, and the leave from before is used up.
        assert_eq!(holder.answer(Request::Lock), Response::Locked);
        assert_eq!(holder.unlock(&right), Response::Refused(Refusal::NotArmed));
        assert_eq!(holder.answer(Request::Arm), Response::Armed);
        for wrong in [vec![], vec![9], message(0, &[2; 32]), message(0, &[1; 31]), message(2, &[1; 2000])] {
            assert!(matches!(holder.unlock(&wrong), Response::Refused(_)), "{wrong:?}");
        }
        assert_eq!(holder.unlock(&right), Response::Refused(Refusal::NotArmed), "one more than the tries");
        assert_eq!(holder.answer(Request::Arm), Response::Armed);
        holder.armed = Some((Instant::now(), UNLOCK_TRIES_MAX));
        assert_eq!(holder.unlock(&right), Response::Refused(Refusal::NotArmed), "too late");
        // What `prove` must notice the absence of.
        holder.answer(Request::Arm);
        assert_eq!(holder.unlock(&right), Response::Unsealed);
        holder.forget_locks();
        assert_eq!(holder.answer(Request::Lock), Response::Locked);
        assert_eq!(holder.answer(Request::PublicKey { path: path(), epoch: 0 }), public);
    }

    #[test]
    fn what_was_handed_over_is_opened_by_the_first_question_and_not_at_all_after_a_lock() {
        let sealed = create(&mut holder(&[1; 32]));
        let started = || {
            let mut started = holder(&[1; 32]);
            started.hold(sealed.clone());
            started
        };
        let mut open = started();
        assert_eq!(state(&mut open), (BoundaryState::Ready, None));
        let mut locked = started();
        assert_eq!(locked.answer(Request::Lock), Response::Locked);
        assert!(
            matches!(state(&mut locked), (BoundaryState::Locked { .. }, None)),
            "the secret is gone, too"
        );
        assert_eq!(
            locked.answer(Request::PublicKey { path: path(), epoch: 0 }),
            Response::Refused(Refusal::Locked)
        );
    }

    fn temporary(content: &[u8]) -> (tempfile::NamedTempFile, OwnedFd) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let fd = OwnedFd::from(file.reopen().unwrap());
        (file, fd)
    }

    /// covers: KEY-18
    #[test]
    fn words_go_to_their_place_alone_and_bring_seed_and_signing_keys_back() {
        let mut first = holder(&[1; 32]);
        assert_eq!(first.answer(Request::WriteWords), Response::Refused(Refusal::Locked));
        create(&mut first);
        assert_eq!(first.answer(Request::WriteWords), Response::Refused(Refusal::NoPlace));
        let (page, place) = temporary(b"");
        first.words_at(Some(place));
        assert_eq!(first.answer(Request::WriteWords), Response::WordsWritten);
        assert_eq!(first.answer(Request::ReadWords), Response::Refused(Refusal::HasSeed));
        let phrase: Vec<String> = std::fs::read_to_string(page.path())
            .unwrap()
            .split_whitespace()
            .filter(|word| word.parse::<u8>().is_err())
            .map(str::to_owned)
            .collect();
        assert_eq!(phrase.len(), 24);

        // A signing key, sealed by a key file, copied under the seed.
        let (key, by) = ([0x33; 32], [7; 32]);
        let contents = Contents::SigningKey(Signer::Policy);
        let sealed = seal::seal(contents, &key, SecretKind::KeyFile, &by, &[5; SEAL_ENTROPY_BYTES]).unwrap();
        let ask = |signer: u8, sealed: &[u8]| Request::Copy { signer, sealed: sealed.to_vec() };
        assert_eq!(first.answer(ask(1, &sealed)), Response::Refused(Refusal::NoNextSecret));
        first.seal_next_by(sealing(SecretKind::KeyFile, &by));
        assert_eq!(first.answer(ask(4, &sealed)), Response::Refused(Refusal::NoSigner(4)));
        assert!(
            matches!(first.answer(ask(0, &sealed)), Response::Refused(Refusal::Seal(_))),
            "another signer's"
        );
        let Response::Resealed { sealed: copy, public_key } = first.answer(ask(1, &sealed)) else { panic!() };
        assert_eq!(public_key, public_half(&key));
        assert_eq!(seal::sealed_by(&copy), Ok(SecretKind::RootSeed));

        // Elsewhere, with nothing but the words and the copy.
        let (_typed, place) = temporary(format!("{}\n", phrase.join(" ")).as_bytes());
        let mut second = Holder::new(None, counting).unwrap();
        assert_eq!(second.answer(Request::ReadWords), Response::Refused(Refusal::NoPlace));
        second.words_at(Some(place));
        assert_eq!(second.answer(Request::ReadWords), Response::WordsRead);
        let public = |holder: &mut Holder| holder.answer(Request::PublicKey { path: path(), epoch: 0 });
        assert_eq!(public(&mut second), public(&mut first));
        second.seal_next_by(sealing(SecretKind::KeyFile, &[8; 32]));
        let restore = Request::Restore { signer: 1, sealed: copy };
        let Response::Resealed { sealed, public_key } = second.answer(restore) else { panic!() };
        assert_eq!(public_key, public_half(&key));
        let mut opened = [0; 32];
        seal::open(contents, &sealed, SecretKind::KeyFile, &[8; 32], &mut opened).unwrap();
        assert_eq!(opened, key);

        // What is wrong is told by its place, and nothing was taken.
        let (_wrong, place) = temporary(format!("{} nonsense\n", phrase[..23].join(" ")).as_bytes());
        let mut third = Holder::new(None, counting).unwrap();
        third.words_at(Some(place));
        let refused = third.answer(Request::ReadWords);
        assert!(
            matches!(&refused, Response::Refused(Refusal::Words(why)) if why.starts_with("word 24 ")),
            "{refused:?}"
        );
        assert_eq!(state(&mut third).0, BoundaryState::Empty);
    }

    #[test]
    fn an_open_seed_is_sealed_anew_by_the_next_secret_alone() {
        let mut old = holder(&[1; 32]);
        assert_eq!(old.answer(Request::Seal), Response::Refused(Refusal::Locked));
        let sealed = create(&mut old);
        assert_eq!(old.answer(Request::Seal), Response::Refused(Refusal::NoNextSecret));
        old.seal_next_by(sealing(SecretKind::Credential, b"a credential of some bytes"));
        let Response::Created { sealed: anew } = old.answer(Request::Seal) else { panic!() };
        assert_eq!(seal::sealed_by(&anew), Ok(SecretKind::Credential));
        let key = |holder: &mut Holder| holder.answer(Request::PublicKey { path: path(), epoch: 0 });
        let credential = sealing(SecretKind::Credential, b"a credential of some bytes");
        let mut new = Holder::new(credential, counting).unwrap();
        assert_eq!(new.answer(Request::Unseal { sealed: anew }), Response::Unsealed);
        assert_eq!(key(&mut new), key(&mut old));
        let credential = sealing(SecretKind::Credential, b"a credential of some bytes");
        let mut other = Holder::new(credential, counting).unwrap();
        assert!(matches!(other.answer(Request::Unseal { sealed }), Response::Refused(Refusal::Seal(_))));
    }

    #[test]
    fn creation_needs_the_named_secret_and_entropy() {
        let mut other = holder(&[1; 32]);
        let asked = other.answer(Request::Create { sealing: SecretKind::Passphrase });
        assert_eq!(asked, Response::Refused(Refusal::NoSecret(SecretKind::Passphrase)));
        let mut without = Holder::new(None, counting).unwrap();
        let asked = without.answer(Request::Create { sealing: SecretKind::KeyFile });
        assert_eq!(asked, Response::Refused(Refusal::NoSecret(SecretKind::KeyFile)));
        let mut dry = Holder::new(sealing(SecretKind::KeyFile, &[1; 32]), |_| false).unwrap();
        let asked = dry.answer(Request::Create { sealing: SecretKind::KeyFile });
        assert_eq!(asked, Response::Refused(Refusal::NoEntropy));
        assert_eq!(state(&mut dry).0, BoundaryState::Empty);
    }

    #[test]
    fn a_passphrase_loses_its_line_end_and_other_secrets_do_not() {
        assert_eq!(sealing(SecretKind::Passphrase, b"12345678\n").unwrap().secret(), b"12345678");
        assert_eq!(sealing(SecretKind::Credential, b"0123456789abcde\n").unwrap().secret().len(), 16);
        let long = vec![b'x'; SECRET_BYTES_MAX + 1];
        let read = |buffer: &mut [u8]| {
            buffer[..long.len()].copy_from_slice(&long);
            Ok(long.len())
        };
        assert!(matches!(Sealing::read(SecretKind::Passphrase, read), Err(SealingError::Length(_))));
    }
}
