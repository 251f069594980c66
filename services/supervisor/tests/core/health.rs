use chain::payload::service::ServiceError;
use supervisor::core::state::ServiceState;
use supervisor::core::supervisor::{BootMode, Event, Notification};

use crate::world::{World, user};

const CHECKS: &str = "[health]\ncheck_interval_ms = 1000\ncheck_timeout_ms = 200\nfailure_threshold = 3\nsuccess_threshold = 2\n";
const HUNG: ServiceState = ServiceState::Failed { error: ServiceError::HealthTimeout };

fn checked() -> World {
    World::booted(vec![user("a", CHECKS)])
}

/// covers: SUP-71, SUP-84, SUP-42, SUP-45
#[test]
fn a_missed_check_degrades_and_good_ones_recover() {
    let mut world = checked();
    world.manners("a").health = None;
    world.advance_ms(1_199);
    assert_eq!(world.state("a"), ServiceState::Running);
    world.advance_ms(1);
    assert_eq!(world.state("a"), ServiceState::Degraded);
    // Degraded services are checked too (open point 8).
    world.manners("a").health = Some(true);
    world.advance_ms(900);
    assert_eq!(world.state("a"), ServiceState::Degraded);
    world.advance_ms(1_000);
    assert_eq!(world.state("a"), ServiceState::Running);
    assert_eq!(world.traced("HealthCheck").len(), 3);
}

/// covers: SUP-63, SUP-71, SUP-84
#[test]
fn a_service_that_hangs_is_killed_at_the_threshold_and_replaced() {
    let mut world = checked();
    world.manners("a").health = None;
    world.manners("a").dies = false;
    world.advance_ms(3_199);
    assert_eq!(world.state("a"), ServiceState::Degraded);
    world.advance_ms(1);
    assert_eq!(world.state("a"), HUNG);
    assert_eq!(world.traced("Kill"), ["a"]);
    let mut world = checked();
    world.manners("a").health = Some(false);
    world.advance_ms(3_000);
    world.manners("a").health = Some(true);
    world.advance_ms(1);
    assert_eq!((world.state("a"), world.status("a").restarts), (ServiceState::Running, 1));
}

/// covers: SUP-63
#[test]
fn a_watchdog_that_is_not_fed_ends_the_service() {
    let extra = "[health]\nkind = \"sd_notify\"\nwatchdog_ms = 1000\n[restart]\nmax_restarts = 0\n";
    let mut world = World::booted(vec![user("a", extra)]);
    let launch = world.launch_of("a");
    let notify = |notification| Event::Notify { launch, notification };
    world.event(notify(Notification::Watchdog));
    assert_eq!(world.state("a"), ServiceState::Starting);
    world.event(notify(Notification::Ready));
    assert_eq!(world.state("a"), ServiceState::Running);
    for _ in 0..5 {
        world.advance_ms(900);
        world.event(notify(Notification::Watchdog));
    }
    world.event(notify(Notification::Status("well".to_owned())));
    let health = world.status("a").health;
    assert_eq!((health.healthy, health.components[0].message.as_deref()), (true, Some("well")));
    world.advance_ms(999);
    assert_eq!(world.state("a"), ServiceState::Running);
    // First a warning, which ends when it is heard of again.
    world.advance_ms(1);
    assert_eq!(world.state("a"), ServiceState::Degraded);
    let error = world.status("a").last_error.unwrap();
    assert_eq!(error, "sent no WATCHDOG=1 within 1000 ms; it has as long again");
    world.advance_ms(500);
    world.event(notify(Notification::Watchdog));
    assert_eq!((world.state("a"), world.status("a").last_error), (ServiceState::Running, None));
    world.advance_ms(1_999);
    assert_eq!(world.state("a"), ServiceState::Degraded);
    world.advance_ms(1);
    assert_eq!(world.state("a"), ServiceState::Stopped);
    let error = world.status("a").last_error.unwrap();
    assert!(error.contains("nor within as long after a warning; it waits for nothing"), "{error}");
}

#[test]
fn a_ready_that_comes_before_the_launch_is_known_is_not_lost() {
    let mut world = World::new(vec![user("a", "[health]\nkind = \"sd_notify\"\n")]);
    world.manners("a").says_ready_first = true;
    world.event(Event::Boot { mode: BootMode::Normal });
    assert_eq!(world.state("a"), ServiceState::Running);
}

#[test]
fn who_says_that_it_stops_is_not_killed_for_silence() {
    let mut world = World::booted(vec![user("a", "[health]\nkind = \"sd_notify\"\nwatchdog_ms = 1000\n")]);
    let launch = world.launch_of("a");
    world.event(Event::Notify { launch, notification: Notification::Ready });
    world.event(Event::Notify { launch, notification: Notification::Stopping });
    // Food that was under way does not wake the dog again.
    world.event(Event::Notify { launch, notification: Notification::Watchdog });
    world.advance_ms(10_000);
    assert!(world.processes.contains_key(&launch));
}

/// covers: SUP-70
#[test]
fn probes_tell_when_a_foreign_program_is_ready_and_whether_it_is_well() {
    for health in [
        "kind = \"tcp\"\naddress = \"127.0.0.1:80\"",
        "kind = \"http\"\naddress = \"a:1\"",
        "kind = \"exec\"\ncommand = [\"/check\"]",
    ] {
        let extra = format!("{}{health}\n", CHECKS);
        let mut world = World::new(vec![user("a", &extra)]);
        world.manners("a").probe = Some(Err("refused".to_owned()));
        world.boot();
        world.advance_ms(500);
        assert_eq!(world.state("a"), ServiceState::Starting);
        assert!(world.traced("Probe").len() > 5, "readiness is asked often");
        world.manners("a").probe = Some(Ok(()));
        world.advance_ms(50);
        assert_eq!(world.state("a"), ServiceState::Running);
        world.manners("a").probe = None;
        world.advance_ms(1_200);
        assert_eq!(world.state("a"), ServiceState::Degraded);
        world.manners("a").probe = Some(Err("500".to_owned()));
        world.advance_ms(1_900);
        assert_eq!(world.status("a").restarts, 1);
        assert_eq!(world.status("a").last_error.as_deref(), Some("500"));
    }
}

#[test]
fn a_probe_that_passes_again_recovers_and_one_that_was_given_up_says_nothing() {
    use supervisor::core::supervisor::CallId;
    let extra = format!("{CHECKS}kind = \"exec\"\ncommand = [\"/check\"]\n");
    let mut world = World::booted(vec![user("a", &extra)]);
    world.manners("a").probe = None;
    world.advance_ms(1_200);
    assert_eq!(world.state("a"), ServiceState::Degraded);
    // Answers to questions that nobody waits for any more, and to one that was never asked.
    let launch = world.launch_of("a");
    for call in 0..20 {
        world.event(Event::ProbeResult { launch, call: CallId(call), result: Ok(()) });
    }
    assert_eq!(world.state("a"), ServiceState::Degraded);
    world.manners("a").probe = Some(Ok(()));
    world.advance_ms(2_000);
    assert_eq!(world.state("a"), ServiceState::Running);
}

#[test]
fn a_program_without_a_check_is_well_while_it_lives() {
    let world = World::booted(vec![user("a", "[program]\nimage = \"/bin/true\"\n")]);
    assert_eq!(world.state("a"), ServiceState::Running);
    assert_eq!(world.machine.deadline(), None);
    assert_eq!(world.traced("Init").len(), 0);
}

#[test]
fn a_late_answer_does_not_count() {
    use supervisor::core::lifecycle::{HealthStatus, LifecycleResponse};
    use supervisor::core::supervisor::CallId;
    let mut world = checked();
    let launch = world.launch_of("a");
    world.manners("a").health = None;
    world.advance_ms(1_200);
    assert_eq!(world.state("a"), ServiceState::Degraded);
    for call in 1..=3 {
        let response = LifecycleResponse::Health(HealthStatus { healthy: true, ..HealthStatus::default() });
        world.event(Event::LifecycleReply { launch, call: CallId(call), response });
    }
    assert_eq!(world.state("a"), ServiceState::Degraded);
    world.event(Event::LifecycleClosed { launch, text: "gone".to_owned() });
    assert_eq!(world.state("a"), ServiceState::Degraded);
}

#[test]
fn a_service_that_says_degraded_stays_degraded_and_is_well_again_when_it_says_so() {
    let mut world = checked();
    let launch = world.launch_of("a");
    world.manners("a").degraded = Some("locked".to_owned());
    world.advance_ms(20_000);
    assert_eq!(world.state("a"), ServiceState::Degraded);
    assert_eq!(world.launch_of("a"), launch, "it was never started again");
    assert_eq!(world.machine.status_by_name("a").unwrap().last_error.as_deref(), Some("locked"));
    world.manners("a").degraded = None;
    world.advance_ms(3_000);
    assert_eq!(world.state("a"), ServiceState::Running);
    assert_eq!(world.machine.status_by_name("a").unwrap().last_error, None);
}
