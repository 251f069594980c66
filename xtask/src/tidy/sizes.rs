//! Sizes, printed and not judged: the file to split is the one that is still small.

use crate::source::{code_only, functions, without_tests};

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

#[derive(Default)]
pub(super) struct Sizes {
    files: Vec<(usize, String)>,
    functions: Vec<(usize, String)>,
}

impl Sizes {
    pub(super) fn add(&mut self, name: &str, text: &str) {
        let lines = text.lines().count();
        if lines > FILE_LINES {
            self.files.push((lines, name.to_owned()));
        }
        for function in functions(&without_tests(&code_only(text))) {
            if function.lines > FUNCTION_LINES {
                self.functions.push((function.lines, format!("{name}:{} {}", function.line, function.name)));
            }
        }
    }

    pub(super) fn print(mut self) {
        for (what, limit, found) in
            [("files", FILE_LINES, &mut self.files), ("functions", FUNCTION_LINES, &mut self.functions)]
        {
            found.sort_by(|a, b| b.cmp(a));
            println!("{} {what} over {limit} lines", found.len());
            for (lines, name) in found.iter() {
                println!("  {lines:5}  {name}");
            }
        }
    }
}
