//! Runs the simulations: `sim --seed N --steps POINTS`, or one point of a failure: `sim --seed N --steps S --fault KIND`.

use std::process::ExitCode;

use sim::{Broken, Fault, Report};

/// Long enough for several dozen entries of every size.
const TAMPERED_LOG_BYTES: u64 = 64 * 1024;

const USAGE: &str = "\
usage: sim [--seed N] [--steps N] [--fault PowerCut|Failed|FailedButHappened]
Without --fault, that many power cuts and as many failing writes are tried, and every byte of a 64 KiB log is flipped;
with it, the one at that step is repeated.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
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
