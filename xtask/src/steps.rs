//! Named steps with their times, and the table at the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

enum Outcome {
    Held,
    Failed(String),
    LeftOut(String),
}

pub(crate) struct Steps {
    command: &'static str,
    started: Instant,
    done: Vec<(String, Duration, Outcome)>,
}

impl Steps {
    pub(crate) fn new(command: &'static str) -> Self {
        Self { command, started: Instant::now(), done: Vec::new() }
    }

    /// Runs a step and goes on whatever comes of it. Returns its value if it held.
    pub(crate) fn run<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        println!("── {}: {name}", self.command);
        let started = Instant::now();
        let result = work();
        let elapsed = started.elapsed();
        let (outcome, value) = match result {
            Ok(value) => (Outcome::Held, Some(value)),
            Err(error) => {
                eprintln!("{}: {name}: {error:#}", self.command);
                (Outcome::Failed(format!("{error:#}")), None)
            }
        };
        println!("── {}: {name}: {:.1} s", self.command, elapsed.as_secs_f64());
        self.done.push((name.to_owned(), elapsed, outcome));
        value
    }

    /// Notes a step that cannot be done here, and why.
    pub(crate) fn left_out(&mut self, name: &str, why: &str) {
        println!("── {}: {name}: left out: {why}", self.command);
        self.done.push((name.to_owned(), Duration::ZERO, Outcome::LeftOut(why.to_owned())));
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Prints the table; fails if a step failed.
    pub(crate) fn finish(self) -> Result<()> {
        let width = self.done.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        println!();
        for (name, elapsed, outcome) in &self.done {
            let text = match outcome {
                Outcome::Held => "held".to_owned(),
                Outcome::Failed(why) => format!("FAILED: {}", why.lines().next().unwrap_or_default()),
                Outcome::LeftOut(why) => format!("left out: {why}"),
            };
            println!("  {name:width$}  {:>7.1} s  {text}", elapsed.as_secs_f64());
        }
        // Last, where whoever sees the end alone sees it.
        for (name, _, outcome) in &self.done {
            let Outcome::Failed(why) = outcome else { continue };
            for line in why.lines().skip(1) {
                println!("  {name}: {}", line.trim());
            }
        }
        let failed = self.done.iter().filter(|(.., o)| matches!(o, Outcome::Failed(_))).count();
        let seconds = self.elapsed().as_secs_f64();
        if failed > 0 {
            bail!("{}: {failed} of {} steps failed after {seconds:.1} s", self.command, self.done.len());
        }
        println!("{}: all steps held, {seconds:.1} s", self.command);
        Ok(())
    }
}
