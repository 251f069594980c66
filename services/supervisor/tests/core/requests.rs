use base::Hash;
use chain::payload::service::ServiceError;
use supervisor::core::state::ServiceState;
use supervisor::core::supervisor::{
    ACTS_MAX, ActOutcome, Event, EventFilter, RETRY_DELAY, Reply, RequestId, SUBSCRIBERS_MAX, SubscriberId,
    SupervisorError,
};
use supervisor::manifest::ProtocolVersion;

use crate::world::{World, fixtures, requires, service, user};

const RUNNING: ServiceState = ServiceState::Running;
const STOPPED: ServiceState = ServiceState::Stopped;

fn node() -> World {
    let mut setups = fixtures();
    setups.push(user("mine", ""));
    World::booted(setups)
}

/// covers: SUP-09, SUP-92
#[test]
fn a_start_answers_with_the_service_or_says_why_not() {
    let mut world = World::booted(vec![user("a", ""), user("b", &requires("a"))]);
    let request = world.start("nobody");
    assert_eq!(*world.error(request), SupervisorError::NotFound("nobody".to_owned()));
    let request = world.stop("a");
    assert!(world.reply(request).is_ok());
    let request = world.start("b");
    let why = "required service a is Stopped".to_owned();
    assert_eq!(*world.error(request), SupervisorError::DependencyNotRunning { service: "b".to_owned(), why });
    let request = world.start("a");
    let Ok(Reply::Status(status)) = world.reply(request) else { panic!("{:?}", world.reply(request)) };
    assert_eq!((status.name.as_str(), status.state, status.id), ("a", RUNNING, world.status("a").id));
    // Already up.
    let request = world.start("a");
    assert!(world.reply(request).is_ok());
}

/// covers: SUP-10, SUP-29, SUP-30, SUP-95
#[test]
fn core_services_are_not_stopped_and_others_are() {
    let kinds = ["System", "User", "Driver"];
    let mut setups: Vec<_> = kinds.iter().map(|kind| service(&kind.to_lowercase(), kind, "")).collect();
    setups.push(service("axiom", "Core", ""));
    let mut world = World::booted(setups);
    for name in ["system", "user", "driver"] {
        let request = world.stop(name);
        assert!(world.reply(request).is_ok(), "{name}");
        assert_eq!(world.state(name), STOPPED);
        let request = world.start(name);
        assert!(world.reply(request).is_ok());
        let request = world.restart(name);
        assert!(world.reply(request).is_ok());
        assert_eq!(world.state(name), RUNNING);
    }
    let core = SupervisorError::CoreService { service: "axiom".to_owned(), core: "axiom".to_owned() };
    for request in [world.stop("axiom"), world.restart("axiom")] {
        assert_eq!(*world.error(request), core);
    }
    assert_eq!(world.state("axiom"), RUNNING);
    let request = world.stop("nobody");
    assert_eq!(*world.error(request), SupervisorError::NotFound("nobody".to_owned()));
}

/// covers: SUP-29
#[test]
fn what_a_core_service_requires_is_not_stopped_either() {
    let mut world = World::booted(fixtures());
    let request = world.stop("block_storage");
    let core = "filesystem".to_owned();
    assert_eq!(
        *world.error(request),
        SupervisorError::CoreService { service: "block_storage".to_owned(), core }
    );
    assert_eq!(world.state("block_storage"), RUNNING);
}

/// covers: SUP-60, SUP-95
#[test]
fn a_stop_lets_the_work_in_hand_finish_then_ends_then_kills() {
    let mut world =
        World::booted(vec![user("a", "[health]\nstop_timeout_ms = 1000\ncheck_interval_ms = 60000\n")]);
    world.manners("a").answers_prepare_stop = false;
    world.manners("a").stops = false;
    let request = world.stop("a");
    assert_eq!(world.traced("PrepareStop"), ["a"]);
    world.advance_ms(999);
    assert!(world.traced("Stop").is_empty());
    world.advance_ms(1);
    assert_eq!(world.traced("Stop"), ["a"]);
    world.advance_ms(999);
    assert_eq!(world.state("a"), ServiceState::Stopping);
    world.advance_ms(1);
    assert_eq!(world.traced("Kill"), ["a"]);
    // A stop that took too long still is a stop: nothing revives it (open point 11).
    assert_eq!(world.state("a"), STOPPED);
    assert!(world.reply(request).is_ok());
    world.advance_ms(1_000_000);
    assert_eq!(world.traced("Launch").len(), 1);
    let failed = world.machine.memory().records.iter().any(|record| {
        matches!(&record.body, supervisor::core::supervisor::RecordBody::Failed(f) if f.error == ServiceError::ShutdownTimeout)
    });
    assert!(failed);
}

#[test]
fn a_stop_while_starting_is_remembered_and_one_while_waiting_gives_up() {
    let mut world = World::new(vec![user("a", "")]);
    world.manners("a").answers_init = false;
    world.boot();
    let stop = world.stop("a");
    assert_eq!(world.state("a"), ServiceState::Starting);
    world.advance_ms(5_000);
    assert_eq!(world.state("a"), STOPPED);
    assert!(world.reply(stop).is_ok());
    let start = world.start("a");
    let stop = world.stop("a");
    assert_eq!(*world.error(start), SupervisorError::Superseded("a".to_owned()));
    world.advance_ms(5_000);
    assert!(world.reply(stop).is_ok());
    world.manners("a").answers_init = true;
    world.start("a");
    world.crash("a", supervisor::core::supervisor::ExitStatus::Code(1));
    assert!(matches!(world.state("a"), ServiceState::Failed { .. }));
    let stop = world.stop("a");
    assert!(world.reply(stop).is_ok());
    assert_eq!(world.state("a"), STOPPED);
}

/// Found by the simulation: the stop had to kill, which is a failure, and the service came up for the later request.
#[test]
fn a_stop_that_a_start_overtakes_is_answered() {
    let mut world = World::booted(vec![user("a", "[restart]\ndelay_ms = 1\n")]);
    world.manners("a").stops = false;
    let stop = world.stop("a");
    let start = world.start("a");
    world.advance_ms(60_000);
    assert_eq!(world.traced("Kill"), ["a"]);
    assert_eq!(*world.error(stop), SupervisorError::Superseded("a".to_owned()));
    assert!(world.reply(start).is_ok());
    assert_eq!(world.state("a"), ServiceState::Running);
}

/// covers: SUP-102
#[test]
fn dependents_stop_first_and_come_back_after_a_restart() {
    let mut world = World::booted(vec![user("a", ""), user("b", &requires("a"))]);
    world.manners("b").answers_prepare_stop = false;
    let request = world.restart("a");
    assert_eq!(world.traced("PrepareStop"), ["b"]);
    assert_eq!(world.state("a"), RUNNING);
    world.advance_ms(5_000);
    assert!(world.reply(request).is_ok());
    assert_eq!(world.traced("Stop"), ["b", "a"]);
    assert_eq!(world.traced("Launch"), ["a", "b", "a", "b"]);
}

#[test]
fn a_dependent_that_has_stopped_waits_for_the_slower_one() {
    let mut world = World::booted(vec![user("a", ""), user("b", &requires("a")), user("c", &requires("a"))]);
    world.manners("c").answers_prepare_stop = false;
    let request = world.restart("a");
    assert_eq!((world.state("a"), world.state("b")), (RUNNING, STOPPED));
    assert_eq!(world.traced("Launch"), ["a", "b", "c"]);
    world.advance_ms(5_000);
    assert!(world.reply(request).is_ok());
    assert_eq!(world.traced("Launch"), ["a", "b", "c", "a", "b", "c"]);
}

/// covers: SUP-81, SUP-100
#[test]
fn once_policy_runs_starts_stops_and_restarts_are_decided_first() {
    let mut world = node();
    let asked = world.traced("Act");
    assert_eq!(
        asked.first(),
        Some(&"Start keys"),
        "the log and the Policy Engine itself start under the bootstrap rule"
    );
    assert_eq!(asked.len(), 11);
    for name in ["Stop mine", "Start mine", "Restart mine"] {
        match name.split_once(' ').unwrap().0 {
            "Stop" => world.stop("mine"),
            "Start" => world.start("mine"),
            _ => world.restart("mine"),
        };
        assert_eq!(world.traced("Act").last(), Some(&name));
    }
    // A restart by itself is covered by the decision to start.
    let before = world.traced("Act").len();
    world.advance_ms(1_000);
    world.crash("mine", supervisor::core::supervisor::ExitStatus::Code(1));
    assert_eq!((world.state("mine"), world.traced("Act").len()), (RUNNING, before));
    assert_eq!(world.log.last().unwrap().authorization, Some(Hash([9; 32])));
}

/// covers: SUP-101
#[test]
fn what_policy_refuses_does_not_happen() {
    let mut world = node();
    let before = world.machine.list();
    world.policy = ActOutcome::Denied { refusal: 77 };
    for request in [world.stop("mine"), world.restart("mine"), world.register(user("new", ""))] {
        assert_eq!(*world.error(request), SupervisorError::PolicyDenied { refusal: 77 });
    }
    assert_eq!(world.machine.list(), before);
    world.policy = ActOutcome::Unavailable { text: "no".to_owned() };
    let request = world.stop("mine");
    assert!(matches!(world.error(request), SupervisorError::Unavailable(_)));
    world.policy_answers = false;
    let request = world.stop("mine");
    world.advance_ms(4_999);
    assert!(!world.replies.contains_key(&request));
    world.advance_ms(1);
    assert!(matches!(world.error(request), SupervisorError::Unavailable(_)));
    assert_eq!(world.state("mine"), RUNNING);
}

#[test]
fn a_service_that_policy_will_not_start_stays_down_and_a_critical_one_ends_the_boot() {
    let mut world = World::new(fixtures());
    world.policy = ActOutcome::Denied { refusal: 5 };
    world.boot();
    assert_eq!(world.traced("Launch"), ["axiom", "policy"]);
    assert_eq!(world.finished, Some((true, vec![])));
}

#[test]
fn decisions_under_way_are_limited() {
    let mut world = node();
    world.policy_answers = false;
    for n in 0..=ACTS_MAX {
        let request = RequestId(1_000_000 + n as u64);
        world.event(Event::StopRequested { request, service: "mine".to_owned() });
    }
    assert_eq!(world.replies.len(), 1);
    assert!(matches!(world.replies.values().next(), Some(Err(SupervisorError::Busy { .. }))));
}

/// covers: SUP-11, SUP-12, SUP-82
#[test]
fn status_and_list_tell_everything_known() {
    let mut world = node();
    world.advance_ms(2_000);
    let list = world.machine.list();
    assert_eq!(list.len(), 13);
    for status in &list {
        assert_eq!(world.machine.status(status.id).unwrap(), *status);
        assert_eq!(status.uptime.unwrap().as_millis(), 2_000);
        assert_eq!(status.pid, Some(world.processes[&world.launch_of(&status.name)].pid));
        assert!(status.health.healthy && status.last_error.is_none() && status.restarts == 0);
    }
    assert!(matches!(world.machine.status(base::ServiceId(999)), Err(SupervisorError::NotFound(_))));
    world.crash("mine", supervisor::core::supervisor::ExitStatus::Code(3));
    let status = world.status("mine");
    assert_eq!((status.restarts, status.last_error.as_deref()), (1, Some("exited with code 3")));
}

/// covers: SUP-74, SUP-93, SUP-76
#[test]
fn lookup_errors_are_told_apart() {
    let mut setups = fixtures();
    setups.push(user("bare", ""));
    let mut world = World::booted(setups);
    let endpoint = world.machine.lookup("filesystem", None).unwrap();
    let provides: Vec<String> =
        endpoint.provides.iter().map(|e| format!("{} {}", e.name, e.protocol)).collect();
    assert_eq!(provides, ["fs.namespace FsNamespace/1.0", "fs.content FsContent/1.0"]);
    assert_eq!(world.machine.lookup("x", None), Err(SupervisorError::NotFound("x".to_owned())));
    assert_eq!(world.machine.lookup("bare", None), Err(SupervisorError::NoEndpoint("bare".to_owned())));
    world.stop("bare");
    assert_eq!(world.machine.lookup("bare", None), Err(SupervisorError::NotRunning("bare".to_owned())));
    let version = |major, minor| Some(ProtocolVersion { major, minor });
    assert!(world.machine.lookup("filesystem", version(1, 0)).is_ok());
    for wrong in [version(1, 1), version(2, 0), version(0, 9)] {
        let error = world.machine.lookup("filesystem", wrong);
        assert!(matches!(error, Err(SupervisorError::IncompatibleVersion { .. })));
    }
}

/// covers: SUP-13
#[test]
fn subscribers_get_matching_events_from_then_on() {
    let mut world = World::booted(vec![user("a", ""), user("b", "")]);
    assert!(world.events.is_empty());
    let filter = EventFilter {
        services: vec!["a".to_owned()],
        states: vec!["Stopped".to_owned(), "Running".to_owned()],
    };
    world.event(Event::Subscribe { subscriber: SubscriberId(1), filter });
    world.stop("b");
    world.stop("a");
    world.start("a");
    let seen: Vec<String> =
        world.events.iter().map(|e| format!("{} {}", e.name, e.to.map_or("-", ServiceState::name))).collect();
    assert_eq!(seen, ["a Stopped", "a Running"]);
    world.event(Event::Unsubscribe { subscriber: SubscriberId(1) });
    world.stop("a");
    assert_eq!(world.events.len(), 2);
    for n in 0..=SUBSCRIBERS_MAX as u64 {
        world.event(Event::Subscribe { subscriber: SubscriberId(n), filter: EventFilter::default() });
    }
    assert_eq!(world.traced("Refuse"), [SUBSCRIBERS_MAX.to_string()]);
}

/// covers: SUP-38, SUP-54
#[test]
fn a_service_is_registered_at_run_time_and_unregistered_once_stopped() {
    let mut world = node();
    let request = world.register(user("new", &requires("mine")));
    assert!(world.reply(request).is_ok());
    assert_eq!(world.state("new"), RUNNING);
    assert!(world.log.iter().any(|r| r.body.entry_type() == 20 && r.body.service() == Some("new")));
    let request = world.unregister("new");
    assert_eq!(*world.error(request), SupervisorError::NotStopped("new".to_owned()));
    let request = world.unregister("nobody");
    assert_eq!(*world.error(request), SupervisorError::NotFound("nobody".to_owned()));
    world.stop("new");
    let request = world.unregister("new");
    assert_eq!(*world.reply(request), Ok(Reply::Done));
    assert!(world.machine.status_by_name("new").is_err());
    let request = world.register(user("mine", &requires("mine2")));
    let request2 = world.register(user("mine2", &requires("mine")));
    assert!(matches!(world.error(request), SupervisorError::DependencyNotRunning { .. }));
    assert!(matches!(world.error(request2), SupervisorError::InvalidManifest(_)));
}

/// covers: SUP-78, SUP-92
#[test]
fn a_new_manifest_replaces_the_running_one_and_goes_back_if_it_fails() {
    let mut world = node();
    let others: Vec<_> =
        world.machine.list().into_iter().filter(|s| s.name != "mine").map(|s| s.pid).collect();
    let request = world.register(user("mine", "[resources]\nmemory_mb = 5\n"));
    assert!(world.reply(request).is_ok());
    assert_eq!(world.traced("Launch").iter().filter(|name| **name == "mine").count(), 2);
    let after: Vec<_> =
        world.machine.list().into_iter().filter(|s| s.name != "mine").map(|s| s.pid).collect();
    assert_eq!(others, after);
    let good = world.status("mine").info;
    world.manners("mine").answers_init = false;
    let broken = crate::world::setup(
        "mine.toml",
        &format!(
            "version = 1\n[service]\nname = \"mine\"\nversion = \"2.0.0\"\nservice_type = \"User\"\nbinary = \"{}\"\n",
            crate::world::HASH
        ),
    );
    let request = world.register(broken);
    world.advance_ms(5_000);
    assert!(matches!(world.error(request), SupervisorError::RolledBack { .. }));
    world.manners("mine").answers_init = true;
    world.advance_ms(6_000);
    assert_eq!((world.state("mine"), world.status("mine").info), (RUNNING, good));
    let request = world.register(service("axiom", "Core", ""));
    assert!(matches!(world.error(request), SupervisorError::CoreService { .. }));
}

/// A start that nobody could decide is asked for again by a timer of its own, not by what else happens to wake the node.
#[test]
fn a_start_that_nobody_could_decide_is_asked_again_in_time() {
    let mut setups = fixtures();
    setups.retain(|setup| ["axiom", "policy"].contains(&setup.name()));
    setups.push(user("mine", ""));
    let mut world = World::new(setups);
    world.policy = ActOutcome::Unavailable { text: "no".to_owned() };
    world.boot();
    let asked = |world: &World| world.traced("Act").iter().filter(|act| act.ends_with(" mine")).count();
    assert_eq!(asked(&world), 1);
    assert_eq!(world.machine.deadline(), Some(world.now.after(RETRY_DELAY)));
    world.now = world.now.after(RETRY_DELAY);
    world.policy = ActOutcome::Allowed { authorization: Hash([9; 32]) };
    world.event(Event::Timer);
    assert_eq!((asked(&world), world.state("mine")), (2, RUNNING));
}

/// What is so already, or cannot be, needs no decision.
#[test]
fn policy_is_not_asked_for_what_changes_nothing() {
    let mut world = node();
    let before = world.traced("Act").len();
    let started = world.start("mine");
    assert!(world.reply(started).is_ok());
    let unregistered = world.unregister("mine");
    assert!(matches!(world.error(unregistered), SupervisorError::NotStopped(_)));
    let mut setups = fixtures();
    setups.push(user("lonely", &requires("nobody")));
    let mut other = World::booted(setups);
    let asked = other.traced("Act").len();
    let unregistered = other.unregister("lonely");
    assert!(
        matches!(other.error(unregistered), SupervisorError::NotStopped(_)),
        "it is registered, not stopped"
    );
    assert_eq!((world.traced("Act").len(), other.traced("Act").len()), (before, asked));
}

#[test]
fn a_core_service_is_not_stopped_even_while_it_does_not_run_and_what_it_will_require_may_be() {
    let mut world = World::new(vec![user("mine", ""), service("core", "Core", &requires("mine"))]);
    let request = world.stop("core");
    assert!(matches!(world.error(request), SupervisorError::CoreService { .. }));
    let request = world.stop("mine");
    assert!(world.reply(request).is_ok(), "nobody who runs requires it");
    world.boot();
    let mut running = World::booted(vec![user("mine", ""), service("core", "Core", &requires("mine"))]);
    let request = running.stop("mine");
    assert!(matches!(running.error(request), SupervisorError::CoreService { .. }));
}

#[test]
fn so_many_services_are_registered_and_one_more_is_told_so() {
    use supervisor::manifest::limits::SERVICES_MAX;
    let text = |n: usize| user(&format!("s{n}"), "");
    let mut world = World::new((0..SERVICES_MAX - 1).map(text).collect());
    let fits = world.register(text(SERVICES_MAX - 1));
    assert!(!matches!(world.replies.get(&fits), Some(Err(_))));
    let over = world.register(text(SERVICES_MAX));
    assert_eq!(*world.error(over), SupervisorError::Busy { what: "services", limit: SERVICES_MAX });
}

#[test]
fn who_waits_for_a_restart_gives_up_when_what_it_requires_is_stopped() {
    let slow = "[restart]\ndelay_ms = 60000\n";
    let mut world = World::booted(vec![user("a", ""), user("b", &format!("{slow}{}", requires("a")))]);
    world.crash("b", supervisor::core::supervisor::ExitStatus::Code(1));
    assert!(matches!(world.state("b"), ServiceState::Failed { .. }));
    world.stop("a");
    assert_eq!(world.state("b"), STOPPED, "it does not wait for what will not come");
    world.start("a");
    assert_eq!((world.state("a"), world.state("b")), (RUNNING, RUNNING));
}

#[test]
fn a_reload_is_decided_as_a_restart_and_reaches_what_runs() {
    let program = |more: &str| format!("[program]\nimage = \"/bin/x\"\n{more}\n");
    let mut setups = fixtures();
    setups.push(user("mine", &program("reload_signal = \"hup\"")));
    setups.push(user("plain", &program("")));
    let mut world = World::booted(setups);
    let request = world.reload("nobody");
    assert_eq!(*world.error(request), SupervisorError::NotFound("nobody".to_owned()));
    let request = world.reload("plain");
    assert_eq!(*world.error(request), SupervisorError::NoReload("plain".to_owned()));
    let request = world.reload("mine");
    assert_eq!(world.reloads, [("mine".to_owned(), request)]);
    assert_eq!(world.state("mine"), RUNNING, "it goes on running");
    let allowed = std::mem::replace(&mut world.policy, ActOutcome::Denied { refusal: 71 });
    let request = world.reload("mine");
    assert_eq!(*world.error(request), SupervisorError::PolicyDenied { refusal: 71 });
    world.policy = allowed;
    world.stop("mine");
    let request = world.reload("mine");
    assert_eq!(*world.error(request), SupervisorError::NotRunning("mine".to_owned()));
    assert_eq!(world.reloads.len(), 1);
}
