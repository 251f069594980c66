//! Credentials and challenges between messages and the core.

use base::{AxiomTime, CredentialId, Hash, KeyPath, Signature};
use chain::payload::identity::{CredentialBody, Permission};
use contracts::{
    convert::{ConvertError, bytes, from_name, to_name},
    identity::v1::{
        self as wire, add_credential_request::Kind as NewKind, auth_proof::Proof, credential::Kind,
    },
};
use tonic::Status;
use zeroize::Zeroizing;

use super::contract::{SECOND_NS, misuse};
use crate::core::{
    Assertion, AuthProof, Challenge, Credential, IdentityError, KEY_BYTES, NewCredential, PERMISSIONS_MAX,
    Registration, key_hash, key_text,
};

/// Any kind of action.
const ANY: &str = "*";

fn permission(one: wire::Permission) -> Result<Permission, ConvertError> {
    let action = (one.action != ANY).then(|| from_name("permissions.action", &one.action)).transpose()?;
    Ok(Permission { action, resource: one.resource })
}

/// What the core is to make, and the text of the key that is shown once.
pub(super) fn new_credential(
    kind: Option<NewKind>,
    channel: &str,
) -> Result<(NewCredential, Zeroizing<String>), Status> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let mut fresh = || {
        sandbox::random::fill(&mut *key)
            .map_err(|_| Status::unavailable("the kernel gives no random numbers"))?;
        Ok::<_, Status>((key_hash(&key), key_text(&key)))
    };
    Ok(match kind {
        Some(NewKind::Passkey(wire::CreatePasskey { client_data, attestation_object, challenge: asked })) => {
            let challenge = challenge(asked).map_err(|error| misuse(&error))?;
            let registration = Box::new(Registration { challenge, client_data, attestation_object });
            (NewCredential::Passkey { registration, channel: channel.to_owned() }, Zeroizing::default())
        }
        Some(NewKind::RecoveryKey(_)) => {
            let (key_hash, text) = fresh()?;
            (NewCredential::RecoveryKey { key_hash }, text)
        }
        Some(NewKind::ApiKey(wanted)) => {
            if wanted.permissions.len() > PERMISSIONS_MAX {
                return Err(IdentityError::Permissions.into());
            }
            let permissions = wanted.permissions.into_iter().map(permission).collect::<Result<_, _>>();
            let permissions = permissions.map_err(|error| misuse(&error))?;
            let life_ns = (wanted.lifetime_s != 0).then(|| wanted.lifetime_s.saturating_mul(SECOND_NS));
            let (key_hash, text) = fresh()?;
            (NewCredential::ApiKey { key_hash, permissions, life_ns }, text)
        }
        Some(NewKind::DerivedKey(wanted)) => {
            let path = (!wanted.key_path.is_empty()).then(|| KeyPath::parse(&wanted.key_path));
            let key_path = path.transpose().map_err(IdentityError::from)?;
            (NewCredential::DerivedKey { key_path }, Zeroizing::default())
        }
        None => return Err(misuse(&ConvertError::Missing("kind"))),
    })
}

pub(super) fn wire_credential(credential: &Credential) -> wire::Credential {
    let kind = match &credential.body {
        CredentialBody::Passkey { public_key, aaguid, sign_count, origin } => Kind::Passkey(wire::Passkey {
            public_key: public_key.clone(),
            aaguid: aaguid.to_vec(),
            sign_count: *sign_count,
            webauthn_id: origin.as_ref().map(|origin| origin.webauthn_id.clone()).unwrap_or_default(),
        }),
        CredentialBody::RecoveryKey { used, .. } => Kind::RecoveryKey(wire::RecoveryKey { used: *used }),
        CredentialBody::ApiKey { permissions, expires_at, .. } => {
            let of = |one: &Permission| wire::Permission {
                action: one.action.map_or_else(|| ANY.to_owned(), |kind| to_name(&kind)),
                resource: one.resource.clone(),
            };
            let permissions = permissions.iter().map(of).collect();
            Kind::ApiKey(wire::ApiKey { permissions, expires_at_ns: expires_at.map(|end| end.0) })
        }
        CredentialBody::DerivedKey { key_path, .. } => {
            Kind::DerivedKey(wire::DerivedKey { key_path: key_path.to_string() })
        }
    };
    wire::Credential {
        id: credential.id.0.to_vec(),
        name: credential.name.clone(),
        created_at: Some(credential.created_at.into()),
        kind: Some(kind),
    }
}

pub(super) fn wire_challenge(challenge: &Challenge) -> wire::Challenge {
    wire::Challenge {
        id: challenge.id.to_vec(),
        nonce: challenge.nonce.to_vec(),
        created_at_ns: challenge.created_at.0,
        expires_at_ns: challenge.expires_at.0,
        credential: challenge.credential.0.to_vec(),
        origin: challenge.origin.clone(),
    }
}

pub(super) fn challenge(wire: Option<wire::Challenge>) -> Result<Challenge, ConvertError> {
    let wire = wire.ok_or(ConvertError::Missing("challenge"))?;
    Ok(Challenge {
        id: bytes("challenge.id", &wire.id)?,
        nonce: bytes("challenge.nonce", &wire.nonce)?,
        created_at: AxiomTime(wire.created_at_ns),
        expires_at: AxiomTime(wire.expires_at_ns),
        credential: CredentialId(bytes("challenge.credential", &wire.credential)?),
        origin: wire.origin,
    })
}

pub(super) fn proof(wire: Option<wire::AuthProof>) -> Result<AuthProof, ConvertError> {
    Ok(match wire.and_then(|wire| wire.proof).ok_or(ConvertError::Missing("proof"))? {
        Proof::Signature(signature) => AuthProof::Signature(Signature(bytes("proof.signature", &signature)?)),
        Proof::Webauthn(wire::WebAuthnAssertion { client_data, authenticator_data, signature }) => {
            AuthProof::WebAuthnAssertion(Assertion { client_data, authenticator_data, signature })
        }
        Proof::ApiKeyHash(hash) => AuthProof::ApiKeyHash(Hash(bytes("proof.api_key_hash", &hash)?)),
    })
}
