//! Decisions: what needs one, and what follows from the answer (SUP-100, SUP-101).

use base::Hash;
use chain::payload::policy::ServiceOperation;

use super::{
    ACT_TIMEOUT, ACTS_MAX, ActId, ActOutcome, Effect, Monotonic, RETRY_DELAY, RequestId, ServiceSetup,
    Supervisor, SupervisorError, bounded, service::Permit,
};

#[derive(Debug)]
pub(super) struct PendingAct {
    pub(super) service: String,
    pub(super) purpose: Purpose,
    pub(super) due: Monotonic,
}

/// What is done once it is allowed.
#[derive(Debug)]
pub(super) enum Purpose {
    /// The machine itself wants the service up.
    Boot,
    Start(RequestId),
    Stop(RequestId),
    Restart(RequestId),
    Reload(RequestId),
    Register(RequestId, Box<ServiceSetup>),
    Unregister(RequestId),
}

impl Purpose {
    const fn operation(&self) -> ServiceOperation {
        match self {
            Self::Boot | Self::Start(_) => ServiceOperation::Start,
            Self::Stop(_) => ServiceOperation::Stop,
            // It changes what runs, as a restart does, and less: who may do the one may do the other.
            Self::Restart(_) | Self::Reload(_) => ServiceOperation::Restart,
            Self::Register(..) => ServiceOperation::Register,
            Self::Unregister(_) => ServiceOperation::Unregister,
        }
    }

    const fn request(&self) -> Option<RequestId> {
        match self {
            Self::Boot => None,
            Self::Start(request)
            | Self::Stop(request)
            | Self::Restart(request)
            | Self::Reload(request)
            | Self::Register(request, _)
            | Self::Unregister(request) => Some(*request),
        }
    }
}

impl Supervisor {
    /// Asks the Policy Engine, or goes on at once while it has never run.
    pub(super) fn authorize(&mut self, service: &str, purpose: Purpose) {
        if !self.gated {
            return self.allowed(service, purpose, None);
        }
        if self.acts.len() >= ACTS_MAX {
            return match purpose.request() {
                Some(request) => {
                    self.reply(request, Err(SupervisorError::Busy { what: "decisions", limit: ACTS_MAX }));
                }
                None => self.set_permit(service, Permit::RetryAt(self.now.after(RETRY_DELAY))),
            };
        }
        let act = ActId(self.next_act);
        self.next_act += 1;
        if matches!(purpose, Purpose::Boot) {
            self.set_permit(service, Permit::Asked(act));
        }
        let (operation, request) = (purpose.operation(), purpose.request());
        self.effects.push(Effect::Act { act, service: service.to_owned(), operation, request });
        let due = self.now.after(ACT_TIMEOUT);
        self.acts.insert(act, PendingAct { service: service.to_owned(), purpose, due });
    }

    pub(super) fn act_result(&mut self, act: ActId, outcome: ActOutcome) {
        // An answer after the time limit, or a second one, changes nothing.
        let Some(PendingAct { service, purpose, .. }) = self.acts.remove(&act) else { return };
        match (outcome, purpose) {
            (ActOutcome::Allowed { authorization }, purpose) => {
                self.allowed(&service, purpose, Some(authorization))
            }
            (ActOutcome::Denied { refusal }, Purpose::Boot) => self.start_denied(&service, refusal),
            (ActOutcome::Unavailable { .. }, Purpose::Boot) => {
                self.set_permit(&service, Permit::RetryAt(self.now.after(RETRY_DELAY)));
            }
            (ActOutcome::Denied { refusal }, purpose) => {
                self.refuse(purpose.request(), SupervisorError::PolicyDenied { refusal });
            }
            (ActOutcome::Unavailable { text }, purpose) => {
                self.refuse(purpose.request(), SupervisorError::Unavailable(bounded(&text)));
            }
        }
    }

    pub(super) fn expire_acts(&mut self) {
        let due: Vec<ActId> =
            self.acts.iter().filter(|(_, act)| act.due <= self.now).map(|(id, _)| *id).collect();
        for act in due {
            let text = "the Policy Engine did not answer in time".to_owned();
            self.act_result(act, ActOutcome::Unavailable { text });
        }
    }

    fn allowed(&mut self, service: &str, purpose: Purpose, authorization: Option<Hash>) {
        match purpose {
            Purpose::Boot => self.set_permit(service, Permit::Granted(authorization)),
            Purpose::Start(request) => self.start_allowed(request, service, authorization),
            Purpose::Stop(request) => self.stop_allowed(request, service, authorization),
            Purpose::Restart(request) => self.restart_allowed(request, service, authorization),
            Purpose::Reload(request) => self.reload_allowed(request, service),
            Purpose::Register(request, setup) => self.register_allowed(request, *setup, authorization),
            Purpose::Unregister(request) => self.unregister_allowed(request, service),
        }
    }

    /// A service of the node itself that policy will not have.
    fn start_denied(&mut self, name: &str, refusal: u64) {
        let error = SupervisorError::PolicyDenied { refusal };
        let Some(service) = self.services.get_mut(name) else { return };
        service.permit = Permit::None;
        service.given_up = true;
        service.last_error = Some(error.to_string());
        for request in std::mem::take(&mut service.start_waiters) {
            self.reply(request, Err(error.clone()));
        }
        self.changed = true;
    }

    fn refuse(&mut self, request: Option<RequestId>, error: SupervisorError) {
        if let Some(request) = request {
            self.reply(request, Err(error));
        }
    }

    pub(super) fn set_permit(&mut self, name: &str, permit: Permit) {
        if let Some(service) = self.services.get_mut(name) {
            service.permit = permit;
            self.changed = true;
            self.unremembered = true;
        }
    }
}
