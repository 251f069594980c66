//! Services that a time starts, and jobs.

use supervisor::core::state::ServiceState;
use supervisor::core::supervisor::{Event, ExitStatus, Reply};

use crate::world::{World, fixtures, user};

const RUNNING: ServiceState = ServiceState::Running;
const STOPPED: ServiceState = ServiceState::Stopped;
const REGISTERED: ServiceState = ServiceState::Registered;
const DONE: ExitStatus = ExitStatus::Code(0);
const CRASH: ExitStatus = ExitStatus::Code(3);

const JOB: &str = "[program]\nimage = \"/bin/true\"\nruns = \"once\"\n[timer]\ncalendar = [\"daily\"]\n";

fn with_job(more: &str) -> World {
    let mut world = World::booted(fixtures());
    let request = world.register(user("job", &format!("{JOB}{more}")));
    assert!(matches!(world.reply(request), Ok(Reply::Status(_))));
    world
}

fn elapse(world: &mut World) {
    world.event(Event::TimerElapsed { service: "job".to_owned() });
}

fn count(world: &World, word: &str, what: &str) -> usize {
    world.traced(word).iter().filter(|line| **line == what).count()
}

#[test]
fn a_timer_starts_its_service_and_each_start_is_decided() {
    let mut world = with_job("");
    assert_eq!(world.state("job"), REGISTERED);
    assert_eq!(world.machine.armed_timers().count(), 1);
    for n in 1..=3 {
        elapse(&mut world);
        assert_eq!(world.state("job"), RUNNING);
        elapse(&mut world);
        assert_eq!(count(&world, "Launch", "job"), n, "it runs still: not twice");
        world.crash("job", DONE);
        assert_eq!(world.state("job"), STOPPED);
        world.advance_ms(1_000_000);
        assert_eq!((count(&world, "Launch", "job"), count(&world, "Act", "Start job")), (n, n));
    }
    assert_eq!(world.status("job").restarts, 0);
}

#[test]
fn a_job_that_failed_for_good_is_started_at_the_next_time() {
    let mut world = with_job("[restart]\nmode = \"never\"\n");
    for n in 1..=2 {
        elapse(&mut world);
        world.crash("job", CRASH);
        world.advance_ms(1_000_000);
        assert_eq!((world.state("job"), count(&world, "Launch", "job")), (STOPPED, n));
        assert!(world.status("job").last_error.unwrap().contains("exited with code 3"));
    }
}

#[test]
fn stop_disarms_the_timer_and_start_arms_it() {
    let mut world = with_job("");
    world.stop("job");
    assert_eq!(world.machine.armed_timers().count(), 0);
    elapse(&mut world);
    assert_eq!(count(&world, "Launch", "job"), 0);
    world.start("job");
    world.crash("job", DONE);
    assert_eq!((world.state("job"), world.machine.armed_timers().count()), (STOPPED, 1));
    let request = world.unregister("job");
    assert_eq!(world.reply(request), &Ok(Reply::Done));
}

#[test]
fn a_job_is_done_with_0_whatever_the_mode_and_however_soon() {
    let job = |more: &str| user("job", &format!("[program]\nimage = \"/bin/true\"\nruns = \"once\"\n{more}"));
    let mut world = World::booted(fixtures());
    world.register(job("[restart]\nmode = \"always\"\n"));
    world.crash("job", DONE);
    world.advance_ms(1_000_000);
    assert_eq!((world.state("job"), count(&world, "Launch", "job")), (STOPPED, 1));
    // Before it was known to be ready.
    world.manners("job").probe = None;
    let request = world.register(job("[health]\nkind = \"exec\"\ncommand = [\"/bin/true\"]\n"));
    assert_eq!(world.state("job"), ServiceState::Starting);
    world.crash("job", DONE);
    assert_eq!(world.state("job"), STOPPED);
    assert!(world.reply(request).is_ok());
    assert_eq!(world.log.iter().filter(|record| record.body.entry_type() == 23).count(), 0, "no failure");
}
