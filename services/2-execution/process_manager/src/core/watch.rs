//! Which refused calls are worth a name. Looking for a library in eight places is no refusal; reaching for a file of
//! the host that the sandbox hides is one.

use minicbor::{Decode, Encode};

/// Tops of the view that every program has, or that say nothing about the host's files: a file that is not there is
/// not there on purpose of nobody.
const ORDINARY: &[&str] =
    &["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "proc", "dev", "sys", "run"];
/// The C library asks the name service cache at each look-up of a user; nearly nobody runs one.
const NAME_CACHE: &str = "/var/run/nscd";

/// What a program sees, as its monitor needs to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Watch {
    /// Granted paths, as they are inside.
    #[n(0)]
    pub granted: Vec<String>,
    /// Its private home.
    #[n(1)]
    pub home: String,
    /// Covered by emptiness: the monitor answers `EACCES` where it sees the name.
    #[n(2)]
    pub masked: Vec<String>,
}

/// What is known of an opening call from its path alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing to say about it.
    Ordinary,
    /// A secret that is covered.
    Masked,
    /// If it is not there, or not for this program, the call was refused by the sandbox.
    IfAbsent,
    /// If its folder cannot be written to, the call was refused by the sandbox.
    IfReadOnly,
}

/// True for the folder itself and everything in it.
pub(super) fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || folder == "/")
}

impl Watch {
    /// `path` is absolute and normalized.
    #[must_use]
    pub fn judge(&self, path: &str, writes: bool, creates: bool) -> Finding {
        if self.masked.iter().any(|masked| is_below(path, masked)) {
            return Finding::Masked;
        }
        let granted = self.granted.iter().any(|granted| is_below(path, granted));
        if granted || is_below(path, &self.home) || is_below(path, NAME_CACHE) {
            return if writes && granted { Finding::IfReadOnly } else { Finding::Ordinary };
        }
        let top = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        match top {
            "proc" | "dev" | "sys" | "" => Finding::Ordinary,
            // Its own; only a file of the host's that it hoped to find there is missed.
            "tmp" | "run" if creates => Finding::Ordinary,
            top if ORDINARY.contains(&top) => {
                if writes {
                    Finding::IfReadOnly
                } else {
                    Finding::Ordinary
                }
            }
            _ if creates => Finding::IfReadOnly,
            _ => Finding::IfAbsent,
        }
    }

    /// Whether a socket that is not there is worth a name.
    #[must_use]
    pub fn judge_socket(&self, path: &str) -> Finding {
        if is_below(path, NAME_CACHE) || is_below(path, &self.home) {
            Finding::Ordinary
        } else {
            Finding::IfAbsent
        }
    }
}

#[cfg(test)]
mod tests {
    use kit::images::normalize;

    use super::*;

    #[test]
    fn hidden_files_have_names_and_ordinary_searching_has_none() {
        let watch = Watch {
            granted: vec!["/work/repo".to_owned()],
            home: "/home/program".to_owned(),
            masked: vec!["/etc/shadow".to_owned()],
        };
        for (path, writes, creates, expected) in [
            ("/home/alice/canary", false, false, Finding::IfAbsent),
            ("/root/canary", false, false, Finding::IfAbsent),
            ("/work/other", false, false, Finding::IfAbsent),
            ("/work/repository", false, false, Finding::IfAbsent),
            ("/tmp/canary", false, false, Finding::IfAbsent),
            ("/tmp/new", true, true, Finding::Ordinary),
            ("/run/new", true, true, Finding::Ordinary),
            ("/run/docker.sock", true, false, Finding::IfReadOnly),
            ("/home/program/.config", true, true, Finding::Ordinary),
            ("/proc/self/oom_adj", true, false, Finding::Ordinary),
            ("/work/repo", false, false, Finding::Ordinary),
            ("/home/alice/new", true, true, Finding::IfReadOnly),
            ("/work/repo/file", false, false, Finding::Ordinary),
            ("/work/repo/file", true, false, Finding::IfReadOnly),
            ("/home/program/.config", false, false, Finding::Ordinary),
            ("/usr/lib/libnothing.so", false, false, Finding::Ordinary),
            ("/usr/bin/new", true, true, Finding::IfReadOnly),
            ("/etc/ld.so.preload", false, false, Finding::Ordinary),
            ("/etc/shadow", false, false, Finding::Masked),
            ("/etc/shadow2", false, false, Finding::Ordinary),
            ("/var/run/nscd/socket", false, false, Finding::Ordinary),
            ("/sys/kernel/mm", false, false, Finding::Ordinary),
            ("/", false, false, Finding::Ordinary),
        ] {
            assert_eq!(watch.judge(path, writes, creates), expected, "{path} {writes} {creates}");
        }
        assert_eq!(watch.judge_socket("/run/docker.sock"), Finding::IfAbsent);
        assert_eq!(watch.judge_socket("/var/run/nscd/socket"), Finding::Ordinary);
        assert_eq!(watch.judge_socket("/home/program/agent.sock"), Finding::Ordinary);
    }

    #[test]
    fn a_folder_holds_itself_and_what_is_in_it() {
        for (path, folder, expected) in [
            ("/a", "/a", true),
            ("/a/b", "/a", true),
            ("/ab", "/a", false),
            ("/a", "/a/b", false),
            ("/", "/", true),
            ("/a", "/", true),
        ] {
            assert_eq!(is_below(path, folder), expected, "{path} {folder}");
        }
    }

    #[test]
    fn paths_are_normalized_without_leaving_the_root() {
        for (path, expected) in [
            ("/a//b/./c/", "/a/b/c"),
            ("/a/../../b", "/b"),
            ("/", "/"),
            ("", "/"),
            ("/home/x/../y", "/home/y"),
        ] {
            assert_eq!(normalize(path), expected);
        }
    }
}
