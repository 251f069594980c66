//! What the rules in force limit: a fold of genesis and of the rules that came and went.

use std::collections::BTreeMap;

use base::RuleId;
use chain::payload::{Payload, policy::Restriction};
use minicbor::{Decode, Encode};

/// Of what saved rules mean: a fold that changes has another.
pub const FOLD_VERSION: u32 = 2;

/// Restrictions by rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Rules(#[n(0)] BTreeMap<RuleId, Vec<Restriction>>);

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

#[cfg(test)]
mod tests {
    use super::*;
    use base::{EntryKey, IdentityId};
    use chain::payload::{
        Body, Envelope,
        policy::{PolicyCondition, PolicyEffect, PolicyRule, PolicyRuleAdded, PolicyRuleRemoved},
    };

    fn entry<T: Body>(body: T) -> Payload {
        let (submitter, key) = (IdentityId([1; 32]), EntryKey([0; 16]));
        let bytes = Envelope { submitter, key, authorization: None, body }.to_bytes().unwrap();
        Payload::decode(T::ENTRY_TYPE, &bytes).unwrap()
    }

    fn step(rules: &mut Rules, number: u32) {
        let id = |number| RuleId::new(format!("r{number}")).unwrap();
        let by = IdentityId([1; 32]);
        let payload = match number % 3 {
            2 => entry(PolicyRuleRemoved { rule: id(number - 2), removed_by: by }),
            _ => entry(PolicyRuleAdded {
                rule: PolicyRule {
                    id: id(number),
                    name: String::new(),
                    description: String::new(),
                    priority: 1,
                    condition: PolicyCondition::Always,
                    effect: PolicyEffect::AllowWithConditions,
                    restrictions: vec![Restriction {
                        name: format!("limit {number}"),
                        condition: PolicyCondition::Always,
                        limits: BTreeMap::from([("bytes".to_owned(), u64::from(number))]),
                    }],
                },
                created_by: by,
            }),
        };
        rules.apply(&payload);
    }

    #[test]
    fn rules_that_were_written_down_anywhere_go_on_to_the_same_bytes() {
        let mut whole = Rules::default();
        (0..12).for_each(|number| step(&mut whole, number));
        for cut in 0..=12 {
            let mut begun = Rules::default();
            (0..cut).for_each(|number| step(&mut begun, number));
            let mut resumed: Rules = base::cbor::decode(&base::cbor::encode(&begun)).unwrap();
            (cut..12).for_each(|number| step(&mut resumed, number));
            assert_eq!(resumed, whole, "cut at {cut}");
        }
        let hash = base::Hash::of(&base::cbor::encode(&whole)).to_string();
        assert_eq!(
            hash, "blake3:d85a98994c39fe9a673778143fc382640acc975fe5480c96205ad80c75c5bad3",
            "a fold that changes has another FOLD_VERSION"
        );
        assert!(whole.restrictions(&RuleId::new("r1").unwrap()).is_some());
    }
}
