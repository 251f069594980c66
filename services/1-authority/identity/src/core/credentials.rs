//! What credentials exist, as the log tells it, and what proves that somebody has one. Pure.

use std::collections::{BTreeMap, BTreeSet};

use base::{AxiomRef, AxiomTime, CredentialId, Hash, IdentityId, Signature};
use chain::payload::identity::{CredentialAdded, CredentialBody, CredentialRef};
use ed25519_dalek::VerifyingKey;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::{Challenge, IdentityError, passkeys};

/// Credentials of one identity that are not revoked.
pub const CREDENTIALS_PER_IDENTITY_MAX: usize = 32;
/// Credentials of one node, revoked ones included: their ids stay refused.
pub const CREDENTIALS_MAX: usize = 100_000;
/// Permissions of one API key.
pub const PERMISSIONS_MAX: usize = 32;
/// Bytes of a recovery key or an API key.
pub const KEY_BYTES: usize = 32;
/// What the text of a key begins with, so that a scanner for leaked secrets knows it.
pub const KEY_PREFIX: &str = "bwk_";

const KEY_LABEL: &[u8] = b"bailiwick credential key v1\0";
const CHALLENGE_LABEL: &[u8] = b"bailiwick challenge v1\0";

/// As the registry has it (IDN-17 to IDN-20).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Credential {
    #[n(0)]
    pub id: CredentialId,
    #[n(1)]
    pub identity: IdentityId,
    #[n(2)]
    pub name: String,
    #[n(3)]
    pub body: CredentialBody,
    #[n(4)]
    pub created_at: AxiomRef,
    #[n(5)]
    pub revoked: bool,
}

impl Credential {
    pub(super) fn of(added: &CredentialAdded, created_at: AxiomRef) -> Self {
        Self {
            id: added.credential,
            identity: added.identity,
            name: added.name.clone(),
            body: added.body.clone(),
            created_at,
            revoked: false,
        }
    }

    /// Whether it may authenticate now (IDN-07, IDN-22, IDN-23).
    pub fn usable(&self, now: AxiomTime) -> Result<(), IdentityError> {
        match &self.body {
            _ if self.revoked => Err(IdentityError::CredentialNotFound(self.id)),
            CredentialBody::ApiKey { expires_at: Some(end), .. } if now >= *end => {
                Err(IdentityError::CredentialExpired)
            }
            CredentialBody::RecoveryKey { used: true, .. } => Err(IdentityError::RecoveryKeyUsed),
            _ => Ok(()),
        }
    }
}

/// The fold of types 90 and 91, and of recovery keys that were used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Credentials {
    #[n(0)]
    by_id: BTreeMap<CredentialId, Credential>,
    #[n(1)]
    of_identity: BTreeMap<IdentityId, BTreeSet<CredentialId>>,
    #[n(2)]
    webauthn_ids: BTreeSet<Vec<u8>>,
}

impl Credentials {
    pub(super) fn add(&mut self, at: AxiomRef, added: &CredentialAdded) -> bool {
        if self.by_id.contains_key(&added.credential) {
            return false;
        }
        if let CredentialBody::Passkey { origin: Some(origin), .. } = &added.body {
            self.webauthn_ids.insert(origin.webauthn_id.clone());
        }
        self.by_id.insert(added.credential, Credential::of(added, at));
        self.of_identity.entry(added.identity).or_default().insert(added.credential)
    }

    pub(super) fn revoke(&mut self, identity: &IdentityId, id: &CredentialId) -> bool {
        let Some(credential) = self.by_id.get_mut(id) else { return false };
        if credential.revoked || credential.identity != *identity {
            return false;
        }
        credential.revoked = true;
        self.of_identity.get_mut(identity).is_some_and(|all| all.remove(id))
    }

    /// A recovery key is used up, a passkey's counter goes on; the others stay as they are.
    pub(super) fn used(&mut self, identity: &IdentityId, id: &CredentialId, counter: Option<u32>) -> bool {
        let Some(credential) = self.by_id.get_mut(id).filter(|all| all.identity == *identity) else {
            return false;
        };
        match &mut credential.body {
            CredentialBody::RecoveryKey { used, .. } => !std::mem::replace(used, true),
            CredentialBody::Passkey { sign_count, .. } => counter.is_some_and(|counter| {
                let fits = passkeys::advances(*sign_count, counter);
                *sign_count = counter.max(*sign_count);
                fits
            }),
            _ => true,
        }
    }

    /// Revoked ones too.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// One that is not revoked.
    pub fn get(&self, id: &CredentialId) -> Result<&Credential, IdentityError> {
        let found = self.by_id.get(id).filter(|credential| !credential.revoked);
        found.ok_or(IdentityError::CredentialNotFound(*id))
    }

    /// Whether the id was ever given.
    pub(super) fn knows(&self, id: &CredentialId) -> bool {
        self.by_id.contains_key(id)
    }

    /// Without the revoked ones, in order of id.
    pub fn of(&self, identity: &IdentityId) -> impl Iterator<Item = &Credential> {
        self.of_identity.get(identity).into_iter().flatten().filter_map(|id| self.by_id.get(id))
    }

    /// Whether a passkey with the authenticator's id was ever added, for whomever.
    pub(super) fn knows_passkey(&self, webauthn_id: &[u8]) -> bool {
        self.webauthn_ids.contains(webauthn_id)
    }

    pub(super) fn refs(&self, identity: &IdentityId) -> Vec<CredentialRef> {
        self.of(identity).map(|all| CredentialRef { id: all.id, kind: all.body.kind() }).collect()
    }
}

/// The seed's `AuthProof` (IDN-25).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthProof {
    Signature(Signature),
    WebAuthnAssertion(Assertion),
    ApiKeyHash(Hash),
}

/// What an authenticator answers a challenge with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assertion {
    pub client_data: Vec<u8>,
    pub authenticator_data: Vec<u8>,
    pub signature: Vec<u8>,
}

/// What the log keeps of a key.
#[must_use]
pub fn key_hash(key: &[u8; KEY_BYTES]) -> Hash {
    Hash::of_parts(&[KEY_LABEL, key])
}

/// What a challenge is answered by: a derived key signs it, the other keys are proved over it.
#[must_use]
pub fn challenge_hash(challenge: &Challenge) -> Hash {
    Hash::of_parts(&[CHALLENGE_LABEL, &challenge.id, &challenge.nonce, &challenge.credential.0])
}

fn mask(key_hash: &Hash, challenge: &Challenge) -> Zeroizing<[u8; KEY_BYTES]> {
    Zeroizing::new(*blake3::keyed_hash(&key_hash.0, &challenge_hash(challenge).0).as_bytes())
}

fn xor(one: &[u8; KEY_BYTES], other: &[u8; KEY_BYTES]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut out = Zeroizing::new([0; KEY_BYTES]);
    out.iter_mut().zip(one.iter().zip(other)).for_each(|(out, (one, other))| *out = one ^ other);
    out
}

/// The proof of an API or recovery key: the key under a mask that is BLAKE3, keyed with the key's hash, over the challenge.
/// The hash alone, which every reader of the log has, makes no proof; and a proof says nothing for another challenge.
#[must_use]
pub fn key_proof(key: &[u8; KEY_BYTES], challenge: &Challenge) -> Hash {
    Hash(*xor(key, &mask(&key_hash(key), challenge)))
}

/// Compared by BLAKE3's own equality, which takes the same time whatever differs.
fn proves_key(stored: &Hash, proof: &Hash, challenge: &Challenge) -> bool {
    let key = xor(&proof.0, &mask(stored, challenge));
    blake3::Hash::from_bytes(key_hash(&key).0) == blake3::Hash::from_bytes(stored.0)
}

/// Whether the proof fits credential and challenge (IDN-26, IDN-27); where a passkey's counter then stands.
pub(super) fn verify(
    body: &CredentialBody,
    proof: &AuthProof,
    challenge: &Challenge,
) -> Result<Option<u32>, IdentityError> {
    let proven = match (body, proof) {
        (CredentialBody::Passkey { .. }, AuthProof::WebAuthnAssertion(assertion)) => {
            return passkeys::check_assertion(body, challenge, assertion).map(Some);
        }
        (
            CredentialBody::ApiKey { key_hash, .. } | CredentialBody::RecoveryKey { key_hash, .. },
            AuthProof::ApiKeyHash(proof),
        ) => proves_key(key_hash, proof, challenge),
        (CredentialBody::DerivedKey { public_key, .. }, AuthProof::Signature(signature)) => {
            let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
            VerifyingKey::from_bytes(&public_key.0)
                .is_ok_and(|key| key.verify_strict(&challenge_hash(challenge).0, &signature).is_ok())
        }
        _ => false,
    };
    if proven { Ok(None) } else { Err(IdentityError::ProofRefused) }
}

/// The text in which a key is shown, once.
#[must_use]
pub fn key_text(key: &[u8; KEY_BYTES]) -> Zeroizing<String> {
    Zeroizing::new(format!("{KEY_PREFIX}{}", *Zeroizing::new(Hash(*key).to_hex())))
}

/// The key of such a text, with or without a newline at its end.
#[must_use]
pub fn parse_key(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let hex = text.trim().strip_prefix(KEY_PREFIX)?;
    let full = Zeroizing::new(format!("blake3:{hex}"));
    full.parse::<Hash>().ok().map(|hash| Zeroizing::new(hash.0))
}
