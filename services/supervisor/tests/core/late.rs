//! A service that hangs is told from a machine that has no time for it.

use std::time::Duration;

use supervisor::core::state::ServiceState;
use supervisor::core::supervisor::{
    Event, HANG_KILL_INTERVAL, MACHINE_EXCUSES_MAX, Notification, RecordBody,
};

use crate::world::{World, user};

const WATCHED: &str = "[health]\nkind = \"sd_notify\"\nwatchdog_ms = 1000\n[restart]\nmax_restarts = 0\n";
const CHECKED: &str = "[health]\ncheck_interval_ms = 1000\ncheck_timeout_ms = 200\nfailure_threshold = 3\n\
                       [restart]\nmax_restarts = 0\n";

/// So many services with a watchdog, which all have said that they are ready.
fn watched(count: usize) -> World {
    let mut world = World::booted((0..count).map(|n| user(&format!("s{n}"), WATCHED)).collect());
    for n in 0..count {
        feed(&mut world, n, Notification::Ready);
    }
    world
}

fn feed(world: &mut World, n: usize, notification: Notification) {
    let launch = world.launch_of(&format!("s{n}"));
    world.event(Event::Notify { launch, notification });
}

fn in_state(world: &World, state: ServiceState) -> usize {
    world.machine.list().iter().filter(|status| status.state == state).count()
}

#[test]
fn a_starved_service_is_given_time_but_not_for_ever() {
    let mut world = watched(1);
    world.starved_percent = 60;
    world.advance_ms(2_000);
    assert_eq!(world.state("s0"), ServiceState::Degraded);
    let error = world.status("s0").last_error.unwrap();
    assert!(error.contains("another period") && error.contains("60 % of it"), "{error}");
    feed(&mut world, 0, Notification::Watchdog);
    assert_eq!(world.state("s0"), ServiceState::Running, "it was not at fault");
    world.advance_ms(1_000 + 1_000 * u64::from(MACHINE_EXCUSES_MAX));
    assert_eq!(world.state("s0"), ServiceState::Degraded);
    world.advance_ms(1_000);
    assert_eq!(world.state("s0"), ServiceState::Stopped);
    let error = world.status("s0").last_error.unwrap();
    assert!(error.contains("10 periods more, although the machine is short of time"), "{error}");
    let recorded = |r: &supervisor::core::supervisor::Record| matches!(&r.body, RecordBody::Failed(f) if f.text == error);
    assert!(world.machine.memory().records.iter().any(recorded), "the record says it too");
}

#[test]
fn a_check_that_is_not_answered_in_time_is_excused_too() {
    let mut world = World::booted(vec![user("a", CHECKED)]);
    world.starved_percent = 60;
    world.manners("a").health = None;
    world.advance_ms(3_200);
    assert_eq!(world.state("a"), ServiceState::Degraded);
    assert!(world.status("a").last_error.unwrap().contains("another period"));
    world.starved_percent = 0;
    world.manners("a").health = Some(true);
    world.advance_ms(2_000);
    assert_eq!(world.state("a"), ServiceState::Running);
    // Who answers that it is not well has time to answer.
    world.starved_percent = 60;
    world.manners("a").health = Some(false);
    world.advance_ms(3_000);
    assert_eq!(world.state("a"), ServiceState::Stopped);
}

#[test]
fn when_all_are_late_it_is_the_machine_and_those_that_hang_go_one_at_a_time() {
    let mut world = watched(4);
    world.advance_ms(2_000);
    assert_eq!(in_state(&world, ServiceState::Degraded), 4);
    assert!(world.status("s0").last_error.unwrap().contains("4 of 4 watched services are late at once"));
    (0..4).for_each(|n| feed(&mut world, n, Notification::Watchdog));
    assert_eq!(in_state(&world, ServiceState::Running), 4);
    // Two of eight, for long: each is killed for it, and not in one moment.
    let mut world = watched(8);
    let kill_interval_ms = u64::try_from(HANG_KILL_INTERVAL.as_millis()).unwrap();
    let others = |world: &mut World, ms: u64| {
        for _ in 0..ms / 500 {
            world.advance_ms(500);
            (2..8).for_each(|n| feed(world, n, Notification::Watchdog));
        }
    };
    others(&mut world, 2_000);
    assert_eq!(in_state(&world, ServiceState::Stopped), 1);
    others(&mut world, kill_interval_ms - 1_000);
    assert_eq!(in_state(&world, ServiceState::Stopped), 1);
    others(&mut world, 1_000);
    assert_eq!(in_state(&world, ServiceState::Stopped), 2);
    assert_eq!(in_state(&world, ServiceState::Running), 6);
}

#[test]
fn nobody_is_late_for_the_time_in_which_the_machine_slept() {
    let mut world = watched(1);
    world.advance_ms(900);
    world.now = world.now.after(Duration::from_secs(3600));
    world.event(Event::Slept { duration: Duration::from_secs(3600) });
    assert_eq!(world.state("s0"), ServiceState::Running);
    world.advance_ms(99);
    assert_eq!(world.state("s0"), ServiceState::Running);
    world.advance_ms(1);
    assert_eq!(world.state("s0"), ServiceState::Degraded, "what was left of its time");
    // A start that is under way has its time too.
    let mut world = World::booted(vec![user("s0", WATCHED)]);
    world.now = world.now.after(Duration::from_secs(3600));
    world.event(Event::Slept { duration: Duration::from_secs(3600) });
    feed(&mut world, 0, Notification::Ready);
    assert_eq!(world.state("s0"), ServiceState::Running);
}

#[test]
fn a_supervisor_that_comes_late_blames_nobody() {
    let mut world = watched(1);
    world.advance_ms(1_000);
    // It was not given the processor for long; what the service said meanwhile is still to be read.
    world.now = world.now.after(Duration::from_millis(1_600));
    world.event(Event::Timer);
    assert_eq!(world.state("s0"), ServiceState::Degraded);
    assert!(world.status("s0").last_error.unwrap().contains("the supervisor itself came 600 ms late"));
    feed(&mut world, 0, Notification::Watchdog);
    assert_eq!(world.state("s0"), ServiceState::Running);
}

#[test]
fn a_reading_that_never_comes_saves_nobody() {
    let mut world = watched(1);
    world.reads_pressure = false;
    world.advance_ms(2_999);
    assert_eq!(world.state("s0"), ServiceState::Degraded);
    world.advance_ms(1);
    assert_eq!(world.state("s0"), ServiceState::Stopped);
}
