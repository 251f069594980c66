//! Makes one socket: its address taken, its file with the mode and owner that the manifest names, and listening.
//!
//! Errors are whole sentences: they are what `service apply` shows.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    net::SocketAddr,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, openat, statat, unlinkat},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt},
};

use super::super::plans::{find_way, ids_of, make_way};
use crate::manifest::{ListenAddress, Octal, SocketConfig};

/// User and group that a socket's file is given to.
pub(super) type Owner = Option<(u32, u32)>;

/// Who the file belongs to; nobody but the node's own user without privileges.
pub(super) fn owner(socket: &SocketConfig, own_uid: u32, privileged: bool) -> Result<Owner, String> {
    let Some(text) = &socket.user else { return Ok(None) };
    let (uid, gid) = ids_of(text).map_err(|error| error.to_string())?;
    if privileged {
        return Ok(Some((uid, gid)));
    }
    if uid != own_uid {
        return Err(format!("only a node that runs as root gives a socket to {text:?}; leave `user` out"));
    }
    Ok(None)
}

/// `hidden` are folders in which nothing may be bound.
pub(super) fn bind(socket: &SocketConfig, owner: Owner, hidden: &[String]) -> Result<OwnedFd, String> {
    match &socket.listen {
        ListenAddress::Tcp(address) => {
            let fd = internet(*address, SocketType::STREAM).map_err(|error| explain(error, address))?;
            listen(&fd, socket)?;
            Ok(fd)
        }
        ListenAddress::Udp(address) => {
            internet(*address, SocketType::DGRAM).map_err(|error| explain(error, address))
        }
        ListenAddress::Unix(path) => unix(socket, path, SocketType::STREAM, owner, hidden),
        ListenAddress::UnixDatagram(path) => unix(socket, path, SocketType::DGRAM, owner, hidden),
    }
}

/// What a changed manifest can change of a socket that stays.
pub(super) fn adjust(fd: &OwnedFd, socket: &SocketConfig, owner: Owner) -> Result<(), String> {
    if let Some(path) = socket.listen.path() {
        let (folder, name) = place(Path::new(path), find_way)?;
        dress(&folder, name, socket.mode, owner)?;
    }
    match socket.listen {
        ListenAddress::Tcp(_) | ListenAddress::Unix(_) => listen(fd, socket),
        ListenAddress::Udp(_) | ListenAddress::UnixDatagram(_) => Ok(()),
    }
}

pub(super) fn remove_file(address: &ListenAddress) {
    let Some(path) = address.path() else { return };
    let Ok((folder, name)) = place(Path::new(path), find_way) else { return };
    // Somebody may have put something else there.
    if is_socket(&folder, name) == Ok(true) {
        let _ = unlinkat(&folder, name, AtFlags::empty());
    }
}

/// The folder that a socket's file stands in, as a handle, and the file's name. Parts of the path may be a program's to
/// change: no link in it is followed, and what is done to the file is done through the handle.
fn place(path: &Path, way: impl Fn(&Path) -> io::Result<OwnedFd>) -> Result<(OwnedFd, &OsStr), String> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(format!("{} names no file", path.display()));
    };
    let folder = way(parent).map_err(|error| {
        format!("the folder {}: {error}; name the folder itself, not a link to it", parent.display())
    })?;
    Ok((folder, name))
}

fn is_socket(folder: &OwnedFd, name: &OsStr) -> Result<bool, Errno> {
    let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::Socket)
}

fn listen(fd: &OwnedFd, socket: &SocketConfig) -> Result<(), String> {
    let backlog = i32::try_from(socket.backlog).unwrap_or(i32::MAX);
    rustix::net::listen(fd, backlog).map_err(|error| explain(error, &socket.listen))
}

fn internet(address: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if kind == SocketType::STREAM {
        // Connections of an earlier life that the kernel still winds up take no address away.
        sockopt::set_socket_reuseaddr(&fd, true)?;
    }
    if family == AddressFamily::INET6 {
        // `[::]` is both families, whatever the host's default is.
        sockopt::set_ipv6_v6only(&fd, false)?;
    }
    rustix::net::bind(&fd, &address)?;
    Ok(fd)
}

fn explain(error: Errno, address: &impl std::fmt::Display) -> String {
    match error {
        Errno::ADDRINUSE => {
            "the address is in use; `ss -lnptu` shows by whom. Stop that, or name another address".to_owned()
        }
        Errno::ACCESS => "this node may not bind it: ports below net.ipv4.ip_unprivileged_port_start (usually 1024) need a node that runs as root".to_owned(),
        Errno::ADDRNOTAVAIL => "this host has no such address; `ip address` shows those that it has".to_owned(),
        Errno::AFNOSUPPORT => "this host has no such network protocol".to_owned(),
        other => format!("binding {address}: {}", io::Error::from(other)),
    }
}

fn unix(
    socket: &SocketConfig,
    path: &str,
    kind: SocketType,
    owner: Owner,
    hidden: &[String],
) -> Result<OwnedFd, String> {
    let path = Path::new(path);
    let (folder, name) = prepare_place(path, hidden)?;
    let make = || -> Result<OwnedFd, Errno> {
        let fd = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        // The file is born with it, so there is no moment in which others may do more with it.
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o600))?;
        rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
        Ok(fd)
    };
    let fd = make().map_err(|error| format!("binding {}: {}", path.display(), io::Error::from(error)))?;
    // By its name, which is what clients and `ss` are shown; if a part of the path was exchanged meanwhile, the file is
    // not where it should be.
    if is_socket(&folder, name) != Ok(true) {
        return Err(format!(
            "{} is not where it was bound: its folder was exchanged; try again",
            path.display()
        ));
    }
    let ready = dress(&folder, name, socket.mode, owner).and_then(|()| match kind {
        SocketType::STREAM => listen(&fd, socket),
        _ => Ok(()),
    });
    match ready {
        Ok(()) => Ok(fd),
        Err(why) => {
            remove_file(&socket.listen);
            Err(why)
        }
    }
}

/// Makes the folders above, and removes the file of a socket that nobody holds any more.
fn prepare_place<'p>(path: &'p Path, hidden: &[String]) -> Result<(OwnedFd, &'p OsStr), String> {
    refuse_hidden(path.parent().unwrap_or(Path::new("/")), hidden)?;
    let (folder, name) = place(path, make_way)?;
    match is_socket(&folder, name) {
        Err(Errno::NOENT) => return Ok((folder, name)),
        Err(error) => return Err(format!("{}: {}", path.display(), io::Error::from(error))),
        Ok(false) => {
            return Err(format!(
                "{} is there and is no socket; remove it or name another path",
                path.display()
            ));
        }
        Ok(true) => {}
    }
    if is_held(path) {
        return Err("another process listens there; `ss -lxp` shows which".to_owned());
    }
    unlinkat(&folder, name, AtFlags::empty())
        .map_err(|error| format!("removing the old socket {}: {}", path.display(), io::Error::from(error)))?;
    Ok((folder, name))
}

fn refuse_hidden(folder: &Path, hidden: &[String]) -> Result<(), String> {
    let real = |path: &str| std::fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
    let is_own = |own: &String| folder.starts_with(own) || folder.starts_with(real(own));
    if hidden.iter().any(is_own) {
        return Err(format!("{} is the node's own; name another folder", folder.display()));
    }
    Ok(())
}

/// Nobody is there if a connection of either kind is refused; of the wrong kind, the answer is that the kinds differ.
fn is_held(path: &Path) -> bool {
    // Without waiting: a full queue is somebody's.
    let refused = |kind| -> Result<bool, Errno> {
        let client =
            socket_with(AddressFamily::UNIX, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
        Ok(connect(&client, &SocketAddrUnix::new(path)?) == Err(Errno::CONNREFUSED))
    };
    let is_refused = |kind| refused(kind).unwrap_or(false);
    !is_refused(SocketType::STREAM) && !is_refused(SocketType::DGRAM)
}

/// Mode and owner, of the file itself whatever its name may have become.
fn dress(folder: &OwnedFd, name: &OsStr, mode: Octal, owner: Owner) -> Result<(), String> {
    let dressed = || -> Result<(), io::Error> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(folder, name, flags, Mode::empty())?);
        if !file.metadata()?.file_type().is_socket() {
            return Err(io::Error::other("it is no socket any more"));
        }
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(&file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        }
        let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
        std::fs::set_permissions(by_number, PermissionsExt::from_mode(mode.0))
    };
    let shown = name.to_string_lossy();
    dressed().map_err(|error| format!("setting mode and owner of the socket {shown}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{
        fs::MetadataExt,
        net::{UnixDatagram, UnixStream},
    };

    fn socket(listen: &str, more: &str) -> SocketConfig {
        toml::from_str(&format!("name = \"s\"\nlisten = \"{listen}\"\n{more}")).unwrap()
    }

    #[test]
    fn an_address_in_use_and_one_that_is_not_ours_are_told_apart() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken_too = socket(&format!("tcp:{}", taken.local_addr().unwrap()), "");
        assert!(bind(&taken_too, None, &[]).unwrap_err().contains("in use"));
        let foreign = socket("tcp:192.0.2.1:9999", "");
        assert!(bind(&foreign, None, &[]).unwrap_err().contains("no such address"));
        assert!(explain(Errno::ACCESS, &"x").contains("ip_unprivileged_port_start"));
    }

    #[test]
    fn the_file_of_a_unix_socket_has_its_mode_and_an_old_one_gives_way() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/s.sock");
        let config = socket(&format!("unix:{}", path.display()), "mode = \"0620\"\n");
        let bound = bind(&config, None, &[]).unwrap();
        let of = |path: &Path| std::fs::metadata(path).unwrap();
        assert_eq!(of(&path).permissions().mode() & 0o7777, 0o620);
        let inode = of(&path).ino();
        assert!(bind(&config, None, &[]).unwrap_err().contains("another process listens"));
        let changed = socket(&format!("unix:{}", path.display()), "mode = \"0600\"\nbacklog = 1\n");
        adjust(&bound, &changed, None).unwrap();
        assert_eq!((of(&path).ino(), of(&path).permissions().mode() & 0o777), (inode, 0o600));
        UnixStream::connect(&path).unwrap();
        drop(bound);
        let again = bind(&config, None, &[]).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(again);
        remove_file(&config.listen);
        assert!(!path.exists());
        let datagrams = socket(&format!("unix-dgram:{}", path.display()), "");
        let bound = bind(&datagrams, None, &[]).unwrap();
        assert!(bind(&datagrams, None, &[]).is_err(), "somebody reads there");
        UnixDatagram::unbound().unwrap().send_to(b"x", &path).unwrap();
        drop(bound);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(bind(&config, None, &[]).unwrap_err().contains("is no socket"));
        remove_file(&config.listen);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn nothing_is_bound_in_the_nodes_own_folders() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("state");
        std::fs::create_dir(&own).unwrap();
        std::os::unix::fs::symlink(&own, root.path().join("link")).unwrap();
        let hidden = [own.to_str().unwrap().to_owned()];
        for (place, why) in [
            ("state/s.sock", "the node's own"),
            ("state/deep/s.sock", "the node's own"),
            ("link/s.sock", "is a link"),
        ] {
            let config = socket(&format!("unix:{}", root.path().join(place).display()), "");
            let error = bind(&config, None, &hidden).unwrap_err();
            assert!(error.contains(why), "{place}: {error}");
        }
        let beside = socket(&format!("unix:{}", root.path().join("s.sock").display()), "");
        assert!(bind(&beside, None, &hidden).is_ok());
    }

    /// What a program may write above its socket must not lead root elsewhere: not when it is bound, nor at its end.
    #[test]
    fn no_link_above_a_socket_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let (of_root, own) = (root.path().join("etc"), root.path().join("own"));
        std::fs::create_dir(&of_root).unwrap();
        std::fs::create_dir(&own).unwrap();
        std::os::unix::fs::symlink(&of_root, own.join("run")).unwrap();
        let config = socket(&format!("unix:{}/run/s.sock", own.display()), "");
        let error = bind(&config, None, &[]).unwrap_err();
        assert!(error.contains("run in it is a link") && error.contains("name the folder itself"), "{error}");
        let deep = socket(&format!("unix:{}/run/deep/s.sock", own.display()), "");
        assert!(bind(&deep, None, &[]).is_err());
        assert_eq!(std::fs::read_dir(&of_root).unwrap().count(), 0, "nothing was made behind it");
        // A folder that becomes a link later takes no other socket with it.
        std::fs::remove_file(own.join("run")).unwrap();
        let bound = bind(&config, None, &[]).unwrap();
        std::fs::rename(own.join("run"), own.join("before")).unwrap();
        std::os::unix::fs::symlink(&of_root, own.join("run")).unwrap();
        let _of_another = std::os::unix::net::UnixListener::bind(of_root.join("s.sock")).unwrap();
        assert!(adjust(&bound, &config, None).is_err());
        remove_file(&config.listen);
        assert!(of_root.join("s.sock").exists());
    }

    #[test]
    fn only_root_gives_a_socket_away() {
        let config = socket("unix:/run/x", "user = \"4711\"\n");
        assert_eq!(owner(&config, 0, true), Ok(Some((4711, 4711))));
        assert!(owner(&config, 1000, false).unwrap_err().contains("runs as root"));
        assert_eq!(owner(&config, 4711, false), Ok(None));
    }
}
