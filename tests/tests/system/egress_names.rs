//! The way out by name: a program reaches what a name that it was given answers, for as long as that lives, and nothing that
//! another name, another server or a lie leads to.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use system_tests::{TestNode, is_root, within};

const LIMIT: Duration = Duration::from_secs(60);
const USER: u32 = 23_457;

/// A network of its own with servers of names and pages, and a node that lives in it.
pub(crate) struct Site {
    pub(crate) node: TestNode,
    network: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.network.kill();
        let _ = self.network.wait();
    }
}

impl Site {
    /// None where it cannot be made: only root can put a node of any user into it.
    pub(crate) fn boot(user: Option<u32>) -> Option<Self> {
        let mut node = TestNode::empty()?;
        let tools = ["unshare", "nsenter", "setpriv", "ip", "curl", "getent"];
        let missing = tools.iter().find(|tool| {
            !["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
                .iter()
                .any(|folder| Path::new(folder).join(tool).exists())
        });
        if !is_root() || missing.is_some() {
            println!("skipped: root, {} are needed", tools.join(", "));
            return None;
        }
        let mut network = Command::new("unshare")
            .args(["-n", "--", env!("CARGO_BIN_EXE_names_site")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(network.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| heard.lock().unwrap().push(line))
        });
        let config = node.root().join("config");
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join("network.toml"), "nameservers = [\"127.0.0.1:5353\"]\n").unwrap();
        let inside = format!("--net=/proc/{}/ns/net", network.id());
        let mut around = vec!["nsenter".to_owned(), inside, "--".to_owned()];
        if let Some(user) = user {
            node.belongs_to(user, user);
            std::os::unix::fs::chown(&config, Some(user), Some(user)).unwrap();
            let as_user = [format!("--reuid={user}"), format!("--regid={user}")];
            around.push("setpriv".to_owned());
            around.extend(as_user);
            around.push("--clear-groups".to_owned());
        }
        let around: Vec<&str> = around.iter().map(String::as_str).collect();
        node.up_through(&around);
        Some(Self { node, network, said })
    }

    pub(crate) fn said(&self, begin: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|line| line.starts_with(begin)).count()
    }

    /// What a script says that was given these places, line by line.
    fn script(&self, places: &[&str], script: &str) -> Vec<String> {
        let mut all = vec!["run"];
        places.iter().for_each(|place| all.extend(["--egress", place]));
        all.extend(["--", "bash", "-c", script]);
        let output = self.node.run(&all);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

/// `get URL`: the page, or how curl ended. 6: the name was not resolved, 7: not connected.
const GET: &str = "get() { curl -sS --max-time 40 \"$@\" 2>/dev/null || echo \"ended $?\"; }; ";

fn script(lines: &[&str]) -> String {
    format!("{GET}{}", lines.join("\n"))
}

#[test]
fn a_program_reaches_what_its_names_answer() {
    reaches(None);
}

#[test]
fn a_program_of_a_users_node_reaches_what_its_names_answer() {
    reaches(Some(USER));
}

fn reaches(user: Option<u32>) {
    let Some(site) = Site::boot(user) else { return };
    let places =
        ["api.test:8080", "*.wild.test:8080", "bücher.test.:8080", "six.test:8080", "alias.test:8080"];
    let said = site.script(
        &places,
        &script(&[
            "get http://api.test:8080/",
            "get http://API.Test.:8080/",
            "get http://a.wild.test:8080/",
            "get http://xn--bcher-kva.test:8080/",
            "get http://alias.test:8080/",
            "get -6 http://six.test:8080/",
            // What a name has answered is reached at its address too.
            "get http://192.0.2.10:8080/",
            // Not on another port, and no neighbour.
            "get http://api.test:8081/",
            "get http://192.0.2.11:8080/",
            "cat /etc/resolv.conf | head -1",
        ]),
    );
    assert_eq!(
        said,
        [
            "page",
            "page",
            "page",
            "page",
            "page",
            "page",
            "page",
            "ended 7",
            "ended 7",
            "nameserver 127.0.0.1"
        ]
    );
    assert_eq!(site.said("came"), 7);
    let entries = site.node.log(&["ConnectionAuthorize"]);
    let seen: Vec<(&Value, &Value)> =
        entries.iter().map(|entry| (&entry["body"]["name"], &entry["body"]["remote"])).collect();
    assert_eq!(seen.len(), 7, "{entries:?}");
    assert_eq!(seen[0], (&"api.test".into(), &"192.0.2.10:8080".into()));
    assert_eq!(seen[5], (&"six.test".into(), &"[2001:db8::10]:8080".into()));
    let create = site.node.log(&["ProcessCreate"]);
    let grants = create[0]["body"]["grants"].to_string();
    assert!(grants.contains("egress:*.wild.test:8080"), "{grants}");
    let why = site.node.ok(&["why", "last"]);
    assert!(why.contains("192.0.2.11:8080") && why.contains("none of its names"), "{why}");
    // A connection that is held shows by which name it was asked for.
    let mut held = site
        .node
        .command(&[
            "run",
            "--egress",
            "api.test:8080",
            "--",
            "bash",
            "-c",
            "exec 3<>/dev/tcp/api.test/8080; cat <&3",
        ])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let named = || {
        let flows = site.node.json(&["network", "flows"]);
        flows
            .as_array()
            .unwrap()
            .iter()
            .any(|flow| flow["name"] == "api.test" && flow["state"] == "connected")
    };
    assert!(within(LIMIT, named), "{}", site.node.json(&["network", "flows"]));
    let pid = create.len() as u64 + 1;
    let running = site.node.log(&["ProcessCreate"]);
    let number = running.last().unwrap()["body"]["pid"].to_string();
    assert!(running.len() as u64 == pid, "{running:?}");
    site.node.ok(&["kill", &number]);
    held.wait().unwrap();
}

#[test]
fn a_name_that_was_not_given_or_lies_leads_nowhere() {
    let Some(site) = Site::boot(None) else { return };
    let places = [
        "api.test:8080",
        "rebind.test:8080",
        "meta.test:8080",
        "mixed.test:8080",
        "absent.test:8080",
        "liar.test:8080",
        "slow.test:8080",
        "many.test:8080",
    ];
    let said = site.script(
        &places,
        &script(&[
            "get http://other.test:8080/",
            "get http://sub.api.test:8080/",
            "get http://rebind.test:8080/",
            "get http://meta.test:8080/",
            "get http://absent.test:8080/",
            // Somebody's answer to another question.
            "get http://liar.test:8080/",
            // An address of it is special, the other is not.
            "get http://mixed.test:8080/",
            "getent ahostsv4 mixed.test | cut -d' ' -f1 | sort -u | xargs",
            "get http://10.1.2.3:8080/",
            "get http://169.254.169.254:8080/",
            // One that is asked again, and one that is longer than a datagram.
            "get http://slow.test:8080/",
            "getent ahostsv4 many.test | cut -d' ' -f1 | sort -u | wc -l",
            "get http://many.test:8080/ >/dev/null; echo done",
        ]),
    );
    let expected = [
        "ended 6",
        "ended 6",
        "ended 6",
        "ended 6",
        "ended 6",
        "ended 6",
        "page",
        "192.0.2.10",
        "ended 7",
        "ended 7",
        "page",
        "60",
        "done",
    ];
    assert_eq!(said, expected);
    // What was not given was not asked for either: a name can carry away what it is made of.
    assert_eq!(site.said("asked other.test.") + site.said("asked sub.api.test."), 0);
    assert!(site.said("asked rebind.test.") > 0);
    assert_eq!(
        site.said("came 127.0.0.1") + site.said("came 10.1.2.3") + site.said("came 169.254.169.254"),
        0
    );
    let exit = site.node.log(&["ProcessExit"]);
    let refused = exit[0]["body"]["refused"].to_string();
    for target in [
        "other.test",
        "sub.api.test",
        "rebind.test=127.0.0.1",
        "meta.test=169.254.169.254",
        "mixed.test=10.1.2.3",
    ] {
        assert!(refused.contains(&format!("\"{target}\"")), "{target}: {refused}");
    }
    let why = site.node.ok(&["why", "last"]);
    assert!(why.contains("--egress other.test") && why.contains("--egress 127.0.0.1:PORT"), "{why}");
    // One that is named itself may be what a name answers.
    let said =
        site.script(&["meta.test:8080", "169.254.169.254:8080"], &script(&["get http://meta.test:8080/"]));
    assert_eq!(said, ["page"]);
    let entries = site.node.log(&["ConnectionAuthorize"]);
    assert_eq!(entries.last().unwrap()["body"]["name"], "meta.test");
    for place in ["localhost:80", "0x7f.1:80", "*.com", "metadata.google.internal", "2130706433:80"] {
        let output = site.node.run(&["run", "--egress", place, "--", "true"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(place), "{place}: {text}");
    }
}

/// An address can be many names', and who connects to it says which one is meant.
#[test]
fn on_the_ports_of_the_web_the_first_bytes_ask_for_the_name_that_was_given() {
    let Some(site) = Site::boot(None) else { return };
    let said = site.script(
        &["api.test:80", "api.test:443"],
        &script(&[
            "get http://api.test/",
            "get -H 'Host: other.test' http://api.test/ | head -c 5; echo",
            "get -k --connect-to other.test:443:api.test:443 https://other.test/ | head -c 5; echo",
        ]),
    );
    assert_eq!(said, ["page", "ended", "ended"], "{said:?}");
    assert_eq!((site.said("heard 192.0.2.10:80"), site.said("heard 192.0.2.10:443")), (1, 0));
    // The same with the name that was given gets through, to a server that says nothing.
    let said = site.script(&["api.test:443"], &script(&["get -k https://api.test/ | head -c 5; echo"]));
    assert_eq!(said, ["ended"]);
    assert!(within(LIMIT, || site.said("heard 192.0.2.10:443") == 1));
    let entries = site.node.log(&["ConnectionAuthorize"]);
    assert!(entries.iter().all(|entry| entry["body"]["name"] == "api.test"), "{entries:?}");
    // Whoever was given the address itself may ask for whatever it likes.
    let said = site.script(&["192.0.2.10:80"], &script(&["get -H 'Host: other.test' http://192.0.2.10/"]));
    assert_eq!(said, ["page"]);
}

#[test]
fn an_address_goes_with_the_life_of_its_answer_and_with_the_program_that_asked() {
    let Some(site) = Site::boot(None) else { return };
    // One second, at least five, and ten for a connect that is under way.
    let said = site.script(
        &["short.test:8080"],
        &script(&[
            "get http://192.0.2.11:8080/",
            "get http://short.test:8080/",
            "get http://192.0.2.11:8080/",
            "sleep 17",
            "get http://192.0.2.11:8080/",
            "get http://short.test:8080/",
        ]),
    );
    assert_eq!(said, ["ended 7", "page", "page", "ended 7", "page"]);
    // Another program has what it asked for itself.
    assert_eq!(site.script(&["short.test:8080"], &script(&["get http://192.0.2.11:8080/"])), ["ended 7"]);
}

#[test]
fn names_come_back_with_the_network_service() {
    let Some(site) = Site::boot(None) else { return };
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display();
    let text = script(&[
        "get http://api.test:8080/",
        &format!("touch {place}/before; until [ -e {place}/go ]; do sleep 0.05; done"),
        // What was answered before is forgotten with who answered it.
        "for i in $(seq 200); do page=$(get http://api.test:8080/); [ \"$page\" = page ] && break; sleep 0.1; done; echo $page",
    ]);
    let shown = format!("{place}:rw");
    let running = site
        .node
        .command(&["run", "--fs", &shown, "--egress", "api.test:8080", "--", "bash", "-c", &text])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(within(LIMIT, || folder.path().join("before").exists()));
    system_tests::kill(site.node.pid("network"));
    fs::write(folder.path().join("go"), "").unwrap();
    let output = running.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "page\npage\n");
}
