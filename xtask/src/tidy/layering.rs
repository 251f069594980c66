//! Who may depend on whom, and that each direct dependency has a reason.

use std::path::Path;

use crate::workspace::{Metadata, Package, relative};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Base,
    /// chain, durable, import, job, sandbox, seal, ssh, svid, tpm
    Building,
    Contracts,
    Kit,
    Service,
    Binary,
    /// sdk, sim, tests, bench, fuzz, xtask: may look inside everything, nothing depends on them
    Outside,
}

/// The one line that the messages repeat.
const DIRECTION: &str = "base ← chain, durable, import, job, sandbox, seal, ssh, svid, tpm ← contracts ← kit ← services ← bailiwick";

fn layer(folder: &str) -> Option<Layer> {
    Some(match folder {
        "crates/base" => Layer::Base,
        "crates/chain" | "crates/durable" | "crates/import" | "crates/job" | "crates/sandbox"
        | "crates/seal" | "crates/ssh" | "crates/svid" | "crates/tpm" => Layer::Building,
        "crates/contracts" => Layer::Contracts,
        "crates/kit" => Layer::Kit,
        "bailiwick" => Layer::Binary,
        "crates/sdk" => Layer::Outside,
        _ if folder.starts_with("services/") => Layer::Service,
        _ if ["sim", "tests", "bench", "fuzz", "xtask", "daemons"].contains(&folder.split('/').next()?) => {
            Layer::Outside
        }
        _ => return None,
    })
}

/// Crates that speak HTTP. The node core knows none (DMN-03): HTTP stands in the kit's transport only.
const HTTP: [&str; 7] = ["axum", "http", "http-body", "http-body-util", "hyper", "hyper-util", "tower-http"];
const MAY_SPEAK_HTTP: [Layer; 4] = [Layer::Contracts, Layer::Kit, Layer::Binary, Layer::Outside];
/// Makes requests of HTTP for others, and serves none; no part of the node core.
const ASKS_BY_HTTP: &str = "services/4-network/network";
/// The node core besides may not know these.
const NOT_IN_NODE_CORE: [&str; 3] = ["fuser", "fuse3", "irc"];
const NODE_CORE: [&str; 3] = ["services/1-authority/", "services/6-node/mesh", "services/6-node/sync"];

pub(super) fn check(root: &Path, metadata: &Metadata) -> Vec<String> {
    metadata.packages.iter().flat_map(|package| check_package(root, package)).collect()
}

fn check_package(root: &Path, package: &Package) -> Vec<String> {
    let folder = package.manifest_path.parent().map(|p| relative(root, p)).unwrap_or_default();
    let Some(own) = layer(&folder) else {
        return vec![format!("{folder}: package `{}` lies in no known folder", package.name)];
    };
    let mut problems = Vec::new();
    if own == Layer::Service && !folder.ends_with(&format!("/{}", package.name)) {
        problems.push(format!("{folder}: package `{}` must be named like its folder", package.name));
    }
    for dependency in &package.dependencies {
        let name = &dependency.name;
        if let Some(path) = &dependency.path {
            let to = relative(root, path);
            // `bailiwick prove` runs the simulation.
            let proves = own == Layer::Binary && to == "sim";
            if !proves && !layer(&to).is_some_and(|to| may_depend(own, to)) {
                problems.push(format!("{folder}: depends on {to}, against the direction {DIRECTION}"));
            }
            continue;
        }
        let may_speak = MAY_SPEAK_HTTP.contains(&own) || folder == ASKS_BY_HTTP;
        if HTTP.contains(&name.as_str()) && !may_speak {
            problems.push(format!(
                "{folder}: depends on `{name}`; HTTP stands in kit, contracts and network only (DMN-03)"
            ));
        }
        let in_node_core = NODE_CORE.iter().any(|core| folder.starts_with(core));
        if in_node_core && NOT_IN_NODE_CORE.contains(&name.as_str()) {
            problems
                .push(format!("{folder}: depends on `{name}`, which the node core must not know (DMN-03)"));
        }
    }
    problems
}

fn may_depend(from: Layer, to: Layer) -> bool {
    match (from, to) {
        (_, Layer::Outside) => from == Layer::Outside,
        (Layer::Outside, _) => true,
        _ => to < from,
    }
}

/// Each line under `[workspace.dependencies]` says why, or stands in a group (up to the next blank line) that does.
pub(super) fn reasons(cargo_toml: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let (mut inside, mut group_has_reason) = (false, false);
    for (number, line) in cargo_toml.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line == "[workspace.dependencies]";
            group_has_reason = false;
        } else if line.is_empty() {
            group_has_reason = false;
        } else if line.starts_with('#') {
            group_has_reason = true;
        } else if inside && !group_has_reason && !line.contains('#') {
            let name = line.split('=').next().unwrap_or(line).trim();
            problems.push(format!("Cargo.toml: line {}: no word on why `{name}` is needed", number + 1));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;
    use std::path::PathBuf;

    #[track_caller]
    fn check(folder: &str, dependencies: &[&str], problems: usize) {
        let root = Path::new("/w");
        let package = Package {
            name: folder.rsplit('/').next().unwrap().to_owned(),
            manifest_path: root.join(folder).join("Cargo.toml"),
            dependencies: dependencies
                .iter()
                .map(|d| Dependency {
                    name: d.rsplit('/').next().unwrap().to_owned(),
                    path: (d.contains('/') || ["bailiwick", "tests", "sim"].contains(d))
                        .then(|| root.join(d)),
                })
                .collect(),
        };
        let found = check_package(root, &package);
        assert_eq!(found.len(), problems, "{found:?}");
    }

    const POLICY: &str = "services/1-authority/policy";
    const KEYS: &str = "services/1-authority/keys";

    #[test]
    fn dependencies_point_one_way() {
        check("crates/chain", &["crates/base"], 0);
        check("crates/chain", &["crates/durable"], 1);
        check("crates/base", &["crates/chain"], 1);
        check("crates/contracts", &["crates/kit"], 1);
        check(POLICY, &["crates/kit", "crates/contracts", "crates/sandbox"], 0);
        check("crates/kit", &[POLICY], 1);
        check("bailiwick", &[POLICY, KEYS], 0);
        check(POLICY, &["bailiwick"], 1);
    }

    #[test]
    fn no_service_depends_on_another_and_outsiders_may_look_inside() {
        check(POLICY, &[KEYS], 1);
        check("tests", &[POLICY, KEYS, "bailiwick", "sim"], 0);
        check("bailiwick", &["sim"], 0);
        check("bailiwick", &["tests"], 1);
    }

    #[test]
    fn http_and_fuse_stay_out_of_the_node_core() {
        check(POLICY, &["hyper"], 1);
        check("services/3-storage/filesystem", &["fuser"], 0);
        check("services/6-node/mesh", &["fuser", "http"], 2);
        check("crates/kit", &["hyper", "http"], 0);
        check("services/4-network/network", &["hyper"], 0);
        check("services/4-network/driver_manager", &["hyper"], 1);
    }

    #[test]
    fn folders_are_known_and_services_named_like_theirs() {
        check("elsewhere/thing", &[], 1);
        let package = Package {
            name: "pol".into(),
            manifest_path: PathBuf::from("/w/services/1-authority/policy/Cargo.toml"),
            dependencies: vec![],
        };
        assert_eq!(check_package(Path::new("/w"), &package).len(), 1);
    }

    #[test]
    fn each_dependency_has_a_reason() {
        let text =
            "[workspace.dependencies]\n# ours\na = 1\nb = 2\n\nc = 3 # because\nd = 4\n\n[other]\ne = 5\n";
        assert_eq!(reasons(text), ["Cargo.toml: line 7: no word on why `d` is needed"]);
    }
}
