//! Each service of the seed's catalogue, as this build ships it: name, priority, phase, dependencies, what it is given.

use std::{collections::BTreeSet, sync::Arc};

use base::KeyPath;
use supervisor::core::catalogue::{self, Phase};
use supervisor::core::graph::Graph;
use supervisor::core::lifecycle::LifecycleMessage;
use supervisor::core::supervisor::{BootMode, Effect, Event, Monotonic, ServiceSetup, Supervisor};
use supervisor::manifest::{self, Priority, ServiceManifest, ServiceType, shipped};

use crate::world::{World, fixtures, user};

fn of_this_build(name: &str) -> ServiceManifest {
    let mut all = manifest::load(shipped::ALL).manifests.into_iter().map(|loaded| loaded.manifest);
    all.find(|manifest| manifest.service.name == name).unwrap_or_else(|| panic!("{name} is not shipped"))
}

/// Catalogue, shipped manifest and dependencies of a critical service.
#[track_caller]
fn is_critical(name: &str, title: &str, phase: Phase, requires: &[&str]) {
    let entry = catalogue::find(name).unwrap();
    assert_eq!((entry.title, entry.priority, entry.phase), (title, Priority::Critical, Some(phase)));
    let manifest = of_this_build(name);
    assert_eq!(manifest.resources.priority, Priority::Critical);
    assert_eq!(manifest.service.service_type, ServiceType::Core);
    let named: BTreeSet<&str> =
        manifest.dependencies.iter().filter(|d| d.required).map(|d| d.name.as_str()).collect();
    assert_eq!(named, requires.iter().copied().collect());
}

/// What was launched by the time that a service does not answer `Start`.
fn launched_before(silent: &str) -> Vec<String> {
    let mut world = World::new(fixtures());
    world.manners(silent).answers_start = false;
    world.boot();
    world.traced("Launch").into_iter().map(str::to_owned).collect()
}

/// covers: AX-01, AX-02
#[test]
fn the_log_is_critical_and_starts_before_everything() {
    is_critical("axiom", "Axiom Sequencer", Phase::Authority, &[]);
    assert_eq!(launched_before("axiom"), ["axiom"]);
    let world = World::booted(fixtures());
    assert_eq!(world.traced("Launch")[0], "axiom");
}

/// covers: POL-01, POL-02
#[test]
fn policy_is_critical_and_starts_second_on_the_log_alone() {
    is_critical("policy", "Policy Engine", Phase::Authority, &["axiom"]);
    assert_eq!(launched_before("policy"), ["axiom", "policy"]);
}

/// covers: KEY-01, KEY-02
#[test]
fn keys_are_critical_and_start_third_on_policy() {
    is_critical("keys", "Key Derivation Service", Phase::Authority, &["policy"]);
    assert_eq!(launched_before("keys"), ["axiom", "policy", "keys"]);
}

/// covers: IDN-01, IDN-02
#[test]
fn identity_is_critical_and_the_last_of_the_first_phase() {
    is_critical("identity", "Identity Service", Phase::Authority, &["keys", "policy"]);
    assert_eq!(launched_before("identity"), ["axiom", "policy", "keys", "identity"]);
    let mut authority = catalogue::ALL.iter().filter(|entry| entry.phase == Some(Phase::Authority));
    assert_eq!(authority.next_back().unwrap().name, "identity");
}

/// covers: PRC-01, PRC-02, CAP-01, CAP-02
#[test]
fn programs_and_rights_are_critical_and_start_in_the_second_phase() {
    is_critical("process_manager", "Process Manager", Phase::Execution, &["policy", "capability_service"]);
    is_critical("capability_service", "Capability Service", Phase::Execution, &["policy", "axiom"]);
    let before: BTreeSet<String> = launched_before("identity").into_iter().collect();
    assert!(!before.contains("process_manager") && !before.contains("capability_service"));
    let after = launched_before("process_manager");
    assert_eq!(after[4..], ["capability_service", "process_manager"]);
    let setups = fixtures();
    let graph = Graph::new(setups.iter().map(|setup| &setup.manifest.manifest)).unwrap();
    assert!(graph.required("terminal").any(|on| on == "process_manager"));
}

/// covers: NET-01, NET-02, DRV-02
#[test]
fn the_way_out_is_of_high_priority_and_the_last_of_the_fourth_phase() {
    for (name, title, requires) in [
        ("driver_manager", "Driver Manager", &[][..]),
        ("network", "Network Service", &["axiom", "driver_manager", "policy"][..]),
    ] {
        let entry = catalogue::find(name).unwrap();
        assert_eq!((entry.title, entry.priority, entry.phase), (title, Priority::High, Some(Phase::Network)));
        let manifest = of_this_build(name);
        assert_eq!(manifest.resources.priority, Priority::High);
        let named: BTreeSet<&str> =
            manifest.dependencies.iter().filter(|d| d.required).map(|d| d.name.as_str()).collect();
        assert_eq!(named, requires.iter().copied().collect(), "{name}");
    }
    let before = launched_before("driver_manager");
    assert!(before.contains(&"filesystem".to_owned()) && !before.contains(&"network".to_owned()));
    let before = launched_before("network");
    assert_eq!(before[before.len() - 2..], ["driver_manager", "network"]);
    assert!(!before.contains(&"terminal".to_owned()));
}

/// covers: NET-13
#[test]
fn a_manifest_may_ask_for_the_network_without_needing_it() {
    let text = "version = 1\n[service]\nname = \"mine\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n\
                [capabilities]\noptional = [{ type = \"Network\", permissions = [\"read\"] }]\n";
    let manifest = manifest::parse("mine.toml", text).unwrap().manifest;
    let [asked] = &manifest.capabilities.optional[..] else { panic!("{:?}", manifest.capabilities) };
    let rights = asked.rights();
    assert_eq!((asked.capability_type.as_str(), rights.read, rights.write), ("Network", true, false));
}

/// covers: IDN-34
#[test]
fn identity_and_permission_are_a_layer_that_needs_nothing_above_it() {
    let setups = fixtures();
    let graph = Graph::new(setups.iter().map(|setup| &setup.manifest.manifest)).unwrap();
    let layer = ["axiom", "policy", "keys", "identity"];
    for name in layer {
        assert_eq!(catalogue::phase(name), Phase::Authority);
        assert!(graph.required(name).chain(graph.preferred(name)).all(|on| layer.contains(&on)), "{name}");
    }
    // It runs whole before anything of another layer, and without all of them.
    let mut alone = World::new(fixtures().into_iter().filter(|s| layer.contains(&s.name())).collect());
    alone.boot();
    assert_eq!(alone.traced("Launch"), layer);
    assert!(launched_before("identity").iter().all(|name| layer.contains(&name.as_str())));
}

/// covers: CAP-06
#[test]
fn init_brings_the_capabilities_that_were_granted() {
    let given = vec![base::CapabilityId([3; 16]), base::CapabilityId([4; 16])];
    let mut setup = user("mine", "");
    setup.capabilities.clone_from(&given);
    // It is the first message, so they are there before it serves anybody.
    let LifecycleMessage::Init { capabilities, .. } = init_of(setup) else { panic!("not Init") };
    assert_eq!(capabilities, given);
    let LifecycleMessage::Init { capabilities, .. } = init_of(user("other", "")) else { panic!("not Init") };
    assert_eq!(capabilities, [], "nothing is inherited");
}

/// covers: KEY-23, IDN-33
#[test]
fn init_brings_the_identity_that_the_manifest_names() {
    let extra = "[identity]\nkey_path = \"/orbital/services/mine\"\npermissions = [\"fs.read\"]\n";
    let mut setups = fixtures();
    setups.push(user("mine", extra));
    for setup in setups {
        let name = setup.name().to_owned();
        let named = setup.manifest.manifest.identity.clone().unwrap();
        assert_eq!(named.key_path, KeyPath::parse(&format!("/orbital/services/{name}")).ok());
        match name.as_str() {
            "filesystem" => assert_eq!(named.permissions, ["fs.read", "fs.write", "fs.admin"]),
            "mine" => assert_eq!(named.permissions, ["fs.read"]),
            _ => {}
        }
        let identity = setup.identity;
        let LifecycleMessage::Init { identity: told, .. } = init_of(setup) else { panic!("{name}") };
        assert_eq!(
            (told.id, Some(told.key_path), told.permissions),
            (identity, named.key_path, named.permissions)
        );
    }
}

/// The first message to a service that is alone on a node: what it requires is left out.
fn init_of(mut setup: ServiceSetup) -> LifecycleMessage {
    let mut loaded = (*setup.manifest).clone();
    loaded.manifest.dependencies.clear();
    setup.manifest = Arc::new(loaded);
    let mut machine = Supervisor::new(vec![setup], [1; 16]).unwrap();
    let now = Monotonic::from_ms(1);
    let mut effects = machine.step(now, Event::Boot { mode: BootMode::Normal });
    while !effects.is_empty() {
        match effects.remove(0) {
            Effect::Launch { launch, .. } => {
                effects.extend(machine.step(now, Event::Launched { launch, pid: 7, missing: Vec::new() }));
            }
            Effect::SendLifecycle { message, .. } => return message,
            _ => {}
        }
    }
    panic!("nothing was said")
}

/// covers: SUP-01
#[test]
fn init_boots_watches_and_restarts() {
    let init = catalogue::ALL.iter().find(|entry| entry.title == "Init").unwrap();
    assert_eq!((init.priority, init.phase), (Priority::Critical, None));
    let mut world = World::booted(fixtures());
    assert_eq!(world.traced("Launch").len(), 12);
    world.advance_ms(1_000);
    for name in world.traced("Launch") {
        assert!(world.traced("HealthCheck").contains(&name), "{name} is not watched");
    }
    world.manners("network").health = None;
    world.advance_ms(10_000);
    world.manners("network").health = Some(true);
    world.advance_ms(60_000);
    let again = world.traced("Launch").iter().filter(|name| **name == "network").count();
    assert!(again > 1 && world.state("network").serves(), "{:?}", world.recent());
}

/// covers: AX-11, POL-36, CAP-08
#[test]
fn access_to_log_and_policy_is_a_capability_with_the_words_of_its_type() {
    let parsed = |requirement: &str| {
        let text = format!(
            "version = 1\n[service]\nname = \"mine\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n\
             [capabilities]\nrequired = [{requirement}]\n"
        );
        manifest::parse("mine.toml", &text)
    };
    let rights = |requirement: &str| {
        let manifest = parsed(requirement).unwrap().manifest;
        let rights = manifest.capabilities.required[0].rights();
        (rights.read, rights.write, rights.execute || rights.delegate || rights.revoke)
    };
    assert_eq!(rights("{ type = \"Axiom\", permissions = [\"read\"] }"), (true, false, false));
    assert_eq!(rights("{ type = \"Axiom\", permissions = [\"read\", \"write\"] }"), (true, true, false));
    assert_eq!(rights("{ type = \"Policy\", permissions = [\"query\"] }"), (true, false, false));
    assert_eq!(rights("{ type = \"BlockStorage\", permissions = [\"write\"] }"), (false, true, false));
    for (capability_type, word) in [
        ("Axiom", "query"),
        ("Axiom", "append"),
        ("Policy", "read"),
        ("Policy", "write"),
        ("Network", "fetch"),
    ] {
        let errors =
            parsed(&format!("{{ type = \"{capability_type}\", permissions = [\"{word}\"] }}")).unwrap_err();
        assert_eq!(errors[0].key, "capabilities.required[0].permissions");
        assert!(errors[0].what.contains(word), "{}", errors[0]);
    }
    // What the shipped services are given of them.
    let given = |name: &str, capability_type: &str| {
        let manifest = of_this_build(name);
        let mut all = manifest.capabilities.required.iter();
        all.find(|r| r.capability_type == capability_type).map(|r| r.permissions.clone())
    };
    assert_eq!(given("policy", "Axiom").unwrap(), ["read", "write"]);
    assert_eq!(given("capability_service", "Axiom").unwrap(), ["read"]);
    assert_eq!(given("keys", "Axiom"), None);
    for name in ["keys", "identity", "capability_service", "process_manager"] {
        assert_eq!(given(name, "Policy").unwrap(), ["query"], "{name}");
    }
    assert_eq!(given("axiom", "Policy"), None);
}
