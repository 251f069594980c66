//! What entries carry. Each body is an array-coded CBOR value that only grows at its end.
//!
//! Every payload is `[submitter, key, authorization, body]`; see `docs/format.md`.

pub mod capability;
pub mod identity;
pub mod image;
pub mod job;
pub mod log;
pub mod network;
pub mod policy;
pub mod process;
pub mod service;

use base::{
    AxiomRef, EntryKey, Hash, IdentityId,
    cbor::{self, CborError},
    limits::PAYLOAD_SIZE_BYTES_MAX,
};
use minicbor::{Decode, Decoder, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A payload body knows the code of its entry type (AX-23 to AX-28).
pub trait Body: Encode<()> + for<'b> Decode<'b, ()> {
    const ENTRY_TYPE: u32;
}

/// A payload: who submits, under which idempotency key, on whose permission, what.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Envelope<T> {
    #[n(0)]
    pub submitter: IdentityId,
    #[n(1)]
    pub key: EntryKey,
    /// `request_hash` of the decision that allows the entry; none for records, decisions and genesis.
    #[n(2)]
    pub authorization: Option<Hash>,
    #[n(3)]
    pub body: T,
}

/// The part of an envelope that can be read without knowing the body's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeHead {
    pub submitter: IdentityId,
    pub key: EntryKey,
    pub authorization: Option<Hash>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    #[error(
        "payload has {bytes} bytes, at most {PAYLOAD_SIZE_BYTES_MAX} are allowed; larger data goes by hash"
    )]
    TooLarge { bytes: usize },
    #[error("payload is malformed: {0}")]
    Malformed(#[from] CborError),
    #[error("entry type {0} has no payload of its own yet")]
    UnknownType(u32),
}

impl EnvelopeHead {
    /// Reads the first three members.
    pub fn peek(payload: &[u8]) -> Result<Self, PayloadError> {
        let wrap =
            |error: minicbor::decode::Error| PayloadError::Malformed(CborError::Decode(error.to_string()));
        let mut decoder = Decoder::new(payload);
        if decoder.array().map_err(wrap)? != Some(4) {
            return Err(PayloadError::Malformed(CborError::Decode(
                "an envelope has four members".to_owned(),
            )));
        }
        Ok(Self {
            submitter: decoder.decode().map_err(wrap)?,
            key: decoder.decode().map_err(wrap)?,
            authorization: decoder.decode().map_err(wrap)?,
        })
    }
}

impl<T: Body> Envelope<T> {
    /// The bytes of the payload, built once by their author.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PayloadError> {
        let bytes = cbor::encode(self);
        match bytes.len() {
            len if len > PAYLOAD_SIZE_BYTES_MAX => Err(PayloadError::TooLarge { bytes: len }),
            _ => Ok(bytes),
        }
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PayloadError> {
        if bytes.len() > PAYLOAD_SIZE_BYTES_MAX {
            return Err(PayloadError::TooLarge { bytes: bytes.len() });
        }
        Ok(cbor::decode(bytes)?)
    }
}

macro_rules! payloads {
    ($($variant:ident($body:ty) = $code:literal,)*) => {
        $(impl Body for $body { const ENTRY_TYPE: u32 = $code; })*

        /// Any payload that this build can read.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Payload {
            $($variant(Box<Envelope<$body>>),)*
        }

        impl Payload {
            /// Decodes a payload of the given entry type; anything but its one canonical encoding is refused.
            pub fn decode(entry_type: u32, bytes: &[u8]) -> Result<Self, PayloadError> {
                match entry_type {
                    $($code => Ok(Self::$variant(Box::new(Envelope::from_bytes(bytes)?))),)*
                    other => Err(PayloadError::UnknownType(other)),
                }
            }

            #[must_use]
            pub const fn entry_type(&self) -> u32 {
                match self { $(Self::$variant(_) => $code,)* }
            }

            #[must_use]
            pub fn head(&self) -> EnvelopeHead {
                match self {
                    $(Self::$variant(e) => EnvelopeHead {
                        submitter: e.submitter, key: e.key, authorization: e.authorization,
                    },)*
                }
            }

            /// The body as JSON, for people; the log itself is CBOR.
            pub fn body_json<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(Self::$variant(e) => e.body.serialize(serializer),)* }
            }
        }
    };
}

payloads! {
    Genesis(service::Genesis) = 0,
    Shutdown(service::Shutdown) = 1,
    CapabilityGrant(capability::CapabilityGrant) = 10,
    CapabilityRevoke(capability::CapabilityRevoke) = 11,
    ServiceRegister(service::ServiceRegister) = 20,
    ServiceStart(service::ServiceStart) = 21,
    ServiceStop(service::ServiceStop) = 22,
    ServiceFailed(service::ServiceFailed) = 23,
    ProcessCreate(process::ProcessCreate) = 30,
    ProcessExit(process::ProcessExit) = 31,
    ProcessKill(process::ProcessKill) = 32,
    ConnectionAuthorize(network::ConnectionAuthorize) = 60,
    ConnectionRevoke(network::ConnectionRevoke) = 61,
    NetworkPolicyUpdate(network::NetworkPolicyUpdate) = 62,
    JobSubmit(job::JobSubmit) = 70,
    JobStart(job::JobStart) = 71,
    JobComplete(job::JobComplete) = 72,
    JobFailed(job::JobFailed) = 73,
    ImageImport(image::ImageImport) = 76,
    ImageRemove(image::ImageRemove) = 77,
    Receipt(Receipt) = 80,
    PolicyDecision(policy::SignedDecision) = 85,
    PolicyRuleAdded(policy::PolicyRuleAdded) = 86,
    PolicyRuleRemoved(policy::PolicyRuleRemoved) = 87,
    IdentityCreated(identity::IdentityCreated) = 88,
    IdentityUpdated(identity::IdentityUpdated) = 89,
    CredentialAdded(identity::CredentialAdded) = 90,
    CredentialRevoked(identity::CredentialRevoked) = 91,
    KeyUsage(identity::KeyUsage) = 92,
    LogArchive(log::LogArchive) = 110,
    ClockSet(service::ClockSet) = 111,
    ServiceLate(service::ServiceLate) = 112,
}

/// Closes an act: its effect was carried out, or was not (AX-33).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct Receipt {
    #[n(0)]
    pub axiom_entry: AxiomRef,
    #[n(1)]
    pub inputs: Vec<Hash>,
    #[n(2)]
    pub outputs: Vec<Hash>,
    #[n(3)]
    pub environment: Hash,
    #[n(4)]
    pub status: ReceiptStatus,
    #[n(5)]
    pub proof: Option<Hash>,
}

impl Receipt {
    /// Of an act that took nothing in and gave nothing out by hash.
    #[must_use]
    pub const fn closing(axiom_entry: AxiomRef, status: ReceiptStatus) -> Self {
        Self {
            axiom_entry,
            inputs: Vec::new(),
            outputs: Vec::new(),
            environment: Hash::ZERO,
            status,
            proof: None,
        }
    }
}

impl ReceiptStatus {
    /// Of an effect that was carried out, or was not.
    #[must_use]
    pub const fn of(done: bool) -> Self {
        if done { Self::Success } else { Self::Failed { exit_code: 1 } }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use base::Sequence;

    fn receipt() -> Envelope<Receipt> {
        Envelope {
            submitter: IdentityId([1; 32]),
            key: EntryKey([2; 16]),
            authorization: Some(Hash([3; 32])),
            body: Receipt {
                axiom_entry: AxiomRef { sequence: Sequence(4), hash: Hash([5; 32]) },
                inputs: vec![Hash([6; 32])],
                outputs: vec![],
                environment: Hash::ZERO,
                status: ReceiptStatus::Failed { exit_code: -9 },
                proof: None,
            },
        }
    }

    /// covers: AX-33, SUP-77
    #[test]
    fn a_payload_survives_encoding_and_its_head_can_be_read_alone() {
        let bytes = receipt().to_bytes().unwrap();
        let payload = Payload::decode(80, &bytes).unwrap();
        assert_eq!(payload, Payload::Receipt(Box::new(receipt())));
        assert_eq!(EnvelopeHead::peek(&bytes).unwrap(), payload.head());
        assert_eq!(payload.entry_type(), 80);
    }

    #[test]
    fn a_payload_of_another_type_or_length_is_refused() {
        let bytes = receipt().to_bytes().unwrap();
        assert!(matches!(Payload::decode(21, &bytes), Err(PayloadError::Malformed(_))));
        assert_eq!(Payload::decode(4711, &bytes), Err(PayloadError::UnknownType(4711)));
        let long = vec![0; PAYLOAD_SIZE_BYTES_MAX + 1];
        assert!(matches!(Payload::decode(80, &long), Err(PayloadError::TooLarge { .. })));
    }

    #[test]
    fn a_payload_has_so_many_bytes_and_no_more() {
        let of = |reason_bytes| Envelope {
            submitter: IdentityId([1; 32]),
            key: EntryKey([2; 16]),
            authorization: None,
            body: service::Shutdown { reason: "x".repeat(reason_bytes) },
        };
        let fits = PAYLOAD_SIZE_BYTES_MAX - of(60_000).to_bytes().unwrap().len() + 60_000;
        let bytes = of(fits).to_bytes().unwrap();
        assert_eq!(bytes.len(), PAYLOAD_SIZE_BYTES_MAX);
        assert_eq!(Envelope::from_bytes(&bytes), Ok(of(fits)));
        let over = PAYLOAD_SIZE_BYTES_MAX + 1;
        assert_eq!(of(fits + 1).to_bytes(), Err(PayloadError::TooLarge { bytes: over }));
        let long = cbor::encode(&of(fits + 1));
        assert_eq!(
            Envelope::<service::Shutdown>::from_bytes(&long),
            Err(PayloadError::TooLarge { bytes: over })
        );
    }

    #[test]
    fn what_has_not_four_members_is_no_envelope() {
        let mut bytes = receipt().to_bytes().unwrap();
        assert_eq!(bytes[0], 0x84);
        for members in [0x83, 0x85, 0x9f] {
            bytes[0] = members;
            assert!(matches!(EnvelopeHead::peek(&bytes), Err(PayloadError::Malformed(_))), "{members:#x}");
        }
    }
}
