//! Decisions that an act may still redeem: once, within 30 seconds of Axiom time.

use std::collections::{HashMap, VecDeque};

use base::{AxiomTime, Hash, PublicKey, Signature, limits::DECISION_VALIDITY_NS};
use chain::{
    EntryType, merkle,
    payload::policy::{ActionKind, DecisionBody, PolicyAction, SignedDecision},
};

use minicbor::{Decode, Encode};

use super::reply::RejectionReason;

/// Decisions are remembered this long after they expired, so that a late act learns why it is refused.
const REMEMBERED_NS: u64 = 10 * DECISION_VALIDITY_NS;
/// How far a decision may lie ahead of the sequencer's time: the engine reads the same boot clock, a moment earlier or later.
const AHEAD_NS_MAX: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Decision {
    #[n(0)]
    pub request: Hash,
    #[n(1)]
    pub time: AxiomTime,
    #[n(2)]
    pub allows: bool,
    #[n(3)]
    pub action: ActionKind,
    #[n(4)]
    pub only_takes_away: bool,
    #[n(5)]
    pub used: bool,
}

impl Decision {
    pub(super) fn of(body: &DecisionBody) -> Self {
        Self {
            request: body.request_hash,
            time: body.timestamp,
            allows: body.allows(),
            action: body.action.kind(),
            only_takes_away: PolicyAction::only_takes_away(&body.action),
            used: false,
        }
    }

    pub(super) fn check_fresh(&self, now: AxiomTime) -> Result<(), (RejectionReason, &'static str)> {
        let fresh = now.since(self.time) <= DECISION_VALIDITY_NS && self.time.since(now) <= AHEAD_NS_MAX;
        if fresh {
            Ok(())
        } else {
            Err((RejectionReason::PolicyDecisionExpired, "the decision is not from the last 30 s"))
        }
    }

    /// Whether an entry of this type may redeem the decision.
    pub(super) fn check_redeem(
        &self,
        kind: EntryType,
        now: AxiomTime,
    ) -> Result<(), (RejectionReason, &'static str)> {
        use RejectionReason::PolicyMismatch;
        match () {
            () if !self.allows => Err((PolicyMismatch, "the decision denies")),
            () if self.used => Err((PolicyMismatch, "the decision was redeemed before")),
            () if !action_allows(self.action, kind) => {
                Err((PolicyMismatch, "the decision is about another kind of action"))
            }
            () => self.check_fresh(now),
        }
    }

    /// Whether the supervisor may cite it: the decision to start a service covers its restarts, however late they come,
    /// and what is cited for them is not redeemed a second time (DESIGN 5).
    pub(super) fn check_cited(&self, kind: EntryType) -> Result<(), (RejectionReason, &'static str)> {
        use RejectionReason::PolicyMismatch;
        match () {
            () if !self.allows => Err((PolicyMismatch, "the decision denies")),
            () if !action_allows(self.action, kind) => {
                Err((PolicyMismatch, "the decision is about another kind of action"))
            }
            () => Ok(()),
        }
    }
}

/// Entry types by which an action is carried out.
pub(super) const fn action_allows(action: ActionKind, kind: EntryType) -> bool {
    use EntryType as T;
    match action {
        ActionKind::CreateProcess => matches!(kind, T::ProcessCreate | T::JobSubmit),
        ActionKind::TerminateProcess | ActionKind::ControlProcess => matches!(kind, T::ProcessKill),
        ActionKind::CreateFile => {
            matches!(kind, T::FileCreate | T::DirectoryCreate | T::BlockAllocation | T::SnapshotCreate)
        }
        ActionKind::ReadFile | ActionKind::Execute | ActionKind::UseImage | ActionKind::UseSecret => false,
        ActionKind::WriteFile => {
            matches!(kind, T::FileMetadataUpdate | T::BlockAllocation | T::SnapshotRestore)
        }
        ActionKind::DeleteFile => matches!(kind, T::FileDelete | T::DirectoryDelete | T::BlockDeallocation),
        ActionKind::Connect | ActionKind::Listen => {
            matches!(kind, T::ConnectionAuthorize)
        }
        ActionKind::Disconnect => matches!(kind, T::ConnectionRevoke),
        ActionKind::ImportImage => matches!(kind, T::ImageImport),
        ActionKind::RemoveImage => matches!(kind, T::ImageRemove),
        ActionKind::TakeImage => matches!(kind, T::ImageImport | T::ImageRemove),
        ActionKind::Sign | ActionKind::Encrypt | ActionKind::Decrypt | ActionKind::RotateKey => {
            matches!(kind, T::KeyUsage)
        }
        ActionKind::CreateIdentity => matches!(kind, T::IdentityCreated),
        ActionKind::AddCredential => matches!(kind, T::CredentialAdded),
        ActionKind::RevokeCredential => matches!(kind, T::CredentialRevoked),
        ActionKind::DelegateCapability => matches!(kind, T::CapabilityGrant),
        ActionKind::RevokeCapability => matches!(kind, T::CapabilityRevoke),
        ActionKind::UpgradeSystem => matches!(kind, T::ImageStage | T::ImageActivate | T::ImageRollback),
        ActionKind::ModifyPolicy => {
            matches!(kind, T::PolicyRuleAdded | T::PolicyRuleRemoved | T::PolicyUpdate)
        }
        ActionKind::ControlService => {
            // The last three lock and unlock keys, set what the network service goes by, and archive the log.
            matches!(
                kind,
                T::ServiceRegister
                    | T::ServiceStart
                    | T::ServiceStop
                    | T::Shutdown
                    | T::KeyUsage
                    | T::NetworkPolicyUpdate
                    | T::LogArchive
            )
        }
        ActionKind::ModifyIdentity | ActionKind::Authenticate => matches!(kind, T::IdentityUpdated),
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Decisions {
    by_request: HashMap<Hash, Decision>,
    by_age: VecDeque<(AxiomTime, Hash)>,
    /// The root that was verified last: one signature serves a group.
    verified: Option<(Hash, Signature)>,
    /// Signatures are not looked at.
    trusting: bool,
}

impl Decisions {
    pub(super) fn trust(&mut self) {
        self.trusting = true;
    }

    pub(super) fn get(&self, request: &Hash) -> Option<&Decision> {
        self.by_request.get(request)
    }

    pub(super) fn insert(&mut self, decision: Decision) {
        self.by_age.push_back((decision.time, decision.request));
        self.by_request.insert(decision.request, decision);
    }

    /// Those that are remembered, oldest first.
    pub(super) fn all(&self) -> Vec<Decision> {
        self.by_age.iter().filter_map(|(_, request)| self.by_request.get(request).copied()).collect()
    }

    pub(super) fn mark_used(&mut self, request: &Hash) {
        if let Some(decision) = self.by_request.get_mut(request) {
            decision.used = true;
        }
    }

    pub(super) fn forget_before(&mut self, now: AxiomTime) {
        while let Some((time, request)) = self.by_age.front() {
            if now.since(*time) <= REMEMBERED_NS {
                return;
            }
            self.by_request.remove(request);
            self.by_age.pop_front();
        }
    }

    /// The signature over the decision's body, by way of its group's root.
    pub(super) fn verify(&mut self, key: &PublicKey, signed: &SignedDecision) -> bool {
        if self.trusting {
            return true;
        }
        let signature = &signed.signature;
        let leaf = merkle::leaf(&signed.body);
        let Some(root) = merkle::root_from_path(leaf, signature.index, signature.count, &signature.path)
        else {
            return false;
        };
        let seen = Some((root, signature.root));
        if self.verified == seen {
            return true;
        }
        let valid = merkle::verify_root(key, &root, &signature.root);
        if valid {
            self.verified = seen;
        }
        valid
    }
}
