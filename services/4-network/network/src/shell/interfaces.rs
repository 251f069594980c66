//! Is there a way at all: what `driver_manager` says.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base::TraceId;
use contracts::driver_manager::v1::{WatchInterfacesRequest, devices_client::DevicesClient};
use kit::{BoxError, Component, Node, OperationContext};

const DRIVER_MANAGER: &str = "driver_manager";
const WATCH: &str = "system.driver_manager.watch_interfaces";
/// Then it is asked again: a call has an end.
const HEARD_MAX: Duration = Duration::from_secs(3600);
/// Between two attempts to hear from it.
const PAUSE: Duration = Duration::from_secs(1);

/// None before anything was heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Interfaces(Arc<Mutex<Option<usize>>>);

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
        let request = WatchInterfacesRequest { only_usable: true };
        let mut lists = DevicesClient::new(calls).watch_interfaces(request).await?.into_inner();
        while let Some(list) = lists.message().await? {
            let usable = list.interfaces.iter().filter(|one| !one.loopback).count();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(usable);
        }
        Ok(())
    }

    /// Without an interface this service is as it should be, and reaches nobody but this host.
    pub(super) fn health(&self) -> Component {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(0) => {
                Component::degraded("interfaces", "no interface of this host can be used but its loopback")
            }
            _ => Component::healthy("interfaces"),
        }
    }
}
