//! Principals, credentials and the use of keys (seed 003 §3.2, §3.3).

use base::{AxiomRef, AxiomTime, CredentialId, Hash, IdentityId, KeyPath, PublicKey, TokenId};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::policy::ActionKind;

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cbor(index_only)]
pub enum IdentityType {
    #[n(0)]
    System,
    #[n(1)]
    Organization,
    #[n(2)]
    User,
    #[n(3)]
    Service,
    #[n(4)]
    Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
pub enum IdentityStatus {
    #[n(0)]
    Active,
    #[n(1)]
    Suspended,
    #[n(2)]
    Revoked,
}

impl IdentityStatus {
    /// Legal changes (IDN-38); `Revoked` is final.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Active, Self::Suspended | Self::Revoked) | (Self::Suspended, Self::Active | Self::Revoked)
        )
    }
}

/// A principal (IDN-11). `id` is the hash of `public_key`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct Identity {
    #[n(0)]
    pub id: IdentityId,
    /// Fully qualified: `admin`, `orbital.services.axiom`, `alice@example.org`.
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub identity_type: IdentityType,
    #[n(3)]
    pub parent: Option<IdentityId>,
    #[n(4)]
    pub public_key: PublicKey,
    #[n(5)]
    pub key_path: KeyPath,
    #[n(6)]
    pub created_at: AxiomRef,
    #[n(7)]
    pub status: IdentityStatus,
    #[n(8)]
    pub credentials: Vec<CredentialRef>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct CredentialRef {
    #[n(0)]
    pub id: CredentialId,
    #[n(1)]
    pub kind: CredentialKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    #[n(0)]
    Passkey,
    #[n(1)]
    RecoveryKey,
    #[n(2)]
    ApiKey,
    #[n(3)]
    DerivedKey,
}

/// AX-35.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct IdentityCreated {
    #[n(0)]
    pub identity_id: IdentityId,
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub identity_type: IdentityType,
    #[n(3)]
    pub parent: Option<IdentityId>,
    #[n(4)]
    pub public_key: PublicKey,
    #[n(5)]
    pub key_path: KeyPath,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct IdentityUpdated {
    #[n(0)]
    pub identity: IdentityId,
    #[n(1)]
    pub change: IdentityChange,
}

/// What happened to an identity (IDN-49).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityChange {
    #[n(0)]
    Status {
        #[n(0)]
        old: IdentityStatus,
        #[n(1)]
        new: IdentityStatus,
        #[n(2)]
        by: IdentityId,
        #[n(3)]
        reason: String,
    },
    /// A token was issued; it is bound to the channel named.
    #[n(1)]
    TokenIssued {
        #[n(0)]
        token: TokenId,
        #[n(1)]
        channel: String,
        #[n(2)]
        expires_at: AxiomTime,
    },
    #[n(2)]
    AuthenticationFailed {
        #[n(0)]
        channel: String,
        #[n(1)]
        reason: String,
        /// With which credential; none where a request's signature was refused.
        #[n(2)]
        credential: Option<CredentialId>,
    },
    #[n(3)]
    TokenRevoked {
        #[n(0)]
        token: TokenId,
        #[n(1)]
        by: IdentityId,
    },
    /// A credential proved itself and a token was issued for it. A recovery key is used up by this entry.
    #[n(4)]
    Authenticated {
        #[n(0)]
        credential: CredentialId,
        #[n(1)]
        token: TokenId,
        #[n(2)]
        channel: String,
        #[n(3)]
        expires_at: AxiomTime,
        /// What a passkey's counter stands at since; none for other kinds.
        #[n(4)]
        sign_count: Option<u32>,
    },
    /// A service was given an SVID. The use of the authority's key that follows names the same message.
    #[n(5)]
    SvidIssued {
        #[n(0)]
        svid: Svid,
        /// Of what is signed.
        #[n(1)]
        message_hash: Hash,
        #[n(2)]
        expires_at: AxiomTime,
    },
}

/// What of an SVID says which one it was, to whoever meets it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Svid {
    #[n(0)]
    X509 {
        #[cbor(n(0), with = "minicbor::bytes")]
        serial: [u8; 16],
    },
    #[n(1)]
    Jwt {
        #[n(0)]
        audience: Vec<String>,
    },
}

/// What a credential permits at most: one kind of action, or any, on resources that match a pattern over `type:id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct Permission {
    /// None permits every kind.
    #[n(0)]
    pub action: Option<ActionKind>,
    #[n(1)]
    pub resource: String,
}

/// What a credential consists of (IDN-17 to IDN-20). Of keys that somebody holds there are only hashes (IDN-21).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialBody {
    #[n(0)]
    Passkey {
        /// COSE key, as the authenticator gave it.
        #[cbor(n(0), with = "minicbor::bytes")]
        public_key: Vec<u8>,
        #[cbor(n(1), with = "minicbor::bytes")]
        aaguid: [u8; 16],
        #[n(2)]
        sign_count: u32,
        /// What an assertion is checked against; none only in entries that no passkey can log in with.
        #[n(3)]
        origin: Option<PasskeyOrigin>,
    },
    #[n(1)]
    RecoveryKey {
        #[n(0)]
        key_hash: Hash,
        /// False when it is added.
        #[n(1)]
        used: bool,
    },
    #[n(2)]
    ApiKey {
        #[n(0)]
        key_hash: Hash,
        #[n(1)]
        permissions: Vec<Permission>,
        /// In Axiom time; none is for ever.
        #[n(2)]
        expires_at: Option<AxiomTime>,
    },
    #[n(3)]
    DerivedKey {
        #[n(0)]
        key_path: KeyPath,
        /// The key of that path, so that whoever verifies needs to ask nobody.
        #[n(1)]
        public_key: PublicKey,
    },
}

/// Where a passkey came from, as its registration said it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct PasskeyOrigin {
    /// The authenticator's id for it, at most 1 023 bytes: a browser needs it to ask for this passkey.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub webauthn_id: Vec<u8>,
    /// Whether it may be copied between devices; an assertion that says otherwise is refused.
    #[n(1)]
    pub backup_eligible: bool,
}

impl CredentialBody {
    #[must_use]
    pub const fn kind(&self) -> CredentialKind {
        match self {
            Self::Passkey { .. } => CredentialKind::Passkey,
            Self::RecoveryKey { .. } => CredentialKind::RecoveryKey,
            Self::ApiKey { .. } => CredentialKind::ApiKey,
            Self::DerivedKey { .. } => CredentialKind::DerivedKey,
        }
    }
}

/// IDN-49. `created_at` of the credential is this entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct CredentialAdded {
    #[n(0)]
    pub identity: IdentityId,
    #[n(1)]
    pub credential: CredentialId,
    /// For people; may be empty.
    #[n(2)]
    pub name: String,
    #[n(3)]
    pub body: CredentialBody,
    #[n(4)]
    pub by: IdentityId,
}

/// Final: the id is never used again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct CredentialRevoked {
    #[n(0)]
    pub identity: IdentityId,
    #[n(1)]
    pub credential: CredentialId,
    #[n(2)]
    pub by: IdentityId,
    #[n(3)]
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
pub enum KeyOperation {
    #[n(0)]
    Sign,
    #[n(1)]
    Encrypt,
    #[n(2)]
    Decrypt,
    #[n(3)]
    DeriveChild,
    /// Of the seed, and so of all keys: `key_path` is that of the service `keys`.
    #[n(4)]
    Lock,
    #[n(5)]
    Unlock,
    /// To the next epoch of `key_path`.
    #[n(6)]
    Rotate,
}

/// KEY-36: from which key to which. The path stays and its epoch counts up.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct KeyRotation {
    #[n(0)]
    pub old_path: KeyPath,
    #[n(1)]
    pub old_epoch: u32,
    #[n(2)]
    pub new_path: KeyPath,
    #[n(3)]
    pub new_epoch: u32,
    #[n(4)]
    pub rotated_by: IdentityId,
    #[n(5)]
    pub reason: String,
}

/// A use of a key, or a refused one: hashes only (AX-36, KEY-35). What is done to keys is one, too.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct KeyUsage {
    #[n(0)]
    pub identity: IdentityId,
    #[n(1)]
    pub key_path: KeyPath,
    #[n(2)]
    pub operation: KeyOperation,
    #[n(3)]
    pub message_hash: Option<Hash>,
    #[n(4)]
    pub authorization: AxiomRef,
    /// Hash of the signature or ciphertext; none when refused.
    #[n(5)]
    pub output_hash: Option<Hash>,
    /// Why it was refused.
    #[n(6)]
    pub refused: Option<String>,
    /// Why somebody did this to keys; none for their use.
    #[n(7)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of the key that was used; none is epoch 0.
    #[n(8)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    #[n(9)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<KeyRotation>,
}

#[cfg(test)]
mod tests {
    use super::IdentityStatus::{Active, Revoked, Suspended};

    #[test]
    fn a_status_changes_along_the_legal_ways_only() {
        for (old, new, legal) in [
            (Active, Active, false),
            (Active, Suspended, true),
            (Active, Revoked, true),
            (Suspended, Active, true),
            (Suspended, Suspended, false),
            (Suspended, Revoked, true),
            (Revoked, Active, false),
            (Revoked, Suspended, false),
            (Revoked, Revoked, false),
        ] {
            assert_eq!(old.may_become(new), legal, "{old:?} {new:?}");
        }
    }
}
