//! What `[program] image` can say: a file of the host, an image of one file, or a container image.

use base::Hash;
use kit::images::Reference;

/// `image`, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramImage {
    /// Absolute.
    Path(String),
    /// A file in the node's store.
    File(Hash),
    /// What the program sees as its root.
    Container(Reference),
}

impl ProgramImage {
    /// None has another form: what is no path and no `blake3:` is the name or the id of a container image.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Path(text.to_owned()));
        }
        if text.starts_with("blake3:") {
            return text.parse().map(Self::File).map_err(|error| format!("{error}"));
        }
        text.parse().map(Self::Container).map_err(|error| {
            format!(
                "{text:?} is no absolute path, no `blake3:` and 64 hexadecimal digits, and no container image, NAME or \
                 sha256:ID: {error}"
            )
        })
    }

    #[must_use]
    pub fn container(self) -> Option<Reference> {
        match self {
            Self::Container(reference) => Some(reference),
            Self::Path(_) | Self::File(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_path_a_file_of_the_node_or_a_container_image() {
        let hash = Hash::of(b"x");
        assert_eq!(ProgramImage::parse("/bin/x"), Ok(ProgramImage::Path("/bin/x".to_owned())));
        assert_eq!(ProgramImage::parse(&hash.to_string()), Ok(ProgramImage::File(hash)));
        for name in ["web", "docker.io/library/nginx:1.27", &format!("web@sha256:{}", "ab".repeat(32))] {
            let parsed = ProgramImage::parse(name).unwrap().container().unwrap();
            assert_eq!(parsed.to_string(), name);
        }
        for wrong in ["", "a b", "blake3:ab", "sha256:ab", "web@sha256:ab"] {
            assert!(ProgramImage::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
