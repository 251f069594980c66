//! A program is run to learn what it uses, and what was learned runs it: a script, a static program, curl and Python.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use serde_json::Value;
use system_tests::{TestNode, within};

const SOON: Duration = Duration::from_secs(60);

struct Site {
    node: TestNode,
    work: tempfile::TempDir,
}

impl Site {
    fn new() -> Option<Self> {
        let node = TestNode::boot()?;
        let work = tempfile::Builder::new().prefix("work").tempdir().unwrap();
        // The service is another user where the node is root's.
        fs::set_permissions(work.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Some(Self { node, work })
    }

    fn put(&self, name: &str, content: &str, mode: u32) -> String {
        let file = self.path(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file.to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn folder(&self, more: &str) -> String {
        format!("{}{more}", self.work.path().display())
    }

    /// Its output, and the manifest.
    fn learn(&self, name: &str, command: &[&str]) -> (String, String) {
        let file = self.node.root().join(format!("{name}.toml"));
        let file = file.to_str().unwrap();
        let granted = self.folder(":rw");
        let said = self.node.ok(&[&["run", "--fs", &granted, "--learn", file, "--"], command].concat());
        (said, fs::read_to_string(file).unwrap())
    }

    /// What was learned is applied as it is, and ends well with the same words.
    fn runs(&self, file: &str, service: &str, said: &str) {
        let path = self.node.root().join(format!("{file}.toml"));
        self.node.ok(&["service", "apply", path.to_str().unwrap()]);
        let status = || self.node.service(service);
        assert!(within(SOON, || status()["state"] == "Stopped"), "{}", status());
        let failed = self.node.log(&["ServiceFailed"]);
        let of_it: Vec<&Value> = failed.iter().filter(|entry| entry["body"]["name"] == service).collect();
        assert!(of_it.is_empty(), "{of_it:?} {}", self.node.ok(&["service", "logs", service]));
        let logged = self.node.ok(&["service", "logs", service]);
        assert!(logged.contains(said.trim()), "{logged:?} has not {said:?}");
    }
}

fn granted(manifest: &str) -> &str {
    manifest.lines().find(|line| line.starts_with("fs = ")).unwrap()
}

#[test]
fn a_script_is_granted_what_it_used_and_runs_with_it() {
    let Some(site) = Site::new() else { return };
    let input = site.put("in.txt", "read me\n", 0o644);
    site.put("never.txt", "unread\n", 0o644);
    site.put("out/kept", "", 0o666);
    fs::set_permissions(site.path("out"), fs::Permissions::from_mode(0o777)).unwrap();
    let text = format!(
        "#!/bin/sh\ncat {input}\necho more > {}\ncat /root/secret 2>/dev/null\ntrue\n",
        site.folder("/out/new")
    );
    let script = site.put("job.sh", &text, 0o755);
    let (said, manifest) = site.learn("job", &[&script]);
    assert_eq!(said, "read me\n");
    assert!(granted(&manifest).contains(&input) && !manifest.contains("never.txt"), "{manifest}");
    assert!(granted(&manifest).contains(&format!("{}:rw\"", site.folder("/out"))), "{manifest}");
    assert!(
        !granted(&manifest).contains(&format!("\"{}\"", site.folder(""))),
        "not the whole folder: {manifest}"
    );
    // Not granted, and named.
    assert!(!granted(&manifest).contains("/root") && manifest.contains("/root/secret"), "{manifest}");
    // That it was learned of is in what was decided.
    let decided = site.node.log(&["PolicyDecision"]);
    assert!(decided.iter().any(|entry| entry.to_string().contains(r#""learn":"true""#)), "{decided:?}");
    fs::remove_file(site.path("out/new")).unwrap();
    site.runs("job", "job", &said);
    assert!(site.path("out/new").exists(), "the service has done it too");
    // One that is there is kept.
    let again = site.node.root().join("job.toml");
    let again = site.node.run(&["run", "--learn", again.to_str().unwrap(), "--", "true"]);
    assert!(!again.status.success(), "{again:?}");
}

#[test]
fn python_and_curl_run_with_what_was_learned_of_them() {
    let Some(site) = Site::new() else { return };
    site.put("lib/helper.py", "WORD = 'helped'\n", 0o644);
    let code = site.put(
        "lib/main.py",
        "import json, mimetypes, helper\nmimetypes.init()\nprint(json.dumps(helper.WORD))\n",
        0o644,
    );
    let (said, manifest) = site.learn("snake", &["/usr/bin/python3", "-B", &code]);
    assert_eq!(said, "\"helped\"\n");
    // It lists the folder in which it looks for modules.
    assert!(granted(&manifest).contains(&format!("\"{}\"", site.folder("/lib"))), "{manifest}");
    let name =
        manifest.lines().find_map(|line| line.strip_prefix("name = ")).unwrap().trim_matches('"').to_owned();
    site.runs("snake", &name, &said);
    if !PathBuf::from("/usr/bin/curl").exists() {
        println!("skipped: curl is not installed");
        return;
    }
    let page = site.put("page.html", "a page\n", 0o644);
    let (said, manifest) = site.learn("fetch", &["/usr/bin/curl", "-s", &format!("file://{page}")]);
    assert_eq!(said, "a page\n");
    assert!(granted(&manifest).contains(&page), "{manifest}");
    site.runs("fetch", "curl", &said);
    // Refused connections are named, and granted to nobody.
    let (_, manifest) = site.learn("beyond", &["/bin/sh", "-c", "curl -s -m 5 http://192.0.2.1/; true"]);
    assert!(
        manifest.contains("192.0.2.1:80") && !manifest.lines().any(|line| line.starts_with("network")),
        "{manifest}"
    );
}

/// The node's own binary is a static one.
#[test]
fn a_static_program_runs_with_what_was_learned_of_it() {
    let Some(site) = Site::new() else { return };
    let own = site.path("tool");
    fs::copy(system_tests::binary().unwrap(), &own).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
    let (said, manifest) = site.learn("static", &[own.to_str().unwrap(), "--version"]);
    assert!(said.starts_with("bailiwick "), "{said}");
    assert!(manifest.contains("name = \"tool\""), "{manifest}");
    site.runs("static", "tool", &said);
}
