//! HTTP, WebSocket and names as calls: which rules are in force, how much was asked for, and the one way to a peer.

mod answer;
mod carried;
mod contract;
mod fetch;
mod headers;
mod policy;
mod reach;
mod redirect;
mod resolve;
mod slots;
mod tls;
mod web_socket;
mod web_socket_open;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use base::AxiomRef;
use chain::payload::{
    Payload,
    network::{CallLimits, NetworkPolicyUpdate},
};
use kit::Requestor;
use tokio_rustls::rustls::ClientConfig;

use super::Network;
use crate::core::{CallError, CallFold, SocketId, Target, User, Windows, check_place, decide};
use slots::Slots;
use web_socket::WebSocket;

pub(super) use fetch::FetchStream;
pub(super) use reach::failed;
pub(super) use web_socket_open::EventStream;

/// On whose behalf a call is made.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    requestor: Requestor,
    user: User,
}

/// A connection that lives by a rule by URL: it falls with it.
struct Held {
    user: User,
    target: Target,
    ip: IpAddr,
    /// The places of a program say which addresses it may reach, and what is special among them.
    by_places: bool,
}

pub(super) struct Calls {
    fold: Mutex<CallFold>,
    windows: Mutex<Windows>,
    /// Windows are counted from here.
    began: Instant,
    /// Made of the policy in force when it is first needed.
    tls: Mutex<Option<Arc<ClientConfig>>>,
    slots: Arc<Slots>,
    held: Mutex<HashMap<SocketId, Held>>,
    web_sockets: Mutex<HashMap<SocketId, Arc<WebSocket>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calls {
    pub(super) fn new() -> Self {
        Self {
            fold: Mutex::default(),
            windows: Mutex::default(),
            began: Instant::now(),
            tls: Mutex::default(),
            slots: Arc::default(),
            held: Mutex::default(),
            web_sockets: Mutex::default(),
        }
    }

    pub(super) fn fold(&self) -> CallFold {
        lock(&self.fold).clone()
    }

    pub(super) fn restore(&self, fold: CallFold) {
        *lock(&self.fold) = fold;
    }

    pub(super) fn policy(&self) -> NetworkPolicyUpdate {
        lock(&self.fold).policy()
    }

    fn limits(&self) -> CallLimits {
        self.policy().limits
    }

    /// Counts a request, or refuses it (NET-59).
    pub(super) fn count(
        &self,
        policy: &NetworkPolicyUpdate,
        user: &User,
        host: Option<&str>,
    ) -> Result<(), CallError> {
        lock(&self.windows).take(self.began.elapsed(), &policy.limits, &user.name, host)
    }

    /// Whether the rules in force still let this connection be.
    fn permits(policy: &NetworkPolicyUpdate, held: &Held, hosts: Option<&[IpAddr]>) -> Result<(), CallError> {
        decide(&policy.rules, &held.user, &held.target).map_err(|(_, refused)| refused)?;
        match held.by_places {
            true => Ok(()),
            false => check_special(policy, &held.user, &held.target, held.ip, hosts),
        }
    }

    /// Of a program, asked for at its proxy.
    pub(super) fn hold(&self, id: SocketId, user: User, target: Target, ip: IpAddr) {
        lock(&self.held).insert(id, Held { user, target, ip, by_places: true });
    }

    pub(super) fn release(&self, id: SocketId) {
        lock(&self.held).remove(&id);
    }

    /// Whether the rules in force still let it be, of what stands in the table.
    pub(super) fn still_held(&self, id: SocketId, hosts: Option<&[IpAddr]>) -> Result<(), CallError> {
        let now = self.policy();
        lock(&self.held).get(&id).map_or(Ok(()), |held| Self::permits(&now, held, hosts))
    }
}

/// As `check_place`, unless `prove` has switched it off.
fn check_special(
    policy: &NetworkPolicyUpdate,
    user: &User,
    target: &Target,
    ip: IpAddr,
    hosts: Option<&[IpAddr]>,
) -> Result<(), CallError> {
    match kit::is_broken("special-urls") {
        true => Ok(()),
        false => check_place(&policy.rules, user, target, ip, hosts),
    }
}

impl Network {
    /// Takes an entry in. Under another policy what is refused by now ends.
    pub(super) fn fold_calls(&self, at: AxiomRef, payload: &Payload) {
        let calls = &self.calls;
        if !lock(&calls.fold).apply(at, payload) {
            return;
        }
        *lock(&calls.tls) = None;
        let (policy, hosts) = (calls.policy(), self.interfaces.addresses());
        let refused = |(id, held): (&SocketId, &Held)| {
            Calls::permits(&policy, held, hosts.as_deref()).err().map(|_| *id)
        };
        let ended: Vec<SocketId> = lock(&calls.held).iter().filter_map(refused).collect();
        self.registry.cut_all(|_| ended, "the network policy that allowed it was replaced");
    }
}
