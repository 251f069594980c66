use chain::payload::service::{ServiceFailed, ServiceStart};
use supervisor::core::supervisor::{CommitOutcome, Event, ExitStatus, RECORDS_MAX, RecordBody, RecordId};

use crate::world::{World, fixtures, service, user};

fn starts(world: &World) -> Vec<&ServiceStart> {
    let bodies = world.log.iter().map(|record| &record.body);
    bodies.filter_map(|body| if let RecordBody::Start(start) = body { Some(start) } else { None }).collect()
}

/// covers: SUP-100
#[test]
fn every_register_start_stop_and_failure_is_in_the_log() {
    let mut setups = fixtures();
    setups.push(user("mine", ""));
    let mut world = World::booted(setups);
    world.advance_ms(1_000);
    world.crash("mine", ExitStatus::Code(4));
    world.stop("mine");
    let count = |code| world.log.iter().filter(|record| record.body.entry_type() == code).count();
    assert_eq!((count(20), count(21), count(22), count(23)), (13, 14, 1, 1));
    let RecordBody::Failed(ServiceFailed { name, text, .. }) =
        &world.log.iter().find(|record| record.body.entry_type() == 23).unwrap().body
    else {
        panic!("no failure")
    };
    assert_eq!((name.as_str(), text.as_str()), ("mine", "exited with code 4"));
    assert_eq!(starts(&world).last().unwrap().restarts, 1);
    let position = |line: &str| world.trace.iter().position(|other| other == line).unwrap();
    assert!(position("Append 21 mine") < position("Init mine"), "the entry goes before what follows from it");
    assert_eq!(world.machine.node().records_waiting, 0);
}

#[test]
fn what_happens_while_the_log_is_down_comes_first_when_it_is_back_and_late() {
    let mut world = World::booted(fixtures());
    assert_eq!(starts(&world).iter().filter(|start| start.late).count(), 1, "the log's own start");
    world.advance_ms(1_000);
    world.manners("axiom").answers_init = false;
    world.crash("axiom", ExitStatus::Signal(9));
    world.crash("keys", ExitStatus::Signal(9));
    world.advance_ms(100);
    let before = world.log.len();
    assert_eq!(world.machine.node().records_waiting, 4);
    world.manners("axiom").answers_init = true;
    world.advance_ms(10_000);
    let after: Vec<(u32, &str)> =
        world.log[before..].iter().map(|r| (r.body.entry_type(), r.body.service().unwrap())).collect();
    assert_eq!(after[..4], [(23, "axiom"), (21, "axiom"), (23, "keys"), (21, "keys")]);
    assert!(starts(&world).iter().any(|start| start.name == "axiom" && start.restarts == 1 && start.late));
}

#[test]
fn an_entry_whose_fate_is_unknown_is_sent_again_with_the_same_key_and_bytes() {
    let mut world = World::booted(fixtures());
    world.log_answers = false;
    world.stop("terminal");
    let waiting = world.machine.memory().records;
    assert_eq!(waiting.len(), 1);
    let first = waiting[0].clone();
    world.event(Event::CommitResult { record: first.id, outcome: CommitOutcome::Unavailable });
    assert_eq!(world.traced("Append").iter().filter(|line| **line == "22 terminal").count(), 1);
    world.log_answers = true;
    world.advance_ms(500);
    assert_eq!(world.log.last(), Some(&first));
    world.event(Event::CommitResult { record: RecordId(4711), outcome: CommitOutcome::Committed });
    assert_eq!(world.machine.node().records_waiting, 0);
}

#[test]
fn keys_of_entries_are_unique_and_differ_between_lives() {
    let keys = |nonce: u8| {
        let setups = fixtures();
        let mut machine = supervisor::core::supervisor::Supervisor::new(setups, [nonce; 16]).unwrap();
        machine
            .step(Default::default(), Event::Boot { mode: supervisor::core::supervisor::BootMode::Normal });
        let records = machine.memory().records;
        assert!(records.iter().zip(1..).all(|(record, id)| record.id == RecordId(id)), "{records:?}");
        records.iter().map(|record| record.key).collect::<Vec<_>>()
    };
    let mut all = [keys(1), keys(2)].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 24);
}

#[test]
fn with_the_queue_full_nothing_but_log_and_policy_starts() {
    let mut setups = fixtures();
    setups.push(user("mine", "[restart]\nmax_restarts = 1000\ndelay_ms = 0\n"));
    let mut world = World::booted(setups);
    world.log_answers = false;
    // Each crash leaves two entries.
    for _ in 0..RECORDS_MAX / 2 {
        world.crash("mine", ExitStatus::Code(1));
    }
    assert_eq!(world.machine.node().records_waiting, RECORDS_MAX);
    assert!(world.traced("Warn").is_empty(), "nothing is lost yet");
    world.crash("mine", ExitStatus::Code(1));
    world.advance_ms(400);
    assert!(world.traced("Warn").iter().any(|line| line.contains("is lost")), "{:?}", world.recent());
    assert!(!world.processes.values().any(|process| process.service == "mine"));
    assert_eq!(world.machine.node().records_waiting, RECORDS_MAX);
    world.crash("policy", ExitStatus::Code(1));
    world.advance_ms(1_000);
    assert!(world.processes.values().any(|process| process.service == "policy"));
    // With the log back everything goes on.
    world.log_answers = true;
    world.crash("axiom", ExitStatus::Code(1));
    world.advance_ms(2_000);
    assert_eq!(world.machine.node().records_waiting, 0);
    assert!(world.processes.values().any(|process| process.service == "mine"));
}

#[test]
fn with_the_queue_full_a_newer_entry_stands_for_older_ones_of_its_own_service_alone() {
    let endless = "[restart]\nmax_restarts = 1000\ndelay_ms = 0\n";
    let mut world = World::booted(vec![service("axiom", "Core", endless), user("mine", endless)]);
    world.log_answers = false;
    for _ in 0..RECORDS_MAX / 2 - 2 {
        world.crash("mine", ExitStatus::Code(1));
    }
    world.manners("axiom").answers_init = false;
    world.crash("axiom", ExitStatus::Code(1));
    world.advance_ms(100_000);
    let memory = world.machine.memory();
    assert_eq!(memory.records.len(), RECORDS_MAX);
    let of = |name: &str| memory.records.iter().filter(|record| record.body.service() == Some(name)).count();
    assert_eq!((of("mine"), of("axiom")), (RECORDS_MAX - 4, 4));
    let axiom = memory.records.iter().filter(|record| record.body.service() == Some("axiom"));
    let mut types: Vec<u32> = axiom.map(|record| record.body.entry_type()).collect();
    types.sort_unstable();
    assert_eq!(types, [21, 21, 23, 23], "a start stands for a start, a failure for a failure");
    let restarts = memory.records.iter().rev().find_map(|record| match &record.body {
        RecordBody::Start(start) => Some(start.restarts),
        _ => None,
    });
    assert_eq!(restarts, Some(world.status("axiom").restarts), "the newest is kept");
    assert!(world.status("axiom").restarts > 10);
}
