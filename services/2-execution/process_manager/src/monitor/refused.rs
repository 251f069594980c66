//! The list of refused calls of one program.

use chain::payload::process::{REFUSED_MAX, RefusedCall};

use crate::core::limits::TARGET_BYTES_MAX;

#[derive(Debug, Default)]
pub(crate) struct RefusedCalls(Vec<RefusedCall>);

impl RefusedCalls {
    /// Counts a refusal. When the list is full, others are counted in its last.
    pub(crate) fn add(&mut self, call: &str, target: &str, errno: i32) {
        let target = cut(target);
        let same = |one: &RefusedCall| one.call == call && one.target == target && one.errno == errno;
        let known = self.0.iter().position(same);
        let at = known.or_else(|| (self.0.len() >= REFUSED_MAX).then(|| self.0.len() - 1));
        match at.and_then(|at| self.0.get_mut(at)) {
            Some(known) => known.times = known.times.saturating_add(1),
            None => self.0.push(RefusedCall { call: call.to_owned(), target, errno, times: 1 }),
        }
    }

    /// The first times of what came after so many others.
    pub(crate) fn after(&self, known: usize) -> &[RefusedCall] {
        self.0.get(known..).unwrap_or_default()
    }

    pub(crate) fn list(&self) -> Vec<RefusedCall> {
        self.0.clone()
    }
}

fn cut(target: &str) -> String {
    match target.get(..target.floor_char_boundary(TARGET_BYTES_MAX)) {
        Some(start) if start.len() < target.len() => format!("{start}…"),
        _ => target.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_and_the_list_is_bounded() {
        let mut calls = RefusedCalls::default();
        for _ in 0..3 {
            calls.add("openat", "/root/canary", 2);
        }
        calls.add("openat", "/root/canary", 13);
        assert_eq!(calls.list().iter().map(|call| call.times).collect::<Vec<_>>(), [3, 1]);
        for n in 0..REFUSED_MAX {
            calls.add("openat", &format!("/root/{n}"), 2);
        }
        let list = calls.list();
        assert_eq!(list.len(), REFUSED_MAX);
        assert_eq!(list.last().unwrap().times, 3, "two more than fit");
        calls.add("openat", &"é".repeat(TARGET_BYTES_MAX), 2);
        assert!(cut(&"é".repeat(TARGET_BYTES_MAX)).len() <= TARGET_BYTES_MAX + 3);
    }
}
