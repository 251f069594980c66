//! The signed receipt (ACT-21 to ACT-27, ACT-35): what was done, bound to the entry that allowed it.

use base::{
    AxiomRef, AxiomTime, Hash, IdentityId, JobId, PublicKey, Signature,
    cbor::{self, CborError},
};
use ed25519_dalek::VerifyingKey;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    environment::{EnvironmentType, environment_id},
    limits::{INPUTS_MAX, OUTPUTS_MAX, RECEIPT_BYTES_MAX, VERIFIERS_MAX},
};

/// The one version of the bytes.
pub const RECEIPT_VERSION: u32 = 1;
/// What the hash of a receipt begins with, so that it is no hash of anything else.
const DOMAIN: &[u8] = b"bailiwick receipt v1\0";

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct Receipt {
    #[n(0)]
    pub header: ReceiptHeader,
    #[n(1)]
    pub body: ReceiptBody,
    #[n(2)]
    pub signature: ReceiptSignature,
}

/// ACT-22.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ReceiptHeader {
    #[n(0)]
    pub version: u32,
    #[n(1)]
    pub receipt_type: ReceiptType,
    #[n(2)]
    pub created_at: AxiomTime,
    /// Whose key signs: its id is the hash of that key.
    #[n(3)]
    pub issuer: IdentityId,
    #[n(4)]
    pub receipt_hash: Hash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptType {
    #[n(0)]
    JobCompletion,
    #[n(1)]
    EffectMaterialization,
    #[n(2)]
    VerificationResult,
    #[n(3)]
    Aggregate,
}

/// ACT-23.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ReceiptBody {
    /// The entry that allowed it: `JobSubmit`.
    #[n(0)]
    pub axiom_entry: AxiomRef,
    #[n(1)]
    pub action_id: JobId,
    #[n(2)]
    pub inputs: Vec<Binding>,
    #[n(3)]
    pub outputs: Vec<Binding>,
    #[n(4)]
    pub environment: EnvironmentBinding,
    #[n(5)]
    pub metrics: Metrics,
    #[n(6)]
    pub status: ReceiptStatus,
    #[n(7)]
    pub proof: Option<Proof>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct Binding {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub hash: Hash,
    /// Bytes.
    #[n(2)]
    pub size: u64,
}

/// ACT-24. The configuration is the manifest, whole.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct EnvironmentBinding {
    #[n(0)]
    pub image_hash: Hash,
    #[n(1)]
    pub version: String,
    #[n(2)]
    pub config_hash: Hash,
}

impl EnvironmentBinding {
    /// The identity of the environment, as the log names it (ACT-32).
    #[must_use]
    pub fn id(&self, kind: EnvironmentType) -> Hash {
        environment_id(kind, &self.image_hash, &self.version, self.config_hash.as_bytes())
    }
}

/// Of the first run; no two runs have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct Metrics {
    #[n(0)]
    pub duration_ns: u64,
    #[n(1)]
    pub cpu_time_ns: u64,
    #[n(2)]
    pub peak_memory_bytes: u64,
    /// Bytes read from and written to disks.
    #[n(3)]
    pub io_bytes: u64,
}

/// ACT-25.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptStatus {
    #[n(0)]
    Success,
    #[n(1)]
    Failed {
        #[n(0)]
        exit_code: i32,
    },
    #[n(2)]
    Timeout,
    #[n(3)]
    Cancelled,
}

/// ACT-35; of the kinds that are named there, the one that needs no special machine.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Others ran it too and signed the receipt's hash. A signature stands at its verifier's place.
    #[n(0)]
    MultiParty {
        #[n(0)]
        verifiers: Vec<PublicKey>,
        #[n(1)]
        signatures: Vec<Option<Signature>>,
        /// So many of them must have signed.
        #[n(2)]
        threshold: u32,
    },
}

/// Ed25519 over the 32 bytes of the receipt's hash.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ReceiptSignature {
    #[n(0)]
    pub public_key: PublicKey,
    #[n(1)]
    pub signature: Signature,
}

/// Why a receipt is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReceiptFault {
    #[error("a receipt has at most {RECEIPT_BYTES_MAX} bytes, not {0}")]
    TooLarge(usize),
    #[error("this is no receipt: {0}")]
    Malformed(#[from] CborError),
    #[error("version {0} needs another reader, this one knows {RECEIPT_VERSION}")]
    Version(u32),
    #[error("it has {0} bindings, at most {INPUTS_MAX} inputs and {OUTPUTS_MAX} outputs are allowed")]
    Bindings(usize),
    #[error("its hash is {found}, it says {said}: something in it was changed")]
    Hash { said: Hash, found: Hash },
    #[error("its key is not that of its issuer {issuer}")]
    Issuer { issuer: IdentityId },
    #[error("its signature does not hold")]
    Signature,
    #[error("its proof does not hold: {0}")]
    Proof(&'static str),
}

/// What the hash covers: neither times nor metrics, nor proofs that are added later.
#[derive(Encode)]
#[cbor(array)]
struct Covered<'r> {
    #[n(0)]
    version: u32,
    #[n(1)]
    receipt_type: ReceiptType,
    #[n(2)]
    axiom_entry: AxiomRef,
    #[n(3)]
    action_id: JobId,
    #[n(4)]
    inputs: &'r [Binding],
    #[n(5)]
    outputs: &'r [Binding],
    #[n(6)]
    environment: &'r EnvironmentBinding,
    #[n(7)]
    status: &'r ReceiptStatus,
}

impl ReceiptBody {
    /// ACT-26: the hash of what the signature covers.
    #[must_use]
    pub fn receipt_hash(&self, receipt_type: ReceiptType) -> Hash {
        Hash::of(&self.covered_bytes(receipt_type))
    }

    /// The bytes under the hash.
    #[must_use]
    pub fn covered_bytes(&self, receipt_type: ReceiptType) -> Vec<u8> {
        let covered = Covered {
            version: RECEIPT_VERSION,
            receipt_type,
            axiom_entry: self.axiom_entry,
            action_id: self.action_id,
            inputs: &self.inputs,
            outputs: &self.outputs,
            environment: &self.environment,
            status: &self.status,
        };
        [DOMAIN, &cbor::encode(&covered)].concat()
    }
}

impl Receipt {
    /// Reads the bytes of a receipt; whether it holds is another question.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReceiptFault> {
        if bytes.len() > RECEIPT_BYTES_MAX {
            return Err(ReceiptFault::TooLarge(bytes.len()));
        }
        let receipt: Self = cbor::decode(bytes)?;
        if receipt.header.version != RECEIPT_VERSION {
            return Err(ReceiptFault::Version(receipt.header.version));
        }
        let (inputs, outputs) = (receipt.body.inputs.len(), receipt.body.outputs.len());
        if inputs > INPUTS_MAX || outputs > OUTPUTS_MAX {
            return Err(ReceiptFault::Bindings(inputs.max(outputs)));
        }
        Ok(receipt)
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Whether it is what its issuer signed, with nothing but its own bytes. Who the issuer is, the caller knows.
    pub fn check(&self) -> Result<(), ReceiptFault> {
        let found = self.body.receipt_hash(self.header.receipt_type);
        let said = self.header.receipt_hash;
        if found != said {
            return Err(ReceiptFault::Hash { said, found });
        }
        let ReceiptSignature { public_key, signature } = &self.signature;
        if IdentityId::of_key(public_key) != self.header.issuer {
            return Err(ReceiptFault::Issuer { issuer: self.header.issuer });
        }
        if !holds(public_key, &said, signature) {
            return Err(ReceiptFault::Signature);
        }
        self.body.proof.as_ref().map_or(Ok(()), |proof| proof.check(&said))
    }
}

impl Proof {
    fn check(&self, receipt: &Hash) -> Result<(), ReceiptFault> {
        let Self::MultiParty { verifiers, signatures, threshold } = self;
        if verifiers.len() > VERIFIERS_MAX || verifiers.len() != signatures.len() {
            return Err(ReceiptFault::Proof("verifiers and signatures do not pair"));
        }
        let twice =
            |at: usize| verifiers.get(at).is_some_and(|one| verifiers.iter().take(at).any(|it| it == one));
        if (0..verifiers.len()).any(twice) {
            return Err(ReceiptFault::Proof("a verifier is named twice"));
        }
        let mut signed: u32 = 0;
        for (key, signature) in verifiers.iter().zip(signatures) {
            match signature {
                Some(signature) if holds(key, receipt, signature) => signed += 1,
                Some(_) => return Err(ReceiptFault::Proof("a verifier's signature does not hold")),
                None => {}
            }
        }
        match signed > 0 && signed >= *threshold {
            true => Ok(()),
            false => Err(ReceiptFault::Proof("fewer have signed than its threshold")),
        }
    }
}

fn holds(key: &PublicKey, message: &Hash, signature: &Signature) -> bool {
    VerifyingKey::from_bytes(&key.0).is_ok_and(|key| {
        key.verify_strict(message.as_bytes(), &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
    })
}

#[cfg(test)]
#[path = "receipt_tests.rs"]
mod tests;
