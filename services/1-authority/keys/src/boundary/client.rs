//! The other end of the boundary's socket, blocking: for first boot, tools and tests.

use base::{Hash, KeyPath, PublicKey, Signature, cbor::CborError};
use rustix::{
    fd::OwnedFd,
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags, recv, send},
};
use seal::Signer;
use thiserror::Error;

use super::protocol::{BoundaryState, MESSAGE_BYTES_MAX, Refusal, Request, Response, SecretKind};
use crate::core::VerifyingKey;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClientError {
    #[error("the boundary refused")]
    Refused(#[source] Refusal),
    #[error("the boundary is gone")]
    Gone,
    #[error("the boundary's socket failed: {0}")]
    Socket(Errno),
    #[error("the boundary answered with something else than was asked")]
    Answer,
    #[error("the boundary's answer is malformed")]
    Malformed(#[source] CborError),
}

fn place(signer: Signer) -> u8 {
    let place = Signer::ALL.into_iter().position(|known| known == signer);
    place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
}

/// One request at a time.
#[derive(Debug)]
pub struct BoundaryClient {
    socket: OwnedFd,
}

impl BoundaryClient {
    #[must_use]
    pub const fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends a request and waits for its answer; a refusal is an error.
    pub fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        let failed = |errno| match errno {
            Errno::PIPE | Errno::CONNRESET => ClientError::Gone,
            other => ClientError::Socket(other),
        };
        retry_on_intr(|| send(&self.socket, &request.to_bytes(), SendFlags::NOSIGNAL)).map_err(failed)?;
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let (_, bytes) =
            retry_on_intr(|| recv(&self.socket, &mut buffer[..], RecvFlags::TRUNC)).map_err(failed)?;
        if bytes == 0 {
            return Err(ClientError::Gone);
        }
        let answer = buffer.get(..bytes).ok_or(ClientError::Answer)?;
        match Response::from_bytes(answer).map_err(ClientError::Malformed)? {
            Response::Refused(refusal) => Err(ClientError::Refused(refusal)),
            response => Ok(response),
        }
    }

    /// First boot. The returned bytes are the only copy of the seed.
    pub fn create(&mut self, sealing: SecretKind) -> Result<Vec<u8>, ClientError> {
        match self.ask(&Request::Create { sealing })? {
            Response::Created { sealed } => Ok(sealed),
            _ => Err(ClientError::Answer),
        }
    }

    /// The seed, sealed by the boundary's next secret.
    pub fn seal(&mut self) -> Result<Vec<u8>, ClientError> {
        match self.ask(&Request::Seal)? {
            Response::Created { sealed } => Ok(sealed),
            _ => Err(ClientError::Answer),
        }
    }

    pub fn write_words(&mut self) -> Result<(), ClientError> {
        match self.ask(&Request::WriteWords)? {
            Response::WordsWritten => Ok(()),
            _ => Err(ClientError::Answer),
        }
    }

    pub fn read_words(&mut self) -> Result<(), ClientError> {
        match self.ask(&Request::ReadWords)? {
            Response::WordsRead => Ok(()),
            _ => Err(ClientError::Answer),
        }
    }

    /// A signing key that the next secret opens, under the seed, with its public half.
    pub fn copy(&mut self, signer: Signer, sealed: &[u8]) -> Result<(Vec<u8>, PublicKey), ClientError> {
        self.reseal(&Request::Copy { signer: place(signer), sealed: sealed.to_vec() })
    }

    /// A copy under the seed, sealed by the next secret.
    pub fn restore(&mut self, signer: Signer, copy: &[u8]) -> Result<(Vec<u8>, PublicKey), ClientError> {
        self.reseal(&Request::Restore { signer: place(signer), sealed: copy.to_vec() })
    }

    fn reseal(&mut self, request: &Request) -> Result<(Vec<u8>, PublicKey), ClientError> {
        match self.ask(request)? {
            Response::Resealed { sealed, public_key } => Ok((sealed, public_key)),
            _ => Err(ClientError::Answer),
        }
    }

    /// Why the seed is not open; none if it is.
    pub fn locked(&mut self) -> Result<Option<String>, ClientError> {
        match self.ask(&Request::Status)? {
            Response::Status { state: BoundaryState::Ready, .. } => Ok(None),
            Response::Status { state: BoundaryState::Locked { why }, .. } => Ok(Some(why)),
            Response::Status { state: BoundaryState::Empty, .. } => Ok(Some("there is no seed".to_owned())),
            _ => Err(ClientError::Answer),
        }
    }

    pub fn unseal(&mut self, sealed: &[u8]) -> Result<(), ClientError> {
        match self.ask(&Request::Unseal { sealed: sealed.to_vec() })? {
            Response::Unsealed => Ok(()),
            _ => Err(ClientError::Answer),
        }
    }

    /// Of a path whose key is Ed25519.
    pub fn public_key(&mut self, path: &KeyPath) -> Result<PublicKey, ClientError> {
        match self.ask(&Request::PublicKey { path: path.clone(), epoch: 0 })? {
            Response::PublicKey { public_key: VerifyingKey::Ed25519(key), .. } => Ok(key),
            _ => Err(ClientError::Answer),
        }
    }

    pub fn sign_bytes(
        &mut self,
        path: &KeyPath,
        message: &[u8],
    ) -> Result<(Signature, VerifyingKey), ClientError> {
        match self.ask(&Request::SignBytes { path: path.clone(), message: message.to_vec(), epoch: 0 })? {
            Response::Signed { signature, public_key } => Ok((signature, public_key)),
            _ => Err(ClientError::Answer),
        }
    }

    pub fn sign(&mut self, path: &KeyPath, message: Hash) -> Result<(Signature, PublicKey), ClientError> {
        match self.ask(&Request::Sign { path: path.clone(), message, epoch: 0 })? {
            Response::Signed { signature, public_key: VerifyingKey::Ed25519(key) } => Ok((signature, key)),
            _ => Err(ClientError::Answer),
        }
    }
}
