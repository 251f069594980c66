//! Any bytes as a job's manifest or as a receipt.
//!
//! Strategy: the first byte chooses. 0: a manifest. 1: a receipt.
//! Invariants: a refusal is one line, a manifest's at a place inside the text; what is accepted is within the limits that
//! the sandbox builds on, prints, and reads back as the same; a receipt has one encoding, and one that holds holds no
//! longer when an output is changed.

use job::{
    JobManifest, Receipt,
    limits::{INPUTS_MAX, MANIFEST_BYTES_MAX, OUTPUTS_MAX, RECEIPT_BYTES_MAX, THREADS_MAX},
};

pub fn run(input: &[u8]) -> bool {
    match input.split_first() {
        Some((0, bytes)) => std::str::from_utf8(bytes).is_ok_and(manifest),
        Some((1, bytes)) => receipt(bytes),
        _ => false,
    }
}

fn manifest(text: &str) -> bool {
    let manifest = match JobManifest::parse(text) {
        Ok(manifest) => manifest,
        Err(error) => {
            super::check::one_line(&error);
            if text.len() <= MANIFEST_BYTES_MAX {
                super::check::place(text, error.line, error.column);
            }
            return false;
        }
    };
    assert!(manifest.inputs.len() <= INPUTS_MAX && (1..=OUTPUTS_MAX).contains(&manifest.outputs.len()));
    assert!((1..=THREADS_MAX).contains(&manifest.threads_max()));
    assert!(manifest.outputs.iter().all(|output| output.path.starts_with("/out/")));
    let printed = toml::to_string(&manifest).unwrap_or_default();
    if printed.len() <= MANIFEST_BYTES_MAX {
        assert_eq!(JobManifest::parse(&printed), Ok(manifest), "printed as\n{printed}");
    }
    true
}

fn receipt(bytes: &[u8]) -> bool {
    let mut receipt = match Receipt::from_bytes(bytes) {
        Ok(receipt) => receipt,
        Err(error) => {
            super::check::one_line(&error);
            return false;
        }
    };
    assert!(bytes.len() <= RECEIPT_BYTES_MAX && receipt.to_bytes() == bytes, "decoded from another encoding");
    match receipt.check() {
        Ok(()) => {
            receipt.body.outputs.clear();
            receipt.body.inputs.clear();
            receipt.body.environment.version.push('x');
            assert!(receipt.check().is_err(), "what was changed holds");
        }
        Err(error) => super::check::one_line(&error),
    }
    true
}
