//! Conversions between messages and the log's types. What is missing or unknown is an error that names the field.

mod capability;
mod identity;
pub mod network;
mod policy;
mod process;

use base::{AxiomRef, Hash, Sequence};
use serde::{Serialize, de::DeserializeOwned, de::IntoDeserializer};
use thiserror::Error;

use crate::common::v1 as pb;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConvertError {
    #[error("field `{0}` is missing")]
    Missing(&'static str),
    #[error("field `{field}` has {found} bytes, not {expected}")]
    Length { field: &'static str, expected: usize, found: usize },
    #[error("field `{field}`: unknown value {value:?}")]
    Unknown { field: &'static str, value: String },
    #[error("field `{field}`: {text}")]
    Invalid { field: &'static str, text: String },
    #[error("conditions are nested deeper than {}", base::limits::NESTING_MAX)]
    TooDeep,
}

/// A fixed number of bytes from a message field.
pub fn bytes<const N: usize>(field: &'static str, value: &[u8]) -> Result<[u8; N], ConvertError> {
    value.try_into().map_err(|_| ConvertError::Length { field, expected: N, found: value.len() })
}

/// A unit variant by its serialised name.
pub fn from_name<T: DeserializeOwned>(field: &'static str, value: &str) -> Result<T, ConvertError> {
    let deserializer: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
        value.into_deserializer();
    T::deserialize(deserializer)
        .map_err(|_| ConvertError::Unknown { field, value: value.chars().take(80).collect() })
}

/// The serialised name of a unit variant.
pub fn to_name<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

pub(crate) fn require<T>(field: &'static str, value: Option<T>) -> Result<T, ConvertError> {
    value.ok_or(ConvertError::Missing(field))
}

pub(crate) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &'static str,
    value: &str,
) -> Result<T, ConvertError> {
    value.parse().map_err(|error: T::Err| ConvertError::Invalid { field, text: error.to_string() })
}

impl From<AxiomRef> for pb::AxiomRef {
    fn from(value: AxiomRef) -> Self {
        Self { sequence: value.sequence.0, hash: value.hash.0.to_vec() }
    }
}

impl TryFrom<&pb::AxiomRef> for AxiomRef {
    type Error = ConvertError;

    fn try_from(value: &pb::AxiomRef) -> Result<Self, ConvertError> {
        Ok(Self { sequence: Sequence(value.sequence), hash: Hash(bytes("hash", &value.hash)?) })
    }
}
