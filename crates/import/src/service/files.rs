//! Folders of its own, and what it sees of the host.

use super::{Work, plain_path};
use crate::{
    manifest::{Folder, Secret},
    unit::{Setting, value},
};

/// Key of the folders, of their mode, variable, and where they lie.
const OWN: [(&str, &str, &str, &str); 4] = [
    ("RuntimeDirectory", "RuntimeDirectoryMode", "RUNTIME_DIRECTORY", "/run"),
    ("StateDirectory", "StateDirectoryMode", "STATE_DIRECTORY", "/var/lib"),
    ("CacheDirectory", "CacheDirectoryMode", "CACHE_DIRECTORY", "/var/cache"),
    ("LogsDirectory", "LogsDirectoryMode", "LOGS_DIRECTORY", "/var/log"),
];

fn climbs(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

impl Work<'_> {
    pub(super) fn files(&mut self) {
        for (key, mode_key, variable, root) in OWN {
            self.own_folders(key, mode_key, variable, root);
        }
        self.configuration();
        if let Some(one) = self.service("RuntimeDirectoryPreserve") {
            match value::boolean(&one.value) {
                Some(false) => self.ignored(&one, "what lies below /run is gone at the end"),
                _ => self.refused(
                    &one,
                    "what lies below /run is gone at the end; use StateDirectory= for what is to stay",
                ),
            }
        }
        self.working_directory();
        for one in self.unit.list("Service", "ReadWritePaths") {
            self.paths(&one, true);
        }
        for one in self.unit.list("Service", "ReadOnlyPaths") {
            self.paths(&one, false);
        }
        for (key, writable) in [("BindPaths", true), ("BindReadOnlyPaths", false)] {
            for one in self.unit.list("Service", key) {
                self.binds(&one, writable);
            }
        }
        for one in self.unit.list("Service", "LoadCredential") {
            self.secret(&one);
        }
        for key in ["StandardInput", "StandardOutput", "StandardError"] {
            self.stream(key);
        }
    }

    /// One more path of the host; one that is granted to be written stays so.
    pub(super) fn grant(&mut self, path: &str, writable: bool) {
        let (read, write) = (path.to_owned(), format!("{path}:rw"));
        let grants = &mut self.manifest.program.fs;
        if grants.contains(&write) || (!writable && grants.contains(&read)) {
            return;
        }
        grants.retain(|grant| *grant != read);
        grants.push(if writable { write } else { read });
    }

    fn own_folders(&mut self, key: &str, mode_key: &str, variable: &str, root: &str) {
        let mode_setting = self.service(mode_key);
        let mode = match &mode_setting {
            Some(one) => match value::octal(&one.value) {
                Some(mode) => {
                    self.mapped(one, "[program] folders, mode");
                    mode
                }
                None => {
                    self.refused(one, "it is no octal mode");
                    for folder in self.unit.list("Service", key) {
                        self.refused(&folder, format!("with which mode is not known, see {mode_key}="));
                    }
                    return;
                }
            },
            None => "0755".to_owned(),
        };
        let mut paths = Vec::new();
        for one in self.unit.list("Service", key) {
            let Some(words) = self.words(&one) else { continue };
            for word in words {
                let (name, link) = word.split_once(':').unwrap_or((&word, ""));
                let climbs = name.split('/').any(|part| part == ".." || part == ".");
                if name.is_empty() || name.starts_with('/') || climbs {
                    self.refused(&one, format!("{name:?} is no path below {root}"));
                    continue;
                }
                if !link.is_empty() {
                    self.refused(&one, format!("no link {link:?} is made"));
                }
                let path = plain_path(&format!("{root}/{name}"));
                if path.starts_with("/run/bailiwick") {
                    self.refused(&one, "the folder is the node's own");
                    continue;
                }
                paths.push(path.clone());
                self.folder(Folder { path, mode: mode.clone() });
                self.mapped(&one, "[program] folders");
            }
        }
        if !paths.is_empty() {
            let paths = paths.join(":");
            self.variables.set(variable, &paths, None);
            self.manifest.program.env.push((variable.to_owned(), paths));
        }
    }

    fn configuration(&mut self) {
        let mut paths = Vec::new();
        for one in self.unit.list("Service", "ConfigurationDirectory") {
            let Some(words) = self.words(&one) else { continue };
            for name in words {
                let path = plain_path(&format!("/etc/{name}"));
                if path.split('/').any(|part| part == "..") || !self.host.exists(&path) {
                    self.refused(
                        &one,
                        format!("there is no {path} on this host, and none is made; make it first"),
                    );
                    continue;
                }
                self.grant(&path, true);
                paths.push(path);
                self.mapped(&one, "[program] fs, to be written");
            }
        }
        if !paths.is_empty() {
            self.manifest.program.env.push(("CONFIGURATION_DIRECTORY".to_owned(), paths.join(":")));
        }
    }

    fn working_directory(&mut self) {
        let Some(one) = self.service("WorkingDirectory") else { return };
        let Some(text) = self.expanded(&one) else { return };
        let (path, optional) = match text.strip_prefix('-') {
            Some(path) => (path.to_owned(), true),
            None => (text, false),
        };
        let user = self.unit.last("Service", "User").map_or("root".to_owned(), |one| one.value);
        let path = if path == "~" { self.host.home(&user) } else { Some(path) };
        match path {
            Some(path) if path.starts_with('/') => {
                self.manifest.program.cwd = Some(plain_path(&path));
                match optional {
                    true => self.approximated(&one, "[program] cwd; without the folder it does not start"),
                    false => self.mapped(&one, "[program] cwd"),
                }
            }
            Some(_) => self.refused(&one, "it is no absolute path"),
            None => self.refused(&one, format!("the home of {user} is not known here; write its path")),
        }
    }

    /// Paths with their prefixes `-` and `+`.
    fn paths(&mut self, one: &Setting, writable: bool) {
        let Some(words) = self.words(one) else { return };
        for word in words {
            let path = word.trim_start_matches(['-', '+']);
            let optional = word.len() > path.len() && word.contains('-');
            let climbs = path.split('/').any(|part| part == "..");
            if !path.starts_with('/') || climbs {
                self.refused(one, format!("{path:?} is no absolute path"));
                continue;
            }
            let path = plain_path(path);
            let own = |folder: &Folder| path == folder.path || path.starts_with(&format!("{}/", folder.path));
            if writable && self.manifest.program.folders.iter().any(own) {
                self.mapped(one, format!("{path} is a folder of its own"));
            } else if path == "/" && writable {
                self.approximated(one, "not all of the host can be granted; grant what it writes");
            } else if path == "/" {
                self.mapped(one, "nothing is written but what is granted so");
            } else if path == "/run" || path == "/proc" || path == "/tmp" || path == "/dev" || path == "/sys"
            {
                self.approximated(
                    one,
                    format!(
                        "{path} is the service's own, or is not there; grant what it needs of the host's"
                    ),
                );
            } else if optional && !self.host.exists(&path) {
                self.approximated(one, format!("{path} is left out: it is not there now"));
            } else {
                self.grant(&path, writable);
                self.mapped(one, "[program] fs");
            }
        }
    }

    fn binds(&mut self, one: &Setting, writable: bool) {
        let Some(words) = self.words(one) else { return };
        for word in words {
            let optional = word.starts_with('-');
            let mut parts = word.trim_start_matches('-').split(':');
            let source = parts.next().map(plain_path).unwrap_or_default();
            let target = parts.next().filter(|target| !target.is_empty()).map_or(source.clone(), plain_path);
            if source != target {
                self.refused(one, format!("{source} would be shown as {target}; a grant shows a path where it is: link or configure it"));
            } else if source.split('/').any(|part| part == "..") || source == "/" {
                self.refused(one, format!("{source} cannot be granted"));
            } else if optional && !self.host.exists(&source) {
                self.approximated(one, format!("{source} is left out: it is not there now"));
            } else {
                self.grant(&source, writable);
                self.mapped(one, "[program] fs");
            }
        }
    }

    fn secret(&mut self, one: &Setting) {
        let Some(text) = self.expanded(one) else { return };
        match text.split_once(':') {
            Some((name, path)) if path.starts_with('/') && self.is_secret_name(name) && !climbs(path) => {
                let secret = Secret { name: name.to_owned(), path: plain_path(path) };
                self.manifest.program.secrets.push(secret);
                self.mapped(one, "[program] secrets");
            }
            _ => self.refused(
                one,
                "a secret is NAME:/PATH of a file; what the service manager was given is not passed on",
            ),
        }
    }

    /// As the supervisor takes it, and not there yet.
    fn is_secret_name(&self, name: &str) -> bool {
        let legal = |c: char| c.is_ascii_alphanumeric() || "_-.@:".contains(c);
        let known = |secret: &Secret| secret.name == name;
        (1..=64).contains(&name.len())
            && name.chars().all(legal)
            && !name.starts_with('.')
            && !self.manifest.program.secrets.iter().any(known)
    }

    fn stream(&mut self, key: &str) {
        let Some(one) = self.service(key) else { return };
        let word = one.value.split(':').next().unwrap_or_default();
        match (key, word) {
            ("StandardInput", "null") => self.mapped(&one, "it is empty"),
            ("StandardInput", _) => self.refused(&one, "standard input is empty"),
            (_, "journal" | "syslog" | "inherit" | "kmsg" | "journal+console" | "kmsg+console") => {
                self.mapped(&one, "`bailiwick service logs`");
            }
            (_, "null") => self.approximated(&one, "it goes to `bailiwick service logs`"),
            _ => self.refused(&one, "it goes to `bailiwick service logs`, and nowhere else"),
        }
    }
}
