//! The services that the system is made of (seed 003 §2.1, §6.1), as data.

use crate::manifest::Priority;

/// One service of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: &'static str,
    pub title: &'static str,
    pub priority: Priority,
    /// None for the supervisor itself, which is there before the first phase.
    pub phase: Option<Phase>,
}

/// A barrier of the boot: nothing of a phase starts before all of the phase before has started (SUP-20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Authority,
    Execution,
    Storage,
    Network,
    UserFacing,
    /// Services of the user, which are in no catalogue.
    User,
}

impl Phase {
    pub const ALL: [Self; 6] =
        [Self::Authority, Self::Execution, Self::Storage, Self::Network, Self::UserFacing, Self::User];
    /// What a node in recovery mode boots: enough to decide, record and run a program (SUP-98).
    pub const RECOVERY: Self = Self::Execution;
}

const fn entry(name: &'static str, title: &'static str, priority: Priority, phase: Phase) -> Entry {
    Entry { name, title, priority, phase: Some(phase) }
}

/// In the order in which the seed starts them (SUP-15 to SUP-19); inside a phase the dependency graph decides and this
/// order breaks ties (SUP open point 1).
pub const ALL: [Entry; 13] = [
    Entry { name: "init", title: "Init", priority: Priority::Critical, phase: None },
    entry("axiom", "Axiom Sequencer", Priority::Critical, Phase::Authority),
    entry("policy", "Policy Engine", Priority::Critical, Phase::Authority),
    entry("keys", "Key Derivation Service", Priority::Critical, Phase::Authority),
    entry("identity", "Identity Service", Priority::Critical, Phase::Authority),
    entry("process_manager", "Process Manager", Priority::Critical, Phase::Execution),
    entry("capability_service", "Capability Service", Priority::Critical, Phase::Execution),
    entry("block_storage", "Block Storage", Priority::High, Phase::Storage),
    entry("filesystem", "Filesystem Service", Priority::High, Phase::Storage),
    entry("driver_manager", "Driver Manager", Priority::High, Phase::Network),
    entry("network", "Network Service", Priority::High, Phase::Network),
    entry("terminal", "Terminal Service", Priority::Normal, Phase::UserFacing),
    entry("update_manager", "Update Manager", Priority::Normal, Phase::UserFacing),
];

/// The service that keeps the log.
pub const LOG: &str = "axiom";
/// The service that decides.
pub const DECIDER: &str = "policy";

/// The entry of a service, if it has one.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name && entry.phase.is_some())
}

#[must_use]
pub fn phase(name: &str) -> Phase {
    find(name).and_then(|entry| entry.phase).unwrap_or(Phase::User)
}

/// Failure for good of a critical service ends a boot (SUP open point 2).
#[must_use]
pub fn is_critical(name: &str) -> bool {
    find(name).is_some_and(|entry| entry.priority == Priority::Critical)
}

/// Place in the listed order; after all others for services of the user.
#[must_use]
pub fn rank(name: &str) -> usize {
    ALL.iter().position(|entry| entry.name == name).unwrap_or(ALL.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(priority: Priority) -> Vec<&'static str> {
        ALL.iter().filter(|entry| entry.priority == priority).map(|entry| entry.title).collect()
    }

    /// covers: SUP-03
    #[test]
    fn the_catalogue_has_thirteen_services_with_their_priorities() {
        assert_eq!(ALL.len(), 13);
        let critical = [
            "Init",
            "Axiom Sequencer",
            "Policy Engine",
            "Key Derivation Service",
            "Identity Service",
            "Process Manager",
            "Capability Service",
        ];
        assert_eq!(of(Priority::Critical), critical);
        let high = ["Block Storage", "Filesystem Service", "Driver Manager", "Network Service"];
        assert_eq!(of(Priority::High), high);
        assert_eq!(of(Priority::Normal), ["Terminal Service", "Update Manager"]);
    }

    #[test]
    fn a_service_of_the_user_is_in_the_last_phase_and_not_critical() {
        assert_eq!(phase("mine"), Phase::User);
        assert!(!is_critical("mine") && is_critical("keys") && !is_critical("network"));
        assert!(rank("mine") > rank("update_manager"));
    }
}
