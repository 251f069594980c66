//! Random events over random graphs. After each step: no service runs twice, none that should run is lost, nobody runs
//! on without what it requires unless it is on its way down, no restart budget is exceeded, and every stop that was
//! asked for ends; whatever happened, every shutdown ends.
//!
//! A failure prints its seed; `SUPERVISOR_SIM_SEED=<seed>` repeats it alone. `SUPERVISOR_SIM_EVENTS=1000000` rolls as
//! many events instead of 20 000; `cargo xtask ci --nightly` does. Mistakes planted between machine and world
//! (`defects.rs`) must be found by the same audits.

use std::collections::{BTreeMap, VecDeque};

use chain::payload::service::ServiceError;
use supervisor::core::state::ServiceState;
use supervisor::core::supervisor::{
    ActOutcome, Child, ChildExit, Effect, Event, ExitStatus, LaunchId, Notification, RequestId, ServiceSetup,
    Supervisor,
};

use crate::defects::{Defect, Mangle};
use crate::world::{World, requires, service};

const EVENTS: u64 = 20_000;
const EVENTS_VARIABLE: &str = "SUPERVISOR_SIM_EVENTS";
const EVENTS_PER_WORLD: u64 = 200;
const BUDGET: usize = 3;
const WINDOW_MS: u64 = 5_000;
/// A stop takes down who depends on it first, one after the other, each within its time limits and a kill.
const STOP_ENDS_MS: u64 = 30_000;
/// Requests of this file, beyond those that the world numbers.
const FIRST_REQUEST: u64 = 1 << 32;
/// Worlds in which a planted defect must be found.
const DEFECT_WORLDS: u64 = 200;

/// xorshift64*: the same events for the same seed everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

fn random_setups(dice: &mut Dice) -> Vec<ServiceSetup> {
    let count = 2 + dice.roll(8);
    let core = [("axiom", String::new()), ("policy", requires("axiom"))];
    let with_core = dice.chance(60);
    let mut setups: Vec<ServiceSetup> = Vec::new();
    let forever = |on: &str| {
        format!(
            "[restart]\nmax_restarts = {BUDGET}\nwindow_ms = {WINDOW_MS}\ndelay_ms = 50\non_exhausted = \"{on}\"\n"
        )
    };
    if with_core {
        setups.extend(
            core.iter()
                .map(|(name, extra)| service(name, "Core", &format!("{}{extra}", forever("RetryForever")))),
        );
    }
    for n in 0..count {
        let action = ["Stop", "RetryForever", "Stop", "RetryForever", "Panic"][dice.roll(5) as usize];
        let mode = ["always", "on_failure", "never"][dice.roll(3) as usize];
        let mut extra = format!("{}mode = \"{mode}\"\n", forever(action));
        let health = ["lifecycle", "sd_notify", "process", "lifecycle"][dice.roll(4) as usize];
        extra += &format!(
            "[health]\nkind = \"{health}\"\nstartup_timeout_ms = 300\nstop_timeout_ms = 200\ncheck_interval_ms = 100\ncheck_timeout_ms = 50\nfailure_threshold = 2\n"
        );
        for other in 0..n {
            if dice.chance(25) {
                let required = dice.chance(70);
                extra += &format!("[[dependencies]]\nname = \"s{other}\"\nrequired = {required}\n");
            }
        }
        let kind = ["User", "System", "Driver"][dice.roll(3) as usize];
        setups.push(service(&format!("s{n}"), kind, &extra));
    }
    setups
}

struct Audit {
    setups: Vec<ServiceSetup>,
    required: BTreeMap<String, Vec<String>>,
    /// Times of automatic restarts, in milliseconds, and the count that they were seen at.
    restarts: BTreeMap<String, (u32, VecDeque<u64>)>,
    /// Stops that were asked for and have not been answered: whose, and until when.
    stops: BTreeMap<RequestId, (String, u64)>,
}

impl Audit {
    fn new(setups: Vec<ServiceSetup>) -> Self {
        let required = setups
            .iter()
            .map(|setup| {
                let dependencies = &setup.manifest.manifest.dependencies;
                let names = dependencies.iter().filter(|d| d.required).map(|d| d.name.clone());
                (setup.name().to_owned(), names.collect())
            })
            .collect();
        Self { setups, required, restarts: BTreeMap::new(), stops: BTreeMap::new() }
    }

    /// `laggards` excuses restarts that do not count.
    fn check(&mut self, world: &World, laggards: &BTreeMap<String, u32>) {
        let states: BTreeMap<String, ServiceState> =
            world.machine.list().into_iter().map(|status| (status.name, status.state)).collect();
        for (_, name) in world.machine.live() {
            assert!(!states[name].rests(), "{name} is {} and its process lives", states[name]);
        }
        self.processes(world);
        self.stops.retain(|request, _| !world.replies.contains_key(request));
        for (name, until_ms) in self.stops.values() {
            assert!(
                world.now.0 / 1_000_000 <= *until_ms,
                "the stop of {name} does not end, which is {}: {:?}",
                world.state(name),
                world.recent()
            );
        }
        for (name, state) in &states {
            if !state.serves() {
                continue;
            }
            for on in &self.required[name] {
                // Alive or coming back by itself; or the dependent is about to stop, once its own dependents have.
                let waits = self.has_live_dependents(world, name);
                assert!(
                    !states[on].rests() || waits,
                    "{name} is {state} although {on} is {}: {:?}",
                    states[on],
                    world.recent()
                );
                assert_ne!(states[on], ServiceState::Stopping, "{on} stops before {name}");
            }
        }
        for status in world.machine.list() {
            let excused = laggards.get(&status.name).copied().unwrap_or(0);
            let counted = status.restarts.saturating_sub(excused);
            let now_ms = world.now.0 / 1_000_000;
            let (seen, times) = self.restarts.entry(status.name.clone()).or_default();
            if counted > *seen {
                assert!(counted == *seen + 1, "two restarts of {} in one step", status.name);
                *seen = counted;
                times.push_back(now_ms);
            }
            while times.front().is_some_and(|time| time + WINDOW_MS <= now_ms) {
                times.pop_front();
            }
            assert!(
                times.len() <= BUDGET,
                "{} restarted {} times in {WINDOW_MS} ms",
                status.name,
                times.len()
            );
        }
    }

    /// What the machine holds for alive is alive, and the other way round, but for news that are on their way.
    fn processes(&self, world: &World) {
        let machine: BTreeMap<LaunchId, &str> = world.machine.live().collect();
        for (launch, process) in &world.processes {
            let known = machine.contains_key(launch);
            assert!(known, "{} runs and nobody knows: {:?}", process.service, world.recent());
        }
        for (launch, name) in machine {
            let told = world.inbox.iter().any(|event| match event {
                Event::Exited { launch: of, .. } | Event::LaunchFailed { launch: of, .. } => *of == launch,
                _ => false,
            });
            let alive = world.processes.contains_key(&launch);
            assert!(alive || told, "{name} is held for alive: {:?}", world.recent());
        }
    }

    fn has_live_dependents(&self, world: &World, name: &str) -> bool {
        let runs = |other: &String| world.machine.live().any(|(_, service)| service == other);
        self.required.iter().any(|(other, on)| runs(other) && on.iter().any(|on| on == name))
    }

    /// Somebody asked for a start: a new account.
    fn forgive(&mut self, service: &str) {
        if let Some((_, times)) = self.restarts.get_mut(service) {
            times.clear();
        }
    }
}

struct Run {
    world: World,
    audit: Audit,
    dice: Dice,
    laggards: BTreeMap<String, u32>,
    mangle: Mangle,
    next_request: u64,
}

impl Run {
    fn new(seed: u64, defect: Defect) -> Self {
        let mut dice = Dice(seed | 1);
        let setups = random_setups(&mut dice);
        let audit = Audit::new(setups.clone());
        let world = World::new(setups);
        let mangle = Mangle::new(defect, world.now);
        Self { world, audit, dice, laggards: BTreeMap::new(), mangle, next_request: FIRST_REQUEST }
    }

    /// One event, then everything that follows, audited after each single step.
    fn event(&mut self, event: Event) {
        self.world.inbox.push_back(event);
        self.follow();
    }

    fn follow(&mut self) {
        let mut turns = 0;
        while let Some(event) = self.world.inbox.pop_front() {
            turns += 1;
            assert!(turns < 10_000, "one event never ends: {:?}", self.world.recent());
            self.step(event);
            self.audit.check(&self.world, &self.laggards);
        }
    }

    /// The machine takes one event in, and the world what it wants done; a planted defect stands in between.
    fn step(&mut self, event: Event) {
        let now = self.mangle.machine_time(self.world.now);
        for event in self.mangle.event(event) {
            self.world.trace.push(format!("<{event:?}>").chars().take(150).collect());
            for effect in self.world.machine.step(now, event) {
                for effect in self.mangle.effect(effect, &mut self.world) {
                    self.world.perform(effect);
                }
            }
        }
    }

    fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    fn advance(&mut self, ms: u64) {
        let until = supervisor::core::supervisor::Monotonic(self.world.now.0 + ms * 1_000_000);
        let mut turns = 0;
        let due = |run: &Self| run.world.machine.deadline().map(|due| run.mangle.world_time(due));
        while let Some(due) = due(self).filter(|due| *due <= until) {
            turns += 1;
            assert!(turns < 100_000, "time stands still: {:?}", self.world.recent());
            self.world.now = self.world.now.max(due);
            self.event(Event::Timer);
        }
        self.world.now = until;
    }

    fn any_service(&mut self) -> String {
        let count = self.audit.setups.len() as u64;
        self.audit.setups[self.dice.roll(count) as usize].name().to_owned()
    }

    fn change_manners(&mut self) {
        let service = self.any_service();
        let dice = &mut self.dice;
        let manners = self.world.manners.entry(service).or_default();
        *manners = Default::default();
        manners.answers_init = dice.chance(85);
        manners.answers_start = dice.chance(90);
        manners.answers_prepare_stop = dice.chance(80);
        manners.stops = dice.chance(80);
        manners.dies = dice.chance(85);
        manners.health = [Some(true), Some(true), Some(false), None][dice.roll(4) as usize];
        if dice.chance(10) {
            manners.launches = Err(ServiceError::LaunchFailed);
        }
    }

    fn random_event(&mut self) {
        match self.dice.roll(20) {
            0..=3 => {
                let ms = self.dice.roll(800);
                self.advance(ms);
            }
            4..=7 => self.kill_one(),
            8 | 9 => {
                let service = self.any_service();
                self.audit.forgive(&service);
                let request = self.request();
                self.event(Event::StartRequested { request, service });
            }
            10 => {
                let service = self.any_service();
                let request = self.request();
                let until_ms = self.world.now.0 / 1_000_000 + STOP_ENDS_MS;
                self.audit.stops.insert(request, (service.clone(), until_ms));
                self.event(Event::StopRequested { request, service });
            }
            11 => {
                let service = self.any_service();
                self.audit.forgive(&service);
                let request = self.request();
                self.event(Event::RestartRequested { request, service });
            }
            12 | 13 => self.change_manners(),
            14 | 15 => self.say_ready(),
            16 => {
                self.world.log_answers = self.dice.chance(80);
                self.world.policy = match self.dice.roll(4) {
                    0 => ActOutcome::Denied { refusal: 1 },
                    1 => ActOutcome::Unavailable { text: String::new() },
                    _ => ActOutcome::Allowed { authorization: base::Hash::ZERO },
                };
            }
            17 => {
                let service = self.any_service();
                let before = self.world.status(&service);
                // Whether or not it restarts at once, the restart that follows is free.
                self.event_laggard(&service, before.state.serves());
            }
            18 => self.replace_supervisor(),
            _ => self.event(Event::Timer),
        }
        self.audit.check(&self.world, &self.laggards);
    }

    /// Whoever is killed for it ends, whatever its manners are.
    fn event_laggard(&mut self, service: &str, serves: bool) {
        let now = self.mangle.machine_time(self.world.now);
        let mut killed = false;
        for effect in self.world.machine.step(now, Event::Laggard { service: service.to_owned() }) {
            if let Effect::Signal { launch, .. } = effect {
                killed = true;
                self.world.processes.remove(&launch);
                self.world.inbox.push_back(Event::Exited { launch, status: ExitStatus::Signal(9) });
            } else {
                self.world.perform(effect);
            }
        }
        assert!(serves || !killed);
        if killed {
            *self.laggards.entry(service.to_owned()).or_default() += 1;
        }
        self.follow();
    }

    fn kill_one(&mut self) {
        let count = self.world.processes.len() as u64;
        if count == 0 {
            return;
        }
        let index = self.dice.roll(count) as usize;
        let launch = *self.world.processes.keys().nth(index).unwrap();
        self.world.processes.remove(&launch);
        let status = if self.dice.chance(30) { ExitStatus::Code(0) } else { ExitStatus::Signal(9) };
        self.event(Event::Exited { launch, status });
    }

    fn say_ready(&mut self) {
        let launches: Vec<_> = self.world.processes.keys().copied().collect();
        for launch in launches {
            self.event(Event::Notify { launch, notification: Notification::Ready });
        }
    }

    /// The supervisor dies; some service may die while nobody listens.
    fn replace_supervisor(&mut self) {
        let memory = Some(Box::new(self.world.machine.memory()));
        let mut exits = Vec::new();
        if self.dice.chance(40)
            && let Some((launch, process)) = self.world.processes.pop_last()
        {
            exits.push(ChildExit {
                launch,
                service: process.service,
                status: ExitStatus::Signal(9),
                was_there: true,
            });
        }
        let children = self.world.processes.iter();
        let children: Vec<Child> = children
            .map(|(launch, p)| Child {
                launch: *launch,
                service: p.service.clone(),
                pid: Some(p.pid),
                missing: vec![],
            })
            .collect();
        self.world.machine = Supervisor::new(self.audit.setups.clone(), [1; 16]).unwrap();
        // Who asked the one that died asks again.
        self.audit.stops.clear();
        self.event(Event::Adopted { memory, children, exits });
    }

    /// Whatever state the world is in, and though nobody obeys, shutdown ends, and so does every process.
    fn end(&mut self) {
        // Who did not die of SIGKILL before does now, so that nothing may be left over.
        self.world.manners.values_mut().for_each(|manners| manners.dies = true);
        let states = self.world.machine.list();
        let unkilled = |name: &str| {
            states.iter().any(|s| s.name == name && matches!(s.state, ServiceState::Failed { .. }))
        };
        let launches: Vec<_> =
            self.world.processes.iter().filter(|(_, p)| unkilled(&p.service)).map(|(l, _)| *l).collect();
        for launch in launches {
            self.world.processes.remove(&launch);
            self.event(Event::Exited { launch, status: ExitStatus::Signal(9) });
        }
        self.advance(STOP_ENDS_MS + 1);
        self.audit.check(&self.world, &self.laggards);
        if self.world.finished.is_some() {
            return;
        }
        self.world.log_answers = self.dice.chance(50);
        self.event(Event::ShutdownRequested { request: None, reason: "end".to_owned() });
        self.advance(120_000);
        let (_, survivors) = self.world.finished.as_ref().expect("the shutdown does not end");
        assert!(survivors.is_empty() && self.world.processes.is_empty());
        assert_eq!(self.world.machine.deadline(), None);
    }
}

fn simulate(seed: u64, defect: Defect) {
    let mut run = Run::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), defect);
    run.event(Event::Boot { mode: supervisor::core::supervisor::BootMode::Normal });
    for _ in 0..EVENTS_PER_WORLD {
        if run.world.finished.is_some() {
            return;
        }
        run.random_event();
    }
    if run.world.finished.is_none() {
        run.end();
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

/// covers: SUP-55, SUP-66, SUP-94, SUP-102
#[test]
fn random_events_break_no_promise() {
    let worlds = number(EVENTS_VARIABLE).unwrap_or(EVENTS).div_ceil(EVENTS_PER_WORLD);
    let seeds = number("SUPERVISOR_SIM_SEED").map_or(1..=worlds, |seed| seed..=seed);
    for seed in seeds {
        let result = std::panic::catch_unwind(|| simulate(seed, Defect::None));
        assert!(result.is_ok(), "repeat with SUPERVISOR_SIM_SEED={seed}");
    }
}

/// What stands between the machine and the world is made to go wrong, one way at a time.
#[test]
fn each_planted_defect_is_found() {
    for defect in Defect::ALL {
        let found = |seed: &u64| std::panic::catch_unwind(|| simulate(*seed, defect)).is_err();
        assert!(
            (1..=DEFECT_WORLDS).any(|seed| found(&seed)),
            "{defect:?} was not found in {DEFECT_WORLDS} worlds"
        );
    }
}

/// News that come twice, late or from nowhere are no defect: the machine lives with them.
#[test]
fn news_that_come_twice_break_no_promise() {
    (1..=DEFECT_WORLDS / 4).for_each(|seed| simulate(seed, Defect::TellsExitsTwice));
}
