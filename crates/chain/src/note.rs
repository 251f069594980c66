//! C2SP signed notes (`signed-note`, `tlog-cosignature`): a text, signatures beside it, and keys in one line.
//!
//! A note is text until a key that the reader already had has verified it; what other keys signed is passed over.

use std::{fmt, str::FromStr};

use base::PublicKey;
use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Bytes of a note with its signatures: room for all of them to be of the largest kind in use elsewhere.
pub const NOTE_BYTES_MAX: usize = 128 * 1024;
/// Signature lines of one note; a reader must take 16.
pub const SIGNATURES_MAX: usize = 32;
/// Bytes of a key's name.
pub const KEY_NAME_BYTES_MAX: usize = 255;

const KEY_ID_BYTES: usize = 4;
const TIME_BYTES: usize = 8;
const SIGNATURE_BYTES: usize = 64;
/// Between text and signatures, and before each signature.
const DASH: &str = "— ";

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoteError {
    #[error("a note has at most {NOTE_BYTES_MAX} bytes and {SIGNATURES_MAX} signatures")]
    TooLarge,
    #[error("a note has no control characters but line feeds")]
    Control,
    #[error("a note is lines of text, an empty line, and signature lines, each ended by a line feed")]
    Form,
    #[error("a signature line is `— NAME BASE64`, not {0:?}")]
    SignatureLine(String),
    #[error("no signature of {name} with the given key")]
    NoSignature { name: String },
    #[error("the signature of {name} does not match the text")]
    Signature { name: String },
    #[error("a key's name has 1 to {KEY_NAME_BYTES_MAX} bytes without spaces, control characters and `+`")]
    Name,
    #[error(
        "a key is written NAME+ID+BASE64, with the id that follows from name and key, for Ed25519 signatures (1) or cosignatures (4), not {0:?}"
    )]
    Key(String),
}

/// What a key signs with, by the byte that stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// Ed25519 over the text.
    Ed25519 = 1,
    /// Ed25519 over `cosignature/v1`, a time and the text: a witness saw nothing that contradicts this checkpoint.
    Cosignature = 4,
}

impl Algorithm {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Ed25519),
            4 => Some(Self::Cosignature),
            _ => None,
        }
    }
}

/// A public key with the name under which it signs. Text form: `NAME+ID+BASE64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    algorithm: Algorithm,
    key: PublicKey,
}

impl VerifierKey {
    pub fn new(name: impl Into<String>, algorithm: Algorithm, key: PublicKey) -> Result<Self, NoteError> {
        let name = name.into();
        check_name(&name)?;
        Ok(Self { name, algorithm, key })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.key
    }

    #[must_use]
    pub fn id(&self) -> [u8; KEY_ID_BYTES] {
        key_id(&self.name, self.algorithm, &self.key)
    }

    /// False also for what is no key, and for keys with which one signature holds for every message.
    fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.key.0) else { return false };
        key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.id());
        let key = STANDARD.encode([&[self.algorithm as u8], self.key.0.as_slice()].concat());
        write!(f, "{}+{id:08x}+{key}", self.name)
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let refuse = || NoteError::Key(text.chars().take(200).collect());
        let (name, rest) = text.split_once('+').ok_or_else(refuse)?;
        let (_, key) = rest.split_once('+').ok_or_else(refuse)?;
        let bytes = STANDARD.decode(key).map_err(|_| refuse())?;
        let (algorithm, key) = bytes.split_first().ok_or_else(refuse)?;
        let algorithm = Algorithm::from_byte(*algorithm).ok_or_else(refuse)?;
        let key = PublicKey(key.try_into().map_err(|_| refuse())?);
        let key = Self::new(name, algorithm, key)?;
        // One text for one key: the id must be the right one, in lower case.
        if key.to_string() == text { Ok(key) } else { Err(refuse()) }
    }
}

impl serde::Serialize for VerifierKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One signature line, nothing in it believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    /// Key id, then what the algorithm lays down.
    bytes: Vec<u8>,
}

impl NoteSignature {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DASH}{} {}", self.name, STANDARD.encode(&self.bytes))
    }
}

impl FromStr for NoteSignature {
    type Err = NoteError;

    /// A line without its line feed.
    fn from_str(line: &str) -> Result<Self, NoteError> {
        let refuse = || NoteError::SignatureLine(line.chars().take(80).collect());
        let (name, bytes) =
            line.strip_prefix(DASH).and_then(|rest| rest.split_once(' ')).ok_or_else(refuse)?;
        check_name(name).map_err(|_| refuse())?;
        let bytes = STANDARD.decode(bytes).map_err(|_| refuse())?;
        if bytes.len() <= KEY_ID_BYTES { Err(refuse()) } else { Ok(Self { name: name.to_owned(), bytes }) }
    }
}

/// A key that signs notes.
#[derive(Clone, Copy)]
pub struct NoteSigner<'k> {
    pub name: &'k str,
    pub key: &'k SigningKey,
}

impl NoteSigner<'_> {
    /// The key with which others verify.
    pub fn verifier(&self, algorithm: Algorithm) -> Result<VerifierKey, NoteError> {
        VerifierKey::new(self.name, algorithm, PublicKey(self.key.verifying_key().to_bytes()))
    }

    pub fn sign(&self, text: &str) -> Result<NoteSignature, NoteError> {
        let id = self.verifier(Algorithm::Ed25519)?.id();
        let bytes = [id.as_slice(), &self.key.sign(text.as_bytes()).to_bytes()].concat();
        Ok(NoteSignature { name: self.name.to_owned(), bytes })
    }

    /// The signature of a witness; `time_s` is seconds since the Unix epoch.
    pub fn cosign(&self, text: &str, time_s: u64) -> Result<NoteSignature, NoteError> {
        let id = self.verifier(Algorithm::Cosignature)?.id();
        let signature = self.key.sign(cosigned(time_s, text).as_bytes()).to_bytes();
        let bytes = [id.as_slice(), &time_s.to_be_bytes(), &signature].concat();
        Ok(NoteSignature { name: self.name.to_owned(), bytes })
    }
}

/// What a key that verified said beside the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Of a cosignature: when, in seconds since the Unix epoch. The latest of several.
    pub time_s: Option<u64>,
}

/// Text and signatures, nothing in it believed until `verify`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl Note {
    /// A note with its first signature. `text` ends with a line feed.
    pub fn new(text: String, signature: NoteSignature) -> Result<Self, NoteError> {
        // Read back, so that nothing is written that no reader takes.
        Self { text, signatures: vec![signature] }.to_string().parse()
    }

    /// What is signed, with its last line feed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature unless the very same one is there.
    pub fn add(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        if self.signatures.contains(&signature) {
            return Ok(());
        }
        if self.signatures.len() >= SIGNATURES_MAX {
            return Err(NoteError::TooLarge);
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// Replaces what `key` signed before: a witness' newest cosignature is the one that counts.
    pub fn replace(&mut self, key: &VerifierKey, signature: NoteSignature) -> Result<(), NoteError> {
        let id = key.id();
        self.signatures.retain(|known| known.name != key.name || !known.bytes.starts_with(&id));
        self.add(signature)
    }

    /// What `key` says of the text. A line of this key that does not hold spoils the whole note.
    pub fn verify(&self, key: &VerifierKey) -> Result<Signed, NoteError> {
        let id = key.id();
        let wrong = || NoteError::Signature { name: key.name.clone() };
        let mut found = None;
        for signature in self.signatures.iter().filter(|signature| signature.name == key.name) {
            let Some(bytes) = signature.bytes.strip_prefix(&id) else { continue };
            let time_s = match key.algorithm {
                Algorithm::Ed25519 => {
                    let bytes = bytes.try_into().map_err(|_| wrong())?;
                    key.verify(self.text.as_bytes(), bytes).then_some(None).ok_or_else(wrong)?
                }
                Algorithm::Cosignature => {
                    let (time, bytes) = bytes.split_first_chunk::<TIME_BYTES>().ok_or_else(wrong)?;
                    let time_s = u64::from_be_bytes(*time);
                    let bytes = bytes.try_into().map_err(|_| wrong())?;
                    let held = i64::try_from(time_s).is_ok()
                        && key.verify(cosigned(time_s, &self.text).as_bytes(), bytes);
                    held.then_some(Some(time_s)).ok_or_else(wrong)?
                }
            };
            found = found.max(Some(time_s));
        }
        let time_s = found.ok_or_else(|| NoteError::NoSignature { name: key.name.clone() })?;
        Ok(Signed { time_s })
    }
}

impl FromStr for Note {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLarge);
        }
        if note.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(NoteError::Control);
        }
        // The last empty line divides: the text may have some of its own.
        let (text, lines) = note.rsplit_once("\n\n").ok_or(NoteError::Form)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form)?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() >= SIGNATURES_MAX {
                return Err(NoteError::TooLarge);
            }
            signatures.push(line.parse()?);
        }
        Ok(Self { text: format!("{text}\n"), signatures })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

fn cosigned(time_s: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time_s}\n{text}")
}

/// SHA-256 over name, line feed, algorithm and key, first four bytes.
fn key_id(name: &str, algorithm: Algorithm, key: &PublicKey) -> [u8; KEY_ID_BYTES] {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', algorithm as u8])
        .chain_update(key.0)
        .finalize()
        .into();
    let [a, b, c, d, ..] = digest;
    [a, b, c, d]
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let legal = |letter: char| !letter.is_whitespace() && letter != '+' && !letter.is_control();
    let fits = !name.is_empty() && name.len() <= KEY_NAME_BYTES_MAX && name.chars().all(legal);
    if fits { Ok(()) } else { Err(NoteError::Name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    /// Notes and keys that others published: the specification's example, and one that has stood in the tests of Go's
    /// checksum database since its beginning.
    #[test]
    fn published_notes_verify() {
        let published = [
            (
                "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
                "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n",
            ),
            (
                "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n",
            ),
        ];
        for (key, text) in published {
            let key: VerifierKey = key.parse().unwrap();
            let note: Note = text.parse().unwrap();
            assert_eq!(note.to_string(), text);
            assert_eq!(note.verify(&key), Ok(Signed { time_s: None }));
            let changed: Note = text.replacen('i', "j", 1).parse().unwrap();
            assert!(matches!(changed.verify(&key), Err(NoteError::Signature { .. })));
        }
    }

    /// The poem of the specification: an empty line within the text belongs to the text.
    #[test]
    fn the_last_empty_line_divides() {
        let poem =
            "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n";
        let note: Note = format!(
            "{poem}\n— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
        )
        .parse()
        .unwrap();
        assert_eq!(note.text(), poem);
        assert_eq!(note.signatures()[0].name(), "quasimodo.example/salvatore");
    }

    #[test]
    fn keys_have_one_text() {
        let good = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        assert_eq!(good.parse::<VerifierKey>().unwrap().to_string(), good);
        for bad in [
            "",
            "example.com/foo",
            "example.com/foo+530d903a",
            "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/fop+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U",
            "example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            " example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        ] {
            assert!(bad.parse::<VerifierKey>().is_err(), "{bad}");
        }
        for (name, fits) in [
            ("a".repeat(KEY_NAME_BYTES_MAX), true),
            ("a".repeat(KEY_NAME_BYTES_MAX + 1), false),
            ("two\u{a0}words".into(), false),
            ("a+b".into(), false),
            ("größe/1".into(), true),
        ] {
            assert_eq!(VerifierKey::new(name, Algorithm::Ed25519, PublicKey([1; 32])).is_ok(), fits);
        }
    }

    #[test]
    fn signatures_and_cosignatures_of_several_keys_stand_beside_each_other() {
        let (log, witness) = (key(7), key(8));
        let log = NoteSigner { name: "log.example", key: &log };
        let witness = NoteSigner { name: "w.example", key: &witness };
        let text = "log.example\n1\nAAAA\n".to_owned();
        let mut note = Note::new(text.clone(), log.sign(&text).unwrap()).unwrap();
        let log_key = log.verifier(Algorithm::Ed25519).unwrap();
        let witness_key = witness.verifier(Algorithm::Cosignature).unwrap();
        assert!(matches!(note.verify(&witness_key), Err(NoteError::NoSignature { .. })));
        note.add(witness.cosign(&text, 1_679_315_147).unwrap()).unwrap();
        let note: Note = note.to_string().parse().unwrap();
        assert_eq!(note.verify(&log_key), Ok(Signed { time_s: None }));
        assert_eq!(note.verify(&witness_key), Ok(Signed { time_s: Some(1_679_315_147) }));
        // The same key as a plain signer is another key: another id.
        let plain = witness.verifier(Algorithm::Ed25519).unwrap();
        assert!(matches!(note.verify(&plain), Err(NoteError::NoSignature { .. })));
        let mut later = note.clone();
        later.replace(&witness_key, witness.cosign(&text, 1_679_315_148).unwrap()).unwrap();
        assert_eq!(later.signatures().len(), 2);
        assert_eq!(later.verify(&witness_key), Ok(Signed { time_s: Some(1_679_315_148) }));
    }

    /// One wrong line of a known key spoils the note, also beside a right one; lines of unknown keys do not.
    #[test]
    fn a_wrong_line_of_a_known_key_spoils_the_note() {
        let signing = key(7);
        let signer = NoteSigner { name: "log.example", key: &signing };
        let known = signer.verifier(Algorithm::Ed25519).unwrap();
        let (text, other) = ("text\n".to_owned(), "other\n".to_owned());
        let mut note = Note::new(text.clone(), signer.sign(&text).unwrap()).unwrap();
        let stranger = key(9);
        note.add(NoteSigner { name: "log.example", key: &stranger }.sign(&other).unwrap()).unwrap();
        assert!(note.verify(&known).is_ok());
        note.add(signer.sign(&other).unwrap()).unwrap();
        assert!(matches!(note.verify(&known), Err(NoteError::Signature { .. })));
    }

    /// The cosignature in the specification's example says its time.
    #[test]
    fn a_published_cosignature_has_its_time() {
        let line = "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==";
        let signature: NoteSignature = line.parse().unwrap();
        assert_eq!(signature.to_string(), line);
        assert_eq!(signature.bytes.len(), KEY_ID_BYTES + TIME_BYTES + SIGNATURE_BYTES);
        let time: [u8; 8] = signature.bytes[4..12].try_into().unwrap();
        assert_eq!(u64::from_be_bytes(time), 1_679_315_147);
    }

    #[test]
    fn times_beyond_what_is_allowed_and_broken_forms_are_refused() {
        let signing = key(7);
        let signer = NoteSigner { name: "w", key: &signing };
        let known = signer.verifier(Algorithm::Cosignature).unwrap();
        let text = "text\n".to_owned();
        for (time_s, holds) in [(i64::MAX as u64, true), (i64::MAX as u64 + 1, false)] {
            let note = Note::new(text.clone(), signer.cosign(&text, time_s).unwrap()).unwrap();
            assert_eq!(note.verify(&known).is_ok(), holds);
        }
        let line = signer.sign(&text).unwrap().to_string();
        let good = format!("text\n\n{line}\n");
        assert!(good.parse::<Note>().is_ok());
        for bad in [
            String::new(),
            "text\n".into(),
            "text\n\n".into(),
            format!("text\n{line}\n"),
            format!("text\n\n{line}"),
            format!("text\r\n\n{line}\n"),
            format!("te\0xt\n\n{line}\n"),
            format!("text\n\n{line}\n\n"),
            format!("text\n\n{line} \n"),
            format!("text\n\n{}\n", line.replace("— ", "- ")),
            "text\n\n— w AAAAAA==\n".into(),
        ] {
            assert!(bad.parse::<Note>().is_err(), "{bad:?}");
        }
        let lines = |count: usize| format!("text\n\n{}", format!("{line}\n").repeat(count)).parse::<Note>();
        assert!(lines(SIGNATURES_MAX).is_ok());
        assert_eq!(lines(SIGNATURES_MAX + 1), Err(NoteError::TooLarge));
        let long =
            |bytes: usize| format!("{}\n\n{line}\n", "x".repeat(bytes - line.len() - 3)).parse::<Note>();
        assert!(long(NOTE_BYTES_MAX).is_ok());
        assert_eq!(long(NOTE_BYTES_MAX + 1), Err(NoteError::TooLarge));
    }
}
