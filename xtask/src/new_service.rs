//! `cargo xtask new-service NAME`: a service that serves one operation, folds the log and passes all checks.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{ci, workspace};

pub(crate) const DEFAULT_PHASE: &str = "6-node";
/// A boot name is a folder, a package, a module and a socket's name.
const NAME_BYTES_MAX: usize = 32;

/// Path below the service's folder and text, with `@name@`, `@Name@` and `@phase@` to fill in.
const FILES: [(&str, &str); 7] = [
    ("Cargo.toml", include_str!("../templates/service/Cargo.toml.in")),
    ("manifest.toml", include_str!("../templates/service/manifest.toml.in")),
    ("README.md", include_str!("../templates/service/README.md.in")),
    ("src/lib.rs", include_str!("../templates/service/lib.rs.in")),
    ("src/core/mod.rs", include_str!("../templates/service/core.rs.in")),
    ("src/shell.rs", include_str!("../templates/service/shell.rs.in")),
    ("tests/contract.rs", include_str!("../templates/service/contract.rs.in")),
];
const PROTO: &str = include_str!("../templates/service/service.proto.in");

pub(crate) fn run(name: &str, phase: &str) -> Result<()> {
    let root = workspace::root()?;
    if !is_boot_name(name) {
        bail!("`{name}` is no boot name: lower case words with `_` between, at most {NAME_BYTES_MAX} bytes");
    }
    if !root.join("services").join(phase).is_dir() && phase != DEFAULT_PHASE {
        bail!("there is no folder services/{phase}");
    }
    if workspace::metadata()?.packages.iter().any(|package| package.name == name) {
        bail!("the workspace already has a package `{name}`");
    }
    let folder = format!("services/{phase}/{name}");
    // All texts first, so that a file that does not look as expected leaves nothing half done.
    let mut writes: Vec<(PathBuf, String)> = vec![
        edited(&root, "Cargo.toml", |text| with_member(text, name, &folder))?,
        edited(&root, "crates/contracts/src/lib.rs", |text| with_contract(text, name))?,
        (root.join(format!("proto/bailiwick/{name}/v1/{name}.proto")), filled(PROTO, name, phase)),
    ];
    for (path, text) in FILES {
        writes.push((root.join(&folder).join(path), filled(text, name, phase)));
    }
    for (path, text) in &writes {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        }
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("  {}", workspace::relative(&root, path));
    }
    ci::contracts(&[])?;
    // Lines break differently with each name.
    ci::cargo(&["fmt", "--package", name], ci::QUICK_LIMIT)?;
    println!("new-service: {folder} is ready; `cargo test -p {name}` and `cargo xtask tidy` hold");
    println!("new-service: it runs once bailiwick/ lists it among the services that the binary becomes");
    Ok(())
}

fn edited(root: &Path, path: &str, edit: impl FnOnce(&str) -> Option<String>) -> Result<(PathBuf, String)> {
    let path = root.join(path);
    let text = workspace::read(&path)?;
    let text = edit(&text)
        .with_context(|| format!("{} has no place where a service is registered", path.display()))?;
    Ok((path, text))
}

fn is_boot_name(name: &str) -> bool {
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    name.len() <= NAME_BYTES_MAX && name.split('_').all(word)
}

/// `process_manager` is `ProcessManager`.
fn camel_case(name: &str) -> String {
    let capital = |word: &str| {
        let mut chars = word.chars();
        chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
    };
    name.split('_').map(capital).collect()
}

fn filled(template: &str, name: &str, phase: &str) -> String {
    template.replace("@name@", name).replace("@Name@", &camel_case(name)).replace("@phase@", phase)
}

/// The workspace with one member more, and with the crate among its own dependencies.
fn with_member(text: &str, name: &str, folder: &str) -> Option<String> {
    let members = text.find("members = [\n    \"crates/base\"")?;
    let place = members + text.get(members..)?.find("    \"bailiwick\", ")?;
    let text = inserted(text, place, &format!("    \"{folder}\",\n"))?;
    let ours = text.find("\n# ours\n")? + 1;
    let end = ours + text.get(ours..)?.find("\n\n")? + 1;
    inserted(&text, end, &format!("{name} = {{ path = \"{folder}\" }}\n"))
}

fn with_contract(text: &str, name: &str) -> Option<String> {
    let last = text.rfind("\npackage!(")? + 1;
    let end = last + text.get(last..)?.find('\n')? + 1;
    inserted(text, end, &format!("package!({name});\n"))
}

fn inserted(text: &str, at: usize, what: &str) -> Option<String> {
    let (before, after) = text.split_at_checked(at)?;
    Some(format!("{before}{what}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_names_are_plain_words() {
        for good in ["mesh", "block_storage", "v2x"] {
            assert!(is_boot_name(good), "{good}");
        }
        for bad in ["", "Mesh", "a-b", "_a", "a__b", "2a", "a/b", &"a".repeat(NAME_BYTES_MAX + 1)] {
            assert!(!is_boot_name(bad), "{bad}");
        }
        assert!(is_boot_name(&"a".repeat(NAME_BYTES_MAX)));
        assert_eq!(camel_case("process_manager"), "ProcessManager");
    }

    #[test]
    fn the_workspace_of_today_takes_another_member() {
        let root = workspace::root().unwrap();
        let before = workspace::read(&root.join("Cargo.toml")).unwrap();
        let after = with_member(&before, "weather", "services/6-node/weather").unwrap();
        let table: toml::Table = toml::from_str(&after).unwrap();
        let members = table["workspace"]["members"].as_array().unwrap();
        assert!(members.iter().any(|m| m.as_str() == Some("services/6-node/weather")));
        assert_eq!(
            table["workspace"]["dependencies"]["weather"]["path"].as_str(),
            Some("services/6-node/weather")
        );
        assert_eq!(
            after.len(),
            before.len()
                + "    \"services/6-node/weather\",\n".len()
                + "weather = { path = \"services/6-node/weather\" }\n".len()
        );
    }

    #[test]
    fn the_contracts_of_today_take_another_package() {
        let root = workspace::root().unwrap();
        let before = workspace::read(&root.join("crates/contracts/src/lib.rs")).unwrap();
        let after = with_contract(&before, "weather").unwrap();
        assert_eq!(after.replace("package!(weather);\n", ""), before);
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        for (path, template) in FILES.into_iter().chain([("proto", PROTO)]) {
            let text = filled(template, "weather_station", DEFAULT_PHASE);
            assert!(
                !text.contains("@name@") && !text.contains("@Name@") && !text.contains("@phase@"),
                "{path}"
            );
        }
    }
}
