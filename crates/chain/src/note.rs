//! The signed head: a C2SP signed note whose text names the last entry, so that it can be kept and checked anywhere.

use std::fmt::Write;

use base::{AxiomRef, Hash, PublicKey, Sequence, limits::NAME_BYTES_MAX};
use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Bytes of a signed head with its signatures: room for a few cosignatures.
pub const NOTE_BYTES_MAX: usize = 8192;
/// Signature lines of one note.
const SIGNATURES_MAX: usize = 16;
/// First line, before the node's name: so the text is never taken for a checkpoint of a tree.
const ORIGIN: &str = "bailiwick head ";
const ALGORITHM_ED25519: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoteError {
    #[error("a signed head has at most {NOTE_BYTES_MAX} bytes and {SIGNATURES_MAX} signatures")]
    TooLarge,
    #[error(
        "the text of a signed head is `bailiwick head NAME`, sequence, entry hash, and perhaps `state HASH`: line {0}"
    )]
    Text(usize),
    #[error("a signature line is `— NAME BASE64`, not {0:?}")]
    SignatureLine(String),
    #[error("no signature of {name} with the given key")]
    NoSignature { name: String },
    #[error("the signature of {name} does not match the text")]
    Signature { name: String },
    #[error("a node's name has 1 to {NAME_BYTES_MAX} bytes of [A-Za-z0-9_.-]")]
    Name,
}

/// What a head says; not yet signed, or checked and taken out of its note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsignedHead {
    /// The node's name, also the name of its key.
    pub name: String,
    pub head: AxiomRef,
    /// Hash of the state after the entry, in the head of a snapshot.
    pub state: Option<Hash>,
}

impl UnsignedHead {
    fn text(&self) -> String {
        let mut text = format!("{ORIGIN}{}\n{}\n{}\n", self.name, self.head.sequence, self.head.hash);
        if let Some(state) = self.state {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "state {state}");
        }
        text
    }

    fn parse(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.lines();
        let name = lines.next().and_then(|line| line.strip_prefix(ORIGIN)).ok_or(NoteError::Text(1))?;
        check_name(name)?;
        let sequence = lines.next().and_then(|line| line.parse().ok()).ok_or(NoteError::Text(2))?;
        let hash = lines.next().and_then(|line| line.parse().ok()).ok_or(NoteError::Text(3))?;
        let state = match lines.next() {
            None => None,
            Some(line) => Some(
                line.strip_prefix("state ").and_then(|hash| hash.parse().ok()).ok_or(NoteError::Text(4))?,
            ),
        };
        let head =
            Self { name: name.to_owned(), head: AxiomRef { sequence: Sequence(sequence), hash }, state };
        // One text, one meaning: no plus signs, leading zeros or further lines.
        if head.text() == text { Ok(head) } else { Err(NoteError::Text(5)) }
    }

    /// The note with one signature.
    pub fn sign(&self, key: &SigningKey) -> Result<SignedHead, NoteError> {
        check_name(&self.name)?;
        let text = self.text();
        let mut signature = key_id(&self.name, &PublicKey(key.verifying_key().to_bytes())).to_vec();
        signature.extend(key.sign(text.as_bytes()).to_bytes());
        Ok(SignedHead(format!("{text}\n— {} {}\n", self.name, STANDARD.encode(signature))))
    }
}

/// A note as text, nothing in it believed until `verify`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead(String);

impl SignedHead {
    /// Takes a note's text; only its size is checked here.
    pub fn new(text: impl Into<String>) -> Result<Self, NoteError> {
        let text = text.into();
        if text.len() > NOTE_BYTES_MAX { Err(NoteError::TooLarge) } else { Ok(Self(text)) }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the note says, if the key with the node's name signed it. Signatures of others are passed over.
    pub fn verify(&self, key: &PublicKey) -> Result<UnsignedHead, NoteError> {
        let (text, signatures) = self.0.split_once("\n\n").ok_or(NoteError::Text(0))?;
        let text = format!("{text}\n");
        let head = UnsignedHead::parse(&text)?;
        let missing = || NoteError::NoSignature { name: head.name.clone() };
        let wrong = || NoteError::Signature { name: head.name.clone() };
        let own_id = key_id(&head.name, key);
        let mut own = None;
        for (count, line) in signatures.lines().enumerate() {
            if count >= SIGNATURES_MAX {
                return Err(NoteError::TooLarge);
            }
            let (name, bytes) = signature_line(line)?;
            if let Some(signature) = bytes.strip_prefix(&own_id).filter(|_| name == head.name) {
                own = own.or(Some(signature.to_vec()));
            }
        }
        let signature: [u8; 64] = own.ok_or_else(missing)?.as_slice().try_into().map_err(|_| wrong())?;
        let key = VerifyingKey::from_bytes(&key.0).map_err(|_| wrong())?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature);
        key.verify_strict(text.as_bytes(), &signature).map_err(|_| wrong())?;
        Ok(head)
    }
}

fn signature_line(line: &str) -> Result<(&str, Vec<u8>), NoteError> {
    let refuse = || NoteError::SignatureLine(line.chars().take(80).collect());
    let (name, bytes) = line.strip_prefix("— ").and_then(|rest| rest.split_once(' ')).ok_or_else(refuse)?;
    Ok((name, STANDARD.decode(bytes).map_err(|_| refuse())?))
}

/// C2SP key id: SHA-256 over name, line feed, algorithm and key, first four bytes.
fn key_id(name: &str, key: &PublicKey) -> [u8; 4] {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', ALGORITHM_ED25519])
        .chain_update(key.0)
        .finalize()
        .into();
    let [a, b, c, d, ..] = digest;
    [a, b, c, d]
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(legal);
    if fits { Ok(()) } else { Err(NoteError::Name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> (SigningKey, PublicKey) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = PublicKey(key.verifying_key().to_bytes());
        (key, public)
    }

    fn head(state: Option<Hash>) -> UnsignedHead {
        let head = AxiomRef { sequence: Sequence(42), hash: Hash::of(b"entry") };
        UnsignedHead { name: "node-a.example".into(), head, state }
    }

    #[test]
    fn a_signed_head_reads_back_and_any_changed_byte_is_refused() {
        let (key, public) = key();
        for state in [None, Some(Hash::of(b"state"))] {
            let note = head(state).sign(&key).unwrap();
            assert_eq!(note.verify(&public), Ok(head(state)));
            for at in 0..note.as_str().len() {
                let mut bytes = note.as_str().as_bytes().to_vec();
                bytes[at] ^= 1;
                if let Ok(text) = String::from_utf8(bytes) {
                    assert!(SignedHead::new(text).unwrap().verify(&public).is_err(), "byte {at}");
                }
            }
        }
    }

    #[test]
    fn other_keys_names_and_forms_are_refused() {
        let (key, public) = key();
        let note = head(None).sign(&key).unwrap();
        assert!(matches!(note.verify(&PublicKey([1; 32])), Err(NoteError::NoSignature { .. })));
        let cosigned = format!("{}— witness AAAAAAAA\n", note.as_str());
        assert_eq!(SignedHead::new(cosigned).unwrap().verify(&public), Ok(head(None)));
        let many = format!("{}{}", note.as_str(), "— witness AAAAAAAA\n".repeat(SIGNATURES_MAX));
        assert_eq!(SignedHead::new(many).unwrap().verify(&public), Err(NoteError::TooLarge));
        let other = note.as_str().replace("node-a.example", "node-b.example");
        assert!(matches!(
            SignedHead::new(other).unwrap().verify(&public),
            Err(NoteError::NoSignature { .. })
        ));
        assert_eq!(SignedHead::new("x".repeat(NOTE_BYTES_MAX + 1)), Err(NoteError::TooLarge));
        assert!(SignedHead::new("x".repeat(NOTE_BYTES_MAX)).unwrap().verify(&public).is_err());
        let bad = UnsignedHead { name: "two words".into(), ..head(None) };
        assert_eq!(bad.sign(&key), Err(NoteError::Name));
    }

    #[test]
    fn a_name_and_the_lines_of_signatures_are_bounded() {
        let (key, public) = key();
        let named = |bytes| UnsignedHead { name: "n".repeat(bytes), ..head(None) };
        assert_eq!(named(NAME_BYTES_MAX).sign(&key).unwrap().verify(&public), Ok(named(NAME_BYTES_MAX)));
        for bytes in [0, NAME_BYTES_MAX + 1] {
            assert_eq!(named(bytes).sign(&key), Err(NoteError::Name));
        }
        let note = head(None).sign(&key).unwrap();
        let cosigned = format!("{}{}", note.as_str(), "— witness AAAAAAAA\n".repeat(SIGNATURES_MAX - 1));
        assert_eq!(SignedHead::new(cosigned).unwrap().verify(&public), Ok(head(None)));
        for line in ["witness AAAA", "— witness", "— witness !"] {
            let text = format!("{}{line}\n", note.as_str());
            let found = SignedHead::new(text).unwrap().verify(&public);
            assert_eq!(found, Err(NoteError::SignatureLine(line.to_owned())));
        }
    }
}
