//! What the engine tells of its rules and its state.

use base::{Hash, RuleId, Sequence};
use chain::payload::policy::PolicyEffect;

use super::{PolicyState, rule_set::StoredRule};

/// Every part that is given must hold; an empty filter selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleFilter {
    pub ids: Vec<RuleId>,
    pub priority_min: Option<u32>,
    pub priority_max: Option<u32>,
    pub effect: Option<PolicyEffect>,
    /// Part of id, name or description.
    pub text: String,
}

impl RuleFilter {
    fn selects(&self, stored: &StoredRule) -> bool {
        let rule = &stored.rule;
        let texts = [rule.id.as_str(), &rule.name, &rule.description];
        (self.ids.is_empty() || self.ids.contains(&rule.id))
            && self.priority_min.is_none_or(|min| rule.priority >= min)
            && self.priority_max.is_none_or(|max| rule.priority <= max)
            && self.effect.is_none_or(|effect| rule.effect == effect)
            && texts.iter().any(|text| text.contains(&self.text))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyStateSnapshot {
    pub state_hash: Hash,
    /// The last entry folded.
    pub sequence: Option<Sequence>,
    pub rules: usize,
    pub identities: usize,
}

impl PolicyState {
    /// In the order in which they are tried (POL-08).
    #[must_use]
    pub fn list_rules(&self, filter: &RuleFilter) -> Vec<&StoredRule> {
        let mut all = self.rules().in_order();
        all.retain(|stored| filter.selects(stored));
        all
    }

    #[must_use]
    pub fn snapshot(&self) -> PolicyStateSnapshot {
        PolicyStateSnapshot {
            state_hash: self.state_hash(),
            sequence: self.position(),
            rules: self.rules().len(),
            identities: self.identities().len(),
        }
    }
}
