//! The service's process: contract in front, the fold in the middle, policy and the log behind.

mod contract;
mod error;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use base::limits::MESSAGE_BYTES_MAX;
use chain::payload::Payload;
use contracts::capability_service::v1::capabilities_server::CapabilitiesServer;
use kit::{BoxError, ChannelKind, Cost, FeedEntry, InitContext, Node, Operation, Peer, Right, Service};
use tonic::service::Routes;

use crate::core::{FOLD_VERSION, Holdings, Uses};

/// Becomes the process `capability_service`.
#[must_use]
pub fn main() -> ExitCode {
    kit::serve::<CapabilityService>()
}

static TABLE: [Operation; 7] = [
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
    Operation::acts(
        "/bailiwick.capability_service.v1.Capabilities/Delegate",
        Cost::Medium,
        "system.capability_service.delegate",
    ),
    Operation::reads(
        "/bailiwick.capability_service.v1.Capabilities/GetChain",
        Cost::Light,
        "system.capability_service.get_chain",
    ),
    // It changes nothing that is on record, but what is left for others.
    Operation::reads(
        "/bailiwick.capability_service.v1.Capabilities/Use",
        Cost::Light,
        "system.capability_service.use",
    )
    .right(Right::Write),
];

/// Knows who holds which right.
pub struct CapabilityService {
    node: Node,
    axiom: Peer,
    holdings: RwLock<Holdings>,
    /// Taken after `holdings`, never before.
    uses: Mutex<Uses>,
}

impl CapabilityService {
    fn holdings(&self) -> RwLockReadGuard<'_, Holdings> {
        self.holdings.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for CapabilityService {
    const NAME: &'static str = "capability_service";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const PROVIDES: &'static [&'static str] = &["capability.capabilities Capabilities/1.0"];
    const FOLD_VERSION: Option<u32> = Some(FOLD_VERSION);

    fn table() -> &'static [Operation] {
        &TABLE
    }

    async fn init(context: InitContext) -> Result<Self, BoxError> {
        let axiom = context.node.peer("axiom");
        Ok(Self { node: context.node, axiom, holdings: RwLock::default(), uses: Mutex::default() })
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

    /// Before anybody is served: what is granted later cannot have been used before.
    fn ready(&self) -> Result<(), BoxError> {
        if let Some(now) = self.node.clock().now() {
            self.uses().begin(now);
        }
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        self.holdings().save()
    }

    fn restore(&self, own: &[u8]) -> Result<(), BoxError> {
        *self.holdings.write().unwrap_or_else(PoisonError::into_inner) = Holdings::restore(own)?;
        Ok(())
    }

    fn fold(&self, entry: &FeedEntry) -> Result<(), BoxError> {
        let payload = entry.decode()?;
        let mut holdings = self.holdings.write().unwrap_or_else(PoisonError::into_inner);
        holdings.apply(entry.reference(), entry.timestamp, payload);
        drop(holdings);
        if matches!(payload, Payload::CapabilityRevoke(_)) {
            let holdings = self.holdings();
            self.uses().forget(&holdings);
        }
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
