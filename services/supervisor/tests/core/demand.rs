//! Services that a connection starts.

use base::Hash;
use supervisor::core::state::ServiceState;
use supervisor::core::supervisor::{
    ActOutcome, BootMode, Child, Event, ExitStatus, Monotonic, RecordBody, Reply, Supervisor, SupervisorError,
};

use crate::world::{World, fixtures, requires, user};

const RUNNING: ServiceState = ServiceState::Running;
const STOPPED: ServiceState = ServiceState::Stopped;
const REGISTERED: ServiceState = ServiceState::Registered;
const DONE: ExitStatus = ExitStatus::Code(0);
const CRASH: ExitStatus = ExitStatus::Signal(11);

fn manifest(more: &str) -> String {
    format!(
        "[program]\nimage = \"/bin/true\"\n{more}\n[[sockets]]\nname = \"s\"\nlisten = \"tcp:127.0.0.1:7000\"\non_demand = true\n"
    )
}

/// A node with one service that listens.
fn listening(more: &str) -> World {
    let mut world = World::booted(fixtures());
    let request = world.register(user("web", &manifest(more)));
    assert!(matches!(world.reply(request), Ok(Reply::Status(status)) if status.listening));
    world
}

fn launches(world: &World) -> usize {
    world.traced("Launch").iter().filter(|launched| **launched == "web").count()
}

fn acts(world: &World) -> usize {
    world.traced("Act").iter().filter(|act| **act == "Start web").count()
}

#[test]
fn it_rests_until_a_connection_comes_and_each_start_is_decided() {
    let mut world = listening("");
    assert_eq!((world.state("web"), launches(&world), acts(&world)), (REGISTERED, 0, 0));
    world.connect("web");
    assert_eq!((world.state("web"), launches(&world), acts(&world)), (RUNNING, 1, 1));
    assert!(!world.status("web").listening);
    world.clients.clear();
    world.advance_ms(10_000);
    world.crash("web", DONE);
    assert_eq!(world.state("web"), STOPPED);
    assert!(world.status("web").listening);
    world.advance_ms(1);
    world.connect("web");
    assert_eq!((world.state("web"), launches(&world), acts(&world)), (RUNNING, 2, 2));
    assert_eq!(world.status("web").restarts, 0, "a start by a connection is no restart");
    let starts = world.log.iter().filter(|r| matches!(&r.body, RecordBody::Start(s) if s.name == "web"));
    assert!(starts.into_iter().all(|record| record.authorization == Some(Hash([9; 32]))));
}

#[test]
fn one_that_never_takes_the_connection_does_not_loop() {
    let mut world = listening("[restart]\nmax_restarts = 3\ndelay_ms = 100\nbackoff = 1.0\n");
    world.connect("web");
    for started in 1..=4 {
        assert_eq!(launches(&world), started);
        world.crash("web", DONE);
        if started < 4 {
            assert_eq!(launches(&world), started, "not at once");
            world.advance_ms(99);
            assert_eq!(launches(&world), started);
            world.advance_ms(1);
        }
    }
    world.advance_ms(1_000_000);
    assert_eq!((launches(&world), world.state("web")), (4, STOPPED));
    let status = world.status("web");
    assert!(!status.listening);
    assert!(status.last_error.unwrap().contains("without taking the connection"));
    assert!(world.log.iter().any(|r| matches!(&r.body, RecordBody::Failed(f) if f.name == "web")));
    // Somebody who asks begins a new account.
    world.clients.clear();
    world.start("web");
    assert_eq!(world.state("web"), RUNNING);
}

/// One connection after the other, each of which is served: no failure, and all the same a limit.
#[test]
fn connections_start_it_no_more_often_than_its_limit_allows() {
    let serve = |world: &mut World| {
        world.connect("web");
        world.clients.clear();
        world.advance_ms(50);
        if world.state("web") == RUNNING {
            world.crash("web", DONE);
        }
    };
    let mut world = listening("");
    (0..20).for_each(|_| serve(&mut world));
    assert_eq!((launches(&world), world.status("web").listening), (20, true), "as many as systemd allows");
    serve(&mut world);
    assert_eq!((launches(&world), world.status("web").listening), (20, false));
    let error = world.status("web").last_error.unwrap();
    assert!(
        error.starts_with("trigger limit hit: connections started it 20 times within 2000 ms"),
        "{error}"
    );
    let failed = |r: &&supervisor::core::supervisor::Record| matches!(&r.body, RecordBody::Failed(f) if f.name == "web" && f.text.starts_with("trigger limit hit"));
    assert_eq!(world.log.iter().filter(failed).count(), 1, "it is on record, once");
    world.advance_ms(1_000_000);
    assert_eq!(launches(&world), 20, "nothing but a person starts it again");
    world.start("web");
    assert_eq!(world.state("web"), RUNNING);
    world.crash("web", DONE);
    assert!(world.status("web").listening);
    (0..20).for_each(|_| serve(&mut world));
    assert_eq!(launches(&world), 41, "with a new account");
    // Slowly enough, it may go on for ever.
    let mut world = listening("");
    for _ in 0..100 {
        serve(&mut world);
        world.advance_ms(50);
    }
    assert_eq!((launches(&world), world.status("web").listening), (100, true));
    // A limit of its own, and none.
    for (limit, expected) in
        [("burst = 2", 2), ("burst = 0", 50), ("interval_ms = 0", 50), ("interval_ms = 10", 50)]
    {
        let mut world = listening(&format!("[trigger_limit]\n{limit}\n"));
        (0..50).for_each(|_| serve(&mut world));
        assert_eq!(launches(&world), expected, "{limit}");
    }
}

#[test]
fn a_crash_with_a_connection_pending_is_an_ordinary_failure() {
    let mut world = listening("[restart]\nmax_restarts = 2\ndelay_ms = 100\nbackoff = 1.0\n");
    world.connect("web");
    for started in 1..=3 {
        assert_eq!(launches(&world), started);
        world.crash("web", CRASH);
        world.advance_ms(100);
    }
    assert_eq!((launches(&world), world.state("web")), (3, STOPPED));
    assert!(!world.status("web").listening);
}

#[test]
fn stop_disarms_and_start_arms_again() {
    let mut world = listening("");
    let request = world.stop("web");
    assert!(world.reply(request).is_ok());
    assert!(!world.status("web").listening);
    world.connect("web");
    assert_eq!(launches(&world), 0);
    world.start("web");
    assert_eq!(launches(&world), 1);
    world.clients.clear();
    world.crash("web", DONE);
    assert!(world.status("web").listening);
}

#[test]
fn one_that_was_never_started_can_be_removed() {
    let mut world = listening("");
    let request = world.unregister("web");
    assert_eq!(world.reply(request), &Ok(Reply::Done));
    assert_eq!(world.machine.status_by_name("web"), Err(SupervisorError::NotFound("web".to_owned())));
}

#[test]
fn who_requires_it_need_not_wait_for_it() {
    let mut world = listening("");
    world.register(user("client", &format!("[program]\nimage = \"/bin/true\"\n{}", requires("web"))));
    assert_eq!((world.state("client"), world.state("web")), (RUNNING, REGISTERED));
    world.connect("web");
    world.clients.clear();
    world.crash("web", DONE);
    assert_eq!(world.state("client"), RUNNING);
    world.stop("web");
    assert_eq!(world.state("client"), STOPPED, "nobody answers any more");
}

#[test]
fn a_refusal_is_not_asked_for_over_and_over() {
    let mut world = listening("");
    world.policy = ActOutcome::Denied { refusal: 7 };
    world.connect("web");
    world.advance_ms(100_000);
    assert_eq!((acts(&world), launches(&world)), (1, 0));
    assert!(!world.status("web").listening);
    assert!(world.status("web").last_error.is_some());
}

#[test]
fn a_changed_manifest_listens_again_when_the_old_one_has_ended() {
    let mut world = listening("");
    world.connect("web");
    world.clients.clear();
    let request = world.register(user("web", &manifest("args = [\"x\"]")));
    assert!(matches!(world.reply(request), Ok(Reply::Status(status)) if status.listening));
    assert_eq!(launches(&world), 1);
    world.connect("web");
    assert_eq!((launches(&world), world.state("web")), (2, RUNNING));
    let request = world.register(user("web", "[program]\nimage = \"/bin/true\"\n"));
    assert!(world.reply(request).is_ok());
    assert_eq!((launches(&world), world.state("web")), (3, RUNNING), "not on demand any more");
}

#[test]
fn what_it_left_is_let_go_when_it_rests_and_not_between_two_lives() {
    let mut world = listening("");
    world.connect("web");
    world.clients.clear();
    world.restart("web");
    world.crash("web", CRASH);
    world.advance_ms(10_000);
    assert_eq!((world.state("web"), world.traced("Rested")), (RUNNING, Vec::new()));
    world.crash("web", DONE);
    assert_eq!(world.traced("Rested"), ["web"]);
}

#[test]
fn the_next_supervisor_waits_for_connections_too() {
    let mut world = listening("");
    let setups: Vec<_> = world.machine.setups().cloned().collect();
    let memory = world.machine.memory();
    let mut next = World::new(setups.clone());
    next.machine = Supervisor::new(setups, [8; 16]).unwrap();
    next.processes = std::mem::take(&mut world.processes);
    let children = {
        let all = next.processes.iter();
        let of = all.map(|(launch, p)| Child {
            launch: *launch,
            service: p.service.clone(),
            pid: Some(p.pid),
            missing: vec![],
        });
        of.collect::<Vec<_>>()
    };
    next.event(Event::Adopted { memory: Some(Box::new(memory)), children, exits: Vec::new() });
    assert!(next.status("web").listening);
    assert!(next.awaited.contains("web"));
    next.connect("web");
    assert_eq!(next.state("web"), RUNNING);
}

#[test]
fn a_boot_starts_nothing_that_waits_and_ends_without_it() {
    let mut setups = fixtures();
    setups.push(user("web", &manifest("")));
    let mut world = World::new(setups);
    world.now = Monotonic::from_ms(5);
    world.event(Event::Boot { mode: BootMode::Normal });
    assert_eq!(launches(&world), 0);
    assert_eq!(world.traced("Booted"), ["without []"]);
    assert!(world.machine.runs_service_of_user(), "a node that waits for connections is in use");
    world.shutdown();
    assert_eq!(world.finished, Some((false, Vec::new())));
}

/// Whoever waited for a connection waited on the sockets before.
#[test]
fn a_changed_manifest_listens_anew_and_a_removed_one_lets_go() {
    let mut world = listening("");
    assert_eq!(world.traced("Await"), ["web"]);
    let changed = manifest("args = [\"changed\"]").replace("7000", "7001");
    let request = world.register(user("web", &changed));
    assert!(matches!(world.reply(request), Ok(Reply::Status(status)) if status.listening));
    assert_eq!(world.traced("Await"), ["web", "web"]);
    let request = world.stop("web");
    assert!(world.reply(request).is_ok());
    assert_eq!(world.traced("Forget"), ["web"]);
    let request = world.unregister("web");
    assert!(world.reply(request).is_ok(), "{:?}", world.reply(request));
    assert_eq!(world.traced("Forget"), ["web", "web"]);
}

#[test]
fn a_limit_of_starts_is_bounded_and_for_what_connections_start() {
    let errors = |text: &str| {
        let head = "version = 1\n[service]\nname = \"a\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n";
        let parsed = supervisor::manifest::parse("a.toml", &format!("{head}{text}"));
        parsed.err().map(|errors| errors[0].to_string())
    };
    let of = |limit: &str| errors(&manifest(&format!("[trigger_limit]\n{limit}")));
    assert_eq!(of("burst = 1000\ninterval_ms = 86400000"), None);
    assert!(of("burst = 1001").unwrap().contains("allowed is 0 to 1000"));
    assert!(of("interval_ms = 86400001").unwrap().contains("allowed is 0 to 86400000"));
    let alone = errors("[program]\nimage = \"/bin/true\"\n[trigger_limit]\nburst = 1\n").unwrap();
    assert!(alone.contains("`trigger_limit`: only a service with a socket"), "{alone}");
}
