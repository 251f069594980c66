//! What fits the state (AX-44), and what each entry makes of it.

use base::{JobId, TokenId};
use chain::payload::{
    Body, Payload,
    capability::{CapabilityGrant, CapabilityRevoke},
    identity::{
        IdentityChange, IdentityCreated, IdentityStatus, IdentityType, IdentityUpdated, KeyOperation,
        KeyUsage,
    },
    job::{JobComplete, JobFailed, JobStart},
    policy::{PolicyCondition, PolicyRule, PolicyRuleAdded, PolicyRuleRemoved},
    process::{ProcessCreate, ProcessKill, ResourceLimits, ResourceUsage, Signal},
    service::{ServiceError, ServiceFailed, ServiceStop},
};

use super::*;

/// Sequence that the next entry would get.
const NEXT: Sequence = Sequence(5);

fn payload<T: Body>(body: T) -> Payload {
    cited(None, body)
}

fn cited<T: Body>(authorization: Option<Hash>, body: T) -> Payload {
    let bytes = envelope(0, authorization, body).to_bytes().unwrap();
    Payload::decode(T::ENTRY_TYPE, &bytes).unwrap()
}

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn id(n: u8) -> IdentityId {
    IdentityId::of_key(&key(n))
}

fn created(n: u8, parent: Option<u8>) -> IdentityCreated {
    IdentityCreated {
        identity_id: id(n),
        name: format!("user{n}"),
        identity_type: IdentityType::User,
        parent: parent.map(id),
        public_key: key(n),
        key_path: KeyPath::parse("/orbital/users/user").unwrap(),
    }
}

fn status(n: u8, old: IdentityStatus, new: IdentityStatus) -> Payload {
    let change = IdentityChange::Status { old, new, by: id(1), reason: "x".into() };
    payload(IdentityUpdated { identity: id(n), change })
}

fn revoke(n: u8) -> Payload {
    let capability = CapabilityId([n; 16]);
    payload(CapabilityRevoke { capability, by: id(1), reason: "x".into() })
}

fn register(name: &str) -> Payload {
    payload(ServiceRegister {
        name: name.into(),
        version: "0.1.0".into(),
        service_type: ServiceType::Core,
        binary: Hash::ZERO,
        manifest: Hash::ZERO,
        key_path: KeyPath::parse("/orbital/services/axiom").unwrap(),
    })
}

fn start(name: &str) -> Payload {
    let name = name.into();
    payload(ServiceStart { name, pid: 2, binary: Hash::ZERO, restarts: 0, late: false, missing: vec![] })
}

fn process(pid: u64) -> Payload {
    payload(ProcessCreate {
        pid: ProcessId(pid),
        image: Hash::ZERO,
        identity: id(1),
        capabilities: vec![],
        limits: ResourceLimits::default(),
        by: id(1),
        args_hash: Hash::ZERO,
        name: "p".into(),
        grants: vec![],
        missing: vec![],
    })
}

fn kill(pid: u64) -> Payload {
    payload(ProcessKill { pid: ProcessId(pid), signal: Signal::Term, by: id(1), reason: "x".into() })
}

fn rule(name: &str) -> Payload {
    let rule = PolicyRule {
        id: RuleId::new(name).unwrap(),
        name: name.into(),
        description: String::new(),
        priority: 1,
        condition: PolicyCondition::Always,
        effect: PolicyEffect::Deny,
        restrictions: vec![],
    };
    payload(PolicyRuleAdded { rule, created_by: id(1) })
}

fn no_rule(name: &str) -> Payload {
    payload(PolicyRuleRemoved { rule: RuleId::new(name).unwrap(), removed_by: id(1) })
}

fn at(sequence: u64) -> AxiomRef {
    AxiomRef { sequence: Sequence(sequence), hash: Hash::ZERO }
}

const JOB: JobId = JobId([7; 16]);

fn job_start(sequence: u64) -> Payload {
    payload(JobStart { job: JOB, submitted: at(sequence) })
}

fn job_end(sequence: u64) -> Payload {
    let (outputs, usage) = (vec![], ResourceUsage::default());
    payload(JobComplete { job: JOB, submitted: at(sequence), outputs, usage })
}

fn job_failure(sequence: u64) -> Payload {
    payload(JobFailed { job: JOB, submitted: at(sequence), error: String::new(), text: String::new() })
}

fn receipt_of(sequence: u64) -> Payload {
    payload(Receipt {
        axiom_entry: AxiomRef { sequence: Sequence(sequence), hash: Hash::ZERO },
        inputs: vec![],
        outputs: vec![],
        environment: Hash::ZERO,
        status: ReceiptStatus::Success,
        proof: None,
    })
}

fn usage(authorization: Option<Hash>, sequence: u64) -> Payload {
    let body = KeyUsage {
        identity: id(1),
        key_path: KeyPath::parse("/orbital/users/user").unwrap(),
        operation: KeyOperation::Sign,
        message_hash: None,
        authorization: AxiomRef { sequence: Sequence(sequence), hash: Hash::ZERO },
        output_hash: None,
        refused: None,
        reason: None,
        epoch: None,
        rotation: None,
    };
    cited(authorization, body)
}

/// Capabilities 1 (read), 2 below it and 3 taken back; identities 1 and 2, the second suspended; a service `axiom`,
/// a program 7, a rule `r`.
fn filled() -> ControlState {
    let mut state = ControlState::default();
    for payload in [
        payload(grant(1, None, false)),
        payload(grant(2, Some(1), false)),
        payload(grant(3, None, true)),
        revoke(3),
        payload(created(1, None)),
        payload(created(2, Some(1))),
        status(2, IdentityStatus::Active, IdentityStatus::Suspended),
        register("axiom"),
        process(7),
        rule("r"),
    ] {
        state.apply(Sequence(1), &payload);
    }
    state
}

/// covers: AX-44
#[test]
fn an_entry_fits_what_is_there_or_says_what_is_missing_or_in_its_way() {
    use IdentityStatus::{Active, Revoked, Suspended};
    let (fits, missing, conflict) =
        (None, Some(RejectionReason::ResourceNotFound), Some(RejectionReason::InvalidPayload));
    let stolen = IdentityCreated { public_key: key(8), ..created(9, None) };
    let token = IdentityChange::TokenRevoked { token: TokenId([0; 16]), by: id(1) };
    let grant = |id, parent, write| -> Payload { payload::<CapabilityGrant>(grant(id, parent, write)) };
    let genesis = Payload::decode(0, &genesis().0.payload).unwrap();
    let stop = payload(ServiceStop { name: "nobody".into(), reason: "x".into(), late: false });
    let state = filled();
    for (entry, expected) in [
        (genesis, conflict),
        (grant(9, None, true), fits),
        (grant(1, None, true), conflict),
        (grant(3, None, true), conflict),
        (grant(9, Some(1), false), fits),
        (grant(9, Some(1), true), conflict),
        (grant(9, Some(8), false), missing),
        (grant(9, Some(3), false), missing),
        (revoke(1), fits),
        (revoke(3), missing),
        (revoke(9), missing),
        (start("axiom"), fits),
        (start("nobody"), missing),
        (process(8), fits),
        (process(7), conflict),
        (payload(exit_of(7)), fits),
        (payload(exit_of(8)), missing),
        (kill(7), fits),
        (kill(8), missing),
        (receipt_of(NEXT.0 - 1), fits),
        (receipt_of(NEXT.0), missing),
        (receipt_of(NEXT.0 + 1), missing),
        (job_start(NEXT.0 - 1), fits),
        (job_start(NEXT.0), missing),
        (job_end(NEXT.0 - 1), fits),
        (job_end(NEXT.0), missing),
        (job_failure(NEXT.0 - 1), fits),
        (job_failure(NEXT.0), missing),
        (usage(None, NEXT.0 - 1), fits),
        (usage(None, NEXT.0), missing),
        (usage(None, NEXT.0 + 1), missing),
        (usage(Some(Hash::ZERO), NEXT.0 + 1), fits),
        (rule("new"), fits),
        (rule("r"), conflict),
        (no_rule("r"), fits),
        (no_rule("new"), missing),
        (payload(created(9, None)), fits),
        (payload(created(9, Some(1))), fits),
        (payload(created(9, Some(8))), missing),
        (payload(created(1, None)), conflict),
        (payload(stolen), conflict),
        (status(1, Active, Suspended), fits),
        (status(1, Active, Active), conflict),
        (status(1, Suspended, Revoked), conflict),
        (status(2, Suspended, Active), fits),
        (status(9, Active, Suspended), missing),
        (payload(IdentityUpdated { identity: id(1), change: token.clone() }), fits),
        (payload(IdentityUpdated { identity: id(9), change: token }), missing),
        (payload(Shutdown { reason: "x".into() }), fits),
        (stop, fits),
    ] {
        let found = state.check(&entry, NEXT);
        assert_eq!(found.as_ref().err().map(|(reason, _)| *reason), expected, "{entry:?}");
    }
}

#[test]
fn a_refusal_names_what_is_missing_or_in_the_way() {
    let text = |entry: Payload| filled().check(&entry, NEXT).unwrap_err().1;
    assert!(text(start("nobody")).contains("service nobody"));
    assert!(text(rule("r")).contains("rule r"));
}

/// covers: AX-50
#[test]
fn each_entry_changes_its_own_part() {
    let mut state = filled();
    let status_of = |state: &ControlState| state.services.get("axiom").unwrap().status;
    assert_eq!(status_of(&state), ServiceStatus::Registered);
    let name = || "axiom".to_owned();
    let failed =
        ServiceFailed { name: name(), error: ServiceError::HealthTimeout, text: "x".into(), late: false };
    for (entry, expected) in [
        (start("axiom"), ServiceStatus::Started),
        (payload(ServiceStop { name: name(), reason: "x".into(), late: false }), ServiceStatus::Stopped),
        (payload(failed), ServiceStatus::Failed),
    ] {
        state.apply(NEXT, &entry);
        assert_eq!(status_of(&state), expected);
    }
    let before = state.clone();
    state.apply(NEXT, &start("nobody"));
    state.apply(NEXT, &status(9, IdentityStatus::Active, IdentityStatus::Revoked));
    assert_eq!(state, before, "what is not there stays away");
    assert_eq!(state.identities.get(&id(2)).unwrap().status, IdentityStatus::Suspended);
    assert_eq!(state.identities.get(&id(1)).unwrap().status, IdentityStatus::Active);
    assert_eq!(state.policy.get(&RuleId::new("r").unwrap()).unwrap().created_at, Sequence(1));
    state.apply(NEXT, &no_rule("r"));
    assert!(state.policy.is_empty());
    assert!(state.processes.contains_key(&ProcessId(7)));
    state.apply(NEXT, &payload(exit_of(7)));
    assert!(state.processes.is_empty());
}

/// covers: PRC-43
#[test]
fn what_a_program_may_goes_with_its_end() {
    let mut state = filled();
    let with = |pid: u64, capability: u8| {
        payload(ProcessCreate {
            pid: ProcessId(pid),
            image: Hash::ZERO,
            identity: id(1),
            capabilities: vec![CapabilityId([capability; 16])],
            limits: ResourceLimits::default(),
            by: id(1),
            args_hash: Hash::ZERO,
            name: "p".into(),
            grants: vec![],
            missing: vec![],
        })
    };
    let held = |state: &ControlState| -> Vec<(u64, u8)> {
        let of = |(pid, create): (&ProcessId, &ProcessCreate)| {
            create.capabilities.iter().map(|capability| (pid.0, capability.0[0])).collect::<Vec<_>>()
        };
        state.processes.iter().flat_map(of).collect()
    };
    for (pid, capability) in [(21, 1), (22, 2), (23, 1)] {
        state.apply(NEXT, &with(pid, capability));
    }
    assert_eq!(held(&state), [(21, 1), (22, 2), (23, 1)]);
    // A signal that was decided has ended nobody yet.
    state.apply(NEXT, &kill(21));
    assert_eq!(held(&state), [(21, 1), (22, 2), (23, 1)]);
    // One was killed, one has ended by itself; a third goes on with the same capability.
    for pid in [21, 22] {
        state.apply(NEXT, &payload(exit_of(pid)));
    }
    assert_eq!(held(&state), [(23, 1)]);
    // Whoever lent it keeps it.
    let before = state.capabilities.clone();
    state.apply(NEXT, &payload(exit_of(23)));
    assert_eq!((held(&state), &state.capabilities), (vec![], &before));
}

#[test]
fn what_was_derived_from_a_revoked_capability_falls_with_it_and_nothing_else() {
    let mut state = ControlState::default();
    for (id, parent) in [(1, None), (2, Some(1)), (3, Some(2)), (4, Some(1)), (5, Some(4)), (6, None)] {
        state.apply(Sequence(1), &payload(grant(id, parent, true)));
    }
    let revoked = |state: &ControlState| -> Vec<u8> {
        state.capabilities.all().iter().filter(|(_, record)| record.revoked).map(|(id, _)| id.0[0]).collect()
    };
    state.apply(NEXT, &revoke(4));
    assert_eq!(revoked(&state), [4, 5]);
    let mut read_back = ControlState::from_bytes(&state.to_bytes()).unwrap();
    for state in [&mut state, &mut read_back] {
        state.apply(NEXT, &revoke(1));
        assert_eq!(revoked(state), [1, 2, 3, 4, 5]);
        state.apply(NEXT, &revoke(6));
    }
    assert_eq!(ControlState::from_bytes(&state.to_bytes()).unwrap(), state);
    assert_eq!(read_back, state);
}

/// covers: AX-29
#[test]
fn genesis_fills_the_state() {
    let Payload::Genesis(mut entry) = Payload::decode(0, &genesis().0.payload).unwrap() else { panic!() };
    entry.body.identities = vec![created(1, None), created(2, Some(1))];
    let Payload::PolicyRuleAdded(added) = rule("r") else { panic!() };
    entry.body.rules = vec![added.body.rule.clone()];
    let mut state = ControlState::default();
    state.apply(Sequence(0), &Payload::Genesis(entry.clone()));
    assert_eq!(state.system_image, Some(entry.body.image_hash));
    assert_eq!(state.identities.keys().copied().collect::<Vec<_>>().len(), 2);
    assert!(state.identities.values().all(|record| record.status == IdentityStatus::Active));
    assert_eq!(state.capabilities.all().keys().copied().collect::<Vec<_>>(), [CapabilityId([1; 16])]);
    assert_eq!(state.policy.len(), 1);
}
