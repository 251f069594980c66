//! A real git, a real ssh and a real sshd use keys that never leave the node.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use system_tests::{TestNode, within};

const PATH: &str = "/orbital/users/admin/@ssh";
const LIMIT: Duration = Duration::from_secs(20);

/// Above the rule that lets everybody use their own keys.
const DENY: &str = r#"
[[rule]]
id = "no-ssh"
name = "No key for ssh is used"
priority = 950
effect = "Deny"
condition = { resource = { path_prefix = "/orbital/users/admin/@ssh" } }
"#;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// None, with the reason on the output, where the program is not installed.
fn installed(program: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    // What is for the administrator is not in everybody's path.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        println!("skipped: no {program} (apt-get install {package})");
    }
    found
}

/// A node whose operator has an agent in the background, and a home of its own.
struct Desk {
    node: TestNode,
    home: PathBuf,
    socket: String,
    agent: String,
    key: String,
}

impl Desk {
    fn make() -> Option<Self> {
        let node = TestNode::boot()?;
        let home = node.root().join("home");
        fs::create_dir(&home).unwrap();
        let told = node.ok(&["ssh-agent", "--path", PATH]);
        let value = |name: &str| {
            let (_, rest) = told.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("{told}"));
            rest.split_once(';').unwrap().0.to_owned()
        };
        let key = node.ok(&["key", "public", PATH, "--ssh"]).trim().to_owned();
        fs::write(home.join("key.pub"), format!("{key}\n")).unwrap();
        let (socket, agent) = (value("SSH_AUTH_SOCK"), value("SSH_AGENT_PID"));
        Some(Self { home, socket, agent, key, node })
    }

    /// With nothing of the real user's but the path.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", &self.home);
        command.env("SSH_AUTH_SOCK", &self.socket).stdin(Stdio::null());
        // Looks for configuration nowhere else.
        command.envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_TERMINAL_PROMPT", "0"), ("LC_ALL", "C")]);
        command
    }

    fn file(&self, name: &str) -> String {
        self.home.join(name).to_str().unwrap().to_owned()
    }

    /// Uses of keys on record; true for those that were made.
    fn uses(&self, made: bool) -> Vec<Value> {
        let mut uses = self.node.log(&["KeyUsage"]);
        uses.retain(|entry| entry["body"]["refused"].is_null() == made);
        uses
    }

    fn deny(&self) {
        let file = self.node.file("deny.toml", DENY);
        self.node.ok(&["policy", "add", &file]);
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(&self.agent).status();
        let gone = within(LIMIT, || !Path::new(&self.socket).exists());
        if !gone && !std::thread::panicking() {
            panic!("the agent did not end");
        }
    }
}

#[test]
fn git_signs_commits_and_each_is_decided_and_on_record() {
    let Some(git) = installed("git", "git") else { return };
    if installed("ssh-keygen", "openssh-client").is_none() {
        return;
    }
    let Some(desk) = Desk::make() else { return };
    let repository = desk.home.join("repository");
    let git = |args: &[&str]| {
        let mut command = desk.command(&git);
        command.current_dir(&desk.home).arg("-C").arg(&repository).args(args).output().unwrap()
    };
    let done = |args: &[&str]| {
        let output = git(args);
        assert!(output.status.success(), "git {args:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    fs::create_dir(&repository).unwrap();
    done(&["init", "--quiet"]);
    fs::write(desk.file("allowed"), format!("alice@example.org namespaces=\"git\" {}\n", desk.key)).unwrap();
    for (name, value) in [
        ("user.name", "Alice"),
        ("user.email", "alice@example.org"),
        ("gpg.format", "ssh"),
        ("user.signingkey", &desk.file("key.pub")),
        ("gpg.ssh.allowedSignersFile", &desk.file("allowed")),
    ] {
        done(&["config", name, value]);
    }
    done(&["commit", "--quiet", "-S", "--allow-empty", "-m", "signed"]);
    let verified = git(&["verify-commit", "HEAD"]);
    assert!(verified.status.success(), "{}", said(&verified));
    assert!(said(&verified).contains("Good \"git\" signature for alice@example.org"), "{}", said(&verified));
    done(&["tag", "-s", "-m", "signed too", "v1"]);
    done(&["verify-tag", "v1"]);

    let made = desk.uses(true);
    assert_eq!(made.len(), 2, "{made:#?}");
    let me = desk.node.json(&["identity", "whoami"])["id"].clone();
    for used in &made {
        assert_eq!((&used["body"]["key_path"], &used["body"]["identity"]), (&PATH.into(), &me), "{used:#}");
        let decision = used["body"]["authorization"]["sequence"].as_u64().unwrap();
        let decision = &desk.node.json(&["log", "show", &decision.to_string()])[0];
        assert_eq!(
            (&decision["type"], &decision["body"]["effect"]),
            (&"PolicyDecision".into(), &"Allow".into())
        );
    }

    // Nobody else's signature is one of Alice's.
    fs::write(desk.file("allowed"), "").unwrap();
    assert!(!git(&["verify-commit", "HEAD"]).status.success());

    let head = done(&["rev-parse", "HEAD"]);
    desk.deny();
    let refused = git(&["commit", "--quiet", "-S", "--allow-empty", "-m", "refused"]);
    assert!(!refused.status.success(), "signed against a rule");
    assert_eq!(done(&["rev-parse", "HEAD"]), head, "nothing was committed");
    assert_eq!(desk.uses(true).len(), 2, "nothing was signed");
    let why = desk.node.json(&["why", "last"]);
    assert_eq!(why["rule"], "no-ssh", "{why:#}");
    assert!(why["request"].to_string().contains(PATH), "{why:#}");
    let log = fs::read_to_string(desk.node.root().join("state/logs/ssh-agent.log")).unwrap();
    assert!(log.contains("signing was refused; `bailiwick why"), "{log}");
}

/// A server of this test's own on a free port of the loopback.
struct Sshd {
    child: Child,
    port: u16,
    /// Made here, because the package's service would.
    separation: Option<&'static Path>,
}

impl Sshd {
    fn start(desk: &Desk, sshd: &Path) -> Self {
        let made = desk
            .command("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "host", "-f", &desk.file("host")])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", said(&made));
        fs::write(desk.file("authorized"), format!("{}\n", desk.key)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = fs::read_to_string(desk.file("host.pub")).unwrap();
        fs::write(desk.file("known"), format!("[127.0.0.1]:{port} {host}")).unwrap();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PubkeyAuthentication yes\nPermitRootLogin prohibit-password\nPermitUserRC no\n",
            desk.file("host"),
            desk.file("authorized"),
        );
        fs::write(desk.file("sshd_config"), config).unwrap();
        let separation = Path::new("/run/sshd");
        let missing = rustix::process::geteuid().is_root() && !separation.exists();
        if missing {
            fs::create_dir(separation).unwrap();
            fs::set_permissions(separation, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let log = fs::File::create(desk.file("sshd.log")).unwrap();
        let mut command = desk.command(sshd);
        command.args(["-D", "-e", "-f", &desk.file("sshd_config")]).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        let server = Self { child, port, separation: missing.then_some(separation) };
        let listens = within(LIMIT, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        assert!(listens, "{}", fs::read_to_string(desk.file("sshd.log")).unwrap());
        server
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.separation.map(fs::remove_dir);
    }
}

#[test]
fn ssh_logs_in_with_a_key_of_the_node() {
    let Some(sshd) = installed("sshd", "openssh-server") else { return };
    let Some(ssh) = installed("ssh", "openssh-client") else { return };
    let Some(desk) = Desk::make() else { return };
    let server = Sshd::start(&desk, &sshd);
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let login = |socket: &str| {
        let mut command = desk.command(&ssh);
        command.args(["-F", "none", "-p", &server.port.to_string(), "-l", user.trim()]);
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "GlobalKnownHostsFile=/dev/null",
            "PreferredAuthentications=publickey",
            "IdentitiesOnly=yes",
            "ConnectTimeout=10",
            &format!("UserKnownHostsFile={}", desk.file("known")),
            &format!("IdentityFile={}", desk.file("key.pub")),
        ] {
            command.args(["-o", option]);
        }
        command.env("SSH_AUTH_SOCK", socket).args(["127.0.0.1", "echo let in"]).output().unwrap()
    };
    let log = || fs::read_to_string(desk.file("sshd.log")).unwrap();
    let output = login(&desk.socket);
    assert!(output.status.success(), "{}\n{}", said(&output), log());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "let in\n");
    let made = desk.uses(true);
    assert_eq!(made.len(), 1, "{made:#?}");
    assert_eq!(made[0]["body"]["key_path"], PATH);
    // The key is nowhere else.
    assert!(!login("/nowhere").status.success());
    desk.deny();
    assert!(!login(&desk.socket).status.success(), "logged in against a rule");
    assert_eq!(desk.uses(true).len(), 1, "nothing was signed");
}

#[test]
fn the_agent_offers_what_was_named_to_its_owner_and_does_nothing_else() {
    let Some(desk) = Desk::make() else { return };
    let mode = fs::metadata(&desk.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ask = |message: &[u8]| {
        let mut stream = UnixStream::connect(&desk.socket).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(message).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    };
    const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
    let listed = ask(&[0, 0, 0, 1, 11]);
    assert!(listed.ends_with(PATH.as_bytes()) && listed[4..9] == [12, 0, 0, 0, 1], "{listed:?}");
    // Add, remove, lock, an extension, a length that nobody means, and nothing at all.
    for message in
        [&[0, 0, 0, 1, 17][..], &[0, 0, 0, 1, 19], &[0, 0, 0, 1, 22], &[0, 0, 0, 1, 27], &[0xff; 4]]
    {
        assert_eq!(ask(message), FAILURE, "{message:?}");
    }
    assert!(ask(b"").is_empty());
    // Two messages of one conversation, and it still serves.
    assert_eq!(ask(&[0, 0, 0, 1, 27, 0, 0, 0, 1, 11]), [&FAILURE[..], &listed].concat());

    if installed("ssh-keygen", "openssh-client").is_some() {
        let file = desk.file("message");
        let sign = |namespace: &str| {
            fs::write(&file, "a message").unwrap();
            let mut command = desk.command("ssh-keygen");
            command
                .args(["-Y", "sign", "-f", &desk.file("key.pub"), "-n", namespace, &file])
                .output()
                .unwrap()
        };
        let signed = sign("file");
        assert!(signed.status.success(), "{}", said(&signed));
        assert!(!sign("email").status.success(), "another format's signature");
        let refused = desk.uses(false);
        assert_eq!((refused.len(), desk.uses(true).len()), (1, 1), "{refused:#?}");
        assert!(
            refused[0]["body"]["refused"].as_str().unwrap().contains("not for \"email\""),
            "{refused:#?}"
        );
    }

    // With a command it ends when that does, and takes its code.
    let place = desk.file("agent");
    let words = ["ssh-agent", "--socket", &place, "--", "sh", "-c", "test -S \"$SSH_AUTH_SOCK\" && exit 7"];
    assert_eq!(desk.node.run(&words).status.code(), Some(7));
    assert!(!Path::new(&place).exists());
    let other = desk.node.run(&["ssh-agent", "--path", "/orbital/users/admin", "--", "true"]);
    assert_eq!(other.status.code(), Some(2), "{}", said(&other));
    assert_eq!(desk.node.run(&["key", "public", "/orbital/users/admin", "--ssh"]).status.code(), Some(2));
    let taken = desk.node.run(&["ssh-agent", "--socket", &desk.socket]);
    assert!(said(&taken).contains("already"), "{}", said(&taken));
}
