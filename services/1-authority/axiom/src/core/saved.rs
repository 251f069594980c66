//! The sequencer as bytes, and from bytes: what a start would otherwise make of every entry before.

use std::sync::Arc;

use base::{
    AxiomRef, AxiomTime,
    cbor::{self, CborError},
};
use chain::ChainPoint;
use minicbor::{Decode, Encode};
use thiserror::Error;

use super::{
    archive::{Archive, OpenArchive},
    clock::{Clock, Reading},
    decisions::{Decision, Decisions},
    key_run::KeyRun,
    keys::{Keys, Past},
    sequencer::Sequencer,
    state::ControlState,
};

/// Raised whenever the same entries fold into something else than before: what was saved by another fold is not taken.
pub const FOLD_VERSION: u32 = 2;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResumeError {
    #[error("what was saved cannot be read: {0}")]
    Form(#[from] CborError),
    #[error("it was saved by version {0} of the fold, this build has {FOLD_VERSION}")]
    Fold(u32),
    #[error("it is of entry {found}, not of {expected}")]
    Entry { expected: AxiomRef, found: AxiomRef },
    #[error("its runs of keys do not reach from genesis to its entry")]
    Runs,
    #[error("it holds no genesis")]
    Genesis,
}

/// All that later entries are judged by, but for the keys, which lie in runs.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct Saved {
    #[n(0)]
    fold: u32,
    #[n(1)]
    last: AxiomRef,
    #[n(2)]
    last_time: AxiomTime,
    #[n(3)]
    state: ControlState,
    /// Oldest first.
    #[n(4)]
    decisions: Vec<Decision>,
    /// Decided, and neither carried out nor given up.
    #[n(5)]
    archive: Option<OpenArchive>,
}

impl Sequencer {
    /// The one canonical encoding: equal logs, equal bytes. None before genesis.
    #[must_use]
    pub fn save(&self) -> Option<Vec<u8>> {
        let saved = Saved {
            fold: FOLD_VERSION,
            last: self.point.last()?,
            last_time: self.last_time,
            state: self.state.clone(),
            decisions: self.decisions.all(),
            archive: self.archive.open().cloned(),
        };
        Some(cbor::encode(&saved))
    }

    /// The sequencer as it was behind `last`, to be fed every later entry with `replay`, and then to be started.
    pub fn resume(last: AxiomRef, saved: &[u8], runs: Vec<Arc<KeyRun>>) -> Result<Self, ResumeError> {
        let saved: Saved = cbor::decode(saved)?;
        if saved.fold != FOLD_VERSION {
            return Err(ResumeError::Fold(saved.fold));
        }
        if saved.last != last {
            return Err(ResumeError::Entry { expected: last, found: saved.last });
        }
        if saved.state.pinned.is_none() {
            return Err(ResumeError::Genesis);
        }
        let point = ChainPoint::after(last);
        let end = runs.iter().try_fold(0, |end, run| (run.from() == end).then_some(run.end()));
        if end != Some(point.next_sequence.0) {
            return Err(ResumeError::Runs);
        }
        let mut decisions = Decisions::default();
        saved.decisions.into_iter().for_each(|decision| decisions.insert(decision));
        let clock = Clock::start(saved.last_time, Reading::default());
        let keys = Keys::with_runs(runs);
        let archive = Archive::resume(saved.archive);
        Ok(Self { state: saved.state, point, last_time: saved.last_time, clock, keys, decisions, archive })
    }

    /// Where to look at entries whose keys lie in runs; without it each of them counts as another one.
    pub fn look_back_with(&mut self, past: Box<dyn Past>) {
        self.keys.look_back_with(past);
    }

    /// Moves the keys of all entries so far into runs.
    pub fn seal_keys(&mut self) {
        self.keys.seal(self.point.next_sequence);
    }

    /// Runs of the entries before the newest ones; behind `seal_keys`, of all.
    #[must_use]
    pub fn key_runs(&self) -> &[Arc<KeyRun>] {
        self.keys.runs()
    }

    /// Takes runs that another fold of the same log made, in the place of what is in memory.
    pub fn adopt_key_runs(&mut self, runs: Vec<Arc<KeyRun>>) {
        self.keys.adopt(runs);
    }
}
