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
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Instant,
};

use base::AxiomRef;
use chain::payload::{
    Payload,
    network::{CallLimits, NetworkPolicyUpdate},
};
use kit::Requestor;
use tokio_rustls::rustls::ClientConfig;

use super::{Network, interfaces::Interfaces, program::Program, registry::Registry};
use crate::core::{CallError, CallFold, SocketId, Target, User, Windows, check_place, decide};
use slots::Slots;
use web_socket::WebSocket;

pub(super) use fetch::FetchStream;
pub(super) use reach::{Wire, failed};
pub(super) use tls::check_authority;
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
    /// Whose places say which addresses it may reach, and what is special among them; none is a call, for which rules do.
    program: Option<Weak<Program>>,
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

    /// Who asks at a proxy, and whether that may be asked for and counts as one request more.
    pub(super) fn judge(&self, client: &str, target: &Target) -> Result<User, CallError> {
        let (user, limits) = {
            let fold = lock(&self.fold);
            let (user, policy) = (fold.user(client, false), fold.in_force());
            match decide(&policy.rules, &user, target) {
                // What `prove` switched off: its places alone say where it leads.
                Err(_) if kit::is_broken("proxy-rules") => {}
                decided => drop(decided.map_err(|(_, refused)| refused)?),
            }
            (user, policy.limits)
        };
        lock(&self.windows).take(self.began.elapsed(), &limits, &user.name, Some(target.host()))?;
        Ok(user)
    }

    /// Whether the rules in force still let this connection be.
    fn permits(policy: &NetworkPolicyUpdate, held: &Held, hosts: Option<&[IpAddr]>) -> Result<(), CallError> {
        decide(&policy.rules, &held.user, &held.target).map_err(|(_, refused)| refused)?;
        match held.program.as_ref().map(Weak::upgrade) {
            None => check_special(policy, &held.user, &held.target, held.ip, hosts),
            Some(Some(program)) if !program.places.takes(held.ip, hosts) => {
                Err(CallError::PolicyDenied(format!(
                    "{} is a special address or this host's, and not among the places of the program",
                    held.ip
                )))
            }
            // One that has gone has no connections: they end with it.
            Some(_) => Ok(()),
        }
    }

    /// What the rules and the addresses of today do not let be.
    fn refused_by_now(&self, hosts: Option<&[IpAddr]>) -> Vec<SocketId> {
        let policy = self.policy();
        let refused = |(id, held): (&SocketId, &Held)| Self::permits(&policy, held, hosts).err().map(|_| *id);
        lock(&self.held).iter().filter_map(refused).collect()
    }

    /// Cuts what has become this host's own as its addresses change. Ends with the process.
    pub(super) async fn follow_addresses(self: Arc<Self>, registry: Arc<Registry>, interfaces: Interfaces) {
        let mut changes = interfaces.changes();
        while changes.next().await {
            for id in self.refused_by_now(interfaces.addresses().as_deref()) {
                registry.cut_unasked(id, "its address is this host's own by now");
            }
        }
    }

    /// Of a program, asked for at its proxy.
    pub(super) fn hold(&self, id: SocketId, user: User, target: Target, ip: IpAddr, program: &Arc<Program>) {
        let program = Some(Arc::downgrade(program));
        lock(&self.held).insert(id, Held { user, target, ip, program });
    }

    /// It is asked for something else from now on. False of one that has gone.
    pub(super) fn hold_for(&self, id: SocketId, user: &User, target: &Target) -> bool {
        match lock(&self.held).get_mut(&id) {
            Some(held) => {
                held.user = user.clone();
                held.target = target.clone();
                true
            }
            None => false,
        }
    }

    pub(super) fn release(&self, id: SocketId) {
        lock(&self.held).remove(&id);
    }

    /// Whether the rules in force still let it be, of what stands in the table.
    pub(super) fn still_held(&self, id: SocketId, hosts: Option<&[IpAddr]>) -> Result<(), CallError> {
        let fold = lock(&self.fold);
        lock(&self.held).get(&id).map_or(Ok(()), |held| Self::permits(&fold.in_force(), held, hosts))
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
        let ended = calls.refused_by_now(self.interfaces.addresses().as_deref());
        self.registry.cut_all(|_| ended, "the network policy that allowed it was replaced");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Schemes, default_policy};
    use chain::payload::network::ProcessClass;

    #[test]
    fn what_has_become_this_hosts_own_is_refused_by_then() {
        let calls = Calls::new();
        assert_eq!(calls.policy(), default_policy());
        let hold = |id: u64, ip: &str| {
            let held = Held {
                user: User { class: ProcessClass::System, name: "web".to_owned() },
                target: Target::parse("https://a.example/", Schemes::Http).unwrap(),
                ip: ip.parse().unwrap(),
                program: None,
            };
            lock(&calls.held).insert(SocketId(id), held);
        };
        hold(1, "192.0.2.1");
        hold(2, "192.0.2.2");
        // One of a program that has gone, which takes its connections with it.
        hold(3, "192.0.2.2");
        lock(&calls.held).get_mut(&SocketId(3)).unwrap().program = Some(Weak::new());
        let now = |hosts: &[&str]| {
            let hosts: Vec<IpAddr> = hosts.iter().map(|ip| ip.parse().unwrap()).collect();
            calls.refused_by_now(Some(&hosts))
        };
        assert_eq!(now(&["198.51.100.1"]), []);
        assert_eq!(now(&["198.51.100.1", "192.0.2.2"]), [SocketId(2)]);
    }
}
