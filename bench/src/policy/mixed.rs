//! Rules of all condition kinds at once, and how long the slowest hundredth of the decisions takes.

use base::DurationNs;

use super::{
    ActionKind, ActionMatcher, AxiomRef, AxiomTime, Contestant, Hash, IdentityCreated, IdentityMatcher,
    IdentityType, KeyPath, Part, Payload, PolicyCondition, PolicyEffect, PolicyState, PublicKey, QUESTIONS,
    Question, ResourceMatcher, ResourceRef, ResourceType, Row, Sequence, Subject, Unit, added, asker,
    envelope, folder, request, rule, user_id,
};
use crate::report::quantile;

const RULES: usize = 10_000;
/// Forms of rules; they take turns.
const FORMS: usize = 10;
const BY_GROUP: usize = 3;
const BY_TYPE: usize = 4;
/// Users of one group.
const GROUP: usize = 10;
const GOAL_HALF_NS: f64 = 1_000.0;
const GOAL_P99_NS: f64 = 5_000.0;

pub(super) fn add(part: &mut Part, rounds: usize) -> anyhow::Result<()> {
    let state = state()?;
    let questions: Vec<_> = (0..QUESTIONS).map(question).collect();
    let requests: Vec<_> = questions.iter().map(request).collect::<Result<_, _>>()?;
    // The clock's own cost, some tens of nanoseconds, is in each sample.
    let mut ours = Contestant { handful: 1, ..Contestant::ours("decide", asker(&state, &requests)) };
    let (mut half, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.ns.clear();
        ours.round(&questions)?;
        ours.ns.sort_by(f64::total_cmp);
        half.push(quantile(&ours.ns, 0.5));
        p99.push(quantile(&ours.ns, 0.99));
    }
    let what = |part: &str| format!("decision in process, {RULES} rules of all kinds, {part}");
    let row = |what, samples: &mut Vec<f64>, goal| {
        Row::new(what, Unit::Nanoseconds, vec![Subject::ours("decide", samples)]).goal(goal)
    };
    part.rows.push(row(what("half of them within"), &mut half, GOAL_HALF_NS));
    part.rows.push(row(what("99 % within"), &mut p99, GOAL_P99_NS));
    Ok(())
}

/// As everywhere, but for folders that others may read as well: nobody asks for somebody else's of these.
fn question(n: usize) -> Question {
    let user = n * 7919 % RULES;
    let others = match (user + 1) % FORMS {
        BY_GROUP | BY_TYPE => (user + 3) % RULES,
        _ => (user + 1) % RULES,
    };
    Question { user, folder: if n.is_multiple_of(2) { user } else { others } }
}

fn group(user: usize) -> usize {
    RULES + user / GROUP
}

fn state() -> anyhow::Result<PolicyState> {
    let mut state = PolicyState::default();
    let mut payloads = Vec::with_capacity(2 * RULES + RULES / GROUP + 1);
    let identity = |n: usize, name: String, identity_type, parent| -> anyhow::Result<Payload> {
        Ok(Payload::IdentityCreated(envelope(IdentityCreated {
            identity_id: user_id(n),
            name,
            identity_type,
            parent,
            public_key: PublicKey([0; 32]),
            key_path: KeyPath::parse(&format!("/orbital/users/{n}"))?,
        })))
    };
    for n in (0..RULES).step_by(GROUP) {
        payloads.push(identity(group(n), format!("group{n}@example"), IdentityType::Organization, None)?);
    }
    for n in 0..RULES {
        let name = format!("user{n}@example");
        payloads.push(identity(n, name, IdentityType::User, Some(user_id(group(n))))?);
    }
    payloads.push(added(rule("default-deny", 0, PolicyEffect::Deny, PolicyCondition::Always)?));
    for n in 0..RULES {
        payloads.push(added(rule(&format!("rule-{n}"), 100, PolicyEffect::Allow, condition(n))?));
    }
    for (sequence, payload) in (0..).zip(&payloads) {
        state.apply(AxiomRef { sequence: Sequence(sequence), hash: Hash::ZERO }, payload);
    }
    anyhow::ensure!(state.rules().len() == RULES + 1, "a rule was not taken");
    Ok(state)
}

fn condition(n: usize) -> PolicyCondition {
    use PolicyCondition::{Action, After, And, Before, Identity, Never, Not, Or, RateLimit, Resource};
    let user = || Identity(IdentityMatcher::Exact(user_id(n)));
    let below = || Resource(ResourceMatcher::PathPrefix(folder(n)));
    let file = || {
        let id = format!("{}/notes/today.txt", folder(n));
        Resource(ResourceMatcher::Exact(ResourceRef { resource_type: ResourceType::File, id }))
    };
    And(match n % FORMS {
        0 => vec![
            user(),
            Action(ActionMatcher::AnyOf(vec![ActionKind::ReadFile, ActionKind::WriteFile])),
            below(),
        ],
        1 => vec![user(), Action(ActionMatcher::Kind(ActionKind::ReadFile)), file()],
        2 => vec![Identity(IdentityMatcher::Pattern(format!("user{n}@*"))), below()],
        BY_GROUP => vec![Identity(IdentityMatcher::Group(user_id(group(n)))), below()],
        BY_TYPE => vec![
            Identity(IdentityMatcher::Type(IdentityType::User)),
            Resource(ResourceMatcher::Pattern(format!("{}/notes/*.txt", folder(n)))),
        ],
        5 => vec![user(), Not(Box::new(Identity(IdentityMatcher::Type(IdentityType::Service)))), below()],
        6 => vec![user(), Or(vec![Never, file(), below()])],
        7 => vec![user(), After(AxiomTime(0)), Before(AxiomTime(u64::MAX)), below()],
        8 => vec![user(), RateLimit { count: u32::MAX, window: DurationNs(1) }, below()],
        _ => vec![user(), Resource(ResourceMatcher::Type(ResourceType::File)), below()],
    })
}
