//! Container images and folders as roots: what a program sees is theirs, and the host's is not.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that finds something wrong stops"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use system_tests::{TestNode, within};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn program() -> Vec<u8> {
    fs::read(env!("CARGO_BIN_EXE_shown")).unwrap()
}

/// A layer: names that end in `/` are folders, `a -> b` is a link.
fn layer(names: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (name, data, mode) in names {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(data.len() as u64);
        if let Some((name, target)) = name.split_once(" -> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            out.append_link(&mut header, name, target).unwrap();
            continue;
        }
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        out.append_data(&mut header, name, *data).unwrap();
    }
    out.into_inner().unwrap()
}

/// An OCI layout in a folder, and the digest of its manifest.
fn layout(folder: &Path, layers: &[Vec<u8>], config: &Value) -> String {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8], kind: &str| {
        fs::write(blobs.join(hex(bytes)), bytes).unwrap();
        json!({ "mediaType": kind, "digest": format!("sha256:{}", hex(bytes)), "size": bytes.len() })
    };
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", hex(layer))).collect();
    let config = json!({ "os": "linux", "architecture": machine, "config": config,
                         "rootfs": { "type": "layers", "diff_ids": ids } });
    let config = put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let layers: Vec<Value> = layers.iter().map(|layer| put(layer, kind)).collect();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string();
    let named = put(manifest.as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    fs::write(folder.join("index.json"), json!({ "schemaVersion": 2, "manifests": [named] }).to_string())
        .unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    format!("sha256:{}", hex(manifest.as_bytes()))
}

fn web(node: &TestNode) -> (PathBuf, String) {
    let first = layer(&[
        ("./", b"", 0o755),
        ("usr/bin/", b"", 0o755),
        ("bin -> usr/bin", b"", 0o777),
        ("usr/bin/real", &program(), 0o4755),
        ("bin/app -> real", b"", 0o777),
        ("etc/", b"", 0o755),
        ("etc/passwd", b"root:x:0:0::/root:/x\nweb:x:101:102::/srv:/x\n", 0o644),
        ("etc/shadow", b"the image's own", 0o600),
        ("srv/", b"", 0o755),
        ("srv/gone", b"x", 0o644),
    ]);
    let second = layer(&[("srv/.wh.gone", b"", 0o644), ("srv/page", b"hello", 0o644)]);
    let folder = node.root().join("web");
    let config = json!({ "Entrypoint": ["app", "read=page"], "Cmd": ["from-cmd"], "User": "web",
                         "Env": ["PATH=/bin", "COLOUR=red"], "WorkingDir": "/srv" });
    let id = layout(&folder, &[first, second], &config);
    (folder, id)
}

fn said(node: &TestNode, args: &[&str]) -> Value {
    serde_json::from_str(&node.ok(&[&["run"], args].concat())).unwrap()
}

#[test]
fn an_image_runs_as_it_says_of_itself() {
    let Some(node) = TestNode::boot() else { return };
    let (folder, id) = web(&node);
    let imported = node.json(&["image", "import", &format!("oci:{}", folder.display())]);
    assert_eq!((imported["id"].as_str(), imported["name"].as_str()), (Some(id.as_str()), Some("web")));
    assert_eq!((imported["set_id"].as_u64(), imported["layers"].as_u64()), (Some(1), Some(2)));
    let seen = said(&node, &["--image", "web"]);
    assert_eq!(seen["args"], json!(["/bin/app", "read=page", "from-cmd"]));
    assert_eq!(seen["done"][0], "hello");
    assert_eq!((seen["uid"].as_u64(), seen["gid"].as_u64()), (Some(101), Some(102)));
    assert_eq!((seen["cwd"].as_str(), seen["env"]["HOME"].as_str()), (Some("/srv"), Some("/srv")));
    assert_eq!((seen["env"]["COLOUR"].as_str(), seen["env"]["PATH"].as_str()), (Some("red"), Some("/bin")));
    assert_eq!(seen["top"], json!(["bin", "dev", "etc", "proc", "run", "srv", "tmp", "usr"]));
    // Named by content: the program by its own hash, the image by the digest of its manifest.
    let create = node.log(&["ProcessCreate"]).last().unwrap()["body"].clone();
    assert_eq!(create["image"], base::Hash::of(&program()).to_string(), "{create}");
    assert_eq!(create["grants"], json!([format!("image:{id}:cow")]));
    // A command stands behind the entry point; variables and folder can be set.
    let seen = said(
        &node,
        &["--image", &id, "-C", "/etc", "-e", "COLOUR=blue", "--", "read=shadow", "read=/srv/gone"],
    );
    assert_eq!(seen["args"], json!(["/bin/app", "read=page", "read=shadow", "read=/srv/gone"]));
    assert_eq!(seen["done"], json!([{ "error": "NotFound" }, "the image's own", { "error": "NotFound" }]));
    assert_eq!((seen["cwd"].as_str(), seen["env"]["COLOUR"].as_str()), (Some("/etc"), Some("blue")));
}

#[test]
fn what_a_program_changes_in_an_image_goes_with_it() {
    let Some(mut node) = TestNode::boot() else { return };
    let (folder, id) = web(&node);
    node.ok(&["image", "import", folder.to_str().unwrap(), "--name", "w"]);
    let seen = said(&node, &["--image", "w", "--", "write=/srv/new", "read=/srv/new", "write=/new"]);
    assert_eq!((&seen["done"][1], &seen["done"][2]), (&json!(""), &json!("written")));
    assert!(seen["done"][3]["error"].is_string(), "the top itself cannot be written to: {seen}");
    let seen = said(&node, &["--image", "w", "--read-only", "--", "read=/srv/new", "write=/srv/new"]);
    assert_eq!(seen["done"][1], json!({ "error": "NotFound" }));
    assert_eq!(seen["done"][2], json!({ "error": "ReadOnlyFilesystem" }));
    let kept = || fs::read_dir(node.root().join("state/images/layers")).map_or(0, Iterator::count);
    assert!(within(Duration::from_secs(10), || kept() == 0), "a layer of an image stays");
    assert_eq!(node.json(&["layers"]).as_array().unwrap().len(), 0);
    // It outlives the node, and is not removed under a program.
    node.down();
    node.up();
    let mut running = node.command(&["run", "--image", "w", "--", "wait"]);
    let mut running = running.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let runs = || node.json(&["ps"]).as_array().unwrap().iter().any(|one| one["state"] == "running");
    assert!(within(Duration::from_secs(20), runs));
    let refused = node.run(&["image", "rm", "w"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("runs in the image"), "{refused:?}");
    drop(running.stdin.take());
    assert!(running.wait().unwrap().success());
    assert!(within(Duration::from_secs(10), || node.run(&["image", "rm", &id[..20]]).status.success()));
    assert_eq!(node.json(&["image", "list"]), json!([]));
    assert_eq!(fs::read_dir(node.root().join("state/images/trees")).unwrap().count(), 0);
    assert!(!node.run(&["run", "--image", "w"]).status.success());
}

#[test]
fn an_image_that_is_not_what_it_says_is_refused_and_leaves_nothing() {
    let Some(node) = TestNode::boot() else { return };
    let outside = node.root().join("outside");
    fs::write(&outside, "host's").unwrap();
    let out = format!("out -> {}", node.root().display());
    let hostile = |name: &str, names: &[(&str, &[u8], u32)]| {
        let folder = node.root().join(name);
        layout(&folder, &[layer(names)], &json!({}));
        folder
    };
    let link = hostile("link", &[(&out, b"", 0o777), ("out/outside", b"mine", 0o644)]);
    let refused = node.run(&["image", "import", link.to_str().unwrap()]);
    assert!(!refused.status.success() || fs::read_to_string(&outside).unwrap() == "host's");
    assert_eq!(fs::read_to_string(&outside).unwrap(), "host's");
    // One byte of a blob changed.
    let (folder, _) = web(&node);
    let blobs = fs::read_dir(folder.join("blobs/sha256")).unwrap();
    let largest = blobs.map(|blob| blob.unwrap().path()).max_by_key(|blob| fs::metadata(blob).unwrap().len());
    let mut bytes = fs::read(largest.as_ref().unwrap()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(largest.unwrap(), bytes).unwrap();
    let refused = node.run(&["image", "import", folder.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("digest"), "{text}");
    let junk = node.root().join("junk.tar");
    fs::write(&junk, [7; 4096]).unwrap();
    let refused = node.run(&["image", "import", junk.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("the image is refused"), "{text}");
    for one in node.json(&["image", "list"]).as_array().unwrap() {
        node.ok(&["image", "rm", one["id"].as_str().unwrap()]);
    }
    let left = || fs::read_dir(node.root().join("state/images/trees")).unwrap().count();
    assert!(within(Duration::from_secs(10), || left() == 0), "{} folders stay", left());
}

#[test]
fn a_folder_is_a_root_and_its_changes_are_kept_apart() {
    let Some(node) = TestNode::boot() else { return };
    let root = node.root().join("rootfs");
    for folder in ["usr/bin", "data", "proc/fake"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
    fs::write(root.join("usr/bin/app"), program()).unwrap();
    fs::set_permissions(root.join("usr/bin/app"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(root.join("data/file"), "old").unwrap();
    let folder = root.to_str().unwrap();
    let seen = said(
        &node,
        &["--rootfs", folder, "--", "app", "read=/data/file", "write=/data/file", "read=/etc/passwd"],
    );
    assert_eq!(
        seen["done"],
        json!(["old", { "error": "ReadOnlyFilesystem" }, { "error": "NotFound" }]),
        "the host's is not shown"
    );
    assert_eq!(seen["top"], json!(["bin", "data", "dev", "proc", "run", "tmp", "usr"]));
    let create = node.log(&["ProcessCreate"]).last().unwrap()["body"].clone();
    assert_eq!(create["grants"][0], format!("root:{folder}"));
    assert_eq!(create["image"], base::Hash::of(&program()).to_string());
    let copied = format!("{folder}:cow");
    let seen = said(&node, &["--rootfs", &copied, "--", "/bin/app", "write=/data/file", "read=/data/file"]);
    assert_eq!(seen["done"], json!(["", "written"]));
    assert_eq!(fs::read_to_string(root.join("data/file")).unwrap(), "old");
    let pid = node.log(&["ProcessCreate"]).last().unwrap()["body"]["pid"].to_string();
    let changed = node.json(&["diff", &pid]);
    assert_eq!(changed["changes"][0]["path"], root.join("data/file").to_str().unwrap());
    node.ok(&["commit", &pid]);
    assert_eq!(fs::read_to_string(root.join("data/file")).unwrap(), "written");
    let missing = node.run(&["run", "--rootfs", folder, "--", "sh"]);
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");
}
