//! Every socket there is, whose it is, and what authorised it (NET-27).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ::core::{net::SocketAddr, ops::Bound};

use base::{AxiomRef, ConnectionId, IdentityId, ProcessId, RuleId};
use chain::payload::network::{NetworkGrant, Protocol};

use super::{
    HostName, NetError,
    limits::{FLOWS_MAX, FLOWS_OF_ONE_MAX, PEERS_MAX, SOCKETS_MAX, SOCKETS_OF_ONE_MAX},
    state::{Event, SocketState, next},
};

/// Counted up, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    Inet,
    Inet6,
}

impl Domain {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Inet6 => "inet6",
        }
    }

    pub fn parse(name: &str) -> Result<Self, NetError> {
        match name {
            "inet" => Ok(Self::Inet),
            "inet6" => Ok(Self::Inet6),
            _ => Err(NetError::invalid("domain", format!("{name:?} is neither `inet` nor `inet6`"))),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketType {
    Stream,
    Datagram,
}

impl SocketType {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Datagram => "datagram",
        }
    }

    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Stream => Protocol::Tcp,
            Self::Datagram => Protocol::Udp,
        }
    }

    pub fn parse(name: &str) -> Result<Self, NetError> {
        match name {
            "stream" => Ok(Self::Stream),
            "datagram" => Ok(Self::Datagram),
            // NET-24 names it; who could send it could pretend to be any connection.
            "raw" => Err(NetError::PermissionDenied("raw sockets pass by every authorisation".to_owned())),
            _ => {
                Err(NetError::invalid("socket_type", format!("{name:?} is neither `stream` nor `datagram`")))
            }
        }
    }
}

/// What was authorised, by which entry and by which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    pub id: ConnectionId,
    pub at: AxiomRef,
    pub rule: RuleId,
    pub grant: NetworkGrant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub owner: IdentityId,
    /// The name of the channel on which it was made: it goes with that service.
    pub client: String,
    pub domain: Domain,
    pub socket_type: SocketType,
    /// A connection of a program, and no socket of a call.
    pub is_flow: bool,
    /// The program whose it is; 0 for a service's.
    pub process: ProcessId,
    pub state: SocketState,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    /// By which the remote was asked for.
    pub name: Option<HostName>,
    /// Name of the secret that is put into what goes there.
    pub secret: Option<String>,
    /// None before it listens, or is connected.
    pub connection: Option<Connection>,
    /// Of a datagram socket: to whom it may send.
    pub peers: Arc<BTreeMap<SocketAddr, Connection>>,
    /// Why it was cut.
    pub cut: Option<String>,
}

impl Record {
    /// Everything that authorised something of it.
    fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connection.iter().chain(self.peers.values())
    }

    /// To be asked before the system is; `Err` is what the caller hears.
    pub fn require(&self, event: Event) -> Result<SocketState, NetError> {
        next(self.state, event).ok_or(NetError::WrongState { state: self.state, what: event.what() })
    }
}

#[derive(Debug, Default)]
pub struct Sockets {
    last: u64,
    all: BTreeMap<SocketId, Record>,
    by_owner: BTreeMap<IdentityId, BTreeSet<SocketId>>,
    /// How many of them are connections of programs.
    flows: usize,
    flows_by_owner: BTreeMap<IdentityId, usize>,
    /// Records that were looked at.
    #[cfg(test)]
    looks: std::cell::Cell<usize>,
}

impl Sockets {
    /// Numbers begin behind `last`: a process that comes after another gives none that the other has given.
    #[must_use]
    pub fn after(last: u64) -> Self {
        Self { last, ..Self::default() }
    }

    pub fn create(
        &mut self,
        owner: IdentityId,
        client: &str,
        domain: Domain,
        socket_type: SocketType,
    ) -> Result<SocketId, NetError> {
        let flows = self.flows_by_owner.get(&owner).copied().unwrap_or(0);
        let own = self.by_owner.get(&owner).map_or(0, BTreeSet::len).saturating_sub(flows);
        if self.all.len().saturating_sub(self.flows) >= SOCKETS_MAX {
            return Err(NetError::TooMany(format!("there are {SOCKETS_MAX} sockets already")));
        }
        if own >= SOCKETS_OF_ONE_MAX {
            return Err(NetError::TooMany(format!("you have {SOCKETS_OF_ONE_MAX} sockets already")));
        }
        Ok(self.enter(owner, client, domain, socket_type, false))
    }

    /// A connection of a program, which has the socket itself.
    pub fn create_flow(
        &mut self,
        owner: IdentityId,
        client: &str,
        domain: Domain,
    ) -> Result<SocketId, NetError> {
        if self.flows >= FLOWS_MAX {
            return Err(NetError::TooMany(format!("programs have {FLOWS_MAX} connections already")));
        }
        let own = self.flows_by_owner.entry(owner).or_default();
        if *own >= FLOWS_OF_ONE_MAX {
            let text = format!("programs of this identity have {FLOWS_OF_ONE_MAX} connections already");
            return Err(NetError::TooMany(text));
        }
        *own += 1;
        self.flows += 1;
        Ok(self.enter(owner, client, domain, SocketType::Stream, true))
    }

    fn enter(
        &mut self,
        owner: IdentityId,
        client: &str,
        domain: Domain,
        socket_type: SocketType,
        is_flow: bool,
    ) -> SocketId {
        self.last += 1;
        let id = SocketId(self.last);
        self.by_owner.entry(owner).or_default().insert(id);
        let record = Record {
            owner,
            client: client.to_owned(),
            domain,
            socket_type,
            is_flow,
            process: ProcessId(0),
            state: SocketState::Created,
            local: None,
            remote: None,
            name: None,
            secret: None,
            connection: None,
            peers: Arc::default(),
            cut: None,
        };
        self.all.insert(id, record);
        id
    }

    /// Of one that stands here: what is put into what goes there.
    pub fn tell_secret(&mut self, id: SocketId, secret: Option<String>) {
        if let Some(record) = self.all.get_mut(&id) {
            record.secret = secret;
        }
    }

    /// To all but its owner it does not exist (NET-11).
    pub fn find(&self, id: SocketId, owner: IdentityId) -> Result<&Record, NetError> {
        self.all.get(&id).filter(|record| record.owner == owner).ok_or(NetError::SocketNotFound(id.0))
    }

    pub fn find_mut(&mut self, id: SocketId, owner: IdentityId) -> Result<&mut Record, NetError> {
        let found = self.all.get_mut(&id).filter(|record| record.owner == owner);
        found.ok_or(NetError::SocketNotFound(id.0))
    }

    /// Moves a socket on.
    pub fn go(&mut self, id: SocketId, owner: IdentityId, event: Event) -> Result<&mut Record, NetError> {
        let record = self.find_mut(id, owner)?;
        record.state = record.require(event)?;
        Ok(record)
    }

    /// One peer more for a datagram socket; the connection that counts. What was authorised first stays: the log says
    /// that it stands.
    pub fn add_peer(
        &mut self,
        id: SocketId,
        owner: IdentityId,
        peer: SocketAddr,
        connection: Connection,
    ) -> Result<Connection, NetError> {
        let record = self.find_mut(id, owner)?;
        if let Some(known) = record.peers.get(&peer) {
            return Ok(known.clone());
        }
        if record.peers.len() >= PEERS_MAX {
            return Err(NetError::TooMany(format!("it sends to {PEERS_MAX} peers already")));
        }
        Arc::make_mut(&mut record.peers).insert(peer, connection.clone());
        Ok(connection)
    }

    /// Ends one connection: of a datagram socket with many peers that one alone, and no socket; else the socket's id.
    pub fn end(&mut self, connection: &ConnectionId) -> Option<SocketId> {
        let (id, record) = self.by_connection(connection)?;
        if record.connection.as_ref().is_some_and(|known| known.id == *connection) {
            return Some(id);
        }
        let record = self.all.get_mut(&id)?;
        Arc::make_mut(&mut record.peers).retain(|_, known| known.id != *connection);
        None
    }

    /// The same of all that a rule has authorised, which falls with it, in one pass.
    pub fn end_rule(&mut self, rule: &RuleId) -> Vec<SocketId> {
        let mut ended = Vec::new();
        for (id, record) in &mut self.all {
            #[cfg(test)]
            self.looks.set(self.looks.get() + 1);
            if record.connection.as_ref().is_some_and(|known| known.rule == *rule) {
                ended.push(*id);
            } else if record.peers.values().any(|known| known.rule == *rule) {
                Arc::make_mut(&mut record.peers).retain(|_, known| known.rule != *rule);
            }
        }
        ended
    }

    /// Made on this channel.
    #[must_use]
    pub fn of_client(&self, client: &str) -> Vec<SocketId> {
        self.list(None).filter(|(_, record)| record.client == client).map(|(id, _)| id).collect()
    }

    pub fn remove(&mut self, id: SocketId) -> Option<Record> {
        let record = self.all.remove(&id)?;
        if let Some(own) = self.by_owner.get_mut(&record.owner) {
            own.remove(&id);
            if own.is_empty() {
                self.by_owner.remove(&record.owner);
            }
        }
        if record.is_flow {
            self.flows = self.flows.saturating_sub(1);
            if let Some(own) = self.flows_by_owner.get_mut(&record.owner) {
                *own = own.saturating_sub(1);
                if *own == 0 {
                    self.flows_by_owner.remove(&record.owner);
                }
            }
        }
        Some(record)
    }

    #[must_use]
    pub fn get(&self, id: SocketId) -> Option<&Record> {
        self.all.get(&id)
    }

    /// The caller's own, or all.
    pub fn list(&self, owner: Option<IdentityId>) -> impl Iterator<Item = (SocketId, &Record)> {
        #[cfg(test)]
        self.looks.set(self.looks.get() + self.all.len());
        self.all
            .iter()
            .filter(move |(_, record)| owner.is_none_or(|owner| record.owner == owner))
            .map(|(id, record)| (*id, record))
    }

    pub fn by_connection(&self, connection: &ConnectionId) -> Option<(SocketId, &Record)> {
        self.list(None).find(|(_, record)| record.connections().any(|known| known.id == *connection))
    }

    /// The first of those after one, in the order of their numbers, at most so many; and whether there are others.
    #[must_use]
    pub fn page(
        &self,
        owner: Option<IdentityId>,
        after: SocketId,
        most: usize,
    ) -> (Vec<(SocketId, &Record)>, bool) {
        let later = self.all.range((Bound::Excluded(after), Bound::Unbounded));
        let mut later = later.filter(|(_, record)| owner.is_none_or(|owner| record.owner == owner));
        let page = later.by_ref().take(most).map(|(id, record)| (*id, record)).collect();
        (page, later.next().is_some())
    }

    #[must_use]
    pub fn of(&self, owner: &IdentityId) -> Vec<SocketId> {
        self.by_owner.get(owner).into_iter().flatten().copied().collect()
    }

    /// Remembers why, so that calls under way can say it.
    pub fn cut(&mut self, id: SocketId, why: &str) {
        if let Some(record) = self.all.get_mut(&id) {
            record.state = SocketState::Closing;
            record.cut = Some(why.to_owned());
        }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
