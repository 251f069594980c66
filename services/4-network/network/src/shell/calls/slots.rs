//! How many calls are under way, of one identity and of all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use base::IdentityId;

use super::lock;
use crate::core::{
    CallError,
    limits::{
        FETCHES_MAX, FETCHES_OF_ONE_MAX, UPLOADS_MAX, UPLOADS_OF_ONE_MAX, WEB_SOCKETS_MAX,
        WEB_SOCKETS_OF_ONE_MAX,
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Fetch,
    Upload,
    WebSocket,
}

impl Kind {
    const fn limits(self) -> (usize, usize, &'static str) {
        match self {
            Self::Fetch => (FETCHES_OF_ONE_MAX, FETCHES_MAX, "requests"),
            Self::Upload => (UPLOADS_OF_ONE_MAX, UPLOADS_MAX, "uploads"),
            Self::WebSocket => (WEB_SOCKETS_OF_ONE_MAX, WEB_SOCKETS_MAX, "WebSockets"),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<HashMap<(Kind, IdentityId), usize>>);

/// Room for one, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    of: (Kind, IdentityId),
}

impl Slots {
    pub(super) fn take(self: &Arc<Self>, kind: Kind, owner: IdentityId) -> Result<Slot, CallError> {
        let (of_one, of_all, what) = kind.limits();
        let mut taken = lock(&self.0);
        let all: usize = taken.iter().filter(|((one, _), _)| *one == kind).map(|(_, count)| count).sum();
        if all >= of_all {
            return Err(CallError::RateLimitExceeded(format!("{of_all} {what} are under way")));
        }
        let own = taken.entry((kind, owner)).or_default();
        if *own >= of_one {
            return Err(CallError::RateLimitExceeded(format!("{of_one} {what} of yours are under way")));
        }
        *own += 1;
        Ok(Slot { slots: Arc::clone(self), of: (kind, owner) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = lock(&self.slots.0);
        if let Some(own) = taken.get_mut(&self.of) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_fits_and_the_next_when_one_has_ended() {
        for (kind, of_one, of_all, other_kind) in [
            (Kind::Fetch, FETCHES_OF_ONE_MAX, FETCHES_MAX, Kind::Upload),
            (Kind::Upload, UPLOADS_OF_ONE_MAX, UPLOADS_MAX, Kind::WebSocket),
            (Kind::WebSocket, WEB_SOCKETS_OF_ONE_MAX, WEB_SOCKETS_MAX, Kind::Fetch),
        ] {
            // One that takes all of its own leaves something for others.
            assert!(of_one < of_all, "{kind:?}");
            let slots = Arc::<Slots>::default();
            let me = IdentityId([1; 32]);
            let mut mine: Vec<Slot> = (0..of_one).map(|_| slots.take(kind, me).unwrap()).collect();
            assert!(slots.take(kind, me).is_err(), "{kind:?}");
            assert!(slots.take(other_kind, me).is_ok(), "each kind has its own");
            mine.pop();
            assert!(slots.take(kind, me).is_ok());
            let others: Vec<Slot> = (2..)
                .map(|at| IdentityId([at; 32]))
                .flat_map(|other| (0..of_one).map_while(|_| slots.take(kind, other).ok()).collect::<Vec<_>>())
                .take(of_all - mine.len())
                .collect();
            assert_eq!(others.len() + mine.len(), of_all);
            assert!(slots.take(kind, IdentityId([99; 32])).is_err(), "{kind:?}");
            drop((mine, others));
            assert!(lock(&slots.0).is_empty());
        }
    }
}
