//! The end of everything, in order, and always an end (SUP-94, SUP-96, SUP open points 3 and 15).

use chain::payload::service::{ServiceStop, Shutdown as ShutdownBody};

use super::{
    ActId, Effect, LAST_ENTRIES_TIMEOUT, Monotonic, RecordBody, Reply, RequestId, Supervisor,
    SupervisorError, act::Purpose, boot::BootProgress, bounded, service::Stage,
};
use crate::core::{catalogue, catalogue::Phase, state::ServiceState};

#[derive(Clone, Debug)]
pub(super) struct Shutdown {
    pub(super) emergency: bool,
    pub(super) reason: String,
    last_entries: LastEntries,
}

/// What is written before the log itself stops.
#[derive(Clone, Copy, Debug)]
enum LastEntries {
    NotWritten,
    Awaited { until: Monotonic },
    Done,
}

impl Shutdown {
    pub(super) fn deadline(&self) -> Option<Monotonic> {
        match self.last_entries {
            LastEntries::Awaited { until } => Some(until),
            LastEntries::NotWritten | LastEntries::Done => None,
        }
    }
}

impl Supervisor {
    pub(super) fn shutdown_requested(&mut self, request: Option<RequestId>, reason: String) {
        if !self.is_ending() {
            self.begin_shutdown(false, &reason);
        }
        if let Some(request) = request {
            self.reply(request, Ok(Reply::Done));
        }
    }

    /// Brings everything down because the node cannot go on; a marker tells the next boot.
    pub(super) fn emergency(&mut self, reason: &str) {
        if self.is_emergency() || self.is_ending() {
            // During a shutdown a failure is no reason to leave the order.
            return;
        }
        self.effects.push(Effect::Emergency { reason: bounded(reason) });
        self.begin_shutdown(true, reason);
    }

    pub(super) fn begin_shutdown(&mut self, emergency: bool, reason: &str) {
        let last_entries = LastEntries::NotWritten;
        self.shutdown = Some(Shutdown { emergency, reason: bounded(reason), last_entries });
        if self.boot == BootProgress::NotBegun {
            self.boot = BootProgress::Done;
        }
        for name in self.names().iter() {
            self.drain_start_waiters(name, &SupervisorError::ShuttingDown);
        }
        let acts: Vec<ActId> = self.acts.keys().copied().collect();
        for act in acts {
            let Some(act) = self.acts.remove(&act) else { continue };
            if let Purpose::Start(request)
            | Purpose::Stop(request)
            | Purpose::Restart(request)
            | Purpose::Reload(request)
            | Purpose::Register(request, _)
            | Purpose::Unregister(request) = act.purpose
            {
                self.reply(request, Err(SupervisorError::ShuttingDown));
            }
        }
        self.changed = true;
        self.unremembered = true;
    }

    pub(super) fn is_emergency(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|shutdown| shutdown.emergency)
    }

    /// In a shutdown: the last phase in which something is still to be stopped.
    pub(super) fn stopping_phase(&self) -> Option<Phase> {
        self.shutdown.as_ref()?;
        let is_left = |s: &&super::service::Service| {
            let stuck = s.instance.as_ref().is_some_and(|instance| instance.stage == Stage::Stuck);
            !s.state.rests() && !stuck
        };
        Some(self.services.values().filter(is_left).map(|s| s.phase).max().unwrap_or(Phase::Authority))
    }

    /// Writes the last entries and says whether the log may stop now.
    pub(super) fn last_entries_written(&mut self) -> bool {
        let Some(shutdown) = self.shutdown.as_mut() else { return true };
        let reason = shutdown.reason.clone();
        match shutdown.last_entries {
            LastEntries::NotWritten => {
                shutdown.last_entries = LastEntries::Awaited { until: self.now.after(LAST_ENTRIES_TIMEOUT) };
                let stop = ServiceStop {
                    name: catalogue::LOG.to_owned(),
                    reason: bounded(&format!("shutdown: {reason}")),
                    late: false,
                };
                self.record(None, RecordBody::Shutdown(ShutdownBody { reason }));
                self.record(None, RecordBody::Stop(stop));
                false
            }
            LastEntries::Awaited { until } if !self.records.waiting.is_empty() && self.now < until => false,
            LastEntries::Awaited { .. } => {
                shutdown.last_entries = LastEntries::Done;
                true
            }
            LastEntries::Done => true,
        }
    }

    pub(super) fn advance_shutdown(&mut self) {
        if !self.is_ending() || self.boot == BootProgress::Ended {
            return;
        }
        let ended = |service: &super::service::Service| match &service.instance {
            Some(instance) => instance.stage == Stage::Stuck,
            None => matches!(service.state, ServiceState::Registered | ServiceState::Stopped),
        };
        if !self.services.values().all(ended) {
            return;
        }
        let survivors: Vec<String> =
            self.services.values().filter(|s| s.instance.is_some()).map(|s| s.name().to_owned()).collect();
        let emergency = self.is_emergency();
        self.boot = BootProgress::Ended;
        self.effects.push(Effect::Finished { emergency, survivors });
    }
}
