//! Ed25519 keys and signatures as SSH writes them (RFC 8709).

use base::{PublicKey, Signature};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::wire::{Reader, strings};

/// Name of the algorithm, of its keys and of its signatures.
pub const ED25519: &str = "ssh-ed25519";

/// A public key as it stands in messages.
#[must_use]
pub fn key_blob(key: &PublicKey) -> Vec<u8> {
    strings([ED25519.as_bytes(), &key.0])
}

/// None for a key of another kind, or for what is no key.
#[must_use]
pub fn key_of_blob(blob: &[u8]) -> Option<PublicKey> {
    let mut reader = Reader::new(blob);
    if reader.string().ok()? != ED25519.as_bytes() {
        return None;
    }
    let key = reader.string().ok()?.try_into().ok()?;
    reader.end().ok()?;
    Some(PublicKey(key))
}

/// As in `authorized_keys` and `id_ed25519.pub`, without a line end. A comment is one line: its control characters go.
#[must_use]
pub fn public_line(key: &PublicKey, comment: &str) -> String {
    let comment: String = comment.chars().filter(|c| !c.is_control()).collect();
    format!("{ED25519} {} {comment}", STANDARD.encode(key_blob(key)))
}

pub(crate) fn signature_blob(signature: &Signature) -> Vec<u8> {
    strings([ED25519.as_bytes(), &signature.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of the fixed vectors; `ssh-keygen -l` reads it as `SHA256:YGY3Id6jB00w7UUPFO6jRymKsMm5gxVVMJNstO0KI9M`.
    const LINE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIiEj1uCqBipLJQ7Td15Mg3y1WiasPz8b9f2NZhEx1fF /a/@ssh";

    #[test]
    fn a_key_is_written_as_ssh_keygen_writes_it_and_read_back() {
        let blob = STANDARD.decode(LINE.split(' ').nth(1).unwrap()).unwrap();
        let key = key_of_blob(&blob).unwrap();
        assert_eq!(public_line(&key, "/a/@ssh"), LINE);
        assert_eq!(public_line(&key, "/a/\n@ssh\u{1b}"), LINE, "no second line, no escape");
        assert_eq!(key_blob(&key), blob);
        for at in 0..blob.len() {
            assert_eq!(key_of_blob(&blob[..at]), None, "{at} bytes");
        }
        assert_eq!(key_of_blob(&[&blob[..], &[0]].concat()), None);
        let mut other = blob;
        other[5] = b'x';
        assert_eq!(key_of_blob(&other), None);
    }
}
