//! The service's process: contract in front, the core in the middle, `keys`, policy and the log behind.

mod contract;
mod error;
mod run;

use std::{path::Path, process::ExitCode, sync::Arc};

use base::{PublicKey, limits::MESSAGE_BYTES_MAX};
use contracts::identity::v1::identities_server::IdentitiesServer;
use ed25519_dalek::SigningKey;
use kit::{BoxError, ChannelKind, Component, Cost, FeedEntry, InitContext, Operation, Service};
use tonic::service::Routes;

use run::Runner;

/// The key that signs tokens, which genesis pins; never reachable through `keys`.
const SIGNING_KEY_FILE: &str = "signing.key";

/// Becomes the process `identity`.
#[must_use]
pub fn main() -> ExitCode {
    kit::serve::<IdentityService>()
}

static TABLE: [Operation; 9] = [
    Operation::acts(
        "/bailiwick.identity.v1.Identities/CreateIdentity",
        Cost::Medium,
        "system.identity.create_identity",
    ),
    Operation::reads(
        "/bailiwick.identity.v1.Identities/GetIdentity",
        Cost::Light,
        "system.identity.get_identity",
    ),
    Operation::reads(
        "/bailiwick.identity.v1.Identities/FindIdentity",
        Cost::Light,
        "system.identity.find_identity",
    ),
    Operation::reads(
        "/bailiwick.identity.v1.Identities/ListIdentities",
        Cost::Medium,
        "system.identity.list_identities",
    ),
    Operation::acts(
        "/bailiwick.identity.v1.Identities/UpdateStatus",
        Cost::Medium,
        "system.identity.update_status",
    ),
    Operation::acts(
        "/bailiwick.identity.v1.Identities/IssueToken",
        Cost::Medium,
        "system.identity.issue_token",
    ),
    Operation::reads(
        "/bailiwick.identity.v1.Identities/VerifyToken",
        Cost::Light,
        "system.identity.verify_token",
    ),
    Operation::acts(
        "/bailiwick.identity.v1.Identities/RevokeToken",
        Cost::Medium,
        "system.identity.revoke_token",
    ),
    Operation::reads("/bailiwick.identity.v1.Identities/WhoAmI", Cost::Light, "system.identity.who_am_i"),
];

/// Knows who exists, and signs tokens.
pub struct IdentityService {
    runner: Arc<Runner>,
    signing_key: SigningKey,
}

impl Service for IdentityService {
    const NAME: &'static str = "identity";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const PROVIDES: &'static [&'static str] = &["identity.identities Identities/1.0"];

    fn table() -> &'static [Operation] {
        &TABLE
    }

    async fn init(context: InitContext) -> Result<Self, BoxError> {
        let signing_key = read_key(&context.state_folder.join(SIGNING_KEY_FILE))?;
        Ok(Self { runner: Arc::new(Runner::new(context.node)), signing_key })
    }

    fn routes(self: &Arc<Self>, kind: ChannelKind) -> Routes {
        match kind {
            ChannelKind::Edge | ChannelKind::Admin => {
                let server = IdentitiesServer::new(contract::Handlers(Arc::clone(self)));
                Routes::new(server.max_decoding_message_size(MESSAGE_BYTES_MAX))
            }
            _ => Routes::default(),
        }
    }

    fn fold(&self, entry: &FeedEntry) -> Result<(), BoxError> {
        self.runner.fold(entry)
    }

    fn health(&self) -> Vec<Component> {
        let own = PublicKey(self.signing_key.verifying_key().to_bytes());
        vec![match self.runner.node().local().token_issuer() {
            Some(pinned) if pinned != own => {
                Component::failed("signing_key", format!("genesis pins {pinned}, the file holds {own}"))
            }
            _ => Component::healthy("signing_key"),
        }]
    }

    async fn drain(&self) {
        self.runner.drain().await;
    }
}

fn read_key(file: &Path) -> Result<SigningKey, BoxError> {
    let bytes = std::fs::read(file).map_err(|error| format!("reading {}: {error}", file.display()))?;
    let secret: &[u8; 32] = bytes
        .as_slice()
        .try_into()
        .map_err(|_| format!("{} has {} bytes, not 32", file.display(), bytes.len()))?;
    Ok(SigningKey::from_bytes(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: IDN-03
    #[test]
    fn the_table_is_the_contract() {
        assert_eq!(kit::check_table(&["bailiwick.identity.v1.Identities"], &TABLE), Vec::<String>::new());
    }
}
