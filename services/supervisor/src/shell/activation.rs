//! The loop's part of what starts a service and of what is handed to it.

use std::os::fd::OwnedFd;

use jiff::tz::TimeZone;

use super::{
    inputs::Input,
    listeners::{self, HandedOver},
    run::Shell,
    timers,
};
use crate::{
    core::supervisor::{Event, ServiceSetup, Supervisor},
    manifest::ServiceManifest,
};

impl Shell {
    /// The one before waits no more: what it would say is about another life of the service.
    pub(super) fn await_demand(&mut self, machine: &Supervisor, service: String) {
        let is_its = |setup: &&ServiceSetup| setup.name() == service;
        let Some(setup) = machine.setups().find(is_its) else { return };
        let sockets = self.applier.listeners.on_demand(&setup.manifest.manifest);
        self.stop_waiting(&service);
        match listeners::watch(service.clone(), &sockets, self.inputs.clone()) {
            Ok(waiting) => {
                self.waiting.insert(service, waiting);
            }
            Err(error) => {
                tracing::error!(%error, service, "cannot wait for connections; the service is started instead");
                let _ = self.inputs.send(Input::Event(Event::Demanded { service, waited: false }));
            }
        }
    }

    /// Starts what is due, and sets the alarm for what comes next.
    pub(super) fn fire_timers(&mut self, machine: &mut Supervisor) {
        let zone = timers::local_zone().unwrap_or(TimeZone::UTC);
        self.timers.follow(machine, &self.applier.knowledge, timers::moment());
        for service in self.timers.fire(timers::moment(), &zone) {
            tracing::info!(service, "its time has come");
            self.unremembered = true;
            self.step(machine, Event::TimerElapsed { service });
        }
        let now = timers::moment();
        let next = self.timers.next(now, &zone);
        if let Some(alarm) = &self.alarm {
            alarm.set(next.values().min().copied(), now.wall);
        }
        self.progress.set_timers(next);
    }

    pub(super) fn stop_waiting(&mut self, service: &str) {
        if let Some(before) = self.waiting.remove(service) {
            before.abort();
        }
    }

    pub(super) fn rested(&mut self, service: &str) {
        self.fd_store.forget(&self.applier.keeper, service, None);
    }

    pub(super) fn store_descriptors(&mut self, service: &str, name: &str, fds: Vec<OwnedFd>) {
        self.fd_store.store(&self.applier.keeper, &self.inputs, service, name, fds);
        self.unremembered = true;
    }

    pub(super) fn forget_descriptors(&mut self, service: &str, name: &str) {
        self.fd_store.forget(&self.applier.keeper, service, Some(name));
        self.unremembered = true;
    }

    /// Its sockets, then what it has left.
    pub(super) fn handed_over(&self, manifest: &ServiceManifest) -> Vec<HandedOver> {
        let mut all = listeners::handed_over(manifest);
        all.extend(self.fd_store.handed_over(&manifest.service.name));
        all
    }
}
