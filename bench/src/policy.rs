//! One decision in process, at growing numbers of rules, beside what a user would take instead.
//!
//! Each rule allows one user to read and write below one folder; a default denies. Half of the questions are allowed.
//! All engines answer the same questions in turn, round by round, and must agree. Peers take part with `--features peers`;
//! each is fed in the form that suits it best (Cedar: folders as entities; Rego: rules in an object by user).

mod mixed;

use std::{hint::black_box, time::Instant};

use anyhow::{Context, ensure};
use base::{AxiomRef, AxiomTime, EntryKey, Hash, IdentityId, KeyPath, Nonce, PublicKey, RuleId, Sequence};
use chain::payload::{
    Envelope, Payload,
    identity::{IdentityCreated, IdentityType},
    policy::{
        ActionKind, ActionMatcher, IdentityMatcher, PolicyAction, PolicyCondition, PolicyContext,
        PolicyEffect, PolicyRequest, PolicyRule, PolicyRuleAdded, ResourceMatcher, ResourceRef, ResourceType,
    },
};
use policy::core::{PolicyState, decide, evaluate};

use crate::report::{Part, Row, Subject, Unit};

/// Rules besides the default.
const RULES: [usize; 3] = [10, 1_000, 10_000];
const ROUNDS: usize = 31;
const ROUNDS_QUICK: usize = 5;
/// Spread over all rules, so that no engine answers from a warm corner.
const QUESTIONS: usize = 4096;
/// A round of a slow engine stops after so long, in milliseconds.
const ROUND_MS_MAX: u128 = 60;
/// Questions between two looks at the clock, which costs some tens of nanoseconds.
const HANDFUL: usize = 16;
const NOW: AxiomTime = AxiomTime(1_767_225_600_000_000_000);

/// User `user` reads below the folder of user `folder`: allowed if these are the same.
#[derive(Clone, Copy)]
pub(crate) struct Question {
    pub(crate) user: usize,
    pub(crate) folder: usize,
}

/// Answers question number `n` of those it was made with.
type Ask<'a> = Box<dyn FnMut(usize) -> anyhow::Result<bool> + 'a>;

struct Contestant<'a> {
    name: &'static str,
    ours: bool,
    ask: Ask<'a>,
    /// Questions between two looks at the clock.
    handful: usize,
    ns: Vec<f64>,
}

impl<'a> Contestant<'a> {
    fn ours(name: &'static str, ask: Ask<'a>) -> Self {
        Self { name, ours: true, ask, handful: HANDFUL, ns: Vec::new() }
    }

    #[cfg(feature = "peers")]
    fn peer(name: &'static str, ask: Ask<'a>) -> Self {
        Self { name, ours: false, ask, handful: HANDFUL, ns: Vec::new() }
    }

    /// One sample for each handful of questions, so that a moment in which something else had the processor is one
    /// sample and not a part of all.
    fn round(&mut self, questions: &[Question]) -> anyhow::Result<()> {
        let begin = Instant::now();
        for (handful, asked) in questions.chunks(self.handful).enumerate() {
            let start = Instant::now();
            for (n, question) in asked.iter().enumerate() {
                let n = handful * self.handful + n;
                let allowed = (self.ask)(n)?;
                ensure!(
                    allowed == (question.user == question.folder),
                    "{} answers question {n} wrongly",
                    self.name
                );
            }
            self.ns.push(start.elapsed().as_secs_f64() * 1e9 / asked.len() as f64);
            if begin.elapsed().as_millis() > ROUND_MS_MAX {
                break;
            }
        }
        Ok(())
    }

    fn measured(&mut self) -> Subject {
        if self.ours {
            Subject::ours(self.name, &mut self.ns)
        } else {
            Subject::peer(self.name, &mut self.ns)
        }
    }
}

pub(crate) fn run(quick: bool) -> anyhow::Result<Part> {
    let mut part = Part::new("policy");
    for rules in RULES {
        let questions: Vec<_> = (0..QUESTIONS).map(|n| question(n, rules)).collect();
        let by_user = state_of(rules, Shape::ByUser)?;
        let by_folder = state_of(rules, Shape::ByFolder)?;
        let requests: Vec<_> = questions.iter().map(request).collect::<Result<_, _>>()?;
        let one_user: Vec<_> = questions.iter().map(one_user).collect::<Result<_, _>>()?;
        let mut all = Vec::from([
            Contestant::ours("decide", asker(&by_user, &requests)),
            Contestant::ours("decide, all rules for one user", asker(&by_folder, &one_user)),
            Contestant::ours(
                "with request hash and decision body",
                Box::new(|n| {
                    let request = requests.get(n).context("question")?;
                    Ok(black_box(evaluate(&by_user, request, NOW)?).allows())
                }),
            ),
        ]);
        #[cfg(feature = "peers")]
        crate::policy_peers::add(&mut |name, ask| all.push(Contestant::peer(name, ask)), rules, &questions)?;
        for _ in 0..if quick { ROUNDS_QUICK } else { ROUNDS } {
            all.iter_mut().try_for_each(|one| one.round(&questions))?;
        }
        let subjects = all.iter_mut().map(Contestant::measured).collect();
        part.rows.push(Row::new(format!("decision in process, {rules} rules"), Unit::Nanoseconds, subjects));
    }
    mixed::add(&mut part, if quick { ROUNDS_QUICK } else { ROUNDS })?;
    Ok(part)
}

fn asker<'a>(state: &'a PolicyState, requests: &'a [PolicyRequest]) -> Ask<'a> {
    Box::new(|n| {
        let verdict = black_box(decide(state, requests.get(n).context("question")?, NOW));
        Ok(verdict.effect == PolicyEffect::Allow)
    })
}

/// Spread over all rules; every second one asks for the folder of somebody else.
fn question(n: usize, rules: usize) -> Question {
    let user = n * 7919 % rules;
    Question { user, folder: if n.is_multiple_of(2) { user } else { (user + 1) % rules } }
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// A user for each rule.
    ByUser,
    /// One user; the folders of odd questions have no rule.
    ByFolder,
}

fn user_id(n: usize) -> IdentityId {
    IdentityId(Hash::of(&n.to_le_bytes()).0)
}

fn folder(n: usize) -> String {
    format!("/data/projects/{n}")
}

fn request(question: &Question) -> anyhow::Result<PolicyRequest> {
    Ok(reading(user_id(question.user), format!("{}/notes/today.txt", folder(question.folder))))
}

fn one_user(question: &Question) -> anyhow::Result<PolicyRequest> {
    let refused = question.user != question.folder;
    let folder = if refused { format!("/data/others/{}", question.folder) } else { folder(question.folder) };
    Ok(reading(user_id(0), format!("{folder}/notes/today.txt")))
}

fn reading(requestor: IdentityId, path: String) -> PolicyRequest {
    PolicyRequest {
        requestor,
        action: PolicyAction::ReadFile { path: path.clone() },
        resource: ResourceRef { resource_type: ResourceType::File, id: path },
        context: PolicyContext { service: "filesystem".to_owned(), ..PolicyContext::default() },
        nonce: Nonce([1; 16]),
        signature: None,
    }
}

fn state_of(rules: usize, shape: Shape) -> anyhow::Result<PolicyState> {
    let mut state = PolicyState::default();
    let mut payloads = Vec::with_capacity(rules * 2 + 2);
    let users = if shape == Shape::ByUser { rules } else { 1 };
    for n in 0..users {
        payloads.push(Payload::IdentityCreated(envelope(IdentityCreated {
            identity_id: user_id(n),
            name: format!("user{n}@example"),
            identity_type: IdentityType::User,
            parent: None,
            public_key: PublicKey([0; 32]),
            key_path: KeyPath::parse(&format!("/orbital/users/{n}"))?,
        })));
    }
    let last = rule("default-deny", 0, PolicyEffect::Deny, PolicyCondition::Always)?;
    payloads.push(added(last));
    for n in 0..rules {
        let user = if shape == Shape::ByUser { n } else { 0 };
        let condition = PolicyCondition::And(vec![
            PolicyCondition::Identity(IdentityMatcher::Exact(user_id(user))),
            PolicyCondition::Action(ActionMatcher::AnyOf(vec![ActionKind::ReadFile, ActionKind::WriteFile])),
            PolicyCondition::Resource(ResourceMatcher::PathPrefix(folder(n))),
        ]);
        payloads.push(added(rule(&format!("rule-{n}"), 100, PolicyEffect::Allow, condition)?));
    }
    for (sequence, payload) in (0..).zip(&payloads) {
        state.apply(AxiomRef { sequence: Sequence(sequence), hash: Hash::ZERO }, payload);
    }
    Ok(state)
}

fn rule(
    id: &str,
    priority: u32,
    effect: PolicyEffect,
    condition: PolicyCondition,
) -> anyhow::Result<PolicyRule> {
    Ok(PolicyRule {
        id: RuleId::new(id)?,
        name: id.to_owned(),
        description: String::new(),
        priority,
        condition,
        effect,
        restrictions: Vec::new(),
    })
}

fn added(rule: PolicyRule) -> Payload {
    Payload::PolicyRuleAdded(envelope(PolicyRuleAdded { rule, created_by: user_id(0) }))
}

fn envelope<T>(body: T) -> Box<Envelope<T>> {
    Box::new(Envelope { submitter: user_id(0), key: EntryKey([0; 16]), authorization: None, body })
}
