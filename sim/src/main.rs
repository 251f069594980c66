//! Runs the simulations: `sim --seed N --steps POINTS`, or one point of a failure: `sim --seed N --steps S --fault KIND`;
//! `sim path --seed N --seeds COUNT`: the three phases.

use std::process::ExitCode;

use sim::{Broken, Defect, Fault, PathReport, Report};

/// Long enough for several dozen entries of every size.
const TAMPERED_LOG_BYTES: u64 = 64 * 1024;

const USAGE: &str = "\
usage: sim [--seed N] [--steps N] [--fault PowerCut|Failed|FailedButHappened]
       sim path [--seed N] [--seeds N]
Without --fault, that many power cuts and as many failing writes are tried, and every byte of a 64 KiB log is flipped;
with it, the one at that step is repeated. `path` runs the three phases with crashes between any two steps, once for each
of so many seeds, and then shows that each of its planted defects is found.";
/// Seeds in which each planted defect must be found.
const DEFECT_SEEDS: u64 = 2000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some((_, rest)) = args.split_first().filter(|(first, _)| *first == "path") {
        let Some((seed, seeds)) = parse_path(rest) else {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        };
        return if path(seed, seeds) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let Some((seed, steps, fault)) = parse(&args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let sound = match fault {
        Some(fault) => show("repeated", &sim::replay(seed, steps, fault)),
        None => {
            let cuts = show("power cuts", &sim::powercut(seed, steps, Broken::Nothing));
            cuts & show("failing writes", &sim::faults(seed, steps)) & tamper(seed)
        }
    };
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn path(seed: u64, seeds: u64) -> bool {
    let report = path_on_all_cores(seed, seeds);
    println!(
        "path: {} seeds from {seed:#x}, {} acts acknowledged, {} denied, {} effects carried out, {} deaths, {} power cuts, \
         {} starts from a snapshot, {} engines from a fold, {} decisions made again, {} violations",
        report.seeds,
        report.acknowledged,
        report.denied,
        report.carried_out,
        report.deaths,
        report.power_cuts,
        report.from_snapshot,
        report.from_folds,
        report.decisions,
        report.failures.len(),
    );
    report.failures.iter().for_each(|failure| eprintln!("{failure}"));
    let mut sound = report.is_sound();
    for defect in Defect::ALL {
        let found = (0..DEFECT_SEEDS).find(|n| !sim::path(seed.wrapping_add(*n), 1, defect).is_sound());
        match found {
            Some(n) => println!("path: {defect:?} found at seed {} of {DEFECT_SEEDS}", n + 1),
            None => {
                eprintln!("{defect:?} was not found in {DEFECT_SEEDS} seeds");
                sound = false;
            }
        }
    }
    sound
}

/// Each run is one thread's; the seeds are shared out.
fn path_on_all_cores(seed: u64, seeds: u64) -> PathReport {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let share = seeds.div_ceil(threads);
    std::thread::scope(|scope| {
        let begin = |n: u64| {
            let count = share.min(seeds.saturating_sub(n.saturating_mul(share)));
            scope.spawn(move || sim::path(seed.wrapping_add(n.saturating_mul(share)), count, Defect::Nothing))
        };
        let all: Vec<_> = (0..threads).map(begin).collect();
        let mut report = PathReport::default();
        for one in all {
            match one.join() {
                Ok(found) => report.add(found),
                Err(_) => report.failures.push("a run panicked".to_owned()),
            }
        }
        report
    })
}

fn parse_path(args: &[String]) -> Option<(u64, u64)> {
    let (mut seed, mut seeds) = (0x5eed, 10_000);
    for pair in args.chunks(2) {
        match pair {
            [name, value] if name == "--seed" => seed = number(value)?,
            [name, value] if name == "--seeds" => seeds = number(value)?,
            _ => return None,
        }
    }
    Some((seed, seeds))
}

fn tamper(seed: u64) -> bool {
    let report = sim::tamper(seed, TAMPERED_LOG_BYTES, Broken::Nothing);
    println!(
        "tampering: {} bytes flipped, {} cuts, {} splices, {} reorderings, {} starts refused, {} missed",
        report.bytes_flipped,
        report.truncations,
        report.splices,
        report.reorderings,
        report.starts_refused,
        report.missed.len(),
    );
    report.missed.iter().for_each(|missed| eprintln!("missed: {missed}"));
    report.is_sound()
}

fn parse(args: &[String]) -> Option<(u64, u64, Option<Fault>)> {
    let (mut seed, mut steps, mut fault) = (0x5eed, 500, None);
    for pair in args.chunks(2) {
        match pair {
            [name, value] if name == "--seed" => seed = number(value)?,
            [name, value] if name == "--steps" => steps = number(value)?,
            [name, value] if name == "--fault" => {
                let kinds = [Fault::PowerCut, Fault::Failed, Fault::FailedButHappened];
                fault = Some(kinds.into_iter().find(|kind| format!("{kind:?}") == *value)?);
            }
            _ => return None,
        }
    }
    Some((seed, steps, fault))
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn show(what: &str, report: &Report) -> bool {
    println!(
        "{what}: {} points, {} entries acknowledged, {} lost, {} logs unopenable, {} half groups, {} wrote on",
        report.points,
        report.acknowledged,
        report.lost,
        report.unopenable,
        report.half_groups,
        report.went_on,
    );
    report.failures.iter().for_each(|failure| eprintln!("{failure}"));
    report.is_sound()
}
