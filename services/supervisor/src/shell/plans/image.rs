//! A service in a container image: what the image brings with it, where the manifest is silent, and what is shown of it.
//!
//! The files are those that `bailiwick run` has too, shown read-only: they are another user's on the host, so that a service could
//! change none of them anyway. What it writes goes to `/tmp`, `/run`, its own folder and what its manifest gives it.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base::{TreeId, cbor};
use kit::images::{self, Content, Kind, RECORD_BYTES_MAX, Reference, Tree};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};
use sandbox::Mount;
use thiserror::Error;

use super::{House, bind};
use crate::manifest::ProgramConfig;

#[derive(Debug, Error)]
pub(in crate::shell) enum ImageFault {
    #[error("its image {0} has no id: `bailiwick service apply FILE` gives it one")]
    Unfixed(Reference),
    #[error(
        "image {tree} is not in this node's store ({source}); import it again (`bailiwick image import`), or apply another"
    )]
    Absent { tree: TreeId, source: io::Error },
    #[error(
        "what is known of image {tree} cannot be used: {text}; import it again (`bailiwick image import`)"
    )]
    Record { tree: TreeId, text: String },
    #[error("image {0} names no program: give program.entrypoint or program.args")]
    NoCommand(TreeId),
    #[error("there is no program {name:?} in image {tree}: {errno}")]
    NoProgram { name: String, tree: TreeId, errno: Errno },
    #[error(
        "image {tree} has no {path} over which something of the host could be shown; a folder or file of the host is shown \
         where the image has one, or below /run and /tmp"
    )]
    NoPlace { tree: TreeId, path: String },
}

/// An image that a service runs in.
#[derive(Debug)]
pub(super) struct ServiceImage {
    tree: TreeId,
    content: Content,
    /// Of the host.
    folder: PathBuf,
}

/// The program of a service.
#[derive(Debug)]
pub(super) struct Entry {
    /// Inside.
    pub(super) path: String,
    /// Its own name first.
    pub(super) words: Vec<String>,
    pub(super) file: File,
}

impl House {
    /// None for a program of the host.
    pub(super) fn service_image(&self, program: &ProgramConfig) -> Result<Option<ServiceImage>, ImageFault> {
        let Some(reference) = program.container() else { return Ok(None) };
        let tree = reference.digest.ok_or(ImageFault::Unfixed(reference))?;
        let absent = |source| ImageFault::Absent { tree, source };
        let record = read_record(&images::record_file(&self.layout, tree)).map_err(absent)?;
        let invalid = |text: String| ImageFault::Record { tree, text };
        let record: Tree = cbor::decode(&record).map_err(|error| invalid(error.to_string()))?;
        // Written by another service: believed no more than it believes what it unpacks.
        record.check().map_err(invalid)?;
        if record.id != tree {
            return Err(invalid(format!("it is of {}", record.id)));
        }
        let folder = images::tree_folder(&self.layout.images(), tree);
        match folder.symlink_metadata() {
            Ok(data) if data.is_dir() => {
                record.content.check_top(&folder).map_err(invalid)?;
                Ok(Some(ServiceImage { tree, content: record.content, folder }))
            }
            Ok(_) => Err(invalid("its files are no folder".to_owned())),
            Err(error) => Err(absent(error)),
        }
    }
}

/// A regular file, opened without waiting and through no link, of a bounded size.
fn read_record(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    let is_file = file.metadata()?.is_file();
    if !is_file || file.take(RECORD_BYTES_MAX + 1).read_to_end(&mut bytes)? as u64 > RECORD_BYTES_MAX {
        return Err(io::Error::other(format!("its record is no file of at most {RECORD_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

impl ServiceImage {
    /// Ids inside, as the image wants them.
    pub(super) fn user(&self) -> (u32, u32) {
        (self.content.uid, self.content.gid)
    }

    pub(super) fn working_directory(&self) -> &str {
        if self.content.working_dir.starts_with('/') { &self.content.working_dir } else { "/" }
    }

    /// Variables of its configuration; what is none is passed over, as others do.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.content.env.iter().filter_map(|line| line.split_once('='));
        all.filter(|(name, value)| !name.is_empty() && !name.contains('\0') && !value.contains('\0'))
    }

    /// What runs, as compose and podman have it: words of the manifest replace the image's, an entry point its command too.
    pub(super) fn entry(&self, program: &ProgramConfig) -> Result<Entry, ImageFault> {
        let own = program.entrypoint.is_empty();
        let first = if own { &self.content.entrypoint } else { &program.entrypoint };
        let rest = if own && program.args.is_empty() { &self.content.cmd } else { &program.args };
        let words: Vec<String> = first.iter().chain(rest).cloned().collect();
        let name = words.first().ok_or(ImageFault::NoCommand(self.tree))?;
        let cwd = program.cwd.as_deref().unwrap_or_else(|| self.working_directory());
        let of_image = || self.variables().find(|(name, _)| *name == "PATH").map(|(_, value)| value);
        let path = program.env.get("PATH").map(String::as_str).or_else(of_image);
        let mut last = Errno::NOENT;
        for place in images::candidates(name, cwd, path) {
            match self.open(&place, OFlags::RDONLY) {
                Ok(file) if is_program(&file) => return Ok(Entry { path: place, words, file }),
                Ok(_) => last = Errno::ACCESS,
                Err(errno) if last != Errno::ACCESS => last = errno,
                Err(_) => {}
            }
        }
        Err(ImageFault::NoProgram { name: name.clone(), tree: self.tree, errno: last })
    }

    /// What is at a path of its own. Links lead nowhere but into the image.
    fn open(&self, path: &str, flags: OFlags) -> Result<File, Errno> {
        let root = rustix::fs::open(
            &self.folder,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let flags = flags | OFlags::NONBLOCK;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        sandbox::open_within(root, path, flags, inside).map(File::from)
    }

    #[must_use]
    pub(super) fn has(&self, path: &str) -> bool {
        self.open(path, OFlags::PATH).is_ok()
    }

    /// Nothing can be mounted where a read-only image has nothing.
    pub(super) fn check_place(&self, path: &str) -> Result<(), ImageFault> {
        let top = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        // In the top, and where the sandbox has something of its own, a place is made.
        let has_none = !self.content.top.iter().any(|entry| entry.name == top);
        if has_none || self.has(path) {
            return Ok(());
        }
        Err(ImageFault::NoPlace { tree: self.tree, path: path.to_owned() })
    }

    /// Read-only, name by name, so that `/proc`, `/dev`, `/tmp` and `/run` need no place in it.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        let show = |entry: &images::Top| {
            let target = format!("/{}", entry.name);
            match &entry.kind {
                Kind::Link(points_to) => Mount::Symlink { target, points_to: points_to.clone() },
                Kind::Folder | Kind::File => bind(&self.folder.join(&entry.name), &target, false),
            }
        };
        self.content.top.iter().map(show).collect()
    }
}

fn is_program(file: &File) -> bool {
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use base::layout::Layout;
    use kit::images::Top;
    use sandbox::Executable;

    use super::*;
    use crate::{manifest::ServiceManifest, shell::plans::program::ProgramFault};

    const TREE: TreeId = TreeId([0xab; 32]);

    /// An image in the store of a node: a program behind two links, and a configuration.
    fn stored(root: &Path, change: impl FnOnce(&mut Tree)) -> House {
        let house = super::super::tests::house(root, false);
        let layout = Layout::under(root).unwrap();
        let folder = images::tree_folder(&layout.images(), TREE);
        std::fs::create_dir_all(folder.join("usr/bin")).unwrap();
        std::fs::create_dir_all(folder.join("srv/data")).unwrap();
        std::fs::write(folder.join("usr/bin/real"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(folder.join("usr/bin/real"), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(folder.join("usr/bin/text"), "x").unwrap();
        symlink("real", folder.join("usr/bin/app")).unwrap();
        symlink("/etc/passwd", folder.join("usr/bin/out")).unwrap();
        symlink("usr/bin", folder.join("bin")).unwrap();
        let top = [("usr", Kind::Folder), ("srv", Kind::Folder), ("bin", Kind::Link("usr/bin".to_owned()))];
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let mut tree = Tree {
            id: TREE,
            content: Content {
                entrypoint: words(&["app", "-v"]),
                cmd: words(&["serve"]),
                env: words(&["PATH=/bin", "COLOUR=red", "none"]),
                working_dir: "/srv".to_owned(),
                uid: 101,
                gid: 102,
                top: top.map(|(name, kind)| Top { name: name.to_owned(), kind }).to_vec(),
                ..Content::default()
            },
        };
        change(&mut tree);
        let record = images::record_file(&layout, TREE);
        std::fs::create_dir_all(record.parent().unwrap()).unwrap();
        std::fs::write(record, cbor::encode(&tree)).unwrap();
        house
    }

    fn manifest(program: &str) -> ServiceManifest {
        let text = format!(
            "version = 1\n[service]\nname = \"mine\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n[program]\nimage = \"web@{TREE}\"\n{program}\n"
        );
        crate::manifest::parse("test", &text).unwrap().manifest
    }

    #[test]
    fn where_the_manifest_is_silent_the_image_speaks() {
        let root = tempfile::tempdir().unwrap();
        let house = stored(root.path(), |_| {});
        let plan_of = |program: &str| {
            let order = house.program(&manifest(program), &[], &[]).unwrap();
            order.plan.validate(order.fds.len()).unwrap();
            order.plan
        };
        let silent = plan_of("");
        assert_eq!(silent.arguments, ["app", "-v", "serve"]);
        assert_eq!(silent.executable, Executable::Path("/bin/app".to_owned()));
        assert_eq!((silent.identity.uid, silent.identity.gid), (101, 102));
        assert_eq!(silent.working_directory, "/srv");
        let has = |plan: &sandbox::Plan, name: &str, value: &str| {
            plan.environment.contains(&(name.to_owned(), value.to_owned()))
        };
        assert!(has(&silent, "PATH", "/bin") && has(&silent, "COLOUR", "red"));
        let said = plan_of(
            "entrypoint = [\"/usr/bin/real\"]\nargs = [\"now\"]\ncwd = \"/\"\nenv = { COLOUR = \"blue\" }",
        );
        assert_eq!(said.arguments, ["/usr/bin/real", "now"]);
        assert_eq!(said.working_directory, "/");
        assert!(has(&said, "COLOUR", "blue") && !has(&said, "COLOUR", "red"));
        assert_eq!(plan_of("args = [\"now\"]").arguments, ["app", "-v", "now"]);
    }

    #[test]
    fn nothing_of_the_hosts_system_is_shown_and_nothing_of_the_image_is_writable() {
        let root = tempfile::tempdir().unwrap();
        let plan = stored(root.path(), |_| {}).program(&manifest(""), &[], &[]).unwrap().plan;
        let folder = images::tree_folder(&Layout::under(root.path()).unwrap().images(), TREE);
        let mut of_image = 0;
        for mount in &plan.mounts {
            if let Mount::Bind { source, target, writable, .. } = mount
                && (target == "/usr" || target == "/srv" || target.starts_with("/etc"))
            {
                assert!(Path::new(source).starts_with(&folder) && !writable, "{mount:?}");
                of_image += 1;
            }
        }
        assert_eq!(of_image, 2);
        let link = Mount::Symlink { target: "/bin".to_owned(), points_to: "usr/bin".to_owned() };
        assert!(plan.mounts.contains(&link));
    }

    #[test]
    fn what_cannot_run_is_refused_by_name() {
        let refused = |program: &str, change: fn(&mut Tree)| {
            let root = tempfile::tempdir().unwrap();
            let house = stored(root.path(), change);
            match house.program(&manifest(program), &[], &[]) {
                Err(ProgramFault::ServiceImage(fault)) => fault,
                other => panic!("{other:?}"),
            }
        };
        let none = |program: &str| refused(program, |_| {});
        // A link leads into the image, whatever it says.
        assert!(matches!(none("entrypoint = [\"out\"]"), ImageFault::NoProgram { errno: Errno::NOENT, .. }));
        assert!(matches!(
            none("entrypoint = [\"text\"]"),
            ImageFault::NoProgram { errno: Errno::ACCESS, .. }
        ));
        assert!(matches!(
            none("folders = [{ path = \"/var/lib/x\" }]\nfs = [\"/srv/none\"]"),
            ImageFault::NoPlace { path, .. } if path == "/srv/none"
        ));
        let bare = refused("", |tree| (tree.content.entrypoint, tree.content.cmd) = Default::default());
        assert!(matches!(bare, ImageFault::NoCommand(_)));
        let climbing = refused("", |tree| tree.content.top[0].name = "..".to_owned());
        assert!(matches!(climbing, ImageFault::Record { .. }));
        let other = refused("", |tree| tree.id = TreeId([1; 32]));
        assert!(matches!(other, ImageFault::Record { .. }));
        // On disk it is a link, which would be followed.
        let link = refused("", |tree| tree.content.top[2].kind = Kind::Folder);
        assert!(matches!(link, ImageFault::Record { .. }), "{link}");
    }

    #[test]
    fn an_image_that_is_not_there_is_named() {
        let root = tempfile::tempdir().unwrap();
        let house = stored(root.path(), |_| {});
        let record = images::record_file(&house.layout, TREE);
        let file = File::options().write(true).open(&record).unwrap();
        file.set_len(RECORD_BYTES_MAX + 1).unwrap();
        let asked = |house: &House| house.program(&manifest(""), &[], &[]).unwrap_err().to_string();
        assert!(asked(&house).contains("no file of at most"), "{}", asked(&house));
        std::fs::remove_file(record).unwrap();
        assert!(asked(&house).contains(&format!("image {TREE} is not in this node's store")));
    }
}
