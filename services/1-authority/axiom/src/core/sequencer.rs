//! One order: units in, entries and replies out.

use base::{AxiomRef, AxiomTime, Hash, PublicKey, Sequence, limits::PAYLOAD_SIZE_BYTES_MAX};
use chain::{
    ChainPoint, Entry, EntryHeader, EntryType, GROUP_ENTRIES_MAX, HeaderError,
    payload::{
        EnvelopeHead, Payload, PayloadError,
        identity::{IdentityChange, KeyUsage},
    },
    record_bytes,
};
use thiserror::Error;

use super::{
    archive::{Archive, OpenArchive},
    clock::{Clock, Reading},
    decisions::{Decision, Decisions},
    keys::{Id, Keys, Known},
    reply::{Batch, Draft, Refusal, RejectionReason, Source, Unit, UnitReply},
    state::ControlState,
};

/// Boot name of the one that appends over a channel of its own.
const SUPERVISOR: &str = "supervisor";
/// Entries of a unit: a decision and its act.
pub const UNIT_ENTRIES_MAX: usize = 2;

/// What the log has room for, as the store tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of records that one group may have.
    pub body_bytes_max: u64,
    /// Only the reserve is left: acts that only take away, and the shutdown.
    pub reserve_only: bool,
    /// Nothing is left.
    pub full: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GenesisError {
    #[error("genesis is malformed: {0}")]
    Payload(#[from] PayloadError),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("the bytes are no genesis payload")]
    NotGenesis,
}

/// The first entry, from the bytes of `genesis.cbor`. Its time is the one inside.
pub fn genesis_entry(payload: &[u8]) -> Result<(Entry, Hash), GenesisError> {
    let Payload::Genesis(genesis) = Payload::decode(EntryType::Genesis.code(), payload)? else {
        return Err(GenesisError::NotGenesis);
    };
    let time = genesis.body.genesis_time;
    Ok(Entry::next(Sequence(0), Hash::ZERO, time, EntryType::Genesis, payload.to_vec())?)
}

pub struct Sequencer {
    pub(super) state: ControlState,
    pub(super) point: ChainPoint,
    pub(super) last_time: AxiomTime,
    pub(super) clock: Clock,
    pub(super) keys: Keys,
    pub(super) decisions: Decisions,
    pub(super) archive: Archive,
}

/// A draft that passed every check.
struct Valid {
    entry_type: EntryType,
    payload: Vec<u8>,
    payload_hash: Hash,
    head: EnvelopeHead,
    id: Id,
    decoded: Payload,
    decision: Option<Decision>,
}

type Reason = (RejectionReason, String);

/// What is read off a draft before anything of it is believed; computed once.
struct Peeked {
    head: EnvelopeHead,
    payload_hash: Hash,
    id: Id,
}

impl Peeked {
    fn of(draft: &Draft) -> Result<Self, PayloadError> {
        let head = EnvelopeHead::peek(&draft.payload)?;
        let id = Id::of(&head.submitter, &head.key);
        Ok(Self { head, payload_hash: Hash::of(&draft.payload), id })
    }
}

impl Default for Sequencer {
    fn default() -> Self {
        Self::new()
    }
}

impl Sequencer {
    /// Before genesis. Feed it every entry with `replay`, then `start`.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: ControlState::default(),
            point: ChainPoint::GENESIS,
            last_time: AxiomTime::ZERO,
            clock: Clock::start(AxiomTime::ZERO, Reading::default()),
            keys: Keys::default(),
            decisions: Decisions::default(),
            archive: Archive::default(),
        }
    }

    /// What was decided to be archived and is not closed by a receipt.
    #[must_use]
    pub const fn open_archive(&self) -> Option<&OpenArchive> {
        self.archive.open()
    }

    /// Believes every decision whoever signed it; for `prove --break decision-signature` alone.
    pub fn trust_signatures(&mut self) {
        self.decisions.trust();
    }

    /// Takes in an entry of the log at the start. False if the payload cannot be read.
    pub fn replay(&mut self, header: &EntryHeader, payload: &[u8], hash: Hash) -> bool {
        let Ok(decoded) = Payload::decode(header.entry_type.code(), payload) else { return false };
        let entry = AxiomRef { sequence: header.sequence, hash };
        self.last_time = self.last_time.max(header.timestamp);
        self.decisions.forget_before(self.last_time);
        let head = decoded.head();
        let id = Id::of(&head.submitter, &head.key);
        self.remember(id, &head, header.entry_type, &header.payload_hash, entry, decision_of(&decoded));
        self.state.apply(header.sequence, &decoded);
        self.archive.apply(entry, &decoded);
        self.point = ChainPoint::after(entry);
        true
    }

    /// Ends the replay: from here on time runs.
    pub fn start(&mut self, reading: Reading) {
        self.clock = Clock::start(self.last_time, reading);
    }

    #[must_use]
    pub const fn state(&self) -> &ControlState {
        &self.state
    }

    /// Time of the last entry.
    #[must_use]
    pub const fn last_time(&self) -> AxiomTime {
        self.last_time
    }

    /// The place of the next entry.
    #[must_use]
    pub const fn point(&self) -> ChainPoint {
        self.point
    }

    /// Axiom time now, for the feed.
    pub fn now(&mut self, reading: Reading) -> AxiomTime {
        self.clock.now(reading)
    }

    /// Orders units: each is accepted whole or refused alone, in the order in which they came (AX-43). The entries form
    /// one group, and later units see the earlier ones. If the group cannot be made durable, this object is worthless.
    pub fn batch(&mut self, reading: Reading, limits: Limits, source: Source, units: Vec<Unit>) -> Batch {
        let now = self.clock.now(reading);
        self.decisions.forget_before(now);
        let mut batch =
            Batch { entries: Vec::with_capacity(units.len()), replies: Vec::with_capacity(units.len()) };
        let mut room = limits.body_bytes_max;
        for unit in units {
            let reply = self.unit(now, limits, &mut room, source, unit, &mut batch.entries);
            batch.replies.push(reply);
        }
        batch
    }

    fn unit(
        &mut self,
        now: AxiomTime,
        limits: Limits,
        room: &mut u64,
        source: Source,
        unit: Unit,
        entries: &mut Vec<(Entry, Hash)>,
    ) -> UnitReply {
        let mut valid: Vec<Valid> = Vec::with_capacity(UNIT_ENTRIES_MAX);
        let count = unit.entries.len();
        let refuse =
            |index: usize, (reason, text): Reason| UnitReply::Rejected(Refusal { reason, index, text });
        let has_form = match unit.entries.as_slice() {
            [_] => true,
            [decision, act] => {
                decision.entry_type == EntryType::PolicyDecision
                    && act.entry_type != EntryType::PolicyDecision
            }
            _ => false,
        };
        if !has_form {
            let text = format!("a unit is one entry, or a decision and its act, not {count} entries");
            return refuse(0, (RejectionReason::InvalidPayload, text));
        }
        let last = count.saturating_sub(1);
        let mut peeked = unit.entries.last().and_then(|draft| Peeked::of(draft).ok());
        let asked_last = unit.entries.last().map(|draft| draft.entry_type).zip(peeked.as_ref());
        if let Some(known) = asked_last.and_then(|(kind, peeked)| self.known(kind, peeked)) {
            return known.map_or_else(|reason| refuse(last, reason), UnitReply::Duplicate);
        }
        for (index, draft) in unit.entries.into_iter().enumerate() {
            let peeked = if index == last { peeked.take() } else { None };
            match self.check(now, source, draft, peeked, valid.last().and_then(|valid| valid.decision)) {
                Ok(draft) => valid.push(draft),
                Err(reason) => return refuse(index, reason),
            }
        }
        let bytes: u64 = valid.iter().map(|draft| record_bytes(draft.payload.len(), false) as u64).sum();
        let fits = bytes <= *room && entries.len().saturating_add(valid.len()) <= GROUP_ENTRIES_MAX as usize;
        if !fits || limits.full || (limits.reserve_only && !self.may_use_reserve(source, &valid)) {
            return refuse(0, (RejectionReason::Backpressure, "the log has no room for this now".to_owned()));
        }
        *room = room.saturating_sub(bytes);
        UnitReply::Accepted(valid.into_iter().map(|draft| self.append(now, draft, entries)).collect())
    }

    /// None if the key of the unit's last entry is new.
    fn known(&self, kind: EntryType, peeked: &Peeked) -> Option<Result<AxiomRef, Reason>> {
        match self.keys.look_up(&peeked.id, kind, &peeked.payload_hash) {
            Known::New => None,
            Known::Same(entry) => Some(Ok(entry)),
            Known::Other(sequence) => Some(Err((RejectionReason::DuplicateNonce, key_taken(sequence)))),
            Known::Archived(sequence) => Some(Err((RejectionReason::DuplicateNonce, key_archived(sequence)))),
        }
    }

    /// Policy first, then the payload, then the state (AX-42, ACT-12). `peeked` belongs to the draft, if it was read.
    fn check(
        &mut self,
        now: AxiomTime,
        source: Source,
        draft: Draft,
        peeked: Option<Peeked>,
        beside: Option<Decision>,
    ) -> Result<Valid, Reason> {
        let invalid = |text: String| (RejectionReason::InvalidPayload, text);
        if draft.payload.len() > PAYLOAD_SIZE_BYTES_MAX {
            return Err(invalid(format!(
                "a payload has at most {PAYLOAD_SIZE_BYTES_MAX} bytes; larger data goes by hash"
            )));
        }
        let peeked = match peeked {
            Some(peeked) => peeked,
            None => Peeked::of(&draft).map_err(|error| invalid(error.to_string()))?,
        };
        let Peeked { head, payload_hash, id } = peeked;
        let Draft { entry_type, payload } = draft;
        self.check_policy(now, source, entry_type, &head, beside)?;
        let decoded =
            Payload::decode(entry_type.code(), &payload).map_err(|error| invalid(error.to_string()))?;
        let decision = self.check_decision(now, &decoded)?;
        if head.authorization.is_none() && source == Source::Policy && decision.is_none() {
            check_record(&decoded)?;
        }
        match self.keys.look_up(&id, entry_type, &payload_hash) {
            Known::New => {}
            Known::Same(AxiomRef { sequence, .. }) | Known::Other(sequence) => {
                return Err((RejectionReason::DuplicateNonce, key_taken(sequence)));
            }
            Known::Archived(sequence) => {
                return Err((RejectionReason::DuplicateNonce, key_archived(sequence)));
            }
        }
        self.archive.check(&decoded, source, self.point.next_sequence)?;
        self.state.check(&decoded, self.point.next_sequence)?;
        Ok(Valid { entry_type, payload, payload_hash, head, id, decoded, decision })
    }

    /// What can be told without reading the body: may this channel append this type, and on which decision.
    fn check_policy(
        &self,
        now: AxiomTime,
        source: Source,
        kind: EntryType,
        head: &EnvelopeHead,
        beside: Option<Decision>,
    ) -> Result<(), Reason> {
        let missing = |text: &str| Err((RejectionReason::MissingPolicyDecision, text.to_owned()));
        let supervisors = matches!(
            kind,
            EntryType::Shutdown
                | EntryType::ServiceRegister
                | EntryType::ServiceStart
                | EntryType::ServiceStop
                | EntryType::ServiceFailed
        );
        if source == Source::Own && kind != EntryType::Receipt {
            return missing("axiom itself records receipts and nothing else");
        }
        if source == Source::Supervisor && !supervisors {
            return missing("the supervisor appends entry types 1 and 20 to 23 and nothing else");
        }
        if source == Source::Supervisor && !self.state.is_service(&head.submitter, SUPERVISOR) {
            return missing("the supervisor appends in its own name and in nobody else's");
        }
        match head.authorization {
            Some(_) if kind == EntryType::PolicyDecision => {
                Err((RejectionReason::PolicyMismatch, "a decision rests on no other decision".to_owned()))
            }
            // A decision that is no longer remembered was made in its time: the supervisor needs none to append.
            Some(request) if source == Source::Supervisor => {
                let cited = self.decisions.get(&request).map(|cited| cited.check_cited(kind));
                cited.unwrap_or(Ok(())).map_err(|(reason, text)| (reason, text.to_owned()))
            }
            Some(request) => {
                let decision = beside.as_ref().filter(|beside| beside.request == request);
                let Some(decision) = decision.or_else(|| self.decisions.get(&request)) else {
                    return missing("no decision for this request is in the log");
                };
                decision.check_redeem(kind, now).map_err(|(reason, text)| (reason, text.to_owned()))
            }
            None if beside.is_some() => missing("the act does not cite the decision beside it"),
            None if kind == EntryType::PolicyDecision || source == Source::Supervisor || is_record(kind) => {
                Ok(())
            }
            None => missing("this entry needs a decision"),
        }
    }

    /// A decision's signature and age. None for other entries.
    fn check_decision(&mut self, now: AxiomTime, payload: &Payload) -> Result<Option<Decision>, Reason> {
        let Payload::PolicyDecision(entry) = payload else { return Ok(None) };
        let key: Option<PublicKey> = self.state.pinned.as_ref().map(|pinned| pinned.policy_key);
        if !key.is_some_and(|key| self.decisions.verify(&key, &entry.body)) {
            let text = "the decision is not signed by the policy engine that genesis pins".to_owned();
            return Err((RejectionReason::InvalidPolicySignature, text));
        }
        let body =
            entry.body.decode_body().map_err(|error| (RejectionReason::InvalidPayload, error.to_string()))?;
        let decision = Decision::of(&body);
        decision.check_fresh(now).map_err(|(reason, text)| (reason, text.to_owned()))?;
        if self.decisions.get(&decision.request).is_some() {
            let text = "this request was decided before".to_owned();
            return Err((RejectionReason::DuplicateNonce, text));
        }
        Ok(Some(decision))
    }

    /// Acts that only take away, their decisions, and what records that something ended (DESIGN 2).
    fn may_use_reserve(&self, source: Source, unit: &[Valid]) -> bool {
        let takes_away = |draft: &Valid| match draft.entry_type {
            EntryType::Shutdown | EntryType::ServiceStop | EntryType::ServiceFailed => true,
            EntryType::CapabilityRevoke
            | EntryType::ConnectionRevoke
            | EntryType::CredentialRevoked
            | EntryType::ProcessKill => true,
            // They make room.
            EntryType::LogArchive => true,
            // And are closed, or no other could be begun.
            EntryType::Receipt => source == Source::Own,
            EntryType::PolicyDecision => {
                draft.decision.is_some_and(|decision| decision.only_takes_away && decision.allows)
            }
            EntryType::IdentityUpdated => matches!(&draft.decoded, Payload::IdentityUpdated(entry)
                if matches!(entry.body.change, IdentityChange::Status { .. } | IdentityChange::TokenRevoked { .. })),
            _ => false,
        };
        unit.iter().all(takes_away)
    }

    fn append(&mut self, now: AxiomTime, draft: Valid, entries: &mut Vec<(Entry, Hash)>) -> AxiomRef {
        let header = EntryHeader {
            sequence: self.point.next_sequence,
            prev_hash: self.point.last_hash,
            payload_hash: draft.payload_hash,
            timestamp: now,
            entry_type: draft.entry_type,
            payload_size: u32::try_from(draft.payload.len()).unwrap_or(u32::MAX),
        };
        let hash = header.entry_hash(&draft.payload);
        let entry = AxiomRef { sequence: header.sequence, hash };
        self.remember(draft.id, &draft.head, draft.entry_type, &draft.payload_hash, entry, draft.decision);
        self.state.apply(header.sequence, &draft.decoded);
        self.archive.apply(entry, &draft.decoded);
        self.point = ChainPoint::after(entry);
        entries.push((Entry { header, payload: draft.payload, signature: None }, hash));
        entry
    }

    fn remember(
        &mut self,
        id: Id,
        head: &EnvelopeHead,
        kind: EntryType,
        payload: &Hash,
        entry: AxiomRef,
        decision: Option<Decision>,
    ) {
        self.keys.insert(id, kind, payload, entry);
        if let Some(request) = &head.authorization {
            self.decisions.mark_used(request);
        }
        if let Some(decision) = decision {
            self.decisions.insert(decision);
        }
    }
}

fn key_taken(sequence: Sequence) -> String {
    format!("the submitter used this key for entry {sequence}, which is another one")
}

fn key_archived(sequence: Sequence) -> String {
    format!(
        "the submitter used this key for entry {sequence}, which is archived: whether this is the same cannot be told here; \
         it was accepted then, so use a new key for a new act"
    )
}

fn decision_of(payload: &Payload) -> Option<Decision> {
    let Payload::PolicyDecision(entry) = payload else { return None };
    entry.body.decode_body().ok().map(|body| Decision::of(&body))
}

/// Types that may record what happened without a decision; `check_record` looks at the body too.
const fn is_record(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::Receipt
            | EntryType::ProcessExit
            | EntryType::JobStart
            | EntryType::JobComplete
            | EntryType::JobFailed
            | EntryType::ServiceFailed
            | EntryType::ClockSet
            | EntryType::ServiceLate
            | EntryType::KeyUsage
            | EntryType::IdentityUpdated
    )
}

/// Records that say something was refused or failed, and nothing else (DESIGN 2).
fn check_record(payload: &Payload) -> Result<(), Reason> {
    let needs = match payload {
        Payload::KeyUsage(entry) => !is_refused(&entry.body),
        Payload::IdentityUpdated(entry) => {
            !matches!(entry.body.change, IdentityChange::AuthenticationFailed { .. })
        }
        _ => false,
    };
    if needs {
        return Err((RejectionReason::MissingPolicyDecision, "this entry needs a decision".to_owned()));
    }
    Ok(())
}

const fn is_refused(usage: &KeyUsage) -> bool {
    usage.refused.is_some() && usage.output_hash.is_none()
}
