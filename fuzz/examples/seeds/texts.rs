use base::{AxiomTime, IdentityId, KeyPath, TokenId, TraceId, cbor};
use ed25519_dalek::SigningKey;
use kit::{
    ActorType, ContextFields, OperationContext,
    token::{Claims, ScopeAction, TokenScope, issue},
};
use supervisor::manifest::{parse, shipped};

use crate::{Seeds, chosen, named};

const PROGRAM: &str = r#"version = 1
[service]
name = "web"
version = "1.2.3"
service_type = "User"
[program]
image = "/bin/sh"
args = ["-c", "true"]
env = { A = "b" }
cwd = "/tmp"
fs = ["/data:rw", "/etc"]
[health]
kind = "http"
address = "127.0.0.1:80"
path = "/health"
[restart]
mode = "on_failure"
max_restarts = 3
backoff = 1.5
on_exhausted = "Stop"
[sandbox]
network = "host"
tmp_mb = 1
[[dependencies]]
name = "policy"
version = ">=1.0.0"
[[endpoints]]
name = "web.main"
protocol = "Http/1.1"
"#;

pub(crate) fn manifests() -> Seeds {
    let (_, shipped) = shipped::ALL.last().unwrap();
    let whole = toml::to_string(&parse("seed", PROGRAM).unwrap().manifest).unwrap();
    vec![named("program", PROGRAM), named("shipped", *shipped), named("written_out", whole)]
}

pub(crate) fn rules() -> Seeds {
    let rule = r#"[[rule]]
id = "r"
name = "n"
priority = 5
effect = "AllowWithConditions"
restrictions = [{ name = "few", condition = { rate_limit = { count = 3, window_ns = 1000000000 } } }]
[rule.condition]
or = [
    { not = { identity = { exact = "@admin" } } },
    { and = ["always", { resource = { path_prefix = "/a" } }, { action = { any_of = ["sign", "connect"] } }] },
    { after = 1790000000000000000 },
]
"#;
    let rules = policy::rules::defaults(IdentityId([0xad; 32])).unwrap();
    let mut seeds = vec![named("every_condition", rule)];
    for rule in rules.iter().step_by(2) {
        seeds.push(named(&format!("default_{}", rule.id), policy::rules::to_toml(rule)));
    }
    seeds
}

pub(crate) fn cedar() -> Seeds {
    let rules = policy::rules::defaults(IdentityId([0xad; 32])).unwrap();
    let foreign = r#"// By hand.
@id("a") @priority("7")
permit (principal is Identity in Identity::"adadadadadadadadadadadadadadadadadadadadadadadadadadadadadadadad", action in [Action::"sign", Action::"read_file"], resource is File)
when { resource.id like "/a/*" && !(resource.id like "*/*/*/*") || principal.name == "b\u{6f}b" }
unless { if context.now < 1790000000000000000 then principal has name else resource == Key::"/a" };
forbid (principal, action, resource) when { principal.type != "User" && resource["id"] like "\*" };
"#;
    vec![named("default", policy::cedar::export(&rules).unwrap().text), named("by_hand", foreign)]
}

/// Debian's units, and one of each other kind; the first byte says which.
pub(crate) fn imports() -> Seeds {
    macro_rules! unit {
        ($file:literal) => {
            include_str!(concat!("../../../crates/import/corpus/units/", $file)).as_bytes()
        };
    }
    let container = "[Container]\nImage=/usr/bin/web\nExec=-p 80 'a b'\nVolume=/srv:/srv:ro\nVolume=d:/var/lib/d\nNetwork=host\n\
                     User=web\nAddCapability=NET_BIND_SERVICE\nHealthCmd=true\n[Service]\nRestart=always\n";
    let compose = "x-base: &base\n  restart: always\nservices:\n  web:\n    <<: *base\n    image: /usr/bin/web\n    command: -p 80\n    \
                   environment: {A: \"1\", B: \"${X:-2}\"}\n    volumes: [\"/srv:/srv:ro\", \"d:/var/lib/d\"]\n    depends_on: [db]\n  \
                   db:\n    image: postgres:15\n    healthcheck: {test: [CMD, /bin/true], interval: 5s}\n";
    vec![
        chosen("nginx", 0, unit!("nginx-common/nginx.service")),
        chosen("redis", 0, unit!("redis-server/redis-server.service")),
        chosen("mariadb", 0, unit!("mariadb-server/mariadb.service")),
        chosen("chrony", 0, unit!("chrony/chrony.service")),
        chosen("socket", 1, unit!("dovecot-core/dovecot.socket")),
        chosen("timer", 2, unit!("apt/apt-daily-upgrade.timer")),
        chosen("container", 3, container.as_bytes()),
        chosen("compose", 4, compose.as_bytes()),
    ]
}

pub(crate) fn key_paths() -> Seeds {
    let deep = "/s".repeat(base::limits::KEY_PATH_SEGMENTS_MAX);
    let path: KeyPath = "/orbital/users/alice/signing".parse().unwrap();
    vec![
        named("two", "/orbital/users/alice\n/orbital/users"),
        named("slashes", "//orbital///é/"),
        named("deep", deep),
        named("encoded", cbor::encode(&path)),
    ]
}

pub(crate) fn urls() -> Seeds {
    vec![
        named("plain", "https://api.example.com/data?x=1\n../y\nhttps://*"),
        named("address", "http://0x7f.1:8080/%73ecret/../a\n//b.test/\n127.0.0.1"),
        named("name", "HTTP://Bücher.test./#x\nhttps://u@c.test/\n*.test"),
        named("brackets", "http://[2001:db8::1]:81/\nhttp://2130706433/\nhttp://[2001:db8::1]:*/*"),
    ]
}

pub(crate) fn contexts() -> Seeds {
    let trace_id = Some(TraceId([0xc; 16]));
    let local = ContextFields {
        app_id: Some("app_0".to_owned()),
        requester_identity_id: Some(IdentityId([0xa; 32])),
        device_id: Some(IdentityId([0xb; 32])),
        actor_type: Some(ActorType::User),
        capability: Some("system.keys.sign".to_owned()),
        is_remote: Some(false),
        trace_id,
        correlation_id: Some("é".to_owned()),
        app_version: Some("1.0".to_owned()),
        locale: Some("de".to_owned()),
        timezone: Some("Europe/Berlin".to_owned()),
        ..ContextFields::default()
    };
    let remote = ContextFields {
        app_id: Some("app_7".to_owned()),
        actor_type: Some(ActorType::Service),
        is_remote: Some(true),
        trace_id,
        sync_domain: Some("home".to_owned()),
        remote_node_identity_id: Some(IdentityId([0xd; 32])),
        ..ContextFields::default()
    };
    let stranger = ContextFields { requester_identity_id: None, device_id: None, ..local.clone() };
    [("local", 0, local), ("remote", 0, remote), ("stranger", 1, stranger)]
        .into_iter()
        .map(|(name, public, fields)| {
            let context = OperationContext::build(fields, public == 1).unwrap();
            chosen(name, public, context.to_header().as_bytes())
        })
        .collect()
}

pub(crate) fn tokens() -> Seeds {
    let claims = Claims {
        id: TokenId([1; 16]),
        identity: IdentityId([2; 32]),
        issued_at: fuzz::token::NOW,
        expires_at: AxiomTime(fuzz::token::NOW.0 + 1_000_000_000),
        scope: TokenScope::default(),
        channel: fuzz::token::CHANNEL.to_owned(),
        authentication: None,
    };
    let narrow = TokenScope {
        actions: vec![ScopeAction::Kind(chain::payload::policy::ActionKind::Sign), ScopeAction::Any],
        resources: vec!["key:/orbital/users/alice/**".to_owned(), "file:/a/*/?".to_owned()],
    };
    let key = SigningKey::from_bytes(&fuzz::token::ISSUER);
    let text = issue(&key, claims.clone()).unwrap().text;
    let message = serde_json::to_vec(&claims).unwrap();
    let narrow = serde_json::to_vec(&Claims { scope: narrow, ..claims }).unwrap();
    vec![
        chosen("issued", 0, text.as_bytes()),
        chosen("message", 1, &message),
        chosen("narrow", 1, &narrow),
        chosen("unchanged", 2, &[&[0, 9, 0], message.as_slice()].concat()),
    ]
}

/// What a program says to its proxy: SOCKS5 by name and by both kinds of address, and HTTP in parts.
pub(crate) fn proxied() -> Seeds {
    let socks = |kind: u8, host: &[u8]| [&[5, 1, 0, 5, 1, 0, kind], host, &[1, 187]].concat();
    let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    vec![
        chosen("socks_name", 0, &socks(3, b"\x0bexample.org")),
        chosen("socks_v4", 0, &socks(1, &[192, 0, 2, 1])),
        chosen("socks_v6", 0, &socks(4, &v6)),
        chosen("connect", 1, b"CONNECT\nexample.org:443\nexample.org:443"),
        chosen("connect_bare", 1, b"CONNECT\nexample.org:8443"),
        chosen("get", 1, b"GET\nhttp://example.org:8080/a?b\nexample.org:8080"),
        chosen("get_v6", 1, b"GET\nhttp://[2001:db8::1]/\n[2001:db8::1]"),
    ]
}
