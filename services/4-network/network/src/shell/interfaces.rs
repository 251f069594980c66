//! Is there a way at all, and which addresses are this host's: what `driver_manager` says.

use std::{net::IpAddr, sync::Arc, time::Duration};

use base::TraceId;
use contracts::driver_manager::v1::{InterfaceList, WatchInterfacesRequest, devices_client::DevicesClient};
use kit::{BoxError, Component, Node, OperationContext};
use tokio::sync::watch;

const DRIVER_MANAGER: &str = "driver_manager";
const WATCH: &str = "system.driver_manager.watch_interfaces";
/// Then it is asked again: a call has an end.
const HEARD_MAX: Duration = Duration::from_secs(3600);
/// Between two attempts to hear from it.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    /// Interfaces beside the loopback that can be used.
    usable: usize,
    addresses: Arc<[IpAddr]>,
}

impl Heard {
    fn of(list: &InterfaceList) -> Self {
        let usable = list.interfaces.iter().filter(|one| one.usable && !one.loopback).count();
        let all = list.interfaces.iter().flat_map(|one| &one.addresses);
        let addresses = all.filter_map(|address| address.split('/').next()?.parse().ok()).collect();
        Self { usable, addresses }
    }
}

/// None before anything was heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Interfaces(Arc<watch::Sender<Option<Heard>>>);

impl Interfaces {
    /// Needs a running tokio runtime.
    pub(super) fn follow(node: Node) -> Self {
        let known = Self::default();
        let told = known.clone();
        tokio::spawn(async move {
            loop {
                if let Err(error) = told.hear(&node).await {
                    tracing::debug!(%error, "driver_manager is not heard");
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        known
    }

    /// Keeps what was heard last when it ends.
    async fn hear(&self, node: &Node) -> Result<(), BoxError> {
        let trace = TraceId(kit::authority::random_16()?);
        let context = OperationContext::of_service(node.identity(), WATCH, trace)?;
        let calls = node.peer(DRIVER_MANAGER).within(&context, None, HEARD_MAX)?;
        let request = WatchInterfacesRequest { only_usable: false };
        let mut lists = DevicesClient::new(calls).watch_interfaces(request).await?.into_inner();
        while let Some(list) = lists.message().await? {
            self.take(Heard::of(&list));
        }
        Ok(())
    }

    fn take(&self, heard: Heard) {
        self.0.send_if_modified(|known| {
            let is_other = known.as_ref() != Some(&heard);
            *known = Some(heard);
            is_other
        });
    }

    /// Every address of this host; none before anything was heard.
    pub(super) fn addresses(&self) -> Option<Arc<[IpAddr]>> {
        self.0.borrow().as_ref().map(|heard| Arc::clone(&heard.addresses))
    }

    /// Tells whenever they are others.
    pub(super) fn changes(&self) -> Changes {
        Changes(self.0.subscribe())
    }

    /// Without an interface this service is as it should be, and reaches nobody but this host.
    pub(super) fn health(&self) -> Component {
        match &*self.0.borrow() {
            Some(Heard { usable: 0, .. }) => {
                Component::degraded("interfaces", "no interface of this host can be used but its loopback")
            }
            _ => Component::healthy("interfaces"),
        }
    }
}

/// What was heard since it was looked at last is not missed.
pub(super) struct Changes(watch::Receiver<Option<Heard>>);

impl Changes {
    /// False if nobody can change them any more.
    pub(super) async fn next(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::driver_manager::v1::Interface;

    #[test]
    fn addresses_of_every_interface_are_the_hosts_and_only_usable_ones_are_ways() {
        let one = |usable: bool, loopback: bool, address: &str| Interface {
            usable,
            loopback,
            addresses: vec![address.to_owned()],
            ..Interface::default()
        };
        let interfaces = vec![
            one(true, true, "127.0.0.1/8"),
            one(true, false, "192.0.2.1/24"),
            one(false, false, "2001:db8::1/64"),
        ];
        let heard = Heard::of(&InterfaceList { interfaces });
        assert_eq!(heard.usable, 1);
        let addresses: Vec<String> = heard.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1", "192.0.2.1", "2001:db8::1"]);
    }

    #[tokio::test]
    async fn other_addresses_are_told_once_and_the_same_ones_not_at_all() {
        use std::{future::Future, task::Poll};

        let heard = |address: &str| Heard { usable: 1, addresses: [address.parse().unwrap()].into() };
        let interfaces = Interfaces::default();
        let mut changes = interfaces.changes();
        let mut is_told = || {
            let next = std::pin::pin!(changes.next());
            let waker = std::task::Waker::noop();
            matches!(next.poll(&mut std::task::Context::from_waker(waker)), Poll::Ready(true))
        };
        assert!(!is_told());
        interfaces.take(heard("192.0.2.1"));
        assert!(is_told() && !is_told());
        interfaces.take(heard("192.0.2.1"));
        assert!(!is_told());
        interfaces.take(heard("192.0.2.2"));
        assert!(is_told());
    }
}
