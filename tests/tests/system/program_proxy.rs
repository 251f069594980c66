//! The proxy of a program: real curl in each way that it knows, and what it is not to lead to.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read},
    net::TcpListener,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use system_tests::{TestNode, within};

use crate::egress_names::Site;

const LIMIT: Duration = Duration::from_secs(60);
/// Requests of one test are not what its limits are about.
const LIMITS: &str = "[limits]\nprocess_requests = 1000\nhost_requests = 1000\n";
/// An application may ask for https alone, unless a rule says more.
const PLAIN: &str = r#"
[[rule]]
id = "plain"
applies_to = "application"
url_pattern = "http*://*"
allow = true
priority = 60
"#;
/// `get …`: the page, or `status/status of CONNECT/how curl ended`. `raw`: what the proxy says to these bytes; 000 if it hangs up while they
/// are being sent, which can take the answer away.
const TOOLS: &str = r#"
P=http://127.0.0.1:3128
get() { curl -sS -k --max-time 40 -o /tmp/page -w '%{http_code}/%{http_connect}' "$@" >/tmp/said 2>/tmp/error; ended=$?
    if [ $ended = 0 ] && grep -q ^200 /tmp/said; then cat /tmp/page; else echo "$(cat /tmp/said)/$ended"; fi; }
raw() { exec 3<>/dev/tcp/127.0.0.1/3128; (trap '' PIPE; printf "$1" >&3) 2>/dev/null
    timeout 30 cat <&3 2>/dev/null | grep -a ^HTTP || echo HTTP/1.1 000; exec 3>&-; }
"#;

impl Site {
    /// With the rules that let plain HTTP be.
    fn open_to(user: Option<u32>, limits: &str) -> Option<Self> {
        let site = Self::boot(user)?;
        let file = site.node.file("rules.toml", format!("{limits}{PLAIN}"));
        site.node.ok(&["network", "rules", "set", &file]);
        Some(site)
    }

    fn proxied(&self, places: &[&str], lines: &[&str]) -> Vec<String> {
        let script = format!("{TOOLS}{}", lines.join("\n"));
        let mut all = vec!["run", "--proxy"];
        places.iter().for_each(|place| all.extend(["--egress", place]));
        all.extend(["--", "bash", "-c", &script]);
        let output = self.node.run(&all);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim_end().to_owned()).collect()
    }
}

const PLACES: [&str; 4] = ["api.test:8080", "api.test:80", "api.test:443", "rebind.test:8080"];

#[test]
fn curl_asks_its_proxy_in_each_way_it_knows() {
    each_way(None);
}

#[test]
fn curl_of_a_users_node_asks_its_proxy_in_each_way_it_knows() {
    each_way(Some(23_458));
}

fn each_way(user: Option<u32>) {
    let Some(site) = Site::open_to(user, LIMITS) else { return };
    let said = site.proxied(
        &PLACES,
        &[
            "get -x $P http://api.test:8080/",
            "get -p -x $P http://api.test:8080/",
            "get -x socks5h://127.0.0.1:3128 http://api.test:8080/",
            "get -x socks5://127.0.0.1:3128 http://api.test:8080/",
            // What stands in the environment is used by itself.
            "get http://api.test:8080/",
            "curl -sv http://api.test:8080/ 2>&1 >/dev/null | grep -c 'Uses proxy env variable http_proxy'",
            "env -u http_proxy -u HTTP_PROXY curl -sv http://api.test:8080/ 2>&1 >/dev/null | grep -ci 'socks5'",
            // The same connection for two requests.
            "curl -sS -x $P http://api.test:8080/ http://api.test:8080/",
        ],
    );
    assert_eq!(said[..6], ["page", "page", "page", "page", "page", "1"], "{said:?}");
    assert!(said[6].parse::<u32>().unwrap() > 0, "{said:?}");
    assert_eq!(said[7..], ["page", "page"], "{said:?}");
    let entries = site.node.log(&["ConnectionAuthorize"]);
    assert_eq!(entries.len(), 9, "{entries:?}");
    for entry in &entries {
        let body = &entry["body"];
        assert_eq!((&body["name"], &body["remote"]), (&"api.test".into(), &"192.0.2.10:8080".into()));
    }
    assert!(within(LIMIT, || site.node.json(&["network", "flows"]) == Value::Array(vec![])));
    // Without one nobody listens there.
    let output = site.node.run(&[
        "run",
        "--egress",
        "api.test:8080",
        "--",
        "curl",
        "-s",
        "-x",
        "http://127.0.0.1:3128",
        "http://api.test:8080/",
    ]);
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn the_proxy_leads_to_the_places_of_its_program_alone_and_says_why() {
    let Some(site) = Site::open_to(None, LIMITS) else { return };
    let said = site.proxied(
        &PLACES,
        &[
            "get -x $P http://other.test:8080/",
            "get -p -x $P http://other.test:8080/",
            "get -x socks5h://127.0.0.1:3128 http://other.test:8080/",
            "get -x $P http://api.test:8081/",
            "get -x $P http://rebind.test:8080/",
            "get -x $P http://169.254.169.254/",
            "get --noproxy '' -x $P http://127.0.0.1:3128/",
            "get --noproxy '' -x $P http://2130706433:8080/",
            // Another `Host` than the line says, and than the tunnel was opened to; another SNI.
            "get -x $P -H 'Host: other.test' http://api.test:8080/",
            "get -p -x $P -H 'Host: other.test' http://api.test/",
            "get -p -x $P --connect-to other.test:443:api.test:443 https://other.test/",
            "get -x socks5h://127.0.0.1:3128 --connect-to other.test:443:api.test:443 https://other.test/",
        ],
    );
    assert_eq!(
        said[..9],
        [
            "403/000/0",
            "000/403/56",
            "000/000/97",
            "403/000/0",
            "403/000/0",
            "403/000/0",
            "403/000/0",
            "403/000/0",
            "400/000/0"
        ],
        "{said:?}"
    );
    for (line, ended) in said[9..].iter().zip(["52|56", "35|56", "35|56"]) {
        assert!(ended.split('|').any(|code| line.ends_with(&format!("/{code}"))), "{said:?}");
    }
    assert_eq!(site.said("asked other.test."), 0, "a name can carry away what it is made of");
    assert_eq!(site.said("heard"), 0, "{said:?}");
    let why = site.node.ok(&["why", "last"]);
    assert!(why.contains("other.test:8080") && why.contains("169.254.169.254:80"), "{why}");
}

#[test]
fn what_two_could_read_differently_is_refused_and_who_is_slow_is_left() {
    let Some(site) = Site::open_to(None, LIMITS) else { return };
    let said = site.proxied(
        &PLACES,
        &[
            // Folded, two hosts, no whole URL, and both ways to say how long a body is.
            r"raw 'GET http://api.test:8080/ HTTP/1.1\r\nHost: api.test:8080\r\nX: a\r\n b\r\nConnection: close\r\n\r\n'",
            r"raw 'GET http://api.test:8080/ HTTP/1.1\r\nHost: api.test:8080\r\nHost: other.test\r\nConnection: close\r\n\r\n'",
            r"raw 'GET / HTTP/1.1\r\nHost: api.test:8080\r\nConnection: close\r\n\r\n'",
            "echo --",
            // Behind a request another one, to another host.
            r"raw 'GET http://api.test:8080/ HTTP/1.1\r\nHost: api.test:8080\r\n\r\nGET http://other.test/ HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n'",
            "echo --",
            // Too much of a head.
            r#"raw "GET http://api.test:8080/ HTTP/1.1\r\nHost: api.test:8080\r\nX: $(head -c 90000 /dev/zero | tr '\0' a)\r\n\r\n""#,
            r#"raw "GET http://api.test:8080/ HTTP/1.1\r\nHost: api.test:8080\r\n$(for i in $(seq 300); do printf 'X%s: a\\r\\n' $i; done)\r\n""#,
            "echo --",
            // Slow: of HTTP and of SOCKS.
            "began=$SECONDS; raw 'GET http://api.te'; raw '\\x05\\x01'; [ $((SECONDS - began)) -lt 45 ] && echo left",
        ],
    );
    let parts: Vec<&[String]> = said.split(|line| line == "--").collect();
    let codes = |part: &[String]| part.iter().map(|line| line[9..12].to_owned()).collect::<Vec<_>>();
    assert_eq!(codes(parts[0]), ["400", "400", "400"], "{said:?}");
    assert_eq!(codes(parts[1]), ["200", "403"], "{said:?}");
    let too_much = codes(parts[2]);
    assert!(too_much.len() == 2 && too_much.iter().all(|code| code == "431" || code == "000"), "{said:?}");
    assert_eq!(parts[3].last().unwrap(), "left", "{said:?}");
    assert_eq!(site.said("heard"), 1);
}

#[test]
fn the_limits_and_the_rules_by_url_hold_for_the_proxy_and_a_revocation_cuts_what_it_carries() {
    let Some(site) = Site::open_to(None, "[limits]\nhost_requests = 3\nhost_window_ms = 600000\n") else {
        return;
    };
    let said = site.proxied(&PLACES, &["for i in 1 2 3 4 5; do get -x $P http://api.test:8080/; done"]);
    assert_eq!(said, ["page", "page", "page", "429/000/0", "429/000/0"]);
    // An application is given https alone, as by the rules that are there without any.
    let file = site.node.file("tls.toml", format!("{LIMITS}{}", PLAIN.replace("http*", "https")));
    site.node.ok(&["network", "rules", "set", &file]);
    let said = site.proxied(&PLACES, &["get -x $P http://api.test:8080/", "get http://api.test/"]);
    assert!(said.iter().all(|line| line.starts_with("403")), "{said:?}");
    let mut held = site
        .node
        .command(&[
            "run",
            "--proxy",
            "--egress",
            "api.test:8443",
            "--egress",
            "api.test:8080",
            "--",
            "bash",
            "-c",
            // curl would read its standard input meanwhile, and hear of nothing.
            "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT api.test:8080 HTTP/1.1\\r\\nHost: api.test:8080\\r\\n\\r\\n' >&3; cat <&3",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let flow = || {
        let flows = site.node.json(&["network", "flows"]);
        flows.as_array().unwrap().iter().find(|flow| flow["state"] == "connected").cloned()
    };
    assert!(within(LIMIT, || flow().is_some()), "{}", site.node.json(&["network", "flows"]));
    let flow = flow().unwrap();
    assert_eq!(flow["name"], "api.test", "{flow}");
    let connection = flow["connection"].as_str().unwrap().to_owned();
    site.node.ok(&["network", "revoke", &connection, "--reason", "enough"]);
    assert!(within(LIMIT, || held.try_wait().unwrap().is_some()), "it is still carried");
}

/// Connections on which nothing is said take the room of their program alone, and not for long.
#[test]
fn a_flood_of_connections_that_say_nothing_holds_up_its_own_program_alone() {
    let Some(site) = Site::open_to(None, LIMITS) else { return };
    let flood = "for i in $(seq 200); do exec {fd}<>/dev/tcp/127.0.0.1/3128 || break; done; echo flooded
        until [ \"$(get -x $P http://api.test:8080/)\" = page ]; do sleep 0.5; done; echo back";
    let script = [TOOLS, flood].concat();
    let words = ["run", "--proxy", "--egress", "api.test:8080", "--", "bash", "-c", &script];
    let mut flooding = site.node.command(&words).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(flooding.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "flooded");
    let since = Instant::now();
    let other = site.proxied(&["api.test:8080"], &["get -x $P http://api.test:8080/"]);
    assert_eq!(other, ["page"]);
    println!("another program was answered {} ms after the flood", since.elapsed().as_millis());
    assert_eq!(lines.next().unwrap().unwrap(), "back");
    println!("its own program was {} ms after it", since.elapsed().as_millis());
    assert!(flooding.wait().unwrap().success());
}

/// What is on its way to a peer that does not read does not arrive after the program.
#[test]
fn what_the_proxy_carries_is_reset_when_its_program_ends() {
    let Some(node) = TestNode::boot() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT {place} HTTP/1.1\\r\\nHost: {place}\\r\\n\\r\\n' >&3; head -c 12 <&3 >/dev/null; cat /dev/zero >&3"
    );
    let pid = node.ok(&["run", "--detach", "--proxy", "--egress", &place, "--", "bash", "-c", &script]);
    let mut peer = None;
    assert!(within(LIMIT, || {
        peer = listener.accept().ok();
        peer.is_some()
    }));
    let (mut peer, _) = peer.unwrap();
    peer.set_nonblocking(false).unwrap();
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    peer.read_exact(&mut [0; 1]).unwrap();
    // Until everything on the way is full.
    let carried = || node.json(&["network", "flows"])[0]["sent_bytes"].clone();
    let mut last = carried();
    assert!(within(LIMIT, || {
        std::thread::sleep(Duration::from_millis(300));
        let before = std::mem::replace(&mut last, carried());
        before == last
    }));
    node.ok(&["kill", "--signal", "kill", pid.trim()]);
    let flows = || node.json(&["network", "flows"]);
    assert!(within(LIMIT, || flows() == serde_json::json!([])), "{}", flows());
    let end = peer.read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
