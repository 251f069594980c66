//! Which decisions are in the log, and which were used: one decision, one signature, also across a restart.

use std::collections::{BTreeMap, BTreeSet};

use base::{AxiomRef, AxiomTime, Hash, Sequence};
use minicbor::{Decode, Encode};

/// Decisions remembered at once. They live 30 s, so this allows some 2 000 signatures a second for ever.
pub(super) const DECISIONS_MAX: usize = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Committed {
    #[n(0)]
    body_hash: Hash,
    #[n(1)]
    request_hash: Hash,
    #[n(2)]
    expires_at: AxiomTime,
}

/// Two bounded sets, both forgotten by expiry: an expired decision is refused for that alone.
#[derive(Debug, Default, Encode, Decode)]
#[cbor(array)]
pub(super) struct Ledger {
    #[n(0)]
    committed: BTreeMap<Sequence, Committed>,
    #[n(1)]
    by_body: BTreeMap<Hash, AxiomRef>,
    #[n(2)]
    used: BTreeMap<Hash, AxiomTime>,
    #[n(3)]
    used_by_expiry: BTreeSet<(AxiomTime, Hash)>,
}

impl Ledger {
    pub(super) fn commit(
        &mut self,
        at: AxiomRef,
        body_hash: Hash,
        request_hash: Hash,
        expires_at: AxiomTime,
    ) {
        self.committed.insert(at.sequence, Committed { body_hash, request_hash, expires_at });
        self.by_body.insert(body_hash, at);
        // Forgetting a committed decision refuses it; that is the safe side.
        while self.committed.len() > DECISIONS_MAX {
            self.forget_oldest_committed();
        }
    }

    fn forget_oldest_committed(&mut self) {
        if let Some((_, old)) = self.committed.pop_first() {
            self.by_body.remove(&old.body_hash);
        }
    }

    pub(super) fn committed(&self, body_hash: &Hash) -> Option<AxiomRef> {
        self.by_body.get(body_hash).copied()
    }

    /// False if the request was used before, or if nothing more can be remembered: both refuse.
    #[must_use]
    pub(super) fn use_once(&mut self, request_hash: Hash, expires_at: AxiomTime) -> bool {
        if self.used.len() >= DECISIONS_MAX || self.used.contains_key(&request_hash) {
            return false;
        }
        self.used.insert(request_hash, expires_at);
        self.used_by_expiry.insert((expires_at, request_hash))
    }

    /// A recorded use, read from the log: after a restart it stands for the memory that was lost.
    pub(super) fn used_in_log(&mut self, decision: AxiomRef) {
        if let Some(Committed { request_hash, expires_at, .. }) =
            self.committed.get(&decision.sequence).copied()
        {
            let _ = self.use_once(request_hash, expires_at);
        }
    }

    pub(super) fn forget_expired(&mut self, now: AxiomTime) {
        while self.used_by_expiry.first().is_some_and(|(expires_at, _)| *expires_at <= now) {
            if let Some((_, request_hash)) = self.used_by_expiry.pop_first() {
                self.used.remove(&request_hash);
            }
        }
        while self.committed.first_key_value().is_some_and(|(_, oldest)| oldest.expires_at <= now) {
            self.forget_oldest_committed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64) -> AxiomRef {
        AxiomRef { sequence: Sequence(sequence), hash: Hash::ZERO }
    }

    fn numbered(n: u64) -> Hash {
        Hash::of(&n.to_le_bytes())
    }

    #[test]
    fn a_full_ledger_refuses_and_expiry_makes_room() {
        let mut ledger = Ledger::default();
        for n in 0..DECISIONS_MAX as u64 {
            assert!(ledger.use_once(numbered(n), AxiomTime(10 + n)));
        }
        assert!(!ledger.use_once(numbered(u64::MAX), AxiomTime(u64::MAX)), "one past the limit");
        ledger.forget_expired(AxiomTime(9));
        assert!(!ledger.use_once(numbered(u64::MAX), AxiomTime(u64::MAX)), "nothing has expired yet");
        ledger.forget_expired(AxiomTime(10));
        assert!(ledger.use_once(numbered(u64::MAX), AxiomTime(u64::MAX)));
        assert!(!ledger.use_once(numbered(1), AxiomTime(11)), "not yet expired, so still used");
    }

    #[test]
    fn a_second_decision_for_the_same_request_does_not_make_it_usable_again() {
        let mut ledger = Ledger::default();
        assert!(ledger.use_once(numbered(1), AxiomTime(10)));
        assert!(!ledger.use_once(numbered(1), AxiomTime(10)));
        assert!(!ledger.use_once(numbered(1), AxiomTime(11)), "decided again, later");
        assert!(ledger.use_once(numbered(2), AxiomTime(10)));
    }

    #[test]
    fn committed_decisions_are_bounded_and_found_by_their_body() {
        let mut ledger = Ledger::default();
        for n in 0..=DECISIONS_MAX as u64 {
            ledger.commit(at(n), numbered(n), numbered(n), AxiomTime(n));
        }
        assert_eq!(ledger.committed(&numbered(0)), None);
        assert_eq!(ledger.committed(&numbered(1)), Some(at(1)));
        ledger.forget_expired(AxiomTime(1));
        assert_eq!(ledger.committed(&numbered(1)), None);
        assert_eq!(ledger.committed(&numbered(2)), Some(at(2)));
        assert_eq!(ledger.by_body.len(), ledger.committed.len());
    }
}
