//! When a secret of the edge is withheld, and what of a program that runs goes on: its file is gone or another one, a rate is
//! passed, a rule goes at the last moment.

use std::{
    fs,
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::atomic::Ordering,
};

use system_tests::{kill, within};

use crate::edge::{Edge, LIMIT, SECRET, TOOLS, found_below, values};

const ROTATED: &str = "another-horse-of-another-battery-41";

/// A service with a secret for the host, which may also reach the plain server.
fn served(edge: &Edge) {
    let (host, plain) = (edge.host.place, edge.plain.place);
    edge.rule("out", "Allow", "connect", "**");
    edge.rule("use", "Allow", "use_secret", &format!("token@{host}"));
    let manifest = format!(
        "[program]\nimage = \"/bin/sleep\"\nargs = [\"100000\"]\n[egress]\nallow = [\"{host}\", \"{plain}\"]\nproxy = true\n\
         [[egress.credentials]]\nhost = \"{host}\"\nsecret = \"token\"\npath = \"{}\"\nauthority = \"{}\"\n",
        edge.file("key"),
        edge.file("ca.pem")
    );
    let applied = edge.node.apply("served", &manifest);
    assert!(applied.status.success(), "{applied:?}");
}

/// What a command beside the program is answered, and what stands in the answer.
fn get(edge: &Edge, url: &str) -> String {
    let script = format!("{TOOLS}get {url}; cat /tmp/page");
    let output = edge.node.run(&["exec", "served", "--", "bash", "-c", &script]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn bearer(secret: &str) -> Vec<String> {
    vec![format!("Bearer {secret}")]
}

/// The header that the host heard last.
fn heard(edge: &Edge) -> Vec<String> {
    edge.host.heard().last().map(|head| values(head, "authorization")).unwrap_or_default()
}

fn is_page(said: &str) -> bool {
    said.starts_with("page")
}

/// `network` dies, and the service has its way out again.
fn network_is_back(edge: &Edge) {
    let before = edge.node.pid("network");
    kill(before);
    assert!(within(LIMIT, || !Path::new(&format!("/proc/{before}")).exists()));
    let plain = edge.plain.url("/");
    assert!(within(LIMIT, || is_page(&get(edge, &plain))), "{}", edge.node.service_log("network"));
}

#[test]
fn a_secret_that_is_lost_takes_nothing_else_of_a_running_service_along() {
    let Some(edge) = Edge::boot() else { return };
    served(&edge);
    let url = edge.host.url("/");
    assert!(is_page(&get(&edge, &url)), "{}", get(&edge, &url));
    assert_eq!(heard(&edge), bearer(SECRET));
    let pid = edge.node.pid("served");
    // Gone, of a second line, and with a certificate that is none.
    let (key, pem) = (edge.file("key"), edge.file("ca.pem"));
    let certificate = fs::read(&pem).unwrap();
    for (lose, why) in [
        (&(|| fs::remove_file(&key).unwrap()) as &dyn Fn(), "cannot be read"),
        (&|| fs::write(&key, format!("{SECRET}\nand more\n")).unwrap(), "control character"),
        (
            &|| {
                fs::write(&key, SECRET).unwrap();
                fs::write(&pem, "no certificate").unwrap();
            },
            "withheld",
        ),
    ] {
        lose();
        network_is_back(&edge);
        let refused = get(&edge, &url);
        assert!(refused.starts_with("403/0"), "{refused}");
        assert!(refused.contains("the secret token is withheld") && refused.contains(why), "{refused}");
        assert!(!refused.contains(&key) && !refused.contains(SECRET), "{refused}");
        assert_eq!(edge.host.heard(), Vec::<String>::new());
        // Its health is asked for now and then.
        let status = || String::from_utf8_lossy(&edge.node.run(&["status"]).stdout).into_owned();
        let named = format!("token@{} of service served", edge.host.place);
        assert!(within(LIMIT, || status().contains(&named)), "{}", status());
    }
    assert_eq!(edge.node.pid("served"), pid, "it was started anew");
    // Whole again, and there when it is started again, or `network` is.
    fs::write(&pem, certificate).unwrap();
    fs::write(&key, ROTATED).unwrap();
    assert!(get(&edge, &url).starts_with("403/0"));
    edge.node.ok(&["service", "restart", "served"]);
    assert!(within(LIMIT, || is_page(&get(&edge, &url))), "{}", get(&edge, &url));
    assert_eq!(heard(&edge), bearer(ROTATED));
    // It does not start without it.
    fs::remove_file(&key).unwrap();
    let restarted = edge.node.run(&["service", "restart", "served"]);
    let why = || format!("{restarted:?} {}", edge.node.service("served"));
    assert!(within(LIMIT, || why().contains("cannot read")), "{}", why());
    assert_eq!(found_below(edge.node.root()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_secret_that_is_changed_is_another_one_at_the_next_start() {
    let Some(edge) = Edge::boot() else { return };
    served(&edge);
    let url = edge.host.url("/");
    let sends = |secret: &str| {
        assert!(within(LIMIT, || is_page(&get(&edge, &url))), "{}", get(&edge, &url));
        assert_eq!(heard(&edge), bearer(secret));
    };
    sends(SECRET);
    fs::write(edge.file("key"), format!("{ROTATED}\n")).unwrap();
    // A program that runs has what it was started with.
    sends(SECRET);
    edge.node.ok(&["service", "restart", "served"]);
    sends(ROTATED);
    // But nobody keeps it for when `network` has ended.
    fs::write(edge.file("key"), SECRET).unwrap();
    sends(ROTATED);
    network_is_back(&edge);
    sends(SECRET);
}

/// A program of `run` that asks the host whenever it is told a word.
struct Asks {
    child: Child,
    tell: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Asks {
    fn new(edge: &Edge) -> Self {
        let script = format!("{TOOLS}while read word; do echo \"$word $(get {})\"; done", edge.host.url("/"));
        let words =
            [edge.words(&[edge.host.place]), ["--", "bash", "-c", &script].map(str::to_owned).to_vec()]
                .concat();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut child =
            edge.node.command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (tell, said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, tell, lines: BufReader::new(said).lines() }
    }

    fn tell(&mut self, word: &str) {
        self.tell.write_all(format!("{word}\n").as_bytes()).unwrap();
    }

    fn said(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn ask(&mut self, word: &str) -> String {
        self.tell(word);
        self.said()
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Long enough for a few requests of a busy machine.
const WINDOW_NS: u64 = 15_000_000_000;

fn add(edge: &Edge, id: &str, priority: u32, rest: &str) {
    let text = format!("[[rule]]\nid = \"{id}\"\nname = \"{id}\"\npriority = {priority}\n{rest}");
    let file = edge.node.file(&format!("{id}.toml"), text);
    edge.node.ok(&["policy", "add", &file]);
}

/// At the rate, one past it, and when the window is over.
#[test]
fn a_rate_refuses_the_request_and_leaves_the_secret() {
    let Some(edge) = Edge::boot() else { return };
    // What the rate does not allow is denied by a rule behind it, not by none.
    add(&edge, "no-use", 9_000, "effect = \"Deny\"\n[rule.condition]\naction = { kind = \"use_secret\" }\n");
    add(
        &edge,
        "limited",
        10_000,
        &format!(
            "effect = \"Allow\"\n[rule.condition]\n\
             and = [{{ action = {{ kind = \"use_secret\" }} }}, {{ rate_limit = {{ count = 3, window_ns = {WINDOW_NS} }} }}]\n"
        ),
    );
    // Handing it over is one.
    let mut asks = Asks::new(&edge);
    assert_eq!([asks.ask("second"), asks.ask("third")], ["second page", "third page"]);
    assert_eq!(asks.ask("fourth"), "fourth 429/0");
    assert_eq!(edge.host.heard().len(), 2);
    assert!(within(LIMIT, || asks.ask("later") == "later page"));
    assert_eq!(heard(&edge), bearer(SECRET));
    // One that is started while the rate is used up has it when the window is over.
    assert!(within(LIMIT, || asks.ask("again") != "again page"));
    edge.host.heard();
    let mut late = Asks::new(&edge);
    assert_eq!(late.ask("early"), "early 429/0");
    assert!(within(LIMIT, || late.ask("later") == "later page"));
    // With the rule it goes for good.
    edge.node.ok(&["policy", "remove", "limited"]);
    edge.node.ok(&["policy", "remove", "no-use"]);
    edge.host.heard();
    assert_eq!([asks.ask("gone"), late.ask("gone")], ["gone 403/0", "gone 403/0"]);
    assert_eq!(edge.host.heard(), Vec::<String>::new());
}

#[test]
fn what_an_allowance_asks_for_beside_is_held_to_before_a_secret_is_used() {
    let Some(edge) = Edge::boot() else { return };
    add(
        &edge,
        "under",
        10_000,
        "effect = \"AllowWithConditions\"\nrestrictions = [{ name = \"not yet\", condition = \"never\" }]\n\
         [rule.condition]\naction = { kind = \"use_secret\" }\n",
    );
    let mut asks = Asks::new(&edge);
    assert_eq!(asks.ask("first"), "first 429/0");
    assert_eq!(edge.host.heard(), Vec::<String>::new());
    edge.node.ok(&["policy", "remove", "under"]);
    assert_eq!(asks.ask("then"), "then page");
}

#[test]
fn a_rule_that_goes_after_it_has_allowed_and_before_the_host_has_shown_itself_lets_nothing_out() {
    let Some(edge) = Edge::boot() else { return };
    edge.rule("use", "Allow", "use_secret", "key@**");
    let mut asks = Asks::new(&edge);
    assert_eq!(asks.ask("first"), "first page");
    assert_eq!(heard(&edge), bearer(SECRET));
    let came = edge.host.came.load(Ordering::SeqCst);
    edge.host.is_shut.store(true, Ordering::SeqCst);
    asks.tell("second");
    assert!(within(LIMIT, || edge.host.came.load(Ordering::SeqCst) > came), "nobody came");
    // It has been decided, and the host says nothing yet.
    assert!(edge.decided().iter().filter(|allowed| **allowed).count() >= 3, "{:?}", edge.decided());
    edge.node.ok(&["policy", "remove", "use"]);
    edge.host.is_shut.store(false, Ordering::SeqCst);
    assert_eq!(asks.said(), "second 403/0");
    assert_eq!(edge.host.heard(), Vec::<String>::new());
}
