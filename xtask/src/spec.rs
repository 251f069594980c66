//! The rows of `docs/spec/*.md` and the marks in the tests that cover them.

use std::collections::BTreeMap;

use crate::source;

/// A test that covers more than this proves none of it well.
pub(crate) const ROWS_PER_MARK_MAX: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Seed,
    Upstream,
    Declared,
}

impl Source {
    pub(crate) const ALL: [Self; 3] = [Self::Seed, Self::Upstream, Self::Declared];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::Upstream => "upstream",
            Self::Declared => "declared",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) source: Source,
}

/// Every table row that begins with an id. A row whose source is none of the three words is an error.
pub(crate) fn rows(text: &str) -> Result<Vec<Row>, String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let cells = cells(line);
        let (Some(id), Some(source)) = (cells.first(), cells.last()) else { continue };
        if !is_id(id) {
            continue;
        }
        let word: String = source.chars().take_while(|c| c.is_ascii_alphabetic()).collect();
        let Some(source) = Source::ALL.into_iter().find(|s| s.name() == word) else {
            return Err(format!(
                "line {}: {id} has source `{source}`, not seed, upstream or declared",
                number + 1
            ));
        };
        found.push(Row { id: id.clone(), source });
    }
    Ok(found)
}

/// The cells of `| a | b |`; `\|` stands inside a cell.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim();
    let Some(inner) = line.strip_prefix('|').and_then(|l| l.strip_suffix('|')) else { return Vec::new() };
    let joined = inner.replace("\\|", "\u{0}");
    joined.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

/// `POL-03`: capitals and digits, a hyphen, a number.
pub(crate) fn is_id(text: &str) -> bool {
    let Some((prefix, number)) = text.split_once('-') else { return false };
    prefix.len() >= 2
        && prefix.starts_with(|c: char| c.is_ascii_uppercase())
        && prefix.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        && !number.is_empty()
        && number.chars().all(|c| c.is_ascii_digit())
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) ids: Vec<String>,
    /// The test that bears it.
    pub(crate) test: String,
    /// From 1.
    pub(crate) line: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Marks {
    pub(crate) marks: Vec<Mark>,
    pub(crate) problems: Vec<String>,
}

/// All marks of one Rust file: `/// covers: POL-03, POL-04` above a test, `covers: "POL-11"` in a table case,
/// `// covers: POL-11` beside a case inside a test.
pub(crate) fn marks(text: &str) -> Marks {
    let code = source::code_only(text);
    let functions = source::functions(&code);
    let code_lines: Vec<&str> = code.lines().collect();
    let mut result = Marks::default();
    // Rows in doc comments by the line of the test's `fn`: a test must not get round the limit by several marks.
    let mut per_test: BTreeMap<usize, usize> = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let Some(found) = mark_in(line, code_lines.get(index).copied().unwrap_or_default()) else { continue };
        let number = index + 1;
        let ids: Vec<String> =
            found.list.split(',').map(|id| id.trim().trim_end_matches('.').to_owned()).collect();
        if let Some(bad) = ids.iter().find(|id| !is_id(id)) {
            result.problems.push(format!("line {number}: `{bad}` is no row id"));
            continue;
        }
        let inside = functions.iter().rfind(|f| f.line <= number && number < f.line + f.lines);
        let (test, rows) = match (found.doc, inside) {
            (false, Some(function)) => (Some(function.name.clone()), ids.len()),
            // A table outside of any function belongs to the file.
            (false, None) if found.literal => (Some("table".to_owned()), ids.len()),
            _ => match test_below(&code_lines, number) {
                Some((name, line)) => {
                    let rows = per_test.entry(line).or_default();
                    *rows += ids.len();
                    (Some(name), *rows)
                }
                None => (None, ids.len()),
            },
        };
        if rows > ROWS_PER_MARK_MAX {
            result
                .problems
                .push(format!("line {number}: {rows} rows on one test or case, at most {ROWS_PER_MARK_MAX}"));
        }
        match test {
            Some(test) => result.marks.push(Mark { ids, test, line: number }),
            None => result.problems.push(format!("line {number}: a `covers:` that stands above no test")),
        }
    }
    result
}

struct Found<'a> {
    list: &'a str,
    doc: bool,
    literal: bool,
}

const WORD: &str = "covers:";

fn mark_in<'a>(line: &'a str, code: &str) -> Option<Found<'a>> {
    let trimmed = line.trim_start();
    for (prefix, doc) in [("///", true), ("//", false)] {
        if let Some(comment) = trimmed.strip_prefix(prefix) {
            return comment.trim_start().strip_prefix(WORD).map(|list| Found {
                list: list.trim(),
                doc,
                literal: false,
            });
        }
    }
    // In code the word is a field, and its value a literal that `code_only` blanked.
    if let Some(list) = code.find(WORD).and_then(|at| line.get(at + WORD.len()..)) {
        let literal = list.trim_start().strip_prefix('"')?;
        return Some(Found { list: literal.split('"').next()?, doc: false, literal: true });
    }
    let comment = line.get(code.trim_end().len()..)?.trim_start().strip_prefix("//")?;
    comment.trim_start().strip_prefix(WORD).map(|list| Found {
        list: list.trim(),
        doc: false,
        literal: false,
    })
}

/// Name and line of the test function that the lines after `line` declare: blank lines and attributes, then `fn`.
/// Lines count from 1.
fn test_below(code_lines: &[&str], line: usize) -> Option<(String, usize)> {
    let mut is_test = false;
    // An attribute can span lines, hence no look at its end: only items end the search.
    for (index, code) in code_lines.iter().enumerate().skip(line) {
        let code = code.trim();
        if code.starts_with("#[") && source::has_word(code, "test") {
            is_test = true;
        }
        if let Some(function) = code.split("fn ").nth(1).filter(|_| source::has_word(code, "fn")) {
            let name: String = function.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            return is_test.then_some((name, index + 1));
        }
        if code.ends_with(';') || code.ends_with('}') {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_with_their_source() {
        let text = "# Title\n| ID | what | source |\n|---|---|---|\n| AX-01 | a \\| b | seed 003 §6.1 |\n\
            | SVC-2 | x | seed (obligation), upstream: y |\n| OBS-08 | x | upstream: EM§4 |\n| 1 | clash | z |\n\
            | K8-3 | x | declared |\n| Sentence | AX-01 |\n";
        let rows = rows(text).unwrap();
        let found: Vec<(&str, Source)> = rows.iter().map(|r| (r.id.as_str(), r.source)).collect();
        assert_eq!(
            found,
            [
                ("AX-01", Source::Seed),
                ("SVC-2", Source::Seed),
                ("OBS-08", Source::Upstream),
                ("K8-3", Source::Declared)
            ]
        );
    }

    #[test]
    fn a_row_without_a_known_source_is_refused() {
        let error = rows("| AX-01 | a | guess |\n").unwrap_err();
        assert!(error.contains("AX-01") && error.contains("guess"), "{error}");
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &[&str])]) {
        let found = marks(text);
        assert_eq!(found.problems, Vec::<String>::new());
        let found: Vec<(&str, Vec<&str>)> = found
            .marks
            .iter()
            .map(|m| (m.test.as_str(), m.ids.iter().map(String::as_str).collect()))
            .collect();
        let expected: Vec<(&str, Vec<&str>)> = expected.iter().map(|(t, ids)| (*t, ids.to_vec())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn doc_comments_belong_to_the_test_below() {
        check(
            "/// covers: POL-03, POL-04\n/// More.\n#[test]\nfn denies() {}",
            &[("denies", &["POL-03", "POL-04"])],
        );
        check("// covers: POL-03\n#[tokio::test]\nasync fn waits() {}", &[("waits", &["POL-03"])]);
        check("/// covers: POL-03.\n#[test]\n#[cfg(all(\n  unix,\n))]\nfn a() {}", &[("a", &["POL-03"])]);
    }

    #[test]
    fn table_cases_belong_to_their_function() {
        let text = "#[test]\nfn table() {\n  check(Case { covers: \"POL-11\", x: 1 });\n  f(); // covers: POL-12\n  // covers: POL-13\n  g();\n}";
        check(text, &[("table", &["POL-11"]), ("table", &["POL-12"]), ("table", &["POL-13"])]);
        check(
            "const T: &[C] = &[\n C { covers: \"POL-11, POL-12\" },\n];",
            &[("table", &["POL-11", "POL-12"])],
        );
        check("let text = \"covers: x\"; // no mark\nstruct C { covers: &'static str }", &[]);
    }

    #[test]
    fn at_most_five_rows_only_real_ids_only_on_tests() {
        let five = "/// covers: A1-1, A1-2, A1-3, A1-4, A1-5";
        let on_test = "\n#[test]\nfn a() {}";
        assert!(marks(&format!("{five}{on_test}")).problems.is_empty());
        assert_eq!(marks(&format!("{five}, A1-6{on_test}")).problems.len(), 1);
        assert_eq!(marks(&format!("{five}\n/// covers: A1-6{on_test}")).problems.len(), 1);
        assert!(marks(&format!("{five}{on_test}\n{five}\n#[test]\nfn b() {{}}")).problems.is_empty());
        assert_eq!(marks(&format!("/// covers: everything{on_test}")).problems.len(), 1);
        assert_eq!(marks("/// covers: POL-03\nfn no_test() {}").problems.len(), 1);
        assert_eq!(marks("/// covers: POL-03\nstruct S;\n#[test]\nfn a() {}").problems.len(), 1);
    }
}
