//! The service's process: contract in front, the core in the middle, the boundary's socket and the log behind.

mod contract;
mod error;
mod link;
mod lock;
mod rotate;
mod run;

use std::{process::ExitCode, sync::Arc};

use base::limits::MESSAGE_BYTES_MAX;
use contracts::keys::v1::keys_server::KeysServer;
use kit::{
    BoxError, Callers, ChannelKind, Component, Cost, FeedEntry, FeedPlan, InitContext, Operation, Right,
    Service,
};
use tonic::service::Routes;

use link::{Link, LinkError};
use lock::Seed;
use run::Runner;

use crate::core::FOLD_VERSION;

/// The boundary is gone: this process ends with this code and the supervisor starts both again.
pub const EXIT_BOUNDARY_GONE: i32 = 3;

/// Becomes the process `keys`.
#[must_use]
pub fn main() -> ExitCode {
    kit::serve::<KeysService>()
}

static TABLE: [Operation; 10] = [
    Operation::reads("/bailiwick.keys.v1.Keys/DerivePublicKey", Cost::Light, "system.keys.derive_public_key")
        .public(),
    Operation::acts("/bailiwick.keys.v1.Keys/Sign", Cost::Medium, "system.keys.sign").right(Right::Execute),
    Operation::acts("/bailiwick.keys.v1.Keys/SignBytes", Cost::Medium, "system.keys.sign_bytes")
        .right(Right::Execute),
    Operation::acts("/bailiwick.keys.v1.Keys/Encrypt", Cost::Medium, "system.keys.encrypt")
        .right(Right::Execute),
    Operation::acts("/bailiwick.keys.v1.Keys/Decrypt", Cost::Medium, "system.keys.decrypt")
        .right(Right::Execute),
    Operation::reads("/bailiwick.keys.v1.Keys/Verify", Cost::Light, "system.keys.verify").public(),
    Operation::reads("/bailiwick.keys.v1.Keys/GetKeyInfo", Cost::Light, "system.keys.get_key_info").public(),
    Operation::acts("/bailiwick.keys.v1.Keys/Rotate", Cost::Medium, "system.keys.rotate")
        .right(Right::Execute),
    Operation::acts("/bailiwick.keys.v1.Keys/Lock", Cost::Light, "system.keys.lock").callers(Callers::Admin),
    Operation::acts("/bailiwick.keys.v1.Keys/Unlock", Cost::Light, "system.keys.unlock")
        .callers(Callers::Admin),
];

/// Entry types beside the shared state: decisions, and uses of keys.
const FOLDED_TYPES: [u32; 2] = [85, 92];

/// Signs and decrypts with keys that it never sees.
pub struct KeysService {
    runner: Arc<Runner>,
    seed: Seed,
}

impl Service for KeysService {
    const NAME: &'static str = "keys";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const PROVIDES: &'static [&'static str] = &["keys.keys Keys/1.0"];
    const FOLD_VERSION: Option<u32> = Some(FOLD_VERSION);

    fn table() -> &'static [Operation] {
        &TABLE
    }

    fn feed() -> Option<FeedPlan> {
        Some(FeedPlan::of_types(&FOLDED_TYPES))
    }

    async fn init(context: InitContext) -> Result<Self, BoxError> {
        let socket = context.boundary.ok_or("no socket to the key boundary was passed")?;
        let link = Link::start(socket, end_without_boundary)?;
        Ok(Self { runner: Arc::new(Runner::new(context.node, link)), seed: Seed::default() })
    }

    /// Not before: the log says whether the seed may be opened.
    fn ready(&self) -> Result<(), BoxError> {
        lock::follow(Arc::clone(&self.runner), self.seed.clone());
        Ok(())
    }

    fn routes(self: &Arc<Self>, kind: ChannelKind) -> Routes {
        match kind {
            ChannelKind::Edge | ChannelKind::Admin => {
                let server = KeysServer::new(contract::Handlers(Arc::clone(&self.runner), self.seed.clone()));
                Routes::new(server.max_decoding_message_size(MESSAGE_BYTES_MAX))
            }
            _ => Routes::default(),
        }
    }

    fn fold(&self, entry: &FeedEntry) -> Result<(), BoxError> {
        self.runner.fold(entry)
    }

    fn save(&self) -> Vec<u8> {
        self.runner.save()
    }

    fn restore(&self, own: &[u8]) -> Result<(), BoxError> {
        self.runner.restore(own)
    }

    fn health(&self) -> Vec<Component> {
        let boundary = match self.runner.link().fault() {
            None => Component::healthy("boundary"),
            Some(fault) => Component::failed("boundary", fault.to_string()),
        };
        // A restart would not open it: somebody must.
        let seed = match self.seed.locked() {
            None => Component::healthy("seed"),
            Some(why) => Component::degraded("seed", format!("locked: {why}")),
        };
        vec![boundary, seed]
    }

    async fn drain(&self) {
        self.runner.drain().await;
    }
}

/// Nothing here works without the boundary, and only the supervisor can connect a new one.
fn end_without_boundary(fault: LinkError) {
    tracing::error!(%fault, "this process ends; the supervisor starts it and the boundary again");
    std::process::exit(EXIT_BOUNDARY_GONE);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: KEY-20
    #[test]
    fn the_table_is_the_contract_and_has_nothing_of_the_boundarys() {
        assert_eq!(kit::check_table(&["bailiwick.keys.v1.Keys"], &TABLE), Vec::<String>::new());
    }
}
