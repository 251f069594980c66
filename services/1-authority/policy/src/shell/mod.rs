//! Serves decisions: one task owns the engine; channels bring items, the append channel takes units away.

mod channel;
mod contract;
mod engine;
mod log;
mod saved;

use std::{process::ExitCode, sync::Arc};

use base::limits::MESSAGE_BYTES_MAX;
use contracts::policy::v1::{
    authority_server::AuthorityServer, policy_engine_server::PolicyEngineServer as PolicyContract,
};
use kit::{
    BoxError, Callers, ChannelKind, Component, Cost, FeedPlan, InitContext, Node, Operation, Right, Service,
    Threads,
};
use tonic::service::Routes;

use engine::Desk;

use crate::core::FOLD_VERSION;

/// Becomes the process `policy`.
#[must_use]
pub fn main() -> ExitCode {
    kit::serve::<PolicyService>()
}

static TABLE: [Operation; 7] = [
    // What manifests call `query`.
    Operation::acts("/bailiwick.policy.v1.PolicyEngine/Evaluate", Cost::Light, "system.policy.evaluate")
        .right(Right::Read),
    Operation::reads(
        "/bailiwick.policy.v1.PolicyEngine/GetPolicyState",
        Cost::Light,
        "system.policy.get_policy_state",
    ),
    Operation::acts("/bailiwick.policy.v1.PolicyEngine/AddRule", Cost::Medium, "system.policy.add_rule"),
    Operation::acts(
        "/bailiwick.policy.v1.PolicyEngine/RemoveRule",
        Cost::Medium,
        "system.policy.remove_rule",
    ),
    Operation::reads("/bailiwick.policy.v1.PolicyEngine/ListRules", Cost::Medium, "system.policy.list_rules"),
    // Who was refused gets the id; why, is for the operator.
    Operation::reads("/bailiwick.policy.v1.PolicyEngine/Explain", Cost::Medium, "system.policy.explain")
        .callers(Callers::Admin),
    Operation::acts("/bailiwick.policy.v1.PolicyEngine/ArchiveLog", Cost::Light, "system.policy.archive_log")
        .callers(Callers::Admin),
];

pub(crate) struct PolicyService {
    node: Node,
    desk: Desk,
}

impl Service for PolicyService {
    const NAME: &'static str = "policy";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const PROVIDES: &'static [&'static str] = &["policy.engine PolicyEngine/1.0"];
    const FOLD_VERSION: Option<u32> = Some(FOLD_VERSION);
    // What waits is decided in passes: a second thread would mostly be woken to hand things over.
    const THREADS: Threads = Threads::One;

    fn table() -> &'static [Operation] {
        &TABLE
    }

    /// What policy appends it knows from its own channel; the feed brings time and the kit's shared state.
    fn feed() -> Option<FeedPlan> {
        Some(FeedPlan::of_types(&[]))
    }

    async fn init(mut context: InitContext) -> Result<Self, BoxError> {
        let key = context.signing_key()?;
        let desk = Desk::start(context.node.clone(), key, context.snapshots()).await?;
        Ok(Self { node: context.node, desk })
    }

    fn routes(self: &Arc<Self>, kind: ChannelKind) -> Routes {
        let service = Arc::clone(self);
        match kind {
            ChannelKind::Edge | ChannelKind::Admin => {
                let server = PolicyContract::new(contract::Contract(service));
                Routes::new(server.max_decoding_message_size(MESSAGE_BYTES_MAX))
            }
            ChannelKind::Authority => {
                let server = AuthorityServer::new(channel::Channels(service));
                // Payloads of one message, and what surrounds each of them.
                Routes::new(server.max_decoding_message_size(2 * MESSAGE_BYTES_MAX))
            }
            _ => Routes::default(),
        }
    }

    fn save(&self) -> Vec<u8> {
        self.desk.save()
    }

    /// The engine took its part before it opened its channel, and folds apart from the feed.
    fn restore(&self, _: &[u8]) -> Result<(), BoxError> {
        Ok(())
    }

    fn health(&self) -> Vec<Component> {
        vec![append_channel(self.desk.is_connected())]
    }
}

/// Without axiom nothing is decided, and no restart of this service would bring it back.
fn append_channel(connected: bool) -> Component {
    match connected {
        true => Component::healthy("append channel"),
        false => Component::degraded("append channel", "axiom is not there; nothing can be decided"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_restarts_it_because_the_log_is_away() {
        let away = append_channel(false);
        assert!(away.healthy && away.degraded, "{away:?}");
        assert!(!append_channel(true).degraded);
    }

    #[test]
    fn the_table_is_the_contract() {
        assert_eq!(kit::check_table(&["bailiwick.policy.v1.PolicyEngine"], &TABLE), Vec::<String>::new());
    }
}
