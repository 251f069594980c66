//! Waiting for what nobody tells of: look, pause, look again.

use std::time::{Duration, Instant};

/// Looks every `pause` until there is something, at most for `limit`; at least once, and once more at the end.
pub fn wait_for<T>(limit: Duration, pause: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let since = Instant::now();
    loop {
        let is_last = since.elapsed() >= limit;
        if let Some(found) = look() {
            return Some(found);
        }
        if is_last {
            return None;
        }
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_time_is_found_and_what_does_not_is_none() {
        let pause = Duration::from_millis(1);
        let mut looks = 0;
        let third = wait_for(Duration::from_secs(60), pause, || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(third, Some(3));
        let mut looks = 0;
        let never: Option<()> = wait_for(Duration::ZERO, pause, || {
            looks += 1;
            None
        });
        assert_eq!((never, looks), (None, 1));
    }
}
