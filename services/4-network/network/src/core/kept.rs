//! Connections of one program's proxy on which nothing is being asked: they wait for the next request to the same place.

use std::{collections::VecDeque, time::Duration};

use super::{
    SocketId,
    limits::{PROXY_KEPT_FOR, PROXY_KEPT_OF_PROGRAM_MAX, PROXY_KEPT_SURE_FOR},
};

#[derive(Debug)]
struct One<T> {
    id: SocketId,
    /// Whom it was asked for: scheme, host and port as they are in a URL.
    place: String,
    since: Duration,
    line: T,
}

/// Of one program: no other one's ever gets here. The one that waits longest comes first.
#[derive(Debug)]
pub struct Kept<T>(VecDeque<One<T>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

/// Whether one that has been closed at the other end meanwhile could be asked twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    Yes,
    /// Only one that was used a moment ago is taken: hardly any server closes so early.
    No,
}

impl<T> Kept<T> {
    /// `now` counts from any moment and does not go back. Gives back what there is no more room for.
    #[must_use]
    pub fn put(&mut self, id: SocketId, place: String, now: Duration, line: T) -> Option<T> {
        let full = self.0.len() >= PROXY_KEPT_OF_PROGRAM_MAX;
        let left_out = if full { self.0.pop_front() } else { None };
        self.0.push_back(One { id, place, since: now, line });
        left_out.map(|one| one.line)
    }

    /// The best one of those that lead there: by `rank` (none: it cannot be used), then the last that was used.
    pub fn take<R: Ord>(
        &mut self,
        place: &str,
        now: Duration,
        repeats: Repeats,
        rank: impl Fn(&T) -> Option<R>,
    ) -> Option<T> {
        let most = match repeats {
            Repeats::Yes => PROXY_KEPT_FOR,
            Repeats::No => PROXY_KEPT_SURE_FOR,
        };
        let fits = |one: &One<T>| one.place == place && now.saturating_sub(one.since) < most;
        let ranked = self.0.iter().enumerate().filter(|(_, one)| fits(one));
        let best = ranked.filter_map(|(at, one)| Some((rank(&one.line)?, at))).max()?;
        self.0.remove(best.1).map(|one| one.line)
    }

    pub fn remove(&mut self, id: SocketId) -> Option<T> {
        let at = self.0.iter().position(|one| one.id == id)?;
        self.0.remove(at).map(|one| one.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_000);
    const NANO: Duration = Duration::from_nanos(1);

    fn kept(lines: &[(u64, &str, Duration)]) -> Kept<u64> {
        let mut kept = Kept::default();
        for (id, place, at) in lines {
            assert_eq!(kept.put(SocketId(*id), (*place).to_owned(), *at, *id), None);
        }
        kept
    }

    fn any(_: &u64) -> Option<()> {
        Some(())
    }

    #[test]
    fn one_serves_the_place_that_it_leads_to_alone_and_the_last_used_is_first() {
        let mut kept =
            kept(&[(1, "http://a.test", START), (2, "http://a.test", START), (3, "http://b.test", START)]);
        assert_eq!(kept.take("http://c.test", START, Repeats::Yes, any), None);
        assert_eq!(kept.take("http://a.test:81", START, Repeats::Yes, any), None);
        assert_eq!(kept.take("http://a.test", START, Repeats::Yes, any), Some(2));
        assert_eq!(kept.take("http://a.test", START, Repeats::Yes, any), Some(1));
        assert_eq!(kept.take("http://a.test", START, Repeats::Yes, any), None);
        assert_eq!(kept.remove(SocketId(3)), Some(3));
        assert_eq!(kept.remove(SocketId(3)), None);
    }

    #[test]
    fn what_ranks_higher_comes_first_and_what_has_no_rank_stays() {
        let mut kept = kept(&[(1, "p", START), (2, "p", START), (3, "p", START)]);
        let rank = |id: &u64| (*id != 3).then_some(*id == 1);
        assert_eq!(kept.take("p", START, Repeats::Yes, rank), Some(1));
        assert_eq!(kept.take("p", START, Repeats::Yes, rank), Some(2));
        assert_eq!(kept.take("p", START, Repeats::Yes, rank), None);
        assert_eq!(kept.take("p", START, Repeats::Yes, any), Some(3));
    }

    #[test]
    fn one_that_waited_for_too_long_is_not_taken() {
        for (repeats, most) in [(Repeats::Yes, PROXY_KEPT_FOR), (Repeats::No, PROXY_KEPT_SURE_FOR)] {
            let mut kept = kept(&[(1, "p", START)]);
            assert_eq!(kept.take("p", START + most, repeats, any), None, "{repeats:?}");
            assert_eq!(kept.take("p", START + most - NANO, repeats, any), Some(1), "{repeats:?}");
        }
    }

    #[test]
    fn beyond_the_limit_the_one_that_waits_longest_goes() {
        let mut kept = Kept::default();
        for id in 0..PROXY_KEPT_OF_PROGRAM_MAX as u64 {
            assert_eq!(kept.put(SocketId(id), "p".to_owned(), START, id), None);
        }
        assert_eq!(kept.put(SocketId(1_000), "p".to_owned(), START, 1_000), Some(0));
        assert_eq!(kept.0.len(), PROXY_KEPT_OF_PROGRAM_MAX);
    }
}
