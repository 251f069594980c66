//! Shipped manifests against the seed's dependency graph and against the contracts that the code calls.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::source::{code_only, has_word, without_tests};

/// The seed's graph (003 §2.2, SUP-04 to SUP-08): 23 edges with the supervisor's own three, which it does not need a
/// manifest for.
const EDGES: [(&str, &[&str]); 12] = [
    ("axiom", &[]),
    ("policy", &["axiom"]),
    ("keys", &["policy"]),
    ("identity", &["keys", "policy"]),
    ("process_manager", &["capability_service", "policy"]),
    ("capability_service", &["axiom", "policy"]),
    ("block_storage", &[]),
    ("filesystem", &["axiom", "block_storage", "policy"]),
    ("driver_manager", &[]),
    ("network", &["axiom", "driver_manager", "policy"]),
    ("terminal", &["filesystem", "identity", "process_manager"]),
    ("update_manager", &["axiom", "filesystem", "policy"]),
];

#[derive(Deserialize)]
struct Manifest {
    service: Service,
    #[serde(default)]
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Service {
    name: String,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    required: bool,
}

/// `texts` are all Rust files of the workspace with their names.
pub(super) fn check(name: &str, text: &str, texts: &[(String, String)], clients: &[Client]) -> Vec<String> {
    let manifest: Manifest = match toml::from_str(text) {
        Ok(manifest) => manifest,
        Err(error) => return vec![format!("{name}: {error}")],
    };
    let mut problems = Vec::new();
    let folder = name.strip_suffix("/manifest.toml").unwrap_or(name);
    let own = manifest.service.name.as_str();
    if !folder.ends_with(&format!("/{own}")) {
        problems.push(format!("{name}: service `{own}` must be named like its folder"));
    }
    let required: BTreeSet<&str> =
        manifest.dependencies.iter().filter(|d| d.required).map(|d| d.name.as_str()).collect();
    if let Some((_, edges)) = EDGES.iter().find(|(service, _)| *service == own) {
        let expected: BTreeSet<&str> = edges.iter().copied().collect();
        if required != expected {
            problems.push(format!(
                "{name}: required dependencies are {required:?}, the seed's graph says {expected:?}; \
                 any other contract in use is `required = false`"
            ));
        }
    }
    let all: BTreeSet<&str> = manifest.dependencies.iter().map(|d| d.name.as_str()).collect();
    for called in called(own, folder, texts, clients) {
        if !all.contains(called) {
            problems.push(format!("{name}: the code calls `{called}`, which is no dependency here"));
        }
    }
    problems
}

/// Services of which the service's own code uses a generated client.
fn called<'a>(
    own: &str,
    folder: &str,
    texts: &[(String, String)],
    clients: &'a [Client],
) -> BTreeSet<&'a str> {
    let sources = format!("{folder}/src/");
    let code: Vec<String> = texts
        .iter()
        .filter(|(name, _)| name.starts_with(&sources))
        .map(|(_, text)| without_tests(&code_only(text)))
        .collect();
    let others = clients.iter().filter(|client| client.service != own);
    others.filter(|c| code.iter().any(|code| has_word(code, &c.module))).map(|c| c.service.as_str()).collect()
}

/// A generated client: `identities_client` of the service `identity`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Client {
    module: String,
    service: String,
}

/// Contracts of the channels that a service inherits, which are no dependencies.
const CHANNELS: [&str; 4] = ["Append", "Authority", "Feed", "Lifecycle"];

/// All clients, from the operations in `proto/contracts.lock` (`bailiwick.identity.v1.Identities/WhoAmI = …`).
pub(super) fn clients(lock: &str) -> Vec<Client> {
    let operations = lock.lines().filter_map(|line| line.split(" = ").next()?.split_once('/'));
    let found: BTreeSet<Client> = operations
        .filter_map(|(contract, _)| {
            let mut parts = contract.split('.').skip(1);
            let (service, _version, name) = (parts.next()?, parts.next()?, parts.next()?);
            if CHANNELS.contains(&name) {
                return None;
            }
            Some(Client { module: format!("{}_client", snake_case(name)), service: service.to_owned() })
        })
        .collect();
    found.into_iter().collect()
}

/// As the generator names modules: `ProcessManager` is `process_manager`.
fn snake_case(name: &str) -> String {
    let mut result = String::new();
    for (index, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && index > 0 {
            result.push('_');
        }
        result.push(c.to_ascii_lowercase());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, dependencies: &[(&str, bool)]) -> String {
        let mut text = format!("version = 1\n[service]\nname = \"{name}\"\n");
        for (name, required) in dependencies {
            text.push_str(&format!("[[dependencies]]\nname = \"{name}\"\nrequired = {required}\n"));
        }
        text
    }

    #[track_caller]
    fn finds(name: &str, text: &str, code: &str, problems: usize) {
        let texts = [("services/1-authority/keys/src/shell.rs".to_owned(), code.to_owned())];
        let clients = clients(
            "bailiwick.identity.v1.Identities/WhoAmI = a -> b\nbailiwick.keys.v1.Keys/Sign = a -> b\n",
        );
        let found = check(name, text, &texts, &clients);
        assert_eq!(found.len(), problems, "{found:?}");
    }

    const KEYS: &str = "services/1-authority/keys/manifest.toml";

    #[test]
    fn the_graph_has_the_seeds_edges() {
        assert_eq!(EDGES.iter().map(|(_, to)| to.len()).sum::<usize>() + 3, 23);
    }

    #[test]
    fn required_dependencies_are_the_seeds() {
        finds(KEYS, &manifest("keys", &[("policy", true)]), "", 0);
        finds(KEYS, &manifest("keys", &[("policy", true), ("identity", false)]), "", 0);
        finds(KEYS, &manifest("keys", &[]), "", 1);
        finds(KEYS, &manifest("keys", &[("policy", false)]), "", 1);
        finds(KEYS, &manifest("keys", &[("policy", true), ("axiom", true)]), "", 1);
    }

    #[test]
    fn clients_are_named_as_the_generator_names_them() {
        let lock = "# x\nbailiwick.process_manager.v1.ProcessManager/Run = a -> b\nbailiwick.keys.v1.A.b = 1:string\nbailiwick.axiom.v1.Feed/Follow = a -> b\n";
        let expected =
            Client { module: "process_manager_client".to_owned(), service: "process_manager".to_owned() };
        assert_eq!(clients(lock), [expected]);
    }

    #[test]
    fn names_and_called_contracts_must_match() {
        finds(KEYS, &manifest("key", &[]), "", 1);
        finds(KEYS, "version = ", "", 1);
        let calls = "use contracts::identity::v1::identities_client::IdentitiesClient;";
        finds(KEYS, &manifest("keys", &[("policy", true)]), calls, 1);
        finds(KEYS, &manifest("keys", &[("policy", true), ("identity", false)]), calls, 0);
        finds(KEYS, &manifest("keys", &[("policy", true)]), "// identities_client\nuse keys_client;", 0);
    }
}
