//! What the entries of authority hold, field by field: nothing that the log must tell is lost on the way through it.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

use std::collections::BTreeMap;

use base::{
    AxiomRef, AxiomTime, CapabilityId, ConnectionId, CredentialId, DurationNs, EntryKey, Hash, IdentityId,
    JobId, KeyPath, Nonce, ProcessId, PublicKey, RuleId, Sequence, Signature, TokenId, TreeId, cbor,
};
use chain::payload::{
    Body, Envelope, Payload,
    capability::{
        CapabilityGrant, ObjectType, Permissions, RateLimit, Resource, Restrictions, TimeRestriction,
    },
    identity::{
        CredentialAdded, CredentialBody, CredentialRevoked, IdentityChange, IdentityCreated, IdentityType,
        IdentityUpdated, KeyOperation, KeyUsage, PasskeyOrigin, Permission,
    },
    image::{ImageForm, ImageImport, ImageRemove},
    job::{JobComplete, JobFailed, JobOutput, JobStart, JobSubmit},
    network::{
        CallLimits, ConnectionAuthorize, Direction, NetworkGrant, NetworkPolicyUpdate, ProcessClass,
        Protocol, UrlRule,
    },
    policy::{
        DecisionBody, DecisionSignature, PolicyAction, PolicyCondition, PolicyContext, PolicyEffect,
        ResourceRef, ResourceType, SignedDecision,
    },
    process::ResourceUsage,
    service::{ClockSet, ServiceLate},
};
use serde::Serialize;

/// Encodes, decodes, compares, and gives the names of the fields in their order.
fn through_the_log<T: Body + Clone + PartialEq + std::fmt::Debug + Serialize>(
    body: &T,
    pick: impl Fn(Payload) -> Option<T>,
) -> Vec<String> {
    let envelope = Envelope {
        submitter: IdentityId([1; 32]),
        key: EntryKey([2; 16]),
        authorization: Some(Hash([3; 32])),
        body: body.clone(),
    };
    let decoded = Payload::decode(T::ENTRY_TYPE, &envelope.to_bytes().unwrap()).unwrap();
    assert_eq!(pick(decoded).as_ref(), Some(body));
    fields(body)
}

fn fields(body: &impl Serialize) -> Vec<String> {
    let text = serde_json::to_string(body).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    names.sort_by_key(|name| text.find(&format!("\"{name}\":")));
    names
}

fn grant() -> CapabilityGrant {
    let time = TimeRestriction {
        not_before: Some(AxiomTime(1)),
        not_after: Some(AxiomTime(2)),
        time_of_day: Some((3, 4)),
    };
    CapabilityGrant {
        capability_id: CapabilityId([4; 16]),
        grantor: IdentityId([5; 32]),
        grantee: IdentityId([6; 32]),
        resource: Resource { object_type: ObjectType::Endpoint, object_id: "fs.content".to_owned() },
        permissions: Permissions { read: true, write: false, execute: true, delegate: false, revoke: true },
        restrictions: Some(Restrictions {
            time: Some(time),
            rate_limit: Some(RateLimit { count: 5, window: DurationNs(6) }),
            context: BTreeMap::from([("device".to_owned(), "desk".to_owned())]),
        }),
        parent: Some(CapabilityId([7; 16])),
    }
}

/// covers: AX-30, CAP-20, CAP-23
#[test]
fn a_grant_tells_who_gave_whom_what_under_which_limits() {
    let pick = |payload| match payload {
        Payload::CapabilityGrant(entry) => Some(entry.body),
        _ => None,
    };
    let names = through_the_log(&grant(), pick);
    let expected =
        ["capability_id", "grantor", "grantee", "resource", "permissions", "restrictions", "parent"];
    assert_eq!(names, expected);
    let without = CapabilityGrant { restrictions: None, parent: None, ..grant() };
    through_the_log(&without, pick);
    assert_eq!(fields(&grant().permissions), ["read", "write", "execute", "delegate", "revoke"]);
    let restrictions = grant().restrictions.unwrap();
    assert_eq!(fields(&restrictions), ["time", "rate_limit", "context"]);
    assert_eq!(fields(&restrictions.time.unwrap()), ["not_before", "not_after", "time_of_day"]);
}

/// covers: CAP-21
#[test]
fn there_are_seven_kinds_of_objects() {
    use ObjectType::{Device, Endpoint, File, Memory, Process, Service, Socket};
    let kinds = [File, Endpoint, Process, Memory, Socket, Device, Service];
    let names = kinds.map(|kind| serde_json::to_string(&kind).unwrap());
    let expected = ["file", "endpoint", "process", "memory", "socket", "device", "service"];
    assert_eq!(names, expected.map(|name| format!("\"{name}\"")));
    for name in names {
        assert!(kinds.contains(&serde_json::from_str(&name).unwrap()));
    }
    assert!(serde_json::from_str::<ObjectType>("\"thread\"").is_err());
}

fn context() -> PolicyContext {
    PolicyContext {
        axiom_sequence: 8,
        service: "keys".to_owned(),
        process: ProcessId(9),
        metadata: BTreeMap::from([("identity".to_owned(), "x".to_owned())]),
    }
}

/// covers: AX-34, POL-43
#[test]
fn a_decision_tells_everything_that_it_was_made_from() {
    let key_path = KeyPath::parse("/orbital/users/alice").unwrap();
    let body = DecisionBody {
        request_hash: Hash([10; 32]),
        requestor: IdentityId([11; 32]),
        action: PolicyAction::Encrypt { key_path: key_path.clone() },
        resource: ResourceRef { resource_type: ResourceType::Key, id: key_path.to_string() },
        context: context(),
        nonce: Nonce([12; 16]),
        policy_state_hash: Hash([13; 32]),
        matched_rules: vec![RuleId::new("a").unwrap(), RuleId::new("b").unwrap()],
        effect: PolicyEffect::AllowWithConditions,
        deciding_rule: RuleId::new("a").unwrap(),
        conditions: vec![PolicyCondition::Before(AxiomTime(14))],
        timestamp: AxiomTime(15),
        reason: Some("no".to_owned()),
    };
    let signature =
        DecisionSignature { root: Signature([16; 64]), index: 1, count: 2, path: vec![Hash([17; 32])] };
    let signed = SignedDecision { body: cbor::encode(&body), signature };
    let pick = |payload| match payload {
        Payload::PolicyDecision(entry) => Some(entry.body),
        _ => None,
    };
    assert!(through_the_log(&signed, pick).contains(&"signature".to_owned()));
    assert_eq!(signed.decode_body().unwrap(), body);
    let required = [
        "request_hash",
        "requestor",
        "action",
        "resource",
        "policy_state_hash",
        "matched_rules",
        "effect",
        "deciding_rule",
        "conditions",
    ];
    let names = fields(&body);
    assert!(required.iter().all(|name| names.iter().any(|known| known == name)), "{names:?}");
    assert_eq!(fields(&context()), ["axiom_sequence", "service", "process", "metadata"]);
}

/// covers: AX-35
#[test]
fn a_new_identity_tells_who_it_is_and_where_its_key_is() {
    let created = IdentityCreated {
        identity_id: IdentityId([18; 32]),
        name: "alice@example".to_owned(),
        identity_type: IdentityType::User,
        parent: Some(IdentityId([19; 32])),
        public_key: PublicKey([20; 32]),
        key_path: KeyPath::parse("/orbital/orgs/example/users/alice").unwrap(),
    };
    let pick = |payload| match payload {
        Payload::IdentityCreated(entry) => Some(entry.body),
        _ => None,
    };
    let names = through_the_log(&created, pick);
    assert_eq!(names, ["identity_id", "name", "identity_type", "parent", "public_key", "key_path"]);
    through_the_log(&IdentityCreated { parent: None, ..created }, pick);
}

/// covers: AX-36
#[test]
fn a_use_of_a_key_tells_whose_it_was_and_what_allowed_it() {
    use KeyOperation::{Decrypt, DeriveChild, Encrypt, Sign};
    let pick = |payload| match payload {
        Payload::KeyUsage(entry) => Some(entry.body),
        _ => None,
    };
    for operation in [Sign, Encrypt, Decrypt, DeriveChild] {
        let usage = KeyUsage {
            identity: IdentityId([21; 32]),
            key_path: KeyPath::parse("/orbital/users/alice").unwrap(),
            operation,
            message_hash: (operation == Sign).then_some(Hash([22; 32])),
            authorization: AxiomRef { sequence: Sequence(23), hash: Hash([24; 32]) },
            output_hash: Some(Hash([25; 32])),
            refused: None,
            reason: None,
            epoch: None,
            rotation: None,
        };
        let names = through_the_log(&usage, pick);
        assert_eq!(names[..5], ["identity", "key_path", "operation", "message_hash", "authorization"]);
    }
}

/// Entries of before have neither member, and are written as they were.
#[test]
fn what_passkeys_added_changes_no_older_entry() {
    let body =
        CredentialBody::Passkey { public_key: vec![1, 2], aaguid: [3; 16], sign_count: 4, origin: None };
    let bytes = [&[0x82, 0x00, 0x83, 0x42, 1, 2, 0x50][..], &[3; 16], &[4]].concat();
    assert_eq!(cbor::encode(&body), bytes);
    assert_eq!(cbor::decode::<CredentialBody>(&bytes).unwrap(), body);
    let (credential, token) = (CredentialId([1; 16]), TokenId([2; 16]));
    let (channel, expires_at) = ("c".to_owned(), AxiomTime(3));
    let change = IdentityChange::Authenticated { credential, token, channel, expires_at, sign_count: None };
    let bytes = [&[0x82, 0x04, 0x84, 0x50][..], &[1; 16], &[0x50], &[2; 16], &[0x61, b'c', 3]].concat();
    assert_eq!(cbor::encode(&change), bytes);
    assert_eq!(cbor::decode::<IdentityChange>(&bytes).unwrap(), change);
}

/// covers: IDN-17, IDN-18, IDN-19, IDN-20
#[test]
fn a_credential_of_each_kind_goes_through_the_log() {
    let pick = |payload| match payload {
        Payload::CredentialAdded(entry) => Some(entry.body),
        _ => None,
    };
    let permissions = vec![Permission { action: None, resource: "**".to_owned() }];
    for (body, members) in [
        (
            CredentialBody::Passkey { public_key: vec![1, 2], aaguid: [3; 16], sign_count: 4, origin: None },
            ["public_key", "aaguid", "sign_count"].as_slice(),
        ),
        (
            CredentialBody::Passkey {
                public_key: vec![1, 2],
                aaguid: [3; 16],
                sign_count: 4,
                origin: Some(PasskeyOrigin { webauthn_id: vec![5; 3], backup_eligible: true }),
            },
            &["origin", "webauthn_id", "backup_eligible"],
        ),
        (CredentialBody::RecoveryKey { key_hash: Hash([5; 32]), used: false }, &["key_hash", "used"]),
        (
            CredentialBody::ApiKey { key_hash: Hash([5; 32]), permissions, expires_at: Some(AxiomTime(6)) },
            &["key_hash", "permissions", "expires_at"],
        ),
        (
            CredentialBody::DerivedKey {
                key_path: KeyPath::parse("/orbital/users/alice").unwrap(),
                public_key: PublicKey([7; 32]),
            },
            &["key_path", "public_key"],
        ),
    ] {
        let text = serde_json::to_string(&body).unwrap();
        assert!(members.iter().all(|name| text.contains(&format!("\"{name}\":"))), "{text}");
        let (identity, by) = (IdentityId([8; 32]), IdentityId([9; 32]));
        let added = CredentialAdded {
            identity,
            credential: CredentialId([1; 16]),
            name: "desk".to_owned(),
            body,
            by,
        };
        assert_eq!(through_the_log(&added, pick), ["identity", "credential", "name", "body", "by"]);
    }
}

/// covers: IDN-49
#[test]
fn what_happens_to_a_credential_goes_through_the_log_and_old_failures_read_as_they_did() {
    let (identity, credential) = (IdentityId([8; 32]), CredentialId([1; 16]));
    let revoked = CredentialRevoked { identity, credential, by: identity, reason: "lost".to_owned() };
    let names = through_the_log(&revoked, |payload| match payload {
        Payload::CredentialRevoked(entry) => Some(entry.body),
        _ => None,
    });
    assert_eq!(names, ["identity", "credential", "by", "reason"]);
    // As it was written before failures named a credential: [identity, [2, [channel, reason]]].
    let failed = |credential| IdentityUpdated {
        identity,
        change: IdentityChange::AuthenticationFailed {
            channel: "c".to_owned(),
            reason: "r".to_owned(),
            credential,
        },
    };
    let bytes = cbor::encode(&failed(None));
    assert_eq!(bytes[bytes.len() - 7..], [0x82, 0x02, 0x82, 0x61, b'c', 0x61, b'r']);
    through_the_log(&failed(Some(credential)), |payload| match payload {
        Payload::IdentityUpdated(entry) => Some(entry.body),
        _ => None,
    });
}

/// covers: ACT-49
#[test]
fn the_four_entries_of_a_job_go_through_the_log() {
    let (job, submitted) = (JobId([1; 16]), AxiomRef { sequence: Sequence(2), hash: Hash([3; 32]) });
    let submit = JobSubmit {
        job,
        manifest: Hash([4; 32]),
        executable: Hash([5; 32]),
        inputs: vec![Hash([6; 32])],
        by: IdentityId([7; 32]),
        name: "n".to_owned(),
        process: ProcessId(8),
    };
    let names = through_the_log(&submit, |payload| match payload {
        Payload::JobSubmit(entry) => Some(entry.body),
        _ => None,
    });
    assert_eq!(names, ["job", "manifest", "executable", "inputs", "by", "name", "process"]);
    let names = through_the_log(&JobStart { job, submitted }, |payload| match payload {
        Payload::JobStart(entry) => Some(entry.body),
        _ => None,
    });
    assert_eq!(names, ["job", "submitted"]);
    let outputs = vec![JobOutput { name: "o".to_owned(), hash: Hash([9; 32]), size_bytes: 10 }];
    let complete = JobComplete { job, submitted, outputs, usage: ResourceUsage::default() };
    let names = through_the_log(&complete, |payload| match payload {
        Payload::JobComplete(entry) => Some(entry.body),
        _ => None,
    });
    assert_eq!(names, ["job", "submitted", "outputs", "usage"]);
    let failed = JobFailed { job, submitted, error: "Timeout".to_owned(), text: "t".to_owned() };
    let names = through_the_log(&failed, |payload| match payload {
        Payload::JobFailed(entry) => Some(entry.body),
        _ => None,
    });
    assert_eq!(names, ["job", "submitted", "error", "text"]);
}

#[test]
fn what_the_supervisor_notices_goes_through_the_log() {
    let set = ClockSet { by_ns: -3_600_000_000_000, wall_ns: 1_700_000_000_000_000_000 };
    let names = through_the_log(&set, |payload| match payload {
        Payload::ClockSet(entry) => Some(entry.body),
        _ => None,
    });
    assert_eq!(names, ["by_ns", "wall_ns"]);
    let late = ServiceLate { name: "web".to_owned(), text: "no word".to_owned() };
    let names = through_the_log(&late, |payload| match payload {
        Payload::ServiceLate(entry) => Some(entry.body),
        _ => None,
    });
    assert_eq!(names, ["name", "text"]);
    // The vectors of docs/format.md.
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(cbor::encode(&set)), "823b0000034630b89fff1b17979cfe362a0000");
    assert_eq!(hex(cbor::encode(&late)), "8263776562676e6f20776f7264");
}

#[test]
fn the_two_entries_of_an_image_go_through_the_log() {
    let import = ImageImport {
        name: "web".to_owned(),
        tree: TreeId([1; 32]),
        form: ImageForm::DockerArchive,
        manifest: Some(TreeId([2; 32])),
        size_bytes: 3,
        entries: 4,
        by: IdentityId([5; 32]),
        taken_from: Some(IdentityId([6; 32])),
    };
    let names = through_the_log(&import, |payload| match payload {
        Payload::ImageImport(entry) => Some(entry.body),
        _ => None,
    });
    let all = ["name", "tree", "form", "manifest", "size_bytes", "entries", "by", "taken_from"];
    assert_eq!(names, all);
    // The vector of docs/format.md.
    let hex = |byte: u8| format!("5820{}", format!("{byte:02x}").repeat(32));
    let vector = format!("8863776562{}01{}0304{}{}", hex(1), hex(2), hex(5), hex(6));
    let encoded: String = cbor::encode(&import).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(encoded, vector);
    let remove = ImageRemove {
        name: "web".to_owned(),
        tree: TreeId([1; 32]),
        by: IdentityId([5; 32]),
        taken_from: None,
    };
    let names = through_the_log(&remove, |payload| match payload {
        Payload::ImageRemove(entry) => Some(entry.body),
        _ => None,
    });
    assert_eq!(names, ["name", "tree", "by", "taken_from"]);
}

#[test]
fn the_network_policy_goes_through_the_log() {
    let update = NetworkPolicyUpdate {
        rules: vec![UrlRule {
            id: "r".to_owned(),
            applies_to: ProcessClass::Named("web".to_owned()),
            url_pattern: "*.a".to_owned(),
            allow: true,
            priority: 7,
        }],
        limits: CallLimits {
            process_requests: 1,
            process_window_ms: 2,
            host_requests: 3,
            host_window_ms: 4,
            request_bytes: 5,
            response_bytes: 6,
            header_bytes: 7,
            message_bytes: 8,
        },
        authorities: vec!["p".to_owned()],
        by: IdentityId([5; 32]),
    };
    let names = through_the_log(&update, |payload| match payload {
        Payload::NetworkPolicyUpdate(entry) => Some(entry.body),
        _ => None,
    });
    assert_eq!(names, ["rules", "limits", "authorities", "by"]);
    // The vector of docs/format.md.
    let by = format!("5820{}", "05".repeat(32));
    let vector = format!("848185617282038163776562632a2e61f507880102030405060708816170{by}");
    let encoded: String = cbor::encode(&update).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(encoded, vector);
}

/// What was written before there were secrets is read, and written as it was.
#[test]
fn a_connection_has_the_name_of_a_secret_or_ends_before_it() {
    let mut connection = ConnectionAuthorize {
        connection: ConnectionId([1; 16]),
        direction: Direction::Outbound,
        protocol: Protocol::Tcp,
        local: None,
        remote: Some("192.0.2.1:443".to_owned()),
        name: Some("a".to_owned()),
        identity: IdentityId([5; 32]),
        process: ProcessId(7),
        grant: NetworkGrant::UNLIMITED,
        secret: None,
    };
    let hex = |body: &ConnectionAuthorize| -> String {
        cbor::encode(body).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    // The vectors of docs/format.md.
    let remote: String = b"192.0.2.1:443".iter().map(|byte| format!("{byte:02x}")).collect();
    let most = format!("50{}00820080f66d{remote}61615820{}0784f5f50000", "01".repeat(16), "05".repeat(32));
    assert_eq!(hex(&connection), format!("89{most}"));
    assert_eq!(cbor::decode::<ConnectionAuthorize>(&cbor::encode(&connection)).unwrap(), connection);
    connection.secret = Some("key".to_owned());
    assert_eq!(hex(&connection), format!("8a{most}636b6579"));
    let names = through_the_log(&connection, |payload| match payload {
        Payload::ConnectionAuthorize(entry) => Some(entry.body),
        _ => None,
    });
    assert_eq!(names.last().map(String::as_str), Some("secret"));
}
