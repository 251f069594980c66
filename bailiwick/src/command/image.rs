//! `image`, and what `run --image` runs.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use contracts::process_manager::v1::{self as pb, tree_chunk::Chunk};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    process::{Program, environment},
    rootfs::INHERITED,
};
use crate::{
    args::{Image, ImportImage, Output, Run},
    node::{Node, failed},
    output,
};

/// Bytes of one piece of an archive; below the contract's limit.
pub(super) const PIECE_BYTES: usize = 128 * 1024;
/// Pieces under way.
pub(super) const PIECES: usize = 4;
/// Digits that name an image, at least.
const DIGITS_MIN: usize = 8;
/// Digits of an owner in a list.
const DIGITS_SHOWN: usize = 12;

pub async fn run(node: &Node, output: Output, command: Image) -> Result<()> {
    match command {
        Image::Import(args) => {
            let imported = import(node, &args).await?;
            output::show(output, &imported, || imported.to_text())
        }
        Image::Pull(args) => super::pull::run(node, output, &args).await,
        Image::List => list(node, output).await,
        Image::Inspect { image } => {
            let found = Shown::of(find(node, &image).await?);
            output::show(output, &found, || found.to_text())
        }
        Image::Rm { image } => {
            let found = find(node, &image).await?;
            let mut processes = node.processes("system.process_manager.remove_tree").await?;
            // Who gives an id means the image; with several names it is the node that asks which one.
            let name = if found.name == image { image } else { String::new() };
            let request = pb::RemoveTreeRequest { id: found.id.clone(), name };
            let removed = processes.remove_tree(request).await.map_err(failed)?.into_inner();
            let (id, name) = (id_text(&found.id), found.name);
            let entry = removed.axiom_ref.map_or(0, |at| at.sequence);
            let shown = serde_json::json!({ "removed": id, "name": name, "entry": entry });
            output::show(output, &shown, || format!("removed {name} ({id}), entry {entry}\n"))
        }
    }
}

/// An image as it is shown.
#[derive(Serialize)]
pub(super) struct Shown {
    id: String,
    name: String,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    working_dir: String,
    user: String,
    uid: u32,
    gid: u32,
    layers: u32,
    entries: u64,
    size_bytes: u64,
    left_out: u64,
    set_id: u64,
    /// Whose the name is, and since when.
    owner: String,
    since_ns: u64,
    entry: u64,
    /// By which a registry names it, if it came with one.
    manifest: Option<String>,
    missing: bool,
}

impl Shown {
    pub(super) fn of(tree: pb::Tree) -> Self {
        Self {
            id: id_text(&tree.id),
            name: tree.name,
            entrypoint: tree.entrypoint,
            cmd: tree.cmd,
            env: tree.env,
            working_dir: tree.working_dir,
            user: tree.user,
            uid: tree.uid,
            gid: tree.gid,
            layers: tree.layers,
            entries: tree.entries,
            size_bytes: tree.size_bytes,
            left_out: tree.left_out,
            set_id: tree.set_id,
            owner: digits(&tree.owner),
            since_ns: tree.since_ns,
            entry: tree.axiom_ref.map_or(0, |at| at.sequence),
            manifest: Some(tree.manifest).filter(|digest| !digest.is_empty()).map(|digest| id_text(&digest)),
            missing: tree.missing,
        }
    }

    /// How long the name has been what it is.
    fn age(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let ns = now.saturating_sub(self.since_ns.into());
        format!("{} ago", output::duration(u64::try_from(ns / 1_000_000).unwrap_or(u64::MAX)))
    }

    pub(super) fn to_text(&self) -> String {
        let words =
            |words: &[String]| words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" ");
        if self.missing {
            return format!(
                "{}  {}\n  the image is not there any more: import it again\n",
                self.id, self.name
            );
        }
        let mut lines = vec![
            format!("{}  {}", self.id, self.name),
            format!("  owner       {}, {}, entry {}", self.owner, self.age(), self.entry),
            format!("  manifest    {}", self.manifest.as_deref().unwrap_or("it came without one")),
            format!("  entrypoint  {}", words(&self.entrypoint)),
            format!("  cmd         {}", words(&self.cmd)),
            format!("  env         {}", words(&self.env)),
            format!("  directory   {:?}", self.working_dir),
            format!("  user        {:?}: uid {}, gid {}", self.user, self.uid, self.gid),
            format!(
                "  content     {} layers, {} names, {}",
                self.layers,
                self.entries,
                output::size(self.size_bytes)
            ),
            "  owners      all files belong to the program's user; it is the only one there is".to_owned(),
        ];
        if self.left_out > 0 {
            lines.push(format!("  left out    {} devices and pipes", self.left_out));
        }
        if self.set_id > 0 {
            lines.push(format!("  flattened   {} files had a setuid or setgid bit", self.set_id));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

pub(super) fn id_text(id: &[u8]) -> String {
    format!("sha256:{}", digits(id))
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) async fn all(node: &Node) -> Result<Vec<pb::Tree>> {
    let mut processes = node.processes("system.process_manager.list_trees").await?;
    Ok(processes.list_trees(pb::TreeFilter {}).await.map_err(failed)?.into_inner().trees)
}

async fn list(node: &Node, output: Output) -> Result<()> {
    let found: Vec<Shown> = all(node).await?.into_iter().map(Shown::of).collect();
    output::show(output, &found, || {
        let row = |one: &Shown| {
            let short = one.id.get(..19).unwrap_or(&one.id).to_owned();
            let size = if one.missing { "missing".to_owned() } else { output::size(one.size_bytes) };
            let owner = one.owner.get(..DIGITS_SHOWN).unwrap_or(&one.owner).to_owned();
            vec![short, one.name.clone(), size, one.layers.to_string(), owner, one.age()]
        };
        output::table(
            &["ID", "NAME", "SIZE", "LAYERS", "OWNER", "SINCE"],
            &found.iter().map(row).collect::<Vec<_>>(),
        )
    })
}

async fn find(node: &Node, text: &str) -> Result<pb::Tree> {
    choose(all(node).await?, text)
}

/// By name first, then by the first digits of its id or of its manifest's.
fn choose(trees: Vec<pb::Tree>, text: &str) -> Result<pb::Tree> {
    if let Some(named) = trees.iter().find(|tree| tree.name == text) {
        return Ok(named.clone());
    }
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let starts =
        |tree: &pb::Tree| [&tree.id, &tree.manifest].iter().any(|id| self::digits(id).starts_with(digits));
    let mut found = trees.into_iter().filter(|tree| digits.len() >= DIGITS_MIN && starts(tree));
    let first = found.next();
    // Other names of the same image are no other images.
    let other = first.as_ref().and_then(|first| found.find(|tree| tree.id != first.id));
    match (first, other) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => bail!("several images begin with {text:?}; give more digits"),
        _ => bail!("there is no image {text:?}; `bailiwick image list` shows those that are there"),
    }
}

/// Where an image comes from.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    path: PathBuf,
    tag: String,
}

/// What kind of source a text says itself.
const KINDS: [&str; 3] = ["oci:", "oci-archive:", "docker-archive:"];

/// A name of a registry has a `/` too.
fn is_said_to_be_a_file(text: &str) -> bool {
    KINDS.iter().any(|kind| text.starts_with(kind)) || text.starts_with(['.', '/'])
}

/// As other tools name it; a path alone is one with a `/`, or of what is there.
fn source(text: &str) -> Option<Source> {
    let rest = KINDS.iter().find_map(|kind| text.strip_prefix(kind));
    let path = match rest {
        Some(rest) => rest,
        None if text.contains('/') || text.ends_with(".tar") => text,
        None => return None,
    };
    let whole = || Source { path: PathBuf::from(path), tag: String::new() };
    Some(match path.rsplit_once(':') {
        Some((file, tag)) if !Path::new(path).exists() && !tag.contains('/') => {
            Source { path: PathBuf::from(file), tag: tag.to_owned() }
        }
        _ => whole(),
    })
}

async fn import(node: &Node, args: &ImportImage) -> Result<Shown> {
    let from = source(&args.source)
        .or_else(|| {
            Path::new(&args.source)
                .exists()
                .then(|| Source { path: PathBuf::from(&args.source), tag: String::new() })
        })
        .with_context(|| {
            format!(
                "{:?} is no file or folder; write oci:FOLDER[:TAG], oci-archive:FILE or docker-archive:FILE",
                args.source
            )
        })?;
    Ok(Shown::of(send(node, &from, args.name.as_deref()).await?))
}

async fn send(node: &Node, from: &Source, name: Option<&str>) -> Result<pb::Tree> {
    let usual = || match from.tag.as_str() {
        "" => from.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
        tag => tag.to_owned(),
    };
    let begin = pb::TreeBegin { tag: from.tag.clone(), name: name.map_or_else(usual, str::to_owned) };
    let data = std::fs::metadata(&from.path).with_context(|| format!("image {}", from.path.display()))?;
    let (send, receive) = mpsc::channel(PIECES);
    send.send(pb::TreeChunk { chunk: Some(Chunk::Begin(begin)) }).await.context("importing")?;
    let path = from.path.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces { send, buffer: Vec::with_capacity(PIECE_BYTES) };
        if data.is_dir() { pack(&path, &mut pieces) } else { copy(&path, &mut pieces) }
    });
    let mut processes = node.processes("system.process_manager.import_tree").await?;
    let imported = processes.import_tree(ReceiverStream::new(receive)).await;
    let read = reader.await.context("reading the image")?;
    match (imported, read) {
        (Ok(tree), Ok(())) => Ok(tree.into_inner()),
        // The node's own reason, if it ended the stream; else why it was cut here.
        (Err(status), Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => drop_error(status),
        (_, Err(error)) => Err(error).with_context(|| format!("reading {}", from.path.display())),
        (Err(status), Ok(())) => drop_error(status),
    }
}

fn drop_error(status: tonic::Status) -> Result<pb::Tree> {
    Err(failed(status))
}

/// What is written goes to the node, piece by piece.
struct Pieces {
    send: mpsc::Sender<pb::TreeChunk>,
    buffer: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.buffer.extend(data);
        if self.buffer.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        for piece in std::mem::take(&mut self.buffer).chunks(PIECE_BYTES) {
            let chunk = pb::TreeChunk { chunk: Some(Chunk::Data(piece.to_vec())) };
            // The node has seen enough: its answer says why.
            self.send.blocking_send(chunk).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(())
    }
}

fn copy(path: &Path, pieces: &mut Pieces) -> io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        pieces.write_all(buffer.get(..read).unwrap_or_default())?;
        if read == 0 {
            return pieces.flush();
        }
    }
}

/// A layout as an archive: what names its images, and its blobs.
fn pack(folder: &Path, pieces: &mut Pieces) -> io::Result<()> {
    let mut archive = tar::Builder::new(pieces);
    for name in ["oci-layout", "index.json"] {
        archive.append_path_with_name(folder.join(name), name)?;
    }
    let blobs = folder.join("blobs/sha256");
    for entry in std::fs::read_dir(&blobs)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            archive.append_path_with_name(entry.path(), Path::new("blobs/sha256").join(entry.file_name()))?;
        }
    }
    archive.into_inner()?.flush()
}

/// What an image runs, as `podman run` has it: a command replaces the image's, behind its entry point.
pub async fn program(node: &Node, image: &str, args: &Run) -> Result<Program> {
    let (tree, imported) =
        match source(image).filter(|from| from.path.exists() || is_said_to_be_a_file(image)) {
            Some(from) => (send(node, &from, None).await?, true),
            None => (find(node, image).await?, false),
        };
    let given = if args.command.is_empty() { &tree.cmd } else { &args.command };
    let mut words = tree.entrypoint.iter().chain(given).cloned();
    let name =
        words.next().with_context(|| format!("image {image:?} names no program; say which one to run"))?;
    let mut env = environment(&INHERITED, &tree.env)?;
    env.extend(environment(&[], &args.env)?);
    let own = if tree.working_dir.is_empty() { "/" } else { &tree.working_dir };
    Ok(Program {
        name,
        args: words.collect(),
        env,
        cwd: args.cwd.clone().unwrap_or_else(|| own.to_owned()),
        file: None,
        paths: Vec::new(),
        root: Some(pb::Root {
            // By an id any name is meant; the node takes one of the caller's own first.
            name: if imported || tree.name == image { tree.name } else { String::new() },
            tree: tree.id,
            copy_on_write: !args.read_only,
            ..pb::Root::default()
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_named_as_other_tools_name_it() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().to_str().unwrap();
        let is = |path: &str, tag: &str| Some(Source { path: PathBuf::from(path), tag: tag.to_owned() });
        assert_eq!(source(&format!("oci:{there}")), is(there, ""));
        assert_eq!(source(&format!("oci:{there}:1.2")), is(there, "1.2"));
        assert_eq!(source("docker-archive:a.tar"), is("a.tar", ""));
        assert_eq!(source("./a.tar"), is("./a.tar", ""));
        assert_eq!(source("a.tar"), is("a.tar", ""));
        assert_eq!(source("alpine"), None);
        assert_eq!(source("alpine:3"), None);
        for (text, is_file) in [("./x", true), ("/x", true), ("oci:x", true), ("a/b:1", false), ("x", false)]
        {
            assert_eq!(is_said_to_be_a_file(text), is_file, "{text}");
        }
    }

    #[test]
    fn an_image_is_found_by_its_name_or_by_enough_digits() {
        let tree =
            |id: u8, name: &str| pb::Tree { id: vec![id; 32], name: name.to_owned(), ..Default::default() };
        let trees = || vec![tree(0xaa, "web"), tree(0xbb, "aaaaaaaa")];
        let found = |text: &str| choose(trees(), text).map(|tree| tree.id[0]).ok();
        assert_eq!(found("web"), Some(0xaa));
        assert_eq!(found("aaaaaaaa"), Some(0xbb), "a name comes first");
        assert_eq!(found("aaaaaaaaa"), Some(0xaa));
        assert_eq!(found("sha256:bbbbbbbb"), Some(0xbb));
        assert_eq!(found("bbbbbbb"), None);
        let again = pb::Tree { manifest: vec![0xcc; 32], ..tree(0xaa, "again") };
        let same =
            |text: &str| choose([trees(), vec![again.clone()]].concat(), text).map(|tree| tree.id[0]).ok();
        assert_eq!(
            (same("aaaaaaaaa"), same("cccccccc")),
            (Some(0xaa), Some(0xaa)),
            "one image with two names"
        );
        assert_eq!(found("other"), None);
    }
}
