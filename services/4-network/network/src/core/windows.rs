//! How many requests were made: in fixed windows, of each process and to each host (NET-56 to NET-58).

use std::{collections::HashMap, time::Duration};

use chain::payload::network::CallLimits;

use super::{
    CallError,
    limits::{WINDOWS_OF_HOSTS_MAX, WINDOWS_OF_PROCESSES_MAX},
};

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Duration,
    requests: u32,
}

/// All windows of one kind.
#[derive(Debug, Default)]
struct Kind(HashMap<String, Window>);

impl Kind {
    /// Those that were counted since the window began, and whether there is room for another name.
    fn look(&mut self, now: Duration, length: Duration, name: &str, most: usize) -> Option<u32> {
        let passed = |window: &Window| now.saturating_sub(window.began) >= length;
        match self.0.get(name) {
            Some(window) if passed(window) => {
                self.0.remove(name);
                Some(0)
            }
            Some(window) => Some(window.requests),
            None => {
                if self.0.len() >= most {
                    self.0.retain(|_, window| !passed(window));
                }
                (self.0.len() < most).then_some(0)
            }
        }
    }

    fn count(&mut self, now: Duration, name: &str) {
        let window = self.0.entry(name.to_owned()).or_insert(Window { began: now, requests: 0 });
        window.requests = window.requests.saturating_add(1);
    }
}

#[derive(Debug, Default)]
pub struct Windows {
    processes: Kind,
    hosts: Kind,
}

impl Windows {
    /// Counts one request, if neither limit is reached; otherwise none of the two (open point 13). A host of none is not
    /// asked: a name is looked up. `now` counts from any moment and does not go back.
    pub fn take(
        &mut self,
        now: Duration,
        limits: &CallLimits,
        process: &str,
        host: Option<&str>,
    ) -> Result<(), CallError> {
        let ms = |ms: u32| Duration::from_millis(u64::from(ms));
        let full = |text: String| Err(CallError::RateLimitExceeded(text));
        let own = self.processes.look(now, ms(limits.process_window_ms), process, WINDOWS_OF_PROCESSES_MAX);
        if own.is_none_or(|requests| requests >= limits.process_requests) {
            let (most, window) = (limits.process_requests, limits.process_window_ms);
            return full(format!("{process} has made {most} requests in {window} ms"));
        }
        if let Some(host) = host {
            let made = self.hosts.look(now, ms(limits.host_window_ms), host, WINDOWS_OF_HOSTS_MAX);
            if made.is_none_or(|requests| requests >= limits.host_requests) {
                let (most, window) = (limits.host_requests, limits.host_window_ms);
                return full(format!("{most} requests went to {host} in {window} ms"));
            }
            self.hosts.count(now, host);
        }
        self.processes.count(now, process);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::limits::CALL_LIMITS_DEFAULT;

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn taken(windows: &mut Windows, now: Duration, process: &str, host: &str) -> bool {
        windows.take(now, &CALL_LIMITS_DEFAULT, process, Some(host)).is_ok()
    }

    /// covers: NET-56, NET-58
    #[test]
    fn a_process_makes_a_hundred_requests_in_a_minute() {
        let mut windows = Windows::default();
        let start = 7_000;
        for number in 0..100 {
            assert!(taken(&mut windows, at(start + number), "web", &format!("h{number}.test")), "{number}");
        }
        let refused = windows.take(at(start + 59_999), &CALL_LIMITS_DEFAULT, "web", Some("other.test"));
        assert!(matches!(refused, Err(CallError::RateLimitExceeded(_))), "{refused:?}");
        assert!(taken(&mut windows, at(start + 59_999), "other", "other.test"), "each has its own");
        assert!(taken(&mut windows, at(start + 60_000), "web", "h.test"), "the window began with the first");
        for number in 1..100 {
            assert!(taken(&mut windows, at(start + 60_000), "web", &format!("h{number}.test")), "{number}");
        }
        assert!(!taken(&mut windows, at(start + 119_999), "web", "h.test"));
    }

    /// covers: NET-57, NET-58
    #[test]
    fn a_host_gets_ten_requests_in_a_second_from_all_together() {
        let mut windows = Windows::default();
        for number in 0..10 {
            assert!(taken(&mut windows, at(number), &format!("p{number}"), "a.test"));
        }
        assert!(!taken(&mut windows, at(999), "p11", "a.test"));
        assert!(taken(&mut windows, at(999), "p11", "b.test"));
        assert!(taken(&mut windows, at(1_000), "p11", "a.test"));
    }

    #[test]
    fn what_one_limit_refuses_is_charged_to_neither() {
        let mut windows = Windows::default();
        for _ in 0..10 {
            assert!(taken(&mut windows, at(0), "web", "a.test"));
        }
        for _ in 0..500 {
            assert!(!taken(&mut windows, at(1), "web", "a.test"));
        }
        for number in 0..90 {
            assert!(taken(&mut windows, at(1), "web", &format!("h{number}.test")), "{number}");
        }
        assert!(!taken(&mut windows, at(1), "web", "b.test"), "a hundred were made");
        let looked_up = windows.take(at(1), &CALL_LIMITS_DEFAULT, "web", None);
        assert!(looked_up.is_err(), "names count too");
    }

    #[test]
    fn there_is_an_end_to_names_and_it_refuses() {
        let mut windows = Windows::default();
        for number in 0..WINDOWS_OF_HOSTS_MAX {
            assert!(taken(&mut windows, at(0), &format!("p{}", number / 100), &format!("h{number}")));
        }
        assert!(!taken(&mut windows, at(0), "late", "late.test"));
        assert!(taken(&mut windows, at(0), "late", "h0"), "one that has its window");
        assert!(taken(&mut windows, at(1_000), "late", "late.test"), "those that have passed go");
        let mut windows = Windows::default();
        for number in 0..WINDOWS_OF_PROCESSES_MAX {
            assert!(windows.take(at(0), &CALL_LIMITS_DEFAULT, &format!("p{number}"), None).is_ok());
        }
        assert!(windows.take(at(0), &CALL_LIMITS_DEFAULT, "late", None).is_err());
    }
}
