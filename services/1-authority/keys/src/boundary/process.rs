//! Start, hardening and the loop.

use rustix::{
    fd::{AsFd, OwnedFd},
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags, recv, send},
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::{no_new_privs, set_no_new_privs},
};
use sandbox::secret_memory::SecretMemoryError;
use seal::SEALED_BYTES;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::{
    holder::{Holder, Sealing, SealingError},
    protocol::{MESSAGE_BYTES_MAX, Refusal, Request, Response, SecretKind},
};

/// Name of the defence that `prove --break` can switch off here.
const PURPOSES: &str = "key-purpose";

/// What the boundary is started with. Everything is an open descriptor: it has no names to open.
#[derive(Debug)]
pub struct Inputs {
    /// `SOCK_SEQPACKET`, to the keys service.
    pub socket: OwnedFd,
    /// `seed.sealed`; none at first boot.
    pub sealed: Option<OwnedFd>,
    /// What opens the seal: a credential, the local key file, or a pipe with a passphrase.
    pub secret: Option<(SecretKind, OwnedFd)>,
    /// What the seed is to be sealed by anew.
    pub next: Option<(SecretKind, OwnedFd)>,
}

#[derive(Debug, Error)]
pub enum BoundaryError {
    #[error("{step} failed")]
    Harden { step: &'static str, source: Errno },
    #[error(transparent)]
    Secret(#[from] SealingError),
    #[error(transparent)]
    Memory(#[from] SecretMemoryError),
    #[error("cannot read the sealed seed")]
    Sealed(#[source] std::io::Error),
    #[error("the socket failed: {0}")]
    Socket(Errno),
    #[error("ended the connection: {0}")]
    Misuse(Refusal),
}

/// Runs the boundary until its peer closes the socket. Its launcher has put it under the sandbox's profile `boundary`.
///
/// A seed that does not open is no error: the boundary then answers `Locked`, and says why in its status.
pub fn main(inputs: Inputs) -> Result<(), BoundaryError> {
    harden()?;
    let Inputs { socket, sealed, secret, next } = inputs;
    let read = |(kind, fd): (SecretKind, OwnedFd)| Sealing::read(kind, |buffer| Ok(read_up_to(&fd, buffer)?));
    let (sealing, next) = (secret.map(read).transpose()?, next.map(read).transpose()?);
    let sealed = sealed.map(|fd| read_sealed(&fd)).transpose()?;
    let mut holder = Holder::new(sealing, |buffer| sandbox::random::fill(buffer).is_ok())?;
    holder.seal_next_by(next);
    if kit::is_broken(PURPOSES) {
        holder.forget_purposes();
    }
    if let Some(sealed) = sealed {
        // How it went is kept in the holder's state, which `Status` tells.
        drop(holder.answer(Request::Unseal { sealed }));
    }
    serve(&socket, &mut holder)
}

/// Before anything secret is read: no dump, no ptrace, no core file, no new privileges.
fn harden() -> Result<(), BoundaryError> {
    let failed = |step| move |source| BoundaryError::Harden { step, source };
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("prctl PR_SET_DUMPABLE"))?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(failed("setrlimit RLIMIT_CORE"))?;
    // The launcher's filter lets it be asked, not set.
    if no_new_privs().is_ok_and(|set| set) {
        return Ok(());
    }
    set_no_new_privs(true).map_err(failed("prctl PR_SET_NO_NEW_PRIVS"))
}

/// Reads until the end or until `buffer` is full.
fn read_up_to(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match retry_on_intr(|| rustix::io::read(&fd, &mut *rest))? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

fn read_sealed(fd: &OwnedFd) -> Result<Vec<u8>, BoundaryError> {
    // One byte more than a sealed seed, so that a longer file is noticed.
    let mut buffer = vec![0; SEALED_BYTES + 1];
    let bytes = read_up_to(fd, &mut buffer).map_err(|errno| BoundaryError::Sealed(errno.into()))?;
    buffer.truncate(bytes);
    Ok(buffer)
}

fn serve(socket: &OwnedFd, holder: &mut Holder) -> Result<(), BoundaryError> {
    // Wiped after each request: what is to be encrypted was in it.
    let mut buffer = Zeroizing::new(vec![0; MESSAGE_BYTES_MAX]);
    loop {
        let received = retry_on_intr(|| recv(socket, &mut buffer[..], RecvFlags::TRUNC));
        let bytes = match received {
            Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(()),
            Ok((_, bytes)) => bytes,
            Err(errno) => return Err(BoundaryError::Socket(errno)),
        };
        let request = match buffer.get(..bytes) {
            Some(message) => Request::from_bytes(message).map_err(|error| error.to_string()),
            None => Err(format!("{bytes} bytes, at most {MESSAGE_BYTES_MAX} are allowed")),
        };
        if let Some(message) = buffer.get_mut(..bytes) {
            message.zeroize();
        }
        match request {
            Ok(request) => answer(socket, &holder.answer(request))?,
            Err(why) => {
                let refusal = Refusal::Malformed(why.chars().take(200).collect());
                answer(socket, &Response::Refused(refusal.clone()))?;
                return Err(BoundaryError::Misuse(refusal));
            }
        }
    }
}

fn answer(socket: &OwnedFd, response: &Response) -> Result<(), BoundaryError> {
    let bytes = Zeroizing::new(response.to_bytes());
    match retry_on_intr(|| send(socket, &bytes, SendFlags::NOSIGNAL)) {
        // The peer has closed: the next receive ends the loop.
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(errno) => Err(BoundaryError::Socket(errno)),
    }
}
