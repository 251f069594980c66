//! The operator's token between two commands: in the runtime folder, readable by its owner alone.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf, time::UNIX_EPOCH};

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
    let mut parts = text.splitn(3, '\n');
    let mut time = || parts.next()?.parse::<u64>().ok();
    let usable = time()?.saturating_sub(MARGIN_NS)..time()?.saturating_sub(MARGIN_NS);
    let token = parts.next()?;
    usable.contains(&now_ns()?).then(|| token.to_owned())
}

fn now_ns() -> Option<u64> {
    u64::try_from(kit::wall_time().duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// Keeps a token for the next command. Failing to is no error: the next command asks again. So it does where the wall
/// clock was set and the log's time went on as before: it could not say when the token ends.
pub fn keep(layout: &Layout, token: &Token) {
    let path = file(layout);
    if now_ns().is_none_or(|now| now.abs_diff(token.issued_at_ns) >= MARGIN_NS) {
        let _ = fs::remove_file(path);
        return;
    }
    let fresh = path.with_extension("new");
    let written =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh).and_then(
            |mut file| write!(file, "{}\n{}\n{}", token.issued_at_ns, token.expires_at_ns, token.token),
        );
    if written.is_ok() {
        let _ = fs::rename(fresh, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_NS: u64 = 3_600_000_000_000;

    /// What the next command finds of a token that was issued then, by the log's time, for an hour.
    fn found(issued_at_ns: u64) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path()).unwrap();
        fs::create_dir_all(&layout.run).unwrap();
        let expires_at_ns = issued_at_ns + HOUR_NS;
        let token = "v4.public.x".to_owned();
        keep(&layout, &Token { token, issued_at_ns, expires_at_ns, ..Token::default() });
        kept(&layout)
    }

    /// The log goes on as before when the clock is set: it may be a year behind this machine, or ahead.
    #[test]
    fn a_token_is_kept_only_where_the_clock_can_say_when_it_ends() {
        let now = now_ns().unwrap();
        assert_eq!(found(now).as_deref(), Some("v4.public.x"));
        for issued in
            [now - 365 * 24 * HOUR_NS, now - 2 * MARGIN_NS, now + 2 * MARGIN_NS, now + 8760 * HOUR_NS]
        {
            assert_eq!(found(issued), None, "{issued}");
        }
    }

    #[test]
    fn a_token_of_another_day_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path()).unwrap();
        fs::create_dir_all(&layout.run).unwrap();
        let now = now_ns().unwrap();
        let day = 24 * HOUR_NS;
        for (issued, expires, usable) in [
            (now - day, now + day, true),
            (now - day, now + MARGIN_NS / 2, false),
            (now - 2 * day, now - day, false),
            (now + day, now + 2 * day, false),
        ] {
            fs::write(file(&layout), format!("{issued}\n{expires}\nx")).unwrap();
            assert_eq!(kept(&layout).is_some(), usable, "{issued} {expires}");
        }
        fs::write(file(&layout), format!("{}\nx", now + day)).unwrap();
        assert_eq!(kept(&layout), None, "what an earlier build kept");
    }
}
