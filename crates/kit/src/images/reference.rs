//! How an image is referred to: by a name, by its id, or by both.

use std::{fmt, str::FromStr};

use base::TreeId;

/// Bytes of an image's name.
pub const NAME_BYTES_MAX: usize = 256;

/// `NAME`, `sha256:ID` or `NAME@sha256:ID`. With an id, the name says which of its names is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Empty: any.
    pub name: String,
    /// The image's id, or the digest that a registry has for it.
    pub digest: Option<TreeId>,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(id) = text.parse() {
            return Ok(Self { name: String::new(), digest: Some(id) });
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(|error| format!("{error}"))?)),
            None => (text, None),
        };
        image_name(name)?;
        Ok(Self { name: name.to_owned(), digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.digest {
            Some(id) if self.name.is_empty() => id.fmt(f),
            Some(id) => write!(f, "{}@{id}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A name that can be given to an image. None looks like an id, and none holds the `@` behind which rules see the id.
pub fn image_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!("{} bytes; a name has 1 to {NAME_BYTES_MAX}", name.len()));
    }
    if name.chars().any(|one| one.is_control() || one.is_whitespace() || one == '@') {
        return Err(format!("{name:?} has an `@`, a space or a control character; give another with --name"));
    }
    if ["sha256:", "blake3:"].iter().any(|prefix| name.starts_with(prefix)) {
        return Err(format!("{name:?} looks like an id; give another with --name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_said_by_name_by_id_or_by_both() {
        let id = TreeId([0xab; 32]);
        let of = |name: &str, digest| Ok(Reference { name: name.to_owned(), digest });
        let texts = [
            ("nginx".to_owned(), of("nginx", None)),
            ("localhost:5000/x:1".to_owned(), of("localhost:5000/x:1", None)),
            (id.to_string(), of("", Some(id))),
            (format!("web@{id}"), of("web", Some(id))),
        ];
        for (text, reference) in texts {
            assert_eq!(text.parse(), reference, "{text}");
            assert_eq!(reference.unwrap().to_string(), text);
        }
        for wrong in
            ["", "@", "a b", "web@", "web@sha256:ab", "sha256:ab", &format!("@{id}"), &format!("a@{id}@{id}")]
        {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_name_is_no_id_and_has_so_many_bytes() {
        let longest = "x".repeat(NAME_BYTES_MAX);
        for name in ["web", "docker.io/library/alpine:3.20", "\u{e4}", longest.as_str()] {
            assert!(image_name(name).is_ok(), "{name:?}");
        }
        for name in ["", "a b", "a@b", "a\n", "sha256:11", "blake3:11", &format!("{longest}x")] {
            assert!(image_name(name).is_err(), "{name:?}");
        }
    }
}
