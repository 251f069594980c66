//! Start, hardening and the loop.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, OwnedFd},
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send},
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::{no_new_privs, set_no_new_privs},
};
use sandbox::secret_memory::{SecretMemory, SecretMemoryError};
use seal::SEALED_BYTES;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::{
    holder::{Holder, Sealing, SealingError},
    protocol::{MESSAGE_BYTES_MAX, Refusal, Request, Response, SecretKind, UNLOCK_BYTES_MAX},
};

/// Names of the defences that `prove --break` can switch off here.
const PURPOSES: &str = "key-purpose";
const LOCKS: &str = "key-lock";
/// Who connects has this long to send a secret: it was typed before.
const SECRET_TIMEOUT_SECONDS: i64 = 2;

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
    /// Listens, `SOCK_SEQPACKET`, where the operator alone can connect: what opens the seal comes here and nowhere else.
    pub unlock: Option<OwnedFd>,
    /// Where the seed is written or read as words: a terminal, as a rule.
    pub words: Option<OwnedFd>,
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
    let Inputs { socket, sealed, secret, next, unlock, words } = inputs;
    let read = |(kind, fd): (SecretKind, OwnedFd)| Sealing::read(kind, |buffer| Ok(read_up_to(&fd, buffer)?));
    let (sealing, next) = (secret.map(read).transpose()?, next.map(read).transpose()?);
    let sealed = sealed.map(|fd| read_sealed(&fd)).transpose()?;
    let mut holder = Holder::new(sealing, |buffer| sandbox::random::fill(buffer).is_ok())?;
    holder.seal_next_by(next);
    holder.words_at(words);
    if kit::is_broken(PURPOSES) {
        holder.forget_purposes();
    }
    if kit::is_broken(LOCKS) {
        holder.forget_locks();
    }
    if let Some(sealed) = sealed {
        holder.hold(sealed);
    }
    serve(&socket, unlock.as_ref(), &mut holder)
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

fn serve(socket: &OwnedFd, unlock: Option<&OwnedFd>, holder: &mut Holder) -> Result<(), BoundaryError> {
    // Wiped after each request: what is to be encrypted was in it.
    let mut buffer = Zeroizing::new(vec![0; MESSAGE_BYTES_MAX]);
    loop {
        if let Some(unlock) = unlock {
            let mut ready = [PollFd::new(socket, PollFlags::IN), PollFd::new(unlock, PollFlags::IN)];
            retry_on_intr(|| poll(&mut ready, None)).map_err(BoundaryError::Socket)?;
            let [_, operator] = &ready;
            if !operator.revents().is_empty() {
                take_secret(unlock, holder)?;
                continue;
            }
        }
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

/// One secret from whoever connects. What goes wrong with them concerns nobody else.
fn take_secret(unlock: &OwnedFd, holder: &mut Holder) -> Result<(), BoundaryError> {
    let Ok(operator) = retry_on_intr(|| accept_with(unlock, SocketFlags::CLOEXEC)) else { return Ok(()) };
    let mut ready = [PollFd::new(&operator, PollFlags::IN)];
    let limit = Timespec { tv_sec: SECRET_TIMEOUT_SECONDS, tv_nsec: 0 };
    match poll(&mut ready, Some(&limit)) {
        Ok(1) => {}
        _ => return Ok(()),
    }
    let mut message = SecretMemory::new(UNLOCK_BYTES_MAX)?;
    let received = retry_on_intr(|| recv(&operator, message.as_mut_slice(), RecvFlags::TRUNC));
    let Ok((_, bytes)) = received else { return Ok(()) };
    let response = match message.as_slice().get(..bytes) {
        Some(sent) => holder.unlock(sent),
        None => Response::Refused(Refusal::NoSecretSent),
    };
    message.wipe();
    answer(&operator, &response)
}

fn answer(socket: &OwnedFd, response: &Response) -> Result<(), BoundaryError> {
    let bytes = Zeroizing::new(response.to_bytes());
    match retry_on_intr(|| send(socket, &bytes, SendFlags::NOSIGNAL)) {
        // The peer has closed: the next receive ends the loop.
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(errno) => Err(BoundaryError::Socket(errno)),
    }
}
