//! Copy-on-write folders: the host's stay as they are until a commit, which is decided and recorded.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use serde_json::Value;
use system_tests::TestNode;

/// A folder of the node's own place, with three files and a folder.
fn work(node: &TestNode) -> PathBuf {
    let folder = node.root().join("work");
    fs::create_dir_all(folder.join("folder")).unwrap();
    for name in ["kept", "changed", "removed", "folder/inner"] {
        fs::write(folder.join(name), "old\n").unwrap();
    }
    // What was changed in the same moment as the program started counts as changed meanwhile.
    let then = fs::metadata(folder.join("folder/inner")).unwrap();
    let moved_on = system_tests::within(std::time::Duration::from_secs(5), || {
        fs::write(node.root().join("clock"), "").unwrap();
        let now = fs::metadata(node.root().join("clock")).unwrap();
        (now.ctime(), now.ctime_nsec()) > (then.ctime(), then.ctime_nsec())
    });
    assert!(moved_on);
    folder
}

const SCRIPT: &str = "echo new > changed && rm removed && mkdir made && echo x > made/y && ln -s /etc/passwd made/link \
                      && rm -r folder && mkdir folder && echo z > folder/other && cat kept";

/// Runs the script in the folder, shown copy-on-write; the program's number.
fn run(node: &TestNode, folder: &std::path::Path, script: &str) -> u64 {
    let grant = format!("{}:cow", folder.display());
    let output = node
        .command(&["run", "--fs", &grant, "-C", folder.to_str().unwrap(), "--", "/bin/sh", "-c", script])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let log = node.log(&["ProcessCreate"]);
    assert!(log.last().unwrap()["body"]["grants"][0].as_str().unwrap().ends_with(":cow"));
    log.last().unwrap()["body"]["pid"].as_u64().unwrap()
}

fn changes(node: &TestNode, pid: u64, folder: &std::path::Path) -> Vec<String> {
    let found = node.json(&["diff", &pid.to_string()]);
    let say = |change: &Value| {
        let path = change["path"].as_str().unwrap();
        let path = path.strip_prefix(folder.to_str().unwrap()).unwrap();
        format!("{} {} {path}", change["what"].as_str().unwrap(), change["kind"].as_str().unwrap())
    };
    found["changes"].as_array().unwrap().iter().map(say).collect()
}

#[test]
fn a_program_changes_its_own_view_and_a_commit_makes_it_everyones() {
    let Some(node) = TestNode::boot() else { return };
    let folder = work(&node);
    let pid = run(&node, &folder, SCRIPT);
    for name in ["kept", "changed", "removed", "folder/inner"] {
        assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), "old\n", "{name} is the host's");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 4);
    assert_eq!(
        changes(&node, pid, &folder),
        [
            "changed file /changed",
            "added file /folder/other",
            "removed file /folder/inner",
            "added folder /made",
            "added symlink /made/link",
            "added file /made/y",
            "removed file /removed",
        ]
    );
    let layers = node.json(&["layers"]);
    assert_eq!((layers[0]["pid"].as_u64(), layers[0]["running"].as_bool()), (Some(pid), Some(false)));
    // A part first.
    let id = pid.to_string();
    let part = node.json(&["commit", &id, folder.join("made").to_str().unwrap()]);
    assert_eq!((part["applied"].as_u64(), part["complete"].as_bool()), (Some(3), Some(false)));
    assert_eq!(fs::read_link(folder.join("made/link")).unwrap(), PathBuf::from("/etc/passwd"));
    let rest = node.json(&["commit", &id]);
    assert_eq!((rest["applied"].as_u64(), rest["complete"].as_bool()), (Some(4), Some(true)));
    assert_eq!(fs::read_to_string(folder.join("changed")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(folder.join("folder/other")).unwrap(), "z\n");
    assert!(!folder.join("removed").exists() && !folder.join("folder/inner").exists());
    // Decided, on record, and over.
    let log = node.log(&["PolicyDecision"]);
    let decided: Vec<&Value> = log
        .iter()
        .map(|entry| &entry["body"]["action"]["control_process"])
        .filter(|it| !it.is_null())
        .collect();
    assert_eq!(decided.len(), 2, "{decided:?}");
    assert!(decided.iter().all(|it| it["pid"] == pid && it["operation"] == "commit"));
    assert_eq!(log.last().unwrap()["sequence"], rest["entry"]);
    assert_eq!(node.json(&["layers"]).as_array().unwrap().len(), 0);
    assert!(!node.run(&["diff", &id]).status.success());
    assert!(!node.root().join("state/images/layers").join(&id).exists());
}

#[test]
fn what_the_host_changed_meanwhile_is_not_overwritten_unless_forced() {
    let Some(node) = TestNode::boot() else { return };
    let folder = work(&node);
    let pid = run(&node, &folder, SCRIPT).to_string();
    fs::write(folder.join("changed"), "by somebody else\n").unwrap();
    let refused = node.run(&["commit", &pid]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(said.contains(folder.join("changed").to_str().unwrap()) && said.contains("since"), "{said}");
    assert!(folder.join("removed").exists() && !folder.join("made").exists(), "nothing was applied");
    let controls = || {
        let log = node.log(&["PolicyDecision"]);
        log.iter().filter(|entry| !entry["body"]["action"]["control_process"].is_null()).count()
    };
    assert_eq!(controls(), 0, "what cannot be done is not decided");
    let forced = node.json(&["commit", &pid, "--force"]);
    assert_eq!(forced["complete"].as_bool(), Some(true), "{forced}");
    assert_eq!(fs::read_to_string(folder.join("changed")).unwrap(), "new\n");
    assert_eq!(controls(), 1);
}

#[test]
fn changes_are_discarded_on_record_and_none_are_not_kept() {
    let Some(mut node) = TestNode::boot() else { return };
    let folder = work(&node);
    let pid = run(&node, &folder, "cat kept; touch kept; chmod 0 folder").to_string();
    assert_eq!(changes(&node, pid.parse().unwrap(), &folder), ["changed folder /folder"]);
    // It outlives the node.
    node.down();
    node.up();
    assert_eq!(changes(&node, pid.parse().unwrap(), &folder), ["changed folder /folder"]);
    node.ok(&["discard", &pid]);
    assert!(!node.run(&["commit", &pid]).status.success());
    let reads = run(&node, &folder, "cat kept").to_string();
    let gone = || !node.root().join("state/images/layers").join(&reads).exists();
    assert!(system_tests::within(std::time::Duration::from_secs(10), gone));
    assert_eq!(node.json(&["layers"]).as_array().unwrap().len(), 0);
}

#[test]
fn a_running_program_shows_what_it_changed_and_commits_after_its_end() {
    let Some(node) = TestNode::boot() else { return };
    let folder = work(&node);
    let grant = format!("{}:cow", folder.display());
    let script = format!("cd {}; echo new > changed; exec sleep 1000", folder.display());
    let pid = node.ok(&["run", "--detach", "--fs", &grant, "--", "/bin/sh", "-c", &script]).trim().to_owned();
    let number = pid.parse().unwrap();
    let seen = || changes(&node, number, &folder) == ["changed file /changed"];
    assert!(system_tests::within(std::time::Duration::from_secs(10), seen));
    for verb in ["commit", "discard"] {
        let refused = node.run(&[verb, &pid]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("still runs"), "{verb}");
    }
    node.ok(&["kill", "-s", "kill", &pid]);
    assert!(system_tests::within(std::time::Duration::from_secs(10), || node
        .run(&["commit", &pid])
        .status
        .success()));
    assert_eq!(fs::read_to_string(folder.join("changed")).unwrap(), "new\n");
}

#[test]
fn a_program_that_writes_more_than_its_disk_is_ended_for_it() {
    let Some(node) = TestNode::boot() else { return };
    let folder = work(&node);
    let grant = format!("{}:cow", folder.display());
    let script = "cd $0; n=0; mkdir hidden; while :; do n=$((n+1)); head -c 400000 /dev/zero > hidden/$n; chmod 0 hidden; \
                  chmod 700 hidden; done";
    let run = ["run", "--disk", "4M", "--fs", &grant, "--timeout", "60s", "--", "/bin/sh", "-c", script];
    let ended = node.command(&run).arg(folder.to_str().unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(137), "{said}");
    assert!(said.contains("limit of disk"), "{said}");
    let log = node.log(&["ProcessExit"]);
    assert_eq!(log.last().unwrap()["body"]["status"]["limit"], "disk");
    let private = [
        "run",
        "--disk",
        "4M",
        "--",
        "/bin/sh",
        "-c",
        "head -c 3000000 /dev/zero > /tmp/a && \
                   ! head -c 3000000 /dev/zero > /tmp/b",
    ];
    assert!(node.run(&private).status.success());
    let file = ["run", "--disk", "1M", "--", "/bin/sh", "-c", "head -c 2000000 /dev/zero > /tmp/a"];
    assert!(!node.run(&file).status.success());
    let pid = log.last().unwrap()["body"]["pid"].to_string();
    node.ok(&["discard", &pid]);
}
