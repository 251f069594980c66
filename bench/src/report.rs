//! What all parts have in common: rows of measured subjects, ours first, as a table for people and as JSON.

use serde::{Deserialize, Serialize};

/// Of what a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    PerSecond,
    /// Of what is better rare.
    TimesASecond,
    Nanoseconds,
    Microseconds,
    Milliseconds,
    Mebibytes,
    Kibibytes,
    Bytes,
    MegabytesPerSecond,
}

impl Unit {
    /// Whether more is better.
    const fn grows_better(self) -> bool {
        matches!(self, Self::PerSecond | Self::MegabytesPerSecond)
    }

    /// Three significant digits and the unit.
    fn show(self, value: f64) -> String {
        let (value, unit) = match self {
            Self::PerSecond if value >= 1000.0 => (value / 1000.0, "k/s"),
            Self::PerSecond | Self::TimesASecond => (value, "/s"),
            Self::Nanoseconds if value >= 1e6 => (value / 1e6, "ms"),
            Self::Nanoseconds if value >= 1e3 => (value / 1e3, "µs"),
            Self::Nanoseconds => (value, "ns"),
            Self::Microseconds if value >= 1e3 => (value / 1e3, "ms"),
            Self::Microseconds => (value, "µs"),
            Self::Milliseconds => (value, "ms"),
            Self::Mebibytes => (value, "MiB"),
            Self::Kibibytes => (value, "KiB"),
            Self::Bytes => (value, "B"),
            Self::MegabytesPerSecond => (value, "MB/s"),
        };
        let decimals = match value.abs() {
            value if value >= 99.95 => 0,
            value if value >= 9.995 => 1,
            _ => 2,
        };
        format!("{value:.decimals$} {unit}")
    }
}

/// One contestant of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) ours: bool,
    pub(crate) median: f64,
    /// Tenth and ninetieth percentile over the samples.
    pub(crate) p10: f64,
    pub(crate) p90: f64,
    pub(crate) samples: usize,
}

impl Subject {
    pub(crate) fn ours(name: impl Into<String>, samples: &mut [f64]) -> Self {
        Self::of(name.into(), true, samples)
    }

    pub(crate) fn peer(name: impl Into<String>, samples: &mut [f64]) -> Self {
        Self::of(name.into(), false, samples)
    }

    fn of(name: String, ours: bool, samples: &mut [f64]) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |share| quantile(samples, share);
        Self { name, ours, median: at(0.5), p10: at(0.1), p90: at(0.9), samples: samples.len() }
    }
}

/// Of values in ascending order; not a number if there are none.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1)) as f64 * share;
    sorted.get(at.round() as usize).copied().unwrap_or(f64::NAN)
}

/// What the issue asks of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// A value of our first subject.
    Absolute(f64),
    /// Our first subject against the one named, at most (or at least, where more is better) so many times its value.
    Against { subject: String, times: f64 },
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) goals: Vec<Goal>,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, unit: Unit, subjects: Vec<Subject>) -> Self {
        Self { what: what.into(), unit, subjects, goals: Vec::new() }
    }

    pub(crate) fn goal(mut self, value: f64) -> Self {
        self.goals.push(Goal::Absolute(value));
        self
    }

    pub(crate) fn against(mut self, subject: &str, times: f64) -> Self {
        self.goals.push(Goal::Against { subject: subject.to_owned(), times });
        self
    }

    fn main(&self) -> Option<&Subject> {
        self.subjects.iter().find(|subject| subject.ours)
    }

    /// How many times better ours is than `other`.
    fn ahead(&self, other: &Subject) -> Option<f64> {
        let ours = self.main()?.median;
        Some(if self.unit.grows_better() { ours / other.median } else { other.median / ours })
    }

    fn ours_text(&self) -> String {
        let show = |subject: &Subject| format!("{} ({})", self.unit.show(subject.median), subject.name);
        self.subjects.iter().filter(|subject| subject.ours).map(show).collect::<Vec<_>>().join("; ")
    }

    fn beside_text(&self) -> String {
        let show = |subject: &Subject| {
            let ahead = self.ahead(subject).map_or(String::new(), |ahead| format!(" [{ahead:.2}]"));
            format!("{} {}{ahead}", subject.name, self.unit.show(subject.median))
        };
        self.subjects.iter().filter(|subject| !subject.ours).map(show).collect::<Vec<_>>().join("; ")
    }

    fn goals_text(&self) -> String {
        let Some(ours) = self.main().map(|ours| ours.median) else { return String::new() };
        let sign = if self.unit.grows_better() { "≥" } else { "≤" };
        let holds = |limit: f64| if self.unit.grows_better() { ours >= limit } else { ours <= limit };
        let verdict = |holds: bool| if holds { "held" } else { "missed" };
        let texts = self.goals.iter().map(|goal| match goal {
            Goal::Absolute(limit) => format!("{sign} {}: {}", self.unit.show(*limit), verdict(holds(*limit))),
            Goal::Against { subject, times } => {
                let text = match times {
                    1.0 => format!("{sign} {subject}"),
                    times => format!("{sign} {times} × {subject}"),
                };
                match self.subjects.iter().find(|known| known.name == *subject) {
                    Some(known) => format!("{text}: {}", verdict(holds(known.median * times))),
                    None => format!("{text}: not measured"),
                }
            }
        });
        texts.collect::<Vec<_>>().join("; ")
    }
}

/// What could not be measured here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    pub(crate) what: String,
    pub(crate) why: String,
}

/// What one part of the bench found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) skipped: Vec<Skipped>,
    /// What a reader must know to read the rows right.
    pub(crate) notes: Vec<String>,
}

impl Part {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub(crate) fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let skipped = Skipped { what: what.into(), why: why.into() };
        eprintln!("bench: {}: left out: {}: {}", self.name, skipped.what, skipped.why);
        self.skipped.push(skipped);
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

/// Everything of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) quick: bool,
    /// Of one minute, before and after: on a machine that does something else, only the ratios mean anything.
    pub(crate) load: [f64; 2],
    pub(crate) parts: Vec<Part>,
}

impl Report {
    /// The table of `docs/performance.md`.
    pub(crate) fn markdown(&self) -> String {
        let [before, after] = self.load;
        let form = if self.quick { ", quick form" } else { "" };
        let mut text = format!("{}; load {before:.1} before, {after:.1} after{form}.\n\n", self.machine);
        text.push_str("| part | what | ours | beside it [how many times ours is ahead] | goal |\n|---|---|---|---|---|\n");
        for part in &self.parts {
            for row in &part.rows {
                let cells = [
                    part.name.clone(),
                    row.what.clone(),
                    row.ours_text(),
                    row.beside_text(),
                    row.goals_text(),
                ];
                text.push_str(&format!("| {} |\n", cells.join(" | ")));
            }
        }
        text.push('\n');
        for part in &self.parts {
            let skipped =
                part.skipped.iter().map(|skipped| format!("skipped: {}: {}", skipped.what, skipped.why));
            for line in part.notes.iter().cloned().chain(skipped) {
                text.push_str(&format!("- `{}`: {line}\n", part.name));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(unit: Unit, ours: f64, peer: f64) -> Row {
        let subjects = vec![Subject::ours("us", &mut [ours]), Subject::peer("them", &mut [peer])];
        Row::new("thing", unit, subjects)
    }

    #[test]
    fn a_ratio_says_how_many_times_ours_is_ahead_whichever_way_is_better() {
        assert_eq!(row(Unit::PerSecond, 2000.0, 1000.0).beside_text(), "them 1.00 k/s [2.00]");
        assert_eq!(row(Unit::Milliseconds, 2.0, 1.0).beside_text(), "them 1.00 ms [0.50]");
    }

    #[test]
    fn goals_are_judged_at_their_limit() {
        let at = |row: Row| row.goals_text();
        assert_eq!(at(row(Unit::PerSecond, 40_000.0, 1.0).goal(40_000.0)), "≥ 40.0 k/s: held");
        assert_eq!(at(row(Unit::PerSecond, 39_999.0, 1.0).goal(40_000.0)), "≥ 40.0 k/s: missed");
        assert_eq!(at(row(Unit::Microseconds, 150.0, 100.0).against("them", 1.5)), "≤ 1.5 × them: held");
        assert_eq!(at(row(Unit::Microseconds, 151.0, 100.0).against("them", 1.5)), "≤ 1.5 × them: missed");
        assert_eq!(at(row(Unit::Microseconds, 1.0, 1.0).against("other", 1.0)), "≤ other: not measured");
    }

    #[test]
    fn numbers_have_three_digits_and_a_fitting_unit() {
        let shown = [(999.6, "1000 ns"), (1000.0, "1.00 µs"), (12_345.0, "12.3 µs"), (5e6, "5.00 ms")];
        for (value, text) in shown {
            assert_eq!(Unit::Nanoseconds.show(value), text);
        }
        assert_eq!(Unit::PerSecond.show(389_000.0), "389 k/s");
    }

    #[test]
    fn quantiles_are_samples() {
        let subject = Subject::ours("x", &mut [3.0, 1.0, 2.0, 5.0, 4.0]);
        assert_eq!((subject.p10, subject.median, subject.p90, subject.samples), (1.0, 3.0, 5.0, 5));
        assert!(Subject::ours("x", &mut []).median.is_nan());
    }

    #[test]
    fn the_table_has_a_line_for_each_row_and_names_what_was_left_out() {
        let mut part = Part::new("log");
        part.rows.push(row(Unit::PerSecond, 2.0, 1.0));
        part.skip("crun", "not installed");
        let report =
            Report { machine: "2 cores".to_owned(), quick: true, load: [0.5, 1.0], parts: vec![part] };
        let text = report.markdown();
        assert!(text.contains("| log | thing | 2.00 /s (us) | them 1.00 /s [2.00] |  |\n"), "{text}");
        assert!(text.ends_with("- `log`: skipped: crun: not installed\n"), "{text}");
    }
}
