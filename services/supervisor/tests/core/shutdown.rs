use supervisor::core::state::ServiceState;
use supervisor::core::supervisor::{Event, NodeState, SupervisorError};

use crate::world::{World, fixtures, user};

/// covers: SUP-94
#[test]
fn shutdown_runs_in_reverse() {
    let mut setups = fixtures();
    setups.push(user("mine", ""));
    let mut world = World::booted(setups);
    world.shutdown();
    let expected = [
        "mine",
        "terminal",
        "update_manager",
        "network",
        "driver_manager",
        "filesystem",
        "block_storage",
        "process_manager",
        "capability_service",
        "identity",
        "keys",
        "policy",
        "axiom",
    ];
    assert_eq!(world.traced("PrepareStop"), expected);
    assert_eq!(world.traced("Stop"), expected);
    assert_eq!(world.finished, Some((false, vec![])));
    assert!(world.machine.list().iter().all(|s| s.state == ServiceState::Stopped && s.pid.is_none()));
    let entries: Vec<&str> = world.traced("Append").into_iter().rev().take(3).collect();
    assert_eq!(entries, ["22 axiom", "1 -", "22 policy"], "the log's own end is written before it stops");
}

/// covers: SUP-94, SUP-95
#[test]
fn a_service_that_will_not_stop_does_not_block_the_rest() {
    let mut world = World::booted(fixtures());
    world.manners("network").answers_prepare_stop = false;
    world.manners("network").stops = false;
    world.manners("network").dies = false;
    world.shutdown();
    assert_eq!(world.traced("PrepareStop"), ["terminal", "update_manager", "network"]);
    world.advance_ms(5_000 + 5_000 + 5_000);
    assert_eq!(world.finished, Some((false, vec!["network".to_owned()])));
    assert!(world.traced("Warn").iter().any(|text| text.starts_with("network")));
    assert_eq!(world.traced("Kill"), ["network"]);
}

#[test]
fn shutdown_ends_whatever_nobody_answers() {
    let mut world = World::booted(fixtures());
    for (name, _) in crate::world::FIXTURES {
        let manners = world.manners(name.strip_suffix(".toml").unwrap());
        (manners.answers_prepare_stop, manners.stops, manners.dies) = (false, false, false);
    }
    world.log_answers = false;
    world.shutdown();
    world.advance_ms(12 * 15_000 + 1_000);
    assert_eq!(world.finished.as_ref().map(|(_, survivors)| survivors.len()), Some(12));
}

/// covers: SUP-96
#[test]
fn an_emergency_gives_each_step_a_second() {
    let extra = "[restart]\nmax_restarts = 0\non_exhausted = \"Panic\"\n";
    let mut world = World::booted(vec![user("a", extra), user("b", "")]);
    world.manners("b").answers_prepare_stop = false;
    world.manners("b").stops = false;
    world.crash("a", supervisor::core::supervisor::ExitStatus::Code(1));
    assert_eq!(world.machine.node().state, NodeState::Stopping);
    world.advance_ms(1_999);
    assert!(world.finished.is_none());
    world.advance_ms(1);
    assert_eq!(world.finished, Some((true, vec![])));
}

#[test]
fn what_loses_its_dependency_during_a_shutdown_stops_at_once() {
    let mut world = World::booted(fixtures());
    world.manners("network").answers_prepare_stop = false;
    world.shutdown();
    world.crash("identity", supervisor::core::supervisor::ExitStatus::Code(1));
    world.crash("keys", supervisor::core::supervisor::ExitStatus::Code(1));
    world.crash("capability_service", supervisor::core::supervisor::ExitStatus::Code(1));
    assert_eq!(world.state("process_manager"), ServiceState::Stopped);
    assert_eq!(world.state("network"), ServiceState::Stopping);
    assert_eq!(world.state("policy"), ServiceState::Running);
}

#[test]
fn nothing_starts_and_everyone_is_told_once_shutdown_has_begun() {
    let mut world = World::new(vec![user("a", ""), user("b", "")]);
    world.manners("a").answers_init = false;
    world.boot();
    let waiting = world.start("a");
    world.shutdown();
    assert_eq!(*world.error(waiting), SupervisorError::ShuttingDown);
    for request in [world.start("b"), world.stop("b"), world.register(user("c", ""))] {
        assert_eq!(*world.error(request), SupervisorError::ShuttingDown);
    }
    world.event(Event::ShutdownRequested { request: None, reason: "again".to_owned() });
    world.advance_ms(10_000);
    assert_eq!(world.finished, Some((false, vec![])));
    assert_eq!(world.traced("Launch").len(), 2);
}

#[test]
fn a_shutdown_before_the_boot_ends_at_once() {
    let mut world = World::new(fixtures());
    world.shutdown();
    assert_eq!(world.finished, Some((false, vec![])));
    world.boot();
    assert!(world.traced("Launch").is_empty());
}

/// Found by the simulation: the wait for the last entries went on for good, and time with it.
#[test]
fn a_log_that_ends_by_itself_is_not_waited_for() {
    let mut world = World::booted(fixtures());
    world.log_answers = false;
    world.shutdown();
    world.advance_ms(100);
    world.crash("axiom", supervisor::core::supervisor::ExitStatus::Code(1));
    world.advance_ms(60_000);
    assert_eq!(world.finished, Some((false, vec![])));
    assert_eq!(world.machine.deadline(), None);
}
