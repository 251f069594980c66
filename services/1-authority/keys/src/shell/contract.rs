//! The `Keys` contract.

use std::sync::Arc;

use base::{Hash, IdentityId, KeyPath, PublicKey, Signature, cbor};
use chain::payload::policy::{ActionKind, ResourceRef, ResourceType, SignedDecision};
use contracts::{
    convert::{ConvertError, bytes},
    keys::v1 as wire,
    policy::v1::PolicyDecision,
};
use tonic::{Request, Response, Status};

use super::run::Runner;
use crate::core::{KeyError, KeyInfo, SignRequest, verify};

/// Bytes of a message that `Verify` takes, as the contract says.
pub(super) const VERIFY_MESSAGE_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Handlers(pub(super) Arc<Runner>);

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

#[tonic::async_trait]
impl wire::keys_server::Keys for Handlers {
    async fn derive_public_key(
        &self,
        request: Request<wire::DerivePublicKeyRequest>,
    ) -> Result<Response<wire::PublicKey>, Status> {
        let key = self.0.public_key(path(&request.get_ref().path)?).await?;
        Ok(Response::new(wire::PublicKey { key: key.0.to_vec() }))
    }

    async fn sign(
        &self,
        request: Request<wire::SignRequest>,
    ) -> Result<Response<wire::SignResponse>, Status> {
        let requestor = kit::requestor(self.0.node(), &request, true)?;
        let wire::SignRequest { key_path, message, requestor: claimed, authorization } = request.into_inner();
        let key_path = path(&key_path)?;
        let message = Hash(bytes("message", &message).map_err(|error| misuse(&error))?);
        let claimed = IdentityId(bytes("requestor", &claimed).map_err(|error| misuse(&error))?);
        let resource = ResourceRef { resource_type: ResourceType::Key, id: key_path.to_string() };
        requestor.permit(ActionKind::Sign, &resource)?;
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
                    return Err(runner.refuse(requestor.id(), key_path, message, error).await.into());
                }
            };
            let request = SignRequest { key_path, message, requestor: requestor.id(), authorization };
            let signed = runner.sign(request).await?;
            Ok(Response::new(wire::SignResponse {
                signature: signed.signature.0.to_vec(),
                public_key: signed.public_key.0.to_vec(),
                receipt: Some(signed.receipt.into()),
            }))
        })
        .await
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

    async fn get_key_info(
        &self,
        request: Request<wire::GetKeyInfoRequest>,
    ) -> Result<Response<wire::KeyInfo>, Status> {
        let path = path(&request.get_ref().path)?;
        let reply = |signing_key, algorithms: &[&str], state: &str| wire::KeyInfo {
            path: path.to_string(),
            signing_key,
            algorithms: algorithms.iter().map(|name| (*name).to_owned()).collect(),
            state: state.to_owned(),
        };
        Ok(Response::new(match self.0.public_key(path.clone()).await {
            Ok(key) => {
                let info = KeyInfo::new(path.clone(), key);
                reply(info.public_key.0.to_vec(), &[info.signing, info.derivation], "unsealed")
            }
            Err(KeyError::Locked) => reply(Vec::new(), &[], "locked"),
            Err(error) => return Err(error.into()),
        }))
    }
}
