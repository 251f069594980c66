//! Defences that were switched off on purpose, so that `bailiwick prove --break` can show that their absence is noticed.
//!
//! A node has none unless it was started with `--allow-break`, which only `prove` does; the supervisor passes the names
//! on, and `status` shows them.

use std::sync::OnceLock;

/// Comma-separated names, set by the supervisor.
pub const BREAK_VARIABLE: &str = "BAILIWICK_ALLOW_BREAK";

/// Whether this defence of this process is switched off.
#[must_use]
pub fn is_broken(part: &str) -> bool {
    static BROKEN: OnceLock<Vec<String>> = OnceLock::new();
    let broken = BROKEN.get_or_init(|| {
        let names = std::env::var(BREAK_VARIABLE).unwrap_or_default();
        names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    });
    broken.iter().any(|name| name == part)
}
