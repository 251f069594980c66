//! Every row of the specification with the tests that cover it.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::{spec, workspace};

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    json: bool,
    missing: bool,
}

impl Options {
    pub(crate) fn parse(words: &[&str]) -> Option<Self> {
        let mut options = Self::default();
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            match word {
                "--missing" => options.missing = true,
                "-ojson" | "--output=json" => options.json = true,
                "-o" | "--output" if words.next() == Some("json") => options.json = true,
                _ => return None,
            }
        }
        Some(options)
    }
}

/// One row as `-o json` prints it.
#[derive(Debug, Serialize)]
struct Line {
    id: String,
    /// Name of the file in `docs/spec`.
    file: String,
    /// `seed`, `upstream` or `declared`.
    source: &'static str,
    /// `path::test` of each test that covers it.
    tests: Vec<String>,
}

struct Report {
    lines: Vec<Line>,
    problems: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let report = collect()?;
    let shown: Vec<&Line> = report.lines.iter().filter(|l| !options.missing || l.tests.is_empty()).collect();
    let text = if options.json {
        format!("{}\n", serde_json::to_string_pretty(&shown)?)
    } else {
        let row = |line: &&Line| {
            let tests = if line.tests.is_empty() { "-".to_owned() } else { line.tests.join(" ") };
            format!("{:8} {:24} {:9} {tests}\n", line.id, line.file, line.source)
        };
        shown.iter().map(row).chain([summary(&report.lines)]).collect()
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader (`| head`) has seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    fail_on(&report.problems)
}

/// The check of `ci`: the summary only, and whether the marks are right.
pub(crate) fn check() -> Result<()> {
    let report = collect()?;
    print!("{}", summary(&report.lines));
    fail_on(&report.problems)
}

fn fail_on(problems: &[String]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    for problem in problems {
        eprintln!("{problem}");
    }
    bail!("{} marks or rows are wrong", problems.len())
}

fn collect() -> Result<Report> {
    let root = workspace::root()?;
    let mut lines: Vec<Line> = Vec::new();
    let mut problems = Vec::new();
    let mut by_id: BTreeMap<String, usize> = BTreeMap::new();
    for path in workspace::files(&root.join("docs/spec"), ".md")? {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        match spec::rows(&workspace::read(&path)?) {
            Err(problem) => problems.push(format!("docs/spec/{name}: {problem}")),
            Ok(rows) => {
                for row in rows {
                    if by_id.insert(row.id.clone(), lines.len()).is_some() {
                        problems.push(format!("docs/spec/{name}: {} stands twice", row.id));
                    }
                    lines.push(Line {
                        id: row.id,
                        file: name.clone(),
                        source: row.source.name(),
                        tests: Vec::new(),
                    });
                }
            }
        }
    }
    for path in workspace::files(&root, ".rs")? {
        let name = workspace::relative(&root, &path);
        // This crate's own tests hold marks as data.
        if name.starts_with("xtask/") {
            continue;
        }
        let found = spec::marks(&workspace::read(&path)?);
        problems.extend(found.problems.iter().map(|p| format!("{name}: {p}")));
        for mark in found.marks {
            for id in &mark.ids {
                match by_id.get(id).and_then(|at| lines.get_mut(*at)) {
                    Some(line) => line.tests.push(format!("{name}::{}", mark.test)),
                    None => problems.push(format!("{name}: line {}: {id} is no row of docs/spec", mark.line)),
                }
            }
        }
    }
    for line in &mut lines {
        line.tests.sort();
        line.tests.dedup();
    }
    Ok(Report { lines, problems })
}

fn summary(lines: &[Line]) -> String {
    let mut files: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        files.entry(&line.file).or_default().push(line);
    }
    let mut text =
        format!("{:24} {:>13} {:>13} {:>13}\n", "covered of all rows", "seed", "upstream", "declared");
    for (file, lines) in &files {
        text.push_str(&counts(file, lines));
    }
    text.push_str(&counts("all", &lines.iter().collect::<Vec<_>>()));
    text
}

fn counts(name: &str, lines: &[&Line]) -> String {
    let count = |source: spec::Source| {
        let of: Vec<_> = lines.iter().filter(|l| l.source == source.name()).collect();
        format!("{} of {}", of.iter().filter(|l| !l.tests.is_empty()).count(), of.len())
    };
    let [seed, upstream, declared] = spec::Source::ALL.map(count);
    format!("{name:24} {seed:>13} {upstream:>13} {declared:>13}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_unknown_ones_refused() {
        assert_eq!(Options::parse(&[]), Some(Options::default()));
        assert_eq!(Options::parse(&["-o", "json", "--missing"]), Some(Options { json: true, missing: true }));
        assert_eq!(Options::parse(&["-o", "xml"]), None);
        assert_eq!(Options::parse(&["-o"]), None);
        assert_eq!(Options::parse(&["--mising"]), None);
    }
}
