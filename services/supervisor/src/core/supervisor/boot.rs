//! Boot by phases (SUP-14 to SUP-20, SUP open point 2).

use std::collections::BTreeSet;

use chain::payload::service::ServiceRegister;

use super::{
    BootMode, Effect, RecordBody, Supervisor,
    service::{Goal, Service},
};
use crate::core::{
    catalogue::{self, Phase},
    state::ServiceState,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BootProgress {
    NotBegun,
    /// Services up to this phase may start.
    Phase(Phase),
    Done,
    /// Shutdown has finished.
    Ended,
}

impl Supervisor {
    pub(super) fn boot(&mut self, mode: BootMode) {
        if self.boot != BootProgress::NotBegun {
            return;
        }
        self.booted_at = self.now;
        for name in self.names().iter() {
            self.announce(name, None);
            let Some(service) = self.services.get_mut(name) else { continue };
            if mode == BootMode::Normal || service.phase <= Phase::RECOVERY {
                service.want_usual();
            }
        }
        self.boot = BootProgress::Phase(Phase::Authority);
        self.changed = true;
        self.unremembered = true;
    }

    /// Tells and records that a service is known (SUP-38).
    pub(super) fn announce(&mut self, name: &str, authorization: Option<base::Hash>) {
        let Some(service) = self.services.get(name) else { return };
        let manifest = service.manifest();
        let Some(key_path) = manifest.key_path() else { return };
        let body = ServiceRegister {
            name: name.to_owned(),
            version: manifest.service.version.to_string(),
            service_type: manifest.service.service_type,
            // A text that is no hash is refused when the service starts; here it stands as none.
            binary: manifest.binary_hash().unwrap_or(base::Hash::ZERO),
            manifest: service.setup.manifest.hash,
            key_path,
        };
        self.tell(name, None, Some(ServiceState::Registered), "registered");
        self.record(authorization, RecordBody::Register(body));
    }

    /// Opens the next phase when nobody of this one is waited for any more.
    pub(super) fn advance_boot(&mut self) {
        let BootProgress::Phase(phase) = self.boot else { return };
        if self.is_ending() {
            return;
        }
        let members: Vec<&Service> = self.services.values().filter(|s| s.phase == phase).collect();
        if let Some((name, why)) = members.iter().find_map(|s| self.ends_boot(s)) {
            return self.emergency(&format!("boot: {name} did not start: {why}"));
        }
        let settled = self.settled();
        if !members.iter().all(|service| settled.contains(service.name())) {
            return;
        }
        self.changed = true;
        self.unremembered = true;
        match Phase::ALL.iter().find(|next| **next > phase) {
            Some(next) => self.boot = BootProgress::Phase(*next),
            None => {
                self.boot = BootProgress::Done;
                let missing: Vec<String> = self
                    .services
                    .values()
                    .filter(|service| service.goal == Goal::Up && !service.state.serves())
                    .map(|service| service.name().to_owned())
                    .collect();
                self.effects.push(Effect::Booted { missing });
            }
        }
    }

    /// A critical service that is wanted and will not come up.
    fn ends_boot(&self, service: &Service) -> Option<(String, String)> {
        let name = service.name();
        if !catalogue::is_critical(name) || service.goal == Goal::Down || service.state.serves() {
            return None;
        }
        let why = match (self.graph.check(name), service.given_up) {
            (Err(fault), _) => fault.to_string(),
            (Ok(()), true) => service.last_error.clone().unwrap_or_else(|| "given up".to_owned()),
            (Ok(()), false) => return None,
        };
        Some((name.to_owned(), why))
    }

    /// Services that the boot does not wait for: they run, are not wanted, are given up, have failed and are not
    /// critical (their restarts go on while the boot does), or require something that will not run in this boot.
    pub(super) fn settled(&self) -> BTreeSet<&str> {
        let mut settled: BTreeSet<&str> = BTreeSet::new();
        for name in self.graph.start_order().iter() {
            let Some(service) = self.services.get(name) else { continue };
            let failed = service.failed_once && !catalogue::is_critical(name);
            // Dependencies stand before their dependents in this order.
            let lost = |dependency: &str| !self.is_there(dependency) && settled.contains(dependency);
            let impossible = self.graph.check(name).is_err() || self.graph.required(name).any(lost);
            if service.state.serves() || !service.is_wanted() || failed || impossible {
                settled.insert(name);
            }
        }
        settled
    }

    pub(super) fn is_open(&self, phase: Phase) -> bool {
        match self.boot {
            BootProgress::Phase(open) => phase <= open,
            BootProgress::Done => true,
            BootProgress::NotBegun | BootProgress::Ended => false,
        }
    }

    /// Why a service cannot start now, in words for the caller.
    pub(super) fn dependency_error(&self, name: &str) -> Option<String> {
        if let Err(fault) = self.graph.check(name) {
            return Some(fault.to_string());
        }
        let down = self.graph.required(name).find(|dependency| !self.is_there(dependency))?;
        let state = self.state_of(down).map_or("unknown", ServiceState::name);
        Some(format!("required service {down} is {state}"))
    }
}
