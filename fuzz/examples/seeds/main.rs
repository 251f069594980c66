//! Writes `fuzz/corpus/`: inputs that the decoders accept, made by the real encoders. A test reads them back, so a
//! change of a format asks for a new run: `cargo run -p fuzz --example seeds`.
//!
//! Files that are there and are not made here stay: an input worth keeping is put beside them.

#![expect(clippy::unwrap_used, reason = "a seed that cannot be made ends the program")]

mod jobs;
mod messages;
mod payloads;
mod proofs;
mod ssh_messages;
mod svids;
mod texts;

use std::{fs, path::Path};

/// Name and bytes.
type Seeds = Vec<(String, Vec<u8>)>;

fn main() {
    for (target, seeds) in [
        ("manifest", texts::manifests()),
        ("rules", texts::rules()),
        ("cedar", texts::cedar()),
        ("import", texts::imports()),
        ("key_path", texts::key_paths()),
        ("context", texts::contexts()),
        ("token", texts::tokens()),
        ("entry", payloads::all()),
        ("log_segment", payloads::segments()),
        ("frame", messages::all()),
        ("evidence", proofs::all()),
        ("ssh", ssh_messages::all()),
        ("svid", svids::all()),
        ("job", jobs::all()),
        ("url", texts::urls()),
        ("proxied", texts::proxied()),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in &seeds {
            fs::write(folder.join(name), bytes).unwrap();
        }
        println!("{target}: {}", seeds.len());
    }
}

fn named(name: &str, bytes: impl Into<Vec<u8>>) -> (String, Vec<u8>) {
    (name.to_owned(), bytes.into())
}

/// A seed of a target whose first byte chooses.
fn chosen(name: &str, choice: u8, bytes: &[u8]) -> (String, Vec<u8>) {
    (name.to_owned(), [&[choice], bytes].concat())
}
