//! Is there a way at all, and which addresses are this host's: what `driver_manager` says.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base::TraceId;
use contracts::driver_manager::v1::{InterfaceList, WatchInterfacesRequest, devices_client::DevicesClient};
use kit::{BoxError, Component, Node, OperationContext};

const DRIVER_MANAGER: &str = "driver_manager";
const WATCH: &str = "system.driver_manager.watch_interfaces";
/// Then it is asked again: a call has an end.
const HEARD_MAX: Duration = Duration::from_secs(3600);
/// Between two attempts to hear from it.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
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
pub(super) struct Interfaces(Arc<Mutex<Option<Heard>>>);

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
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Heard::of(&list));
        }
        Ok(())
    }

    /// Every address of this host; none before anything was heard.
    pub(super) fn addresses(&self) -> Option<Arc<[IpAddr]>> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.as_ref().map(|heard| Arc::clone(&heard.addresses))
    }

    /// Without an interface this service is as it should be, and reaches nobody but this host.
    pub(super) fn health(&self) -> Component {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Heard { usable: 0, .. }) => {
                Component::degraded("interfaces", "no interface of this host can be used but its loopback")
            }
            _ => Component::healthy("interfaces"),
        }
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
}
