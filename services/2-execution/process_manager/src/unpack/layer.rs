//! One layer over those before it.
//!
//! A layer is read twice: first for its digest and for what it takes away, then for what it brings. So nothing is made of
//! a layer that is not the one which was named, and what it takes away never hits what it brings itself, whatever the
//! order in the archive.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fchmod, futimens, linkat,
        mkdirat, openat, statat, symlinkat,
    },
    io::Errno,
};

use super::{
    Content, DEPTH_MAX, PATH_BYTES_MAX, UNPACKED_BYTES_MAX,
    archive::{Blob, Stored, same},
    read::{Bounded, Hashing, decompressed},
    refuse,
};
use crate::layer::remove;

const WHITEOUT: &[u8] = b".wh.";
/// Of the whole folder; others that begin so are the business of a file system of old.
const OPAQUE: &[u8] = b".wh..wh..opq";
const OF_AUFS: &[u8] = b".wh..wh.";
const SET_ID: u32 = 0o6000;
const PERMISSIONS: u32 = 0o1777;
/// The owner is one and has to look inside.
const FOLDER_LEAST: u32 = 0o700;
const FILE_LEAST: u32 = 0o400;

/// What was made of the layers so far.
pub(super) struct Unpacked<'a> {
    root: &'a OwnedFd,
    bytes_left: u64,
    /// Of what counts towards the limit: what an archive makes this process do, whether or not a name comes of it.
    counted: u64,
    counted_max: u64,
    entries: u64,
    size_bytes: u64,
    left_out: u64,
    set_id: u64,
}

impl<'a> Unpacked<'a> {
    pub(super) fn new(root: &'a OwnedFd, counted_max: u64) -> Self {
        Self {
            root,
            bytes_left: UNPACKED_BYTES_MAX,
            counted: 0,
            counted_max,
            entries: 0,
            size_bytes: 0,
            left_out: 0,
            set_id: 0,
        }
    }

    fn count(&mut self) -> io::Result<()> {
        self.counted += 1;
        match self.counted > self.counted_max {
            true => Err(refuse(format!(
                "the image has more than {} entries and folders without one",
                self.counted_max
            ))),
            false => Ok(()),
        }
    }

    pub(super) fn tell(&self, content: &mut Content) {
        content.entries = self.entries;
        content.size_bytes = self.size_bytes;
        content.left_out = self.left_out;
        content.set_id = self.set_id;
    }

    pub(super) fn layer(&mut self, stored: &Stored, blob: &Blob) -> io::Result<()> {
        if let Some(digest) = blob.digest {
            same(&blob.path, digest, Hashing::new(stored.open(&blob.path)?.0).finish()?)?;
        }
        let open = |left| {
            let file = decompressed(stored.open(&blob.path)?.0)?;
            io::Result::Ok(Bounded::new(file, left, "what is left for this layer"))
        };
        if let Some(digest) = blob.unpacked {
            same("what it unpacks to", digest, Hashing::new(open(self.bytes_left)?).finish()?)?;
        }
        for entry in tar::Archive::new(open(self.bytes_left)?).entries()? {
            // Once for both readings; empty ones are work too.
            self.count()?;
            self.take_away(&entry?)?;
        }
        let mut archive = tar::Archive::new(open(self.bytes_left)?);
        let mut bytes = 0_u64;
        for entry in archive.entries()? {
            let mut entry = entry?;
            bytes = bytes.saturating_add(entry.size());
            self.bring(&mut entry)?;
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        Ok(())
    }

    fn take_away<R: Read>(&mut self, entry: &tar::Entry<'_, R>) -> io::Result<()> {
        let path = entry.path_bytes();
        let parts = parts(&path)?;
        let Some((name, folder)) = parts.split_last() else { return Ok(()) };
        if !name.starts_with(WHITEOUT) || (name.starts_with(OF_AUFS) && *name != OPAQUE) {
            return Ok(());
        }
        let gone = name.get(WHITEOUT.len()..).unwrap_or_default();
        if gone.is_empty() || gone == b"." || gone == b".." {
            return Err(refuse(format!("{:?} takes nothing away", shown(&path))));
        }
        // What is not there need not go.
        match self.folder(folder, false)? {
            Some(folder) if *name == OPAQUE => remove::everything(&folder),
            Some(folder) => remove::one(&folder, gone),
            None => Ok(()),
        }
    }

    fn bring<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
        let path = entry.path_bytes().into_owned();
        let wrong = |error: io::Error| io::Error::new(error.kind(), format!("{:?}: {error}", shown(&path)));
        self.bring_one(entry, &path).map_err(wrong)
    }

    fn bring_one<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, path: &[u8]) -> io::Result<()> {
        let parts = parts(path)?;
        let kind = entry.header().entry_type();
        let mode = entry.header().mode()?;
        let Some((name, folder)) = parts.split_last() else {
            // `./`, the top itself: of it only its permissions could be taken, and they are ours.
            return Ok(());
        };
        if name.starts_with(WHITEOUT) || kind == tar::EntryType::XGlobalHeader {
            return Ok(());
        }
        self.entries += 1;
        if is_sparse(entry)? {
            return Err(refuse("is a sparse file of a form that images do not have"));
        }
        let lacks = || refuse("its folder cannot be made");
        let folder = self.folder(folder, true)?.ok_or_else(lacks)?;
        match kind {
            tar::EntryType::Directory => make_folder(&folder, name, mode),
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                self.set_id += u64::from(mode & SET_ID != 0);
                remove::one(&folder, name)?;
                self.size_bytes += make_file(&folder, name, mode, entry)?;
                Ok(())
            }
            tar::EntryType::Symlink => {
                let target = link_target(entry)?;
                if target.is_empty() || target.len() > PATH_BYTES_MAX {
                    return Err(refuse("points to nothing, or to a name that is too long"));
                }
                remove::one(&folder, name)?;
                Ok(symlinkat(target.as_slice(), &folder, *name)?)
            }
            tar::EntryType::Link => self.link(&folder, name, &link_target(entry)?),
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
                self.left_out += 1;
                Ok(())
            }
            other => Err(refuse(format!("is {other:?}, which no layer has"))),
        }
    }

    /// A second name of a file that is there already.
    fn link(&mut self, folder: &OwnedFd, name: &[u8], target: &[u8]) -> io::Result<()> {
        let parts = parts(target)?;
        let missing = || refuse(format!("is a second name of {:?}, which is not there", shown(target)));
        let (last, above) = parts.split_last().ok_or_else(missing)?;
        let source = self.folder(above, false)?.ok_or_else(missing)?;
        let stat = statat(&source, *last, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing())?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Symlink => {}
            _ => return Err(refuse(format!("is a second name of {:?}, which is no file", shown(target)))),
        }
        if let Ok(there) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
            && (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)
        {
            return Ok(());
        }
        remove::one(folder, name)?;
        Ok(linkat(&source, *last, folder, name, AtFlags::empty())?)
    }

    /// A folder of the image. Links on the way are followed as the image means them: its top is their root.
    fn folder(&mut self, parts: &[&[u8]], make: bool) -> io::Result<Option<OwnedFd>> {
        if parts.is_empty() {
            return Ok(Some(self.root.try_clone()?));
        }
        match open_inside(self.root, &parts.join(&b'/')) {
            Ok(folder) => return Ok(Some(folder)),
            Err(Errno::NOENT | Errno::NOTDIR) if !make => return Ok(None),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let mut folder = self.root.try_clone()?;
        for end in 1..=parts.len() {
            let above = parts.get(..end).unwrap_or_default();
            folder = match open_inside(self.root, &above.join(&b'/')) {
                Ok(found) => found,
                Err(Errno::NOENT) => {
                    self.count()?;
                    make_folder(&folder, above.last().copied().unwrap_or_default(), 0o755)?;
                    open_inside(self.root, &above.join(&b'/'))?
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(Some(folder))
    }
}

/// Of a path in an archive: relative, without `..`, not too long or deep.
pub(super) fn parts(path: &[u8]) -> io::Result<Vec<&[u8]>> {
    if path.len() > PATH_BYTES_MAX {
        return Err(refuse(format!("a name has {} bytes, more than {PATH_BYTES_MAX}", path.len())));
    }
    if path.starts_with(b"/") || path.contains(&0) {
        return Err(refuse(format!("{:?} is not a name below the top", shown(path))));
    }
    let parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&b"..".as_slice()) {
        return Err(refuse(format!("{:?} leads out with `..`", shown(path))));
    }
    if parts.len() > DEPTH_MAX {
        return Err(refuse(format!("a name is {} folders deep, more than {DEPTH_MAX}", parts.len())));
    }
    Ok(parts)
}

fn shown(path: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 200;
    String::from_utf8_lossy(path.get(..SHOWN_BYTES_MAX).unwrap_or(path)).into_owned()
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<Vec<u8>> {
    let target = entry.link_name_bytes().ok_or_else(|| refuse("is a link without a target"))?;
    Ok(target.into_owned())
}

fn is_sparse<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<bool> {
    if entry.header().entry_type() == tar::EntryType::GNUSparse {
        return Ok(true);
    }
    let Some(extensions) = entry.pax_extensions()? else { return Ok(false) };
    for extension in extensions {
        if extension?.key_bytes().starts_with(b"GNU.sparse") {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn open_inside(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    sandbox::open_within(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

fn make_folder(folder: &OwnedFd, name: &[u8], mode: u32) -> io::Result<()> {
    match mkdirat(folder, name, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                remove::one(folder, name)?;
                mkdirat(folder, name, Mode::RWXU)?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(folder, name, flags, Mode::empty())?;
    Ok(fchmod(&made, Mode::from_raw_mode(mode & PERMISSIONS | FOLDER_LEAST))?)
}

fn make_file<R: Read>(
    folder: &OwnedFd,
    name: &[u8],
    mode: u32,
    entry: &mut tar::Entry<'_, R>,
) -> io::Result<u64> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?);
    let size = io::copy(entry, &mut file)?;
    if size != entry.size() {
        return Err(refuse("the layer was cut in it"));
    }
    fchmod(&file, Mode::from_raw_mode(mode & PERMISSIONS | FILE_LEAST))?;
    // Programs that compare times (make, Python) expect the image's.
    let seconds = i64::try_from(entry.header().mtime()?).unwrap_or(0);
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
    Ok(size)
}
