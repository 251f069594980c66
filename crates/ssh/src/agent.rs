//! The messages of an agent (draft-ietf-sshm-ssh-agent): two requests are understood, all others are answered with failure.

use base::{PublicKey, Signature};
use thiserror::Error;

use crate::{
    key::{key_blob, key_of_blob, signature_blob},
    wire::{Reader, WireError, put_string, strings},
};

/// Bytes of a message after its length. What is signed is shorter still; OpenSSH itself allows 256 KiB.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// Bytes of the length before each message.
pub const LENGTH_BYTES: usize = 4;
/// Keys that one agent offers: servers count a login try for each.
pub const IDENTITIES_MAX: usize = 64;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AgentError {
    #[error("a message has 1 to {MESSAGE_BYTES_MAX} bytes, not {0}")]
    Length(u32),
    #[error("a message that cannot be read: {0}")]
    Wire(#[from] WireError),
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'b> {
    Identities,
    Sign {
        /// None for a key of a kind that is never offered here.
        key: Option<PublicKey>,
        data: &'b [u8],
    },
    /// Of that number; answered with failure.
    Other(u8),
}

/// A key on offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub key: PublicKey,
    pub comment: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    Failure,
    Identities(Vec<Identity>),
    Signature(Signature),
}

/// Bytes of the message that follows; asked before room is made for it.
pub fn length(prefix: [u8; LENGTH_BYTES]) -> Result<usize, AgentError> {
    let length = u32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Ok(bytes @ 1..=MESSAGE_BYTES_MAX) => Ok(bytes),
        _ => Err(AgentError::Length(length)),
    }
}

impl<'b> Request<'b> {
    /// Of a message without its length.
    pub fn parse(message: &'b [u8]) -> Result<Self, AgentError> {
        let mut reader = Reader::new(message);
        match reader.byte()? {
            REQUEST_IDENTITIES => {
                reader.end()?;
                Ok(Self::Identities)
            }
            SIGN_REQUEST => {
                let (key, data) = (reader.string()?, reader.string()?);
                // Flags choose a hash for RSA; Ed25519 has no choice.
                reader.number()?;
                reader.end()?;
                Ok(Self::Sign { key: key_of_blob(key), data })
            }
            other => Ok(Self::Other(other)),
        }
    }

    /// With its length; as a client sends it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut message = Vec::new();
        match self {
            Self::Identities => message.push(REQUEST_IDENTITIES),
            Self::Sign { key, data } => {
                message.push(SIGN_REQUEST);
                message.extend(strings([&key.as_ref().map(key_blob).unwrap_or_default(), data]));
                message.extend([0; 4]);
            }
            Self::Other(number) => message.push(*number),
        }
        strings([&message])
    }
}

impl Response {
    /// With its length. No more than `IDENTITIES_MAX` are offered.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut message = Vec::new();
        match self {
            Self::Failure => message.push(FAILURE),
            Self::Identities(identities) => {
                message.push(IDENTITIES_ANSWER);
                let offered = identities.len().min(IDENTITIES_MAX);
                message.extend(u32::try_from(offered).unwrap_or(0).to_be_bytes());
                for Identity { key, comment } in identities.iter().take(offered) {
                    message.extend(strings([&key_blob(key), comment.as_bytes()]));
                }
            }
            Self::Signature(signature) => {
                message.push(SIGN_RESPONSE);
                put_string(&mut message, &signature_blob(signature));
            }
        }
        strings([&message])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: PublicKey = PublicKey([7; 32]);

    fn body(bytes: &[u8]) -> &[u8] {
        let (prefix, body) = bytes.split_first_chunk().unwrap();
        assert_eq!(length(*prefix), Ok(body.len()));
        body
    }

    #[test]
    fn a_message_is_at_most_thirty_two_kibibytes_and_never_empty() {
        let most = u32::try_from(MESSAGE_BYTES_MAX).unwrap();
        assert_eq!(length(1_u32.to_be_bytes()), Ok(1));
        assert_eq!(length(most.to_be_bytes()), Ok(MESSAGE_BYTES_MAX));
        for bad in [0, most + 1, u32::MAX] {
            assert_eq!(length(bad.to_be_bytes()), Err(AgentError::Length(bad)));
        }
    }

    /// Bytes written down from the protocol's text.
    #[test]
    fn requests_and_answers_are_those_of_the_protocol() {
        assert_eq!(Request::parse(&[11]), Ok(Request::Identities));
        assert_eq!(Request::parse(&[11, 0]), Err(WireError::Trailing(1).into()));
        for other in [17, 18, 19, 22, 25, 27] {
            assert_eq!(Request::parse(&[other, 1, 2, 3]), Ok(Request::Other(other)));
        }
        let blob = [&[0, 0, 0, 11][..], b"ssh-ed25519", &[0, 0, 0, 32], &[7; 32]].concat();
        let ask = [&[13, 0, 0, 0, 51][..], &blob, &[0, 0, 0, 3], b"abc", &[0, 0, 0, 4]].concat();
        assert_eq!(Request::parse(&ask), Ok(Request::Sign { key: Some(KEY), data: b"abc" }));
        let other = [&[13, 0, 0, 0, 1][..], b"k", &[0, 0, 0, 3], b"abc", &[0; 4]].concat();
        assert_eq!(Request::parse(&other), Ok(Request::Sign { key: None, data: b"abc" }));
        assert_eq!(Request::parse(&ask[..ask.len() - 1]), Err(WireError::Short.into()));
        assert_eq!(Request::parse(b""), Err(WireError::Short.into()));

        assert_eq!(Response::Failure.to_bytes(), [0, 0, 0, 1, 5]);
        let identity = Identity { key: KEY, comment: "/a/@ssh".to_owned() };
        let answer = [&[12, 0, 0, 0, 1, 0, 0, 0, 51][..], &blob, &[0, 0, 0, 7], b"/a/@ssh"].concat();
        assert_eq!(body(&Response::Identities(vec![identity]).to_bytes()), answer);
        let signature =
            [&[14, 0, 0, 0, 83, 0, 0, 0, 11][..], b"ssh-ed25519", &[0, 0, 0, 64], &[5; 64]].concat();
        assert_eq!(body(&Response::Signature(Signature([5; 64])).to_bytes()), signature);
    }

    #[test]
    fn more_keys_than_the_limit_are_not_offered() {
        let identity = Identity { key: KEY, comment: String::new() };
        let offered = |count| {
            let bytes = Response::Identities(vec![identity.clone(); count]).to_bytes();
            u32::from_be_bytes(body(&bytes)[1..5].try_into().unwrap()) as usize
        };
        assert_eq!(offered(IDENTITIES_MAX), IDENTITIES_MAX);
        assert_eq!(offered(IDENTITIES_MAX + 1), IDENTITIES_MAX);
    }

    proptest! {
        #[test]
        fn a_request_survives_its_bytes(key in any::<[u8; 32]>(), data in prop::collection::vec(any::<u8>(), 0..2000)) {
            for request in [Request::Sign { key: Some(PublicKey(key)), data: &data }, Request::Identities] {
                let bytes = request.to_bytes();
                prop_assert_eq!(Request::parse(body(&bytes)), Ok(request));
            }
        }

        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Request::Sign { data, .. }) = Request::parse(&bytes) {
                prop_assert!(data.len() < bytes.len());
            }
        }
    }
}
