//! The service's process: contract in front, the fold in the middle, policy and the log behind.

mod contract;
mod error;

use std::{
    process::ExitCode,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use base::limits::MESSAGE_BYTES_MAX;
use contracts::capability_service::v1::capabilities_server::CapabilitiesServer;
use kit::{BoxError, ChannelKind, Cost, FeedEntry, InitContext, Node, Operation, Peer, Service};
use tonic::service::Routes;

use crate::core::Holdings;

/// Becomes the process `capability_service`.
#[must_use]
pub fn main() -> ExitCode {
    kit::serve::<CapabilityService>()
}

static TABLE: [Operation; 4] = [
    Operation::acts(
        "/bailiwick.capability_service.v1.Capabilities/Grant",
        Cost::Medium,
        "system.capability_service.grant",
    ),
    Operation::reads(
        "/bailiwick.capability_service.v1.Capabilities/Check",
        Cost::Light,
        "system.capability_service.check",
    ),
    Operation::reads(
        "/bailiwick.capability_service.v1.Capabilities/List",
        Cost::Medium,
        "system.capability_service.list",
    ),
    Operation::acts(
        "/bailiwick.capability_service.v1.Capabilities/Revoke",
        Cost::Medium,
        "system.capability_service.revoke",
    ),
];

/// Knows who holds which right.
pub struct CapabilityService {
    node: Node,
    axiom: Peer,
    holdings: RwLock<Holdings>,
}

impl CapabilityService {
    fn holdings(&self) -> RwLockReadGuard<'_, Holdings> {
        self.holdings.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for CapabilityService {
    const NAME: &'static str = "capability_service";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const PROVIDES: &'static [&'static str] = &["capability.capabilities Capabilities/1.0"];

    fn table() -> &'static [Operation] {
        &TABLE
    }

    async fn init(context: InitContext) -> Result<Self, BoxError> {
        let axiom = context.node.peer("axiom");
        Ok(Self { node: context.node, axiom, holdings: RwLock::default() })
    }

    fn routes(self: &Arc<Self>, kind: ChannelKind) -> Routes {
        match kind {
            ChannelKind::Edge | ChannelKind::Admin => {
                let server = CapabilitiesServer::new(contract::Handlers(Arc::clone(self)));
                Routes::new(server.max_decoding_message_size(MESSAGE_BYTES_MAX))
            }
            _ => Routes::default(),
        }
    }

    fn fold(&self, entry: &FeedEntry) -> Result<(), BoxError> {
        let payload = entry.decode()?;
        self.holdings.write().unwrap_or_else(PoisonError::into_inner).apply(entry.reference(), payload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_contract() {
        let faults = kit::check_table(&["bailiwick.capability_service.v1.Capabilities"], &TABLE);
        assert_eq!(faults, Vec::<String>::new());
    }
}
