//! `run --rootfs`: a folder of the host as a program's root.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use contracts::process_manager::v1 as pb;
use process_manager::core::{NOT_SHOWN, candidates};
use rustix::fs::{OFlags, ResolveFlags};

use super::process::{Program, environment};
use crate::{
    args::Run,
    exit::{Failure, NOT_EXECUTABLE, NOT_FOUND},
};

/// What a program in a root of its own inherits when it is set: `PATH` and the language are the root's.
pub const INHERITED: [&str; 1] = ["TERM"];

/// The folder, and whether it is shown copy-on-write.
pub fn split(text: &str) -> (&str, bool) {
    match text.rsplit_once(':') {
        Some((folder, "cow")) => (folder, true),
        Some((folder, "ro")) => (folder, false),
        _ => (text, false),
    }
}

/// Each name of the folder is shown for itself; what lies in it is looked up there and nowhere else.
pub fn program(text: &str, args: &Run) -> Result<Program> {
    let (folder, copied) = split(text);
    let folder = fs::canonicalize(folder).with_context(|| format!("--rootfs {folder:?}"))?;
    let shown = folder.to_str().with_context(|| format!("{} is not UTF-8", folder.display()))?.to_owned();
    let (paths, links) = entries(&folder, copied)?;
    if paths.is_empty() && links.is_empty() {
        bail!("--rootfs {shown}: the folder is empty, or holds only what the sandbox has of its own");
    }
    let (name, rest) = args.command.split_first().context("no program was named")?;
    let env = environment(&INHERITED, &args.env)?;
    let cwd = args.cwd.clone().unwrap_or_else(|| "/".to_owned());
    let places = candidates(name, &cwd, env.get("PATH").map(String::as_str));
    let (name, file) = find(&folder, name, &places)?;
    let root = pb::Root { links, folder: shown, ..pb::Root::default() };
    Ok(Program { name, args: rest.to_vec(), env, cwd, file: Some(file), paths, root: Some(root) })
}

fn entries(folder: &Path, copied: bool) -> Result<(Vec<pb::PathGrant>, Vec<pb::RootLink>)> {
    let (mut paths, mut links) = (Vec::new(), Vec::new());
    let text = |name: OsString| {
        name.into_string().map_err(|name| anyhow::anyhow!("--rootfs: {name:?} in the folder is not UTF-8"))
    };
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let name = text(entry.file_name())?;
        let kind = entry.file_type()?;
        if NOT_SHOWN.contains(&name.as_str()) {
            continue;
        }
        if kind.is_symlink() {
            let points_to = text(fs::read_link(entry.path())?.into_os_string())?;
            links.push(pb::RootLink { name, points_to });
        } else if kind.is_dir() || kind.is_file() {
            let path = text(entry.path().into_os_string())?;
            let copy_on_write = copied && kind.is_dir();
            paths.push(pb::PathGrant { path, writable: false, inside: format!("/{name}"), copy_on_write });
        }
    }
    paths.sort_by(|one, other| one.inside.cmp(&other.inside));
    links.sort_by(|one, other| one.name.cmp(&other.name));
    Ok((paths, links))
}

/// As a shell would find it that has the folder as its root: where it is called, and where it is.
fn find(folder: &Path, wanted: &str, places: &[String]) -> Result<(String, PathBuf)> {
    let root = fs::File::open(folder).with_context(|| format!("opening {}", folder.display()))?;
    let mut code = NOT_FOUND;
    for place in places {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let Ok(found) = sandbox::open_within(&root, place.as_str(), OFlags::PATH, resolve) else {
            continue;
        };
        let number = std::os::fd::AsRawFd::as_raw_fd(&found);
        let file = fs::read_link(format!("/proc/self/fd/{number}")).context("where the program lies")?;
        if super::process::is_program(&file) {
            return Ok((place.clone(), file));
        }
        code = NOT_EXECUTABLE;
    }
    let what = if code == NOT_FOUND { "not found" } else { "is not an executable file" };
    Err(Failure::new(code, format!("{wanted}: {what} in {}", folder.display())).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_can_say_how_it_is_shown() {
        assert_eq!(split("/a"), ("/a", false));
        assert_eq!(split("/a:ro"), ("/a", false));
        assert_eq!(split("/a:cow"), ("/a", true));
        assert_eq!(split("/a:b"), ("/a:b", false));
    }

    #[test]
    fn links_of_a_root_lead_nowhere_but_into_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir(root.join("proc")).unwrap();
        fs::copy("/bin/true", root.join("usr/bin/app")).unwrap();
        fs::write(root.join("usr/bin/text"), "").unwrap();
        std::os::unix::fs::symlink("/usr/bin", root.join("bin")).unwrap();
        std::os::unix::fs::symlink("../../../usr/bin/app", root.join("usr/bin/other")).unwrap();
        let (paths, links) = entries(&root, true).unwrap();
        assert_eq!((paths.len(), links.len()), (1, 1), "without /proc");
        assert!(paths[0].copy_on_write && paths[0].inside == "/usr");
        let place = |name: &str| find(&root, name, &candidates(name, "/", Some("/bin"))).map(|it| it.1).ok();
        let is = root.join("usr/bin/app");
        for name in ["app", "/bin/app", "/bin/other", "bin/app"] {
            assert_eq!(place(name).as_ref(), Some(&is), "{name}");
        }
        assert_eq!(place("text"), None);
        assert_eq!(place("/bin/sh"), None, "the host's is not found");
    }
}
