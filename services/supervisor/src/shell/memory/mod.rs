//! What outlives the supervisor: two memory files in the keeper. Nothing of it is on a disk.
//! What changes with every step of the machine is one, the manifests of the user's services are the other.
//!
//! The keeper knows its children by number alone; which service a number belongs to stands here, and stands here
//! before the child is launched.

mod edit;
mod files;
mod journal;

use std::{collections::BTreeMap, sync::Arc};

use base::{CapabilityId, Hash, IdentityId};
use serde::{Deserialize, Serialize};

use self::edit::{Edit, Keyed};
pub(super) use self::files::Files;
pub(super) use self::journal::{Journal, Parts, read};
use super::fd_store::FdStore;
use crate::{
    core::{
        supervisor::{Memory, Record, RecordId, ServiceMemory, ServiceSetup},
        timer::Account,
        wall::Wall,
    },
    manifest::parse,
};

/// Under which the keeper holds it.
pub(super) const NAME: &str = "supervisor:memory";
pub(super) const USERS_NAME: &str = "supervisor:users";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) machine: Memory,
    /// Launch and service.
    pub(super) launches: Vec<(u64, String)>,
    /// Launches whose program is not there yet, with what the host could not give their sandboxes.
    #[serde(default)]
    pub(super) unsettled: BTreeMap<u64, Vec<String>>,
    pub(super) is_recovery: bool,
    /// None before the boot was done.
    pub(super) boot_ms: Option<u64>,
    #[serde(default)]
    pub(super) fd_store: FdStore,
    /// By service, with the manifest's hash.
    #[serde(default)]
    pub(super) timers: BTreeMap<String, (Hash, Account)>,
    #[serde(default)]
    pub(super) wall: Wall,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct UserService {
    pub(super) file: String,
    pub(super) text: String,
    pub(super) identity: IdentityId,
    pub(super) capabilities: Vec<CapabilityId>,
}

/// Services of the user, as they were registered.
#[must_use]
pub(super) fn setups(users: &[UserService], image: Hash) -> Vec<ServiceSetup> {
    let setup = |user: &UserService| {
        let mut manifest = parse(&user.file, &user.text).ok()?;
        manifest.manifest = manifest.manifest.with_running_image(image);
        let (identity, capabilities) = (user.identity, user.capabilities.clone());
        Some(ServiceSetup { manifest: Arc::new(manifest), identity, capabilities })
    };
    users.iter().filter_map(setup).collect()
}

impl Keyed for ServiceMemory {
    type Key = String;

    fn key(&self) -> &String {
        &self.name
    }
}

impl Keyed for Record {
    type Key = RecordId;

    fn key(&self) -> &RecordId {
        &self.id
    }
}

impl Keyed for (u64, String) {
    type Key = u64;

    fn key(&self) -> &u64 {
        &self.0
    }
}

impl Keyed for UserService {
    type Key = IdentityId;

    fn key(&self) -> &IdentityId {
        &self.identity
    }
}

/// How `Remembered` changed.
#[derive(Serialize, Deserialize)]
pub(super) struct Change {
    /// All but the lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rest: Option<Remembered>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    services: Option<Edit<String, ServiceMemory>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    records: Option<Edit<RecordId, Record>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    launches: Option<Edit<u64, (u64, String)>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timers: Option<BTreeMap<String, (Hash, Account)>>,
    /// Another at each look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wall: Option<Wall>,
}

impl Remembered {
    /// Without what is long.
    fn rest(&self) -> Self {
        let machine = &self.machine;
        Self {
            machine: Memory {
                nonce: machine.nonce,
                next_launch: machine.next_launch,
                next_record: machine.next_record,
                booted_at: machine.booted_at,
                booted: machine.booted,
                gated: machine.gated,
                shutdown: machine.shutdown.clone(),
                services: Vec::new(),
                records: Vec::new(),
            },
            launches: Vec::new(),
            unsettled: self.unsettled.clone(),
            is_recovery: self.is_recovery,
            boot_ms: self.boot_ms,
            fd_store: self.fd_store.clone(),
            timers: BTreeMap::new(),
            wall: Wall::default(),
        }
    }
}

impl Parts for Remembered {
    type Change = Change;

    fn change_to(&self, after: &Self) -> Option<Change> {
        if self == after {
            return None;
        }
        let rest = after.rest();
        Some(Change {
            rest: (self.rest() != rest).then_some(rest),
            services: Edit::between(&self.machine.services, &after.machine.services),
            records: Edit::between(&self.machine.records, &after.machine.records),
            launches: Edit::between(&self.launches, &after.launches),
            timers: (self.timers != after.timers).then(|| after.timers.clone()),
            wall: (self.wall != after.wall).then_some(after.wall),
        })
    }

    fn apply(&mut self, change: Change) {
        if let Some(mut rest) = change.rest {
            rest.machine.services = std::mem::take(&mut self.machine.services);
            rest.machine.records = std::mem::take(&mut self.machine.records);
            rest.launches = std::mem::take(&mut self.launches);
            rest.timers = std::mem::take(&mut self.timers);
            rest.wall = self.wall;
            *self = rest;
        }
        if let Some(services) = change.services {
            services.apply(&mut self.machine.services);
        }
        if let Some(records) = change.records {
            records.apply(&mut self.machine.records);
        }
        if let Some(launches) = change.launches {
            launches.apply(&mut self.launches);
        }
        if let Some(timers) = change.timers {
            self.timers = timers;
        }
        if let Some(wall) = change.wall {
            self.wall = wall;
        }
    }
}

impl Parts for Vec<UserService> {
    type Change = Edit<IdentityId, UserService>;

    fn change_to(&self, after: &Self) -> Option<Self::Change> {
        Edit::between(self, after)
    }

    fn apply(&mut self, change: Self::Change) {
        change.apply(self);
    }
}

#[cfg(test)]
mod tests {
    use chain::payload::service::Shutdown;

    use super::*;
    use crate::core::{
        restart::RestartLedger,
        state::ServiceState,
        supervisor::{LaunchId, Monotonic, RecordBody, Supervisor},
    };

    pub(super) fn remembered() -> Remembered {
        let machine = Supervisor::new(Vec::new(), [7; 16]).unwrap().memory();
        assert_eq!(machine.booted_at, Monotonic(0));
        Remembered {
            machine,
            launches: vec![(3, "keys".to_owned())],
            unsettled: BTreeMap::from([(3, vec!["caps".to_owned()])]),
            is_recovery: true,
            boot_ms: Some(5),
            fd_store: FdStore::default(),
            timers: BTreeMap::new(),
            wall: Wall::default(),
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let user = UserService {
            file: "mine.toml".to_owned(),
            text: "version = 1\n[service]\nname = \"mine\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n"
                .to_owned(),
            identity: IdentityId([4; 32]),
            capabilities: vec![CapabilityId([5; 16])],
        };
        let fd = Journal::default().write(remembered()).unwrap().expect("a file");
        let again = fd.try_clone().unwrap();
        assert_eq!(read::<Remembered>(fd).unwrap(), remembered());
        assert_eq!(read::<Remembered>(again).unwrap(), remembered());
        let fd = Journal::default().write(vec![user.clone()]).unwrap().expect("a file");
        let users: Vec<UserService> = read(fd).unwrap();
        assert_eq!(users, [user]);
        let setups = setups(&users, Hash([9; 32]));
        let [setup] = setups.as_slice() else { panic!() };
        assert_eq!((setup.name(), setup.identity), ("mine", IdentityId([4; 32])));
        assert_eq!(setup.manifest.manifest.binary_hash(), Ok(Hash([9; 32])));
    }

    #[test]
    fn each_part_that_changes_is_read_back_changed_and_the_others_as_they_were() {
        let record = |id| Record {
            id: RecordId(id),
            key: base::EntryKey([3; 16]),
            authorization: None,
            body: RecordBody::Shutdown(Shutdown { reason: "end".to_owned() }),
        };
        let service = |name: &str, restarts| ServiceMemory {
            name: name.to_owned(),
            state: ServiceState::Running,
            wanted: true,
            given_up: false,
            armed: false,
            permitted: true,
            authorization: None,
            restarts,
            ledger: RestartLedger::default(),
            last_start: Monotonic(4),
            last_error: None,
            running_since: None,
            launched: Some(LaunchId(3)),
            missing: Vec::new(),
            bounce: true,
            stop_reason: "restart requested".to_owned(),
            stop_authorization: Some(Hash([2; 32])),
        };
        let account: Account = serde_json::from_value(serde_json::json!({
            "seen_us": 1, "counted_from_ns": 2, "boot_is_done": true
        }))
        .unwrap();
        type Step<'a> = (&'a str, &'a dyn Fn(&mut Remembered));
        let steps: [Step<'_>; 11] = [
            ("nonce", &|all| all.machine.nonce = [1; 16]),
            ("services", &|all| all.machine.services = vec![service("a", 0), service("c", 0)]),
            ("one of them", &|all| all.machine.services = vec![service("a", 0), service("c", 1)]),
            ("records", &|all| all.machine.records = vec![record(1), record(2), record(3)]),
            ("one in between", &|all| all.machine.records.retain(|record| record.id != RecordId(2))),
            ("launches", &|all| all.launches = vec![(3, "keys".to_owned()), (9, "c".to_owned())]),
            ("timers", &|all| all.timers = BTreeMap::from([("c".to_owned(), (Hash([1; 32]), account))])),
            ("wall", &|all| {
                all.wall = serde_json::from_value(serde_json::json!({
                    "seen_ns": 3, "pending_ns": 4, "last_boot_ns": 5
                }))
                .unwrap();
            }),
            ("unsettled", &|all| all.unsettled.clear()),
            ("shutdown", &|all| all.machine.shutdown = Some((true, "end".to_owned()))),
            ("all at once", &|all| {
                all.machine.services = vec![service("b", 0)];
                all.machine.records.clear();
                all.launches.clear();
                all.timers.clear();
                all.boot_ms = None;
            }),
        ];
        let (mut journal, mut all) = (Journal::default(), remembered());
        let held = journal.write(all.clone()).unwrap().expect("a file");
        for (what, change) in steps {
            change(&mut all);
            assert!(journal.write(all.clone()).unwrap().is_none(), "{what}: in the same file");
            assert_eq!(read::<Remembered>(held.try_clone().unwrap()).unwrap(), all, "{what}");
        }
    }
}
