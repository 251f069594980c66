//! Services in container images: what runs is what was applied, whatever the image's name comes to mean.

use std::{fs, path::Path, time::Duration};

use base::TreeId;
use contracts::process_manager::v1::{RemoveTreeRequest, processes_client::ProcessesClient};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use system_tests::{TestNode, client::Client, kill, within};

use super::images::{add_rule, decided, layer, layout, program};

const SOON: Duration = Duration::from_secs(20);
/// How often two who exclude each other are let loose on one image.
const ROUNDS_MAX: u32 = 8;

/// An image whose page says this, imported under the name; its id.
fn import(node: &TestNode, name: &str, page: &str) -> String {
    let files = layer(&[
        ("usr/bin/", b"", 0o755),
        ("bin -> usr/bin", b"", 0o777),
        ("usr/bin/app", &program(), 0o755),
        ("etc/", b"", 0o755),
        ("etc/passwd", b"web:x:101:102::/srv:/x\n", 0o644),
        ("srv/", b"", 0o755),
        ("srv/page", page.as_bytes(), 0o644),
    ]);
    let folder = node.root().join(format!("layout-{page}"));
    let config = json!({ "Entrypoint": ["app", "read=page", "write=/srv/new", "write=/tmp/new"], "Cmd": ["from-cmd"],
                         "User": "web", "Env": ["PATH=/bin", "COLOUR=red"], "WorkingDir": "/srv" });
    let id = layout(&folder, &[files], &config);
    node.ok(&["image", "import", folder.to_str().unwrap(), "--name", name]);
    id
}

fn manifest(node: &TestNode, image: &str) -> String {
    let text = format!(
        "version = 1\n[service]\nname = \"mine\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n[program]\nimage = \"{image}\"\nargs = [\"stay\"]\n"
    );
    node.file("mine.toml", text)
}

/// What each start has said, the oldest first.
fn said(node: &TestNode) -> Vec<Value> {
    let log = node.service_log("mine");
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn kept(node: &TestNode) -> String {
    fs::read_to_string(node.root().join("config/manifests/mine.toml")).unwrap()
}

fn refused(node: &TestNode, args: &[&str]) -> String {
    let output = node.run(args);
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn said_times(node: &TestNode, times: usize) -> Vec<Value> {
    assert!(within(SOON, || said(node).len() >= times), "{}", node.service_log("mine"));
    said(node)
}

#[test]
fn a_service_runs_the_image_that_was_applied_whatever_its_name_comes_to_mean() {
    let Some(mut node) = TestNode::boot() else { return };
    let first = import(&node, "web", "one");
    let file = manifest(&node, "web");
    let unknown = refused(&node, &["service", "apply", &manifest(&node, "webb")]);
    assert!(unknown.contains("no container image webb") && unknown.contains("image import"), "{unknown}");
    manifest(&node, "web");
    node.ok(&["service", "apply", &file]);
    let now = said_times(&node, 1).remove(0);
    assert_eq!(now["args"], json!(["app", "read=page", "write=/srv/new", "write=/tmp/new", "stay"]));
    assert_eq!(now["done"][0], "one");
    assert_eq!(now["done"][1]["error"], "ReadOnlyFilesystem");
    assert_eq!(now["done"][2], "", "its own /tmp");
    assert_eq!((&now["uid"], &now["gid"], &now["cwd"]), (&json!(101), &json!(102), &json!("/srv")));
    assert_eq!((&now["env"]["COLOUR"], &now["env"]["PATH"]), (&json!("red"), &json!("/bin")));
    for shown in ["lib", "home", "root"] {
        assert!(!now["top"].as_array().unwrap().contains(&json!(shown)), "the host's: {}", now["top"]);
    }
    assert!(kept(&node).contains(&format!("image = \"web@{first}\"")), "{}", kept(&node));
    assert_eq!(decided(&node, "use_image"), [(json!({ "name": "web", "tree": first }), true)]);

    // The name points elsewhere, and a start runs what was applied.
    let second = import(&node, "web", "two");
    assert_ne!(first, second);
    let plan = node.json(&["plan", "-f", &file]);
    assert_eq!(plan[0]["change"], "changed", "{plan}");
    let lines = plan[0]["diff"].to_string();
    assert!(lines.contains(&format!("-image = \\\"web@{first}")), "{lines}");
    assert!(lines.contains(&format!("+image = \\\"web@{second}")), "{lines}");
    assert_eq!(plan[0]["restarts"], json!(["mine"]));
    let before = node.pid("mine");
    kill(before);
    assert!(within(SOON, || node.service("mine")["pid"].as_i64().is_some_and(|pid| pid != before)));
    assert_eq!(said_times(&node, 2)[1]["done"][0], "one");

    // It stays as long as a service runs in it, also through a boot.
    let in_use = refused(&node, &["image", "rm", &first]);
    assert!(in_use.contains("mine"), "{in_use}");
    node.down();
    node.up();
    assert_eq!(said_times(&node, 3)[2]["done"][0], "one");

    node.ok(&["service", "apply", &file]);
    assert_eq!(said_times(&node, 4)[3]["done"][0], "two");
    assert_eq!(node.json(&["plan", "-f", &file])[0]["change"], "unchanged");
    node.ok(&["image", "rm", &first]);
    assert!(!Path::new(&node.root().join("state/images/trees")).join(first.replace(':', "-")).exists());
}

#[test]
fn who_may_not_use_an_image_applies_no_service_in_it() {
    let Some(node) = TestNode::boot() else { return };
    import(&node, "web", "one");
    let of_use = r#"{ and = [{ action = { kind = "use_image" } }, { resource = { pattern = "web@**" } }] }"#;
    add_rule(&node, "no-web", "Deny", of_use);
    let denied = refused(&node, &["service", "apply", &manifest(&node, "web")]);
    assert!(denied.contains("refus"), "{denied}");
    assert!(node.ok(&["why", "last"]).contains("no-web"));
    assert!(node.log(&["ServiceRegister"]).iter().all(|entry| entry["body"]["name"] != "mine"));
    assert!(!node.root().join("config/manifests/mine.toml").exists());
}

/// An image that the folder of manifests names stays, whether this boot has come to that manifest or not; and of a removal and
/// an apply that meet on their way only one goes through.
#[test]
fn no_image_goes_between_a_decision_and_its_service() {
    let Some(node) = TestNode::boot() else { return };
    let id = import(&node, "web", "one");
    let file = manifest(&node, "web");
    let found = node.root().join("config/manifests/later.toml");
    fs::create_dir_all(found.parent().unwrap()).unwrap();
    fs::write(&found, format!("[program]\nimage = \"web@{id}\"\n")).unwrap();
    let in_use = refused(&node, &["image", "rm", &id]);
    assert!(in_use.contains("later"), "{in_use}");
    fs::remove_file(found).unwrap();

    let client = Client::operator(&node);
    let token = client.issue(&[]);
    let client = client.with_token(Some(&token));
    let policy = Pid::from_raw(i32::try_from(node.pid("policy")).unwrap()).unwrap();
    let digits = id.trim_start_matches("sha256:");
    let tree = TreeId::from_hex(digits).unwrap();
    let remove = || {
        let mut processes =
            ProcessesClient::new(client.calls("process_manager", "system.process_manager.remove_tree"));
        let request = RemoveTreeRequest { id: tree.0.to_vec(), name: String::new() };
        client.wait(processes.remove_tree(request)).map_err(|status| status.message().to_owned())
    };
    let apply = || {
        let output = node.run(&["service", "apply", &file]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(text) }
    };
    let is_there = || node.root().join("state/images/trees").join(id.replace(':', "-")).exists();
    // Neither is decided as long as policy stands still, and each has asked for all else by then. Who comes second is refused for
    // the other's sake; a busy machine may let one go by before the other has begun, so each is tried until it was seen.
    let (mut held, mut closed) = (false, false);
    for _ in 0..ROUNDS_MAX {
        let removal_first = held;
        if !is_there() {
            import(&node, "web", "one");
        }
        kill_process(policy, Signal::STOP).unwrap();
        let (removed, applied) = std::thread::scope(|scope| {
            let spawn_removal = || scope.spawn(remove);
            let spawn_apply = || scope.spawn(apply);
            let (removing, applying) = match removal_first {
                true => {
                    let removing = spawn_removal();
                    std::thread::sleep(Duration::from_millis(700));
                    (removing, spawn_apply())
                }
                false => {
                    let applying = spawn_apply();
                    std::thread::sleep(Duration::from_millis(700));
                    (spawn_removal(), applying)
                }
            };
            std::thread::sleep(Duration::from_millis(700));
            kill_process(policy, Signal::CONT).unwrap();
            (removing.join().unwrap(), applying.join().unwrap())
        });
        match (&removed, &applied) {
            (Ok(_), Err(why)) => {
                assert!(why.contains("is being removed") || why.contains("no container image"), "{why}");
                assert!(!is_there());
                closed |= why.contains("is being removed");
            }
            (Err(why), Ok(())) => {
                assert!(why.contains("mine"), "{why}");
                assert!(is_there());
                held = true;
                said_times(&node, 1);
                node.ok(&["service", "stop", "mine"]);
                node.ok(&["service", "remove", "mine"]);
            }
            other => panic!("{other:?}"),
        }
        if held && closed {
            return;
        }
    }
    panic!("in {ROUNDS_MAX} rounds: a removal kept out by an apply {held}, an apply by a removal {closed}");
}
