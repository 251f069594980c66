//! Unpacks a container image: an OCI layout or what `docker save` writes, as one tar archive.
//!
//! A process of its own, started by the keeper in a sandbox that has the folder to be filled and nothing else, no network
//! and no capability: nobody else parses what comes from outside. It is told one job through a descriptor, reads the
//! archive from its standard input, answers one report on its standard output, and ends.
//!
//! Every blob is compared with its digest before it is parsed, and every layer with the configuration's before a file of
//! it is made. Links are never followed out of the folder. Owners are flattened to one, setuid bits are dropped, devices
//! and pipes left out; each is counted. Never does: run anything of the image.

mod archive;
mod layer;
mod oci;
mod read;
mod users;

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    process::ExitCode,
};

use base::{TreeId, cbor};
use minicbor::{Decode, Encode};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, mkdirat, openat, readlinkat, statat};
use sandbox::inherited::adopt_descriptor;

use crate::layer::{entry, remove};

pub use kit::images::{Content, Kind, ROOT, Top};

/// Where the folder is mounted for this process.
pub const FOLDER: &str = "/tree";
/// In it, beside the image's files: what came in the archive until they are made of it.
const BLOBS: &str = "blobs";

/// Where the job stands.
const JOB_FD: i32 = 3;
const JOB_BYTES_MAX: u64 = 64 * 1024;
/// Of a report, with room; its texts come from a configuration of at most [`JSON_BYTES_MAX`].
pub const REPORT_BYTES_MAX: u64 = kit::images::RECORD_BYTES_MAX;
/// Bytes of an archive, without compression.
pub const ARCHIVE_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Files of an archive: blobs of several images.
pub const ARCHIVE_ENTRIES_MAX: usize = 4096;
/// Bytes of an index, a manifest or a configuration.
pub const JSON_BYTES_MAX: u64 = 512 * 1024;
/// Layers of an image; other tools have 127.
pub const IMAGE_LAYERS_MAX: usize = 128;
/// Bytes of an image's layers, without compression.
pub const UNPACKED_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Entries of all layers, those that make nothing too, and the folders that have no entry of their own.
pub const ENTRIES_MAX: u64 = 1_000_000;
/// Bytes and parts of one name in a layer.
pub const PATH_BYTES_MAX: usize = 4095;
pub const DEPTH_MAX: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Task {
    /// Of the images in an archive, the one with this tag; empty if there is but one.
    #[n(0)]
    Unpack(#[n(0)] String),
    /// Empty the folder.
    #[n(1)]
    Remove,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Report {
    #[n(0)]
    Unpacked(#[n(0)] TreeId, #[n(1)] Box<Content>),
    #[n(1)]
    Removed,
    #[n(2)]
    Failed(#[n(0)] String),
}

/// Entry of `bailiwick process unpack`.
#[must_use]
pub fn main() -> ExitCode {
    let report = match read_job() {
        Ok(task) => report(&task),
        Err(error) => {
            eprintln!("unpack: {error}: this process is started by process_manager");
            return ExitCode::from(2);
        }
    };
    match io::stdout().write_all(&cbor::encode(&report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn read_job() -> io::Result<Task> {
    let mut bytes = Vec::new();
    File::from(adopt_descriptor(JOB_FD)?).take(JOB_BYTES_MAX).read_to_end(&mut bytes)?;
    cbor::decode(&bytes).map_err(|error| io::Error::other(error.to_string()))
}

fn report(task: &Task) -> Report {
    let done = open_folder(CWD, FOLDER).and_then(|folder| match task {
        Task::Remove => remove::everything(&folder).map(|()| Report::Removed),
        Task::Unpack(tag) => {
            let unpacked = unpack(io::stdin().lock(), tag, &folder);
            unpacked.map(|(id, content)| Report::Unpacked(id, Box::new(content)))
        }
    });
    done.unwrap_or_else(|error| Report::Failed(error.to_string()))
}

/// Unpacks the image with this tag out of an archive into an empty folder. What is there after an error is to be removed.
///
/// Its id is the digest of its configuration, in both forms: that names the content of each layer, and so all that a
/// program sees. A manifest's digest would be another id for the same content, and who made one file that is both a
/// manifest and a configuration would have had one id for two contents.
pub fn unpack(archive: impl Read, tag: &str, folder: &OwnedFd) -> io::Result<(TreeId, Content)> {
    unpack_at_most(archive, tag, folder, ENTRIES_MAX)
}

fn unpack_at_most(
    archive: impl Read,
    tag: &str,
    folder: &OwnedFd,
    entries_max: u64,
) -> io::Result<(TreeId, Content)> {
    let blobs = make_folder(folder, BLOBS)?;
    let root = make_folder(folder, ROOT)?;
    let stored = archive::store(archive, blobs)?;
    let image = oci::find(&stored, tag)?;
    let mut unpacked = layer::Unpacked::new(&root, entries_max);
    for (number, blob) in image.layers.iter().enumerate() {
        unpacked.layer(&stored, blob).map_err(|error| {
            io::Error::new(error.kind(), format!("layer {} of {}: {error}", number + 1, image.layers.len()))
        })?;
    }
    let user = users::resolve(&root, &image.user)?;
    let mut content = Content {
        entrypoint: image.entrypoint,
        cmd: image.cmd,
        env: image.env,
        working_dir: image.working_dir,
        user: image.user,
        uid: user.uid,
        gid: user.gid,
        home: user.home,
        top: top(&root)?,
        layers: u32::try_from(image.layers.len()).unwrap_or(u32::MAX),
        form: image.form,
        manifest: image.manifest,
        ..Content::default()
    };
    unpacked.tell(&mut content);
    drop(stored);
    remove::one(folder, BLOBS.as_bytes())?;
    // An image that is known survives a power cut.
    rustix::fs::syncfs(&root)?;
    Ok((image.id, content))
}

/// What a program is shown of the top; what the sandbox has in its place is left out.
fn top(root: &OwnedFd) -> io::Result<Vec<Top>> {
    let mut top = Vec::new();
    for name in entry::names(root)? {
        let stat = statat(root, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
        let no_text = |_| refuse(format!("{:?} in its top is not UTF-8", String::from_utf8_lossy(&name)));
        let text = String::from_utf8(name.clone()).map_err(no_text)?;
        if kit::images::NOT_SHOWN.contains(&text.as_str()) {
            continue;
        }
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Folder,
            FileType::Symlink => {
                let target = readlinkat(root, name.as_slice(), Vec::new())?;
                Kind::Link(target.into_string().map_err(|_| refuse(format!("link {text:?} is not UTF-8")))?)
            }
            _ => Kind::File,
        };
        top.push(Top { name: text, kind });
    }
    Ok(top)
}

fn make_folder(folder: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    mkdirat(folder, name, Mode::RWXU)?;
    let made = open_folder(folder, name)?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    Ok(made)
}

fn open_folder(folder: impl std::os::fd::AsFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, Mode::empty())?)
}

fn refuse(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

#[cfg(test)]
mod tests;
