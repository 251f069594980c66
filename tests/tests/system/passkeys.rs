//! Passkeys in a real browser: headless Chromium with a virtual authenticator, driven by the DevTools protocol.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use system_tests::{TestNode, binary};

const BROWSER: &str = "/usr/bin/chromium";
const PACKAGE: &str = "chromium";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const END_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// Whether there is a Chromium; root installs one. False, with the reason on the output, where there is none.
fn has_browser() -> bool {
    if Path::new(BROWSER).is_file() {
        return true;
    }
    if rustix::process::geteuid().is_root() {
        let mut install = Command::new("apt-get");
        install.args(["install", "-y", "--no-install-recommends", PACKAGE]);
        install.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        if install.output().is_ok_and(|output| output.status.success()) {
            return true;
        }
        println!("skipped: no Chromium, and apt-get installs none");
    } else {
        println!("skipped: no Chromium (apt-get install {PACKAGE})");
    }
    false
}

/// A browser of its own, with one page and one authenticator. It is ended, and its folder removed, in the end.
struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    session: String,
    authenticator: String,
    next: u64,
    _folder: tempfile::TempDir,
}

impl Browser {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("bwb").tempdir().unwrap();
        let pipe = |name: &str| {
            let file = folder.path().join(name);
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            file
        };
        let (to, from) = (pipe("to"), pipe("from"));
        // The protocol's descriptors are 3 and 4.
        let script = format!("exec {BROWSER} \"$@\" 3<\"$TO\" 4>\"$FROM\"");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, "chromium", "--remote-debugging-pipe", "--headless", "--no-sandbox"]);
        command.args([
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
        ]);
        command.args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]);
        command.args(["--disable-breakpad", "--disable-crash-reporter"]);
        command.arg(format!("--user-data-dir={}", folder.path().join("data").display()));
        command.env("TO", &to).env("FROM", &from).env("HOME", folder.path()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let to = OpenOptions::new().write(true).open(to).unwrap();
        let mut messages = BufReader::new(File::open(from).unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            loop {
                let mut message = vec![];
                if messages.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                    message.pop();
                    if sender.send(serde_json::from_slice(&message).unwrap_or_default()).is_ok() {
                        continue;
                    }
                }
                break;
            }
        });
        let (session, authenticator) = (String::new(), String::new());
        let mut browser = Self { child, to, from, session, authenticator, next: 0, _folder: folder };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session =
            browser.ask("Target.attachToTarget", attach)["sessionId"].as_str().unwrap().to_owned();
        browser.ask("WebAuthn.enable", json!({ "enableUI": false }));
        let options = json!({ "options": {
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": true, "hasUserVerification": true,
            "isUserVerified": true, "automaticPresenceSimulation": true,
        } });
        let made = browser.ask("WebAuthn.addVirtualAuthenticator", options);
        browser.authenticator = made["authenticatorId"].as_str().unwrap().to_owned();
        browser
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        let end = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let answer = self.from.recv_timeout(left).unwrap_or_else(|error| panic!("{method}: {error}"));
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }

    /// What the page says to this, after it is done.
    fn run(&mut self, script: &str) -> Value {
        let params = json!({
            "expression": script, "awaitPromise": true, "returnByValue": true, "userGesture": true,
        });
        let result = self.ask("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{script}: {result}");
        result["result"]["value"].clone()
    }

    fn until(&mut self, script: &str) {
        let end = Instant::now() + ANSWER_TIMEOUT;
        while self.run(script) != Value::Bool(true) {
            assert!(
                Instant::now() < end,
                "never so: {script}; the page: {}",
                self.run("document.body.innerText")
            );
            std::thread::sleep(LOOK);
        }
    }

    fn open(&mut self, url: &str) {
        self.ask("Page.navigate", json!({ "url": url }));
        self.until(&format!(
            "location.href === {} && document.readyState === 'complete' && typeof use === 'function'",
            json!(url)
        ));
    }

    fn press(&mut self) {
        self.run("document.getElementById('go').click()");
    }

    fn verify_user(&mut self, verified: bool) {
        let params = json!({ "authenticatorId": self.authenticator, "isUserVerified": verified });
        self.ask("WebAuthn.setUserVerified", params);
    }

    fn credential(&mut self) -> Value {
        let params = json!({ "authenticatorId": self.authenticator });
        let all = self.ask("WebAuthn.getCredentials", params)["credentials"].clone();
        assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
        all[0].clone()
    }

    /// The authenticator as it was when its counter stood there.
    fn set_counter(&mut self, counter: u64) {
        let mut credential = self.credential();
        let of = json!({ "authenticatorId": self.authenticator, "credentialId": credential["credentialId"] });
        self.ask("WebAuthn.removeCredential", of);
        credential["signCount"] = counter.into();
        let params = json!({ "authenticatorId": self.authenticator, "credential": credential });
        self.ask("WebAuthn.addCredential", params);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        ended(&mut self.child, END_TIMEOUT);
        // What is left of its group, which the child leads.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let group = rustix::process::Pid::from_raw(pid);
            let _ =
                group.map(|group| rustix::process::kill_process_group(group, rustix::process::Signal::KILL));
        }
        let _ = self.child.wait();
    }
}

fn ended(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + within;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < end => std::thread::sleep(LOOK),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
}

/// A command that shows its page.
struct Shown {
    child: Child,
    url: String,
    errors: BufReader<std::process::ChildStderr>,
}

impl Shown {
    fn start(node: &TestNode, args: &[&str]) -> Self {
        let mut command = node.command(&[&["identity", "passkey"], args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(url.starts_with("http://localhost:"), "{line}");
        Self { child, url, errors }
    }

    /// What it printed, or why it failed.
    fn end(mut self) -> Result<String, String> {
        let status = ended(&mut self.child, ANSWER_TIMEOUT);
        if status.is_none() {
            let _ = self.child.kill();
        }
        let (mut out, mut errors) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.errors.read_to_string(&mut errors).unwrap();
        let _ = self.child.wait();
        match status {
            Some(status) if status.success() => Ok(out.trim().to_owned()),
            Some(_) => Err(errors),
            None => Err(format!("it did not end; {errors}")),
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// covers: IDN-17, IDN-27, IDN-43, IDN-45
#[test]
fn a_browser_makes_and_uses_a_passkey_and_what_is_not_right_is_refused() {
    if binary().is_none() || !has_browser() {
        return;
    }
    let node = TestNode::boot().unwrap();
    let mut browser = Browser::start();

    // The page asks for verification itself; a page that does not is refused by the node.
    let careless = "for (const name of ['create', 'get']) {
        const real = navigator.credentials[name].bind(navigator.credentials);
        navigator.credentials[name] = (options) => {
            const asked = options.publicKey;
            asked.userVerification = 'discouraged';
            if (asked.authenticatorSelection) asked.authenticatorSelection = { userVerification: 'discouraged' };
            return real(options);
        };
    }";
    let adding = Shown::start(&node, &["add", "desk", "-o", "json"]);
    browser.open(&adding.url);
    browser.press();
    let added: Value = serde_json::from_str(&adding.end().unwrap()).unwrap();
    assert_eq!((added["kind"].as_str(), added["name"].as_str()), (Some("passkey"), Some("desk")));
    let id = added["id"].as_str().unwrap();
    let listed = node.json(&["identity", "credential", "list"]);
    assert!(
        listed.as_array().unwrap().iter().any(|one| one["id"] == id && one["kind"] == "passkey"),
        "{listed}"
    );

    let login = Shown::start(&node, &["login"]);
    browser.open(&login.url);
    browser.press();
    let token = login.end().unwrap();
    assert!(token.starts_with("v4.public."), "{token}");
    let counted = browser.credential()["signCount"].as_u64().unwrap();
    assert!(counted > 1, "{counted}");

    browser.set_counter(counted - 1);
    let login = Shown::start(&node, &["login"]);
    browser.open(&login.url);
    browser.press();
    let error = login.end().unwrap_err();
    assert!(error.contains("did not advance"), "{error}");
    browser.set_counter(counted + 5);

    browser.verify_user(false);
    let login = Shown::start(&node, &["login"]);
    browser.open(&login.url);
    browser.press();
    browser.until("document.getElementById('said').textContent.includes('NotAllowedError')");
    browser.run(&format!("{careless}; true"));
    browser.press();
    let error = login.end().unwrap_err();
    assert!(error.contains("has not verified"), "{error}");
    browser.verify_user(true);

    // An answer to a challenge that another one has followed.
    let login = Shown::start(&node, &["login"]);
    browser.open(&login.url);
    browser.run(
        "(async () => {
        const first = await use(await ask('challenge', {}));
        await ask('challenge', {});
        await ask('answer', first);
    })()",
    );
    let error = login.end().unwrap_err();
    assert!(error.contains("does not fit"), "{error}");

    // An answer that was given on another page for this page's challenge.
    let (login, other) = (Shown::start(&node, &["login"]), Shown::start(&node, &["login"]));
    browser.open(&login.url);
    let asked = browser.run("ask('challenge', {})");
    browser.open(&other.url);
    let answer = browser.run(&format!("use({asked})"));
    browser.open(&login.url);
    browser.run(&format!("ask('answer', {answer})"));
    let error = login.end().unwrap_err();
    assert!(error.contains("another page"), "{error}");
    drop(other);

    // After all this, what is right still is.
    let login = Shown::start(&node, &["login", "--credential", id]);
    browser.open(&login.url);
    browser.press();
    assert!(login.end().unwrap().starts_with("v4.public."));
    node.ok(&["identity", "credential", "revoke", id]);
    assert!(node.run(&["identity", "passkey", "login", "--wait-s", "5"]).status.code() != Some(0));
}

/// Nobody answers.
#[test]
fn a_page_ends_by_itself() {
    let Some(node) = TestNode::boot() else { return };
    let begun = Instant::now();
    let error = Shown::start(&node, &["add", "--wait-s", "1"]).end().unwrap_err();
    assert!(error.contains("nobody has answered for 1 s"), "{error}");
    assert!(begun.elapsed() < ANSWER_TIMEOUT);
}
