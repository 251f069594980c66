//! Container images and folders as roots: what a program sees is theirs, and the host's is not.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use contracts::process_manager::v1::{self as pb, processes_client::ProcessesClient, tree_chunk::Chunk};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use system_tests::{
    TestNode,
    client::{Client, reason},
    within,
};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn program() -> Vec<u8> {
    fs::read(env!("CARGO_BIN_EXE_shown")).unwrap()
}

/// A layer: names that end in `/` are folders, `a -> b` is a link.
pub(crate) fn layer(names: &[(&str, &[u8], u32)]) -> Vec<u8> {
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

/// An OCI layout in a folder, and its id: the digest of its configuration.
pub(crate) fn layout(folder: &Path, layers: &[Vec<u8>], config: &Value) -> String {
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
    let config = config.to_string();
    let id = format!("sha256:{}", hex(config.as_bytes()));
    let config = put(config.as_bytes(), "application/vnd.oci.image.config.v1+json");
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let layers: Vec<Value> = layers.iter().map(|layer| put(layer, kind)).collect();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string();
    let named = put(manifest.as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    fs::write(folder.join("index.json"), json!({ "schemaVersion": 2, "manifests": [named] }).to_string())
        .unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    id
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

/// Images, and what is left of others.
fn folders(node: &TestNode) -> usize {
    fs::read_dir(node.root().join("state/images/trees")).unwrap().count()
}

pub(crate) fn add_rule(node: &TestNode, id: &str, effect: &str, condition: &str) {
    let text = format!(
        "[[rule]]\nid = \"{id}\"\nname = \"{id}\"\npriority = 950\neffect = \"{effect}\"\ncondition = {condition}\n"
    );
    node.ok(&["policy", "add", &node.file(&format!("{id}.toml"), text)]);
}

/// The actions of this kind that were decided, and their effects.
pub(crate) fn decided(node: &TestNode, kind: &str) -> Vec<(Value, bool)> {
    let log = node.log(&["PolicyDecision"]);
    let of_kind = log.iter().filter(|entry| !entry["body"]["action"][kind].is_null());
    of_kind.map(|entry| (entry["body"]["action"][kind].clone(), entry["body"]["effect"] == "Allow")).collect()
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
    // Named by content: the program by its own hash, the image by the digest of its configuration.
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
    assert_eq!(folders(&node), 0);
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
    assert!(within(Duration::from_secs(10), || folders(&node) == 0), "{} folders stay", folders(&node));
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

/// A name is given and taken away by acts; whoever may not leaves nothing behind, and the log says whose a name is.
#[test]
fn to_import_and_to_remove_an_image_is_decided_and_on_record() {
    let Some(mut node) = TestNode::boot() else { return };
    let (folder, id) = web(&node);
    let folder = folder.to_str().unwrap().to_owned();
    let me = node.json(&["identity", "whoami"])["id"].clone();
    add_rule(
        &node,
        "no-secret",
        "Deny",
        r#"{ and = [{ action = { kind = "import_image" } }, { resource = { pattern = "secret*" } }] }"#,
    );
    let refused = node.run(&["image", "import", &folder, "--name", "secret"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!(decided(&node, "import_image"), [(json!({ "name": "secret" }), false)]);
    assert_eq!((node.log(&["ImageImport"]).len(), folders(&node)), (0, 0));
    let imported = node.json(&["image", "import", &folder, "--name", "web"]);
    let entry = node.log(&["ImageImport"]).pop().unwrap();
    let body = &entry["body"];
    assert_eq!((&body["name"], &body["tree"], &body["by"]), (&json!("web"), &json!(id), &me));
    assert_eq!((&body["form"], &body["size_bytes"]), (&json!("oci_layout"), &imported["size_bytes"]));
    assert_eq!((&imported["entry"], &imported["owner"]), (&entry["sequence"], &me));
    assert_eq!(decided(&node, "import_image")[1], (json!({ "name": "web" }), true));
    let closed = |node: &TestNode, entry: &Value| {
        let receipts = node.log(&["Receipt"]);
        receipts.iter().any(|one| one["body"]["axiom_entry"]["sequence"] == entry["sequence"])
    };
    assert!(within(Duration::from_secs(10), || closed(&node, &entry)));
    // The names are what the log says: they are there after a restart.
    node.down();
    node.up();
    let listed = node.json(&["image", "list"]);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["owner"], &listed[0]["since_ns"]),
        (&json!("web"), &me, &imported["since_ns"])
    );
    assert!(node.ok(&["image", "list"]).contains("OWNER"));
    node.ok(&["image", "rm", "web"]);
    let removed = node.log(&["ImageRemove"]).pop().unwrap();
    assert_eq!((&removed["body"]["name"], &removed["body"]["tree"]), (&json!("web"), &json!(id)));
    assert_eq!(decided(&node, "remove_image"), [(json!({ "name": "web" }), true)]);
    assert_eq!((node.json(&["image", "list"]), folders(&node)), (json!([]), 0));
    assert!(within(Duration::from_secs(10), || closed(&node, &removed)));
}

/// Two names are two ways to an image; the content goes with the last one, and a name that moves on does not take it along.
#[test]
fn an_image_goes_with_its_last_name() {
    let Some(node) = TestNode::boot() else { return };
    let (folder, id) = web(&node);
    for name in ["one", "two"] {
        node.ok(&["image", "import", folder.to_str().unwrap(), "--name", name]);
    }
    let refused = node.run(&["image", "rm", &id]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("one, two"), "{text}");
    node.ok(&["image", "rm", "one"]);
    assert_eq!(said(&node, &["--image", "two"])["done"][0], "hello");
    let other = node.root().join("other");
    let files: [(&str, &[u8], u32); 1] = [("app", b"x", 0o755)];
    layout(&other, &[layer(&files)], &json!({ "Cmd": ["/app"] }));
    node.ok(&["image", "import", other.to_str().unwrap(), "--name", "two"]);
    let names: Vec<Value> = node.json(&["image", "list"]).as_array().unwrap().clone();
    let names: Vec<&str> = names.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, [id.as_str(), "two"], "it is called by its id now");
    assert_eq!(said(&node, &["--image", &id])["done"][0], "hello");
    node.ok(&["image", "rm", &id]);
    assert_eq!(folders(&node), 1);
}

/// Rules see by which name a program uses an image, and which image that is; nothing of it is read before.
#[test]
fn rules_tell_images_apart_in_which_the_same_program_runs() {
    let Some(node) = TestNode::boot() else { return };
    let (folder, id) = web(&node);
    for name in ["one", "two"] {
        node.ok(&["image", "import", folder.to_str().unwrap(), "--name", name]);
    }
    let of_use = |pattern: &str| {
        format!(
            r#"{{ and = [{{ action = {{ kind = "use_image" }} }}, {{ resource = {{ pattern = "{pattern}" }} }}] }}"#
        )
    };
    add_rule(&node, "not-one", "Deny", &of_use("one@**"));
    let programs = || {
        let images = fs::read_dir(node.root().join("state/images")).unwrap();
        images
            .filter(|one| one.as_ref().unwrap().file_name().to_string_lossy().starts_with("blake3-"))
            .count()
    };
    let before = (programs(), node.log(&["ProcessCreate"]).len());
    let refused = node.run(&["run", "--image", "one"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!((programs(), node.log(&["ProcessCreate"]).len()), before, "nothing was read or started");
    assert_eq!(decided(&node, "use_image"), [(json!({ "name": "one", "tree": id }), false)]);
    assert!(node.ok(&["why", "last"]).contains("not-one"));
    assert_eq!(said(&node, &["--image", "two"])["done"][0], "hello");
    // What is allowed is on record too, and the program's own decision says in which image it is.
    assert_eq!(decided(&node, "use_image")[1], (json!({ "name": "two", "tree": id }), true));
    let log = node.log(&["PolicyDecision"]);
    let context = |entry: &Value| entry["body"]["context"]["metadata"].clone();
    let of_program = log.iter().rfind(|entry| !entry["body"]["action"]["create_process"].is_null()).unwrap();
    assert_eq!((&context(of_program)["image"], &context(of_program)["tree"]), (&json!("two"), &json!(id)));
    add_rule(&node, "not-this", "Deny", &of_use(&format!("**@{id}")));
    assert!(!node.run(&["run", "--image", "two"]).status.success());
}

/// Somebody else: their token on the operator's socket.
struct Bob(Client);

impl Bob {
    fn of(node: &TestNode) -> Self {
        let id = node.json(&["identity", "create", "bob"])["id"].as_str().unwrap().to_owned();
        let added = node.json(&[
            "identity",
            "credential",
            "add",
            "--kind",
            "recovery-key",
            "--identity",
            "bob",
            "bob",
        ]);
        let key = node.file("bob.key", added["key"].as_str().unwrap());
        let credential = added["id"].as_str().unwrap();
        let token = node.ok(&["identity", "login", "--credential", credential, "--key-file", &key]);
        Self(Client::new(node.root().join("run/admin"), id.parse().unwrap()).with_token(Some(token.trim())))
    }

    fn stub(&self, verb: &str) -> ProcessesClient<kit::client::Calls> {
        ProcessesClient::new(self.0.calls("process_manager", &format!("system.process_manager.{verb}")))
    }

    fn import(&self, folder: &Path, name: &str) -> Result<pb::Tree, String> {
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_dir_all(".", folder).unwrap();
        let begin = pb::TreeBegin { tag: String::new(), name: name.to_owned() };
        let archive = archive.into_inner().unwrap();
        let pieces = archive.chunks(64 * 1024).map(|piece| Chunk::Data(piece.to_vec()));
        let chunks = std::iter::once(Chunk::Begin(begin)).chain(pieces);
        let chunks: Vec<pb::TreeChunk> = chunks.map(|chunk| pb::TreeChunk { chunk: Some(chunk) }).collect();
        let imported = self.0.wait(self.stub("import_tree").import_tree(tokio_stream::iter(chunks)));
        imported.map(tonic::Response::into_inner).map_err(reason)
    }

    fn remove(&self, id: &str, name: &str) -> Result<(), String> {
        let id = base::TreeId::from_hex(id.trim_start_matches("sha256:")).unwrap().0.to_vec();
        let request = pb::RemoveTreeRequest { id, name: name.to_owned() };
        self.0.wait(self.stub("remove_tree").remove_tree(request)).map(drop).map_err(reason)
    }
}

/// Whoever may import and remove may do so with free names and own ones; with another's only where a rule says so.
#[test]
fn a_name_is_its_owners() {
    let Some(node) = TestNode::boot() else { return };
    let bob = Bob::of(&node);
    let (folder, id) = web(&node);
    assert_eq!(bob.import(&folder, "mine").unwrap_err(), "PolicyDenied");
    let may = |kinds: &str| {
        format!(
            r#"{{ and = [{{ identity = {{ exact = "{}" }} }}, {{ action = {{ any_of = [{kinds}] }} }}] }}"#,
            bob.0.identity()
        )
    };
    add_rule(&node, "bob-images", "Allow", &may(r#""import_image", "remove_image""#));
    node.ok(&["image", "import", folder.to_str().unwrap(), "--name", "web"]);
    let other = node.root().join("other");
    let files: [(&str, &[u8], u32); 1] = [("app", b"x", 0o755)];
    let other_id = layout(&other, &[layer(&files)], &json!({}));
    assert_eq!(bob.import(&other, "web").unwrap_err(), "PolicyDenied");
    assert_eq!(bob.remove(&id, "web").unwrap_err(), "PolicyDenied");
    assert_eq!(folders(&node), 1, "nothing of what was refused is left");
    assert_eq!(bob.import(&other, "mine").unwrap().owner, bob.0.identity().0);
    bob.remove(&other_id, "mine").unwrap();
    add_rule(&node, "bob-takes", "Allow", &may(r#""take_image""#));
    assert_eq!(bob.import(&other, "web").unwrap().owner, bob.0.identity().0);
    let taken = node.log(&["ImageImport"]).pop().unwrap();
    let me = node.json(&["identity", "whoami"])["id"].clone();
    assert_eq!(taken["body"]["taken_from"], me);
    let names: Vec<Value> = node.json(&["image", "list"]).as_array().unwrap().clone();
    let owned: Vec<(&Value, &Value)> = names.iter().map(|one| (&one["name"], &one["owner"])).collect();
    let whose = json!(bob.0.identity().to_string());
    assert_eq!(owned, [(&json!(id), &me), (&json!("web"), &whose)], "its owner's image is not lost");
}
