//! A supervisor that dies in the middle of a stop, at each moment of it: the next one ends what was begun.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use base::Hash;
use supervisor::core::lifecycle::LifecycleMessage;
use supervisor::core::state::ServiceState;
use supervisor::core::supervisor::{
    Child, ChildExit, Effect, Event, ExitStatus, LaunchId, Memory, Notification, RecordBody, RequestId,
    ServiceSetup, Signal, Supervisor,
};

use crate::world::{World, fixtures, requires, user};

const RUNNING: ServiceState = ServiceState::Running;
/// More than any restart here has effects.
const MOMENTS_MAX: usize = 100;
const REQUEST: RequestId = RequestId(1);

/// One by what it is told, one that is sent SIGTERM, one that says when it is ready, and one whose dependent stops first.
const RESTARTED: [&str; 4] = ["speaks", "plain", "notifies", "needed"];

fn setups() -> Vec<ServiceSetup> {
    let mut setups = fixtures();
    setups.push(user("speaks", ""));
    setups.push(user("plain", "[program]\nimage = \"/bin/x\"\n"));
    setups.push(user("notifies", "[health]\nkind = \"sd_notify\"\n[program]\nimage = \"/bin/x\"\n"));
    setups.push(user("needed", "[program]\nimage = \"/bin/x\"\n"));
    setups.push(user("dependent", &requires("needed")));
    setups
}

fn say_ready(world: &mut World) {
    let launch = world.launch_of("notifies");
    world.event(Event::Notify { launch, notification: Notification::Ready });
}

fn booted() -> World {
    let mut world = World::booted(setups());
    say_ready(&mut world);
    world.advance_ms(1_000);
    assert!(world.machine.list().iter().all(|status| status.state == RUNNING));
    world.trace.clear();
    world
}

/// What outlives the supervisor.
struct Held {
    memory: Memory,
    /// Whose each launch is.
    launches: BTreeMap<LaunchId, String>,
}

impl Held {
    fn of(world: &World) -> Self {
        let launches = world.machine.live().map(|(launch, name)| (launch, name.to_owned()));
        Self { launches: launches.collect(), memory: world.machine.memory() }
    }
}

/// Whom this tells to stop.
fn stops(effect: &Effect) -> Option<LaunchId> {
    match effect {
        Effect::Signal { launch, signal: Signal::Terminate } => Some(*launch),
        Effect::SendLifecycle { launch, message: LifecycleMessage::PrepareStop, .. } => Some(*launch),
        _ => None,
    }
}

/// The supervisor carries out so many effects of what it is asked and dies. What is held then, which processes there were, and
/// whether there was more to do.
fn dies_at(world: &mut World, moment: usize, event: Event) -> (Held, BTreeSet<LaunchId>, bool) {
    let mut held = Held::of(world);
    let mut there: BTreeSet<LaunchId> = world.processes.keys().copied().collect();
    world.inbox.push_back(event);
    let mut done = 0;
    while let Some(event) = world.inbox.pop_front() {
        let mut unremembered = false;
        for effect in world.machine.step(world.now, event) {
            if done == moment {
                return (held, there, true);
            }
            done += 1;
            unremembered |= matches!(effect, Effect::Remember);
            // As the shell does it.
            if effect.leaves_a_trace() && mem::take(&mut unremembered) {
                held = Held::of(world);
            }
            if let Some(launch) = stops(&effect) {
                let name = &held.launches[&launch];
                let known = held.memory.services.iter().find(|known| known.name == *name).unwrap();
                assert_eq!(known.state, ServiceState::Stopping, "{name} is told before it is remembered");
            }
            world.perform(effect);
            there.extend(world.processes.keys());
        }
        if unremembered && world.inbox.is_empty() {
            held = Held::of(world);
        }
    }
    (held, there, false)
}

/// The keeper tells of each that somebody knows whose it is; the others end.
fn replace(world: &mut World, held: Held, there: &BTreeSet<LaunchId>) {
    let acknowledged: Vec<String> = world.traced("Acknowledge").into_iter().map(str::to_owned).collect();
    let (mut children, mut exits) = (Vec::new(), Vec::new());
    for (launch, service) in held.launches {
        if let Some(process) = world.processes.get(&launch) {
            children.push(Child { launch, service, pid: Some(process.pid), missing: vec![] });
        } else if there.contains(&launch) && !acknowledged.contains(&launch.to_string()) {
            let status = ExitStatus::Signal(15);
            exits.push(ChildExit { launch, service, status, was_there: true });
        }
    }
    world.processes.retain(|launch, _| children.iter().any(|child| child.launch == *launch));
    world.inbox.clear();
    world.machine = Supervisor::new(setups(), [8; 16]).unwrap();
    let memory = Some(Box::new(held.memory));
    world.event(Event::Adopted { memory, children, exits });
}

/// What the log holds of a service: starts, stops and failures. The same entry twice is one.
fn entries(world: &World, service: &str) -> (usize, Vec<(String, Option<Hash>)>, usize) {
    let (mut starts, mut stops, mut failures) = (0, Vec::new(), 0);
    let mut seen = BTreeSet::new();
    for record in world.log.iter().filter(|record| record.body.service() == Some(service)) {
        if !seen.insert(record.key.0) {
            continue;
        }
        match &record.body {
            RecordBody::Start(_) => starts += 1,
            RecordBody::Stop(body) => stops.push((body.reason.clone(), record.authorization)),
            RecordBody::Failed(_) => failures += 1,
            RecordBody::Register(_) | RecordBody::Shutdown(_) => {}
        }
    }
    (starts, stops, failures)
}

/// covers: SUP-97
#[test]
fn a_restart_is_one_whenever_the_supervisor_dies_in_it() {
    for service in RESTARTED {
        // Whether the process has ended when the next supervisor comes, or ends after it has been told once more.
        for ends_first in [true, false] {
            let mut restarted = 0;
            let (mut moment, mut goes_on) = (0, true);
            while goes_on {
                let mut world = booted();
                world.manners(service).stops = ends_first;
                let event = Event::RestartRequested { request: REQUEST, service: service.to_owned() };
                let (held, there, is_more) = dies_at(&mut world, moment, event);
                goes_on = is_more;
                world.manners(service).stops = true;
                replace(&mut world, held, &there);
                let at = format!("{service} ends first: {ends_first}, moment {moment}: {:?}", world.recent());
                if world.state("notifies") == ServiceState::Starting {
                    say_ready(&mut world);
                }
                world.advance_ms(1_000);
                assert!(world.machine.list().iter().all(|status| status.state == RUNNING), "{at}");
                assert!(world.machine.list().iter().all(|status| status.restarts == 0), "{at}");
                let (starts, stops, failures) = entries(&world, service);
                assert_eq!((starts, failures), (1 + stops.len(), 0), "{at}");
                if let [stop] = stops.as_slice() {
                    assert_eq!(*stop, ("restart requested".to_owned(), Some(Hash([9; 32]))), "{at}");
                    restarted += 1;
                }
                assert!(stops.len() <= 1, "{at}");
                let failed = |record: &&supervisor::core::supervisor::Record| {
                    matches!(record.body, RecordBody::Failed(_))
                };
                assert_eq!(world.log.iter().find(failed), None, "{at}");
                moment += 1;
                assert!(moment < MOMENTS_MAX);
            }
            assert!(
                restarted > 0 && restarted < moment,
                "{service}: {restarted} restarts in {moment} moments"
            );
        }
    }
}

/// What a supervisor of an older build remembers: that it stops, and no more.
fn older(mut memory: Memory) -> Memory {
    for known in &mut memory.services {
        (known.bounce, known.stop_reason, known.stop_authorization) = (false, String::new(), None);
    }
    memory
}

#[test]
fn a_stop_under_way_that_an_older_build_began_goes_on_too() {
    for (is_alive, restarts) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut world = booted();
        world.manners("plain").stops = false;
        if restarts {
            world.restart("plain")
        } else {
            world.stop("plain")
        };
        assert_eq!(world.state("plain"), ServiceState::Stopping);
        let held = Held::of(&world);
        let held = Held { memory: older(held.memory), ..held };
        let launch = world.launch_of("plain");
        world.manners("plain").stops = true;
        if !is_alive {
            world.processes.remove(&launch);
        }
        replace(&mut world, held, &BTreeSet::from([launch]));
        let (reason, state) =
            if restarts { ("restart requested", RUNNING) } else { ("requested", ServiceState::Stopped) };
        let (starts, stops, failures) = entries(&world, "plain");
        assert_eq!(stops, [(reason.to_owned(), None)]);
        assert_eq!((starts, failures), (1 + usize::from(restarts), 0));
        assert_eq!(world.state("plain"), state);
        assert_eq!(world.traced("Rested").contains(&"plain"), !restarts, "its descriptors are given up");
    }
}

/// Told to stop, it may end before it answers anything else.
#[test]
fn who_ends_while_the_next_supervisor_asks_it_has_stopped_all_the_same() {
    let mut world = booted();
    world.manners("speaks").answers_prepare_stop = false;
    world.restart("speaks");
    assert_eq!(world.state("speaks"), ServiceState::Stopping);
    let held = Held::of(&world);
    replace(&mut world, held, &BTreeSet::new());
    assert_eq!(world.state("speaks"), ServiceState::Stopping);
    assert!(!world.traced("Init").contains(&"speaks"), "it may not answer any more");
    world.manners("speaks").answers_prepare_stop = true;
    world.crash("speaks", ExitStatus::Signal(15));
    assert_eq!((world.state("speaks"), world.status("speaks").restarts), (RUNNING, 0));
    let (starts, stops, failures) = entries(&world, "speaks");
    assert_eq!((starts, stops.len(), failures), (2, 1, 0));
}
