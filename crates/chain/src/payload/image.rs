//! Names of container images: given, moved and taken away (decision 0022). The content is kept outside of the log; the
//! entry names it by its id.

use base::{IdentityId, TreeId};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// A name points to an image from here on. It belongs to `by`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ImageImport {
    /// At most 256 bytes.
    #[n(0)]
    pub name: String,
    /// SHA-256 of its configuration, which names the content of each layer: the same in both forms.
    #[n(1)]
    pub tree: TreeId,
    #[n(2)]
    pub form: ImageForm,
    /// SHA-256 of the manifest by which a registry names it; `docker save` writes none.
    #[n(3)]
    pub manifest: Option<TreeId>,
    /// Of all files, unpacked.
    #[n(4)]
    pub size_bytes: u64,
    #[n(5)]
    pub entries: u64,
    #[n(6)]
    pub by: IdentityId,
    /// Who had the name, if that was another.
    #[n(7)]
    pub taken_from: Option<IdentityId>,
}

/// A name is gone; with the last name of an image its content is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ImageRemove {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub tree: TreeId,
    #[n(2)]
    pub by: IdentityId,
    /// Who had the name, if that was another.
    #[n(3)]
    pub taken_from: Option<IdentityId>,
}

/// In which form an image came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum ImageForm {
    #[n(0)]
    #[default]
    OciLayout,
    #[n(1)]
    DockerArchive,
}
