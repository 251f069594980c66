//! What SVIDs say: whose, how long, and how many; and the settings about it.

use std::collections::{BTreeMap, VecDeque};

use base::{AxiomTime, KeyPath, KeyPathError, key_paths};
use serde::Deserialize;
use svid::{
    Certificate, FormatError, NameError, P256Key, SERIAL_BYTES, SpiffeId, Subject, Token, TrustDomain,
};
use thiserror::Error;

/// Bytes of the settings' file.
pub const SETTINGS_BYTES_MAX: usize = 4096;
/// Nothing is renewed more often: each issue is two acts and their entries.
const LIFETIME_S_MIN: u64 = 10;
const X509_LIFETIME_S_DEFAULT: u64 = 3600;
const JWT_LIFETIME_S_DEFAULT: u64 = 300;
/// A certificate holds a little before it is made, for verifiers whose clock is behind.
const BACKDATED_S: u64 = 30;
/// A new certificate of the authority for the same key, each five years; it lasts for ten.
const AUTHORITY_PERIOD_S: u64 = 5 * 365 * 86_400;
/// SVIDs of one client in a minute: a workload that does not keep its own does not fill the log.
pub const ISSUES_MAX: usize = 60;
const ISSUES_WINDOW_NS: u64 = 60 * SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;

/// `identity.toml` in the configuration folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub x509_lifetime_s: u64,
    pub jwt_lifetime_s: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { x509_lifetime_s: X509_LIFETIME_S_DEFAULT, jwt_lifetime_s: JWT_LIFETIME_S_DEFAULT }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    #[error("identity.toml has at most {SETTINGS_BYTES_MAX} bytes, not {0}")]
    Size(usize),
    #[error("identity.toml cannot be read: {0}")]
    Toml(String),
    #[error("identity.toml: `svid.{key}` is {value}; allowed is {LIFETIME_S_MIN} to {max}")]
    Range { key: &'static str, value: u64, max: u64 },
}

impl Settings {
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            #[serde(default)]
            svid: Lifetimes,
        }
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Lifetimes {
            x509_lifetime_s: Option<u64>,
            jwt_lifetime_s: Option<u64>,
        }
        if text.len() > SETTINGS_BYTES_MAX {
            return Err(SettingsError::Size(text.len()));
        }
        let File { svid } = toml::from_str(text)
            .map_err(|error| SettingsError::Toml(base::visible(error.message()).to_string()))?;
        let within = |key, value: Option<u64>, default, max| match value.unwrap_or(default) {
            value if (LIFETIME_S_MIN..=max).contains(&value) => Ok(value),
            value => Err(SettingsError::Range { key, value, max }),
        };
        let (x509_max, jwt_max) = (svid::SVID_LIFETIME_S_MAX - BACKDATED_S, svid::TOKEN_LIFETIME_S_MAX);
        Ok(Self {
            x509_lifetime_s: within(
                "x509_lifetime_s",
                svid.x509_lifetime_s,
                X509_LIFETIME_S_DEFAULT,
                x509_max,
            )?,
            jwt_lifetime_s: within("jwt_lifetime_s", svid.jwt_lifetime_s, JWT_LIFETIME_S_DEFAULT, jwt_max)?,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SvidError {
    #[error("the log does not begin with genesis")]
    NoGenesis,
    #[error("this node has no trust domain, for its name cannot be one: {0}")]
    NoTrustDomain(NameError),
    #[error("there is no SPIFFE id for this service: {0}")]
    NoId(NameError),
    #[error("the authority's key path: {0}")]
    KeyPath(#[from] KeyPathError),
    #[error("what was asked for is in no SVID: {0}")]
    Format(#[from] FormatError),
    #[error(
        "at most {ISSUES_MAX} SVIDs a minute are issued to one service; keep them until half of their life is over"
    )]
    Busy,
}

/// The node as the authority of its trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    domain: TrustDomain,
    began_s: u64,
}

impl Authority {
    /// Of a node by its name and the time of its genesis, as the log has them.
    pub fn of_node(node_name: &str, began: AxiomTime) -> Result<Self, SvidError> {
        let domain = TrustDomain::of_node(node_name).map_err(SvidError::NoTrustDomain)?;
        Ok(Self { domain, began_s: began.0 / SECOND_NS })
    }

    #[must_use]
    pub const fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Where the authority's key for a purpose is: below this service's own path, which policy lets it use, and below the
    /// trust domain, which the key boundary goes by.
    pub fn key_path(&self, purpose: &str) -> Result<KeyPath, SvidError> {
        let own = KeyPath::parse(key_paths::SERVICES)?.child("identity")?;
        Ok(own.child(self.domain.as_str())?.child(purpose)?)
    }

    /// Of a service by its boot name.
    pub fn id_of(&self, service: &str) -> Result<SpiffeId, SvidError> {
        self.domain.member(&["services", service]).map_err(SvidError::NoId)
    }

    /// What SVIDs are verified with, and since when it is the one to hand out. The same bytes at any moment of a period:
    /// its times and its number follow from genesis and the key.
    #[must_use]
    pub fn own_certificate(&self, key: &P256Key, now: AxiomTime) -> Certificate {
        let period = (now.0 / SECOND_NS).saturating_sub(self.began_s) / AUTHORITY_PERIOD_S;
        let not_before_s = self.began_s + period * AUTHORITY_PERIOD_S;
        let mut serial = [0; SERIAL_BYTES];
        let id = base::Hash::of(&[&key.as_bytes()[..], &not_before_s.to_be_bytes()].concat());
        serial.iter_mut().zip(id.0).for_each(|(byte, hash)| *byte = hash);
        Certificate {
            serial: svid::serial(serial),
            subject: Subject::Authority(self.domain.clone()),
            key: *key,
            not_before_s,
            not_after_s: not_before_s + 2 * AUTHORITY_PERIOD_S,
        }
    }

    #[must_use]
    pub fn certificate(
        id: SpiffeId,
        key: P256Key,
        random: [u8; SERIAL_BYTES],
        now: AxiomTime,
        lifetime_s: u64,
    ) -> Certificate {
        let now_s = now.0 / SECOND_NS;
        Certificate {
            serial: svid::serial(random),
            subject: Subject::Workload(id),
            key,
            not_before_s: now_s.saturating_sub(BACKDATED_S),
            not_after_s: now_s + lifetime_s,
        }
    }

    #[must_use]
    pub const fn token(id: SpiffeId, audience: Vec<String>, now: AxiomTime, lifetime_s: u64) -> Token {
        let issued_at_s = now.0 / SECOND_NS;
        Token { subject: id, audience, expires_at_s: issued_at_s + lifetime_s, issued_at_s }
    }
}

/// When what lives so long from now is renewed: at half of it.
#[must_use]
pub const fn renew_at(now: AxiomTime, lifetime_s: u64) -> AxiomTime {
    now.saturating_add(lifetime_s.saturating_mul(SECOND_NS / 2))
}

/// How many SVIDs each client got within the last minute.
#[derive(Debug, Default)]
pub struct Issues(BTreeMap<String, VecDeque<AxiomTime>>);

impl Issues {
    /// Counts one more, or refuses it.
    pub fn count(&mut self, client: &str, now: AxiomTime) -> Result<(), SvidError> {
        self.0.retain(|_, times| {
            while times.front().is_some_and(|time| now.since(*time) >= ISSUES_WINDOW_NS) {
                times.pop_front();
            }
            !times.is_empty()
        });
        let times = self.0.entry(client.to_owned()).or_default();
        if times.len() >= ISSUES_MAX {
            return Err(SvidError::Busy);
        }
        times.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
#[path = "svid_tests.rs"]
mod tests;
