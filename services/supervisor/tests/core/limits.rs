use chain::payload::service::ServiceError;
use supervisor::core::catalogue;
use supervisor::core::graph::{Graph, GraphError};
use supervisor::core::state::ServiceState;
use supervisor::core::supervisor::{
    ERROR_TEXT_BYTES_MAX, Event, EventFilter, ExitStatus, NodeState, RecordBody, RequestId, SUBSCRIBERS_MAX,
    SubscriberId, SupervisorError, WAITERS_MAX,
};
use supervisor::manifest::ServiceManifest;

use crate::world::{World, fixtures, requires, service, user};

/// A service that has begun to start and goes on doing so.
fn starting(extra: &str) -> World {
    let mut world = World::new(vec![user("a", extra)]);
    world.manners("a").answers_init = false;
    world.boot();
    world
}

fn busy(world: &World, request: RequestId) -> bool {
    matches!(world.replies.get(&request), Some(Err(SupervisorError::Busy { limit: WAITERS_MAX, .. })))
}

#[test]
fn a_text_is_kept_up_to_its_limit_in_whole_characters() {
    for (text, kept) in [
        ("short".to_owned(), 5),
        ("x".repeat(ERROR_TEXT_BYTES_MAX), ERROR_TEXT_BYTES_MAX),
        ("x".repeat(ERROR_TEXT_BYTES_MAX + 1), ERROR_TEXT_BYTES_MAX),
        (format!("x{}", "é".repeat(ERROR_TEXT_BYTES_MAX)), ERROR_TEXT_BYTES_MAX - 1),
    ] {
        let mut world = starting("");
        let launch = world.launch_of("a");
        world.one(Event::LaunchFailed { launch, error: ServiceError::LaunchFailed, text: text.clone() });
        assert_eq!(world.status("a").last_error.as_deref(), text.get(..kept));
        let failed = world.machine.memory().records.into_iter().find_map(|record| match record.body {
            RecordBody::Failed(failed) => Some(failed.text),
            _ => None,
        });
        assert_eq!(failed.as_deref(), text.get(..kept));
    }
}

#[test]
fn so_many_callers_wait_for_one_service_and_one_more_is_told_so() {
    let mut world = starting("");
    let waiting: Vec<_> = (0..WAITERS_MAX).map(|_| world.start("a")).collect();
    let one_more = world.start("a");
    assert!(busy(&world, one_more) && waiting.iter().all(|request| !world.replies.contains_key(request)));
    let mut world = World::booted(vec![user("a", "")]);
    world.manners("a").answers_prepare_stop = false;
    let waiting: Vec<_> = (0..WAITERS_MAX).map(|_| world.stop("a")).collect();
    let one_more = world.stop("a");
    assert!(busy(&world, one_more) && waiting.iter().all(|request| !world.replies.contains_key(request)));
    world.advance_ms(20_000);
    assert!(waiting.iter().all(|request| world.reply(*request).is_ok()));
}

#[test]
fn one_who_listens_already_may_ask_for_something_else() {
    let mut world = World::booted(vec![user("a", "")]);
    let filter = |name: &str| EventFilter { services: vec![name.to_owned()], states: vec![] };
    for n in 0..SUBSCRIBERS_MAX as u64 {
        world.event(Event::Subscribe { subscriber: SubscriberId(n), filter: filter("b") });
    }
    world.event(Event::Subscribe { subscriber: SubscriberId(3), filter: filter("a") });
    assert!(world.traced("Refuse").is_empty());
    world.stop("a");
    assert!(world.events.iter().any(|event| event.to == Some(ServiceState::Stopped)));
}

#[test]
fn each_part_of_a_filter_must_hold_and_an_empty_one_lets_everything_through() {
    let seen = |services: &[&str], states: &[&str]| {
        let mut world = World::booted(vec![user("a", ""), user("b", "")]);
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let filter = EventFilter { services: own(services), states: own(states) };
        world.event(Event::Subscribe { subscriber: SubscriberId(1), filter });
        world.stop("a");
        world.stop("b");
        let name = |state: Option<ServiceState>| state.map_or("-", ServiceState::name);
        world.events.iter().map(|event| format!("{} {}", event.name, name(event.to))).collect::<Vec<_>>()
    };
    assert_eq!(seen(&["a"], &[]), ["a Stopping", "a Stopped"]);
    assert_eq!(seen(&[], &["Stopped"]), ["a Stopped", "b Stopped"]);
    assert_eq!(seen(&["b"], &["Stopped"]), ["b Stopped"]);
    assert_eq!(seen(&["c"], &["Stopped"]), [""; 0]);
    assert_eq!(seen(&[], &[]).len(), 4);
}

#[test]
fn a_node_is_degraded_by_what_should_run_and_does_not() {
    let mut world = World::booted(vec![user("a", ""), user("b", "")]);
    world.stop("a");
    assert_eq!(world.machine.node().state, NodeState::Running, "it shall be down");
    world.crash("b", ExitStatus::Code(1));
    assert_eq!(world.machine.node().state, NodeState::Degraded);
    world.advance_ms(60_000);
    assert_eq!(world.machine.node().state, NodeState::Running);
    let live: Vec<_> = world.machine.live().map(|(launch, name)| (launch, name.to_owned())).collect();
    assert_eq!(live, [(world.launch_of("b"), "b".to_owned())]);
}

#[test]
fn what_cannot_come_up_is_not_tried_again() {
    let run = |extra: &str, error| {
        let mut world = World::new(vec![user("a", extra), user("b", "")]);
        world.manners("a").launches = Err(error);
        world.boot();
        world.advance_ms(100_000);
        (world.traced("Launch").iter().filter(|name| **name == "a").count(), world.finished.is_some())
    };
    let panic = "on_exhausted = \"Panic\"\n";
    // Another try would find the same file.
    assert_eq!(run("", ServiceError::BinaryMismatch), (1, false));
    assert_eq!(run(&format!("[restart]\n{panic}"), ServiceError::BinaryMismatch), (1, true));
    assert_eq!(run("[restart]\nmode = \"never\"\n", ServiceError::LaunchFailed), (1, false));
    assert_eq!(run(&format!("[restart]\nmode = \"never\"\n{panic}"), ServiceError::LaunchFailed), (1, true));
    assert_eq!(run("[restart]\nmax_restarts = 2\n", ServiceError::LaunchFailed), (3, false));
}

fn manifest(name: &str, extra: &str) -> ServiceManifest {
    user(name, extra).manifest.manifest.clone()
}

fn optional(name: &str) -> String {
    format!("[[dependencies]]\nname = \"{name}\"\nrequired = false\n")
}

#[test]
fn a_service_prefers_what_it_uses_in_its_own_phase_and_does_not_require() {
    let mut manifests: Vec<_> = fixtures().iter().map(|s| s.manifest.manifest.clone()).collect();
    let extra = format!("{}{}{}{}", requires("z"), optional("y"), optional("network"), optional("nobody"));
    manifests.extend([manifest("a", &extra), manifest("y", ""), manifest("z", "")]);
    let graph = Graph::new(&manifests).unwrap();
    let names = |found: &mut dyn Iterator<Item = &str>| found.map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(&mut graph.preferred("a")), ["y"]);
    assert_eq!(names(&mut graph.required("a")), ["z"]);
    assert_eq!(graph.dependents("z"), ["a"]);
    assert_eq!(graph.dependents("y"), [""; 0]);
    assert_eq!(names(&mut graph.preferred("nobody")), [""; 0]);
    // Dependencies first; where there are none the listed order, then the alphabet.
    assert_eq!(graph.start_order()[12..], ["y", "z", "a"]);
    assert_eq!(graph.stop_order()[..3], ["a", "y", "z"]);
}

#[test]
fn refusals_name_the_services_that_take_part_and_only_those_are_taken_out() {
    let system = || fixtures().into_iter().map(|s| s.manifest.manifest.clone());
    let mut manifests: Vec<_> = system().collect();
    manifests.extend([
        manifest("a", &requires("b")),
        manifest("b", &requires("a")),
        manifest("c", &requires("a")),
    ]);
    let (graph, refused) = Graph::admit(&mut manifests).unwrap();
    let [cycle @ GraphError::Cycle(_)] = &refused[..] else { panic!("{refused:?}") };
    assert!(
        ["a", "b"].iter().all(|name| cycle.services().contains(name)) && !cycle.services().contains(&"c")
    );
    assert!(graph.start_order().contains(&"c".to_owned()) && graph.check("c").is_err());
    let later = vec![
        service("axiom", "Core", &requires("network")).manifest.manifest.clone(),
        service("network", "System", "").manifest.manifest.clone(),
    ];
    let error = Graph::new(&later).unwrap_err();
    assert_eq!(error.services(), ["axiom"]);
    assert!(catalogue::find("init").is_none() && catalogue::find("axiom").is_some());
}
