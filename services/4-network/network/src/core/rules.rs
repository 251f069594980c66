//! What the rules in force limit: a fold of genesis and of the rules that came and went.

use std::collections::BTreeMap;

use base::RuleId;
use chain::payload::{Payload, policy::Restriction};

/// Restrictions by rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(BTreeMap<RuleId, Vec<Restriction>>);

impl Rules {
    /// Takes an entry in; the rule that went with it, if one did.
    pub fn apply(&mut self, payload: &Payload) -> Option<RuleId> {
        match payload {
            Payload::Genesis(genesis) => {
                for rule in &genesis.body.rules {
                    self.keep(&rule.id, &rule.restrictions);
                }
                None
            }
            Payload::PolicyRuleAdded(added) => {
                self.keep(&added.body.rule.id, &added.body.rule.restrictions);
                None
            }
            Payload::PolicyRuleRemoved(removed) => {
                self.0.remove(&removed.body.rule);
                Some(removed.body.rule.clone())
            }
            _ => None,
        }
    }

    fn keep(&mut self, rule: &RuleId, restrictions: &[Restriction]) {
        self.0.insert(rule.clone(), restrictions.to_vec());
    }

    /// None for a rule that is not in force, or not known here yet: that one limits nothing is never assumed.
    #[must_use]
    pub fn restrictions(&self, rule: &RuleId) -> Option<&[Restriction]> {
        self.0.get(rule).map(Vec::as_slice)
    }
}
