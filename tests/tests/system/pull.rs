//! Images of a registry: Debian's `docker-registry` in a network beside the node's, pushed to with plain requests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use system_tests::{TestNode, within};

use super::{
    egress_names::Site,
    images::{layer, layout, program},
};

const REGISTRY: &str = "/usr/bin/docker-registry";
/// The neighbour's, see `names_site.rs`.
const PLACE: &str = "192.0.2.10:5000";
/// More than one request asks for.
const LARGE: usize = 9 * 1024 * 1024;
const SOON: Duration = Duration::from_secs(30);

struct Registry {
    site: Site,
    process: Child,
    /// `--net=` of the neighbour.
    network: String,
    folder: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The first process that this one has started.
fn child_of(pid: u32) -> u32 {
    let parent = |stat: &str| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok();
    let all = fs::read_dir("/proc").unwrap().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |number: &u32| {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        parent(&stat) == Some(pid)
    };
    numbers.filter(is_child).min().unwrap()
}

impl Registry {
    fn boot() -> Option<Self> {
        if !Path::new(REGISTRY).exists() {
            assert!(std::env::var_os("CI").is_none(), "no {REGISTRY}: apt-get install docker-registry");
            println!("skipped: no {REGISTRY}: apt-get install docker-registry");
            return None;
        }
        let site = Site::boot(None)?;
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yml");
        let store = folder.path().join("store");
        let text = format!(
            "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\n\
             http: {{ addr: \"{PLACE}\", secret: test }}\n",
            store.display()
        );
        fs::write(&config, text).unwrap();
        let network = format!("--net=/proc/{}/ns/net", child_of(site.network.id()));
        let process = Command::new("nsenter")
            .args([network.as_str(), "--", REGISTRY, "serve"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { site, process, network, folder };
        assert!(
            within(SOON, || registry.curl(&["-f", &registry.url("")]).is_some()),
            "the registry is not up"
        );
        Some(registry)
    }

    fn node(&self) -> &TestNode {
        &self.site.node
    }

    fn url(&self, rest: &str) -> String {
        format!("http://{PLACE}/v2/{rest}")
    }

    fn curl(&self, args: &[&str]) -> Option<String> {
        let output = Command::new("nsenter")
            .args([self.network.as_str(), "--", "curl", "-sS", "--max-time", "20"])
            .args(args)
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Everything of a layout, its manifest under this tag, and the same again in an index under `TAG-all`. The digest of the
    /// manifest.
    fn push(&self, name: &str, tag: &str, layout: &Path) -> String {
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        for blob in fs::read_dir(layout.join("blobs/sha256")).unwrap().flatten() {
            let id = format!("sha256:{}", blob.file_name().to_str().unwrap());
            if id != digest {
                self.push_blob(name, &id, &blob.path());
            }
        }
        let file = layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        self.put_manifest(name, tag, "application/vnd.oci.image.manifest.v1+json", &file);
        let size = fs::metadata(&file).unwrap().len();
        let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let one = |os: &str, machine: &str| json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size, "platform": { "os": os, "architecture": machine } });
        let kind = "application/vnd.oci.image.index.v1+json";
        let all = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [one("unknown", "unknown"), one("linux", machine)] });
        let file = layout.join("all.json");
        fs::write(&file, all.to_string()).unwrap();
        self.put_manifest(name, &format!("{tag}-all"), kind, &file);
        digest
    }

    fn push_blob(&self, name: &str, id: &str, file: &Path) {
        let url = self.url(&format!("{name}/blobs/uploads/"));
        let head = self.curl(&["-f", "-X", "POST", "-D", "-", "-o", "/dev/null", &url]).unwrap();
        let place = head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
        });
        let place = format!("{}&digest={id}", place.unwrap());
        let data = format!("@{}", file.display());
        let kind = "content-type: application/octet-stream";
        self.curl(&["-f", "-X", "PUT", "-H", kind, "--data-binary", &data, &place]).unwrap();
    }

    fn put_manifest(&self, name: &str, tag: &str, kind: &str, file: &Path) {
        let (url, data) = (self.url(&format!("{name}/manifests/{tag}")), format!("@{}", file.display()));
        let kind = format!("content-type: {kind}");
        self.curl(&["-f", "-X", "PUT", "-H", &kind, "--data-binary", &data, &url]).unwrap();
    }

    /// Where the registry has what it gives.
    fn stored(&self, hex: &str) -> PathBuf {
        self.folder.path().join(format!("store/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    fn pull(&self, reference: &str) -> Value {
        self.node().json(&["image", "pull", "--plain-http", reference])
    }

    /// What a pull says that comes to nothing, and that nothing of it is kept.
    fn refused(&self, args: &[&str], images: usize) -> String {
        let output = self.node().run(&[&["image", "pull"], args].concat());
        assert!(!output.status.success(), "{output:?}");
        let left = || {
            let trees = self.node().root().join("state/images/trees");
            fs::read_dir(trees).unwrap().count()
        };
        assert!(within(SOON, || left() == images), "{} images are left", left());
        assert_eq!(self.node().json(&["image", "list"]).as_array().unwrap().len(), images);
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// An image that says this, of two layers; the larger one's digits, and the image's id.
fn made(folder: &Path, page: &str) -> (String, String) {
    let mut large = vec![0; LARGE];
    // Not all alike, so that pieces in a wrong order are another file.
    large
        .iter_mut()
        .enumerate()
        .for_each(|(at, byte)| *byte = u8::try_from((at / 4096 * 7 + page.len()) % 251).unwrap());
    let first = layer(&[("bin/", b"", 0o755), ("bin/app", &program(), 0o755), ("large", &large, 0o644)]);
    let second = layer(&[("srv/", b"", 0o755), ("srv/page", page.as_bytes(), 0o644)]);
    let config = json!({ "Entrypoint": ["/bin/app", "read=/srv/page"] });
    let id = layout(folder, &[first, second], &config);
    let blobs = fs::read_dir(folder.join("blobs/sha256")).unwrap().flatten();
    let largest = blobs.max_by_key(|blob| blob.metadata().unwrap().len()).unwrap();
    (largest.file_name().to_str().unwrap().to_owned(), id)
}

#[test]
fn an_image_of_a_registry_is_fetched_through_the_node_and_is_what_its_digest_says() {
    let Some(registry) = Registry::boot() else { return };
    let folder = registry.folder.path().join("one");
    let (_, id) = made(&folder, "one");
    let digest = registry.push("team/web", "1", &folder);
    let name = format!("{PLACE}/team/web");

    let pulled = registry.pull(&format!("{name}:1"));
    assert_eq!((&pulled["id"], &pulled["manifest"]), (&json!(id), &json!(digest)), "{pulled}");
    assert_eq!(pulled["name"], format!("{name}:1"));
    assert_eq!(pulled["moved_from"], Value::Null);
    let run = registry.node().run(&["run", "--image", &format!("{name}:1")]);
    assert!(String::from_utf8_lossy(&run.stdout).contains("\"done\":[\"one\"]"), "{run:?}");
    // Each request is on record, and the name is.
    let to_registry = registry.node().log(&["ConnectionAuthorize"]);
    assert!(
        to_registry.len() >= 5,
        "a manifest, a configuration, two layers and a second piece: {to_registry:?}"
    );
    assert_eq!(registry.node().log(&["ImageImport"])[0]["body"]["name"], format!("{name}:1"));

    // Of an index the one for this machine, by digest too, and under a name of one's own.
    let by_index = registry.pull(&format!("{name}:1-all"));
    assert_eq!((&by_index["id"], &by_index["manifest"]), (&json!(id), &json!(digest)));
    let by_digest = registry.node().json(&[
        "image",
        "pull",
        "--plain-http",
        "--name",
        "web",
        &format!("{name}@{digest}"),
    ]);
    assert_eq!((&by_digest["id"], &by_digest["name"]), (&json!(id), &json!("web")));

    // The tag moves: who named the digest beside it is told, who did not has the other one and is told.
    let folder = registry.folder.path().join("two");
    let (_, second) = made(&folder, "two!");
    let now = registry.push("team/web", "1", &folder);
    assert_ne!(now, digest);
    let output = registry.node().run(&["image", "pull", "--plain-http", &format!("{name}:1@{digest}")]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("has moved") && said.contains(&now), "{said}");
    let moved = registry.pull(&format!("{name}:1"));
    assert_eq!((&moved["id"], &moved["moved_from"]), (&json!(second), &json!(id)));
}

#[test]
fn what_is_not_what_it_says_or_may_not_be_reached_is_told_and_nothing_of_it_is_kept() {
    let Some(registry) = Registry::boot() else { return };
    let folder = registry.folder.path().join("one");
    let (large, _) = made(&folder, "one");
    let digest = registry.push("web", "1", &folder);
    let name = format!("{PLACE}/web:1");
    let stored = registry.stored(&large);
    let content = fs::read(&stored).unwrap();

    let mut other = content.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(&stored, &other).unwrap();
    let said = registry.refused(&["--plain-http", &name], 0);
    assert!(said.contains("something else under this digest") && said.contains(&large), "{said}");

    fs::write(&stored, &content[..content.len() / 2]).unwrap();
    let said = registry.refused(&["--plain-http", &name], 0);
    assert!(said.contains(&large), "{said}");
    fs::remove_file(&stored).unwrap();
    let said = registry.refused(&["--plain-http", &name], 0);
    assert!(said.contains("does not have it"), "{said}");
    fs::write(&stored, &content).unwrap();

    let hex = digest.trim_start_matches("sha256:");
    let manifest = fs::read(registry.stored(hex)).unwrap();
    fs::write(registry.stored(hex), [&manifest[..], b" "].concat()).unwrap();
    let said = registry.refused(&["--plain-http", &format!("{PLACE}/web@{digest}")], 0);
    assert!(said.contains(&digest) || said.contains("answers"), "{said}");
    fs::write(registry.stored(hex), &manifest).unwrap();

    let said = registry.refused(&["--plain-http", &format!("{PLACE}/nobody:1")], 0);
    assert!(said.contains("no such image"), "{said}");
    // A special address is reached by a rule that names it, and who is refused is told which.
    let output = registry.node().run(&["image", "pull", "127.0.0.1:5000/web"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("url_pattern = \"127.0.0.1\"") && said.contains("network rules set"), "{said}");

    registry.pull(&name);
    assert_eq!(registry.node().json(&["image", "list"]).as_array().unwrap().len(), 1);
}

/// Answers every request for a blob with the first byte of what was asked for.
const MISER: &str = r#"
import http.server, os, sys
folder, manifest, place = sys.argv[1:4]
class Miser(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_GET(self):
        name = self.path.rsplit("/", 1)[1]
        if "/manifests/" in self.path: name = manifest
        with open(os.path.join(folder, name.removeprefix("sha256:")), "rb") as file: content = file.read()
        if "/manifests/" in self.path:
            self.send_response(200)
            self.send_header("content-type", "application/vnd.oci.image.manifest.v1+json")
        else:
            first = int(self.headers["range"].removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("content-range", f"bytes {first}-{first}/{len(content)}")
            content = content[first:first + 1]
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
host, port = place.split(":")
http.server.ThreadingHTTPServer((host, int(port)), Miser).serve_forever()
"#;

/// Each request is three entries of the log, so a registry that has time must not have them all.
#[test]
fn a_registry_that_answers_byte_by_byte_is_given_up() {
    struct Ends(Child);
    impl Drop for Ends {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let Some(site) = Site::boot(None) else { return };
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), "one");
    let index: Value = serde_json::from_slice(&fs::read(folder.path().join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap();
    let mut miser = site.at_neighbour("python3");
    miser.args(["-c", MISER]).arg(folder.path().join("blobs/sha256")).args([manifest, PLACE]);
    let _miser = Ends(miser.stdin(Stdio::null()).spawn().unwrap());
    let is_up = || {
        let mut curl = site.at_neighbour("curl");
        let asked = curl.args(["-sf", "-o", "/dev/null", &format!("http://{PLACE}/v2/web/manifests/1")]);
        asked.status().unwrap().success()
    };
    assert!(within(SOON, is_up), "the registry is not up");
    let mut pull = site.node.command(&["image", "pull", "--plain-http", &format!("{PLACE}/web:1")]);
    let mut pull = Ends(pull.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    assert!(within(SOON * 2, || pull.0.try_wait().unwrap().is_some()), "it goes on and on");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut pull.0.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("next to nothing came in 5 requests in a row"), "{said}");
    // One for the manifest, five for the first blob.
    assert_eq!(site.node.log(&["ConnectionAuthorize"]).len(), 6);
    assert_eq!(site.node.json(&["image", "list"]), json!([]));
}
