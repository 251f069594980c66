//! A static program for images and roots made by tests: says what it sees, as one line of JSON.
//!
//!     shown [read=PATH | write=PATH | wait | stay]...
//!
//! Each word is done in order; `read` and `write` tell the text or the error, `wait` reads standard input to its end. With
//! `stay` it does not end.

#![allow(clippy::print_stdout, reason = "a program of tests")]

use std::{collections::BTreeMap, fs, io::Read};

use serde_json::{Value, json};

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let mut done = Vec::new();
    for word in words.iter().skip(1) {
        let said = match word.split_once('=') {
            Some(("read", path)) => fs::read_to_string(path).map_err(|error| error.kind()),
            Some(("write", path)) => {
                fs::write(path, "written").map(|()| String::new()).map_err(|error| error.kind())
            }
            _ if word == "wait" => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map(|_| text).map_err(|error| error.kind())
            }
            _ => Ok(word.clone()),
        };
        done.push(match said {
            Ok(text) => Value::from(text),
            Err(kind) => json!({ "error": format!("{kind:?}") }),
        });
    }
    let names = fs::read_dir("/").into_iter().flatten().flatten();
    let mut top: Vec<String> = names.map(|name| name.file_name().to_string_lossy().into_owned()).collect();
    top.sort();
    let cwd = std::env::current_dir().unwrap_or_default();
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let env: BTreeMap<String, String> = std::env::vars().collect();
    println!(
        "{}",
        json!({ "args": words, "done": done, "top": top, "cwd": cwd, "uid": uid, "gid": gid, "env": env })
    );
    while words.iter().any(|word| word == "stay") {
        std::thread::park();
    }
}
