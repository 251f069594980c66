use chain::payload::service::ServiceError;
use supervisor::core::state::ServiceState;
use supervisor::core::supervisor::{
    BootMode, ERROR_TEXT_BYTES_MAX, Effect, Event, ExitStatus, LaunchId, Monotonic, Record, RecordBody,
    Signal, Supervisor, SupervisorError,
};

use crate::world::{FIXTURES, World, fixtures, requires, service, setup, user};

const RUNNING: ServiceState = ServiceState::Running;
const STOPPED: ServiceState = ServiceState::Stopped;
const CRASH: ExitStatus = ExitStatus::Signal(11);

fn launches(world: &World, name: &str) -> usize {
    world.traced("Launch").iter().filter(|launched| **launched == name).count()
}

fn failed(world: &World, name: &str) -> bool {
    matches!(world.state(name), ServiceState::Failed { .. })
}

/// covers: SUP-50, SUP-52, SUP-80
#[test]
fn a_crashed_service_comes_back_and_nobody_else_is_touched() {
    let mut world = World::booted(fixtures());
    let before: Vec<_> =
        world.machine.list().into_iter().filter(|s| s.name != "axiom").map(|s| s.pid).collect();
    world.advance_ms(1_000);
    world.crash("axiom", CRASH);
    // It ran longer than the delay: no wait.
    assert_eq!(world.state("axiom"), RUNNING);
    assert_eq!(world.status("axiom").restarts, 1);
    let after: Vec<_> =
        world.machine.list().into_iter().filter(|s| s.name != "axiom").map(|s| s.pid).collect();
    assert_eq!(before, after);
    assert!(world.machine.list().iter().all(|s| s.state == RUNNING));
}

#[test]
fn the_record_of_a_crash_says_how_it_ended() {
    for (status, number) in [(ExitStatus::Code(3), 3), (ExitStatus::Signal(11), -11)] {
        let mut world = World::booted(vec![user("a", "[restart]\nmode = \"never\"\n")]);
        world.crash("a", status);
        let crashed = ServiceError::Crashed { status: number };
        let records = world.machine.memory().records;
        let is_told = |record: &Record| matches!(&record.body, RecordBody::Failed(it) if it.error == crashed);
        assert!(records.iter().any(is_told), "{records:?}");
    }
}

/// covers: SUP-66, SUP-67
#[test]
fn delays_count_from_the_previous_start_and_grow() {
    let mut world = World::booted(vec![service("a", "System", "")]);
    let mut waits = Vec::new();
    for _ in 0..5 {
        let failed_at = world.now.0;
        world.crash("a", CRASH);
        assert!(failed(&world, "a"), "the wait is spent in Failed");
        while failed(&world, "a") {
            world.advance_ms(10);
        }
        waits.push((world.now.0 - failed_at) / 1_000_000);
    }
    assert_eq!(waits, [500, 750, 1130, 1690, 2530]);
    world.crash("a", CRASH);
    assert_eq!(world.state("a"), STOPPED);
    world.advance_ms(1_000_000);
    assert_eq!(launches(&world, "a"), 6);
}

/// covers: SUP-51, SUP-68
#[test]
fn exhaustion_stops_panics_or_goes_on_for_ever() {
    let budget = "[restart]\nmax_restarts = 1\nwindow_ms = 10000\ndelay_ms = 0\non_exhausted = ";
    let run = |action: &str, ms: u64| {
        let mut world = World::booted(vec![user("a", &format!("{budget}\"{action}\"")), user("b", "")]);
        world.crash("a", CRASH);
        world.crash("a", CRASH);
        world.advance_ms(ms);
        world
    };
    let stop = run("Stop", 100_000);
    assert_eq!((stop.state("a"), stop.state("b"), launches(&stop, "a")), (STOPPED, RUNNING, 2));
    let panic = run("Panic", 0);
    assert_eq!(panic.finished, Some((true, vec![])));
    assert!(panic.trace.iter().any(|line| line.starts_with("Emergency: a")));
    assert!(failed(&run("RetryForever", 9_900), "a"));
    assert_eq!(run("RetryForever", 10_100).state("a"), RUNNING);
}

/// covers: SUP-96
#[test]
fn an_authority_service_that_is_down_for_good_ends_everything_in_order() {
    let mut world = World::booted(fixtures());
    for _ in 0..4 {
        world.crash("policy", CRASH);
        world.advance_ms(10_000);
    }
    assert_eq!(world.finished, Some((true, vec![])));
    assert!(world.traced("Append").contains(&"23 policy"));
    assert_eq!(world.traced("Append").last(), Some(&"22 axiom"));
}

/// Whatever its manifest says about exhaustion.
#[test]
fn no_manifest_lets_the_node_go_on_without_an_authority_service() {
    for (name, ends) in [("identity", true), ("network", false)] {
        let mut setups = fixtures();
        setups.retain(|setup| setup.name() != name);
        let (_, text) = FIXTURES.iter().find(|(file, _)| *file == format!("{name}.toml")).unwrap();
        let text = format!("{text}\n[restart]\nmode = \"never\"\non_exhausted = \"Stop\"\n");
        setups.push(setup(&format!("{name}.toml"), &text));
        let mut world = World::booted(setups);
        world.crash(name, CRASH);
        assert_eq!(world.finished.is_some(), ends, "{name}");
    }
}

/// covers: SUP-103
#[test]
fn the_mode_tells_after_which_exits_a_service_starts_again() {
    let after = |mode: &str, status| {
        let mut world = World::booted(vec![user("a", &format!("[restart]\nmode = \"{mode}\"\n"))]);
        world.advance_ms(1_000);
        world.crash("a", status);
        world.state("a")
    };
    let success = ExitStatus::Code(0);
    assert_eq!(after("always", success), RUNNING);
    assert_eq!(after("always", CRASH), RUNNING);
    assert_eq!(after("on_failure", success), STOPPED);
    assert_eq!(after("on_failure", ExitStatus::Code(1)), RUNNING);
    assert_eq!(after("never", success), STOPPED);
    assert_eq!(after("never", CRASH), STOPPED);
}

/// covers: SUP-102
#[test]
fn dependents_stop_with_what_is_down_for_good_and_start_with_it_again() {
    let once = "[restart]\nmax_restarts = 0\n";
    let mut world = World::booted(vec![
        user("a", once),
        user("b", &requires("a")),
        user("c", &requires("b")),
        user("d", ""),
    ]);
    world.crash("a", CRASH);
    for name in ["a", "b", "c"] {
        assert_eq!(world.state(name), STOPPED, "{name}");
    }
    assert_eq!(world.traced("Stop"), ["c", "b"]);
    assert_eq!(world.state("d"), RUNNING);
    let request = world.start("a");
    assert!(world.reply(request).is_ok());
    for name in ["a", "b", "c"] {
        assert_eq!(world.state(name), RUNNING, "{name}");
    }
}

/// covers: SUP-102
#[test]
fn dependents_of_a_service_that_restarts_run_on_and_their_own_restart_waits_for_it() {
    let mut world = World::booted(vec![user("a", ""), user("b", &requires("a"))]);
    world.crash("a", CRASH);
    assert_eq!(world.state("b"), RUNNING);
    world.crash("b", CRASH);
    world.manners("a").answers_init = false;
    world.advance_ms(2_000);
    assert_eq!(world.state("a"), ServiceState::Starting);
    assert!(failed(&world, "b"), "its delay is over, but what it requires does not run");
    world.manners("a").answers_init = true;
    world.advance_ms(20_000);
    assert_eq!((world.state("a"), world.state("b")), (RUNNING, RUNNING));
}

/// covers: SUP-25, SUP-41
#[test]
fn a_binary_that_does_not_match_is_a_startup_error_without_another_try() {
    let mut world = World::new(vec![user("a", "")]);
    world.manners("a").launches = Err(ServiceError::BinaryMismatch);
    world.boot();
    world.advance_ms(600_000);
    assert_eq!(launches(&world, "a"), 1);
    assert_eq!(world.state("a"), STOPPED);
    let placeholder = "version = 1\n[service]\nname = \"p\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n";
    let world = World::booted(vec![crate::world::setup("p.toml", placeholder)]);
    assert_eq!(launches(&world, "p"), 0, "a text that is no hash starts nothing");
    assert_eq!(world.state("p"), STOPPED);
}

/// covers: SUP-70, SUP-92
#[test]
fn a_service_that_is_not_ready_in_time_is_killed_and_the_caller_told() {
    let mut world =
        World::booted(vec![user("a", "[restart]\nmode = \"never\"\n[health]\nstartup_timeout_ms = 2000\n")]);
    let stop = world.stop("a");
    assert!(world.reply(stop).is_ok());
    world.manners("a").answers_init = false;
    let request = world.start("a");
    world.advance_ms(1_999);
    assert!(!world.replies.contains_key(&request));
    world.advance_ms(1);
    assert_eq!(*world.error(request), SupervisorError::StartupTimeout("a".to_owned()));
    assert!(world.trace.contains(&"Kill a".to_owned()));
    world.manners("a").launches = Err(ServiceError::LaunchFailed);
    let request = world.start("a");
    assert!(matches!(world.error(request), SupervisorError::ServiceCrashed { .. }));
}

#[test]
fn a_launch_that_comes_about_after_its_time_is_not_spoken_to() {
    let mut machine = Supervisor::new(vec![user("a", "")], [0; 16]).unwrap();
    let ms = |ms| Monotonic::from_ms(ms);
    machine.step(ms(0), Event::Boot { mode: BootMode::Normal });
    let effects = machine.step(ms(5_000), Event::Timer);
    let launch = LaunchId(1);
    assert!(effects.contains(&Effect::Signal { launch, signal: Signal::Kill }), "{effects:?}");
    let effects = machine.step(ms(5_001), Event::Launched { launch, pid: 7, missing: Vec::new() });
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::SendLifecycle { .. })), "{effects:?}");
    assert_eq!(machine.status_by_name("a").unwrap().pid, Some(7));
    machine.step(ms(5_002), Event::Exited { launch, status: ExitStatus::Signal(9) });
    assert_eq!(machine.status_by_name("a").unwrap().pid, None);
}

#[test]
fn nothing_starts_beside_a_process_that_does_not_die() {
    let mut world = World::booted(vec![user("a", "")]);
    world.manners("a").health = None;
    world.manners("a").dies = false;
    world.advance_ms(100_000);
    assert_eq!(launches(&world, "a"), 1);
    assert!(failed(&world, "a"));
    world.manners("a").health = Some(true);
    world.crash("a", ExitStatus::Signal(9));
    world.advance_ms(1);
    assert_eq!(world.state("a"), RUNNING);
}

#[test]
fn a_laggard_is_replaced_at_once_without_cost_and_at_most_once_a_minute() {
    let mut world = World::booted(vec![user("a", "[restart]\nmax_restarts = 0\n")]);
    let laggard = || Event::Laggard { service: "a".to_owned() };
    world.event(laggard());
    assert_eq!((world.state("a"), launches(&world, "a")), (RUNNING, 2));
    world.advance_ms(59_000);
    world.event(laggard());
    assert_eq!(launches(&world, "a"), 2);
    world.advance_ms(1_000);
    world.event(laggard());
    assert_eq!((world.state("a"), launches(&world, "a")), (RUNNING, 3));
}

#[test]
fn an_exit_of_an_instance_that_is_gone_changes_nothing() {
    let mut world = World::booted(vec![user("a", "")]);
    let old = world.launch_of("a");
    world.advance_ms(1_000);
    world.crash("a", CRASH);
    let status = world.status("a");
    world.event(Event::Exited { launch: old, status: CRASH });
    world.event(Event::LifecycleClosed { launch: old, text: "gone".to_owned() });
    assert_eq!(world.status("a"), status);
}

/// It stands where people look, and not only in the supervisor's own log.
#[test]
fn why_a_service_was_not_taken_as_ready_is_told_to_who_asks_for_it_and_stands_in_its_status() {
    let why = "was not taken as ready: it does not provide a.a A/1.0, which its manifest promises";
    let mut world = World::new(vec![service("a", "System", "[restart]\nmode = \"never\"\n")]);
    world.manners("a").answers_start = false;
    world.boot();
    let request = world.start("a");
    let launch = world.launch_of("a");
    world.event(Event::LifecycleClosed { launch, text: why.to_owned() });
    assert_eq!(world.status("a").last_error.as_deref(), Some(why));
    let told = world.error(request).to_string();
    assert!(told.contains(why), "{told}");
    let records = world.machine.memory().records;
    let is_told = |record: &Record| matches!(&record.body, RecordBody::Failed(it) if it.text == why);
    assert!(records.iter().any(is_told), "{records:?}");
    // What a service says of itself is no longer than any other error.
    let mut world = World::new(vec![service("a", "System", "")]);
    world.manners("a").answers_start = false;
    world.boot();
    let launch = world.launch_of("a");
    world.event(Event::LifecycleClosed { launch, text: "x".repeat(ERROR_TEXT_BYTES_MAX + 1) });
    assert_eq!(world.status("a").last_error.unwrap().len(), ERROR_TEXT_BYTES_MAX);
}
