use std::collections::BTreeMap;

use base::{
    AxiomRef, AxiomTime, CapabilityId, ConnectionId, DurationNs, EntryKey, Hash, IdentityId, JobId, Nonce,
    ProcessId, PublicKey, RuleId, Sequence, Signature, TokenId, TreeId, cbor,
};
use chain::{
    ChainPoint, Entry, EntryType, GroupBuilder, SegmentHeader,
    payload::{
        Body, Envelope, Receipt, ReceiptStatus,
        capability::{
            CapabilityGrant, CapabilityRevoke, ObjectType, Permissions, RateLimit, Resource, Restrictions,
            TimeRestriction,
        },
        identity::{
            IdentityChange, IdentityCreated, IdentityStatus, IdentityType, IdentityUpdated, KeyOperation,
            KeyUsage,
        },
        image::{ImageForm, ImageImport, ImageRemove},
        job::{JobComplete, JobFailed, JobOutput, JobStart, JobSubmit},
        network::{
            CallLimits, ConnectionAuthorize, ConnectionRevoke, Direction, NetworkGrant, NetworkPolicyUpdate,
            ProcessClass, Protocol, UrlRule,
        },
        policy::{
            DecisionBody, DecisionSignature, PolicyAction, PolicyContext, PolicyEffect, PolicyRuleAdded,
            PolicyRuleRemoved, SignedDecision,
        },
        process::{
            ExitStatus, ProcessCreate, ProcessExit, ProcessKill, RefusedCall, ResourceLimits, ResourceUsage,
            Signal,
        },
        service::{
            ClockSet, Genesis, ServiceError, ServiceFailed, ServiceLate, ServiceRegister, ServiceStart,
            ServiceStop, ServiceType, Shutdown,
        },
    },
};

use crate::{Seeds, chosen, named};

const ONE: IdentityId = IdentityId([1; 32]);
const TWO: IdentityId = IdentityId([2; 32]);
const KEY: PublicKey = PublicKey([3; 32]);
const IMAGE: Hash = Hash([4; 32]);
const SALT: [u8; 16] = [7; 16];

fn seed<T: Body>(name: &str, body: T) -> (String, Vec<u8>) {
    let authorization = Some(Hash([6; 32]));
    let envelope = Envelope { submitter: ONE, key: EntryKey([5; 16]), authorization, body };
    named(name, envelope.to_bytes().unwrap())
}

fn text(text: &str) -> String {
    text.to_owned()
}

pub(crate) fn all() -> Seeds {
    let mut seeds = services();
    seeds.extend(programs());
    seeds.extend(jobs());
    seeds.extend(images());
    seeds.extend(policy());
    seeds.extend(people());
    let (entry, hash) =
        Entry::next(Sequence(0), Hash::ZERO, AxiomTime(1), EntryType::Genesis, vec![1, 2]).unwrap();
    let mut group = GroupBuilder::new(Vec::new(), Sequence(0));
    group.push(&Entry { signature: Some(Signature([9; 64])), ..entry }, &hash).unwrap();
    let record = group.finish(&SALT).unwrap().split_off(chain::GROUP_HEADER_BYTES);
    seeds.push(named("record", record));
    seeds
}

fn services() -> Seeds {
    let key_path: base::KeyPath = "/orbital/services/web".parse().unwrap();
    let name = || text("web");
    let identity = IdentityCreated {
        identity_id: TWO,
        name: name(),
        identity_type: IdentityType::Service,
        parent: Some(ONE),
        public_key: KEY,
        key_path: key_path.clone(),
    };
    let genesis = Genesis {
        version: 1,
        image_hash: IMAGE,
        initial_capabilities: vec![grant()],
        genesis_time: AxiomTime(1),
        node_name: text("node-a"),
        node_key: KEY,
        sequencer_key: KEY,
        policy_key: KEY,
        identity_key: KEY,
        identities: vec![identity],
        admin: ONE,
        admin_uid: 0,
        rules: policy::rules::defaults(ONE).unwrap().split_off(5),
    };
    vec![
        seed("genesis", genesis),
        seed("shutdown", Shutdown { reason: text("asked") }),
        seed(
            "service_register",
            ServiceRegister {
                name: name(),
                version: text("1.0.0"),
                service_type: ServiceType::User,
                binary: IMAGE,
                manifest: IMAGE,
                key_path,
            },
        ),
        seed(
            "service_start",
            ServiceStart {
                name: name(),
                pid: 7,
                binary: IMAGE,
                restarts: 1,
                late: false,
                missing: vec![text("cgroup")],
            },
        ),
        seed("service_stop", ServiceStop { name: name(), reason: text("asked"), late: true }),
        seed(
            "service_failed",
            ServiceFailed {
                name: name(),
                error: ServiceError::Crashed { status: -9 },
                text: text("killed"),
                late: false,
            },
        ),
        seed("clock_set", ClockSet { by_ns: -1_000_000_000, wall_ns: 5 }),
        seed("service_late", ServiceLate { name: name(), text: text("no word") }),
    ]
}

fn grant() -> CapabilityGrant {
    CapabilityGrant {
        capability_id: CapabilityId([8; 16]),
        grantor: ONE,
        grantee: TWO,
        resource: Resource { object_type: ObjectType::File, object_id: text("/a") },
        permissions: Permissions { read: true, ..Permissions::default() },
        restrictions: Some(Restrictions {
            time: Some(TimeRestriction {
                not_before: None,
                not_after: Some(AxiomTime(9)),
                time_of_day: Some((60, 120)),
            }),
            rate_limit: Some(RateLimit { count: 3, window: DurationNs(1_000) }),
            context: BTreeMap::from([(text("k"), text("v"))]),
        }),
        parent: None,
    }
}

fn programs() -> Seeds {
    let pid = ProcessId(7);
    let refused = RefusedCall { call: text("openat"), target: text("/etc/shadow"), errno: 13, times: 2 };
    vec![
        seed(
            "process_create",
            ProcessCreate {
                pid,
                image: IMAGE,
                identity: TWO,
                capabilities: vec![CapabilityId([8; 16])],
                limits: ResourceLimits::default(),
                by: ONE,
                args_hash: Hash::ZERO,
                name: text("sh"),
                grants: vec![text("/data:rw")],
                missing: vec![],
            },
        ),
        seed(
            "process_exit",
            ProcessExit {
                pid,
                status: ExitStatus::Signal(9),
                usage: ResourceUsage::default(),
                refused: vec![refused],
            },
        ),
        seed("process_kill", ProcessKill { pid, signal: Signal::Term, by: ONE, reason: text("asked") }),
        seed(
            "connection_authorize",
            ConnectionAuthorize {
                connection: ConnectionId([6; 16]),
                direction: Direction::Outbound,
                protocol: Protocol::Raw { protocol: 47 },
                local: Some(text("192.0.2.9:40000")),
                remote: Some(text("[2001:db8::1]:443")),
                name: Some(text("example.com")),
                identity: TWO,
                process: pid,
                grant: NetworkGrant { bandwidth_limit: 9, ..NetworkGrant::UNLIMITED },
                secret: Some(text("key")),
            },
        ),
        seed(
            "connection_revoke",
            ConnectionRevoke { connection: ConnectionId([6; 16]), by: ONE, reason: text("over") },
        ),
        seed(
            "network_policy_update",
            NetworkPolicyUpdate {
                rules: vec![UrlRule {
                    id: text("web"),
                    applies_to: ProcessClass::Named(text("web")),
                    url_pattern: text("https://*"),
                    allow: true,
                    priority: 50,
                }],
                limits: CallLimits {
                    process_requests: 100,
                    process_window_ms: 60_000,
                    host_requests: 10,
                    host_window_ms: 1_000,
                    request_bytes: 1,
                    response_bytes: 2,
                    header_bytes: 3,
                    message_bytes: 4,
                },
                authorities: vec![text("-----BEGIN CERTIFICATE-----")],
                by: ONE,
            },
        ),
        seed(
            "receipt",
            Receipt {
                axiom_entry: AxiomRef { sequence: Sequence(4), hash: IMAGE },
                inputs: vec![IMAGE],
                outputs: vec![],
                environment: Hash::ZERO,
                status: ReceiptStatus::Failed { exit_code: -1 },
                proof: None,
            },
        ),
        seed("capability_grant", grant()),
        seed(
            "capability_revoke",
            CapabilityRevoke { capability: CapabilityId([8; 16]), by: ONE, reason: text("over") },
        ),
    ]
}

fn jobs() -> Seeds {
    let job = JobId([6; 16]);
    let submitted = AxiomRef { sequence: Sequence(4), hash: IMAGE };
    let output = JobOutput { name: text("count"), hash: IMAGE, size_bytes: 3 };
    let submit = JobSubmit {
        job,
        manifest: IMAGE,
        executable: IMAGE,
        inputs: vec![IMAGE],
        by: ONE,
        name: text("word-count"),
        process: ProcessId(7),
    };
    let usage = ResourceUsage::default();
    vec![
        seed("job_submit", submit),
        seed("job_start", JobStart { job, submitted }),
        seed("job_complete", JobComplete { job, submitted, outputs: vec![output], usage }),
        seed("job_failed", JobFailed { job, submitted, error: text("Timeout"), text: text("too long") }),
    ]
}

fn images() -> Seeds {
    let (name, tree) = (text("web"), TreeId([7; 32]));
    vec![
        seed(
            "image_import",
            ImageImport {
                name: name.clone(),
                tree,
                form: ImageForm::OciLayout,
                manifest: Some(TreeId([8; 32])),
                size_bytes: 300,
                entries: 2,
                by: ONE,
                taken_from: None,
            },
        ),
        seed("image_remove", ImageRemove { name, tree, by: ONE, taken_from: Some(ONE) }),
    ]
}

fn policy() -> Seeds {
    let action = PolicyAction::CreateProcess { image: IMAGE };
    let body = DecisionBody {
        request_hash: IMAGE,
        requestor: ONE,
        resource: action.resource().unwrap(),
        action,
        context: PolicyContext { service: text("process_manager"), ..PolicyContext::default() },
        nonce: Nonce([1; 16]),
        policy_state_hash: IMAGE,
        matched_rules: vec![RuleId::new("owner").unwrap()],
        effect: PolicyEffect::Deny,
        deciding_rule: RuleId::default_deny(),
        conditions: vec![],
        timestamp: AxiomTime(5),
        reason: Some(text("no rule")),
    };
    let signature =
        DecisionSignature { root: Signature([9; 64]), index: 1, count: 2, path: vec![Hash([1; 32])] };
    let rule = policy::rules::defaults(ONE).unwrap().swap_remove(2);
    vec![
        seed("policy_decision", SignedDecision { body: cbor::encode(&body), signature }),
        seed("policy_rule_removed", PolicyRuleRemoved { rule: rule.id.clone(), removed_by: ONE }),
        seed("policy_rule_added", PolicyRuleAdded { rule, created_by: ONE }),
    ]
}

fn people() -> Seeds {
    let key_path: base::KeyPath = "/orbital/users/alice".parse().unwrap();
    let updated = |change| IdentityUpdated { identity: TWO, change };
    vec![
        seed(
            "identity_created",
            IdentityCreated {
                identity_id: TWO,
                name: text("alice"),
                identity_type: IdentityType::User,
                parent: None,
                public_key: KEY,
                key_path: key_path.clone(),
            },
        ),
        seed(
            "identity_status",
            updated(IdentityChange::Status {
                old: IdentityStatus::Active,
                new: IdentityStatus::Suspended,
                by: ONE,
                reason: text("lost"),
            }),
        ),
        seed("token_revoked", updated(IdentityChange::TokenRevoked { token: TokenId([1; 16]), by: ONE })),
        seed(
            "key_usage",
            KeyUsage {
                identity: TWO,
                key_path,
                operation: KeyOperation::Sign,
                message_hash: Some(IMAGE),
                authorization: AxiomRef { sequence: Sequence(4), hash: IMAGE },
                output_hash: Some(IMAGE),
                refused: None,
                reason: None,
                epoch: None,
                rotation: None,
            },
        ),
    ]
}

pub(crate) fn segments() -> Seeds {
    let mut bytes = SegmentHeader::at(&ChainPoint::GENESIS, 4 * 4096, SALT).encode().to_vec();
    let mut body = GroupBuilder::new(Vec::new(), Sequence(0));
    let (entry, hash) =
        Entry::next(Sequence(0), Hash::ZERO, AxiomTime(1), EntryType::Genesis, b"payload".to_vec()).unwrap();
    body.push(&entry, &hash).unwrap();
    let group = body.finish(&SALT).unwrap();
    let records = group.get(chain::GROUP_HEADER_BYTES..).unwrap().to_vec();
    let after_header = group.clone();
    bytes.extend(group);
    vec![
        chosen("whole", 0, &bytes),
        chosen("groups", 1, &after_header),
        chosen("records", 2 + 4, &records),
        chosen("changed_entry", 3, b"\x02\x90\x01one\nbtwo\ncthree"),
        chosen("changed_header", 3, b"\x00\x10\x80one\n\x03two\n\x01three\n"),
        chosen("unchanged", 3, b"\x00\x00\x00\x01one\n\x02two\n\x03three\n\x00"),
    ]
}
