//! Which image of an archive is meant, and what it says of itself: OCI image layouts, and `manifest.json` of `docker save`.

use std::{collections::HashMap, io};

use base::TreeId;
use chain::payload::image::ImageForm;
use serde::Deserialize;

use super::{
    IMAGE_LAYERS_MAX,
    archive::{Blob, Stored},
    refuse,
};

/// An index may name another one; deeper than this nobody goes.
const INDEX_DEPTH_MAX: u32 = 4;
/// Under which tools put a tag into an index.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

pub(super) struct Image {
    /// Digest of its configuration.
    pub(super) id: TreeId,
    pub(super) form: ImageForm,
    pub(super) manifest: Option<TreeId>,
    pub(super) layers: Vec<Blob>,
    pub(super) entrypoint: Vec<String>,
    pub(super) cmd: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) working_dir: String,
    pub(super) user: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Of `docker save`.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    config: Option<Inner>,
    rootfs: RootFs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inner {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

pub(super) fn find(stored: &Stored, tag: &str) -> io::Result<Image> {
    if stored.has("index.json") {
        return of_layout(stored, tag);
    }
    if stored.has("manifest.json") {
        return saved(stored, tag);
    }
    Err(refuse("the archive has neither index.json (an OCI layout) nor manifest.json (of `docker save`)"))
}

fn of_layout(stored: &Stored, tag: &str) -> io::Result<Image> {
    let index: Index = json("index.json", &stored.read("index.json", None)?)?;
    let mut chosen = choose(index, tag)?;
    for _ in 0..INDEX_DEPTH_MAX {
        let (path, digest) = blob(&chosen.digest)?;
        let bytes = stored.read(&path, Some(digest))?;
        if chosen.media_type.contains("index") || chosen.media_type.contains("manifest.list") {
            // The tag chose among all; below it only the machine does.
            chosen = choose(json(&path, &bytes)?, "")?;
            continue;
        }
        let manifest: Manifest = json(&path, &bytes)?;
        let (path, config) = blob(&manifest.config.digest)?;
        let configuration = json(&path, &stored.read(&path, Some(config))?)?;
        let layers = manifest.layers.iter().map(|layer| {
            let (path, digest) = blob(&layer.digest)?;
            Ok(Blob { path, digest: Some(digest), unpacked: None })
        });
        let image = image(config, configuration, layers.collect::<io::Result<_>>()?)?;
        return Ok(Image { manifest: Some(digest), ..image });
    }
    Err(refuse(format!("indexes name indexes more than {INDEX_DEPTH_MAX} times")))
}

/// One descriptor is left: with the tag, for this machine.
fn choose(index: Index, tag: &str) -> io::Result<Descriptor> {
    let names = |one: &Descriptor| -> Vec<String> {
        let annotations = one.annotations.iter().flatten();
        annotations.filter(|(key, _)| NAMES.contains(&key.as_str())).map(|(_, name)| name.clone()).collect()
    };
    let all: Vec<String> = index.manifests.iter().flat_map(&names).collect();
    let tagged = |one: &Descriptor| tag.is_empty() || names(one).iter().any(|name| is_tag(name, tag));
    let fits = |one: &Descriptor| {
        one.platform.as_ref().is_none_or(|it| it.os == "linux" && it.architecture == architecture())
    };
    let mut left = index.manifests.into_iter().filter(|one| tagged(one) && fits(one));
    let first = left.next();
    let only = first.filter(|_| left.next().is_none());
    only.ok_or_else(|| {
        let wanted = if tag.is_empty() { String::new() } else { format!(" called {tag:?}") };
        let machine = architecture();
        refuse(format!(
            "not one image{wanted} for linux/{machine} is there; those with a name: {}",
            list(&all)
        ))
    })
}

/// `NAME:TAG`, the tag alone, or all of it.
fn is_tag(name: &str, tag: &str) -> bool {
    name == tag || name.rsplit_once(':').is_some_and(|(_, last)| last == tag)
}

fn list(names: &[String]) -> String {
    const LISTED_MAX: usize = 16;
    let listed: Vec<String> = names.iter().take(LISTED_MAX).map(|name| format!("{name:?}")).collect();
    if listed.is_empty() { "none".to_owned() } else { listed.join(", ") }
}

fn saved(stored: &Stored, tag: &str) -> io::Result<Image> {
    let all: Vec<Saved> = json("manifest.json", &stored.read("manifest.json", None)?)?;
    let tags = |one: &Saved| one.repo_tags.clone().unwrap_or_default();
    let names: Vec<String> = all.iter().flat_map(&tags).collect();
    let mut left =
        all.into_iter().filter(|one| tag.is_empty() || tags(one).iter().any(|name| is_tag(name, tag)));
    let (Some(one), None) = (left.next(), left.next()) else {
        return Err(refuse(format!("not one image is meant; those with a name: {}", list(&names))));
    };
    // Named by their digests in both forms that docker has had: `<hex>.json` and `blobs/sha256/<hex>`.
    let hex = one.config.trim_start_matches("blobs/sha256/").trim_end_matches(".json");
    let id = TreeId::from_hex(hex)
        .ok_or_else(|| refuse(format!("the configuration {:?} is not named by its digest", one.config)))?;
    let configuration = json(&one.config, &stored.read(&one.config, Some(id))?)?;
    let blob = |path: String| Blob { path, digest: None, unpacked: None };
    let image = image(id, configuration, one.layers.into_iter().map(blob).collect())?;
    Ok(Image { form: ImageForm::DockerArchive, ..image })
}

fn image(id: TreeId, configuration: Configuration, mut layers: Vec<Blob>) -> io::Result<Image> {
    let Configuration { architecture: machine, os, config, rootfs } = configuration;
    if os != "linux" || machine != architecture() {
        let text = format!("it is for {os:?} on {machine:?}; this is linux on {:?}", architecture());
        return Err(refuse(text));
    }
    if layers.len() > IMAGE_LAYERS_MAX {
        return Err(refuse(format!("it has {} layers, more than {IMAGE_LAYERS_MAX}", layers.len())));
    }
    if layers.len() != rootfs.diff_ids.len() {
        let (here, there) = (layers.len(), rootfs.diff_ids.len());
        return Err(refuse(format!("the manifest has {here} layers, the configuration {there}")));
    }
    for (layer, text) in layers.iter_mut().zip(&rootfs.diff_ids) {
        layer.unpacked = Some(digest(text)?);
    }
    let inner = config.unwrap_or_default();
    Ok(Image {
        id,
        form: ImageForm::OciLayout,
        manifest: None,
        layers,
        entrypoint: inner.entrypoint.unwrap_or_default(),
        cmd: inner.cmd.unwrap_or_default(),
        env: inner.env.unwrap_or_default(),
        working_dir: inner.working_dir.unwrap_or_default(),
        user: inner.user.unwrap_or_default(),
    })
}

fn json<'a, T: Deserialize<'a>>(path: &str, bytes: &'a [u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|error| refuse(format!("{path:?}: {error}")))
}

fn digest(text: &str) -> io::Result<TreeId> {
    let hex = text.strip_prefix("sha256:").and_then(TreeId::from_hex);
    hex.ok_or_else(|| refuse(format!("{text:?} is no digest sha256:<64 digits>")))
}

fn blob(text: &str) -> io::Result<(String, TreeId)> {
    let id = digest(text)?;
    Ok((format!("blobs/sha256/{}", id.to_hex()), id))
}

/// This machine's, as images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
