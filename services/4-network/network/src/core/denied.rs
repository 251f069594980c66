//! To whom policy has just refused a program's datagrams: it is not asked again for each.

use std::{collections::HashMap, time::Duration};

use ::core::net::SocketAddr;

use super::limits::{DENIED_FOR, DENIED_MAX};

/// Of one program. `now` counts from any moment and does not go back.
#[derive(Debug, Default)]
pub struct Denied(HashMap<SocketAddr, Duration>);

impl Denied {
    /// One more than are kept is asked for again, as often as new peers may be.
    pub fn add(&mut self, peer: SocketAddr, now: Duration) {
        if self.0.len() >= DENIED_MAX {
            self.0.retain(|_, until| now < *until);
        }
        if self.0.len() < DENIED_MAX {
            self.0.insert(peer, now.saturating_add(DENIED_FOR));
        }
    }

    #[must_use]
    pub fn has(&self, peer: &SocketAddr, now: Duration) -> bool {
        self.0.get(peer).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_kept_for_a_while_and_only_so_many() {
        let peer = |number: u32| SocketAddr::from((::core::net::Ipv4Addr::from(number), 53));
        let (mut denied, start) = (Denied::default(), Duration::from_secs(100));
        let last = u32::try_from(DENIED_MAX).unwrap();
        (0..=last).for_each(|number| denied.add(peer(number), start));
        let just_before = start + DENIED_FOR - Duration::from_nanos(1);
        assert!(denied.has(&peer(0), just_before) && denied.has(&peer(last - 1), just_before));
        assert!(!denied.has(&peer(last), start), "one too many");
        assert!(!denied.has(&peer(0), start + DENIED_FOR));
        denied.add(peer(last), start + DENIED_FOR);
        assert!(denied.has(&peer(last), start + DENIED_FOR) && denied.0.len() == 1);
    }
}
