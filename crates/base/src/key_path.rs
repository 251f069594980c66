use std::{fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, Encoder};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::limits::{KEY_PATH_SEGMENT_BYTES_MAX, KEY_PATH_SEGMENTS_MAX};

/// Common prefixes (KEY-12, KEY-30).
pub mod key_paths {
    pub const SYSTEM_ROOT: &str = "/orbital";
    pub const SYSTEM: &str = "/orbital/system";
    pub const SERVICES: &str = "/orbital/services";
    pub const USERS: &str = "/orbital/users";
    pub const NODES: &str = "/orbital/nodes";
    pub const ORGS: &str = "/orbital/orgs";
}

/// One part of a key path: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathSegment(String);

impl PathSegment {
    pub fn new(text: &str) -> Result<Self, KeyPathError> {
        if text.len() > KEY_PATH_SEGMENT_BYTES_MAX {
            return Err(KeyPathError::SegmentTooLong { bytes: text.len() });
        }
        if text.is_empty() || text == "." || text == ".." || text.contains(['/', '\0']) {
            return Err(KeyPathError::IllegalSegment(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Hierarchical key derivation path, for example `/orbital/users/alice/signing`. Has at least one segment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPath {
    segments: Vec<PathSegment>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyPathError {
    #[error("a key path must start with `/`: {0:?}")]
    MustStartWithSlash(String),
    #[error("a key path needs at least one segment")]
    EmptyPath,
    #[error("a key path has at most {KEY_PATH_SEGMENTS_MAX} segments, not {segments}")]
    TooManySegments { segments: usize },
    #[error("a key path segment has at most {KEY_PATH_SEGMENT_BYTES_MAX} bytes, not {bytes}")]
    SegmentTooLong { bytes: usize },
    #[error("a key path segment is not empty, `.` or `..`, and has no `/` or NUL: {0:?}")]
    IllegalSegment(String),
}

impl KeyPath {
    /// Splits on `/` and drops empty pieces, so repeated and trailing slashes add nothing (KEY-10).
    pub fn parse(text: &str) -> Result<Self, KeyPathError> {
        if !text.starts_with('/') {
            return Err(KeyPathError::MustStartWithSlash(text.chars().take(80).collect()));
        }
        let pieces = || text.split('/').filter(|piece| !piece.is_empty());
        match pieces().count() {
            0 => Err(KeyPathError::EmptyPath),
            segments if segments > KEY_PATH_SEGMENTS_MAX => Err(KeyPathError::TooManySegments { segments }),
            _ => Ok(Self { segments: pieces().map(PathSegment::new).collect::<Result<_, _>>()? }),
        }
    }

    #[must_use]
    pub fn segments(&self) -> &[PathSegment] {
        &self.segments
    }

    /// True for descendants at any depth, false for equal paths and siblings (KEY-11).
    #[must_use]
    pub fn is_child_of(&self, parent: &Self) -> bool {
        self.segments.len() > parent.segments.len() && self.segments.starts_with(&parent.segments)
    }

    /// None for a path of one segment (KEY-29).
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        match self.segments.split_last() {
            Some((_, rest)) if !rest.is_empty() => Some(Self { segments: rest.to_vec() }),
            _ => None,
        }
    }

    /// This path with one more segment.
    pub fn child(&self, segment: &str) -> Result<Self, KeyPathError> {
        if self.segments.len() >= KEY_PATH_SEGMENTS_MAX {
            return Err(KeyPathError::TooManySegments { segments: self.segments.len() + 1 });
        }
        let mut segments = self.segments.clone();
        segments.push(PathSegment::new(segment)?);
        Ok(Self { segments })
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments.iter().try_for_each(|segment| write!(f, "/{}", segment.0))
    }
}

impl fmt::Debug for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPath({self})")
    }
}

impl FromStr for KeyPath {
    type Err = KeyPathError;

    fn from_str(text: &str) -> Result<Self, KeyPathError> {
        Self::parse(text)
    }
}

impl<C> Encode<C> for KeyPath {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.to_string())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for KeyPath {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::parse(d.str()?).map_err(minicbor::decode::Error::custom)
    }
}

impl Serialize for KeyPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> KeyPath {
        KeyPath::parse(text).unwrap()
    }

    /// covers: KEY-09, KEY-10
    #[test]
    fn parsing_drops_empty_pieces_and_keeps_order() {
        assert_eq!(path("/orbital/users/alice/signing").segments().len(), 4);
        assert_eq!(path("//orbital///users/"), path("/orbital/users"));
        assert_eq!(path("/a/b").to_string(), "/a/b");
        assert!(path("/a/b") < path("/a/c"));
    }

    /// covers: KEY-11
    #[test]
    fn child_of_means_strictly_below() {
        for (child, parent, expected) in [
            ("/a/b", "/a", true),
            ("/a/b/c", "/a", true),
            ("/a", "/a", false),
            ("/a", "/a/b", false),
            ("/ab", "/a", false),
            ("/b/a", "/a", false),
        ] {
            assert_eq!(path(child).is_child_of(&path(parent)), expected, "{child} under {parent}");
        }
    }

    /// covers: KEY-12
    #[test]
    fn prefixes_are_the_seeds() {
        assert_eq!(
            [key_paths::SYSTEM, key_paths::SERVICES, key_paths::USERS, key_paths::NODES],
            ["/orbital/system", "/orbital/services", "/orbital/users", "/orbital/nodes"]
        );
    }

    /// covers: KEY-28, KEY-29
    #[test]
    fn illegal_paths_are_refused_and_limits_hold() {
        assert!(matches!(KeyPath::parse("a/b"), Err(KeyPathError::MustStartWithSlash(_))));
        assert!(matches!(KeyPath::parse("///"), Err(KeyPathError::EmptyPath)));
        for bad in ["/a/./b", "/a/..", "/a\0b"] {
            assert!(matches!(KeyPath::parse(bad), Err(KeyPathError::IllegalSegment(_))), "{bad:?}");
        }
        let deep = "/s".repeat(KEY_PATH_SEGMENTS_MAX);
        assert_eq!(path(&deep).segments().len(), KEY_PATH_SEGMENTS_MAX);
        assert!(matches!(
            KeyPath::parse(&format!("{deep}/s")),
            Err(KeyPathError::TooManySegments { segments: 17 })
        ));
        assert!(path(&deep).child("s").is_err());
        let long = "x".repeat(KEY_PATH_SEGMENT_BYTES_MAX);
        assert!(KeyPath::parse(&format!("/{long}")).is_ok());
        assert!(matches!(
            KeyPath::parse(&format!("/{long}x")),
            Err(KeyPathError::SegmentTooLong { bytes: 256 })
        ));
        assert_eq!(path("/a").parent(), None);
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/a").child("b").unwrap(), path("/a/b"));
    }
}
