//! `image pull`: an image of a registry (OCI distribution specification), fetched through the node and handed on to who unpacks it.
//!
//! Nothing is kept here: what comes goes on as an archive while its digest is taken, and an import that is cut leaves nothing.
//! The node's network service decides each request, its process manager the name; this only asks both.

mod challenge;
mod credential;
mod manifest;
mod reference;
mod registry;

use anyhow::{Context as _, Result, anyhow, bail};
use base::TreeId;
use contracts::process_manager::v1::{self as pb, tree_chunk::Chunk};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use self::{
    manifest::{ACCEPTED, Blob, Document, INDEX_DEPTH_MAX, JSON_BYTES_MAX},
    reference::Reference,
    registry::{Registry, Trouble},
};
use super::image::{PIECE_BYTES, PIECES, Shown, all, id_text};
use crate::{
    args::{Output, PullImage},
    node::{Node, failed},
    output,
};

/// Of a blob that one request asks for: below what the node lets an answer have as it is delivered (16 MiB).
const RANGE_BYTES: u64 = 8 * 1024 * 1024;
/// What a request that is cut must bring to be no failure. Each is three entries of the log: a registry that answers byte by
/// byte would fill it.
const PROGRESS_BYTES: u64 = 256 * 1024;
/// Requests in a row that bring less than that, and not what they asked for.
const TRIES_MAX: u32 = 5;
const TRY_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);
/// What an archive is made of.
const TAR_BLOCK: usize = 512;

/// What came of it.
#[derive(Serialize)]
struct Pulled {
    #[serde(flatten)]
    image: Shown,
    registry: String,
    repository: String,
    tag: Option<String>,
    /// Fetched, as they came.
    fetched_bytes: u64,
    /// What the name was before, if it was another image.
    moved_from: Option<String>,
}

pub(super) async fn run(node: &Node, output: Output, args: &PullImage) -> Result<()> {
    let reference = Reference::parse(&args.reference).map_err(|text| anyhow!(text))?;
    let name = args.name.clone().unwrap_or_else(|| reference.typed.clone());
    let before = all(node).await?.into_iter().find(|tree| tree.name == name).map(|tree| tree.id);
    let credential = credential::of(&node.layout.registries(), &reference.registry)?;
    let mut registry = Registry::new(node, &reference, args.plain_http, credential);
    let progress = Progress { shown: output == Output::Text };
    let what = || format!("nothing of {} is kept", args.reference);
    let (bytes, digest, blobs) = chosen(&mut registry, &reference).await.with_context(what)?;
    progress.say(&format!("{} is {digest}: {} blobs", args.reference, blobs.len()));
    let fetched_bytes = blobs.iter().map(|blob| blob.size).sum();
    let tree =
        send(node, &mut registry, &name, &(bytes, digest), &blobs, &progress).await.with_context(what)?;
    let moved_from = before.filter(|before| *before != tree.id).map(|before| id_text(&before));
    let pulled = Pulled {
        image: Shown::of(tree),
        registry: reference.registry,
        repository: reference.repository,
        tag: reference.tag,
        fetched_bytes,
        moved_from,
    };
    output::show(output, &pulled, || {
        let moved = pulled.moved_from.as_ref();
        let moved = moved.map_or_else(String::new, |was| {
            format!("the name was {was} before, which is found by that now\n")
        });
        format!("{}{moved}", pulled.image.to_text())
    })
}

/// Progress is for who looks on.
struct Progress {
    shown: bool,
}

impl Progress {
    fn say(&self, text: &str) {
        if self.shown {
            eprintln!("{text}");
        }
    }
}

fn digest_of(bytes: &[u8]) -> TreeId {
    TreeId(Sha256::digest(bytes).into())
}

/// The manifest for this machine, its digest, and what it names.
async fn chosen(registry: &mut Registry<'_>, reference: &Reference) -> Result<(Vec<u8>, TreeId, Vec<Blob>)> {
    let (mut wanted, mut expected) = (reference.wanted(), reference.digest);
    for _ in 0..=INDEX_DEPTH_MAX {
        let bytes = document(registry, &wanted).await?;
        let digest = digest_of(&bytes);
        match (expected, &reference.tag) {
            (Some(expected), Some(tag)) if expected != digest && wanted == *tag => {
                bail!("the tag {tag} has moved: it is {digest} now, not {expected}");
            }
            (Some(expected), _) if expected != digest => {
                bail!("the registry gives {digest} for {expected}: it is not what it says");
            }
            _ => {}
        }
        match manifest::read(&bytes, machine()).map_err(|text| anyhow!("{digest}: {text}"))? {
            Document::Manifest(blobs) => return Ok((bytes, digest, blobs)),
            Document::Index(blob) => (wanted, expected) = (blob.digest.to_string(), Some(blob.digest)),
        }
    }
    bail!("indexes name indexes more than {INDEX_DEPTH_MAX} times")
}

async fn document(registry: &mut Registry<'_>, wanted: &str) -> Result<Vec<u8>> {
    let accept = [("accept", ACCEPTED.join(", "))];
    let mut answer = registry.get(&format!("manifests/{wanted}"), &accept).await?;
    match answer.status {
        200 => answer.whole("a manifest", JSON_BYTES_MAX).await,
        404 => bail!("{} has no such image ({wanted})", registry.origin),
        other => bail!("{} answers {other} for the manifest {wanted}", registry.origin),
    }
}

/// This machine's, as images call it.
fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An archive under way to who unpacks it.
struct Archive {
    send: mpsc::Sender<pb::TreeChunk>,
}

/// Who unpacks has seen enough; its answer says why.
#[derive(Debug)]
struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the node takes no more of it")
    }
}

impl std::error::Error for Gone {}

impl Archive {
    async fn data(&self, bytes: &[u8]) -> Result<(), Gone> {
        for piece in bytes.chunks(PIECE_BYTES) {
            let chunk = pb::TreeChunk { chunk: Some(Chunk::Data(piece.to_vec())) };
            self.send.send(chunk).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    async fn begin(&self, name: &str, size: u64) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).context("naming a part of the archive")?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        Ok(self.data(header.as_bytes()).await?)
    }

    async fn pad(&self, size: u64) -> Result<(), Gone> {
        let over = usize::try_from(size % TAR_BLOCK as u64).unwrap_or(0);
        let padding = [0; TAR_BLOCK];
        self.data(padding.get(..(TAR_BLOCK - over) % TAR_BLOCK).unwrap_or_default()).await
    }

    async fn file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.begin(name, bytes.len() as u64).await?;
        self.data(bytes).await?;
        Ok(self.pad(bytes.len() as u64).await?)
    }
}

fn blob_path(digest: TreeId) -> String {
    format!("blobs/sha256/{}", digest.to_hex())
}

/// Fetches and imports at once.
async fn send(
    node: &Node,
    registry: &mut Registry<'_>,
    name: &str,
    manifest: &(Vec<u8>, TreeId),
    blobs: &[Blob],
    progress: &Progress,
) -> Result<pb::Tree> {
    let (send, receive) = mpsc::channel(PIECES);
    let begin = pb::TreeBegin { tag: String::new(), name: name.to_owned() };
    send.send(pb::TreeChunk { chunk: Some(Chunk::Begin(begin)) }).await.context("importing")?;
    let mut processes = node.processes("system.process_manager.import_tree").await?;
    let importing = processes.import_tree(ReceiverStream::new(receive));
    tokio::pin!(importing);
    let filling = fill(Archive { send }, registry, manifest, blobs, progress);
    tokio::pin!(filling);
    let imported = tokio::select! {
        imported = &mut importing => imported,
        filled = &mut filling => match filled {
            Err(error) if !error.is::<Gone>() => {
                // The import is dropped with its call, and so cut: of what was sent nothing stays.
                return Err(error);
            }
            _ => importing.await,
        },
    };
    Ok(imported.map_err(failed)?.into_inner())
}

async fn fill(
    archive: Archive,
    registry: &mut Registry<'_>,
    (bytes, digest): &(Vec<u8>, TreeId),
    blobs: &[Blob],
    progress: &Progress,
) -> Result<()> {
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{ "mediaType": ACCEPTED[1], "digest": digest.to_string(), "size": bytes.len() }],
    });
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).await?;
    archive.file("index.json", index.to_string().as_bytes()).await?;
    archive.file(&blob_path(*digest), bytes).await?;
    for (number, blob) in blobs.iter().enumerate() {
        progress.say(&format!("{}/{} {} {}", number + 1, blobs.len(), blob.digest, output::size(blob.size)));
        archive.begin(&blob_path(blob.digest), blob.size).await?;
        fetch(registry, blob, &archive).await.with_context(|| format!("blob {}", blob.digest))?;
        archive.pad(blob.size).await?;
    }
    Ok(archive.data(&[0; 2 * TAR_BLOCK]).await?)
}

/// A blob, piece by piece; where a connection breaks, the rest of it is asked for.
async fn fetch(registry: &mut Registry<'_>, blob: &Blob, archive: &Archive) -> Result<()> {
    let mut hasher = Sha256::new();
    let (mut at, mut tries) = (0, Tries::default());
    while at < blob.size {
        let before = at;
        let trouble = match range(registry, blob, &mut at, &mut hasher, archive).await {
            Ok(()) => format!("an answer ends after {at} of {} bytes", blob.size),
            Err(Trouble::Passing(text)) => text,
            Err(Trouble::Lasting(error)) => return Err(error),
        };
        if tries.count(before, at, blob.size) {
            continue;
        }
        if tries.0 >= TRIES_MAX {
            bail!(
                "after {at} of {} bytes next to nothing came in {TRIES_MAX} requests in a row: {trouble}",
                blob.size
            );
        }
        tokio::time::sleep(TRY_PAUSE).await;
    }
    let found = TreeId(hasher.finalize().into());
    if found != blob.digest {
        bail!("what came is {found}: the registry has something else under this digest");
    }
    Ok(())
}

/// Requests in a row that were not worth their entries.
#[derive(Debug, Default)]
struct Tries(u32);

impl Tries {
    /// Whether a request was worth it that brought a blob of that size from `before` to `at`.
    fn count(&mut self, before: u64, at: u64, size: u64) -> bool {
        let is_all = at >= before.saturating_add(RANGE_BYTES).min(size);
        let is_worth_it = is_all || at.saturating_sub(before) >= PROGRESS_BYTES;
        self.0 = if is_worth_it { 0 } else { self.0.saturating_add(1) };
        is_worth_it
    }
}

/// From where the blob has been fetched to, at most as much as one request asks for.
async fn range(
    registry: &mut Registry<'_>,
    blob: &Blob,
    at: &mut u64,
    hasher: &mut Sha256,
    archive: &Archive,
) -> Result<(), Trouble> {
    let lasting = |text: String| Trouble::Lasting(anyhow!(text));
    let last = at.saturating_add(RANGE_BYTES).min(blob.size) - 1;
    let headers = [("range", format!("bytes={at}-{last}"))];
    let mut answer = registry.get(&format!("blobs/{}", blob.digest), &headers).await?;
    // What has come already, of one that gives all of it or nothing.
    let mut skipped = match answer.status {
        206 if begins_at(answer.header("content-range"), *at) => 0,
        206 => return Err(lasting("the registry gives another part of it than was asked for".to_owned())),
        200 => *at,
        404 => return Err(lasting(format!("{} does not have it", registry.origin))),
        429 | 500..=599 => return Err(Trouble::Passing(format!("the registry answers {}", answer.status))),
        other => return Err(lasting(format!("the registry answers {other}"))),
    };
    while let Some(piece) = answer.piece().await? {
        let over = usize::try_from(skipped).unwrap_or(usize::MAX).min(piece.len());
        skipped -= over as u64;
        let piece = piece.get(over..).unwrap_or_default();
        if at.saturating_add(piece.len() as u64) > blob.size {
            return Err(lasting(format!("more than its {} bytes come", blob.size)));
        }
        hasher.update(piece);
        archive.data(piece).await.map_err(|gone| Trouble::Lasting(gone.into()))?;
        *at += piece.len() as u64;
    }
    Ok(())
}

fn begins_at(content_range: Option<&str>, at: u64) -> bool {
    let range = content_range.and_then(|text| text.strip_prefix("bytes "));
    range.and_then(|range| range.split_once('-')).is_some_and(|(first, _)| first.parse() == Ok(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_begins_where_it_says() {
        assert!(begins_at(Some("bytes 5-9/10"), 5));
        for wrong in [None, Some("bytes 4-9/10"), Some("bytes */10"), Some("5-9/10"), Some("")] {
            assert!(!begins_at(wrong, 5), "{wrong:?}");
        }
    }

    #[test]
    fn next_to_nothing_is_no_progress() {
        let size = 3 * RANGE_BYTES;
        let mut tries = Tries::default();
        assert!(!tries.count(0, PROGRESS_BYTES - 1, size) && !tries.count(7, 7, size));
        assert_eq!(tries.0, 2);
        assert!(tries.count(7, 7 + PROGRESS_BYTES, size));
        assert_eq!(tries.0, 0, "only those in a row count");
        assert!(tries.count(size - 1, size, size), "the last byte is all that was asked for");
        assert!(tries.count(0, RANGE_BYTES, size));
        // One byte for each request comes to its end.
        let asked = (0..).take_while(|at| {
            tries.count(*at, at + 1, size);
            tries.0 < TRIES_MAX
        });
        assert_eq!(asked.count() + 1, TRIES_MAX as usize);
    }

    #[test]
    fn an_archive_is_one_that_others_read() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(async {
            let (send, mut receive) = mpsc::channel(64);
            let archive = Archive { send };
            for (name, length) in [("a", 0), ("b", 1), ("c", TAR_BLOCK), ("blobs/d", TAR_BLOCK + 1)] {
                archive.file(name, &vec![b'x'; length]).await.unwrap();
            }
            archive.data(&[0; 2 * TAR_BLOCK]).await.unwrap();
            drop(archive);
            let mut bytes = Vec::new();
            while let Some(chunk) = receive.recv().await {
                if let Some(Chunk::Data(data)) = chunk.chunk {
                    bytes.extend(data);
                }
            }
            bytes
        });
        let mut read = tar::Archive::new(bytes.as_slice());
        let entries = read.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.path().unwrap().display().to_string(), entry.size())
        });
        let expected =
            [("a", 0), ("b", 1), ("c", 512), ("blobs/d", 513)].map(|(name, size)| (name.to_owned(), size));
        assert_eq!(entries.collect::<Vec<_>>(), expected);
    }
}
