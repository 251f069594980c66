//! What a registry says of an image: indexes and manifests, of OCI and of Docker. Pure.

use base::TreeId;
use serde::Deserialize;

/// Bytes of an index, a manifest or a configuration; who unpacks them takes no more.
pub(super) const JSON_BYTES_MAX: u64 = 512 * 1024;
/// Layers of one image, and bytes of all that it is fetched as.
pub(super) const LAYERS_MAX: usize = 128;
pub(super) const IMAGE_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// An index may name another one; deeper than this nobody goes.
pub(super) const INDEX_DEPTH_MAX: usize = 4;
/// What is understood.
pub(super) const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Something that is found by its digest, and its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: TreeId,
    pub(super) size: u64,
}

/// An index or a manifest, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Document {
    /// The one for this machine.
    Index(Blob),
    /// Configuration and layers, each once.
    Manifest(Vec<Blob>),
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "schemaVersion")]
    schema: u32,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

impl Descriptor {
    fn blob(&self) -> Result<Blob, String> {
        let digest =
            self.digest.parse().map_err(|_| format!("{:?} is no digest sha256:<64 digits>", self.digest))?;
        Ok(Blob { digest, size: self.size })
    }
}

/// `machine` is this one's, as images call it.
pub(super) fn read(bytes: &[u8], machine: &str) -> Result<Document, String> {
    let wire: Wire = serde_json::from_slice(bytes).map_err(|error| format!("it is no manifest: {error}"))?;
    if wire.schema != 2 {
        return Err(format!("its schema is {}; only 2 is understood", wire.schema));
    }
    match (wire.manifests, wire.config, wire.layers) {
        (Some(manifests), None, None) => index(&manifests, machine).map(Document::Index),
        (None, Some(config), Some(layers)) => manifest(&config, &layers).map(Document::Manifest),
        _ => Err("it is neither an index nor a manifest of an image".to_owned()),
    }
}

fn index(manifests: &[Descriptor], machine: &str) -> Result<Blob, String> {
    let of = |platform: &Platform| format!("{}/{}", platform.os, platform.architecture);
    let wanted = format!("linux/{machine}");
    let fits = |one: &&Descriptor| one.platform.as_ref().is_some_and(|platform| of(platform) == wanted);
    let found = manifests.iter().find(fits).or_else(|| match manifests {
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    });
    let Some(found) = found else {
        let all: Vec<String> =
            manifests.iter().take(16).filter_map(|one| one.platform.as_ref().map(of)).collect();
        return Err(format!(
            "there is none for {wanted}, only for {}",
            if all.is_empty() { "none".to_owned() } else { all.join(", ") }
        ));
    };
    let blob = found.blob()?;
    at_most("the manifest", blob.size, JSON_BYTES_MAX)?;
    Ok(blob)
}

fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Result<Vec<Blob>, String> {
    if layers.len() > LAYERS_MAX {
        return Err(format!("it has {} layers, more than {LAYERS_MAX}", layers.len()));
    }
    let config = config.blob()?;
    at_most("the configuration", config.size, JSON_BYTES_MAX)?;
    let mut blobs = vec![config];
    for layer in layers {
        let layer = layer.blob()?;
        match blobs.iter().find(|known| known.digest == layer.digest) {
            Some(known) if known.size != layer.size => {
                return Err(format!("{} has two sizes, {} and {}", layer.digest, known.size, layer.size));
            }
            Some(_) => {}
            None => blobs.push(layer),
        }
    }
    let all = blobs.iter().try_fold(0_u64, |sum, blob| sum.checked_add(blob.size)).unwrap_or(u64::MAX);
    at_most("the image", all, IMAGE_BYTES_MAX)?;
    Ok(blobs)
}

fn at_most(what: &str, bytes: u64, most: u64) -> Result<(), String> {
    if bytes > most { Err(format!("{what} has {bytes} bytes, more than {most}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn digest(id: u8) -> String {
        TreeId([id; 32]).to_string()
    }

    fn read_json(value: &Value) -> Result<Document, String> {
        read(value.to_string().as_bytes(), "amd64")
    }

    fn blob(id: u8, size: u64) -> Blob {
        Blob { digest: TreeId([id; 32]), size }
    }

    #[test]
    fn of_an_index_the_one_for_this_machine_is_meant() {
        let one = |id, os: &str, machine: &str| json!({ "digest": digest(id), "size": id, "platform": { "os": os, "architecture": machine } });
        let of = |all: Vec<Value>| read_json(&json!({ "schemaVersion": 2, "manifests": all }));
        let many = vec![
            one(1, "unknown", "unknown"),
            one(2, "linux", "arm64"),
            one(3, "linux", "amd64"),
            one(4, "linux", "amd64"),
        ];
        assert_eq!(of(many), Ok(Document::Index(blob(3, 3))));
        assert!(of(vec![one(2, "linux", "arm64")]).unwrap_err().contains("only for linux/arm64"));
        assert_eq!(of(vec![json!({ "digest": digest(5), "size": 5 })]), Ok(Document::Index(blob(5, 5))));
        assert!(of(vec![]).is_err());
        let sized = |size: u64| of(vec![json!({ "digest": digest(5), "size": size })]);
        assert!(sized(JSON_BYTES_MAX).is_ok() && sized(JSON_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn a_manifest_names_what_is_to_be_fetched_each_once_within_limits() {
        let one = |id: u8, size: u64| json!({ "digest": digest(id), "size": size });
        let of = |config: Value, layers: Vec<Value>| {
            read_json(&json!({ "schemaVersion": 2, "config": config, "layers": layers }))
        };
        let named = of(one(1, 10), vec![one(2, 20), one(3, 30), one(2, 20)]);
        assert_eq!(named, Ok(Document::Manifest(vec![blob(1, 10), blob(2, 20), blob(3, 30)])));
        assert!(of(one(1, 10), vec![one(2, 20), one(2, 21)]).unwrap_err().contains("two sizes"));
        assert!(of(one(1, 10), vec![one(2, 1); LAYERS_MAX]).is_ok());
        assert!(of(one(1, 10), vec![one(2, 1); LAYERS_MAX + 1]).is_err());
        assert!(of(one(1, JSON_BYTES_MAX), vec![]).is_ok());
        assert!(of(one(1, JSON_BYTES_MAX + 1), vec![]).is_err());
        assert!(of(one(1, 10), vec![one(2, IMAGE_BYTES_MAX - 10)]).is_ok());
        assert!(of(one(1, 10), vec![one(2, IMAGE_BYTES_MAX - 9)]).is_err());
        assert!(of(one(1, 10), vec![one(2, u64::MAX)]).is_err());
        let other = json!({ "digest": "sha512:00", "size": 1 });
        assert!(of(other, vec![]).unwrap_err().contains("no digest"));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for wrong in
            [json!({}), json!({ "schemaVersion": 1, "layers": [] }), json!({ "schemaVersion": 2 }), json!([])]
        {
            assert!(read_json(&wrong).is_err(), "{wrong}");
        }
        let both = json!({ "schemaVersion": 2, "manifests": [], "config": { "digest": digest(1), "size": 1 }, "layers": [] });
        assert!(read_json(&both).is_err());
    }
}
