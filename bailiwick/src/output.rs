//! What people and programs read: plain tables, or JSON. Colour only on a terminal that wants it.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use serde::Serialize;

use crate::args::Output;

/// Prints rows under a head line, columns as wide as their widest cell.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{cell:width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    };
    let mut text = bold(line(&mut head.iter().copied()).trim_end());
    text.push('\n');
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Either the value as JSON, or the text made from it.
pub fn show<T: Serialize>(output: Output, value: &T, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let rendered = match output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(value)?),
        Output::Text => text(),
    };
    match io::stdout().write_all(rendered.as_bytes()) {
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn paint(code: &str, text: &str) -> String {
    if coloured() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

pub fn bold(text: &str) -> String {
    paint("1", text)
}

pub fn good(text: &str) -> String {
    paint("32", text)
}

pub fn bad(text: &str) -> String {
    paint("31", text)
}

/// `3.2 MiB` and the like.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"B");
    while value >= 1024.0 {
        let Some(next) = units.next() else { break };
        value /= 1024.0;
        unit = next;
    }
    if *unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// `12 ms`, `3.4 s`, `2 min`, `5 h`.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1_000.0),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

/// Nobody is left without a word for longer than this.
pub const SLOW: Duration = Duration::from_secs(1);
/// And for so long after the first.
const STILL_EVERY: Duration = Duration::from_secs(10);

/// Does what may take a while; says on standard error what it is, once it does.
pub async fn said_if_slow<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let (mut wait, mut still) = (SLOW, "");
    loop {
        match tokio::time::timeout(wait, work.as_mut()).await {
            Ok(done) => return done,
            Err(_) => eprintln!("bailiwick: {still}{what} …"),
        }
        (wait, still) = (STILL_EVERY, "still ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(
            (size(0), size(1023), size(1024), size(3 << 20)),
            ("0 B".into(), "1023 B".into(), "1.0 KiB".into(), "3.0 MiB".into())
        );
        assert_eq!(
            (duration(7), duration(1_500), duration(120_000)),
            ("7 ms".into(), "1.5 s".into(), "2 min".into())
        );
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = table(&["A", "B"], &[vec!["long".into(), "x".into()], vec!["y".into(), "z".into()]]);
        let plain: Vec<&str> = text.lines().collect();
        assert_eq!(plain.get(1..), Some(&["long  x", "y     z"][..]));
    }
}
