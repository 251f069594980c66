//! The operator's token between two commands: in the runtime folder, readable by its owner alone.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use base::layout::Layout;
use contracts::identity::v1::Token;

/// A token is not used in its last minute, so that it does not expire on the way.
const MARGIN_NS: u64 = 60_000_000_000;

fn file(layout: &Layout) -> PathBuf {
    layout.run.join("operator.token")
}

/// A token that was kept and is good for a while yet. The wall clock is only a hint: the node decides.
pub fn kept(layout: &Layout) -> Option<String> {
    let text = fs::read_to_string(file(layout)).ok()?;
    let (expires_at_ns, token) = text.split_once('\n')?;
    let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_nanos();
    let usable_until = expires_at_ns.parse::<u64>().ok()?.checked_sub(MARGIN_NS)?;
    (now_ns < u128::from(usable_until)).then(|| token.to_owned())
}

/// Keeps a token for the next command. Failing to is no error: the next command asks again.
pub fn keep(layout: &Layout, token: &Token) {
    let path = file(layout);
    let fresh = path.with_extension("new");
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| write!(file, "{}\n{}", token.expires_at_ns, token.token));
    if written.is_ok() {
        let _ = fs::rename(fresh, path);
    }
}
