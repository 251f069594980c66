//! The bytes of SPIFFE that this node issues: names, X.509-SVIDs, JWT-SVIDs, trust bundles, and what may be signed of them.
//!
//! Promises: reads any bytes without a panic and without taking memory for what they claim; what it accepts is the one
//! encoding of what it says, so that nothing is signed that was not understood to the last byte.
//! Never does: I/O, clocks, dice, signing. Knows no service and no certificate of anybody else.

mod bundle;
mod certificate;
mod der;
mod key;
mod name;
mod time;
mod token;

pub use bundle::{jwt_keys, trust_bundle};
pub use certificate::{
    AUTHORITY_LIFETIME_S_MAX, Certificate, SERIAL_BYTES, SVID_LIFETIME_S_MAX, Subject, certificate, serial,
};
pub use key::{P256_KEY_BYTES, P256Key, SIGNATURE_BYTES, pem, pkcs8};
pub use name::{ID_BYTES_MAX, NameError, SpiffeId, TRUST_DOMAIN_BYTES_MAX, TrustDomain};
pub use token::{AUDIENCE_BYTES_MAX, AUDIENCES_MAX, TOKEN_LIFETIME_S_MAX, Token, TokenError, join};

use thiserror::Error;

/// Why bytes are not of the one form in which this node issues.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    #[error("it is no whole certificate to be signed")]
    NoCertificate,
    #[error("it is no whole token to be signed")]
    NoToken,
    #[error("its {0} is not what the format says")]
    Field(&'static str),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("it is for the trust domain `{0}`, which is not this key's")]
    OtherTrustDomain(String),
    #[error("it makes an authority of another key than the one that signs")]
    OtherAuthority,
    #[error("it is about the authority's own key")]
    OwnKey,
    #[error("it is valid for {0} s, at most {1} s are allowed")]
    Lifetime(u64, u64),
}
