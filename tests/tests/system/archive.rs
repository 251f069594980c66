//! Whole segments are taken out of a node's log and put back; everything goes on meanwhile, and what is not below a
//! checkpoint that a witness signed stays.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use system_tests::{TestNode, kill, within};

/// A node's genesis fits, and a few dozen acts fill one.
const SEGMENT_BYTES: &str = "65536";
const SOON: Duration = Duration::from_secs(60);

fn give(node: &TestNode, args: &[&str], input: &str) -> Output {
    let mut command = node.command(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn segments(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".seg")).collect();
    names.sort();
    names
}

/// A node with small segments, a published log, a witness, and where archives go.
struct Site {
    node: TestNode,
    witness: String,
}

impl Site {
    fn boot() -> Option<Self> {
        let mut node = TestNode::empty()?;
        up(&mut node);
        let home = node.root().join("witness");
        let home = home.to_str().unwrap();
        let witness = node.json(&["witness", "init", home, "witness.example/1"]);
        let witness = witness["key"].as_str().unwrap().to_owned();
        let key = node.json(&["log", "checkpoint"])["key"].as_str().unwrap().to_owned();
        node.ok(&["witness", "trust", home, &key]);
        Some(Self { node, witness })
    }

    fn path(&self, name: &str) -> String {
        self.node.root().join(name).to_str().unwrap().to_owned()
    }

    fn log(&self) -> PathBuf {
        self.node.root().join("state/axiom/log")
    }

    /// Acts until the log has so many segments more.
    fn fill(&self, more: usize) {
        let wanted = segments(&self.log()).len() + more;
        for number in 0.. {
            if segments(&self.log()).len() >= wanted {
                break;
            }
            self.node.ok(&["capability", "grant", &format!("file:/{wanted}/{number}"), "r", "admin"]);
        }
    }

    /// Publishes, and has the witness sign what it has not seen yet.
    fn cosign(&self) -> String {
        let (dir, home) = (self.path("published"), self.path("witness"));
        self.node.ok(&["log", "publish", &dir]);
        let old = fs::read_to_string(self.path("signed")).unwrap_or_else(|_| "0".to_owned());
        let request = self.node.ok(&["log", "request", &dir, "--old", old.trim()]);
        let answer = give(&self.node, &["witness", "add", &home], &request);
        assert!(answer.status.success(), "{}", said(&answer));
        let answer = String::from_utf8(answer.stdout).unwrap();
        let taken = give(&self.node, &["log", "cosign", &dir, "--witness", &self.witness], &answer);
        assert!(taken.status.success(), "{}", said(&taken));
        let checkpoint = format!("{dir}/checkpoint");
        let size = fs::read_to_string(&checkpoint).unwrap().lines().nth(1).unwrap().to_owned();
        fs::write(self.path("signed"), size).unwrap();
        checkpoint
    }

    fn archive(&self, checkpoint: &str, more: &[&str]) -> Output {
        let to = self.path("archive");
        let args = ["log", "archive", "--to", &to, "--checkpoint", checkpoint, "--witness", &self.witness];
        self.node.run(&[&args[..], more].concat())
    }
}

fn up(node: &mut TestNode) {
    node.try_up(&[("BAILIWICK_SEGMENT_BYTES", Path::new(SEGMENT_BYTES))]).unwrap();
    node.settled();
}

fn acts_go_on(node: &TestNode, object: &str) {
    let object = format!("file:/{object}");
    node.ok(&["capability", "grant", &object, "r", "admin"]);
    assert_eq!(node.json(&["capability", "who", &object]).as_array().unwrap().len(), 1);
}

/// covers: AX-54, AX-55
#[test]
fn a_log_goes_on_from_its_edge_and_is_whole_again_with_its_archive() {
    let Some(mut site) = Site::boot() else { return };
    site.fill(3);
    let checkpoint = site.cosign();
    let unsigned = site.node.file("unsigned", site.node.ok(&["log", "checkpoint"]));
    let signed = site.node.ok(&["log", "head"]);
    let refused = site.archive(&unsigned, &[]);
    assert!(!refused.status.success() && !Path::new(&site.path("archive")).exists(), "{}", said(&refused));

    let before = segments(&site.log());
    let would = site.archive(&checkpoint, &["--dry-run"]);
    assert!(would.status.success() && said(&would).contains("would archive"), "{}", said(&would));
    assert_eq!(segments(&site.log()), before, "it was only asked");
    // The log is no archive of itself, whatever its name.
    let (own, link) = (site.log(), PathBuf::from(site.path("link")));
    std::os::unix::fs::symlink(&own, &link).unwrap();
    for to in [&own, &link] {
        let to = to.to_str().unwrap();
        let refused = site.node.run(&[
            "log",
            "archive",
            "--to",
            to,
            "--checkpoint",
            &checkpoint,
            "--witness",
            &site.witness,
        ]);
        assert!(!refused.status.success() && said(&refused).contains("the log's own"), "{}", said(&refused));
    }
    assert_eq!(site.node.log(&["LogArchive"]), Vec::<serde_json::Value>::new());
    assert_eq!(segments(&own), before);
    let archived = site.archive(&checkpoint, &["-o", "json"]);
    assert!(archived.status.success(), "{}\n{}", said(&archived), site.node.service_log("axiom"));
    let archived: serde_json::Value = serde_json::from_slice(&archived.stdout).unwrap();
    assert_eq!((&archived["done"], &archived["from"]), (&true.into(), &0.into()));
    let first = archived["last"]["sequence"].as_u64().unwrap() + 1;
    let left = segments(&site.log());
    assert!(left.len() < before.len() && left[0] == format!("{first:020}.seg"), "{left:?}");
    assert_eq!(segments(Path::new(&site.path("archive"))).len() + left.len(), before.len());

    // While it runs, after a restart, and after axiom was killed.
    acts_go_on(&site.node, "archived");
    let log = site.log().to_str().unwrap().to_owned();
    let verified = site.node.json(&["log", "verify"]);
    assert_eq!((verified["ok"].as_bool(), verified["first"].as_u64()), (Some(true), Some(first)));
    let whole = site.node.json(&["log", "verify", &site.path("archive"), &log]);
    assert_eq!((whole["ok"].as_bool(), whole["first"].as_u64()), (Some(true), Some(0)));
    what_is_not_shown_is_said(&site, &log, &signed);
    site.node.down();
    up(&mut site.node);
    acts_go_on(&site.node, "restarted");
    let axiom = site.node.pid("axiom");
    kill(axiom);
    assert!(within(SOON, || site.node.pids().iter().any(|(name, pid)| name == "axiom" && *pid != axiom)));
    site.node.settled();
    acts_go_on(&site.node, "killed");

    // What others check: of what is left from the edge on, of what is archived from the archive.
    let key = site.node.json(&["log", "checkpoint"])["key"].as_str().unwrap().to_owned();
    let evidence = site.path("evidence");
    for from in [first, 1] {
        let (from, to) = (from.to_string(), (from + 2).to_string());
        site.node.ok(&["log", "export", &evidence, "--from", &from, "--to", &to]);
        site.node.ok(&["verify", &evidence, "--key", &key]);
    }
    assert_eq!(site.node.json(&["log", "replay"])["mismatches"], serde_json::json!([]));
    site.node.ok(&["log", "publish", &site.path("published")]);
    site.node.ok(&["verify", &site.path("published"), "--key", &key]);

    // Without the archive: one line that says where it was.
    let moved = site.path("moved");
    fs::rename(site.path("archive"), &moved).unwrap();
    let gone = site.node.run(&["log", "show", "1"]);
    assert!(!gone.status.success() && said(&gone).contains("are archived in"), "{}", said(&gone));
    assert!(!site.node.ok(&["log", "tail"]).is_empty());
    assert!(said(&site.node.run(&["log", "replay"])).contains(&site.path("archive")));

    // A changed byte is not put back; the whole of it is.
    let running = site.node.run(&["log", "restore", &moved]);
    assert!(said(&running).contains("stop the node first"), "{}", said(&running));
    site.node.down();
    who_needs_the_archive_says_so(&mut site);
    let name = format!("{moved}/{}", segments(Path::new(&moved))[0]);
    let sound = fs::read(&name).unwrap();
    let mut damaged = sound.clone();
    damaged[3000] ^= 1;
    fs::write(&name, damaged).unwrap();
    let refused = site.node.run(&["log", "restore", &moved]);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert_eq!(segments(&site.log())[0], left[0], "nothing was put back");
    fs::write(&name, sound).unwrap();
    a_restore_that_is_cut_short_goes_on(&site, &moved, first);
    let verified = site.node.json(&["log", "verify"]);
    assert_eq!((verified["ok"].as_bool(), verified["first"].as_u64()), (Some(true), Some(0)));
    up(&mut site.node);
    acts_go_on(&site.node, "restored");
    assert_eq!(site.node.json(&["log", "replay"])["mismatches"], serde_json::json!([]));
}

/// The supervisor's fold, as after a build that changed it: what is needed and what stands still without it is in `status`, not
/// in a log alone.
fn who_needs_the_archive_says_so(site: &mut Site) {
    let node = &mut site.node;
    fs::remove_file(node.root().join("state/supervisor/fold.snapshot")).unwrap();
    node.try_up(&[("BAILIWICK_SEGMENT_BYTES", Path::new(SEGMENT_BYTES))]).unwrap();
    let status = || node.json(&["status"]);
    assert!(within(SOON, || status()["troubles"] != serde_json::json!([])), "{}", status());
    let text = node.ok(&["status"]);
    for part in ["degraded", "no service of the user is started", "log restore"] {
        assert!(text.contains(part), "{text}");
    }
    node.down();
}

/// What lies before the edge cannot be looked for, and the edge's word for its key is its own.
fn what_is_not_shown_is_said(site: &Site, log: &str, signed: &str) {
    let node = &site.node;
    let verify = |args: &[&str]| node.run(&[&["log", "verify", log], args].concat());
    let old = node.file("old.note", signed);
    assert!(node.ok(&["log", "verify"]).contains("sound"), "the node's own genesis is known");
    assert_eq!(node.json(&["log", "verify"])["key_pinned"], true);
    let unpinned = verify(&[]);
    assert!(said(&unpinned).contains("compared with nothing"), "{}", said(&unpinned));
    let key = node.json(&["log", "checkpoint"])["key"].as_str().unwrap().to_owned();
    let pinned = verify(&["--key", &key]);
    assert!(pinned.status.success() && !said(&pinned).contains("compared with nothing"), "{}", said(&pinned));
    let other = verify(&["--key", &site.witness]);
    assert_eq!(other.status.code(), Some(5), "{}", said(&other));
    // A head that was taken before: it lies in what is archived, or behind it.
    let shown = node.json(&["log", "verify", &site.path("archive"), log, "--head", &old]);
    let at = shown["checked_against"]["sequence"].as_u64().unwrap();
    let first = node.json(&["log", "verify", log])["first"].as_u64().unwrap();
    let alone = verify(&["--head", &old]);
    if at + 1 < first {
        assert_eq!(alone.status.code(), Some(2), "{}", said(&alone));
        assert!(said(&alone).contains("name the archive's folder too"), "{}", said(&alone));
    } else {
        assert!(alone.status.success(), "{}", said(&alone));
    }
}

fn a_restore_that_is_cut_short_goes_on(site: &Site, moved: &str, first: u64) {
    let (node, log) = (&site.node, site.log());
    let archived = segments(Path::new(moved));
    assert!(archived.len() > 1, "{archived:?}");
    let left = segments(&log);
    // A name that nothing can be copied to.
    let obstacle = log.join(format!("{}.new", archived[0]));
    fs::create_dir(&obstacle).unwrap();
    let cut = node.run(&["log", "restore", moved]);
    assert!(!cut.status.success() && said(&cut).contains("run the command again"), "{}", said(&cut));
    assert_eq!(segments(&log), [&archived[1..], &left[..]].concat(), "from the newest on");
    let verified = node.ok(&["log", "verify"]);
    assert!(verified.contains("cut short") && verified.contains("log restore"), "{verified}");
    assert_eq!(node.json(&["log", "verify"])["first"], first);
    assert!(!node.ok(&["log", "tail"]).is_empty());
    // Put there in another order, by whoever: no damage either.
    fs::copy(Path::new(moved).join(&archived[0]), log.join(&archived[0])).unwrap();
    fs::remove_file(log.join(&archived[1])).unwrap();
    let gap = node.run(&["log", "verify"]);
    assert_eq!(gap.status.code(), Some(2), "{}", said(&gap));
    assert!(said(&gap).contains("a restore was cut short"), "{}", said(&gap));
    fs::remove_dir(&obstacle).unwrap();
    node.ok(&["log", "restore", moved]);
}

#[test]
fn an_archiving_that_is_cut_short_was_carried_out_or_was_not_and_is_closed_once() {
    let Some(mut site) = Site::boot() else { return };
    site.fill(2);
    let checkpoint = site.cosign();
    let mut asked = site.node.command(&["log", "archive", "--to", &site.path("archive"), "--checkpoint"]);
    let mut asked = asked
        .args([&checkpoint, "--witness", &site.witness])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Decided, and not carried out: services take a while to write their folds down.
    assert!(
        within(SOON, || site.node.json(&["log", "tail", "--type", "LogArchive"]) != serde_json::json!([]))
    );
    let axiom = site.node.pid("axiom");
    kill(axiom);
    let _ = asked.wait();
    assert!(within(SOON, || site.node.pids().iter().any(|(name, pid)| name == "axiom" && *pid != axiom)));
    let act = site.node.json(&["log", "tail", "--type", "LogArchive"])[0].clone();
    let receipts = |node: &TestNode| -> Vec<serde_json::Value> {
        let shown = node.json(&["log", "tail", "-n", "1000", "--type", "Receipt"]);
        let of = |entry: &&serde_json::Value| entry["body"]["axiom_entry"]["sequence"] == act["sequence"];
        shown.as_array().unwrap().iter().filter(of).cloned().collect()
    };
    assert!(within(SOON, || !receipts(&site.node).is_empty()), "{}", site.node.service_log("axiom"));
    let done = receipts(&site.node)[0]["body"]["status"] == "success";
    let edge = act["body"]["last"]["sequence"].as_u64().unwrap() + 1;
    let verified = site.node.json(&["log", "verify"]);
    let expected = (Some(true), Some(if done { edge } else { 0 }));
    assert_eq!((verified["ok"].as_bool(), verified["first"].as_u64()), expected, "{verified}");
    acts_go_on(&site.node, "recovered");
    site.node.down();
    up(&mut site.node);
    assert_eq!(receipts(&site.node).len(), 1, "it is closed once");
}
