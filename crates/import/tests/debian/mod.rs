//! The units of `crates/import/corpus`, as tests of several crates read them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use import::{Host, Import, Named, units};

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

pub(crate) fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(super::CORPUS).join(name)
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

/// Each package, and what becomes of its units.
pub(crate) fn packages() -> Vec<(String, Import)> {
    let host = Debian::new();
    let folders = files(&corpus("units"));
    folders.iter().map(|folder| (name_of(folder), units(&package(folder), &host).unwrap())).collect()
}
