use supervisor::core::catalogue;
use supervisor::core::graph::{Graph, GraphError};
use supervisor::core::state::ServiceState;
use supervisor::core::supervisor::{BootMode, Event, Monotonic, NodeState};
use supervisor::manifest::ServiceManifest;

use crate::world::{FIXTURES, World, fixtures, requires, service, setup, user};

fn position(order: &[&str], name: &str) -> usize {
    order.iter().position(|other| *other == name).unwrap_or_else(|| panic!("{name} is not in {order:?}"))
}

fn manifest(name: &str, extra: &str) -> ServiceManifest {
    user(name, extra).manifest.manifest.clone()
}

fn without(names: &[&str]) -> Vec<supervisor::core::supervisor::ServiceSetup> {
    fixtures().into_iter().filter(|setup| !names.contains(&setup.name())).collect()
}

#[track_caller]
fn required(name: &str, expected: &[&str]) {
    let setups = fixtures();
    let graph = Graph::new(setups.iter().map(|setup| &setup.manifest.manifest)).unwrap();
    let mut edges: Vec<&str> = graph.required(name).collect();
    edges.sort_unstable();
    assert_eq!(edges, expected, "{name}");
}

/// covers: SUP-04, SUP-05, SUP-06, SUP-07, SUP-08
#[test]
fn the_graph_has_the_seeds_edges() {
    required("axiom", &[]);
    required("policy", &["axiom"]);
    required("keys", &["policy"]);
    required("identity", &["keys", "policy"]);
    required("process_manager", &["capability_service", "policy"]);
    required("capability_service", &["axiom", "policy"]);
    required("block_storage", &[]);
    required("filesystem", &["axiom", "block_storage", "policy"]);
    required("driver_manager", &[]);
    required("network", &["axiom", "driver_manager", "policy"]);
    required("terminal", &["filesystem", "identity", "process_manager"]);
    required("update_manager", &["axiom", "filesystem", "policy"]);
}

/// covers: SUP-08
#[test]
fn a_cycle_is_refused_and_named() {
    let cycle = [manifest("a", &requires("b")), manifest("b", &requires("c")), manifest("c", &requires("a"))];
    let names = ["a", "b", "c", "a"].map(str::to_owned).to_vec();
    assert_eq!(Graph::new(&cycle).unwrap_err(), GraphError::Cycle(names));
    let optional = "[[dependencies]]\nname = \"a\"\nrequired = false\n";
    let half = [manifest("a", &requires("b")), manifest("b", optional)];
    assert!(matches!(Graph::new(&half), Err(GraphError::Cycle(_))));
}

#[test]
fn what_starts_earlier_cannot_require_what_starts_later() {
    let manifests = [
        service("axiom", "Core", &requires("network")).manifest.manifest.clone(),
        service("network", "System", "").manifest.manifest.clone(),
    ];
    assert!(matches!(Graph::new(&manifests), Err(GraphError::Later { .. })));
}

#[test]
fn a_cycle_among_services_of_the_user_does_not_stop_the_node() {
    let mut manifests: Vec<ServiceManifest> =
        fixtures().iter().map(|s| s.manifest.manifest.clone()).collect();
    manifests.extend([manifest("a", &requires("b")), manifest("b", &requires("a")), manifest("c", "")]);
    let (graph, refused) = Graph::admit(&mut manifests).unwrap();
    assert_eq!((graph.start_order().len(), refused.len()), (13, 1));
    let mut broken = vec![
        service("axiom", "Core", &requires("policy")).manifest.manifest.clone(),
        service("policy", "Core", &requires("axiom")).manifest.manifest.clone(),
    ];
    assert!(Graph::admit(&mut broken).is_err());
}

#[test]
fn a_long_chain_of_dependencies_needs_no_stack() {
    let chain: Vec<ServiceManifest> = (0..1000)
        .map(|n| {
            manifest(&format!("s{n}"), &if n == 0 { String::new() } else { requires(&format!("s{}", n - 1)) })
        })
        .collect();
    assert_eq!(Graph::new(&chain).unwrap().start_order().len(), 1000);
}

#[test]
fn many_ways_to_one_service_are_walked_once() {
    const LAYERS: usize = 64;
    // Two services in each layer require both of the layer below: 2^64 ways from the top to the bottom.
    let layers: Vec<ServiceManifest> = (0..LAYERS)
        .flat_map(|layer| {
            let below =
                layer.checked_sub(1).map(|b| ["a", "b"].map(|s| requires(&format!("{s}{b}"))).concat());
            let below = below.unwrap_or_default();
            ["a", "b"].map(|side| manifest(&format!("{side}{layer}"), &below))
        })
        .collect();
    assert_eq!(Graph::new(&layers).unwrap().start_order().len(), 2 * LAYERS);
}

/// covers: SUP-15, SUP-16, SUP-17, SUP-18, SUP-19
#[test]
fn phases_boot_in_order_and_dependencies_decide_inside() {
    let world = World::booted(fixtures());
    let expected = [
        "axiom",
        "policy",
        "keys",
        "identity",
        // Listed the other way round, but required (open point 1).
        "capability_service",
        "process_manager",
        "block_storage",
        "filesystem",
        "driver_manager",
        "network",
        "terminal",
        "update_manager",
    ];
    assert_eq!(world.traced("Launch"), expected);
    assert!(world.trace.contains(&"Booted without []".to_owned()));
    assert_eq!(world.machine.node().state, NodeState::Running);
}

/// covers: SUP-20
#[test]
fn no_phase_begins_before_the_one_before_has_started() {
    let mut world = World::new(fixtures());
    world.manners("identity").answers_start = false;
    world.boot();
    assert_eq!(world.traced("Launch"), ["axiom", "policy", "keys", "identity"]);
    assert_eq!(world.machine.node().state, NodeState::Booting);
    // `block_storage` requires nobody and still waits for two whole phases.
    world.manners("process_manager").answers_start = false;
    let launch = world.launch_of("identity");
    world.manners("identity").answers_start = true;
    world.advance_ms(5_000);
    assert!(!world.processes.contains_key(&launch));
    world.advance_ms(1_000);
    let launched = world.traced("Launch");
    assert!(launched.contains(&"process_manager") && !launched.contains(&"block_storage"), "{launched:?}");
}

/// covers: SUP-14, SUP-96
#[test]
fn a_critical_service_that_does_not_start_ends_the_boot() {
    let mut setups = without(&["keys"]);
    let text = FIXTURES[2].1.to_owned() + "\n[restart]\nmode = \"never\"\n";
    setups.push(setup("keys.toml", &text));
    let mut world = World::new(setups);
    world.manners("keys").launches = Err(chain::payload::service::ServiceError::LaunchFailed);
    world.boot();
    assert_eq!(world.traced("Launch"), ["axiom", "policy", "keys"]);
    assert_eq!(world.finished, Some((true, vec![])));
    assert_eq!(world.traced("Append").last(), Some(&"22 axiom"));
    assert!(world.processes.is_empty());
}

#[test]
fn a_critical_service_is_retried_before_the_boot_is_given_up() {
    let mut world = World::new(fixtures());
    world.manners("keys").answers_init = false;
    world.boot();
    world.advance_ms(60_000);
    // Nothing of the next phase starts meanwhile.
    assert_eq!(world.traced("Launch"), ["axiom", "policy", "keys", "keys", "keys", "keys"]);
    assert!(world.finished.is_some());
}

#[test]
fn a_lesser_service_that_does_not_start_leaves_a_degraded_node() {
    let mut world = World::new(fixtures());
    world.manners("block_storage").answers_init = false;
    world.boot();
    world.advance_ms(6_000);
    let launched = world.traced("Launch");
    assert!(!launched.contains(&"filesystem") && !launched.contains(&"terminal"), "{launched:?}");
    assert!(launched.contains(&"network"));
    assert_eq!(world.state("filesystem"), ServiceState::Registered);
    assert_eq!(world.machine.node().state, NodeState::Degraded);
    let missing = "Booted without [\"block_storage\", \"filesystem\", \"terminal\", \"update_manager\"]";
    assert!(world.trace.contains(&missing.to_owned()), "{:?}", world.trace);
    // What came late brings its dependents up when it is there.
    world.manners("block_storage").answers_init = true;
    world.advance_ms(60_000);
    assert_eq!(world.state("terminal"), ServiceState::Running);
}

/// covers: SUP-79
#[test]
fn the_node_boots_without_network() {
    let world = World::booted(without(&["network", "driver_manager"]));
    assert_eq!(world.machine.node().state, NodeState::Running);
    assert_eq!(world.machine.node().not_installed, ["driver_manager", "network"]);
}

#[test]
fn services_of_the_user_come_last_and_optional_ones_go_first_in_their_phase() {
    let mut setups = fixtures();
    let optional = "[[dependencies]]\nname = \"zeta\"\nrequired = false\n[[dependencies]]\nname = \"nobody\"\nrequired = false\n";
    setups.push(user("alpha", optional));
    setups.push(user("zeta", ""));
    let world = World::booted(setups);
    let launched = world.traced("Launch");
    assert_eq!(position(&launched, "zeta"), 12);
    assert_eq!(position(&launched, "alpha"), 13);
}

/// covers: SUP-33
#[test]
fn a_dependency_out_of_range_stops_the_start_and_an_optional_one_does_not() {
    let mut setups = fixtures();
    setups.push(user("old", "[[dependencies]]\nname = \"network\"\nversion = \">=2.0.0\"\n"));
    setups.push(user("absent", &requires("nobody")));
    setups.push(user(
        "lenient",
        "[[dependencies]]\nname = \"network\"\nversion = \">=2.0.0\"\nrequired = false\n",
    ));
    let mut world = World::booted(setups);
    assert_eq!(world.state("old"), ServiceState::Registered);
    assert_eq!(world.state("absent"), ServiceState::Registered);
    assert_eq!(world.state("lenient"), ServiceState::Running);
    let request = world.start("old");
    assert_eq!(
        world.error(request).to_string(),
        "service old was not started: required service network has version 1.0.0, required is >=2.0.0"
    );
}

/// covers: SUP-98
#[test]
fn recovery_boots_authority_and_execution_only() {
    let mut world = World::new(fixtures());
    world.event(Event::Boot { mode: BootMode::Recovery });
    assert_eq!(world.traced("Launch").len(), 6);
    assert_eq!(world.state("block_storage"), ServiceState::Registered);
    let request = world.start("block_storage");
    assert!(world.reply(request).is_ok());
}

/// covers: SUP-03, SUP-21
#[test]
fn the_twelve_names_are_what_discovery_accepts() {
    let world = World::booted(fixtures());
    for entry in catalogue::ALL.iter().filter(|entry| entry.phase.is_some()) {
        assert!(world.machine.lookup(entry.name, None).is_ok(), "{}", entry.name);
    }
    assert!(world.machine.lookup("fs", None).is_err());
    assert!(world.machine.lookup("init", None).is_err());
}

/// covers: SUP-56, SUP-58, SUP-59
#[test]
fn a_service_is_initialised_then_started_and_serves_only_then() {
    let mut world = World::new(fixtures());
    world.manners("axiom").answers_start = false;
    world.boot();
    let said: Vec<&str> = world.trace.iter().map(String::as_str).filter(|l| l.ends_with(" axiom")).collect();
    assert_eq!(said, ["Launch axiom", "Init axiom", "Start axiom"]);
    assert_eq!(world.state("axiom"), ServiceState::Starting);
    assert!(world.machine.lookup("axiom", None).is_err());
    assert!(world.machine.deadline().is_some_and(|at| at > world.now && at < Monotonic(u64::MAX)));
}

#[test]
fn an_answer_to_another_question_is_a_failed_start() {
    use supervisor::core::lifecycle::LifecycleResponse;
    use supervisor::core::supervisor::CallId;
    let mut world = World::new(fixtures());
    world.manners("axiom").answers_init = false;
    world.boot();
    let launch = world.launch_of("axiom");
    let wrong =
        |call| Event::LifecycleReply { launch, call: CallId(call), response: LifecycleResponse::Started };
    world.event(wrong(99));
    assert_eq!(world.state("axiom"), ServiceState::Starting);
    world.event(wrong(1));
    assert!(matches!(world.state("axiom"), ServiceState::Failed { .. }));
}
