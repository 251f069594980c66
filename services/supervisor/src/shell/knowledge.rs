//! What the supervisor knows of the node: genesis as it stands on disk, then the log as it goes on.

mod saved;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base::{AxiomTime, CapabilityId, IdentityId, KeyPath, ProcessId, TreeId, key_paths};
use chain::payload::{
    Body, Payload,
    capability::{CapabilityGrant, Permissions, Resource},
    identity::IdentityCreated,
    image::{ImageImport, ImageRemove},
    policy::SignedDecision,
    process::{ProcessCreate, ProcessExit},
    service::{Genesis, ServiceStart},
};
use jiff::Timestamp;
use kit::{
    AxiomClock, BoxError, Feed, FeedEntry, FeedPlan, Fold,
    images::{ImageLedger, Reference},
    snapshot::{Parts, Snapshots},
};
use minicbor::{Decode, Encode};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::{core::idle::Use, manifest::limits::SERVICES_MAX};

/// Bytes of the genesis file: one entry.
const GENESIS_BYTES_MAX: u64 = base::limits::ENTRY_SIZE_BYTES_MAX as u64;
/// Capabilities that `Init` carries.
pub(super) const CAPABILITIES_MAX: usize = 256;
/// Services whose last start is known: all that a node can have, and as many that it had.
const LAST_STARTS_MAX: usize = 2 * SERVICES_MAX;

#[derive(Debug, Error)]
pub(super) enum GenesisFault {
    #[error("cannot read genesis: {0}; `bailiwick up` makes it")]
    Read(#[from] io::Error),
    #[error("genesis has {0} bytes, at most {GENESIS_BYTES_MAX} are allowed")]
    Size(u64),
    #[error("genesis cannot be decoded: {0}")]
    Payload(String),
    #[error("genesis names no identity for {0}")]
    NoIdentity(KeyPath),
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Held {
    #[n(0)]
    id: CapabilityId,
    #[n(1)]
    resource: Resource,
    #[n(2)]
    permissions: Permissions,
}

/// What the first `up` wrote.
pub(super) fn read_genesis(file: &Path) -> Result<Genesis, GenesisFault> {
    let size = std::fs::metadata(file)?.len();
    if size > GENESIS_BYTES_MAX {
        return Err(GenesisFault::Size(size));
    }
    match Payload::decode(Genesis::ENTRY_TYPE, &std::fs::read(file)?) {
        Ok(Payload::Genesis(genesis)) => Ok(genesis.body),
        Ok(_) => Err(GenesisFault::Payload("it is another entry".to_owned())),
        Err(error) => Err(GenesisFault::Payload(error.to_string())),
    }
}

#[derive(Debug, Default)]
struct State {
    identities: HashMap<KeyPath, IdentityId>,
    capabilities: HashMap<IdentityId, Vec<Held>>,
    grants: HashMap<CapabilityId, IdentityId>,
    /// By service, whoever asked for it.
    last_starts: HashMap<String, AxiomTime>,
    /// Taken back, and not granted again since.
    withdrawn: HashSet<(IdentityId, Resource)>,
    /// Who has which name of a container image.
    images: ImageLedger,
    /// Programs that run, where somebody wants to know of uses.
    running: BTreeSet<ProcessId>,
}

impl State {
    fn create(&mut self, created: &IdentityCreated) {
        self.identities.insert(created.key_path.clone(), created.identity_id);
    }

    /// The first stays: genesis is read from the file, and again from the log.
    fn grant(&mut self, grant: &CapabilityGrant) {
        if self.grants.insert(grant.capability_id, grant.grantee).is_none() {
            self.withdrawn.remove(&(grant.grantee, grant.resource.clone()));
            let (resource, permissions) = (grant.resource.clone(), grant.permissions);
            let held = Held { id: grant.capability_id, resource, permissions };
            self.capabilities.entry(grant.grantee).or_default().push(held);
        }
    }

    fn revoke(&mut self, id: CapabilityId) {
        let Some(holder) = self.grants.remove(&id) else { return };
        if let Some(held) = self.capabilities.get_mut(&holder) {
            let gone = held.iter().find(|known| known.id == id).map(|known| known.resource.clone());
            self.withdrawn.extend(gone.map(|resource| (holder, resource)));
            held.retain(|known| known.id != id);
        }
    }

    fn start(&mut self, service: &str, at: AxiomTime) {
        if self.last_starts.len() < LAST_STARTS_MAX || self.last_starts.contains_key(service) {
            self.last_starts.insert(service.to_owned(), at);
        }
    }

    fn begin(&mut self, genesis: &Genesis) {
        genesis.identities.iter().for_each(|identity| self.create(identity));
        genesis.initial_capabilities.iter().for_each(|grant| self.grant(grant));
    }
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Knowledge {
    state: Arc<Mutex<State>>,
    clock: AxiomClock,
    feed: Feed,
    /// The operator: the first admin.
    pub(super) admin: IdentityId,
    /// The supervisor's own.
    pub(super) own: IdentityId,
}

impl Knowledge {
    /// From genesis alone, so that the log itself can be started.
    pub(super) fn of(genesis: &Genesis) -> Result<Self, GenesisFault> {
        let mut state = State::default();
        state.begin(genesis);
        let path = service_path(super::sockets::SUPERVISOR)
            .ok_or_else(|| GenesisFault::Payload("no key path for the supervisor".to_owned()))?;
        let own = state.identities.get(&path).copied().ok_or(GenesisFault::NoIdentity(path))?;
        let (clock, feed) = (AxiomClock::new(), Feed::new());
        Ok(Self { state: Arc::new(Mutex::new(state)), clock, feed, admin: genesis.admin, own })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the log from now on, from what the last supervisor wrote down in its folder. `uses` is told what counts as
    /// use of the node, where somebody wants to know.
    pub(super) fn follow(&self, socket: PathBuf, folder: &Path, uses: Option<mpsc::UnboundedSender<Use>>) {
        let state = Arc::clone(&self.state);
        let mut types = vec![ServiceStart::ENTRY_TYPE, ImageImport::ENTRY_TYPE, ImageRemove::ENTRY_TYPE];
        types.extend(uses.iter().flat_map(|_| USES));
        let plan = FeedPlan::of_types(&types);
        let snapshots = Snapshots::open(folder, super::sockets::SUPERVISOR, saved::FOLD_VERSION, &plan);
        self.feed.follow_from(socket, plan, self.clock.clone(), Knowing { state, uses }, snapshots);
    }

    #[must_use]
    pub(super) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Why the log is not folded any more, and what stands still for it; none while it is.
    #[must_use]
    pub(super) fn trouble(&self) -> Option<String> {
        let why = self.feed.why_stopped()?;
        Some(format!(
            "the supervisor cannot read the log, so no service of the user is started or taken in: {why}"
        ))
    }

    #[must_use]
    pub(super) fn now(&self) -> Option<AxiomTime> {
        self.clock.now()
    }

    #[must_use]
    pub(super) fn identity(&self, path: &KeyPath) -> Option<IdentityId> {
        self.lock().identities.get(path).copied()
    }

    /// A service's identity by its name.
    #[must_use]
    pub(super) fn service(&self, name: &str) -> Option<IdentityId> {
        self.identity(&service_path(name)?)
    }

    /// The container image that somebody means, and a name of it.
    #[must_use]
    pub(super) fn image(&self, reference: &Reference, by: IdentityId) -> Option<(String, TreeId)> {
        self.lock().images.said(reference, by).map(|(name, named)| (name, named.tree))
    }

    /// On what a capability is that was not revoked.
    #[must_use]
    pub(super) fn granted_on(&self, id: &CapabilityId) -> Option<Resource> {
        let state = self.lock();
        let mut held = state.capabilities.get(state.grants.get(id)?)?.iter();
        held.find(|held| held.id == *id).map(|held| held.resource.clone())
    }

    /// Whether a holder had a right on this that was taken back, and was not granted one again.
    #[must_use]
    pub(super) fn was_withdrawn(&self, holder: &IdentityId, resource: &Resource) -> bool {
        self.lock().withdrawn.contains(&(*holder, resource.clone()))
    }

    /// When a service was started last, by the log's time.
    #[must_use]
    pub(super) fn last_start(&self, service: &str) -> Option<Timestamp> {
        let at = self.lock().last_starts.get(service).copied()?;
        Timestamp::from_nanosecond(at.0.into()).ok()
    }

    #[must_use]
    pub(super) fn capabilities(&self, holder: &IdentityId) -> Vec<CapabilityId> {
        let state = self.lock();
        let held = state.capabilities.get(holder).into_iter().flatten();
        held.map(|held| held.id).take(CAPABILITIES_MAX).collect()
    }

    /// Whether one capability alone gives the holder these permissions.
    #[must_use]
    pub(super) fn holds(&self, holder: &IdentityId, resource: &Resource, asked: Permissions) -> bool {
        let state = self.lock();
        let mut held = state.capabilities.get(holder).into_iter().flatten();
        held.any(|held| held.resource == *resource && held.permissions.contains(asked))
    }
}

/// Knowledge as a fold of the log.
struct Knowing {
    state: Arc<Mutex<State>>,
    uses: Option<mpsc::UnboundedSender<Use>>,
}

impl Knowing {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, by: Use) {
        if let Some(uses) = &self.uses {
            // Nobody listens any more once the end was asked for.
            let _ = uses.send(by);
        }
    }
}

impl Fold for Knowing {
    fn apply(&mut self, entry: &FeedEntry) -> Result<(), BoxError> {
        let payload = entry.decode()?;
        if let Some(by) = use_of(payload) {
            self.tell(by);
        }
        let mut state = self.lock();
        match payload {
            Payload::Genesis(genesis) => state.begin(&genesis.body),
            Payload::IdentityCreated(created) => state.create(&created.body),
            Payload::CapabilityGrant(grant) => state.grant(&grant.body),
            Payload::ImageImport(_) | Payload::ImageRemove(_) => {
                state.images.apply(entry.reference(), entry.timestamp, payload);
            }
            Payload::ServiceStart(start) => state.start(&start.body.name, entry.timestamp),
            // Of a subtree only the root is named; ids of what hung below it open nothing any more.
            Payload::CapabilityRevoke(revoke) => state.revoke(revoke.body.capability),
            Payload::ProcessCreate(create) => {
                state.running.insert(create.body.pid);
            }
            Payload::ProcessExit(exit) => {
                state.running.remove(&exit.body.pid);
            }
            _ => {}
        }
        Ok(())
    }

    fn save(&self) -> Option<Parts> {
        Some(Parts { shared: Vec::new(), own: self.lock().save() })
    }

    fn restore(&mut self, parts: &Parts) -> Result<(), BoxError> {
        let state = State::restore(&parts.own)?;
        state.running.iter().for_each(|program| self.tell(Use::ProgramStarted(*program)));
        *self.lock() = state;
        Ok(())
    }
}

/// Entries that say something about use.
const USES: [u32; 3] = [ProcessCreate::ENTRY_TYPE, ProcessExit::ENTRY_TYPE, SignedDecision::ENTRY_TYPE];

fn use_of(payload: &Payload) -> Option<Use> {
    match payload {
        Payload::ProcessCreate(create) => Some(Use::ProgramStarted(create.body.pid)),
        Payload::ProcessExit(exit) => Some(Use::ProgramEnded(exit.body.pid)),
        Payload::PolicyDecision(_) => Some(Use::Decision),
        _ => None,
    }
}

pub(super) fn service_path(name: &str) -> Option<KeyPath> {
    KeyPath::parse(key_paths::SERVICES).ok()?.child(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{EntryKey, Hash, PublicKey};
    use chain::{genesis, payload::Envelope};

    fn file(genesis: Genesis) -> tempfile::NamedTempFile {
        let envelope = Envelope {
            submitter: IdentityId([0; 32]),
            key: EntryKey([0; 16]),
            authorization: None,
            body: genesis,
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), envelope.to_bytes().unwrap()).unwrap();
        file
    }

    fn made() -> Genesis {
        let plan = genesis::GenesisPlan {
            image_hash: Hash::ZERO,
            genesis_time: AxiomTime(1),
            node_name: "desk".to_owned(),
            node_key: PublicKey([1; 32]),
            sequencer_key: PublicKey([2; 32]),
            policy_key: PublicKey([3; 32]),
            identity_key: PublicKey([4; 32]),
            admin_uid: 0,
            rules: Vec::new(),
            initial_capabilities: Vec::new(),
        };
        genesis::build(plan, |path| Some(PublicKey(Hash::of(path.to_string().as_bytes()).0))).unwrap()
    }

    fn read(file: &Path) -> Result<Knowledge, GenesisFault> {
        Knowledge::of(&read_genesis(file)?)
    }

    #[test]
    fn genesis_tells_who_the_services_are() {
        let genesis = made();
        let admin = genesis.admin;
        let knowledge = read(file(genesis.clone()).path()).unwrap();
        assert_eq!(knowledge.admin, admin);
        let keys = knowledge.service("keys").unwrap();
        assert!(
            genesis.identities.iter().any(|i| i.identity_id == keys && i.name == "orbital.services.keys")
        );
        assert_eq!(knowledge.service("nobody"), None);
        assert_ne!(knowledge.own, keys);
    }

    #[test]
    fn what_is_held_is_known_by_its_rights_until_it_is_revoked() {
        let mut state = State::default();
        let resource = |id: &str| Resource {
            object_type: chain::payload::capability::ObjectType::Service,
            object_id: id.to_owned(),
        };
        let (read, write) = (
            Permissions { read: true, ..Permissions::default() },
            Permissions { write: true, ..Permissions::default() },
        );
        let holder = IdentityId([4; 32]);
        let grant = CapabilityGrant {
            capability_id: CapabilityId([1; 16]),
            grantor: IdentityId([0; 32]),
            grantee: holder,
            resource: resource("a"),
            permissions: read,
            restrictions: None,
            parent: None,
        };
        state.grant(&grant);
        state.grant(&grant);
        let mut knowledge = Knowledge::of(&made()).unwrap();
        knowledge.state = Arc::new(Mutex::new(state));
        assert_eq!(knowledge.capabilities(&holder), [CapabilityId([1; 16])]);
        assert!(knowledge.holds(&holder, &resource("a"), read));
        assert!(!knowledge.holds(&holder, &resource("a"), write));
        assert!(!knowledge.holds(&holder, &resource("b"), read));
        knowledge.lock().revoke(CapabilityId([1; 16]));
        assert!(!knowledge.holds(&holder, &resource("a"), read));
    }

    #[test]
    fn a_genesis_that_is_damaged_or_names_no_supervisor_is_refused() {
        let damaged = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(damaged.path(), [0xff; 9]).unwrap();
        assert!(matches!(read(damaged.path()), Err(GenesisFault::Payload(_))));
        let mut genesis = made();
        genesis.identities.retain(|identity| !identity.name.ends_with("supervisor"));
        assert!(matches!(read(file(genesis).path()), Err(GenesisFault::NoIdentity(_))));
        let large = tempfile::NamedTempFile::new().unwrap();
        large.as_file().set_len(GENESIS_BYTES_MAX + 1).unwrap();
        assert!(matches!(read(large.path()), Err(GenesisFault::Size(_))));
    }
}
