//! The units that Debian ships, imported and compared with what was reviewed.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use import::{Fate, Host, Import, Named, keys, units};

/// The host of which `corpus/paths`, `corpus/passwd` and `corpus/default` speak.
struct Debian {
    paths: Vec<String>,
    homes: BTreeMap<String, String>,
}

impl Debian {
    fn new() -> Self {
        let lines = |name: &str| -> Vec<String> {
            fs::read_to_string(corpus(name)).unwrap().lines().map(str::to_owned).collect()
        };
        let passwd = lines("passwd");
        let homes = passwd.iter().map(|line| line.split_once(':').unwrap());
        let homes = homes.map(|(user, home)| (user.to_owned(), home.to_owned())).collect();
        Self { paths: lines("paths"), homes }
    }
}

impl Host for Debian {
    fn exists(&self, path: &str) -> bool {
        self.paths.iter().any(|known| known == path)
    }

    fn text(&self, path: &str) -> Option<Result<String, String>> {
        let name = path.strip_prefix("/etc/default/")?;
        fs::read_to_string(corpus("default").join(name)).ok().map(Ok)
    }

    fn home(&self, user: &str) -> Option<String> {
        self.homes.get(user).cloned()
    }

    fn host_name(&self) -> Option<String> {
        Some("debian.example".to_owned())
    }
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// The instance that is imported of a template.
fn instance(template: &str) -> &'static str {
    match template {
        name if name.starts_with("postgresql") || name.starts_with("pg_") => "15-main",
        name if name.starts_with("mariadb") => "bootstrap",
        _ => "one",
    }
}

/// All units of a package.
fn package(folder: &Path) -> Vec<Named> {
    let mut named = Vec::new();
    for file in files(folder).into_iter().filter(|file| file.is_file()) {
        let template = name_of(&file);
        let name = template.replace("@.", &format!("@{}.", instance(&template)));
        let text = |path: &Path| (name_of(path), fs::read_to_string(path).unwrap());
        let mut all = vec![text(&file)];
        let drop_ins = folder.join(format!("{name}.d"));
        if drop_ins.is_dir() {
            all.extend(files(&drop_ins).iter().map(|path| text(path)));
        }
        named.push(Named { name, files: all });
    }
    named
}

fn shown(import: &Import) -> String {
    let mut out = String::new();
    for manifest in &import.manifests {
        writeln!(out, "=== {}.toml\n{}", manifest.name, manifest.to_toml()).unwrap();
    }
    writeln!(out, "=== report").unwrap();
    for entry in &import.report.entries {
        let key = if entry.key.is_empty() { "the unit" } else { &entry.key };
        writeln!(out, "{} {key} {}: {}", entry.place, entry.fate, entry.how).unwrap();
    }
    out
}

fn packages() -> Vec<(String, Import)> {
    let host = Debian::new();
    let folders = files(&corpus("units"));
    folders.iter().map(|folder| (name_of(folder), units(&package(folder), &host).unwrap())).collect()
}

#[test]
fn the_units_of_debian_become_what_was_reviewed() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut different = Vec::new();
    let all = packages();
    assert!(all.len() >= 17, "{} packages", all.len());
    for (package, import) in &all {
        let golden = corpus("golden").join(format!("{package}.txt"));
        let made = shown(import);
        if update {
            fs::write(&golden, &made).unwrap();
        } else if fs::read_to_string(&golden).ok().as_ref() != Some(&made) {
            different.push(package.clone());
        }
    }
    assert!(different.is_empty(), "differ from corpus/golden: {different:?}");
}

#[test]
fn every_setting_of_debian_has_a_fate_that_the_table_names() {
    for (package, import) in packages() {
        for entry in &import.report.entries {
            assert!(
                !entry.how.is_empty() && !entry.how.contains("fault of the import"),
                "{package}: {entry:?}"
            );
            let Some(row) = keys::PAGES
                .iter()
                .flat_map(|page| page.keys)
                .find(|row| row.names.contains(&keys::canonical(&entry.key)))
            else {
                assert!(
                    entry.key.is_empty() || entry.how.contains("no key of this name"),
                    "{package}: {entry:?}"
                );
                continue;
            };
            let allowed: &[Fate] = match row.treat {
                keys::Treat::Ignored => &[Fate::Ignored],
                keys::Treat::Refused => &[Fate::Refused, Fate::Ignored],
                keys::Treat::Always => &[Fate::Mapped, Fate::Approximated, Fate::Ignored],
                keys::Treat::Code(fates) => fates,
            };
            // What another line takes back, and what is a part of something else, is ignored whatever it is.
            assert!(allowed.contains(&entry.fate) || entry.fate == Fate::Ignored, "{package}: {entry:?}");
        }
    }
}

#[test]
fn every_manifest_is_toml() {
    for (package, import) in packages() {
        for manifest in import.manifests {
            let text = manifest.to_toml();
            assert!(text.parse::<toml::Table>().is_ok(), "{package}: {text}");
        }
    }
}
