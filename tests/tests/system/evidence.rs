//! What a node gives away, checked by verifiers that share no code with it, and what they must refuse.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use system_tests::{TestNode, binary};

/// Exit code for what does not hold.
const DOES_NOT_HOLD: i32 = 5;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Python of the path, and the one to which Debian's packages belong.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// Python with the one package that the second verifier needs. None, with the reason on the output.
fn python() -> Option<Command> {
    let usable = |python: &&&str| {
        let found = Command::new(python).args(["-c", "import cryptography"]).output();
        found.is_ok_and(|found| found.status.success())
    };
    let Some(python) = PYTHONS.iter().find(usable) else {
        println!("skipped: no python3 with the package cryptography (apt-get install python3-cryptography)");
        return None;
    };
    let mut command = Command::new(python);
    command.arg("-B").arg(repository().join("daemons/verify_py/verify.py"));
    Some(command)
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The files of one folder of the corpus.
fn corpus(folder: &str) -> Vec<PathBuf> {
    let folder = repository().join("tests/corpus").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn log_key() -> String {
    fs::read_to_string(repository().join("tests/corpus/log.key")).unwrap().trim().to_owned()
}

/// Whether the reader brings the log's key: a proof needs it, evidence must be refused for what it is.
fn needs_key(file: &Path, folder: &str) -> bool {
    file.extension().is_some_and(|kind| kind == "proof") || folder == "foreign"
}

#[test]
fn the_first_verifier_refuses_the_corpus() {
    let Some(binary) = binary() else { return };
    let key = log_key();
    for (folder, code) in [("holds", 0), ("refused", DOES_NOT_HOLD), ("foreign", DOES_NOT_HOLD)] {
        for file in corpus(folder) {
            let mut command = Command::new(&binary);
            // Where no node can be, either.
            command.env_remove("XDG_RUNTIME_DIR").env_remove("HOME").arg("verify").arg(&file);
            if needs_key(&file, folder) {
                command.args(["--key", &key]);
            }
            let output = run(&mut command);
            assert_eq!(output.status.code(), Some(code), "{}: {}", file.display(), said(&output));
            assert!(code == 0 || said(&output).contains("does not hold: "), "{}", said(&output));
        }
    }
}

#[test]
fn the_second_verifier_refuses_the_corpus() {
    let key = log_key();
    for (folder, verdict) in [("holds", "holds\t"), ("refused", "refused\t"), ("foreign", "refused\t")] {
        let (with, without): (Vec<_>, Vec<_>) =
            corpus(folder).into_iter().partition(|file| needs_key(file, folder));
        for (files, key) in [(with, Some(&key)), (without, None)] {
            let Some(mut command) = python() else { return };
            if files.is_empty() {
                continue;
            }
            command.args(&files);
            if let Some(key) = key {
                command.args(["--key", key]);
            }
            let output = run(&mut command);
            let lines = String::from_utf8(output.stdout.clone()).unwrap();
            assert_eq!(lines.lines().count(), files.len(), "{}", said(&output));
            for line in lines.lines() {
                assert!(line.starts_with(verdict), "{line}");
            }
        }
    }
}

/// A node with a published log: `old` is what somebody kept of it, `dir` is newer.
struct Published {
    node: TestNode,
    dir: PathBuf,
    old: PathBuf,
    key: String,
}

impl Published {
    fn make() -> Option<Self> {
        let node = TestNode::boot()?;
        let (dir, old) = (node.root().join("published"), node.root().join("old"));
        let key = node.json(&["log", "checkpoint"])["key"].as_str().unwrap().to_owned();
        fs::write(&old, node.ok(&["log", "checkpoint"])).unwrap();
        let published = Self { node, dir, old, key };
        published.publish(Some(&published.old));
        published.grow();
        published.publish(None);
        Some(published)
    }

    fn grow(&self) {
        self.node.ok(&["run", "--", "/bin/true"]);
    }

    fn publish(&self, checkpoint: Option<&Path>) {
        let mut args = vec!["log", "publish", self.dir.to_str().unwrap()];
        args.extend(checkpoint.into_iter().flat_map(|file| ["--checkpoint", file.to_str().unwrap()]));
        self.node.ok(&args);
    }

    fn refused(&self, args: &[&str]) -> String {
        let output = self.node.run(args);
        assert_eq!(output.status.code(), Some(DOES_NOT_HOLD), "{args:?}: {}", said(&output));
        said(&output)
    }
}

#[test]
fn evidence_of_a_node_convinces_both_verifiers() {
    let Some(published) = Published::make() else { return };
    let Published { node, old, key, .. } = &published;
    let (old, size) = (old.to_str().unwrap(), node.json(&["log", "checkpoint"])["size"].as_u64().unwrap());
    let file = |name: &str| node.root().join(name).to_str().unwrap().to_owned();
    let (evidence, proof) = (file("evidence"), file("proof"));
    let to = (size - 2).to_string();
    node.ok(&["log", "export", "--from", "1", "--to", &to, "--since", old, "-o", &evidence]);
    assert_eq!(node.run(&["status", "-o", &evidence]).status.code(), Some(2), "a file is no form");
    node.ok(&["log", "prove", "0", &proof]);
    let checked = node.json(&["verify", &evidence, "--key", key, "--remembered", old]);
    assert_eq!(checked["shown"].as_array().unwrap().len() as u64, size - 2);
    assert_eq!(checked["key_given"], true);
    assert_eq!(node.json(&["verify", &proof, "--key", key])["shown"][0]["type"], "Genesis");
    // A file of another log, and one byte in one entry.
    published.refused(&["verify", &evidence, "--key", &log_key()]);
    let text = fs::read_to_string(&evidence).unwrap();
    let at = text.find("\nentry 5 ").unwrap() + 200;
    let mut changed = text.clone().into_bytes();
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    fs::write(file("changed"), changed).unwrap();
    assert!(published.refused(&["verify", &file("changed"), "--key", key]).contains("root"));
    let Some(mut command) = python() else { return };
    let output = run(command.args([&evidence, "--key", key, "--remembered", old]));
    assert!(output.status.success(), "{}", said(&output));
    let output = run(python().unwrap().args([&file("changed"), "--key", key]));
    assert_eq!(output.status.code(), Some(DOES_NOT_HOLD), "{}", said(&output));
    let output = run(python().unwrap().args([&proof, "--key", key]));
    assert!(output.status.success(), "{}", said(&output));
}

/// Where Debian puts Go's packages.
const GO_PATH: &str = "/usr/share/gocode";

/// Go's transparency log library, built once. None, with the reason on the output.
fn go_verifier(folder: &Path) -> Option<PathBuf> {
    let library = Path::new(GO_PATH).join("src/golang.org/x/mod/sumdb/tlog").is_dir();
    if !library || Command::new("go").arg("version").output().is_err() {
        println!("skipped: no Go with golang.org/x/mod (apt-get install golang-go golang-golang-x-mod-dev)");
        return None;
    }
    let program = folder.join("tlog");
    let source = repository().join("tests/verifiers/tlog.go");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(source);
    build.envs([("GO111MODULE", "off"), ("GOPATH", GO_PATH), ("GOFLAGS", ""), ("GOTOOLCHAIN", "local")]);
    let output = run(build.env("GOCACHE", folder.join("cache")).env("HOME", folder));
    assert!(output.status.success(), "{}", said(&output));
    Some(program)
}

#[test]
fn a_published_log_convinces_an_independent_library() {
    let folder = tempfile::tempdir().unwrap();
    let Some(verifier) = go_verifier(folder.path()) else { return };
    let Some(published) = Published::make() else { return };
    let Published { node, dir, old, key } = &published;
    let kept = fs::read_to_string(old).unwrap();
    let kept: Vec<&str> = kept.lines().collect();
    let check = || run(Command::new(&verifier).arg(dir).args([key.as_str(), kept[1], kept[2]]));
    let output = check();
    assert!(output.status.success(), "{}", said(&output));
    // Enough for full tiles.
    let message = node.root().join("message");
    fs::write(&message, "m").unwrap();
    while node.json(&["log", "checkpoint"])["size"].as_u64().unwrap() < 520 {
        for _ in 0..8 {
            published.grow();
        }
        node.ok(&["key", "sign", "/orbital/users/admin", message.to_str().unwrap()]);
    }
    published.publish(None);
    let size = node.json(&["verify", dir.to_str().unwrap(), "--key", key])["size"].as_u64().unwrap();
    assert!(dir.join("tile/0/001").is_file() && !dir.join("tile/entries/000.p").exists());
    let output = check();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), size.to_string());
    let tile = dir.join("tile/0/000");
    let mut bytes = fs::read(&tile).unwrap();
    bytes[8000] ^= 1;
    fs::write(&tile, bytes).unwrap();
    assert!(!check().status.success(), "the library does not look at the tiles");
}

#[test]
fn what_is_published_is_only_added_to() {
    let Some(mut published) = Published::make() else { return };
    let dir = published.dir.to_str().unwrap().to_owned();
    let old = published.old.to_str().unwrap().to_owned();
    let key = published.key.clone();
    assert!(published.refused(&["log", "publish", &dir, "--checkpoint", &old]).contains("rolled back"));
    // Offline: the stopped node's own folder, and a copy of it somewhere else.
    published.grow();
    published.node.down();
    published.publish(None);
    let size = published.node.json(&["verify", &dir, "--key", &key])["size"].as_u64().unwrap();
    let log = published.node.root().join("state/axiom/log");
    let kept = published.node.root().join("state/head/checkpoint");
    let again = published.node.root().join("again").to_str().unwrap().to_owned();
    let from = ["--log", log.to_str().unwrap(), "--checkpoint", kept.to_str().unwrap()];
    published.node.ok(&[&["log", "publish", again.as_str()][..], &from].concat());
    assert_eq!(published.node.json(&["verify", &again, "--key", &key])["size"], size);
    for name in ["checkpoint", "tile/1", "tile/0/000"] {
        let same = |folder: &str| fs::read(Path::new(folder).join(name)).ok();
        assert_eq!(same(&dir), same(&again), "{name}");
    }
    // A stop between the tiles and the checkpoint: the next run goes on.
    fs::copy(&old, Path::new(&again).join("checkpoint")).unwrap();
    published.node.ok(&[&["log", "publish", again.as_str()][..], &from].concat());
    assert_eq!(published.node.json(&["verify", &again, "--key", &key])["size"], size);
    // Another log's folder.
    let Some(other) = TestNode::boot() else { return };
    let output = other.run(&["log", "publish", &dir]);
    assert_eq!(output.status.code(), Some(DOES_NOT_HOLD), "{}", said(&output));
}

/// The whole state is brought back from a copy, log and head: what the log signed since is remembered beside the head, and
/// by whoever kept a checkpoint.
#[test]
fn a_log_that_was_rolled_back_is_not_opened() {
    let Some(mut node) = TestNode::boot() else { return };
    node.down();
    let state = node.root().join("state");
    let copy = node.root().join("copy");
    let take = |from: &Path, to: &Path| {
        let output = run(Command::new("cp").arg("-a").arg(from).arg(to));
        assert!(output.status.success(), "{}", said(&output));
    };
    take(&state, &copy);
    node.up();
    node.ok(&["run", "--", "/bin/true"]);
    let kept = node.root().join("kept");
    fs::write(&kept, node.ok(&["log", "checkpoint"])).unwrap();
    node.down();
    for part in ["axiom/log", "head/head"] {
        let place = state.join(part);
        let _ = fs::remove_dir_all(&place).or_else(|_| fs::remove_file(&place));
        take(&copy.join(part), &place);
    }
    let output = node.run(&["log", "verify", "--checkpoint", kept.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(DOES_NOT_HOLD), "{}", said(&output));
    assert!(
        node.run(&["log", "verify"]).status.success(),
        "without a checkpoint a shorter log is a sound one"
    );
    let started = node.run(&["up", "--detach", "--name", "test"]);
    let told = fs::read_to_string(state.join("logs/axiom.log")).unwrap_or_default();
    let _ = node.run(&["down"]);
    assert!(!started.status.success(), "the node started on a log that was rolled back");
    assert!(told.contains("does not contain the checkpoint that it signed"), "{told}");
}

#[test]
fn a_witness_signs_growth_and_its_signature_goes_into_the_evidence() {
    let Some(published) = Published::make() else { return };
    let Published { node, dir, old, key } = &published;
    let (home, dir) = (node.root().join("witness"), dir.to_str().unwrap());
    let home = home.to_str().unwrap();
    let give = |args: &[&str], input: &str| {
        let mut command = node.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let witness =
        node.json(&["witness", "init", home, "witness.example/1"])["key"].as_str().unwrap().to_owned();
    let request = node.ok(&["log", "request", dir]);
    let unknown = give(&["witness", "add", home], &request);
    assert!(said(&unknown).contains("404"), "{}", said(&unknown));
    node.ok(&["witness", "trust", home, key]);
    let answer = give(&["witness", "add", home], &request);
    assert!(answer.status.success(), "{}", said(&answer));
    let answer = String::from_utf8(answer.stdout).unwrap();
    let stranger = give(&["log", "cosign", dir, "--witness", &log_key()], &answer);
    assert!(!stranger.status.success());
    let taken = give(&["log", "cosign", dir, "--witness", &witness], &answer);
    assert!(taken.status.success(), "{}", said(&taken));
    let wrong = give(&["witness", "add", home], &request);
    assert!(said(&wrong).contains("409"), "{}", said(&wrong));
    let evidence = node.root().join("evidence");
    let evidence = evidence.to_str().unwrap();
    let checkpoint = format!("{dir}/checkpoint");
    node.ok(&["log", "export", evidence, "--from", "3", "--witness", &witness, "--checkpoint", &checkpoint]);
    let checked = node.json(&["verify", evidence, "--key", key, "--witness", &witness]);
    assert_eq!(checked["witnesses"][0][0], "witness.example/1");
    // An older state of the log, although its own key signed it.
    let behind = node.root().join("behind");
    node.ok(&["log", "publish", behind.to_str().unwrap(), "--checkpoint", old.to_str().unwrap()]);
    let size = checked["size"].to_string();
    let request = node.ok(&["log", "request", behind.to_str().unwrap()]);
    let back = give(&["witness", "add", home], &request.replacen("old 0", &format!("old {size}"), 1));
    assert!(said(&back).contains("400"), "{}", said(&back));
    let Some(mut command) = python() else { return };
    let output = run(command.args([evidence, "--key", key, "--witness", &witness]));
    assert!(output.status.success(), "{}", said(&output));
}
