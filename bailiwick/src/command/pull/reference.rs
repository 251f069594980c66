//! Names of images as people type them, and the registry that each means. Pure.

use base::TreeId;

/// Bytes of a repository's name with its registry, and of a tag, as registries take them.
const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;
/// What a name without a registry means, how it is called by who speaks to it, and where names of one word lie.
const USUAL_REGISTRY: &str = "docker.io";
const USUAL_HOST: &str = "registry-1.docker.io";
const USUAL_FOLDER: &str = "library";
const USUAL_TAG: &str = "latest";

/// `[REGISTRY/]NAME[:TAG][@DIGEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// As it was typed, without the digest: how the image is called here if nothing else is said.
    pub(super) typed: String,
    /// Host and port, as a name is written.
    pub(super) registry: String,
    pub(super) repository: String,
    /// None only if a digest says which one.
    pub(super) tag: Option<String>,
    pub(super) digest: Option<TreeId>,
}

impl Reference {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            Err(format!(
                "{text:?} is no image of a registry: {why}; write [REGISTRY/]NAME[:TAG][@sha256:DIGEST]"
            ))
        };
        let (typed, digest) = match text.split_once('@') {
            Some((typed, digest)) => match digest.parse() {
                Ok(digest) => (typed, Some(digest)),
                Err(_) => {
                    return wrong("what follows `@` is no digest `sha256:` and 64 small hexadecimal digits");
                }
            },
            None => (text, None),
        };
        // A `:` behind the last `/` is a tag's; one before it is a port's.
        let (name, tag) = match typed.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (typed, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return wrong("a tag has 1 to 128 bytes of A-Z a-z 0-9 _ . -, neither `.` nor `-` first");
        }
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest.to_owned()),
            Some(_) => (USUAL_REGISTRY, name.to_owned()),
            None => (USUAL_REGISTRY, format!("{USUAL_FOLDER}/{name}")),
        };
        let repository = match (registry, repository.contains('/')) {
            (USUAL_REGISTRY, false) => format!("{USUAL_FOLDER}/{repository}"),
            _ => repository,
        };
        if !is_registry(registry) {
            return wrong("its registry is no host with or without a port");
        }
        if registry.len() + 1 + repository.len() > NAME_BYTES_MAX || !repository.split('/').all(is_component)
        {
            return wrong(
                "a name has parts of a-z 0-9, with single `.`, one or two `_`, or `-` between them",
            );
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| USUAL_TAG.to_owned()));
        Ok(Self { typed: typed.to_owned(), registry: registry.to_owned(), repository, tag, digest })
    }

    /// Where it is asked for.
    fn host(&self) -> &str {
        if self.registry == USUAL_REGISTRY { USUAL_HOST } else { &self.registry }
    }

    /// Plain HTTP where it was asked for, and on the machine itself, as other tools have it.
    pub(super) fn origin(&self, plain: bool) -> String {
        let name = self.registry.rsplit_once(':').map_or(self.registry.as_str(), |(name, _)| name);
        let address = name.trim_start_matches('[').trim_end_matches(']');
        let is_own =
            name == "localhost" || address.parse::<::core::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        format!("{}://{}", if plain || is_own { "http" } else { "https" }, self.host())
    }

    /// What a registry is asked for first.
    pub(super) fn wanted(&self) -> String {
        match (&self.tag, self.digest) {
            (Some(tag), _) => tag.clone(),
            (None, Some(digest)) => digest.to_string(),
            (None, None) => USUAL_TAG.to_owned(),
        }
    }
}

fn is_tag(tag: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=TAG_BYTES_MAX).contains(&tag.len()) && tag.bytes().all(legal) && !tag.starts_with(['.', '-'])
}

fn is_registry(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    };
    let is_address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_address = is_address.is_some_and(|inner| inner.parse::<::core::net::Ipv6Addr>().is_ok());
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    let is_name = !name.is_empty() && name.bytes().all(legal);
    (is_address || is_name) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// One part of a repository's name.
fn is_component(part: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends_well = part.bytes().next().is_some_and(is_letter) && part.bytes().last().is_some_and(is_letter);
    // What stands between two letters.
    let mut between = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends_well && between.all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_people_mean_by_it() {
        let of = |text: &str| {
            let found = Reference::parse(text).unwrap();
            (found.registry.clone(), found.repository.clone(), found.wanted(), found.origin(false))
        };
        let is = |registry: &str, repository: &str, wanted: &str, origin: &str| {
            (registry.to_owned(), repository.to_owned(), wanted.to_owned(), origin.to_owned())
        };
        let hub = "https://registry-1.docker.io";
        assert_eq!(of("nginx"), is("docker.io", "library/nginx", "latest", hub));
        assert_eq!(of("docker.io/nginx"), is("docker.io", "library/nginx", "latest", hub));
        assert_eq!(of("docker.io/library/nginx:1.27"), is("docker.io", "library/nginx", "1.27", hub));
        assert_eq!(of("grafana/grafana:11"), is("docker.io", "grafana/grafana", "11", hub));
        assert_eq!(of("localhost:5000/x"), is("localhost:5000", "x", "latest", "http://localhost:5000"));
        assert_eq!(of("ghcr.io/a/b/c:v1"), is("ghcr.io", "a/b/c", "v1", "https://ghcr.io"));
        assert_eq!(of("127.0.0.1:5000/x").3, "http://127.0.0.1:5000");
        assert_eq!(of("[::1]:5000/x").3, "http://[::1]:5000");
        assert_eq!(of("192.0.2.1:5000/x").3, "https://192.0.2.1:5000");
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(of(&format!("nginx@{digest}")).2, digest);
        let both = Reference::parse(&format!("nginx:1@{digest}")).unwrap();
        assert_eq!(
            (both.wanted(), both.digest, both.typed),
            ("1".to_owned(), digest.parse().ok(), "nginx:1".to_owned())
        );
        assert_eq!(Reference::parse("h.test/x").unwrap().origin(true), "http://h.test");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(NAME_BYTES_MAX);
        for wrong in [
            "",
            "/",
            "a//b",
            "A",
            "a b",
            "a:",
            "a:.x",
            "a@sha256:12",
            "a@",
            "@",
            "-a",
            "a_",
            "a..b",
            "a___b",
            "a/../b",
            "h.test:0/x",
            "h.test:99999/x",
            "h.test:x/y",
            "user:pw@h.test/x",
            "http://h.test/x",
            "h.test/",
            "[::zz]:1/x",
            &long,
        ] {
            assert!(Reference::parse(wrong).is_err(), "{wrong:?}");
        }
        for right in ["a.b/c", "a-b", "a--b", "a__b.c", "0a"] {
            assert!(Reference::parse(right).is_ok(), "{right:?}");
        }
        assert!(Reference::parse(&format!("a:{}", "t".repeat(TAG_BYTES_MAX))).is_ok());
        assert!(Reference::parse(&format!("a:{}", "t".repeat(TAG_BYTES_MAX + 1))).is_err());
    }
}
