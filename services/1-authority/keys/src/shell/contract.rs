//! The `Keys` contract.

use std::sync::Arc;

use base::{Hash, IdentityId, KeyPath, PublicKey, Signature, cbor};
use chain::payload::policy::{ActionKind, ResourceRef, ResourceType, SignedDecision};
use contracts::{
    common::v1::AxiomRef,
    convert::{ConvertError, bytes},
    keys::v1 as wire,
    policy::v1::PolicyDecision,
};
use kit::Requestor;
use tonic::{Request, Response, Status};

use super::{
    lock::{self, Change, Seed},
    rotate,
    run::Runner,
};
use crate::boundary::protocol::{UNLOCK_TRIES_MAX, UNLOCK_WINDOW};
use crate::core::{
    ALGORITHMS, BYTES_ALGORITHMS, CIPHERTEXT_BYTES_MAX, EPOCH_HEADER_BYTES, ES256_ALGORITHMS,
    EncryptionError, KeyError, OVERHEAD_BYTES, Operation, Output, PLAINTEXT_BYTES_MAX, Plain, PublicKeys,
    PurposeError, SIGNED_BYTES_MAX, UseRequest, VerifyingKey, verify,
};

/// Bytes of a message that `Verify` takes, as the contract says.
pub(super) const VERIFY_MESSAGE_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Handlers(pub(super) Arc<Runner>, pub(super) Seed);

fn misuse(error: &ConvertError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn path(text: &str) -> Result<KeyPath, KeyError> {
    Ok(KeyPath::parse(text)?)
}

fn decision(authorization: Option<PolicyDecision>) -> Result<SignedDecision, KeyError> {
    let invalid = |why: &str| KeyError::InvalidDecision(why.to_owned());
    let authorization = authorization.ok_or_else(|| invalid("there is none"))?;
    cbor::decode(&authorization.signed).map_err(|_| invalid("its signed form cannot be read"))
}

/// A use of a key as it was asked for.
struct Ask {
    requestor: Requestor,
    key_path: String,
    operation: Operation,
    claimed: Vec<u8>,
    authorization: Option<PolicyDecision>,
}

fn mismatch() -> Status {
    KeyError::CryptoFailure("another operation was carried out than was asked for".to_owned()).into()
}

impl Handlers {
    async fn signed(&self, ask: Ask) -> Result<Response<wire::SignResponse>, Status> {
        let (output, receipt) = self.use_key(ask).await?;
        let Output::Signed { signature, public_key } = output else { return Err(mismatch()) };
        Ok(Response::new(wire::SignResponse {
            signature: signature.0.to_vec(),
            public_key: public_key.as_bytes().to_vec(),
            receipt: Some(receipt),
        }))
    }

    async fn use_key(&self, ask: Ask) -> Result<(Output, AxiomRef), Status> {
        let Ask { requestor, key_path, operation, claimed, authorization } = ask;
        let key_path = path(&key_path)?;
        let claimed = IdentityId(bytes("requestor", &claimed).map_err(|error| misuse(&error))?);
        let resource = ResourceRef { resource_type: ResourceType::Key, id: key_path.to_string() };
        let kind = match operation {
            Operation::Sign { .. } | Operation::SignBytes { .. } => ActionKind::Sign,
            Operation::Encrypt { .. } => ActionKind::Encrypt,
            Operation::Decrypt { .. } => ActionKind::Decrypt,
        };
        requestor.permit(kind, &resource)?;
        let runner = Arc::clone(&self.0);
        // What is spent must be recorded, even if nobody waits for it any more.
        kit::uncancelled(async move {
            let checked = decision(authorization).and_then(|decision| match claimed == requestor.id() {
                true => Ok(decision),
                false => Err(KeyError::Unauthorized("the requestor is not the caller".to_owned())),
            });
            let authorization = match checked {
                Ok(authorization) => authorization,
                Err(error) => {
                    return Err(runner.refuse(requestor.id(), key_path, &operation, error).await.into());
                }
            };
            let request = UseRequest { key_path, operation, requestor: requestor.id(), authorization };
            let used = runner.use_key(request).await?;
            Ok((used.output, used.receipt.into()))
        })
        .await
    }
}

#[tonic::async_trait]
impl wire::keys_server::Keys for Handlers {
    async fn derive_public_key(
        &self,
        request: Request<wire::DerivePublicKeyRequest>,
    ) -> Result<Response<wire::PublicKey>, Status> {
        let wire::DerivePublicKeyRequest { path: text, epoch } = request.into_inner();
        let path = path(&text)?;
        let keys = self.0.public_keys(path.clone(), epoch).await?;
        let epoch = epoch.unwrap_or_else(|| self.0.epoch(&path));
        Ok(Response::new(wire::PublicKey { key: keys.signing.as_bytes().to_vec(), epoch }))
    }

    async fn sign(
        &self,
        request: Request<wire::SignRequest>,
    ) -> Result<Response<wire::SignResponse>, Status> {
        let requestor = kit::requestor(self.0.node(), &request, true)?;
        let wire::SignRequest { key_path, message, requestor: claimed, authorization } = request.into_inner();
        let message = Hash(bytes("message", &message).map_err(|error| misuse(&error))?);
        let ask = Ask { requestor, key_path, operation: Operation::Sign { message }, claimed, authorization };
        self.signed(ask).await
    }

    async fn sign_bytes(
        &self,
        request: Request<wire::SignBytesRequest>,
    ) -> Result<Response<wire::SignResponse>, Status> {
        let requestor = kit::requestor(self.0.node(), &request, true)?;
        let wire::SignBytesRequest { key_path, message, requestor: claimed, authorization } =
            request.into_inner();
        if message.len() > SIGNED_BYTES_MAX {
            return Err(Status::invalid_argument(PurposeError::TooLong(message.len()).to_string()));
        }
        let operation = Operation::SignBytes { message };
        self.signed(Ask { requestor, key_path, operation, claimed, authorization }).await
    }

    async fn encrypt(
        &self,
        request: Request<wire::EncryptRequest>,
    ) -> Result<Response<wire::EncryptResponse>, Status> {
        let requestor = kit::requestor(self.0.node(), &request, true)?;
        let wire::EncryptRequest { key_path, plaintext, requestor: claimed, authorization } =
            request.into_inner();
        if plaintext.len() > PLAINTEXT_BYTES_MAX {
            return Err(Status::invalid_argument(EncryptionError::TooLong(plaintext.len()).to_string()));
        }
        let operation = Operation::Encrypt { plain: Plain::new(plaintext) };
        let ask = Ask { requestor, key_path, operation, claimed, authorization };
        let (output, receipt) = self.use_key(ask).await?;
        let Output::Encrypted(ciphertext) = output else { return Err(mismatch()) };
        Ok(Response::new(wire::EncryptResponse { ciphertext, receipt: Some(receipt) }))
    }

    async fn decrypt(
        &self,
        request: Request<wire::DecryptRequest>,
    ) -> Result<Response<wire::DecryptResponse>, Status> {
        let requestor = kit::requestor(self.0.node(), &request, true)?;
        let wire::DecryptRequest { key_path, ciphertext, requestor: claimed, authorization } =
            request.into_inner();
        if !(OVERHEAD_BYTES..=CIPHERTEXT_BYTES_MAX + EPOCH_HEADER_BYTES).contains(&ciphertext.len()) {
            return Err(Status::invalid_argument(EncryptionError::Length(ciphertext.len()).to_string()));
        }
        let operation = Operation::Decrypt { sealed: ciphertext };
        let ask = Ask { requestor, key_path, operation, claimed, authorization };
        let (output, receipt) = self.use_key(ask).await?;
        let Output::Decrypted(plain) = output else { return Err(mismatch()) };
        Ok(Response::new(wire::DecryptResponse {
            plaintext: plain.as_bytes().to_vec(),
            receipt: Some(receipt),
        }))
    }

    async fn verify(
        &self,
        request: Request<wire::VerifyRequest>,
    ) -> Result<Response<wire::VerifyReply>, Status> {
        let wire::VerifyRequest { public_key, message, signature } = request.into_inner();
        if message.len() > VERIFY_MESSAGE_BYTES_MAX {
            let text =
                format!("`message` has at most {VERIFY_MESSAGE_BYTES_MAX} bytes, not {}", message.len());
            return Err(Status::invalid_argument(text));
        }
        let key = PublicKey(bytes("public_key", &public_key).map_err(|error| misuse(&error))?);
        let signature = Signature(bytes("signature", &signature).map_err(|error| misuse(&error))?);
        Ok(Response::new(wire::VerifyReply { valid: verify(&key, &message, &signature)? }))
    }

    async fn rotate(
        &self,
        request: Request<wire::RotateRequest>,
    ) -> Result<Response<wire::RotateReply>, Status> {
        let by = kit::requestor(self.0.node(), &request, true)?;
        let wire::RotateRequest { key_path, reason } = request.into_inner();
        let path = path(&key_path)?;
        let (entry, epoch) = rotate::rotate(Arc::clone(&self.0), by, path.clone(), reason).await?;
        let keys = self.0.public_keys(path, Some(epoch)).await?;
        Ok(Response::new(wire::RotateReply {
            receipt: Some(entry.into()),
            epoch,
            public_key: keys.signing.as_bytes().to_vec(),
        }))
    }

    async fn lock(&self, request: Request<wire::LockRequest>) -> Result<Response<wire::LockReply>, Status> {
        let by = kit::requestor(self.0.node(), &request, true)?;
        let reason = request.into_inner().reason;
        let entry = lock::change(Arc::clone(&self.0), self.1.clone(), by, Change::Lock, reason).await?;
        Ok(Response::new(wire::LockReply { receipt: Some(entry.into()) }))
    }

    async fn unlock(
        &self,
        request: Request<wire::UnlockRequest>,
    ) -> Result<Response<wire::UnlockReply>, Status> {
        let by = kit::requestor(self.0.node(), &request, true)?;
        let reason = request.into_inner().reason;
        let entry = lock::change(Arc::clone(&self.0), self.1.clone(), by, Change::Unlock, reason).await?;
        Ok(Response::new(wire::UnlockReply {
            receipt: Some(entry.into()),
            seconds: u32::try_from(UNLOCK_WINDOW.as_secs()).unwrap_or(u32::MAX),
            tries: UNLOCK_TRIES_MAX,
        }))
    }

    async fn get_key_info(
        &self,
        request: Request<wire::GetKeyInfoRequest>,
    ) -> Result<Response<wire::KeyInfo>, Status> {
        let wire::GetKeyInfoRequest { path: text, epoch } = request.into_inner();
        let path = path(&text)?;
        let shown = epoch.unwrap_or_else(|| self.0.epoch(&path));
        let reply = |keys: Option<PublicKeys>, algorithms: &[&str], state: &str| wire::KeyInfo {
            path: path.to_string(),
            signing_key: keys.map(|keys| keys.signing.as_bytes().to_vec()).unwrap_or_default(),
            encryption_key: keys.and_then(|keys| keys.exchange).map(|key| key.0.to_vec()).unwrap_or_default(),
            algorithms: algorithms.iter().map(|name| (*name).to_owned()).collect(),
            state: state.to_owned(),
            epoch: shown,
        };
        Ok(Response::new(match self.0.public_keys(path.clone(), epoch).await {
            Ok(keys) if matches!(keys.signing, VerifyingKey::P256(_)) => {
                reply(Some(keys), &ES256_ALGORITHMS, "unsealed")
            }
            Ok(keys) if keys.exchange.is_none() => reply(Some(keys), &BYTES_ALGORITHMS, "unsealed"),
            Ok(keys) => reply(Some(keys), &ALGORITHMS, "unsealed"),
            Err(KeyError::Locked) => reply(None, &[], "locked"),
            Err(error) => return Err(error.into()),
        }))
    }
}
