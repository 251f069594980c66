//! The table of sockets, and beside each record what the kernel has of it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use base::{ConnectionId, IdentityId};

use super::live::{Io, Live};
use crate::core::{
    Domain, NetError, Record, Rules, SocketId, SocketType, Sockets,
    limits::{TRANSFERS_MAX, TRANSFERS_OF_ONE_MAX},
};

/// One lock for both, so that a record and its socket come and go together. Nothing waits while it is held.
#[derive(Debug, Default)]
pub(super) struct Registry {
    both: Mutex<Both>,
    rules: Mutex<Rules>,
    transfers: Mutex<HashMap<IdentityId, usize>>,
}

#[derive(Debug, Default)]
struct Both {
    sockets: Sockets,
    live: HashMap<SocketId, Arc<Live>>,
    /// Something of a program was cut since it was last asked.
    has_cut: AtomicBool,
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
        client: &str,
        domain: Domain,
        socket_type: SocketType,
        live: impl Into<Arc<Live>>,
    ) -> Result<SocketId, NetError> {
        let mut both = self.both();
        let id = both.sockets.create(owner, client, domain, socket_type)?;
        both.live.insert(id, live.into());
        Ok(id)
    }

    /// A connection of a program.
    pub(super) fn create_flow(
        &self,
        owner: IdentityId,
        client: &str,
        domain: Domain,
        live: &Arc<Live>,
    ) -> Result<SocketId, NetError> {
        let mut both = self.both();
        let id = both.sockets.create_flow(owner, client, domain)?;
        both.live.insert(id, Arc::clone(live));
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

    /// Ends what sockets do; their owner can still ask why, and close them.
    pub(super) fn cut_all(&self, which: impl FnOnce(&Sockets) -> Vec<SocketId>, why: &str) {
        if kit::is_broken("cut") {
            return;
        }
        let mut both = self.both();
        for id in which(&both.sockets) {
            both.cut(id, why);
        }
    }

    /// Ends one that nobody is to be told of who waits for cuts: no entry of the log took it away.
    pub(super) fn cut_unasked(&self, id: SocketId, why: &str) {
        let mut both = self.both();
        both.sockets.cut(id, why);
        if let Some(live) = both.live.get(&id) {
            live.cut();
        }
    }

    /// Whether a relay still has something that was cut.
    pub(super) fn has_cut_relayed(&self) -> bool {
        self.both().live.values().any(|live| live.is_relayed() && live.is_cut())
    }

    /// Ends connections: the sockets that live by them, and single peers of datagram sockets.
    pub(super) fn end_all(&self, which: impl FnOnce(&Sockets) -> Vec<ConnectionId>, why: &str) {
        if kit::is_broken("cut") {
            return;
        }
        let mut both = self.both();
        for connection in which(&both.sockets) {
            if let Some(id) = both.sockets.end(&connection) {
                both.cut(id, why);
            }
        }
    }

    /// Whether something of a program was cut since this was last asked.
    pub(super) fn has_cut_of_programs(&self) -> bool {
        self.both().has_cut.swap(false, Ordering::Relaxed)
    }

    /// Room for one send or receive of an identity, until it is dropped.
    pub(super) fn transfer(self: &Arc<Self>, owner: IdentityId) -> Result<Transfer, NetError> {
        let mut under_way = self.transfers();
        if under_way.values().sum::<usize>() >= TRANSFERS_MAX {
            return Err(NetError::TooMany(format!("{TRANSFERS_MAX} sends and receives are under way")));
        }
        let own = under_way.entry(owner).or_default();
        if *own >= TRANSFERS_OF_ONE_MAX {
            return Err(NetError::TooMany(format!(
                "{TRANSFERS_OF_ONE_MAX} sends and receives of yours are under way"
            )));
        }
        *own += 1;
        Ok(Transfer { registry: Arc::clone(self), owner })
    }

    fn transfers(&self) -> MutexGuard<'_, HashMap<IdentityId, usize>> {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn remove(&self, id: SocketId) -> Option<Arc<Live>> {
        let mut both = self.both();
        both.sockets.remove(id);
        both.live.remove(&id)
    }

    /// What was made on a channel whose service has ended: cut, and gone, but for what only drains.
    pub(super) fn remove_of(&self, client: &str, why: &str) {
        let mut both = self.both();
        for id in both.sockets.of_client(client) {
            if both.live.get(&id).is_some_and(|live| live.drains() && live.is_relayed()) {
                continue;
            }
            both.cut(id, why);
            both.sockets.remove(id);
            both.live.remove(&id);
        }
    }
}

impl Both {
    fn cut(&mut self, id: SocketId, why: &str) {
        self.sockets.cut(id, why);
        if let Some(live) = self.live.get(&id) {
            // A relay has gone when its task has seen the cut.
            let is_programs = live.is_relayed() || live.with(|io| matches!(io, Io::Program(_)));
            self.has_cut.fetch_or(is_programs, Ordering::Relaxed);
            live.cut();
        }
    }
}

/// One send or receive under way.
pub(super) struct Transfer {
    registry: Arc<Registry>,
    owner: IdentityId,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let mut under_way = self.registry.transfers();
        if let Some(own) = under_way.get_mut(&self.owner) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                under_way.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_transfers_are_under_way_of_one_and_of_all() {
        let registry = Arc::<Registry>::default();
        let one = |n: u8| IdentityId([n; 32]);
        let mut held: Vec<_> =
            (0..TRANSFERS_OF_ONE_MAX).map(|_| registry.transfer(one(1)).ok().unwrap()).collect();
        assert!(matches!(registry.transfer(one(1)), Err(NetError::TooMany(_))));
        held.pop();
        held.push(registry.transfer(one(1)).ok().unwrap());
        for other in 2.. {
            let room = TRANSFERS_MAX - held.len();
            held.extend(
                (0..TRANSFERS_OF_ONE_MAX.min(room)).map(|_| registry.transfer(one(other)).ok().unwrap()),
            );
            if held.len() == TRANSFERS_MAX {
                break;
            }
        }
        assert!(matches!(registry.transfer(one(99)), Err(NetError::TooMany(_))));
        held.pop();
        assert!(registry.transfer(one(99)).is_ok());
        held.clear();
        assert!(registry.transfers().is_empty());
    }
}
