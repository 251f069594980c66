use base::{Hash, Signature, cbor};
use chain::payload::process::{ExitStatus, ResourceUsage};
use contracts::policy::v1 as pb;
use keys::boundary::protocol as boundary;
use process_manager::monitor::protocol as monitor;
use prost::Message;
use sandbox::{
    Descriptor, Executable, Mount, Plan,
    keeper_protocol::{self as keeper, Child, Exit, GroupUsage},
    process::Usage,
    seccomp::Profile,
};

use crate::{Seeds, chosen};

fn plan() -> Plan {
    let mounts = vec![
        Mount::Proc,
        Mount::Bind { source: "/usr".to_owned(), target: "/usr".to_owned(), writable: false, optional: true },
        Mount::Tmpfs { target: "/tmp".to_owned(), size_bytes_max: 1 << 20, mode: 0o1777 },
    ];
    let mut plan =
        Plan::new("seed", Executable::Path("/bin/sh".to_owned()), Profile::Program).with_mounts(mounts);
    plan.environment = vec![("A".to_owned(), "b".to_owned())];
    plan.descriptors = vec![Descriptor { slot: 0, target: 1 }];
    plan
}

pub(crate) fn all() -> Seeds {
    let mut seeds = keeper_and_boundary();
    seeds.extend(streams());
    let request = pb::PolicyRequest {
        requestor: vec![1; 32],
        action: Some(pb::Action {
            kind: "connect".to_owned(),
            address: "example.org:443".to_owned(),
            ..Default::default()
        }),
        resource: Some(pb::ResourceRef { r#type: "network".to_owned(), id: "example.org:443".to_owned() }),
        context: Some(pb::PolicyContext { service: "network".to_owned(), ..Default::default() }),
        nonce: vec![2; 16],
        signature: vec![3; 64],
    };
    let rules = policy::rules::defaults(base::IdentityId([1; 32])).unwrap();
    let change = pb::Action {
        kind: "modify_policy".to_owned(),
        rule: rules.get(1).map(Into::into),
        ..Default::default()
    };
    let add = pb::PolicyRequest { action: Some(change), ..request.clone() };
    seeds.push(chosen("policy_request", 8, &request.encode_to_vec()));
    seeds.push(chosen("policy_rule", 8, &add.encode_to_vec()));
    seeds
}

fn keeper_and_boundary() -> Seeds {
    let exit = Exit {
        status: sandbox::process::ExitStatus::Signal(9),
        usage: Usage { user_time_us: 5, ..Usage::default() },
        group: GroupUsage { oom_kills: 1, ..GroupUsage::default() },
    };
    let launch = keeper::Request::Launch {
        id: 1,
        plan: Some(vec![1, 2]),
        stored: vec!["edge:keys:policy".to_owned()],
    };
    let children = keeper::Reply::Children {
        children: vec![Child { id: 1, pid: 2, exit: Some(exit), settled: true }],
        more: true,
    };
    let failed =
        keeper::Reply::LaunchFailed { id: 1, step: "mount".to_owned(), errno: 2, text: "no".to_owned() };
    let sign = boundary::Request::Sign {
        path: "/orbital/users/alice".parse().unwrap(),
        message: Hash([1; 32]),
        epoch: 0,
    };
    let signed = boundary::Response::Signed {
        signature: Signature([4; 64]),
        public_key: keys::core::VerifyingKey::Ed25519(base::PublicKey([3; 32])),
    };
    vec![
        chosen("keeper_launch", 0, &cbor::encode(&launch)),
        chosen("keeper_children", 1, &keeper::encode_reply(&children)),
        chosen("keeper_failed", 1, &keeper::encode_reply(&failed)),
        chosen("boundary_sign", 2, &sign.to_bytes()),
        chosen("boundary_signed", 3, &signed.to_bytes()),
        chosen("plan", 4, &plan().encode()),
    ]
}

fn streams() -> Seeds {
    let asked = [
        monitor::frame(1, &monitor::Request::Release),
        monitor::frame(2, &monitor::Request::Stdin(vec![7; 9])),
        monitor::frame(3, &monitor::Request::Read { stream: monitor::Stream::Stderr, offset: 9 }),
    ];
    let ended = monitor::Ended {
        status: ExitStatus::Limit("memory".to_owned()),
        usage: ResourceUsage::default(),
        refused: vec![],
        untaken: None,
        used: vec![],
        used_is_incomplete: false,
    };
    let answered = [
        monitor::frame(1, &monitor::Reply::Started),
        monitor::frame(2, &monitor::Reply::Output { offset: 3, data: vec![1, 2], end: true }),
        monitor::frame(3, &monitor::Reply::Ended(ended)),
    ];
    let grpc = [kit::frames::frame(b"one").unwrap(), kit::frames::frame(b"").unwrap()];
    vec![
        chosen("monitor_requests", 5, &asked.concat()),
        chosen("monitor_replies", 6, &answered.concat()),
        chosen("grpc", 7, &grpc.concat()),
    ]
}
