use base::Hash;
use supervisor::core::state::ServiceState;
use supervisor::core::supervisor::{
    ActOutcome, BootMode, Child, ChildExit, Event, ExitStatus, LaunchId, Memory, ServiceSetup, Supervisor,
    SupervisorError,
};

use crate::world::{World, fixtures, requires, user};

const RUNNING: ServiceState = ServiceState::Running;

fn setups() -> Vec<ServiceSetup> {
    let mut setups = fixtures();
    setups.push(user("mine", "[health]\nkind = \"sd_notify\"\n"));
    setups.push(user("other", &requires("mine")));
    setups
}

fn booted() -> World {
    let mut world = World::booted(setups());
    let launch = world.launch_of("mine");
    world.event(Event::Notify { launch, notification: supervisor::core::supervisor::Notification::Ready });
    world.advance_ms(1_000);
    assert!(world.machine.list().iter().all(|status| status.state == RUNNING));
    world
}

/// The supervisor dies and another takes its place; `while_dead` is what happens to the processes meanwhile.
fn replace(world: &mut World, memory: Option<Memory>, exits: Vec<ChildExit>) {
    let children: Vec<Child> = world
        .processes
        .iter()
        .map(|(launch, process)| Child {
            launch: *launch,
            service: process.service.clone(),
            pid: Some(process.pid),
            missing: vec![],
        })
        .collect();
    world.machine = Supervisor::new(setups(), [8; 16]).unwrap();
    world.trace.clear();
    world.event(Event::Adopted { memory: memory.map(Box::new), children, exits });
}

fn uptimes(world: &World) -> Vec<Option<std::time::Duration>> {
    world.machine.list().into_iter().map(|status| status.uptime).collect()
}

fn pids(world: &World) -> Vec<Option<u32>> {
    world.machine.list().into_iter().map(|status| status.pid).collect()
}

fn dies_unseen(world: &mut World, service: &str) -> ChildExit {
    let launch = world.launch_of(service);
    world.processes.remove(&launch);
    ChildExit { launch, service: service.to_owned(), status: ExitStatus::Signal(9), was_there: true }
}

#[test]
fn running_services_are_taken_up_with_their_pids() {
    for keep in [true, false] {
        let mut world = booted();
        let before = pids(&world);
        let entries = world.log.len();
        let memory = keep.then(|| world.machine.memory());
        let ran = uptimes(&world);
        replace(&mut world, memory, vec![]);
        assert_eq!(pids(&world), before);
        if keep {
            world.advance_ms(0);
            assert_eq!(uptimes(&world), ran, "they did not stop for it");
        }
        assert!(world.machine.list().iter().all(|status| status.state == RUNNING));
        assert!(world.traced("Launch").is_empty() && world.traced("Kill").is_empty());
        assert_eq!(world.log.len(), entries, "nothing new is recorded");
        let highest = *world.processes.keys().max().unwrap();
        world.restart("other");
        assert!(world.launch_of("other") > highest, "a launch is not numbered twice");
    }
}

#[test]
fn an_exit_while_nobody_listened_is_a_failure_like_any_other() {
    let mut world = booted();
    let memory = world.machine.memory();
    let exit = dies_unseen(&mut world, "keys");
    let launch = exit.launch;
    replace(&mut world, Some(memory), vec![exit]);
    assert_eq!((world.state("keys"), world.status("keys").restarts), (RUNNING, 1));
    assert_eq!(world.traced("Acknowledge"), [launch.to_string()]);
    let last: Vec<(u32, &str)> =
        world.log.iter().rev().take(2).map(|r| (r.body.entry_type(), r.body.service().unwrap())).collect();
    assert_eq!(last, [(21, "keys"), (23, "keys")]);
    let remember = world.trace.iter().position(|line| line == "Remember").unwrap();
    let acknowledge = world.trace.iter().position(|line| line.starts_with("Acknowledge")).unwrap();
    assert!(remember < acknowledge, "what was taken in is stored before the keeper may forget it");
}

#[test]
fn what_was_stopped_stays_stopped_and_budgets_are_kept() {
    let mut world = booted();
    world.stop("other");
    world.crash("terminal", ExitStatus::Code(1));
    world.crash("terminal", ExitStatus::Code(1));
    assert!(matches!(world.state("terminal"), ServiceState::Failed { .. }));
    let memory = world.machine.memory();
    replace(&mut world, Some(memory), vec![]);
    assert_eq!(world.state("other"), ServiceState::Stopped);
    assert!(matches!(world.state("terminal"), ServiceState::Failed { .. }), "its delay is not over");
    world.advance_ms(2_000);
    assert_eq!((world.state("terminal"), world.status("terminal").restarts), (RUNNING, 2));
}

#[test]
fn entries_under_way_are_sent_again_and_launches_are_not_numbered_twice() {
    let mut world = booted();
    world.log_answers = false;
    world.stop("other");
    let memory = world.machine.memory();
    let waiting = memory.records.clone();
    assert_eq!(waiting.len(), 1);
    world.log_answers = true;
    let highest = *world.processes.keys().max().unwrap();
    replace(&mut world, Some(memory), vec![]);
    assert_eq!(world.log.last(), waiting.last());
    world.start("other");
    assert!(world.launch_of("other") > LaunchId(highest.0));
}

#[test]
fn a_stop_or_shutdown_in_progress_goes_on() {
    let mut world = booted();
    world.manners("other").answers_prepare_stop = false;
    world.stop("other");
    let memory = world.machine.memory();
    world.manners("other").answers_prepare_stop = true;
    replace(&mut world, Some(memory), vec![]);
    assert_eq!(world.state("other"), ServiceState::Stopped);
    world.manners("terminal").answers_prepare_stop = false;
    world.shutdown();
    let memory = world.machine.memory();
    world.manners("terminal").answers_prepare_stop = true;
    replace(&mut world, Some(memory), vec![]);
    assert_eq!(world.finished, Some((false, vec![])));
    assert!(world.processes.is_empty());
}

#[test]
fn once_there_was_a_policy_engine_starts_need_its_decision_also_while_it_is_down() {
    let mut world = booted();
    world.stop("other");
    let memory = world.machine.memory();
    let exit = dies_unseen(&mut world, "policy");
    world.manners("policy").answers_init = false;
    world.policy = ActOutcome::Denied { refusal: 7 };
    replace(&mut world, Some(memory), vec![exit]);
    let request = world.start("other");
    assert_eq!(*world.error(request), SupervisorError::PolicyDenied { refusal: 7 });
    assert_eq!(world.state("other"), ServiceState::Stopped);
}

#[test]
fn a_process_that_belongs_to_nobody_is_ended() {
    let mut world = booted();
    let memory = world.machine.memory();
    let launch = LaunchId(999);
    world.processes.insert(launch, crate::world::Process { service: "ghost".to_owned(), pid: 1 });
    replace(&mut world, Some(memory), vec![]);
    assert!(!world.processes.contains_key(&launch));
    assert_eq!(world.traced("Kill"), ["ghost"]);
}

#[test]
fn the_decision_that_let_a_service_start_is_still_known() {
    let mut world = booted();
    let start = |memory: &Memory| {
        let mine = memory.services.iter().find(|service| service.name == "mine").unwrap();
        (mine.permitted, mine.authorization)
    };
    let memory = world.machine.memory();
    assert_eq!(start(&memory), (true, Some(Hash([9; 32]))));
    replace(&mut world, Some(memory), vec![]);
    assert_eq!(start(&world.machine.memory()), (true, Some(Hash([9; 32]))));
    // What is not known any more is not made up, and the service is not stopped for it.
    replace(&mut world, None, vec![]);
    assert_eq!(start(&world.machine.memory()), (true, None));
    assert_eq!(world.state("mine"), RUNNING);
}

/// `READY=1` was said to the supervisor that died, or it was not; who is asked tells it again.
#[test]
fn only_who_was_ready_before_is_taken_for_ready() {
    let mut world = World::booted(setups());
    assert_eq!(world.state("mine"), ServiceState::Starting);
    let memory = world.machine.memory();
    world.manners("other").answers_init = false;
    replace(&mut world, Some(memory), vec![]);
    assert_eq!(world.state("mine"), ServiceState::Starting, "it has not said READY=1 to anybody");
    let mut world = booted();
    let memory = world.machine.memory();
    world.manners("other").answers_init = false;
    replace(&mut world, Some(memory), vec![]);
    assert_eq!((world.state("mine"), world.state("other")), (RUNNING, ServiceState::Starting));
}

#[test]
fn without_memory_a_running_policy_engine_means_that_starts_need_its_decision() {
    for decider_runs in [true, false] {
        let mut world = booted();
        world.stop("other");
        if !decider_runs {
            dies_unseen(&mut world, "policy");
            world.manners("policy").answers_init = false;
        }
        world.policy = ActOutcome::Denied { refusal: 7 };
        replace(&mut world, None, vec![]);
        let asked = world.traced("Act").iter().any(|act| act.ends_with(" other"));
        assert_eq!(asked, decider_runs);
    }
}

#[test]
fn what_ended_while_it_was_to_stop_has_stopped_and_did_not_fail() {
    let mut world = booted();
    world.manners("other").stops = false;
    world.stop("other");
    assert_eq!(world.state("other"), ServiceState::Stopping);
    let memory = world.machine.memory();
    let exit = dies_unseen(&mut world, "other");
    let entries = world.log.len();
    replace(&mut world, Some(memory), vec![exit]);
    assert_eq!((world.state("other"), world.status("other").restarts), (ServiceState::Stopped, 0));
    let new: Vec<(u32, &str)> =
        world.log[entries..].iter().map(|r| (r.body.entry_type(), r.body.service().unwrap())).collect();
    assert_eq!(new, [(22, "other")], "the stop is on record, and nothing else");
    // One that rested already, and whose end comes again, is not recorded a second time.
    let memory = world.machine.memory();
    let exit = ChildExit {
        launch: LaunchId(500),
        service: "other".to_owned(),
        status: ExitStatus::Signal(9),
        was_there: true,
    };
    let entries = world.log.len();
    replace(&mut world, Some(memory), vec![exit]);
    assert!(world.log[entries..].iter().all(|record| record.body.entry_type() != 22));
}

#[test]
fn a_boot_in_progress_goes_on() {
    let mut world = World::new(setups());
    world.manners("keys").answers_init = false;
    world.boot();
    let memory = world.machine.memory();
    assert!(!memory.booted);
    world.manners("keys").answers_init = true;
    replace(&mut world, Some(memory), vec![]);
    assert_eq!(world.traced("Launch").first(), Some(&"identity"));
    assert_eq!(world.state("terminal"), RUNNING);
    world.event(Event::Boot { mode: BootMode::Normal });
    assert_eq!(world.state("terminal"), RUNNING);
}

/// What comes before it still runs: it is neither ready nor known by a number that is not its own.
#[test]
fn who_is_not_there_yet_is_waited_for_by_the_next_supervisor() {
    let simple = || vec![user("plain", "[program]\nimage = \"/bin/x\"\n")];
    let launched = |memory_of_launch: bool| {
        let mut world = World::new(simple());
        world.event(Event::Boot { mode: BootMode::Normal });
        let launch = world.launch_of("plain");
        let mut memory = world.machine.memory();
        if !memory_of_launch {
            memory.services.iter_mut().for_each(|known| known.launched = None);
        }
        world.machine = Supervisor::new(simple(), [8; 16]).unwrap();
        world.log.clear();
        (world, launch, memory)
    };
    let adopt = |world: &mut World, memory: Memory, launch, pid, exits| {
        let service = "plain".to_owned();
        let children = match exits {
            None => vec![Child { launch, service, pid, missing: vec!["caps".to_owned()] }],
            Some(_) => vec![],
        };
        let exits = exits.into_iter().collect();
        world.event(Event::Adopted { memory: Some(Box::new(memory)), children, exits });
    };
    let starts = |memory: &Memory| memory.records.iter().filter(|r| r.body.entry_type() == 21).count();
    let (mut world, launch, memory) = launched(false);
    let before = starts(&memory);
    adopt(&mut world, memory, launch, None, None);
    assert_eq!((world.state("plain"), world.status("plain").pid), (ServiceState::Starting, None));
    world.event(Event::Launched { launch, pid: 77, missing: vec![] });
    assert_eq!((world.state("plain"), world.status("plain").pid), (RUNNING, Some(77)));
    assert_eq!(starts(&world.machine.memory()), before + 1);
    // Its time limit is that of any start.
    let (mut world, launch, memory) = launched(false);
    adopt(&mut world, memory, launch, None, None);
    world.advance_ms(5_000);
    assert!(!world.traced("Kill").is_empty());
    // It came to be there while nobody listened: its start is recorded once.
    for recorded in [false, true] {
        let (mut world, launch, memory) = launched(recorded);
        let before = starts(&memory);
        adopt(&mut world, memory, launch, Some(77), None);
        assert_eq!((world.state("plain"), world.status("plain").pid), (RUNNING, Some(77)));
        assert_eq!(starts(&world.machine.memory()), before + usize::from(!recorded));
        assert_eq!(world.status("plain").missing.is_empty(), recorded);
    }
    // A start that came to nothing is no success, whatever it ended with.
    let (mut world, launch, memory) = launched(false);
    let service = "plain".to_owned();
    let exit = ChildExit { launch, service, status: ExitStatus::Code(0), was_there: false };
    adopt(&mut world, memory, launch, None, Some(exit));
    let state = world.state("plain");
    assert!(matches!(state, ServiceState::Failed { .. }), "{state}");
}
