//! bubblewrap and crun, told to show what our sandbox shows.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::statfs;
use serde_json::{Value, json};

use super::user::User;

/// Host folders that every contestant shows, read-only.
const SHOWN: [&str; 4] = ["/usr", "/bin", "/lib", "/lib64"];
/// The cgroup hierarchy v2 inside of a hybrid tree.
const UNIFIED: &str = "/sys/fs/cgroup/unified";
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// crun refuses a tree of both cgroup versions; so all contestants run where only the second one is seen.
pub(super) const WITH_ONE_HIERARCHY: [&str; 7] = [
    "unshare",
    "--mount",
    "--propagation=private",
    "sh",
    "-c",
    "mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup && exec \"$@\"",
    "sh",
];

pub(super) fn has_hybrid_cgroups() -> bool {
    statfs(UNIFIED).is_ok_and(|fs| fs.f_type == CGROUP2_MAGIC)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

pub(super) fn bubblewrap(program: &Path) -> Vec<String> {
    let mut words = vec!["bwrap".to_owned(), "--unshare-all".to_owned()];
    for folder in SHOWN.into_iter().filter(|folder| Path::new(folder).exists()) {
        words.extend(["--ro-bind", folder, folder].map(str::to_owned));
    }
    words.extend(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"].map(str::to_owned));
    if !is_shown(program) {
        words.extend(["--ro-bind".to_owned(), text(program), INSIDE.to_owned()]);
    }
    words.push(inside(program));
    words
}

/// Where a program that lies nowhere below what is shown is put.
const INSIDE: &str = "/first";

fn is_shown(program: &Path) -> bool {
    SHOWN.iter().any(|folder| program.starts_with(folder))
}

fn inside(program: &Path) -> String {
    if is_shown(program) { text(program) } else { INSIDE.to_owned() }
}

/// Makes a bundle for `program` below `home`.
pub(super) fn crun(home: &Path, user: User, program: &Path) -> Result<Vec<String>> {
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let bundle = home.join(format!("bundle-{name}"));
    let (rootfs, state) = (bundle.join("rootfs"), home.join("crun"));
    for folder in [&rootfs, &state] {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        std::os::unix::fs::chown(folder, Some(user.uid()), Some(user.gid()))
            .context("giving a folder away")?;
    }
    // A place for each mount, since the root is read-only and another's.
    std::fs::write(rootfs.join("first"), []).context("making a bundle")?;
    for place in SHOWN.into_iter().chain(["/proc", "/dev", "/tmp"]) {
        std::fs::create_dir_all(rootfs.join(place.trim_start_matches('/'))).context("making a bundle")?;
    }
    let file = bundle.join("config.json");
    let config = config(user, program);
    std::fs::write(&file, serde_json::to_vec(&config)?)
        .with_context(|| format!("writing {}", file.display()))?;
    let words = [
        "crun",
        "--root",
        &text(&state),
        "--cgroup-manager=disabled",
        "run",
        "--bundle",
        &text(&bundle),
        "bench",
    ];
    Ok(words.map(str::to_owned).to_vec())
}

fn config(user: User, program: &Path) -> Value {
    let bind = |from: &str, to: &str| json!({ "destination": to, "type": "bind", "source": from, "options": ["rbind", "ro"] });
    let mut mounts: Vec<Value> = SHOWN
        .into_iter()
        .filter(|folder| Path::new(folder).exists())
        .map(|folder| bind(folder, folder))
        .collect();
    if !is_shown(program) {
        mounts.push(bind(&text(program), INSIDE));
    }
    let tmpfs = |to: &str, mode: &str| json!({ "destination": to, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", mode, "size=1m"] });
    mounts.push(json!({ "destination": "/proc", "type": "proc", "source": "proc" }));
    mounts.extend([tmpfs("/dev", "mode=755"), tmpfs("/tmp", "mode=1777")]);
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    if !user.is_root() {
        namespaces.push("user");
    }
    let none: [&str; 0] = [];
    let mut linux =
        json!({ "namespaces": namespaces.iter().map(|kind| json!({ "type": kind })).collect::<Vec<_>>() });
    if let (false, Some(linux)) = (user.is_root(), linux.as_object_mut()) {
        let map = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
        linux.insert("uidMappings".to_owned(), map(user.uid()));
        linux.insert("gidMappings".to_owned(), map(user.gid()));
    }
    json!({
        "ociVersion": "1.0.0",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": [inside(program)],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "capabilities": { "bounding": none, "effective": none, "inheritable": none, "permitted": none, "ambient": none },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "bench",
        "mounts": mounts,
        "linux": linux,
    })
}
