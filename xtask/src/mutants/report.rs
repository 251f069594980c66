//! What `cargo mutants` found, counted.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    caught: usize,
    timed_out: usize,
    unviable: usize,
    survivors: Vec<String>,
}

#[derive(Deserialize)]
struct Outcomes {
    outcomes: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    summary: String,
    scenario: serde_json::Value,
}

impl Tally {
    pub(super) fn read(text: &str) -> Result<Self> {
        let outcomes: Outcomes = serde_json::from_str(text).context("reading the report of cargo mutants")?;
        let mut tally = Self::default();
        for outcome in outcomes.outcomes {
            match outcome.summary.as_str() {
                "CaughtMutant" => tally.caught += 1,
                "Timeout" => tally.timed_out += 1,
                "Unviable" => tally.unviable += 1,
                "MissedMutant" => {
                    let name = outcome.scenario.pointer("/Mutant/name").and_then(serde_json::Value::as_str);
                    tally.survivors.push(name.unwrap_or("a mutant without a name").to_owned());
                }
                "Success" => {} // the baseline
                "Failure" => bail!("the tests fail without any mutant"),
                other => bail!("cargo mutants reports `{other}`, which this command does not know"),
            }
        }
        Ok(tally)
    }

    fn killed(&self) -> usize {
        self.caught + self.timed_out
    }

    fn viable(&self) -> usize {
        self.killed() + self.survivors.len()
    }

    pub(super) fn killed_percent(&self) -> usize {
        // No mutant at all means that nothing was tested.
        (self.killed() * 100).checked_div(self.viable()).unwrap_or(0)
    }

    fn add(&mut self, other: &Self) {
        self.caught += other.caught;
        self.timed_out += other.timed_out;
        self.unviable += other.unviable;
        self.survivors.extend_from_slice(&other.survivors);
    }
}

/// Every survivor with its place, a line for each package, and the sum, which is returned.
pub(super) fn print(rows: &[(&str, Tally, Duration)]) -> Tally {
    let (mut total, mut time) = (Tally::default(), Duration::ZERO);
    for (_, tally, took) in rows {
        tally.survivors.iter().for_each(|survivor| println!("  survived: {survivor}"));
        total.add(tally);
        time += *took;
    }
    println!(
        "\n  {:<20} {:>6} {:>6} {:>4} {:>5} {:>9} {:>9}",
        "", "killed", "of", "%", "hung", "unviable", "s/mutant"
    );
    for (name, tally, took) in rows {
        println!("{}", line(name, tally, *took));
    }
    println!("{}", line("all", &total, time));
    total
}

fn line(name: &str, tally: &Tally, took: Duration) -> String {
    let tried = (tally.viable() + tally.unviable).max(1);
    format!(
        "  {name:<20} {:>6} {:>6} {:>4} {:>5} {:>9} {:>9.1}",
        tally.killed(),
        tally.viable(),
        tally.killed_percent(),
        tally.timed_out,
        tally.unviable,
        took.as_secs_f64() / tried as f64
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"outcomes": [
        {"summary": "Success", "scenario": "Baseline"},
        {"summary": "CaughtMutant", "scenario": {"Mutant": {"name": "a"}}},
        {"summary": "CaughtMutant", "scenario": {"Mutant": {"name": "b"}}},
        {"summary": "Timeout", "scenario": {"Mutant": {"name": "c"}}},
        {"summary": "Unviable", "scenario": {"Mutant": {"name": "d"}}},
        {"summary": "MissedMutant", "scenario": {"Mutant": {"name": "src/core/x.rs:1:2: replace + with -"}}}
    ]}"#;

    #[test]
    fn the_report_is_counted() {
        let tally = Tally::read(REPORT).unwrap();
        assert_eq!((tally.viable(), tally.killed_percent()), (4, 75));
        assert_eq!(tally.survivors, ["src/core/x.rs:1:2: replace + with -"]);
    }

    #[test]
    fn packages_add_up() {
        let tally = || Tally::read(REPORT).unwrap();
        let total = print(&[("a", tally(), Duration::ZERO), ("b", tally(), Duration::ZERO)]);
        assert_eq!((total.killed(), total.viable(), total.unviable, total.survivors.len()), (6, 8, 2, 2));
        let line = line("a", &tally(), Duration::from_secs(10));
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["a", "3", "4", "75", "1", "1", "2.0"]);
    }

    #[test]
    fn nothing_tested_is_nothing_killed() {
        assert_eq!(Tally::read(r#"{"outcomes": []}"#).unwrap().killed_percent(), 0);
        assert!(Tally::read(r#"{"outcomes": [{"summary": "Failure", "scenario": "Baseline"}]}"#).is_err());
    }
}
