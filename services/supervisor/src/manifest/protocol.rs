use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::limits::NAME_BYTES_MAX;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    #[error("a protocol is written Name/major.minor, for example FsNamespace/1.0, not {0:?}")]
    Protocol(String),
    #[error("a protocol version is written major.minor, for example 1.0, not {0:?}")]
    Version(String),
}

/// `major.minor` of a protocol (SUP-34, SUP-76).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProtocolVersion {
    pub major: u16,
    pub minor: u16,
}

impl ProtocolVersion {
    /// A service of this version can serve a client that speaks `client`: same major, minor not lower.
    #[must_use]
    pub const fn serves(self, client: Self) -> bool {
        self.major == client.major && self.minor >= client.minor
    }
}

impl FromStr for ProtocolVersion {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        let refuse = || ProtocolError::Version(text.chars().take(80).collect());
        let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse::<u16>().map_err(|_| refuse()),
            false => Err(refuse()),
        };
        let (major, minor) = text.split_once('.').ok_or_else(refuse)?;
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Name and version of the protocol of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub version: ProtocolVersion,
}

impl Protocol {
    /// Same protocol, and its version serves the client's.
    #[must_use]
    pub fn serves(&self, client: &Self) -> bool {
        self.name == client.name && self.version.serves(client.version)
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        let refuse = || ProtocolError::Protocol(text.chars().take(80).collect());
        let (name, version) = text.split_once('/').ok_or_else(refuse)?;
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(legal) {
            return Err(refuse());
        }
        Ok(Self { name: name.to_owned(), version: version.parse().map_err(|_| refuse())? })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn serves(service: &str, client: &str, expected: bool) {
        let (service, client): (Protocol, Protocol) = (service.parse().unwrap(), client.parse().unwrap());
        assert_eq!(service.serves(&client), expected, "{service} for a client of {client}");
    }

    /// covers: SUP-76
    #[test]
    fn the_same_major_interoperates_when_the_services_minor_is_not_lower() {
        serves("Fs/1.0", "Fs/1.0", true);
        serves("Fs/1.2", "Fs/1.1", true);
        serves("Fs/1.1", "Fs/1.2", false);
        serves("Fs/2.0", "Fs/1.0", false);
        serves("Fs/1.9", "Fs/2.0", false);
        serves("Fs/1.0", "Net/1.0", false);
    }

    /// covers: SUP-34
    #[test]
    fn a_protocol_is_name_major_minor() {
        assert_eq!("FsNamespace/1.0".parse::<Protocol>().unwrap().to_string(), "FsNamespace/1.0");
        for wrong in ["Fs", "Fs/1", "/1.0", "Fs/1.0.0", "Fs/a.0", "Fs/1.", "Fs/+1.0", "Fs/65536.0", "F s/1.0"]
        {
            assert!(wrong.parse::<Protocol>().is_err(), "{wrong}");
        }
        assert!(format!("{}/1.0", "n".repeat(NAME_BYTES_MAX)).parse::<Protocol>().is_ok());
        assert!(format!("{}/1.0", "n".repeat(NAME_BYTES_MAX + 1)).parse::<Protocol>().is_err());
    }
}
