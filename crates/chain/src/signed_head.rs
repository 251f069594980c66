//! The signed head: a C2SP signed note whose text names the last entry, so that it can be kept and checked anywhere.

use std::fmt::Write;

use base::{AxiomRef, Hash, PublicKey, Sequence, limits::NAME_BYTES_MAX};
use ed25519_dalek::SigningKey;
use thiserror::Error;

use crate::note::{Algorithm, Note, NoteError, NoteSigner, VerifierKey};

/// Bytes of a signed head with its signatures: room for a few cosignatures.
pub const SIGNED_HEAD_BYTES_MAX: usize = 8192;
/// First line, before the node's name: so the text is never taken for a checkpoint of a tree.
const ORIGIN: &str = "bailiwick head ";

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignedHeadError {
    #[error("a signed head has at most {SIGNED_HEAD_BYTES_MAX} bytes")]
    TooLarge,
    #[error(
        "the text of a signed head is `bailiwick head NAME`, sequence, entry hash, and perhaps `state HASH`: line {0}"
    )]
    Text(usize),
    #[error(transparent)]
    Note(#[from] NoteError),
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

    fn parse(text: &str) -> Result<Self, SignedHeadError> {
        let mut lines = text.lines();
        let name = lines.next().and_then(|line| line.strip_prefix(ORIGIN)).ok_or(SignedHeadError::Text(1))?;
        check_name(name)?;
        let sequence = lines.next().and_then(|line| line.parse().ok()).ok_or(SignedHeadError::Text(2))?;
        let hash = lines.next().and_then(|line| line.parse().ok()).ok_or(SignedHeadError::Text(3))?;
        let state = match lines.next() {
            None => None,
            Some(line) => Some(
                line.strip_prefix("state ")
                    .and_then(|hash| hash.parse().ok())
                    .ok_or(SignedHeadError::Text(4))?,
            ),
        };
        let head =
            Self { name: name.to_owned(), head: AxiomRef { sequence: Sequence(sequence), hash }, state };
        // One text, one meaning: no plus signs, leading zeros or further lines.
        if head.text() == text { Ok(head) } else { Err(SignedHeadError::Text(5)) }
    }

    /// The note with one signature.
    pub fn sign(&self, key: &SigningKey) -> Result<SignedHead, SignedHeadError> {
        check_name(&self.name)?;
        let text = self.text();
        let signature = NoteSigner { name: &self.name, key }.sign(&text)?;
        Ok(SignedHead(Note::new(text, signature)?.to_string()))
    }
}

/// A note as text, nothing in it believed until `verify`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead(String);

impl SignedHead {
    /// Takes a note's text; only its size is checked here.
    pub fn new(text: impl Into<String>) -> Result<Self, SignedHeadError> {
        let text = text.into();
        if text.len() > SIGNED_HEAD_BYTES_MAX { Err(SignedHeadError::TooLarge) } else { Ok(Self(text)) }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the note says, if the key with the node's name signed it. Signatures of others are passed over.
    pub fn verify(&self, key: &PublicKey) -> Result<UnsignedHead, SignedHeadError> {
        let note: Note = self.0.parse()?;
        let head = UnsignedHead::parse(note.text())?;
        note.verify(&VerifierKey::new(head.name.clone(), Algorithm::Ed25519, *key)?)?;
        Ok(head)
    }
}

fn check_name(name: &str) -> Result<(), SignedHeadError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(legal);
    if fits { Ok(()) } else { Err(SignedHeadError::Name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::SIGNATURES_MAX;

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
        assert!(matches!(
            note.verify(&PublicKey([1; 32])),
            Err(SignedHeadError::Note(NoteError::NoSignature { .. }))
        ));
        let cosigned = format!("{}— witness AAAAAAAA\n", note.as_str());
        assert_eq!(SignedHead::new(cosigned).unwrap().verify(&public), Ok(head(None)));
        let many = format!("{}{}", note.as_str(), "— witness AAAAAAAA\n".repeat(SIGNATURES_MAX));
        assert_eq!(
            SignedHead::new(many).unwrap().verify(&public),
            Err(SignedHeadError::Note(NoteError::TooLarge))
        );
        let other = note.as_str().replace("node-a.example", "node-b.example");
        assert!(matches!(
            SignedHead::new(other).unwrap().verify(&public),
            Err(SignedHeadError::Note(NoteError::NoSignature { .. }))
        ));
        assert_eq!(SignedHead::new("x".repeat(SIGNED_HEAD_BYTES_MAX + 1)), Err(SignedHeadError::TooLarge));
        assert!(SignedHead::new("x".repeat(SIGNED_HEAD_BYTES_MAX)).unwrap().verify(&public).is_err());
        let bad = UnsignedHead { name: "two words".into(), ..head(None) };
        assert_eq!(bad.sign(&key), Err(SignedHeadError::Name));
    }

    #[test]
    fn a_name_is_bounded() {
        let (key, public) = key();
        let named = |bytes| UnsignedHead { name: "n".repeat(bytes), ..head(None) };
        assert_eq!(named(NAME_BYTES_MAX).sign(&key).unwrap().verify(&public), Ok(named(NAME_BYTES_MAX)));
        for bytes in [0, NAME_BYTES_MAX + 1] {
            assert_eq!(named(bytes).sign(&key), Err(SignedHeadError::Name));
        }
    }
}
