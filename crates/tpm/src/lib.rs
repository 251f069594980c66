//! Seals a secret of 32 bytes to a TPM 2.0, so that this machine opens it unattended and no other does (KEY-41).
//!
//! Promises: nothing secret crosses the bus in the clear (salted session, parameter encryption); what the TPM answers is
//! believed only where its HMAC holds; no object stays in the TPM; a TPM that says nothing ends in an error. Never does:
//! write a file, keep a secret. Calls the TPM behind the given path and nobody else; if that dies, so does the call.
//!
//! Commands are written by hand from "TPM 2.0 Library" parts 1 to 3; layout of a `Sealed` in docs/format.md.

mod command;
mod device;
mod file;
mod kdf;
mod session;
mod wire;

use std::path::Path;

use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use command::{Code, Command, Handle};
pub use device::{ANSWER_TIMEOUT, Device};
pub use file::{DEVICE_BYTES_MAX, FILE_BYTES_MAX, FileError, TpmFile};
use session::Session;
use wire::{Reader, Writer};

/// Bytes of what is sealed: what a local key file would hold.
pub const SECRET_BYTES: usize = 32;
/// Bytes of the public and of the private part of a sealed object; TPMs give some 80 and 170.
pub const PART_BYTES_MAX: usize = 1024;

#[derive(Debug, Error)]
pub enum TpmError {
    #[error("cannot open the TPM at {path}")]
    Open { path: String, source: std::io::Error },
    #[error("the TPM does not answer")]
    Exchange(#[source] std::io::Error),
    #[error("the TPM refuses {command}: code {code:#x}")]
    Refused { command: &'static str, code: u32 },
    #[error("the TPM answers {command} in another form than TPM 2.0 says")]
    Form { command: &'static str },
    #[error("the answer to {command} is not the TPM's own: its HMAC does not hold")]
    Forged { command: &'static str },
    #[error("the kernel's random source")]
    Random(#[source] getrandom::Error),
    #[error("a part of a sealed object has at most {PART_BYTES_MAX} bytes, not {0}")]
    Part(usize),
}

/// A secret that the TPM which made it opens again: `TPM2B_PUBLIC` and `TPM2B_PRIVATE` without their sizes. Not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub public: Vec<u8>,
    pub private: Vec<u8>,
}

/// Anything that takes a command and gives its answer.
pub trait Transport {
    fn exchange(&mut self, command: &[u8]) -> std::io::Result<Vec<u8>>;
}

/// A TPM, with the key under which things are sealed.
pub struct Tpm<T> {
    transport: T,
    storage: Handle,
    /// Of the storage key: what it encrypts a session's salt with, and what commands name it by.
    point: kdf::Point,
    name: Vec<u8>,
}

impl Tpm<Device> {
    /// The TPM at a character device (`/dev/tpmrm0`) or at the Unix socket of a software TPM.
    pub fn open(path: &Path) -> Result<Self, TpmError> {
        let device = Device::open(path)
            .map_err(|source| TpmError::Open { path: path.display().to_string(), source })?;
        Self::start(device)
    }
}

impl<T: Transport> Tpm<T> {
    /// Makes the storage key again: the same on the same machine, for it comes from the TPM's own seed.
    pub fn start(mut transport: T) -> Result<Self, TpmError> {
        // A TPM that the kernel does not manage was not started by anybody; one that was says so, which is as good.
        match Command::new(Code::Startup).u16(command::STARTUP_CLEAR).send(&mut transport) {
            Ok(_) | Err(TpmError::Refused { code: command::ALREADY_STARTED, .. }) => {}
            Err(error) => return Err(error),
        }
        let mut sensitive = Writer::new();
        sensitive.sized(&[]);
        sensitive.sized(&[]);
        let answer = Command::new(Code::CreatePrimary)
            .handle_by_password(Handle::OWNER)
            .sized(&sensitive.into_bytes())
            .sized(&storage_template())
            .sized(&[])
            .u32(0)
            .send(&mut transport)?;
        let form = || TpmError::Form { command: Code::CreatePrimary.name() };
        let mut head = Reader::new(&answer.handles);
        let storage = Handle(head.u32().ok_or_else(form)?);
        let mut rest = Reader::new(&answer.parameters);
        let public = rest.sized(PART_BYTES_MAX).ok_or_else(form)?;
        let started = (|| Some((point_of(public)?, name_of(public))))();
        match started {
            Some((point, name)) => Ok(Self { transport, storage, point, name }),
            None => {
                flush(&mut transport, storage)?;
                Err(form())
            }
        }
    }

    pub fn seal(&mut self, secret: &[u8; SECRET_BYTES]) -> Result<Sealed, TpmError> {
        let session = self.session(command::DECRYPT)?;
        // Of no authority: whoever may use this TPM opens it. What protects the secret is that the TPM is here.
        let mut sensitive = Zeroizing::new(Vec::with_capacity(4 + SECRET_BYTES));
        sensitive.extend([0, 0, 0, SECRET_BYTES as u8]);
        sensitive.extend(secret);
        let command =
            Command::new(Code::Create).sized(&sensitive).sized(&sealed_template()).sized(&[]).u32(0);
        let answer = self.within(session, command, self.storage, self.name.clone())?;
        let form = || TpmError::Form { command: Code::Create.name() };
        let mut rest = Reader::new(&answer);
        let private = rest.sized(PART_BYTES_MAX).ok_or_else(form)?.to_vec();
        let public = rest.sized(PART_BYTES_MAX).ok_or_else(form)?.to_vec();
        Ok(Sealed { public, private })
    }

    pub fn unseal(&mut self, sealed: &Sealed) -> Result<Zeroizing<[u8; SECRET_BYTES]>, TpmError> {
        for part in [&sealed.public, &sealed.private] {
            if part.len() > PART_BYTES_MAX {
                return Err(TpmError::Part(part.len()));
            }
        }
        let answer = Command::new(Code::Load)
            .handle_by_password(self.storage)
            .sized(&sealed.private)
            .sized(&sealed.public)
            .send(&mut self.transport)?;
        let loaded = Reader::new(&answer.handles).u32();
        let loaded = Handle(loaded.ok_or(TpmError::Form { command: Code::Load.name() })?);
        let opened = self.open_loaded(loaded, name_of(&sealed.public));
        let flushed = flush(&mut self.transport, loaded);
        let secret = opened?;
        flushed?;
        Ok(secret)
    }

    fn open_loaded(
        &mut self,
        loaded: Handle,
        name: Vec<u8>,
    ) -> Result<Zeroizing<[u8; SECRET_BYTES]>, TpmError> {
        let session = self.session(command::ENCRYPT)?;
        let answer = self.within(session, Command::new(Code::Unseal), loaded, name)?;
        let secret = Reader::new(&answer).sized(SECRET_BYTES).and_then(|secret| secret.try_into().ok());
        secret.map(Zeroizing::new).ok_or(TpmError::Form { command: Code::Unseal.name() })
    }

    fn session(&mut self, attribute: u8) -> Result<Session, TpmError> {
        Session::start(&mut self.transport, self.storage, &self.point, attribute)
    }

    /// One command in a session of its own, which the TPM forgets when it has succeeded.
    fn within(
        &mut self,
        session: Session,
        command: Command,
        object: Handle,
        name: Vec<u8>,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let handle = session.handle();
        let answer = session.run(&mut self.transport, command, object, &name);
        if matches!(answer, Err(TpmError::Refused { .. })) {
            // A session survives the command that failed in it.
            flush(&mut self.transport, handle)?;
        }
        answer
    }

    /// Gives the TPM's memory back.
    pub fn end(mut self) -> Result<(), TpmError> {
        flush(&mut self.transport, self.storage)
    }
}

fn flush(transport: &mut impl Transport, handle: Handle) -> Result<(), TpmError> {
    Command::new(Code::FlushContext).u32(handle.0).send(transport).map(|_| ())
}

/// What commands and sessions name an object by.
fn name_of(public: &[u8]) -> Vec<u8> {
    let mut name = command::SHA256.to_be_bytes().to_vec();
    name.extend(Sha256::digest(public));
    name
}

/// A restricted decryption key on P-256, as the TCG's profile for storage root keys has it.
fn storage_template() -> Vec<u8> {
    let mut public = Writer::new();
    public.u16(command::ECC);
    public.u16(command::SHA256);
    public.u32(
        command::FIXED_TPM
            | command::FIXED_PARENT
            | command::SENSITIVE_DATA_ORIGIN
            | command::USER_WITH_AUTH
            | command::NO_DA
            | command::RESTRICTED
            | command::DECRYPT_KEY,
    );
    public.sized(&[]);
    // Wraps with AES-128 in CFB mode; no signing scheme; P-256; no key derivation scheme.
    public.u16(command::AES);
    public.u16(128);
    public.u16(command::CFB);
    public.u16(command::NULL_ALGORITHM);
    public.u16(command::P256);
    public.u16(command::NULL_ALGORITHM);
    public.sized(&[0; 32]);
    public.sized(&[0; 32]);
    public.into_bytes()
}

/// Data that the TPM keeps for itself, without an authority of its own.
fn sealed_template() -> Vec<u8> {
    let mut public = Writer::new();
    public.u16(command::KEYED_HASH);
    public.u16(command::SHA256);
    public.u32(command::FIXED_TPM | command::FIXED_PARENT | command::USER_WITH_AUTH | command::NO_DA);
    public.sized(&[]);
    public.u16(command::NULL_ALGORITHM);
    public.sized(&[]);
    public.into_bytes()
}

/// The point of a public area that was asked for by `storage_template`.
fn point_of(public: &[u8]) -> Option<kdf::Point> {
    let mut template = Reader::new(public);
    let (kind, hash) = (template.u16()?, template.u16()?);
    template.u32()?;
    template.sized(PART_BYTES_MAX)?;
    let scheme = [template.u16()?, template.u16()?, template.u16()?, template.u16()?];
    let (curve, derivation) = (template.u16()?, template.u16()?);
    let wanted = [command::AES, 128, command::CFB, command::NULL_ALGORITHM];
    if (kind, hash, curve, derivation)
        != (command::ECC, command::SHA256, command::P256, command::NULL_ALGORITHM)
        || scheme != wanted
    {
        return None;
    }
    let (x, y) = (template.sized(32)?, template.sized(32)?);
    kdf::Point::of(x, y)
}

#[cfg(test)]
mod tests;
