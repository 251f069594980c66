//! The policy by URL: asked about, and replaced by administrators.

use chain::payload::{Payload, network::ProcessClass, policy::PolicyAction, service::ServiceType};
use contracts::network::v1::{self as wire, NetworkErrorKind as Kind};
use network::core::default_policy;

use crate::{
    node::reason,
    rig::{AUTHORITY, Rig, answering, here, ok, rule},
};

fn named(id: &str, applies_to: &str, pattern: &str, allow: bool) -> wire::UrlRule {
    wire::UrlRule {
        id: id.to_owned(),
        applies_to: applies_to.to_owned(),
        url_pattern: pattern.to_owned(),
        allow,
        priority: 70,
    }
}

async fn update(
    rig: &Rig,
    by: &str,
    rules: Vec<wire::UrlRule>,
) -> Result<wire::PolicyUpdateReply, tonic::Status> {
    let policy = wire::NetworkPolicy { rules, limits: None, authorities: vec![AUTHORITY.to_owned()] };
    rig.client(by, "policy_update").policy_update(policy).await.map(tonic::Response::into_inner)
}

/// covers: NET-50, NET-63, NET-64
#[tokio::test]
async fn an_administrator_replaces_the_policy_on_record_and_an_application_does_not() {
    let rig = Rig::with_defaults().await;
    let server = answering(|_| ok("x")).await;
    let before = rig.query("terminal", "", "").await.unwrap();
    assert_eq!(before.policy.unwrap().rules.len(), default_policy().rules.len());
    assert_eq!((before.updated_at, before.process_class.as_str()), (None, "application"));

    let open = || vec![named("mine", "named:terminal", "127.0.0.1", true)];
    assert!(update(&rig, "terminal", open()).await.is_err(), "it is an application");
    rig.register("terminal", ServiceType::System, "system").await;
    assert!(update(&rig, "terminal", open()).await.is_err(), "no service does, the operator does");
    assert!(rig.node.world.payloads(62).is_empty());

    rig.node.world.set_verdict(|request| !matches!(request.action, PolicyAction::ControlService { .. }));
    assert_eq!(reason(update(&rig, "admin", open()).await), "PolicyDenied");
    assert!(rig.node.world.payloads(62).is_empty());
    rig.node.world.set_verdict(|_| true);
    let updated = update(&rig, "admin", open()).await.unwrap();
    let entries = rig.node.world.payloads(62);
    let [(_, Payload::NetworkPolicyUpdate(entry))] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(entry.body.rules.len(), 1, "all that was there is replaced");
    assert_eq!(entry.body.by, crate::node::admin());
    let after = rig.query("terminal", &server.url("/"), "").await.unwrap();
    assert_eq!(after.updated_at, updated.updated_at);
    assert!(after.decision.unwrap().allowed);
    assert_eq!(rig.get(&server.url("/")).await.body, b"x");
}

#[tokio::test]
async fn a_policy_that_cannot_be_held_is_refused_and_leaves_the_old_one() {
    let rig = Rig::with_defaults().await;
    for wrong in [
        named("", "system", "*", true),
        named("r", "root", "*", true),
        named("r", "named:", "*", true),
        named("r", "system", "", true),
        named("r", "system", "a b", true),
    ] {
        assert_eq!(reason(update(&rig, "admin", vec![wrong.clone()]).await), "InvalidArgument", "{wrong:?}");
    }
    for pem in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let policy =
            wire::NetworkPolicy { authorities: vec![pem.to_owned()], ..wire::NetworkPolicy::default() };
        let refused = rig.client("admin", "policy_update").policy_update(policy).await;
        assert_eq!(reason(refused), "InvalidArgument", "{pem:?}");
    }
    assert!(rig.node.world.payloads(62).is_empty());
}

/// covers: NET-51, NET-65
#[tokio::test]
async fn it_can_be_asked_what_would_be_decided_and_nothing_is_sent() {
    let rig = Rig::new().await;
    let server = answering(|_| ok("x")).await;
    let url = server.url("/a");
    let decision =
        async |by: &str, url: &str, whom: &str| rig.query(by, url, whom).await.unwrap().decision.unwrap();
    let own = decision("terminal", &url, "").await;
    assert_eq!((own.allowed, own.rule.as_str(), own.special.as_str()), (true, "here", "loopback"));
    assert_eq!((own.host.as_str(), own.port), ("127.0.0.1", u32::from(server.address.port())));
    let system = decision("admin", &url, "system").await;
    assert_eq!(
        (system.allowed, system.rule.as_str()),
        (false, "system-allow-all"),
        "it is special, and not named"
    );
    assert_eq!(system.failed.unwrap().kind(), Kind::PolicyDenied);
    let plain = decision("admin", "HTTP://Api.Example.com.", "terminal").await;
    assert_eq!(
        (plain.allowed, plain.rule.as_str(), plain.url.as_str()),
        (false, "app-default-deny", "http://api.example.com/")
    );
    assert!(decision("admin", "wss://api.example.com/", "application").await.allowed);
    assert_eq!(decision("admin", "x", "application").await.failed.unwrap().kind(), Kind::InvalidUrl);
    let others = rig.query("terminal", &url, "system").await;
    assert_eq!(reason(others), "PermissionDenied", "what holds for others");
    assert_eq!((server.heard().len(), rig.authorized().len()), (0, 0));

    // What is said about who asks counts for nothing; what the socket is registered as does.
    rig.rules(vec![here(), rule("op", ProcessClass::Runtime, "127.0.0.1", true, 200)]).await;
    assert_eq!(rig.query("terminal", "", "").await.unwrap().process_class, "application");
    rig.register("terminal", ServiceType::System, "system").await;
    assert_eq!(rig.get(&url).await.kind(), Kind::PolicyDenied, "no rule names the address for its class now");
}

/// covers: NET-14
#[tokio::test]
async fn names_are_under_the_rules_of_hosts_and_counted() {
    let rig = Rig::new().await;
    let resolve = async |name: &str| {
        let request = wire::ResolveRequest { name: name.to_owned(), timeout_ms: 5_000 };
        rig.client("terminal", "resolve").resolve(request).await.unwrap().into_inner()
    };
    let kind = |reply: wire::ResolveReply| reply.failed.unwrap().kind();
    assert_eq!(kind(resolve("x.malware.example.com").await), Kind::PolicyDenied);
    assert_eq!(kind(resolve("localhost").await), Kind::PolicyDenied);
    for name in ["", "a b", "a/b", "http://a.test/", "a.test:80"] {
        assert_eq!(kind(resolve(name).await), Kind::InvalidUrl, "{name:?}");
    }
    let address = resolve("127.1").await.addresses;
    assert_eq!((address[0].ip.as_slice(), address[0].special.as_str()), (&[127, 0, 0, 1][..], "loopback"));
    rig.policy(vec![here()], |limits| limits.process_requests = 1, true).await;
    assert_eq!(kind(resolve("127.0.0.1").await), Kind::RateLimitExceeded);
}

/// covers: NET-41
#[tokio::test]
async fn an_operation_that_does_not_exist_is_said_to_and_disturbs_nobody() {
    use http_body_util::{BodyExt, Full};
    let rig = Rig::new().await;
    let socket = tokio::net::UnixStream::connect(rig.node.socket("terminal")).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(socket);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    for path in ["0x9003", "0xffff", "Nonsense"] {
        let request = hyper::Request::post(format!("/bailiwick.network.v1.Network/{path}"))
            .header("host", "x")
            .header("content-type", "application/json")
            .body(Full::new(hyper::body::Bytes::from_static(b"{}")))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert!(!answer.status().is_success(), "{path}");
        drop(answer.into_body().collect().await.unwrap());
    }
    let server = answering(|_| ok("x")).await;
    assert_eq!(rig.get(&server.url("/")).await.body, b"x");
}
