//! The table of sockets, and beside each record what the kernel has of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base::IdentityId;

use super::live::Live;
use crate::core::{Domain, NetError, Record, Rules, SocketId, SocketType, Sockets};

/// One lock for both, so that a record and its socket come and go together. Nothing waits while it is held.
#[derive(Debug, Default)]
pub(super) struct Registry {
    both: Mutex<Both>,
    rules: Mutex<Rules>,
}

#[derive(Debug, Default)]
struct Both {
    sockets: Sockets,
    live: HashMap<SocketId, Arc<Live>>,
}

impl Registry {
    /// For a process that started at this boot time. It gives less than one number a microsecond, so one that comes after it
    /// begins beyond its last, and who knows a number of before finds nothing under it.
    pub(super) fn since(boot_time_ns: u64) -> Self {
        let both = Both { sockets: Sockets::after(boot_time_ns / 1_000), ..Both::default() };
        Self { both: Mutex::new(both), ..Self::default() }
    }

    fn both(&self) -> MutexGuard<'_, Both> {
        self.both.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn create(
        &self,
        owner: IdentityId,
        domain: Domain,
        socket_type: SocketType,
        live: Live,
    ) -> Result<SocketId, NetError> {
        let mut both = self.both();
        let id = both.sockets.create(owner, domain, socket_type)?;
        both.live.insert(id, Arc::new(live));
        Ok(id)
    }

    /// What is on record, as it is now, and what the kernel has.
    pub(super) fn find(&self, id: SocketId, owner: IdentityId) -> Result<(Record, Arc<Live>), NetError> {
        let both = self.both();
        let record = both.sockets.find(id, owner)?.clone();
        if let Some(why) = &record.cut {
            return Err(NetError::AuthorizationRequired(why.clone()));
        }
        let live = both.live.get(&id).ok_or(NetError::SocketNotFound(id.0))?;
        Ok((record, Arc::clone(live)))
    }

    /// Changes the table in one step.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Sockets) -> T) -> T {
        change(&mut self.both().sockets)
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Sockets, &HashMap<SocketId, Arc<Live>>) -> T) -> T {
        let both = self.both();
        read(&both.sockets, &both.live)
    }

    /// Ends what a socket does; its owner can still ask why, and close it.
    pub(super) fn cut_all<I: IntoIterator<Item = SocketId>>(
        &self,
        which: impl FnOnce(&Sockets) -> I,
        why: &str,
    ) {
        if kit::is_broken("cut") {
            return;
        }
        let mut both = self.both();
        let which: Vec<SocketId> = which(&both.sockets).into_iter().collect();
        for id in which {
            both.sockets.cut(id, why);
            if let Some(live) = both.live.get(&id) {
                live.cut();
            }
        }
    }

    pub(super) fn remove(&self, id: SocketId) -> Option<Arc<Live>> {
        let mut both = self.both();
        both.sockets.remove(id);
        both.live.remove(&id)
    }

    pub(super) fn remove_all(&self, owner: &IdentityId) {
        let mut both = self.both();
        for id in both.sockets.of(owner) {
            both.sockets.remove(id);
            both.live.remove(&id);
        }
    }
}
