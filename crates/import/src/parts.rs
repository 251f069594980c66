//! What Quadlet and compose files have in common: images, volumes, networks.

use crate::{
    manifest::{Folder, Manifest},
    service::plain_path,
    unit::value,
};

/// Where a service has folders of its own on the host, and in `/run`.
const FOLDER_ROOTS: [&str; 4] = ["/run/", "/var/lib/", "/var/log/", "/var/cache/"];
/// Size of the private `/tmp`, mebibytes.
const TMP_MB: u64 = 512;
/// Bytes of the name of a container image.
const IMAGE_NAME_BYTES_MAX: usize = 256;
/// What podman and docker wait between the signal and SIGKILL.
pub(crate) const STOP_MS: u64 = 10_000;

/// What every manifest of a container has.
pub(crate) fn begin(manifest: &mut Manifest) {
    manifest.program.runs = Some("foreground");
    manifest.sandbox.tmp_mb = Some(TMP_MB);
    manifest.health.stop_timeout_ms = Some(STOP_MS);
}

/// What is told of a container image.
pub(crate) const OF_STORE: &str =
    "[program] image, a container image: it has to be in the node's store when the manifest is applied";

/// What `image` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Image {
    /// A program of the host, or a file of the node.
    Program(String),
    /// A container image, by name or digest.
    Container(String),
}

pub(crate) fn image(text: &str) -> Result<Image, String> {
    if let Some(path) = host_program(text) {
        return Ok(Image::Program(path));
    }
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let is_digest = |digest: &str| hex_behind(digest, "sha256:");
    let is_name =
        !name.is_empty() && name.len() <= IMAGE_NAME_BYTES_MAX && !name.starts_with(['/', '.', '$', '%']);
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':');
    let named =
        is_name && name.chars().all(legal) && !name.starts_with("sha256:") && !name.starts_with("blake3:");
    if is_digest(text) || (named && digest.is_none_or(is_digest)) {
        return Ok(Image::Container(text.to_owned()));
    }
    Err(format!("{text:?} is no absolute path of a program of the host and no name of a container image"))
}

/// A program that the host has, or a file of the node.
pub(crate) fn host_program(text: &str) -> Option<String> {
    if text.starts_with('/') && !text.split('/').any(|part| part == "..") {
        return Some(plain_path(text));
    }
    hex_behind(text, "blake3:").then(|| text.to_owned())
}

fn hex_behind(text: &str, prefix: &str) -> bool {
    let digits = text.strip_prefix(prefix);
    digits.is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// Says in the head of a manifest which image it needs, and what brings it in.
pub(crate) fn needs_image(manifest: &mut Manifest, reference: &str) {
    manifest.head.push(format!(
        "Needs the container image {reference} in the node's store: `bailiwick image list` shows what is there, \
         `bailiwick image pull {reference}` or `bailiwick image import FILE --name {reference}` brings it in."
    ));
    manifest.program.image = reference.to_owned();
}

/// What a volume comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Volume {
    Grant(String, bool),
    Folder(String),
}

pub(crate) fn volume(source: &str, target: &str, read_only: bool) -> Result<Volume, String> {
    let climbs = |path: &str| path.split('/').any(|part| part == "..");
    if !target.starts_with('/') || climbs(target) {
        return Err(format!("{target:?} is no absolute path"));
    }
    let target = plain_path(target);
    if source.starts_with('/') && !climbs(source) {
        let source = plain_path(source);
        return match source == target && source != "/" {
            true => Ok(Volume::Grant(source, !read_only)),
            false => Err(format!("{source} would be shown as {target}; a grant shows a path where it is")),
        };
    }
    if source.starts_with(['.', '~', '%', '$']) || source.contains('/') {
        return Err(format!("{source:?} is no absolute path; write it whole"));
    }
    let below =
        FOLDER_ROOTS.iter().any(|root| target.starts_with(root)) && !target.starts_with("/run/bailiwick");
    match below {
        true => Ok(Volume::Folder(target)),
        false => Err(format!(
            "the volume would be shown as {target}; a service has folders below /run, /var/lib, /var/log and /var/cache only"
        )),
    }
}

/// Adds a volume; the text says what it is now.
pub(crate) fn add_volume(manifest: &mut Manifest, volume: Volume) -> &'static str {
    let program = &mut manifest.program;
    match volume {
        Volume::Grant(path, writable) => {
            let grant = if writable { format!("{path}:rw") } else { path };
            if !program.fs.contains(&grant) {
                program.fs.push(grant);
            }
            "[program] fs"
        }
        Volume::Folder(path) => {
            if !program.folders.iter().any(|folder| folder.path == path) {
                program.folders.push(Folder { path, mode: "0755".to_owned() });
            }
            "[program] folders: a folder of the host, not a volume that an engine keeps"
        }
    }
}

/// The source, the target, read-only, of `SOURCE:TARGET:OPTIONS` or `TARGET`.
pub(crate) fn split_volume(text: &str) -> (String, String, bool) {
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or_default();
    match parts.next() {
        None => ("anonymous".to_owned(), first.to_owned(), false),
        Some(target) => {
            let read_only =
                parts.next().is_some_and(|options| options.split(',').any(|option| option == "ro"));
            (first.to_owned(), target.to_owned(), read_only)
        }
    }
}

/// A folder in memory that is there in any case.
pub(crate) fn is_temporary(path: &str) -> bool {
    matches!(path.split(':').next().unwrap_or(path).trim_end_matches('/'), "/tmp" | "/run" | "/var/run")
}

/// One more privilege.
pub(crate) fn privilege(manifest: &mut Manifest, name: &str) -> Result<(), String> {
    let known = value::capability(name).filter(|known| base::PRIVILEGES.contains(known));
    let Some(known) = known else { return Err(format!("{name} cannot be kept by any program here")) };
    if manifest.program.user.is_none() {
        return Err(format!("{name} needs a user of the host: name one"));
    }
    if !manifest.program.privileges.iter().any(|one| one == known) {
        manifest.program.privileges.push(known.to_owned());
    }
    Ok(())
}

/// `NAME` or `NAME:GROUP` as the supervisor takes them.
pub(crate) fn account(text: &str) -> Result<String, String> {
    let legal = |name: &str| {
        let chars = name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
        (1..=32).contains(&name.len()) && chars && !name.starts_with('-')
    };
    match text.split(':').all(legal) && text.split(':').count() <= 2 {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no user of the host")),
    }
}

/// A number within what the supervisor takes.
pub(crate) fn number(text: &str, max: u64) -> Result<u64, String> {
    match text.trim().parse::<u64>() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is no number of 1 to {max}")),
    }
}

/// Mebibytes of a size as podman and compose write it: `512m`, `1g`, `1gb`.
pub(crate) fn megabytes(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let plain = upper.strip_suffix('B').filter(|rest| rest.ends_with(char::is_alphabetic)).unwrap_or(&upper);
    match value::bytes(plain) {
        Ok(Some(bytes)) if bytes > 0 && bytes <= 1 << 40 => Ok(bytes.div_ceil(1 << 20)),
        _ => Err(format!("{text:?} is no size")),
    }
}

/// A number of bytes or operations per second, as systemd counts them: by 1000. `None` for infinity.
pub(crate) fn thousands(text: &str) -> Result<Option<u64>, String> {
    let text = text.trim();
    if text == "infinity" {
        return Ok(None);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text.get(digits.len()..).unwrap_or_default() {
        "" | "B" => 1,
        "K" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        _ => return Err(format!("{text:?} is no number with K, M, G or T")),
    };
    let number = digits.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match number.filter(|number| i64::try_from(*number).is_ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(format!("{text:?} is no number, or too large")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_grants_folders_or_refused() {
        let check = |text: &str, expected: Option<Volume>| {
            let (source, target, read_only) = split_volume(text);
            assert_eq!(volume(&source, &target, read_only).ok(), expected, "{text}");
        };
        check("/srv/x:/srv/x", Some(Volume::Grant("/srv/x".into(), true)));
        check("/srv/x:/srv/x:ro,Z", Some(Volume::Grant("/srv/x".into(), false)));
        check("data:/var/lib/x", Some(Volume::Folder("/var/lib/x".into())));
        check("/var/lib/x", Some(Volume::Folder("/var/lib/x".into())));
        for refused in ["/a:/b", "data:/data", "./x:/srv/x", "data:relative", "/:/", "/a/../b:/a/../b"] {
            check(refused, None);
        }
    }

    #[test]
    fn images_are_programs_of_the_host_or_container_images() {
        let path = Image::Program("/usr/sbin/nginx".into());
        assert_eq!(image("/usr/sbin/nginx"), Ok(path));
        assert!(matches!(image(&format!("blake3:{}", "0".repeat(64))), Ok(Image::Program(_))));
        let digest = format!("sha256:{}", "0".repeat(64));
        let longest = "n".repeat(IMAGE_NAME_BYTES_MAX);
        for name in ["nginx", "docker.io/library/nginx:1", &format!("a:1@{digest}"), &digest, &longest] {
            assert_eq!(image(name), Ok(Image::Container(name.into())), "{name}");
        }
        for refused in
            ["", "/a/../b", "blake3:0", "sha256:0", "a@b", "a b", "./a", "$A", "%n", &format!("{longest}n")]
        {
            assert!(image(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn sizes_and_numbers_have_limits() {
        assert_eq!(
            (megabytes("512m"), megabytes("1GB"), megabytes("0")),
            (Ok(512), Ok(1024), Err("\"0\" is no size".into()))
        );
        assert!(number("3", 3).is_ok() && number("4", 3).is_err() && number("0", 3).is_err());
        assert!(
            account(&"u".repeat(32)).is_ok()
                && account(&"u".repeat(33)).is_err()
                && account("a:b:c").is_err()
        );
    }
}
