//! Which rule decided last about what: the next act about the same is made for what that rule allows, and policy says if another
//! one decides by then. A guess that is wrong costs a second question, and allows nothing.

use ::core::net::SocketAddr;
use std::collections::HashMap;

use base::{IdentityId, ProcessId, RuleId};
use chain::payload::network::{Direction, Protocol};

use super::limits::EXPECTED_MAX;

/// All that a decision can depend on beside rules, time and what was before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    pub identity: IdentityId,
    pub process: ProcessId,
    pub inbound: bool,
    pub datagrams: bool,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    pub name: Option<String>,
}

impl Asked {
    #[must_use]
    pub fn is_inbound(direction: Direction) -> bool {
        direction == Direction::Inbound
    }

    #[must_use]
    pub fn is_datagrams(protocol: Protocol) -> bool {
        protocol == Protocol::Udp
    }
}

#[derive(Debug, Default)]
pub struct Expected(HashMap<Asked, RuleId>);

impl Expected {
    #[must_use]
    pub fn rule(&self, asked: &Asked) -> Option<RuleId> {
        self.0.get(asked).cloned()
    }

    /// With no room left it begins anew: what is asked often comes back soon.
    pub fn remember(&mut self, asked: Asked, rule: RuleId) {
        if self.0.len() >= EXPECTED_MAX && !self.0.contains_key(&asked) {
            self.0.clear();
        }
        self.0.insert(asked, rule);
    }

    pub fn forget(&mut self, asked: &Asked) {
        self.0.remove(asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(port: u16) -> Asked {
        Asked {
            identity: IdentityId([1; 32]),
            process: ProcessId(1),
            inbound: Asked::is_inbound(Direction::Outbound),
            datagrams: Asked::is_datagrams(Protocol::Tcp),
            local: None,
            remote: Some(SocketAddr::from(([192, 0, 2, 1], port))),
            name: None,
        }
    }

    #[test]
    fn what_was_decided_is_expected_again_of_the_same_and_of_nothing_else() {
        let mut expected = Expected::default();
        let rule = RuleId::new("some-rule").unwrap();
        expected.remember(asked(443), rule.clone());
        assert_eq!(expected.rule(&asked(443)), Some(rule.clone()));
        for other in [
            asked(80),
            Asked { identity: IdentityId([2; 32]), ..asked(443) },
            Asked { process: ProcessId(2), ..asked(443) },
            Asked { inbound: true, ..asked(443) },
            Asked { datagrams: true, ..asked(443) },
            Asked { name: Some("a.example".to_owned()), ..asked(443) },
        ] {
            assert_eq!(expected.rule(&other), None, "{other:?}");
        }
        expected.forget(&asked(443));
        assert_eq!(expected.rule(&asked(443)), None);
        // At the limit there is room for what is known already, and one past it begins anew.
        let many = u16::try_from(EXPECTED_MAX).unwrap();
        (1..=many).for_each(|port| expected.remember(asked(port), rule.clone()));
        expected.remember(asked(many), rule.clone());
        assert_eq!((expected.0.len(), expected.rule(&asked(1)).is_some()), (EXPECTED_MAX, true));
        expected.remember(asked(many + 1), rule);
        assert_eq!((expected.0.len(), expected.rule(&asked(1))), (1, None));
    }
}
