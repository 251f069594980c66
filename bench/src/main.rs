//! Side by side measurements: `cargo run --release -p bench --features peers -- log`.

mod log;
mod policy;
#[cfg(feature = "peers")]
mod policy_peers;

use std::{path::PathBuf, process::ExitCode};

const USAGE: &str = "\
usage: bench <what> [--dir DIR] [--quick]
  policy one decision in process: our engine, and with --features peers Cedar, Regorus and Casbin
  log    durable entries per second: our store, bare loops, and with --features peers redb and SQLite
DIR is a new folder on the disk to be measured; it is removed afterwards. Without it one is made under the current folder.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if words.as_slice() == ["policy"] {
        return exit(policy::run().map_err(Into::into));
    }
    let (folder, quick) = match words.as_slice() {
        ["log"] => (None, false),
        ["log", "--quick"] => (None, true),
        ["log", "--dir", folder] => (Some(folder), false),
        ["log", "--dir", folder, "--quick"] => (Some(folder), true),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let default = format!("bench-{}", std::process::id());
    let folder = PathBuf::from(folder.copied().unwrap_or(&default));
    exit(in_folder(&folder, if quick { log::Plan::QUICK } else { log::Plan::FULL }))
}

fn exit(result: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn in_folder(folder: &std::path::Path, plan: log::Plan) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir(folder)?;
    let rows = log::run(folder, plan);
    std::fs::remove_dir_all(folder)?;
    let rows = rows?;
    println!("| in flight | subject | entries/s | of bare with hashes |\n|--:|---|--:|--:|");
    for row in &rows {
        println!(
            "| {} | {} | {:.0} | {:.2} |",
            row.in_flight, row.subject, row.entries_per_second, row.ratio
        );
    }
    let json: Vec<serde_json::Value> = rows.iter().map(json).collect();
    println!("{}", serde_json::json!({ "bench": "log", "rows": json }));
    Ok(())
}

fn json(row: &log::Row) -> serde_json::Value {
    serde_json::json!({
        "subject": row.subject,
        "in_flight": row.in_flight,
        "entries_per_second": row.entries_per_second,
        "ratio": row.ratio,
    })
}
