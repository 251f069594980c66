//! Sockets of the host's network for calls that are still to come, so that `socket` need not wait for `network`. They go nowhere
//! before a `connect` that is decided, as any other.

use std::os::fd::OwnedFd;

use contracts::way_out::SPARE_MAX;

/// With no more left than so many, others are asked for.
const LOW: usize = SPARE_MAX / 2;

/// Of one family.
#[derive(Debug, Default)]
struct Spare {
    sockets: Vec<OwnedFd>,
    /// Under which number others were asked for.
    asked: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Spares([Spare; 2]);

impl Spares {
    fn of(&mut self, is_v6: bool) -> &mut Spare {
        let [v4, v6] = &mut self.0;
        if is_v6 { v6 } else { v4 }
    }

    pub(super) fn take(&mut self, is_v6: bool) -> Option<OwnedFd> {
        self.of(is_v6).sockets.pop()
    }

    pub(super) fn are_wanted(&mut self, is_v6: bool) -> bool {
        let spare = self.of(is_v6);
        spare.asked.is_none() && spare.sockets.len() <= LOW
    }

    pub(super) fn asked(&mut self, is_v6: bool, id: u64) {
        self.of(is_v6).asked = Some(id);
    }

    /// Takes what was asked for under this number; gives it back if nothing was.
    pub(super) fn answer(&mut self, id: u64, sockets: Vec<OwnedFd>) -> Result<(), Vec<OwnedFd>> {
        match self.0.iter_mut().find(|spare| spare.asked == Some(id)) {
            Some(spare) => {
                spare.asked = None;
                spare.sockets.extend(sockets.into_iter().take(SPARE_MAX));
                Ok(())
            }
            None => Err(sockets),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_asked_for_before_the_last_is_gone_and_only_once() {
        let socket = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut spares = Spares::default();
        assert!(spares.take(false).is_none() && spares.are_wanted(false));
        spares.asked(false, 7);
        assert!(!spares.are_wanted(false) && spares.are_wanted(true));
        assert_eq!(spares.answer(8, vec![socket()]).unwrap_err().len(), 1);
        // No more are kept than were asked for.
        spares.answer(7, (0..=SPARE_MAX).map(|_| socket()).collect()).unwrap();
        let mut taken = 0;
        while !spares.are_wanted(false) {
            taken += usize::from(spares.take(false).is_some());
        }
        assert_eq!(taken, SPARE_MAX - LOW);
        assert!(spares.take(true).is_none());
        assert!(spares.take(false).is_some());
    }
}
