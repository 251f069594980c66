//! C2SP witnesses (`tlog-witness`): what a log asks of one, and what it may answer. Pure: who serves it keeps the latest
//! checkpoint of each log and replaces it before it answers.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::{
    checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint, decimal},
    note::{NOTE_BYTES_MAX, VerifierKey},
    tree::{TreeHash, verify_consistency},
};

/// Proof lines of one request.
pub const REQUEST_HASHES_MAX: usize = 63;
/// Bytes of one request.
pub const REQUEST_BYTES_MAX: usize = NOTE_BYTES_MAX + 4096;

/// The body of `add-checkpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the checkpoint that the witness signed last; 0 for none.
    pub old: u64,
    /// That the log only grew since.
    pub consistency: Vec<TreeHash>,
    pub checkpoint: SignedCheckpoint,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    #[error("a request has at most {REQUEST_BYTES_MAX} bytes and {REQUEST_HASHES_MAX} hashes")]
    TooLarge,
    #[error("a request is `old SIZE`, hashes, an empty line and a checkpoint: line {0}")]
    Form(usize),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// Why a witness does not sign.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WitnessRefusal {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the request speaks of a tree of {old} entries before one of {new}")]
    Backwards { old: u64, new: u64 },
    #[error("no key is known for the log {0:?}")]
    UnknownLog(String),
    #[error("the log's key did not sign: {0}")]
    Signature(CheckpointError),
    #[error("the checkpoint signed last has {latest} entries, the request goes on from {old}")]
    Conflict { latest: u64, old: u64 },
    #[error("the new checkpoint does not contain the one signed last: the log was changed")]
    Inconsistent,
}

impl WitnessRefusal {
    /// The HTTP status with which a witness says it.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Request(_) | Self::Backwards { .. } => 400,
            Self::Signature(_) => 403,
            Self::UnknownLog(_) => 404,
            Self::Conflict { .. } => 409,
            Self::Inconsistent => 422,
        }
    }
}

impl AddCheckpoint {
    /// Whether a witness that knows the log by `key`, and signed `latest` last, may sign. The checkpoint to sign and keep.
    pub fn decide(
        &self,
        key: Option<&VerifierKey>,
        latest: Option<&Checkpoint>,
    ) -> Result<&Checkpoint, WitnessRefusal> {
        let unknown = || WitnessRefusal::UnknownLog(self.checkpoint.unverified().origin.clone());
        let new = self.checkpoint.verify(key.ok_or_else(unknown)?).map_err(WitnessRefusal::Signature)?;
        if self.old > new.size {
            return Err(WitnessRefusal::Backwards { old: self.old, new: new.size });
        }
        let (known, root) = latest.map_or((0, TreeHash::empty()), |latest| (latest.size, latest.root));
        if self.old != known {
            return Err(WitnessRefusal::Conflict { latest: known, old: self.old });
        }
        let grew = verify_consistency(known, root, new.size, new.root, &self.consistency);
        let sound = new.size > 0 || new.root == TreeHash::empty();
        if grew && sound { Ok(new) } else { Err(WitnessRefusal::Inconsistent) }
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        self.consistency.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for AddCheckpoint {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, RequestError> {
        if text.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLarge);
        }
        let (head, note) = text.split_once("\n\n").ok_or(RequestError::Form(0))?;
        let mut lines = (1..).zip(head.split('\n'));
        let first = lines.next().and_then(|(_, line)| line.strip_prefix("old "));
        let old = first.and_then(decimal).ok_or(RequestError::Form(1))?;
        let mut consistency = Vec::new();
        for (at, line) in lines {
            if consistency.len() >= REQUEST_HASHES_MAX {
                return Err(RequestError::TooLarge);
            }
            consistency.push(line.parse().map_err(|_| RequestError::Form(at))?);
        }
        Ok(Self { old, consistency, checkpoint: note.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base::PublicKey;
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::tree::{Edge, NodeId, consistency_proof};

    struct Log {
        key: SigningKey,
        nodes: BTreeMap<NodeId, TreeHash>,
        roots: Vec<TreeHash>,
    }

    impl Log {
        fn new(entries: u64, salt: &str) -> Self {
            let (mut nodes, mut edge) = (BTreeMap::new(), Edge::default());
            let mut roots = vec![edge.root()];
            for n in 0..entries {
                let leaf = if n < 5 { format!("{n}") } else { format!("{n}{salt}") };
                edge.push(TreeHash::leaf(leaf.as_bytes()), |id, hash| {
                    nodes.insert(id, hash);
                });
                roots.push(edge.root());
            }
            Self { key: SigningKey::from_bytes(&[7; 32]), nodes, roots }
        }

        fn at(&self, size: u64) -> Checkpoint {
            Checkpoint { origin: "log.example".into(), size, root: self.roots[size as usize] }
        }

        fn request(&self, old: u64, size: u64) -> AddCheckpoint {
            let checkpoint = self.at(size).sign(&self.key).unwrap();
            let consistency = consistency_proof(&self.nodes, old, size).unwrap_or_default();
            AddCheckpoint { old, consistency, checkpoint }
        }

        fn verifier(&self) -> VerifierKey {
            self.at(0).key(&PublicKey(self.key.verifying_key().to_bytes())).unwrap()
        }
    }

    /// Truncation, rollback and a second history are refused; growth is not.
    #[test]
    fn a_witness_signs_growth_and_nothing_else() {
        let (log, forked) = (Log::new(12, ""), Log::new(12, "other"));
        let key = log.verifier();
        let decide = |request: &AddCheckpoint, latest: Option<Checkpoint>| {
            request
                .decide(Some(&key), latest.as_ref())
                .map(|new| new.size)
                .map_err(|refusal| refusal.status())
        };
        assert_eq!(decide(&log.request(0, 8), None), Ok(8));
        assert_eq!(decide(&log.request(8, 12), Some(log.at(8))), Ok(12));
        assert_eq!(decide(&log.request(8, 8), Some(log.at(8))), Ok(8));
        assert_eq!(decide(&log.request(0, 0), None), Ok(0));
        assert_eq!(decide(&log.request(9, 8), Some(log.at(9))), Err(400));
        assert_eq!(decide(&log.request(7, 8), Some(log.at(9))), Err(409));
        assert_eq!(decide(&log.request(0, 12), Some(log.at(8))), Err(409));
        assert_eq!(decide(&forked.request(8, 12), Some(log.at(8))), Err(422));
        assert_eq!(decide(&forked.request(8, 8), Some(log.at(8))), Err(422));
        assert_eq!(decide(&forked.request(5, 12), Some(log.at(5))), Ok(12));
        let mut proofless = log.request(8, 12);
        proofless.consistency.clear();
        assert_eq!(decide(&proofless, Some(log.at(8))), Err(422));
        let mut proven = log.request(0, 8);
        proven.consistency.push(TreeHash::empty());
        assert_eq!(decide(&proven, None), Err(422));
        let empty = Checkpoint { root: TreeHash::leaf(b""), ..log.at(0) };
        let empty = AddCheckpoint { checkpoint: empty.sign(&log.key).unwrap(), ..log.request(0, 0) };
        assert_eq!(decide(&empty, None), Err(422));
        assert_eq!(log.request(0, 8).decide(None, None).map_err(|refusal| refusal.status()), Err(404));
        let mut unsigned = log.request(0, 8);
        unsigned.checkpoint = log.at(8).sign(&SigningKey::from_bytes(&[9; 32])).unwrap();
        assert_eq!(decide(&unsigned, None), Err(403));
    }

    #[test]
    fn requests_read_back_and_are_bounded() {
        let log = Log::new(12, "");
        let request = log.request(5, 12);
        let text = request.to_string();
        assert_eq!(text.parse(), Ok(request));
        for bad in [
            String::new(),
            text.replace("old 5", "old 05"),
            text.replace("old 5", "new 5"),
            text.replace("old 5\n", ""),
            text.replace("\n\n", "\n"),
            format!("\n{text}"),
        ] {
            assert!(bad.parse::<AddCheckpoint>().is_err(), "{bad:?}");
        }
        let with = |count: usize| {
            let mut request = log.request(0, 12);
            request.consistency = vec![TreeHash::empty(); count];
            request.to_string().parse::<AddCheckpoint>()
        };
        assert!(with(REQUEST_HASHES_MAX).is_ok());
        assert_eq!(with(REQUEST_HASHES_MAX + 1), Err(RequestError::TooLarge));
    }
}
