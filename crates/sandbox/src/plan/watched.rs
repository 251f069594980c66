//! A program whose init answers the calls that its filter shows.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::{DESCRIPTORS_MAX, Plan, PlanError, check::at_most};

/// What the init of a program needs that answers the calls of its filter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Watched {
    /// Index into the descriptors that came with the launch request: on it the init is told what to do.
    #[n(0)]
    pub slot: u32,
    /// Whether its connects can lead out of its network.
    #[n(1)]
    pub leads_out: bool,
    /// Whether it has a proxy on its loopback.
    #[n(2)]
    pub proxy: bool,
    /// Where whoever comes is led to the program's loopback.
    #[n(3)]
    #[cbor(default)]
    pub published: Vec<Published>,
}

/// A socket of the host's that listens, and a port of the program's loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Published {
    /// Index into the descriptors that came with the launch request.
    #[n(0)]
    pub slot: u32,
    #[n(1)]
    pub port: u16,
}

impl Plan {
    /// Whoever answers looks into its program's descriptors, so it may have no right that the init lost.
    pub(super) fn validate_watched(&self, watched: &Watched, slots: usize) -> Result<(), PlanError> {
        at_most("published sockets", watched.published.len(), DESCRIPTORS_MAX)?;
        let published = watched.published.iter().map(|published| published.slot);
        if let Some(slot) = published.chain([watched.slot]).find(|slot| *slot as usize >= slots) {
            return Err(PlanError::NoSlot { slot, slots });
        }
        let shows = self.seccomp.as_ref().is_some_and(|seccomp| !seccomp.notify.is_empty());
        let holds = self.landlock.as_ref().is_some_and(|landlock| !landlock.tcp);
        let contradiction = [
            (!self.init, "a watched program without an init"),
            (!shows, "a watched program whose filter shows nothing"),
            (!holds, "a watched program that Landlock lets connect"),
            (!self.namespaces.pid || !self.namespaces.net, "a watched program without namespaces of its own"),
            (!self.loopback, "a watched program without a loopback"),
            (self.capabilities_kept != 0, "a watched program that keeps capabilities"),
            (watched.leads_out && self.name_server.is_none(), "a way out without a name server"),
        ];
        match contradiction.into_iter().find(|(is, _)| *is) {
            Some((_, what)) => Err(PlanError::Contradiction(what)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Executable;
    use crate::seccomp::{NotifyCall, Profile};

    fn watched(change: impl FnOnce(&mut Plan)) -> Result<(), PlanError> {
        let mut plan = Plan::new("t", Executable::Slot(0), Profile::Program);
        plan.watched = Some(Watched { slot: 1, leads_out: true, proxy: false, published: Vec::new() });
        (plan.init, plan.loopback, plan.name_server) = (true, true, Some(9));
        plan.seccomp.as_mut().unwrap().notify = vec![NotifyCall::Connect];
        change(&mut plan);
        plan.validate(2)
    }

    #[test]
    fn whoever_is_watched_has_what_its_init_needs_for_it() {
        watched(|_| {}).unwrap();
        watched(|plan| plan.watched.as_mut().unwrap().slot = 0).unwrap();
        let past = watched(|plan| plan.watched.as_mut().unwrap().slot = 2);
        assert!(matches!(past, Err(PlanError::NoSlot { slot: 2, slots: 2 })));
        let publishes =
            |published: Vec<Published>| watched(|plan| plan.watched.as_mut().unwrap().published = published);
        publishes(vec![Published { slot: 0, port: 80 }; DESCRIPTORS_MAX]).unwrap();
        assert!(publishes(vec![Published { slot: 0, port: 80 }; DESCRIPTORS_MAX + 1]).is_err());
        assert!(publishes(vec![Published { slot: 2, port: 80 }]).is_err());
        let without: [fn(&mut Plan); 8] = [
            |plan| plan.init = false,
            |plan| plan.seccomp.as_mut().unwrap().notify.clear(),
            |plan| plan.landlock.as_mut().unwrap().tcp = true,
            |plan| plan.landlock = None,
            |plan| plan.namespaces.pid = false,
            |plan| plan.namespaces.net = false,
            |plan| plan.capabilities_kept = 1,
            |plan| plan.name_server = None,
        ];
        for (number, change) in without.into_iter().enumerate() {
            let refused = watched(change);
            assert!(matches!(refused, Err(PlanError::Contradiction(_))), "{number}: {refused:?}");
        }
    }

    #[test]
    fn a_plan_of_before_has_no_one_who_answers() {
        let mut plan = Plan::new("t", Executable::Slot(0), Profile::Program);
        plan.watched = None;
        assert_eq!(Plan::decode(&plan.encode(), 1).unwrap(), plan);
    }
}
