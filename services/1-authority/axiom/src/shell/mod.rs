//! Serves the log: one thread orders, one writes, handlers only pass on and read.

mod append;
mod archive;
mod feed;
mod followers;
mod order;
mod reads;
mod snapshotting;
mod start;
mod tree;

use std::{process::ExitCode, sync::Arc};

use base::{AxiomTime, limits::MESSAGE_BYTES_MAX};
use contracts::axiom::v1::{
    append_server::AppendServer, axiom_server::AxiomServer as AxiomContract, feed_server::FeedServer,
};
use durable::RealDisk;
use kit::{BoxError, ChannelKind, Component, Cost, FeedPlan, InitContext, Node, Operation, Service, Threads};
use tokio::sync::watch;
use tonic::service::Routes;

use crate::store::LogReader;
use followers::Followers;
use order::Orders;
use snapshotting::Snapshotting;
use start::Identity;
use tree::Tree;

/// Becomes the process `axiom`.
#[must_use]
pub fn main() -> ExitCode {
    kit::serve::<AxiomService>()
}

static TABLE: [Operation; 6] = [
    Operation::reads("/bailiwick.axiom.v1.Axiom/Read", Cost::Light, "system.axiom.read"),
    Operation::reads("/bailiwick.axiom.v1.Axiom/Range", Cost::Heavy, "system.axiom.range").long(),
    Operation::reads("/bailiwick.axiom.v1.Axiom/GetHead", Cost::Light, "system.axiom.get_head"),
    Operation::reads("/bailiwick.axiom.v1.Axiom/GetCheckpoint", Cost::Medium, "system.axiom.get_checkpoint"),
    Operation::reads("/bailiwick.axiom.v1.Axiom/GetState", Cost::Medium, "system.axiom.get_state"),
    Operation::reads("/bailiwick.axiom.v1.Axiom/AwaitFolded", Cost::Light, "system.axiom.await_folded"),
];

/// The log, open.
pub(crate) struct AxiomService {
    orders: Orders,
    reader: LogReader<RealDisk>,
    followers: Arc<Followers>,
    /// The last durable sequence; wakes followers.
    grown: watch::Receiver<u64>,
    identity: Identity,
    tree: Arc<Tree>,
    snapshotting: Snapshotting,
    node: Node,
}

impl Service for AxiomService {
    const NAME: &'static str = "axiom";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const PROVIDES: &'static [&'static str] = &["axiom.log Axiom/1.0"];
    // One for the append channel, one for followers; ordering and writing have threads of their own.
    const THREADS: Threads = Threads::Many(2);

    fn table() -> &'static [Operation] {
        &TABLE
    }

    /// It is what others follow.
    fn feed() -> Option<FeedPlan> {
        None
    }

    /// Its own: it follows nobody.
    fn now(&self, _: &Node) -> Option<AxiomTime> {
        Some(self.identity.time().0)
    }

    async fn init(context: InitContext) -> Result<Self, BoxError> {
        // Reading and verifying a whole log takes its time and would hold up the lifecycle.
        let opened = tokio::task::spawn_blocking(move || start::open(context)).await?;
        if let Err(error) = &opened
            && start::may_pass(error)
        {
            tracing::error!(%error, "the disk refuses; this start ends in {} s", start::DISK_PAUSE.as_secs());
            tokio::time::sleep(start::DISK_PAUSE).await;
        }
        let service = opened?;
        tokio::spawn(tree::grow(Arc::clone(&service.tree), service.grown.clone()));
        Ok(service)
    }

    fn routes(self: &Arc<Self>, kind: ChannelKind) -> Routes {
        let service = Arc::clone(self);
        match kind {
            ChannelKind::Edge | ChannelKind::Admin => {
                let server = AxiomContract::new(reads::Reads(service));
                Routes::new(server.max_decoding_message_size(MESSAGE_BYTES_MAX))
            }
            ChannelKind::Append => {
                let server = AppendServer::new(append::Appends(service));
                Routes::new(server.max_decoding_message_size(append::BATCH_BYTES_MAX))
            }
            ChannelKind::Feed => {
                let server = FeedServer::new(feed::Feeds(service));
                Routes::new(server.max_decoding_message_size(MESSAGE_BYTES_MAX))
            }
            _ => Routes::default(),
        }
    }

    fn health(&self) -> Vec<Component> {
        let log = match self.orders.is_alive() {
            true => Component::healthy("log"),
            false => Component::failed("log", "the ordering thread has ended"),
        };
        let room = match self.orders.shortage() {
            None => Component::healthy("room"),
            Some(shortage) => Component::degraded("room", shortage),
        };
        vec![log, room]
    }

    async fn drain(&self) {
        self.orders.settle().await;
        let tree = Arc::clone(&self.tree);
        // It cannot fail to run: the runtime ends after this.
        let _ = tokio::task::spawn_blocking(move || tree.keep()).await;
        self.snapshotting.finish().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_contract() {
        assert_eq!(kit::check_table(&["bailiwick.axiom.v1.Axiom"], &TABLE), Vec::<String>::new());
    }
}
