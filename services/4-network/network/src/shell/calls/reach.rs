//! The one way to the peer of a call: rules by URL, then how often, then its addresses, then policy and the record, and only
//! then the first packet.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use base::ConnectionId;
use chain::payload::network::NetworkPolicyUpdate;
use kit::Requestor;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tonic::{Code, Status};

use super::{Asker, Held, Network, carried::Carried, check_special, lock};
use crate::{
    core::{
        CallError, Connection, Domain, NetError, SocketId, SocketType, Target, User, decide,
        limits::ADDRESSES_TRIED_MAX, to_wire,
    },
    shell::live::Live,
};

/// What requests go over: a connection, with TLS or without.
pub(in crate::shell) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
pub(in crate::shell) type Wire = Box<dyn Io>;

/// A peer that was reached.
pub(super) struct Peer {
    pub(super) wire: Wire,
    pub(super) id: SocketId,
    pub(super) connection: Connection,
}

/// What a refusal or a failure on the way is as a result.
pub(in crate::shell) fn failed(status: &Status) -> CallError {
    let text = status.message().to_owned();
    match status.code() {
        Code::PermissionDenied => CallError::PolicyDenied(text),
        Code::Unavailable | Code::AlreadyExists => CallError::ConnectionFailed(text),
        Code::ResourceExhausted => CallError::RateLimitExceeded(text),
        // The whole call has a limit too, and says it.
        Code::DeadlineExceeded => CallError::ConnectionFailed(text),
        _ => CallError::Other(text),
    }
}

impl Network {
    /// May this be asked for at all? Sends nothing.
    pub(super) fn permit(
        &self,
        policy: &NetworkPolicyUpdate,
        user: &User,
        target: &Target,
    ) -> Result<(), CallError> {
        decide(&policy.rules, user, target).map_err(|(_, refused)| refused)?;
        match target.address() {
            Some(ip) => check_special(policy, user, target, ip, self.interfaces.addresses().as_deref()),
            None => Ok(()),
        }
    }

    /// Until `deadline` at most, which is the caller's to hold.
    pub(super) async fn reach(
        self: &Arc<Self>,
        asker: &Asker,
        target: &Target,
        deadline: Instant,
    ) -> Result<Peer, CallError> {
        let policy = self.calls.policy();
        self.permit(&policy, &asker.user, target)?;
        self.calls.count(&policy, &asker.user, Some(target.host()))?;
        let addresses = match target.address() {
            Some(ip) => vec![ip],
            None => self.lookup(target.host()).await?.into_iter().map(|known| known.ip).collect(),
        };
        let hosts = self.interfaces.addresses();
        let mut last = None;
        let mut tried = 0;
        for ip in addresses {
            if let Err(refused) = check_special(&policy, &asker.user, target, ip, hosts.as_deref()) {
                last.get_or_insert(refused);
                continue;
            }
            if tried == ADDRESSES_TRIED_MAX {
                break;
            }
            tried += 1;
            match self.connect_to(asker, target, ip, deadline).await {
                Ok(carried) => return self.secured(carried, target).await,
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| CallError::Dns(format!("{} has no address", target.host()))))
    }

    async fn connect_to(
        self: &Arc<Self>,
        asker: &Asker,
        target: &Target,
        ip: IpAddr,
        deadline: Instant,
    ) -> Result<Carried, CallError> {
        let to = SocketAddr::new(ip, target.port());
        let name = target.address().is_none().then(|| target.host().to_owned());
        let (network, requestor, client) =
            (Arc::clone(self), asker.requestor.clone(), asker.user.name.clone());
        // What is on record is carried through, whoever waits for it: who has gone lets go of what was made.
        let carried =
            kit::uncancelled(async move { network.dial(&requestor, &client, to, name, deadline).await })
                .await
                .map_err(|status| failed(&status))?;
        let held = Held { user: asker.user.clone(), target: target.clone(), ip, program: None };
        // It stands in the table before it is asked: no change of the policy slips between.
        let id = carried.id();
        lock(&self.calls.held).insert(id, held);
        let still = self.calls.still_held(id, self.interfaces.addresses().as_deref());
        still.map(|()| carried)
    }

    async fn dial(
        self: &Arc<Self>,
        requestor: &Requestor,
        client: &str,
        to: SocketAddr,
        name: Option<String>,
        deadline: Instant,
    ) -> Result<Carried, Status> {
        let (domain, owner) = (if to.is_ipv4() { Domain::Inet } else { Domain::Inet6 }, requestor.id());
        let live = Live::fresh(domain, SocketType::Stream)
            .map_err(|error| NetError::of_io(&error, "making a socket"))?;
        let id = self.registry.create(owner, client, domain, SocketType::Stream, live)?;
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let left = u32::try_from(left).unwrap_or(u32::MAX).max(1);
        let made = match self.connect_by_name(requestor, id, Some(to_wire(to)), left, name).await {
            Ok(_) => self.carried(requestor, id).map_err(Status::from),
            Err(status) => Err(status),
        };
        if made.is_err()
            && let Some(live) = self.registry.remove(id)
        {
            live.close();
        }
        made
    }

    fn carried(self: &Arc<Self>, requestor: &Requestor, id: SocketId) -> Result<Carried, NetError> {
        let (record, _) = self.registry.find(id, requestor.id())?;
        let connection = record.connection.ok_or(NetError::ConnectionReset)?;
        if !(connection.grant.send && connection.grant.recv) {
            let text = "its authorisation does not cover both sending and receiving, which a call needs";
            return Err(NetError::PermissionDenied(text.to_owned()));
        }
        Carried::new(Arc::clone(self), id, requestor.id(), connection)
    }

    async fn secured(&self, carried: Carried, target: &Target) -> Result<Peer, CallError> {
        let (id, connection) = (carried.id(), carried.connection().clone());
        let plain: Wire = Box::new(carried);
        let wire = match target.is_tls() {
            true => self.calls.tls(plain, target.host()).await?,
            false => plain,
        };
        Ok(Peer { wire, id, connection })
    }
}

/// How the contract names a connection.
pub(super) fn wire_id(connection: ConnectionId) -> Vec<u8> {
    connection.0.to_vec()
}
