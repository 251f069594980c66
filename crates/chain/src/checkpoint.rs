//! C2SP checkpoints (`tlog-checkpoint`): which log, how many entries, which root. A signed note that can be kept anywhere
//! and be checked against every later state of the log.

use std::{fmt, str::FromStr};

use base::{Hash, PublicKey};
use ed25519_dalek::SigningKey;
use thiserror::Error;

use crate::{
    note::{Algorithm, Note, NoteError, NoteSigner, VerifierKey},
    tree::{TREE_SIZE_MAX, TreeHash},
};

/// Digits of genesis' hash in an origin: enough that two logs never share one by chance.
const ORIGIN_HASH_DIGITS: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error("a checkpoint is three lines, origin, size and root, each in its one form: line {0}")]
    Text(usize),
    #[error("the checkpoint is of the log {found:?}, the key is of {expected}")]
    Origin { expected: String, found: String },
    #[error("a log signs its checkpoints with a key of type 1, not with a witness' key")]
    Algorithm,
}

/// What a log says of itself at one moment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Checkpoint {
    /// Names the log, and its key.
    pub origin: String,
    /// Entries, from genesis on.
    pub size: u64,
    pub root: TreeHash,
}

/// The name of a node's log: the node's name, and what no other log shares, genesis.
#[must_use]
pub fn origin(node_name: &str, genesis: &Hash) -> String {
    let digits: String = genesis.to_hex().chars().take(ORIGIN_HASH_DIGITS).collect();
    format!("{node_name}/bailiwick/{digits}")
}

/// A number as C2SP writes it: digits without leading zeros, at most 2^63 - 1.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number <= TREE_SIZE_MAX && number.to_string() == text).then_some(number)
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root)
    }

    /// Reads the text of a note. Further lines are allowed and mean nothing here.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let lines: Vec<&str> = text.strip_suffix('\n').ok_or(CheckpointError::Text(0))?.split('\n').collect();
        if let Some(empty) = lines.iter().position(|line| line.is_empty()) {
            return Err(CheckpointError::Text(empty.saturating_add(1)));
        }
        let line = |at: usize| lines.get(at).copied().ok_or(CheckpointError::Text(at.saturating_add(1)));
        let origin = line(0)?.to_owned();
        let size = decimal(line(1)?).ok_or(CheckpointError::Text(2))?;
        let root: TreeHash = line(2)?.parse().map_err(|_| CheckpointError::Text(3))?;
        Ok(Self { origin, size, root })
    }

    /// The note with the log's own signature; the key has the origin as its name.
    pub fn sign(&self, key: &SigningKey) -> Result<SignedCheckpoint, CheckpointError> {
        let text = self.text();
        let signature = NoteSigner { name: &self.origin, key }.sign(&text)?;
        SignedCheckpoint::of(Note::new(text, signature)?)
    }

    /// The key of a log by its origin.
    pub fn key(&self, key: &PublicKey) -> Result<VerifierKey, NoteError> {
        VerifierKey::new(self.origin.clone(), Algorithm::Ed25519, *key)
    }
}

/// A checkpoint in its note. What it says is not believed until `verify`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    note: Note,
    checkpoint: Checkpoint,
}

impl SignedCheckpoint {
    fn of(note: Note) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::parse(note.text())?;
        Ok(Self { note, checkpoint })
    }

    #[must_use]
    pub const fn note(&self) -> &Note {
        &self.note
    }

    pub const fn note_mut(&mut self) -> &mut Note {
        &mut self.note
    }

    /// What it says, whoever signed it. For looking up by origin which key to verify with.
    #[must_use]
    pub const fn unverified(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What it says, if the log's key signed it.
    pub fn verify(&self, log: &VerifierKey) -> Result<&Checkpoint, CheckpointError> {
        if log.algorithm() != Algorithm::Ed25519 {
            return Err(CheckpointError::Algorithm);
        }
        if self.checkpoint.origin != log.name() {
            let (expected, found) = (log.name().to_owned(), self.checkpoint.origin.clone());
            return Err(CheckpointError::Origin { expected, found });
        }
        self.note.verify(log)?;
        Ok(&self.checkpoint)
    }
}

impl FromStr for SignedCheckpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        Self::of(text.parse()?)
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.note, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(size: u64) -> Checkpoint {
        let root = if size == 0 { TreeHash::empty() } else { TreeHash::leaf(b"x") };
        Checkpoint { origin: origin("desk", &Hash::of(b"genesis")), size, root }
    }

    #[test]
    fn the_published_example_reads_back() {
        let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
        let signed: SignedCheckpoint = text.parse().unwrap();
        assert_eq!(signed.to_string(), text);
        let read = signed.unverified();
        assert_eq!((read.origin.as_str(), read.size), ("example.com/behind-the-sofa", 20_852_163));
        assert_eq!(read.text(), signed.note().text());
    }

    #[test]
    fn a_checkpoint_verifies_with_the_key_of_its_origin_alone() {
        let signing = SigningKey::from_bytes(&[7; 32]);
        let public = PublicKey(signing.verifying_key().to_bytes());
        let signed = checkpoint(3).sign(&signing).unwrap();
        let key = checkpoint(3).key(&public).unwrap();
        assert_eq!(signed.verify(&key), Ok(&checkpoint(3)));
        let other = VerifierKey::new("other/bailiwick/00", Algorithm::Ed25519, public).unwrap();
        assert!(matches!(signed.verify(&other), Err(CheckpointError::Origin { .. })));
        let witness = VerifierKey::new(key.name(), Algorithm::Cosignature, public).unwrap();
        assert_eq!(signed.verify(&witness), Err(CheckpointError::Algorithm));
        for at in 0..signed.to_string().len() {
            let mut bytes = signed.to_string().into_bytes();
            bytes[at] ^= 1;
            let changed =
                String::from_utf8(bytes).ok().and_then(|text| text.parse::<SignedCheckpoint>().ok());
            assert!(changed.is_none_or(|changed| changed.verify(&key).is_err()), "byte {at}");
        }
    }

    #[test]
    fn texts_have_one_form() {
        let good = checkpoint(42).text();
        assert_eq!(Checkpoint::parse(&good), Ok(checkpoint(42)));
        assert_eq!(Checkpoint::parse(&checkpoint(0).text()), Ok(checkpoint(0)));
        assert!(Checkpoint::parse(&format!("{good}extension\n")).is_ok());
        let root = TreeHash::leaf(b"x");
        for (bad, line) in [
            (String::new(), 0),
            (good.trim_end().to_owned(), 0),
            (format!("\n42\n{root}\n"), 1),
            (format!("o\n042\n{root}\n"), 2),
            (format!("o\n+42\n{root}\n"), 2),
            (format!("o\n-1\n{root}\n"), 2),
            (format!("o\n9223372036854775808\n{root}\n"), 2),
            ("o\n42\n".to_owned(), 3),
            ("o\n42\nAAAA\n".to_owned(), 3),
            (format!("{good}\n"), 4),
        ] {
            assert_eq!(Checkpoint::parse(&bad), Err(CheckpointError::Text(line)), "{bad:?}");
        }
    }

    #[test]
    fn origins_tell_logs_of_one_name_apart() {
        assert_eq!(origin("desk", &Hash([0xab; 32])), "desk/bailiwick/abababababababab");
        assert_ne!(origin("desk", &Hash::of(b"a")), origin("desk", &Hash::of(b"b")));
    }
}
