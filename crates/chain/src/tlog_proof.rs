//! C2SP proofs (`tlog-proof`): that one entry stands in a log, as a text that others' tools read. The entry itself goes
//! along as extra data, so that the file can be checked with nothing but the log's key.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use thiserror::Error;

use crate::{
    checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint, decimal},
    note::{NOTE_BYTES_MAX, VerifierKey},
    tree::{PROOF_HASHES_MAX, TreeHash, verify_inclusion},
};

/// First line.
pub const TLOG_PROOF_MAGIC: &str = "c2sp.org/tlog-proof@v1";
/// Bytes of a proof: checkpoint, hashes, and the largest entry in base64.
pub const TLOG_PROOF_BYTES_MAX: usize = NOTE_BYTES_MAX + 96 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TlogProofError {
    #[error("a proof has at most {TLOG_PROOF_BYTES_MAX} bytes")]
    TooLarge,
    #[error(
        "a proof is `{TLOG_PROOF_MAGIC}`, perhaps `extra BASE64`, `index N`, hashes, an empty line and a checkpoint: line {0}"
    )]
    Form(usize),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("the proof does not lead from the entry to the checkpoint's root")]
    Tree,
}

/// A proof as it is read, nothing in it believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// Of ours: the entry, header and payload.
    pub extra: Option<Vec<u8>>,
    pub index: u64,
    pub hashes: Vec<TreeHash>,
    pub checkpoint: SignedCheckpoint,
}

impl TlogProof {
    /// That `leaf` stands at `index` in the log of this key; what the log said.
    pub fn verify(&self, log: &VerifierKey, leaf: &[u8]) -> Result<&Checkpoint, TlogProofError> {
        let checkpoint = self.checkpoint.verify(log)?;
        let leaf = TreeHash::leaf(leaf);
        let held = verify_inclusion(leaf, self.index, checkpoint.size, &self.hashes, checkpoint.root);
        if held { Ok(checkpoint) } else { Err(TlogProofError::Tree) }
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TLOG_PROOF_MAGIC}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for TlogProof {
    type Err = TlogProofError;

    fn from_str(text: &str) -> Result<Self, TlogProofError> {
        use TlogProofError::Form;
        if text.len() > TLOG_PROOF_BYTES_MAX {
            return Err(TlogProofError::TooLarge);
        }
        let (head, note) = text.split_once("\n\n").ok_or(Form(0))?;
        let mut lines = (1..).zip(head.split('\n')).peekable();
        lines.next_if(|(_, line)| *line == TLOG_PROOF_MAGIC).ok_or(Form(1))?;
        let extra = match lines.peek().and_then(|(at, line)| Some((*at, line.strip_prefix("extra ")?))) {
            Some((at, extra)) => {
                lines.next();
                Some(STANDARD.decode(extra).map_err(|_| Form(at))?)
            }
            None => None,
        };
        let (at, index) = lines.next().ok_or(Form(2))?;
        let index = index.strip_prefix("index ").and_then(decimal).ok_or(Form(at))?;
        let mut hashes = Vec::new();
        for (at, line) in lines {
            if hashes.len() >= PROOF_HASHES_MAX {
                return Err(Form(at));
            }
            hashes.push(line.parse().map_err(|_| Form(at))?);
        }
        Ok(Self { extra, index, hashes, checkpoint: note.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_measured_before_it_is_read() {
        let of = |bytes: usize| "x".repeat(bytes).parse::<TlogProof>().unwrap_err();
        assert_eq!(of(TLOG_PROOF_BYTES_MAX), TlogProofError::Form(0));
        assert_eq!(of(TLOG_PROOF_BYTES_MAX + 1), TlogProofError::TooLarge);
        assert_eq!(of(2 * TLOG_PROOF_BYTES_MAX), TlogProofError::TooLarge);
    }
}
