//! Every socket there is, whose it is, and what authorised it (NET-27).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ::core::net::SocketAddr;

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
        #[cfg(test)]
        self.looks.set(self.looks.get() + self.all.len());
        let mut ended = Vec::new();
        for (id, record) in &mut self.all {
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

    /// The name of the channel on which it was made.
    #[must_use]
    pub fn client_of(&self, id: SocketId) -> Option<&str> {
        self.all.get(&id).map(|record| record.client.as_str())
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
mod tests {
    use super::*;
    use base::{Hash, Sequence};

    const ME: IdentityId = IdentityId([1; 32]);
    const OTHER: IdentityId = IdentityId([2; 32]);

    fn authorised(number: u8, rule: &str) -> Connection {
        Connection {
            id: ConnectionId([number; 16]),
            at: AxiomRef { sequence: Sequence(u64::from(number)), hash: Hash::ZERO },
            rule: rule.parse().unwrap(),
            grant: NetworkGrant::UNLIMITED,
        }
    }

    fn stream(sockets: &mut Sockets, owner: IdentityId) -> SocketId {
        sockets.create(owner, "mine", Domain::Inet, SocketType::Stream).unwrap()
    }

    /// covers: NET-11
    #[test]
    fn a_socket_is_its_owners_alone_and_its_number_is_not_used_again() {
        let mut sockets = Sockets::default();
        let mine = stream(&mut sockets, ME);
        assert!(sockets.find(mine, ME).is_ok());
        assert_eq!(sockets.find(mine, OTHER), Err(NetError::SocketNotFound(mine.0)));
        assert!(sockets.go(mine, OTHER, Event::Close).is_err());
        assert_eq!(sockets.list(Some(OTHER)).count(), 0);
        assert!(sockets.remove(mine).is_some() && sockets.remove(mine).is_none());
        assert_eq!(sockets.find(mine, ME), Err(NetError::SocketNotFound(mine.0)));
        assert_ne!(stream(&mut sockets, ME), mine);
        assert_eq!(stream(&mut Sockets::after(7), ME), SocketId(8));
    }

    /// covers: NET-26
    #[test]
    fn what_a_state_does_not_permit_is_refused_and_changes_nothing() {
        let mut sockets = Sockets::default();
        let id = stream(&mut sockets, ME);
        let refused = sockets.go(id, ME, Event::Listen).map(|record| record.state);
        assert_eq!(refused, Err(NetError::WrongState { state: SocketState::Created, what: "listen" }));
        assert_eq!(sockets.find(id, ME).unwrap().state, SocketState::Created);
        assert_eq!(sockets.go(id, ME, Event::Bind).unwrap().state, SocketState::Bound);
    }

    #[test]
    fn nobody_takes_all_sockets_and_there_is_an_end() {
        let mut sockets = Sockets::default();
        for _ in 0..SOCKETS_OF_ONE_MAX {
            stream(&mut sockets, ME);
        }
        assert!(matches!(
            sockets.create(ME, "mine", Domain::Inet, SocketType::Stream),
            Err(NetError::TooMany(_))
        ));
        for at in 1..u8::try_from(SOCKETS_MAX / SOCKETS_OF_ONE_MAX).unwrap() {
            for _ in 0..SOCKETS_OF_ONE_MAX {
                stream(&mut sockets, IdentityId([at + 1; 32]));
            }
        }
        let late = IdentityId([99; 32]);
        assert!(matches!(
            sockets.create(late, "mine", Domain::Inet, SocketType::Stream),
            Err(NetError::TooMany(_))
        ));
        sockets.remove(SocketId(1));
        assert!(sockets.create(late, "mine", Domain::Inet, SocketType::Stream).is_ok());
    }

    /// Of one identity, and of all; beside the sockets of calls, which have limits of their own.
    #[test]
    fn connections_of_programs_have_an_end_of_their_own() {
        let mut sockets = Sockets::default();
        let flow = |sockets: &mut Sockets, owner| sockets.create_flow(owner, "program 1", Domain::Inet);
        let mine: Vec<SocketId> = (0..FLOWS_OF_ONE_MAX).map(|_| flow(&mut sockets, ME).unwrap()).collect();
        assert!(matches!(flow(&mut sockets, ME), Err(NetError::TooMany(_))));
        for _ in 0..SOCKETS_OF_ONE_MAX {
            stream(&mut sockets, ME);
        }
        let more = sockets.create(ME, "mine", Domain::Inet, SocketType::Stream);
        assert!(matches!(more, Err(NetError::TooMany(_))));
        for _ in FLOWS_OF_ONE_MAX..FLOWS_MAX {
            flow(&mut sockets, OTHER).unwrap();
        }
        let late = IdentityId([99; 32]);
        assert!(matches!(flow(&mut sockets, late), Err(NetError::TooMany(_))));
        stream(&mut sockets, late);
        assert!(sockets.remove(mine[0]).is_some());
        assert!(flow(&mut sockets, late).is_ok());
        assert!(flow(&mut sockets, ME).is_err(), "the room was another's");
        mine.iter().for_each(|id| drop(sockets.remove(*id)));
        assert!(flow(&mut sockets, ME).is_ok());
    }

    #[test]
    fn connections_are_found_by_id_and_owner() {
        let mut sockets = Sockets::default();
        let (first, second) = (stream(&mut sockets, ME), stream(&mut sockets, OTHER));
        sockets.find_mut(first, ME).unwrap().connection = Some(authorised(1, "a"));
        let peer = "192.0.2.1:53".parse().unwrap();
        sockets.add_peer(second, OTHER, peer, authorised(2, "b")).unwrap();
        assert_eq!(sockets.by_connection(&ConnectionId([2; 16])).map(|(id, _)| id), Some(second));
        assert_eq!(sockets.by_connection(&ConnectionId([3; 16])), None);
        assert_eq!(sockets.of(&ME), [first]);
        assert_eq!(sockets.of_client("mine"), [first, second]);
        assert_eq!(sockets.end(&ConnectionId([2; 16])), None, "the peer goes, the socket stays");
        assert!(sockets.find(second, OTHER).unwrap().peers.is_empty());
        assert_eq!(sockets.end(&ConnectionId([1; 16])), Some(first));
        sockets.cut(first, "over");
        assert_eq!(sockets.find(first, ME).unwrap().cut.as_deref(), Some("over"));
    }

    /// Whole sockets by what allows them, of datagram sockets single peers, and nothing of another rule's.
    ///
    /// covers: NET-33
    #[test]
    fn what_a_rule_has_authorised_ends_with_it() {
        let mut sockets = Sockets::default();
        let [first, other, sends] = [ME, OTHER, ME].map(|owner| stream(&mut sockets, owner));
        sockets.find_mut(first, ME).unwrap().connection = Some(authorised(1, "a"));
        sockets.find_mut(other, OTHER).unwrap().connection = Some(authorised(2, "b"));
        let [one, two] = ["192.0.2.1:53", "192.0.2.2:53"].map(|peer| peer.parse().unwrap());
        sockets.add_peer(sends, ME, one, authorised(3, "a")).unwrap();
        sockets.add_peer(sends, ME, two, authorised(4, "b")).unwrap();
        assert_eq!(sockets.end_rule(&"c".parse().unwrap()), []);
        assert_eq!(sockets.end_rule(&"a".parse().unwrap()), [first]);
        let left: Vec<_> = sockets.find(sends, ME).unwrap().peers.keys().copied().collect();
        assert_eq!(left, [two], "the peer goes, the socket stays");
    }

    /// As many as there can be, and each is looked at once.
    #[test]
    fn a_rule_on_which_everything_hangs_ends_in_one_pass() {
        let mut sockets = Sockets::default();
        let all = [ME, OTHER].into_iter().flat_map(|owner| std::iter::repeat_n(owner, FLOWS_MAX / 2));
        for owner in all {
            let id = sockets.create_flow(owner, "program 1", Domain::Inet).unwrap();
            sockets.find_mut(id, owner).unwrap().connection = Some(authorised(1, "a"));
        }
        sockets.looks.set(0);
        assert_eq!(sockets.end_rule(&"a".parse().unwrap()).len(), FLOWS_MAX);
        assert_eq!(sockets.looks.get(), FLOWS_MAX);
    }

    #[test]
    fn a_datagram_socket_has_so_many_peers() {
        let mut sockets = Sockets::default();
        let id = sockets.create(ME, "mine", Domain::Inet, SocketType::Datagram).unwrap();
        let peer = |at: usize| SocketAddr::from(([192, 0, 2, 1], u16::try_from(at).unwrap()));
        for at in 0..PEERS_MAX {
            sockets.add_peer(id, ME, peer(at), authorised(1, "a")).unwrap();
        }
        let first = sockets.add_peer(id, ME, peer(0), authorised(2, "b")).unwrap();
        assert_eq!(first.id, ConnectionId([1; 16]), "what was first stands");
        assert!(matches!(
            sockets.add_peer(id, ME, peer(PEERS_MAX), authorised(1, "a")),
            Err(NetError::TooMany(_))
        ));
    }

    /// covers: NET-24
    #[test]
    fn types_and_families_have_names_and_raw_is_refused() {
        assert_eq!(SocketType::parse("stream"), Ok(SocketType::Stream));
        assert_eq!(SocketType::parse("datagram"), Ok(SocketType::Datagram));
        assert!(matches!(SocketType::parse("raw"), Err(NetError::PermissionDenied(_))));
        assert!(matches!(SocketType::parse("seqpacket"), Err(NetError::InvalidArgument { .. })));
        assert_eq!((Domain::parse("inet"), Domain::parse("inet6")), (Ok(Domain::Inet), Ok(Domain::Inet6)));
        assert!(Domain::parse("vsock").is_err());
    }
}
