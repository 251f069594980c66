//! After the supervisor itself died: the services run, the keeper holds them, and what was known is read back.

use std::collections::{BTreeMap, BTreeSet};

use base::Hash;
use chain::payload::service::ServiceError;
use serde::{Deserialize, Serialize};

use super::{
    Child, ChildExit, Effect, LaunchId, Monotonic, Record, Signal, Supervisor,
    boot::BootProgress,
    service::{Goal, Instance, Permit, Stage},
};
use crate::{
    core::{
        catalogue,
        catalogue::Phase,
        restart::RestartLedger,
        state::{ServiceState, Transition},
    },
    manifest::HealthCheck,
};

/// What must outlive the supervisor; the shell lets the keeper hold it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    pub nonce: [u8; 16],
    pub next_launch: u64,
    pub next_record: u64,
    pub booted_at: Monotonic,
    /// The boot was done.
    pub booted: bool,
    pub gated: bool,
    /// Emergency or not, and why.
    pub shutdown: Option<(bool, String)>,
    pub services: Vec<ServiceMemory>,
    pub records: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceMemory {
    pub name: String,
    pub state: ServiceState,
    pub wanted: bool,
    pub given_up: bool,
    /// What its manifest names may start it.
    #[serde(default)]
    pub armed: bool,
    /// Its start was decided, or needed no decision.
    pub permitted: bool,
    pub authorization: Option<Hash>,
    pub restarts: u32,
    pub ledger: RestartLedger,
    pub last_start: Monotonic,
    pub last_error: Option<String>,
    /// None unless it runs.
    pub running_since: Option<Monotonic>,
    /// Its process, whose start is recorded.
    #[serde(default)]
    pub launched: Option<LaunchId>,
    /// What the host could not give its sandbox.
    pub missing: Vec<String>,
    /// Shall stop once, then start again.
    #[serde(default)]
    pub bounce: bool,
    /// Of the stop under way.
    #[serde(default)]
    pub stop_reason: String,
    #[serde(default)]
    pub stop_authorization: Option<Hash>,
}

/// Services that ran when the supervisor died, and since when if that is known.
type Ran = BTreeMap<String, Option<Monotonic>>;

/// What is known of a child's earlier life.
#[derive(Clone, Copy, Debug)]
struct Past {
    /// It was ready, since when if that is known.
    ran: Option<Option<Monotonic>>,
    /// The start of this process is recorded.
    recorded: bool,
    /// It was told to stop, or was about to be.
    stopping: bool,
}

impl Supervisor {
    #[must_use]
    pub fn memory(&self) -> Memory {
        let services = self.services.values().map(|service| ServiceMemory {
            name: service.name().to_owned(),
            state: service.state,
            wanted: service.goal == Goal::Up,
            given_up: service.given_up,
            armed: service.armed,
            permitted: matches!(service.permit, Permit::Granted(_)),
            authorization: match service.permit {
                Permit::Granted(authorization) => authorization,
                _ => None,
            },
            restarts: service.restarts,
            ledger: service.ledger.clone(),
            last_start: service.last_start,
            last_error: service.last_error.clone(),
            running_since: service.instance.as_ref().and_then(|instance| instance.running_since),
            launched: service.instance.as_ref().filter(|i| i.pid.is_some()).map(|i| i.launch),
            missing: service.missing.clone(),
            bounce: service.bounce,
            stop_reason: service.stop_reason.clone(),
            stop_authorization: service.stop_authorization,
        });
        Memory {
            nonce: self.records.nonce,
            next_launch: self.next_launch,
            next_record: self.records.next,
            booted_at: self.booted_at,
            booted: matches!(self.boot, BootProgress::Done | BootProgress::Ended),
            gated: self.gated,
            shutdown: self.shutdown.as_ref().map(|s| (s.emergency, s.reason.clone())),
            services: services.collect(),
            records: self.records.waiting.iter().map(|(record, _)| record.clone()).collect(),
        }
    }

    pub(super) fn adopt(&mut self, memory: Option<Memory>, children: Vec<Child>, exits: Vec<ChildExit>) {
        if self.boot != BootProgress::NotBegun {
            return;
        }
        self.booted_at = self.now;
        self.boot = BootProgress::Phase(Phase::Authority);
        // Without memory: everything is wanted, and a Policy Engine that runs has run before.
        for service in self.services.values_mut() {
            service.want_usual();
            if children.iter().any(|child| child.service == service.name()) {
                service.goal = Goal::Up;
            }
        }
        self.gated = children.iter().any(|child| child.service == catalogue::DECIDER);
        let ran: Ran = match &memory {
            Some(memory) => {
                let ran = |s: &&ServiceMemory| s.state.serves() || s.state == ServiceState::Stopping;
                memory.services.iter().filter(ran).map(|s| (s.name.clone(), s.running_since)).collect()
            }
            None => children.iter().map(|child| (child.service.clone(), None)).collect(),
        };
        // Without memory nobody knows: an entry that is missing is better than one that is not true.
        let recorded: BTreeSet<LaunchId> = match &memory {
            Some(memory) => memory.services.iter().filter_map(|known| known.launched).collect(),
            None => children.iter().map(|child| child.launch).collect(),
        };
        let resumed = memory.as_ref().and_then(|memory| memory.shutdown.clone());
        let is_stopping = |s: &&ServiceMemory| s.state == ServiceState::Stopping;
        let known = memory.iter().flat_map(|memory| &memory.services);
        let stopping: BTreeSet<String> = known.filter(is_stopping).map(|s| s.name.clone()).collect();
        if let Some(memory) = memory {
            self.recall(memory);
        }
        let highest = children.iter().map(|c| c.launch.0).chain(exits.iter().map(|e| e.launch.0)).max();
        self.next_launch = self.next_launch.max(highest.unwrap_or(0).saturating_add(1));
        // In a shutdown all begin anew: the log must be there for the last entries before it is told to stop.
        let resumes = |service: &str| resumed.is_none() && stopping.contains(service);
        self.take_up_all(children, |child| Past {
            ran: ran.get(&child.service).copied(),
            recorded: recorded.contains(&child.launch),
            stopping: resumes(&child.service),
        });
        for exit in exits {
            self.take_in_exit(exit, &ran, &stopping);
        }
        // Those that waited for their restart go on waiting.
        for name in self.names().iter() {
            self.settle_failed(name);
        }
        if let Some((emergency, reason)) = resumed {
            self.begin_shutdown(emergency, &reason);
        }
        self.changed = true;
        self.unremembered = true;
    }

    fn recall(&mut self, memory: Memory) {
        self.next_launch = memory.next_launch;
        self.booted_at = memory.booted_at;
        self.gated |= memory.gated;
        if memory.booted {
            self.boot = BootProgress::Done;
        }
        self.records.nonce = memory.nonce;
        self.records.next = memory.next_record;
        self.records.waiting = memory.records.into_iter().map(|record| (record, false)).collect();
        for known in memory.services {
            let Some(service) = self.services.get_mut(&known.name) else { continue };
            service.goal = if known.wanted { Goal::Up } else { Goal::Down };
            service.given_up = known.given_up;
            service.armed = known.armed;
            service.has_run = known.last_start != Monotonic(0);
            service.permit =
                if known.permitted { Permit::Granted(known.authorization) } else { Permit::None };
            service.restarts = known.restarts;
            service.ledger = known.ledger;
            service.last_start = known.last_start;
            service.last_error = known.last_error;
            service.missing = known.missing;
            // A stop that has begun goes on, whatever it was for; who is wanted starts again after it.
            service.bounce = known.bounce || (known.wanted && known.state == ServiceState::Stopping);
            service.stop_reason = known.stop_reason;
            service.stop_authorization = known.stop_authorization;
            // Until a child is found, only rest or a failure is true.
            service.state = match known.state {
                ServiceState::Registered | ServiceState::Failed { .. } => known.state,
                _ => ServiceState::Stopped,
            };
        }
    }

    /// Of two processes of one service the newer stays; what belongs to no service ends.
    fn take_up_all(&mut self, mut children: Vec<Child>, past: impl Fn(&Child) -> Past) {
        children.sort_by_key(|child| std::cmp::Reverse(child.launch));
        for child in children {
            let free = self.services.get(&child.service).is_some_and(|service| service.instance.is_none());
            if free {
                self.take_up(&child, past(&child));
            } else {
                let why = format!(
                    "{} (pid {}) belongs to no registered service and is ended",
                    child.service,
                    child.pid.unwrap_or(0)
                );
                self.effects.push(Effect::Warn(why));
                self.effects.push(Effect::Signal { launch: child.launch, signal: Signal::Kill });
            }
        }
    }

    /// The service goes through `Starting` again: it answers `Init` and `Start` a second time without any change.
    fn take_up(&mut self, child: &Child, past: Past) {
        if matches!(self.state_of(&child.service), Some(ServiceState::Failed { .. })) {
            return self.kill_again(child);
        }
        if !self.go(&child.service, Transition::Start, "taken over") {
            return;
        }
        let now = self.now;
        let Some(service) = self.services.get_mut(&child.service) else { return };
        if service.permit == Permit::None {
            service.permit = Permit::Granted(None);
        }
        let mut instance = Instance::new(child.launch);
        instance.running_since = past.ran.flatten();
        instance.deadline = Some(now.after(service.startup_timeout()));
        service.instance = Some(instance);
        let Some(pid) = child.pid else {
            // The start goes on where it was: `Launched` is still to come.
            return;
        };
        if !past.recorded {
            // It came to be there while nobody listened.
            return self.launched(child.launch, pid, child.missing.clone());
        }
        let Some(service) = self.services.get_mut(&child.service) else { return };
        let Some(instance) = service.instance.as_mut() else { return };
        instance.pid = Some(pid);
        instance.stage = Stage::Readying;
        if past.stopping {
            // It may end at any moment, and that is no failure.
            self.ready(&child.service);
            let reason = self.remembered_reason(&child.service);
            return self.tell_to_stop(&child.service, reason);
        }
        // READY=1 was said to the supervisor that died.
        if past.ran.is_some() && matches!(service.check, HealthCheck::SdNotify { .. }) {
            self.ready(&child.service);
        } else {
            self.await_ready(&child.service);
        }
    }

    /// It was being killed when the supervisor died.
    fn kill_again(&mut self, child: &Child) {
        let Some(service) = self.services.get_mut(&child.service) else { return };
        let mut instance = Instance::new(child.launch);
        instance.pid = child.pid;
        service.instance = Some(instance);
        self.kill(&child.service);
    }

    /// Of a stop under way; a supervisor of an older build did not leave it.
    fn remembered_reason(&self, name: &str) -> String {
        let known = self.services.get(name).map(|service| service.stop_reason.clone());
        known.filter(|reason| !reason.is_empty()).unwrap_or_else(|| self.stop_reason(name))
    }

    /// It ended while nobody listened: the same as if it ended now.
    fn take_in_exit(&mut self, exit: ChildExit, ran: &Ran, stopping: &BTreeSet<String>) {
        let name = exit.service.as_str();
        let idle = |s: &super::service::Service| s.instance.is_none() && s.state.rests();
        let told = stopping.contains(name);
        let unwanted = ran.contains_key(name) && self.services.get(name).is_some_and(|s| !s.is_wanted());
        let is_idle = self.services.get(name).is_some_and(idle);
        if is_idle && (told || unwanted) {
            let reason = if told { self.remembered_reason(name) } else { self.stop_reason(name) };
            if let Some(service) = self.services.get_mut(name) {
                service.stop_reason = reason;
            }
            self.record_stop(name);
            self.rested(name);
        } else if is_idle && self.go(name, Transition::Start, "taken over") {
            if let Some(service) = self.services.get_mut(name) {
                service.instance = Some(Instance::new(exit.launch));
                if service.permit == Permit::None {
                    service.permit = Permit::Granted(None);
                }
            }
            if !exit.was_there {
                let text = "it ended before it was there, while no supervisor listened";
                self.launch_failed(exit.launch, ServiceError::LaunchFailed, text.to_owned());
            } else {
                if ran.contains_key(name) {
                    self.ready(name);
                }
                self.ended(name, exit.status);
            }
        }
        self.effects.push(Effect::Acknowledge { launch: exit.launch });
    }
}
