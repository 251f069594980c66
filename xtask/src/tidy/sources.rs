//! Rules on single Rust files.

use crate::source::{code_only, lines_with_word, without_tests};

const MAY_BE_UNSAFE: [&str; 2] = ["crates/sandbox/", "crates/durable/"];

/// Where every message code is defined (SUP-106), and how one is written; flags of the kernel are no codes.
const MESSAGE_CODES: &str = "crates/contracts/src/message_codes.rs";
const MESSAGE_CODE: [&str; 2] = ["const MSG_", ": u16"];

/// What a core must not touch: it decides from its arguments alone.
const NOT_IN_CORE: [&str; 17] = [
    "std::fs",
    "std::net",
    "std::os",
    "std::thread",
    "std::process",
    "std::env",
    "SystemTime",
    "Instant::now",
    "tokio",
    "rustix",
    "libc",
    "getrandom",
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
    "dbg!",
];
/// The same modules when they come through `use std::{…}`.
const NOT_FROM_STD: [&str; 6] = ["fs", "net", "os", "thread", "process", "env"];

/// Unfinished work. Split, so that this file does not find itself.
const UNFINISHED: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];

pub(super) fn check(name: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let mut problems = Vec::new();
    let mut complain = |line: usize, what: String| problems.push(format!("{name}:{line}: {what}"));

    if name.ends_with("/lib.rs") && !text.starts_with("//!") {
        complain(
            1,
            "does not open with `//!` (promise, absences, callees, what happens when it dies)".to_owned(),
        );
    }
    if !MAY_BE_UNSAFE.iter().any(|folder| name.starts_with(folder)) {
        for line in lines_with_word(&code, "unsafe") {
            complain(line, "`unsafe` stands in crates/sandbox and crates/durable only".to_owned());
        }
    }
    for word in UNFINISHED {
        for line in lines_with_word(text, word) {
            complain(line, format!("`{word}`: finish it, or leave it out and say so in docs"));
        }
    }
    for line in lines_with_word(&code, "todo!") {
        complain(line, "`todo!`: finish it, or leave it out".to_owned());
    }
    for (number, line) in code.lines().enumerate() {
        // What measures is run by hand; what checks is never left out.
        let measures = text.lines().nth(number).is_some_and(|line| line.contains("measure"));
        if line.contains("#[ignore") && !measures {
            complain(
                number + 1,
                "an ignored test; let it report `skipped: why` where it cannot run".to_owned(),
            );
        }
    }
    for (number, line) in code.lines().enumerate() {
        if name != MESSAGE_CODES && MESSAGE_CODE.iter().all(|part| line.contains(part)) {
            complain(number + 1, format!("a message code is defined in {MESSAGE_CODES} and nowhere else"));
        }
    }
    if is_core(name) {
        for (line, word) in impure(&without_tests(&code)) {
            complain(line, format!("`{word}` in a core; a core has no file, socket, clock, thread or dice"));
        }
    }
    problems
}

/// `…/src/core/…` or `…/src/core.rs`, except files that hold tests.
fn is_core(name: &str) -> bool {
    let is_test = name.ends_with("/tests.rs") || name.ends_with("_tests.rs") || name.contains("/core/tests/");
    (name.contains("/src/core/") || name.ends_with("/src/core.rs")) && !is_test
}

fn impure(code: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for word in NOT_IN_CORE {
        found.extend(lines_with_word(code, word).map(|line| (line, word.to_owned())));
    }
    for (start, opening) in code.match_indices("std::{") {
        let line = 1 + code.get(..start).unwrap_or_default().matches('\n').count();
        for module in first_names(code.get(start + opening.len()..).unwrap_or_default()) {
            if NOT_FROM_STD.contains(&module.as_str()) {
                found.push((line, format!("std::{module}")));
            }
        }
    }
    found.sort();
    found
}

/// The first name of each part of a brace list: `fs`, `io` of `fs::{self, File}, io}`.
fn first_names(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut name, mut open) = (0_usize, Vec::new(), String::new(), true);
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(std::mem::take(&mut name));
                open = true;
            }
            ':' => open = false,
            c if depth == 0 && open && !c.is_whitespace() => name.push(c),
            _ => {}
        }
    }
    names.push(name);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn finds(name: &str, text: &str, lines: &[usize]) {
        let found = check(name, text);
        let expected: Vec<String> = lines.iter().map(|line| format!("{name}:{line}:")).collect();
        assert!(
            found.len() == lines.len() && found.iter().zip(&expected).all(|(f, e)| f.starts_with(e)),
            "expected {expected:?}, found {found:#?}"
        );
    }

    #[test]
    fn libraries_say_what_they_are() {
        finds("crates/x/src/lib.rs", "//! Promise.\n", &[]);
        finds("crates/x/src/lib.rs", "// Promise.\n", &[1]);
        finds("crates/x/src/other.rs", "// Promise.\n", &[]);
    }

    #[test]
    fn unsafe_has_its_places() {
        finds("crates/kit/src/a.rs", "// unsafe\nunsafe { f() }\n", &[2]);
        finds("crates/sandbox/src/a.rs", "unsafe { f() }", &[]);
        finds("crates/kit/src/a.rs", "#![deny(unsafe_code)]\nlet s = \"unsafe\";", &[]);
    }

    #[test]
    fn unfinished_work_is_found() {
        let marks = format!("// {}\n// {} later\n", UNFINISHED[0], UNFINISHED[1]);
        finds("a/src/b.rs", &marks, &[1, 2]);
        finds("a/src/b.rs", "fn a() { todo!() }\n// todo! in prose\n", &[1]);
        finds("a/src/b.rs", "#[test]\n#[ignore = \"slow\"]\nfn a() {}", &[2]);
        finds("a/src/b.rs", "#[test]\n#[ignore = \"measures\"]\nfn a() {}", &[]);
    }

    /// covers: SUP-106
    #[test]
    fn message_codes_have_one_definition() {
        let code = "use contracts::message_codes::MSG_READY;\npub const MSG_READY: u16 = 0x1000;\n";
        finds("crates/sdk/src/messages.rs", code, &[2]);
        let others = "// const MSG_NET_REQUEST: u16\nconst MSG_PEEK: i32 = 2;\n";
        finds("services/4-network/network/src/core/a.rs", others, &[]);
        finds(MESSAGE_CODES, code, &[]);
    }

    const CORE: &str = "services/1-authority/policy/src/core/eval.rs";

    #[test]
    fn cores_do_no_io() {
        for line in [
            "use std::fs::File;",
            "use std::{collections::BTreeMap, fs};",
            "use std::{io, net::{self, TcpStream}};",
            "let now = Instant::now();",
            "use std::time::SystemTime;",
            "tokio::spawn(f());",
            "println!(\"x\");",
            "std::thread::sleep(d);",
        ] {
            finds(CORE, line, &[1]);
            finds("services/1-authority/policy/src/shell.rs", line, &[]);
        }
        finds("services/1-authority/policy/src/core.rs", "use libc::c_int;", &[1]);
    }

    #[test]
    fn cores_may_name_types_and_test_as_they_like() {
        finds(
            CORE,
            "use std::{collections::{BTreeMap, os}, time::Instant};\nfn f(now: Instant) {} // println!",
            &[],
        );
        finds(CORE, "#[cfg(test)]\nmod tests {\n use std::fs;\n}\n", &[]);
        finds("services/x/src/core/tests.rs", "use std::fs;", &[]);
    }
}
