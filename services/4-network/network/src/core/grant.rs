//! What a decision grants: the limits of the rule that decided. Its conditions are policy's to judge, when the entry is made.

use base::DurationNs;
use chain::payload::{network::NetworkGrant, policy::Restriction};
use thiserror::Error;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "restriction {restriction:?} of the rule that allows it has a limit {limit:?}, which nobody holds here"
)]
pub struct UnknownLimit {
    restriction: String,
    limit: String,
}

/// The narrowest of all restrictions. A limit with another name is one that nobody would hold, so it refuses (NET-32).
pub fn grant_of(restrictions: &[Restriction]) -> Result<NetworkGrant, UnknownLimit> {
    let mut grant = NetworkGrant::UNLIMITED;
    for restriction in restrictions {
        for (name, value) in &restriction.limits {
            match name.as_str() {
                NetworkGrant::SEND => grant.send &= *value != 0,
                NetworkGrant::RECV => grant.recv &= *value != 0,
                NetworkGrant::BANDWIDTH => grant.bandwidth_limit = narrower(grant.bandwidth_limit, *value),
                NetworkGrant::DURATION => {
                    grant.duration_limit = DurationNs(narrower(grant.duration_limit.0, *value));
                }
                _ => {
                    let (restriction, limit) = (restriction.name.clone(), name.clone());
                    return Err(UnknownLimit { restriction, limit });
                }
            }
        }
    }
    Ok(grant)
}

/// 0 is no limit.
fn narrower(a: u64, b: u64) -> u64 {
    match (a, b) {
        (0, limit) | (limit, 0) => limit,
        (a, b) => a.min(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chain::payload::policy::PolicyCondition;

    fn restriction(limits: &[(&str, u64)]) -> Restriction {
        Restriction {
            name: "r".to_owned(),
            condition: PolicyCondition::Always,
            limits: limits.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        }
    }

    /// covers: NET-32
    #[test]
    fn the_narrowest_limit_counts_and_an_unknown_one_refuses() {
        assert_eq!(grant_of(&[]), Ok(NetworkGrant::UNLIMITED));
        let both = [
            restriction(&[("bandwidth_limit", 5000), ("duration_limit_ns", 0), ("send", 1)]),
            restriction(&[("bandwidth_limit", 9000), ("duration_limit_ns", 7), ("recv", 0)]),
        ];
        let narrow =
            NetworkGrant { send: true, recv: false, bandwidth_limit: 5000, duration_limit: DurationNs(7) };
        assert_eq!(grant_of(&both), Ok(narrow));
        assert!(grant_of(&[restriction(&[("packets", 1)])]).is_err());
        for known in NetworkGrant::LIMITS {
            assert!(grant_of(&[restriction(&[(known, 1)])]).is_ok(), "{known}");
        }
    }
}
