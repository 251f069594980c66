//! A session whose key only this process and the TPM know: it proves who answers, and hides the first parameter.

use p256::{ecdh::EphemeralSecret, elliptic_curve::Generate};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    TpmError, Transport,
    command::{self, Code, Command, Handle},
    kdf::{self, DIGEST_BYTES, Point, Secret},
    wire::{Reader, Writer},
};

/// Of our nonces and of the TPM's.
const NONCE_BYTES: usize = DIGEST_BYTES;
/// `TPM_SE_HMAC`.
const HMAC_SESSION: u8 = 0;

pub(crate) struct Session {
    handle: Handle,
    key: Secret,
    /// The TPM's, from its last answer.
    theirs: Vec<u8>,
    /// What is encrypted: the first parameter of the command, or of the answer.
    attribute: u8,
}

impl Session {
    pub(crate) fn start(
        transport: &mut impl Transport,
        storage: Handle,
        point: &Point,
        attribute: u8,
    ) -> Result<Self, TpmError> {
        let form = || TpmError::Form { command: Code::StartAuthSession.name() };
        let own = EphemeralSecret::try_generate().map_err(TpmError::Random)?;
        let (salt, x, y) = kdf::salt(point, own).ok_or_else(form)?;
        let mut sent = Writer::new();
        sent.sized(&x);
        sent.sized(&y);
        let ours = nonce()?;
        let answer = Command::new(Code::StartAuthSession)
            .handle(storage)
            .handle(Handle::NULL)
            .sized(&ours)
            .sized(&sent.into_bytes())
            .u8(HMAC_SESSION)
            .u16(command::AES)
            .u16(128)
            .u16(command::CFB)
            .u16(command::SHA256)
            .send(transport)?;
        let handle = Handle(Reader::new(&answer.handles).u32().ok_or_else(form)?);
        let theirs = Reader::new(&answer.parameters).sized(NONCE_BYTES).ok_or_else(form)?.to_vec();
        let key = kdf::derive(&*salt, "ATH", &theirs, &ours);
        Ok(Self { handle, key, theirs, attribute })
    }

    pub(crate) const fn handle(&self) -> Handle {
        self.handle
    }

    /// Sends `command`, which acts on `object`, and gives the parameters of its answer. The TPM ends the session when
    /// the command succeeds.
    pub(crate) fn run(
        self,
        transport: &mut impl Transport,
        command: Command,
        object: Handle,
        name: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let code = command.code;
        let form = || TpmError::Form { command: code.name() };
        let ours = nonce()?;
        let mut parameters = Zeroizing::new(command.parameters().to_vec());
        if self.attribute == command::DECRYPT {
            let secret = kdf::derive(&*self.key, "CFB", &ours, &self.theirs);
            kdf::cipher(&secret, first_parameter(&mut parameters).ok_or_else(form)?, false);
        }
        let asked = Sha256::new()
            .chain_update(code.number().to_be_bytes())
            .chain_update(name)
            .chain_update(&*parameters)
            .finalize();
        let proof = kdf::mac(&*self.key, &[&asked, &ours, &self.theirs, &[self.attribute]]);
        let mut authority = Writer::new();
        authority.u32(self.handle.0);
        authority.sized(&ours);
        authority.u8(self.attribute);
        authority.sized(&*proof);
        let answer = command
            .with_parameters(&parameters)
            .handle(object)
            .authority(authority.as_slice())
            .send(transport)?;
        let mut given = Zeroizing::new(answer.parameters);
        let authorities = answer.authorities.ok_or_else(form)?;
        let mut rest = Reader::new(&authorities);
        let theirs = rest.sized(NONCE_BYTES).ok_or_else(form)?;
        let attributes = rest.u8().ok_or_else(form)?;
        let shown = rest.sized(DIGEST_BYTES).ok_or_else(form)?;
        let told = Sha256::new()
            .chain_update(0_u32.to_be_bytes())
            .chain_update(code.number().to_be_bytes())
            .chain_update(&*given)
            .finalize();
        let proof = kdf::mac(&*self.key, &[&told, theirs, &ours, &[attributes]]);
        if !bool::from(proof.ct_eq(shown)) {
            return Err(TpmError::Forged { command: code.name() });
        }
        if self.attribute == command::ENCRYPT {
            let secret = kdf::derive(&*self.key, "CFB", theirs, &ours);
            kdf::cipher(&secret, first_parameter(&mut given).ok_or_else(form)?, true);
        }
        Ok(given)
    }
}

/// The bytes of the first parameter, behind its size.
fn first_parameter(parameters: &mut [u8]) -> Option<&mut [u8]> {
    let size = usize::from(Reader::new(parameters).u16()?);
    parameters.get_mut(2..size.checked_add(2)?)
}

fn nonce() -> Result<[u8; NONCE_BYTES], TpmError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(TpmError::Random)?;
    Ok(nonce)
}
