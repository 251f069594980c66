//! Rules as Cedar policies and back, against Cedar itself: what is exported or imported must decide the same there.

mod draw;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    str::FromStr,
    sync::LazyLock,
};

use base::{AxiomTime, IdentityId, RuleId};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicySet, Request,
    RestrictedExpression,
};
use chain::payload::policy::{
    ActionKind, PolicyEffect, PolicyRequest, PolicyRule, ResourceRef, ResourceType,
};
use policy::{
    cedar::{self, Without, vocabulary as words},
    core::{PolicyState, decide, trial::request_for},
};
use proptest::{prelude::*, test_runner::Config};

use draw::{NOW, people};

/// A request to both.
struct Question {
    ours: PolicyRequest,
    cedar: [EntityUid; 3],
}

/// Everybody, everything, and every question about them; made once.
struct World {
    state: PolicyState,
    entities: Entities,
    questions: Vec<Question>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let state = PolicyState::imagined(&people(), Vec::new());
    let acts = draw::acts();
    let mut questions = Vec::new();
    for person in people() {
        for (kind, resource, as_type) in &acts {
            let mut ours = request_for(person.identity_id, *kind, resource, BTreeMap::new()).unwrap();
            if let Some(resource_type) = as_type {
                ours.resource.resource_type = *resource_type;
            }
            let cedar = [
                uid(words::IDENTITY, &person.identity_id.to_string()),
                uid(words::ACTION, &words::action_name(*kind)),
                uid(&words::entity_type(ours.resource.resource_type), &ours.resource.id),
            ];
            questions.push(Question { ours, cedar });
        }
    }
    World { entities: entities(&state, &questions), state, questions }
});

fn uid(entity_type: &str, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(EntityTypeName::from_str(entity_type).unwrap(), EntityId::new(id))
}

/// As `vocabulary` says: identities with their parents alone, Cedar finds those above; every resource with its id.
fn entities(state: &PolicyState, questions: &[Question]) -> Entities {
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let mut all: HashMap<EntityUid, (HashMap<String, RestrictedExpression>, HashSet<EntityUid>)> =
        HashMap::new();
    for person in state.identities().iter() {
        let identity = |id: &IdentityId| uid(words::IDENTITY, &id.to_string());
        let (attributes, parents) = all.entry(identity(&person.id)).or_default();
        attributes.insert(words::NAME.to_owned(), text(&person.name));
        attributes.insert(words::TYPE.to_owned(), text(&words::identity_type_name(person.identity_type)));
        parents.extend(person.parent.as_ref().map(identity));
    }
    for question in questions {
        let (attributes, _) = all.entry(question.cedar[2].clone()).or_default();
        attributes.insert(words::ID.to_owned(), text(&question.ours.resource.id));
    }
    let all =
        all.into_iter().map(|(uid, (attributes, parents))| Entity::new(uid, attributes, parents).unwrap());
    Entities::from_entities(all, None).unwrap()
}

impl World {
    fn cedar_allows(
        &self,
        policies: &PolicySet,
        question: &Question,
        now: AxiomTime,
    ) -> Result<bool, String> {
        let [principal, action, resource] = question.cedar.clone();
        let now = RestrictedExpression::new_long(i64::try_from(now.0).unwrap());
        let context = Context::from_pairs([(words::NOW.to_owned(), now)]).unwrap();
        let request = Request::new(principal, action, resource, context, None).unwrap();
        let answer = Authorizer::new().is_authorized(&request, policies, &self.entities);
        match answer.diagnostics().errors().next() {
            Some(error) => Err(error.to_string()),
            None => Ok(answer.decision() == Decision::Allow),
        }
    }

    fn effect(&self, rules: &PolicyState, question: &Question, now: AxiomTime) -> PolicyEffect {
        decide(rules, &question.ours, now).effect
    }

    fn with(&self, rules: Vec<PolicyRule>) -> PolicyState {
        self.state.clone().with(&[], rules)
    }
}

fn parsed(text: &str) -> Result<PolicySet, TestCaseError> {
    PolicySet::from_str(text)
        .map_err(|error| TestCaseError::fail(format!("Cedar refuses: {error:?}\n{text}")))
}

/// Questions by number, each at one of three times.
fn asked() -> impl Strategy<Value = Vec<(usize, AxiomTime)>> {
    let time = proptest::sample::select(vec![NOW.0 - 1, NOW.0, NOW.0 + 1]).prop_map(AxiomTime);
    proptest::collection::vec((0..WORLD.questions.len(), time), 24)
}

fn cases(cases: u32) -> Config {
    Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() }
}

fn without(rules: &[PolicyRule], ids: &[&RuleId]) -> Vec<PolicyRule> {
    rules.iter().filter(|rule| !ids.contains(&&rule.id)).cloned().collect()
}

proptest! {
    #![proptest_config(cases(1024))]

    /// Every rule is in the file, not needed there, or named; the file decides as the rules that are in it; and if it is
    /// said to allow no more than all of them, it does not.
    #[test]
    fn what_is_exported_decides_there_as_here(rules in draw::rules(), asked in asked()) {
        let export = cedar::export(&rules).unwrap();
        let policies = parsed(&export.text)?;
        prop_assert_eq!(policies.policies().count(), export.kept.len());
        prop_assert_eq!(export.kept.len() + export.unneeded.len() + export.left_out.len(), rules.len());
        let missing: Vec<&RuleId> = export.left_out.iter().map(|one| &one.rule).collect();
        let (whole, kept) = (WORLD.with(rules.clone()), WORLD.with(without(&rules, &missing)));
        let allows_more = export.left_out.iter().any(|one| one.without == Without::AllowsMore);
        let back = cedar::import("a.cedar", &export.text).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!((&back.left_out, &back.raised), (&Vec::new(), &Vec::new()), "{}", export.text);
        let back = WORLD.with(back.rules);
        for (number, now) in asked {
            let question = &WORLD.questions[number];
            let there = WORLD.cedar_allows(&policies, question, now).map_err(TestCaseError::fail)?;
            let here = WORLD.effect(&kept, question, now) == PolicyEffect::Allow;
            prop_assert_eq!(there, here, "{:?}\n{}", question.ours, export.text);
            prop_assert_eq!(WORLD.effect(&back, question, now) == PolicyEffect::Allow, here, "imported again");
            let all = WORLD.effect(&whole, question, now);
            prop_assert!(!there || allows_more || all == PolicyEffect::Allow, "{:?}\n{}", question.ours, export.text);
        }
    }
}

proptest! {
    #![proptest_config(cases(512))]

    /// Rules without constants and needless nesting come back as they went.
    #[test]
    fn what_is_exported_comes_back_equal(rules in draw::plain_rules()) {
        let export = cedar::export(&rules).unwrap();
        prop_assert_eq!(&export.left_out, &Vec::new());
        let back = cedar::import("a.cedar", &export.text).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut needed = without(&rules, &export.unneeded.iter().collect::<Vec<_>>());
        needed.sort_by_key(|rule| export.kept.iter().position(|id| *id == rule.id));
        prop_assert_eq!(back.rules, needed, "{}", export.text);
        prop_assert!(back.left_out.is_empty() && back.raised.is_empty());
    }
}

proptest! {
    #![proptest_config(cases(768))]

    /// Text of the subset that nobody exported, priorities that mean nothing there included.
    #[test]
    fn what_is_imported_decides_here_as_there(text in draw::policies(), asked in asked()) {
        let policies = parsed(&text)?;
        let import = cedar::import("a.cedar", &text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        // An `if` in an `if` can nest deeper than a rule may.
        let too_much = |one: &cedar::NotImported| one.why.contains("nested deeper") || one.why.contains("conditions");
        prop_assert!(import.left_out.iter().all(too_much), "{:?}\n{}", import.left_out, text);
        prop_assume!(import.left_out.is_empty());
        same_decisions(&text, &policies, import.rules, &asked)?;
    }
}

fn same_decisions(
    text: &str,
    policies: &PolicySet,
    rules: Vec<PolicyRule>,
    asked: &[(usize, AxiomTime)],
) -> Result<(), TestCaseError> {
    let state = WORLD.with(rules);
    for (number, now) in asked {
        let question = &WORLD.questions[*number];
        let there = WORLD.cedar_allows(policies, question, *now).map_err(TestCaseError::fail)?;
        let here = WORLD.effect(&state, question, *now) == PolicyEffect::Allow;
        prop_assert_eq!(there, here, "{:?} at {}\n{}", question.ours, now.0, text);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(768))]

    /// Text with words of all of Cedar's grammar thrown in, taken out and exchanged: what Cedar reads is no malformed text
    /// here; what is imported whole, Cedar reads and decides the same; and what is left out of what remains changes the
    /// decisions in the direction that was said.
    #[test]
    fn changed_text_is_read_as_cedar_reads_it(text in draw::changed_policies(), asked in asked()) {
        let (here, there) = (cedar::import("a.cedar", &text), PolicySet::from_str(&text));
        match (here, there) {
            (Ok(import), Ok(policies)) if import.left_out.is_empty() => {
                same_decisions(&text, &policies, import.rules, &asked)?;
            }
            (Ok(import), Ok(policies)) => {
                let state = WORLD.with(import.rules);
                let allows_more = import.left_out.iter().any(|one| one.without == Without::AllowsMore);
                for (number, now) in &asked {
                    let question = &WORLD.questions[*number];
                    let [principal, action, resource] = question.cedar.clone();
                    let context = Context::from_pairs([(
                        words::NOW.to_owned(),
                        RestrictedExpression::new_long(i64::try_from(now.0).unwrap()),
                    )]).unwrap();
                    let request = Request::new(principal, action, resource, context, None).unwrap();
                    let answer = Authorizer::new().is_authorized(&request, &policies, &WORLD.entities);
                    let allowed = WORLD.effect(&state, question, *now) == PolicyEffect::Allow;
                    prop_assert!(!allowed || allows_more || answer.decision() == Decision::Allow, "{}", text);
                }
            }
            (Ok(import), Err(error)) => {
                prop_assert!(!import.left_out.is_empty(), "imported, but Cedar refuses: {:?}\n{}", error, text);
            }
            (Err(error), Ok(_)) => prop_assert!(false, "Cedar reads what is refused here: {error}\n{text}"),
            (Err(_), Err(_)) => {}
        }
    }
}

/// That the rest of this file asks about something: both answers occur, by every kind of request.
#[test]
fn the_questions_are_of_every_kind() {
    let kinds: HashSet<ActionKind> = WORLD.questions.iter().map(|one| one.ours.action.kind()).collect();
    assert_eq!(kinds.len(), 22);
    let types: HashSet<ResourceType> =
        WORLD.questions.iter().map(|one| one.ours.resource.resource_type).collect();
    assert_eq!(types.len(), 10);
    let always = WORLD.with(policy::rules::parse("a", draw::ALLOW_ALL, IdentityId([0; 32])).unwrap());
    for question in &WORLD.questions {
        assert_eq!(WORLD.effect(&always, question, NOW), PolicyEffect::Allow, "{:?}", question.ours);
    }
    let ids: std::collections::BTreeSet<&ResourceRef> =
        WORLD.questions.iter().map(|one| &one.ours.resource).collect();
    assert!(ids.len() > 20, "{}", ids.len());
}
