//! Datagrams of programs: what was given and policy allows goes out, decided once for each peer and on record first, and comes back from
//! whom it was sent to; nothing else reaches any wire.

use std::{fs, path::Path, process::Stdio, time::Duration};

use system_tests::within;

use crate::egress_names::{Site, USER};

const LIMIT: Duration = Duration::from_secs(60);
/// `udp(family)` is a socket; `ask(socket, data, to)` says what comes back, `None` after a while.
const HELPERS: &str = "
import socket as s, sys, time, os
def udp(family=s.AF_INET, limit=30):
    made = s.socket(family, s.SOCK_DGRAM); made.settimeout(limit); return made
def told(call):
    try: print(call())
    except OSError as error: print(type(error).__name__)
def ask(made, data, to):
    made.sendto(data, to); return made.recvfrom(70000)
def asked(made, data, to):
    heard, peer = ask(made, data, to); return (heard == data, peer[0], peer[1])
def connected(data, to, family=s.AF_INET, limit=30):
    made = udp(family, limit); made.connect(to); made.send(data); return made.recv(70000) == data
A, B, SIX = ('192.0.2.10', 7007), ('192.0.2.11', 7007), ('2001:db8::10', 7007)
";
const ECHO: &str = "192.0.2.10:7007/udp";

fn python(lines: &[&str]) -> String {
    format!("/usr/bin/python3 - <<'EOF'\n{HELPERS}\n{}\nEOF", lines.join("\n"))
}

fn boot(user: Option<u32>) -> Option<Site> {
    if !Path::new("/usr/bin/python3").exists() {
        println!("skipped: /usr/bin/python3 is needed");
        return None;
    }
    Site::boot(user)
}

/// covers: NET-30
#[test]
fn a_program_sends_datagrams_to_whom_it_was_given_and_hears_from_them() {
    goes_out(None);
}

#[test]
fn a_program_of_a_users_node_sends_datagrams_too() {
    goes_out(Some(USER));
}

fn goes_out(user: Option<u32>) {
    let Some(site) = boot(user) else { return };
    let said = site.script(
        &[ECHO, "192.0.2.10:7010/udp", "[2001:db8::10]:7007/udp", "192.0.2.11:7007/tcp"],
        &python(&[
            "told(lambda: asked(udp(), b'hello', A))",
            "told(lambda: connected(b'hello', A))",
            "told(lambda: asked(udp(s.AF_INET6), b'hello', SIX)[:3])",
            "told(lambda: connected(b'hello', SIX, s.AF_INET6))",
            // Of any length.
            "told(lambda: connected(b'', A))",
            "told(lambda: connected(b'x' * 65507, A))",
            "told(lambda: connected(b'x' * 65507, SIX, s.AF_INET6))",
            // Sent as one, and cut by the kernel (UDP_SEGMENT).
            "cut = udp(); cut.connect(A); cut.sendmsg([b'y' * 300], [(17, 103, (100).to_bytes(2, sys.byteorder))])",
            "print([len(cut.recv(1000)) for _ in range(3)])",
            // Nobody listens there; who was not given is not reached, by a socket of both families neither.
            "told(lambda: connected(b'hello', ('192.0.2.10', 7010)))",
            "told(lambda: connected(b'hello', B))",
            "both = udp(s.AF_INET6); both.setsockopt(s.IPPROTO_IPV6, s.IPV6_V6ONLY, 0)",
            "told(lambda: asked(both, b'hello', ('::ffff:192.0.2.10', 7007)))",
            // The own loopback is its own.
            "own = udp(); own.bind(('127.0.0.1', 0)); told(lambda: asked(own, b'self', own.getsockname())[0])",
            // What comes from another port is not heard.
            "told(lambda: connected(b'elsewhere', A, limit=2))",
        ]),
    );
    let expected = [
        "(True, '192.0.2.10', 7007)",
        "True",
        "(True, '2001:db8::10', 7007)",
        "True",
        "True",
        "True",
        "True",
        "[100, 100, 100]",
        "ConnectionRefusedError",
        "ConnectionRefusedError",
        "(True, '::ffff:192.0.2.10', 7007)",
        "True",
        "TimeoutError",
    ];
    assert_eq!(said, expected);
    assert_eq!(site.said("datagram 192.0.2.11"), 0);
    // One for each peer, however many datagrams and sockets.
    let entries = site.node.log(&["ConnectionAuthorize"]);
    let mut seen: Vec<String> = entries
        .iter()
        .map(|entry| format!("{} {}", entry["body"]["protocol"], entry["body"]["remote"]).replace('"', ""))
        .collect();
    seen.sort();
    assert_eq!(seen.len(), 3, "{entries:?}");
    assert!(seen.iter().all(|one| one.to_lowercase().starts_with("udp")), "{seen:?}");
    let exit = site.node.log(&["ProcessExit"]);
    let refused = exit[0]["body"]["refused"].to_string();
    assert!(refused.contains("192.0.2.11:7007/udp"), "{refused}");
    let why = site.node.ok(&["why", "last"]);
    assert!(why.contains("--egress 192.0.2.11:7007/udp"), "{why}");
}

#[test]
fn a_name_leads_datagrams_where_it_is_resolved_to_but_not_where_nobody_sees_it() {
    let Some(site) = boot(None) else { return };
    let said = site.script(
        &["api.test:7007/udp", "*.wild.test:*/udp"],
        &python(&[
            "told(lambda: connected(b'hello', A, limit=2))",
            "told(lambda: connected(b'hello', ('api.test', 7007)))",
            "told(lambda: connected(b'hello', A))",
            "told(lambda: s.getaddrinfo('a.wild.test', 443, s.AF_INET, s.SOCK_DGRAM)[0][4][0])",
            "told(lambda: connected(b'quic', ('192.0.2.10', 443)))",
        ]),
    );
    assert_eq!(said, ["ConnectionRefusedError", "True", "True", "192.0.2.10", "ConnectionRefusedError"]);
    let entries = site.node.log(&["ConnectionAuthorize"]);
    assert_eq!((entries.len(), entries[0]["body"]["name"].as_str()), (1, Some("api.test")), "{entries:?}");
    let why = site.node.ok(&["why", "last"]);
    assert!(why.contains("192.0.2.10:443/udp") && why.contains("QUIC"), "{why}");
    for place in ["api.test:443/udp", "api.test/udp"] {
        let output = site.node.run(&["run", "--egress", place, "--", "true"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(place), "{place}: {text}");
    }
}

fn rule(site: &Site, id: &str, priority: u32, effect: &str, rest: &str) {
    let text = format!(
        "[[rule]]\nid = \"{id}\"\nname = \"{id}\"\npriority = {priority}\neffect = \"{effect}\"\n\
         condition = {{ action = {{ kind = \"connect\" }} }}\n{rest}\n"
    );
    site.node.ok(&["policy", "add", &site.node.file("rule.toml", text)]);
}

/// covers: NET-32
#[test]
fn what_a_rule_limits_is_held_for_datagrams_too() {
    let Some(site) = boot(None) else { return };
    let limited = |limits: &str| {
        let rest = format!(
            "restrictions = [{{ name = \"limited\", condition = \"always\", limits = {{ {limits} }} }}]"
        );
        rule(&site, "limited", 960, "AllowWithConditions", &rest);
    };
    let said = |lines: &[&str]| {
        let said = site.script(&[ECHO], &python(lines));
        site.node.ok(&["policy", "remove", "limited"]);
        said
    };
    limited("bandwidth_limit = 50000");
    // Ten there and back: what comes last is not waited for.
    let slow = [
        "made = udp(); made.connect(A); since = time.time()",
        "for _ in range(10): made.send(b'x' * 10000); made.recv(20000)",
        "print(time.time() - since > 3)",
    ];
    assert_eq!(said(&slow), ["True"]);
    limited("send = 0");
    assert_eq!(said(&["told(lambda: connected(b'hello', A, limit=30))"]), ["ConnectionRefusedError"]);
    limited("recv = 0");
    assert_eq!(said(&["told(lambda: connected(b'hello', A, limit=2))"]), ["TimeoutError"]);
    limited("duration_limit_ns = 300000000");
    let twice = [
        "made = udp(); made.connect(A); made.send(b'1'); made.recv(9); time.sleep(1)",
        "made.send(b'2'); print(made.recv(9))",
    ];
    let before = site.node.log(&["ConnectionAuthorize"]).len();
    assert_eq!(said(&twice), ["b'2'"]);
    let asked = site.node.log(&["ConnectionAuthorize"]).len() - before;
    assert_eq!(asked, 2, "what is over is asked for again");
}

/// covers: NET-33
#[test]
fn what_is_revoked_sends_and_hears_nothing_more() {
    let Some(site) = boot(None) else { return };
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let script = python(&[
        &format!("place = {place:?}"),
        "made = udp(limit=1); made.connect(A); made.send(b'first'); print(made.recv(100))",
        "open(place + '/begun', 'w').close()",
        "while not os.path.exists(place + '/go'): time.sleep(0.01)",
        "made.send(b'later')",
        "told(lambda: made.recv(100))",
    ]);
    // One that lets it, and below it one that lets nobody.
    rule(&site, "out", 960, "Allow", "");
    rule(&site, "shut", 955, "Deny", "");
    let shown = format!("{place}:rw");
    let all = ["run", "--fs", &shown, "--egress", ECHO, "--", "bash", "-c", &script];
    let running = site.node.command(&all).stdout(Stdio::piped()).spawn().unwrap();
    assert!(within(LIMIT, || folder.path().join("begun").exists()));
    let flows = site.node.json(&["network", "flows"]);
    let flow = flows.as_array().unwrap().iter().find(|flow| flow["socket_type"] == "datagram");
    let flow = flow.unwrap_or_else(|| panic!("{flows}"));
    assert_eq!(
        (flow["remote"].as_str(), flow["state"].as_str()),
        (Some("192.0.2.10:7007"), Some("connected")),
        "{flow}"
    );
    site.node.ok(&["policy", "remove", "out"]);
    let flows = site.node.json(&["network", "flows"]);
    assert!(flows.as_array().unwrap().is_empty(), "{flows}");
    fs::write(folder.path().join("go"), "").unwrap();
    let output = running.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("b'first'\n") && !text.contains("later"), "{text}");
    assert_eq!(site.said("datagram 192.0.2.10:7007 5"), 1, "{text}");
}

/// What it may not send to is not asked for again and again, and bounded.
#[test]
fn ten_thousand_peers_are_no_flood() {
    let Some(site) = boot(None) else { return };
    let said = site.script(
        &["192.0.2.0/24:*/udp", "[2001:db8::10]:7007/udp"],
        &python(&[
            "made = udp()",
            "for n in range(10000):",
            "    try: made.sendto(b'x', ('192.0.2.%d' % (n % 250 + 1), 20000 + n // 250))",
            "    except OSError: pass",
            "time.sleep(1)",
            // Others are not held up for long by it.
            "told(lambda: connected(b'hello', SIX, s.AF_INET6, limit=40))",
        ]),
    );
    assert_eq!(said, ["True"]);
    let entries = site.node.log(&["ConnectionAuthorize"]);
    // As many at once, and some while it went on.
    assert!((1..=400).contains(&entries.len()), "{}", entries.len());
    let exit = site.node.log(&["ProcessExit"]);
    assert!(exit[0]["body"]["refused"].as_array().unwrap().len() <= 32, "{}", exit[0]["body"]["refused"]);
}

/// A client with a new port for each question has more of them than a program may have sockets.
#[test]
fn who_uses_up_the_ports_of_a_program_gives_some_up() {
    let Some(site) = boot(None) else { return };
    let said = site.script(
        &[ECHO, "192.0.2.11:7007/udp"],
        &python(&[
            "kept = udp()",
            "told(lambda: asked(kept, b'first', B)[0])",
            "def question():",
            "    with udp() as made: return asked(made, b'question', A)[0]",
            // The program may have 128 of them.
            "told(lambda: [question() for _ in range(200)].count(True))",
            "told(lambda: asked(kept, b'again', B)[0])",
        ]),
    );
    assert_eq!(said, ["True", "200", "True"]);
}
