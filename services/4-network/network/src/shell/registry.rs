//! The table of sockets, and beside each record what the kernel has of it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use base::{ConnectionId, IdentityId, RuleId};

use super::{live::Live, program::Cuts};
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
    /// Something of a program was cut since it was last asked.
    has_cut: AtomicBool,
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
    pub(super) fn cut_all(&self, which: impl FnOnce(&mut Sockets) -> Vec<SocketId>, why: &str) {
        if kit::is_broken("cut") {
            return;
        }
        let ended = {
            let mut both = self.both();
            let ended = which(&mut both.sockets);
            self.mark(&mut both, &ended, why)
        };
        cut(ended);
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

    /// Ends a connection: the socket that lives by it, or a single peer of a datagram socket.
    pub(super) fn end(&self, connection: &ConnectionId, why: &str) {
        self.cut_all(|sockets| sockets.end(connection).into_iter().collect(), why);
    }

    /// Ends all that a rule has authorised.
    pub(super) fn end_rule(&self, rule: &RuleId, why: &str) {
        self.cut_all(|sockets| sockets.end_rule(rule), why);
    }

    /// In the table. That something of programs goes is known before anybody cuts it: who has waited for the cut has waited for it.
    fn mark(&self, both: &mut Both, all: &[SocketId], why: &str) -> Vec<Arc<Live>> {
        let (ended, is_programs) = both.end(all, why);
        self.has_cut.fetch_or(is_programs, Ordering::Relaxed);
        ended
    }

    /// Whether something of a program was cut since this was last asked.
    pub(super) fn has_cut_of_programs(&self) -> bool {
        self.has_cut.swap(false, Ordering::Relaxed)
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
        let ended = {
            let mut both = self.both();
            let drains = |both: &Both, id: &SocketId| {
                both.live.get(id).is_some_and(|live| live.drains() && live.is_relayed())
            };
            let all = both.sockets.of_client(client).into_iter();
            let all: Vec<SocketId> = all.filter(|id| !drains(&both, id)).collect();
            let ended = self.mark(&mut both, &all, why);
            for id in all {
                both.sockets.remove(id);
                both.live.remove(&id);
            }
            ended
        };
        cut(ended);
    }
}

impl Both {
    /// Marks them as cut, and gives what the kernel has of them to whoever cuts that: of one client in a row, so that its monitor
    /// is told of many at once. And whether something of a program is among them.
    fn end(&mut self, all: &[SocketId], why: &str) -> (Vec<Arc<Live>>, bool) {
        all.iter().for_each(|id| self.sockets.cut(*id, why));
        let (mut of_clients, mut is_programs) = (HashMap::<&str, Vec<Arc<Live>>>::new(), false);
        for id in all {
            if let (Some(record), Some(live)) = (self.sockets.get(*id), self.live.get(id)) {
                // A relay has gone when its task has seen the cut.
                is_programs |= record.is_flow || live.is_relayed();
                of_clients.entry(&record.client).or_default().push(Arc::clone(live));
            }
        }
        (of_clients.into_values().flatten().collect(), is_programs)
    }
}

/// What [`Registry::mark`] has marked, without the lock: who wants to look at the table does not wait until the last of many is cut.
fn cut(all: Vec<Arc<Live>>) {
    let mut cuts = Cuts::default();
    all.iter().for_each(|live| live.cut_with(&mut cuts));
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
    use crate::{
        core::{Connection, limits::FLOWS_OF_ONE_MAX},
        shell::{
            live::Io,
            program::{CUT_AT_ONCE_MAX, Held},
        },
    };
    use base::{AxiomRef, Hash, Sequence};
    use chain::payload::network::NetworkGrant;
    use contracts::network::v1::program_order::Order;
    use std::time::{Duration, Instant};

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

    /// As many as one identity can have, of two programs in turns: their monitors are told in as few words as there can be, and who
    /// looks at the table meanwhile sees each either as it was or cut.
    #[test]
    fn a_rule_that_goes_is_told_in_few_words() {
        let registry = Registry::default();
        let owner = IdentityId([1; 32]);
        let rule: RuleId = "r".parse().unwrap();
        let mut monitors = [1, 2].map(|_| tokio::sync::mpsc::unbounded_channel());
        let live = |of: usize, inode| {
            let orders = monitors[of].0.clone();
            Arc::new(Live::of(Io::Program(Held { orders, inode })))
        };
        let mut all = Vec::new();
        for number in 0..FLOWS_OF_ONE_MAX as u64 {
            let of = (number % 2) as usize;
            let live = live(of, number);
            let id = registry.create_flow(owner, &format!("program {of}"), Domain::Inet, &live).unwrap();
            let connection = Connection {
                id: ConnectionId(u128::from(number).to_be_bytes()),
                at: AxiomRef { sequence: Sequence(number), hash: Hash::ZERO },
                rule: rule.clone(),
                grant: NetworkGrant::UNLIMITED,
            };
            registry.change(|sockets| sockets.find_mut(id, owner).unwrap().connection = Some(connection));
            all.push((id, live));
        }
        let (began, over) = (Instant::now(), AtomicBool::new(false));
        let (took, waited) = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut longest = Duration::ZERO;
                while !over.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    registry.read(|_, _| ());
                    longest = longest.max(began.elapsed());
                }
                longest
            });
            registry.end_rule(&rule, "it was removed");
            let took = began.elapsed();
            over.store(true, Ordering::Relaxed);
            (took, other.join().unwrap())
        });
        println!(
            "{} connections of one rule were ended in {took:?}; another waited for {waited:?}",
            all.len()
        );
        for (_, heard) in &mut monitors {
            let mut told = Vec::new();
            let mut words = 0;
            while let Ok((order, _)) = heard.try_recv() {
                let Some(Order::Cut(cut)) = order.order else { panic!("{order:?}") };
                told.extend(cut.sockets);
                words += 1;
            }
            assert_eq!(
                (told.len(), words),
                (FLOWS_OF_ONE_MAX / 2, (FLOWS_OF_ONE_MAX / 2).div_ceil(CUT_AT_ONCE_MAX))
            );
        }
        assert!(all.iter().all(|(id, live)| live.is_cut() && registry.find(*id, owner).is_err()));
        assert!(registry.has_cut_of_programs() && !registry.has_cut_of_programs());
    }
}
