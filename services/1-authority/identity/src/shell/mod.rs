//! The service's process: contract in front, the core in the middle, `keys`, policy and the log behind.

mod contract;
mod error;
mod login;
mod run;
mod svids;
mod workload;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use base::limits::MESSAGE_BYTES_MAX;
use chain::payload::{Payload, identity::IdentityChange};
use contracts::identity::v1::identities_server::IdentitiesServer;
use ed25519_dalek::SigningKey;
use kit::{
    BoxError, Callers, ChannelKind, Cost, FeedEntry, FeedPlan, HandedKey, InitContext, Operation, Service,
};
use tonic::service::Routes;

use run::Runner;
use svids::Svids;

use crate::core::FOLD_VERSION;

/// Becomes the process `identity`.
#[must_use]
pub fn main() -> ExitCode {
    kit::serve::<IdentityService>()
}

static TABLE: [Operation; 20] = [
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
    Operation::acts(
        "/bailiwick.identity.v1.Identities/AddCredential",
        Cost::Medium,
        "system.identity.add_credential",
    ),
    Operation::acts(
        "/bailiwick.identity.v1.Identities/RevokeCredential",
        Cost::Medium,
        "system.identity.revoke_credential",
    ),
    Operation::reads(
        "/bailiwick.identity.v1.Identities/ListCredentials",
        Cost::Light,
        "system.identity.list_credentials",
    ),
    Operation::reads(
        "/bailiwick.identity.v1.Identities/RequestChallenge",
        Cost::Light,
        "system.identity.request_challenge",
    ),
    Operation::acts(
        "/bailiwick.identity.v1.Identities/Authenticate",
        Cost::Medium,
        "system.identity.authenticate",
    ),
    Operation::reads("/bailiwick.identity.v1.Identities/WhoAmI", Cost::Light, "system.identity.who_am_i"),
    Operation::reads(
        "/bailiwick.identity.v1.Identities/GetTrustBundle",
        Cost::Medium,
        "system.identity.get_trust_bundle",
    ),
    Operation::acts("/SpiffeWorkloadAPI/FetchX509SVID", Cost::Medium, "system.identity.fetch_x509_svid")
        .callers(Callers::Workload)
        .long(),
    Operation::reads(
        "/SpiffeWorkloadAPI/FetchX509Bundles",
        Cost::Medium,
        "system.identity.fetch_x509_bundles",
    )
    .callers(Callers::Workload)
    .long(),
    Operation::acts("/SpiffeWorkloadAPI/FetchJWTSVID", Cost::Medium, "system.identity.fetch_jwt_svid")
        .callers(Callers::Workload),
    Operation::reads("/SpiffeWorkloadAPI/FetchJWTBundles", Cost::Medium, "system.identity.fetch_jwt_bundles")
        .callers(Callers::Workload)
        .long(),
    Operation::reads("/SpiffeWorkloadAPI/ValidateJWTSVID", Cost::Light, "system.identity.validate_jwt_svid")
        .callers(Callers::Workload),
];

const CREDENTIAL_ADDED: u32 = 90;

/// Knows who exists, and signs tokens.
pub struct IdentityService {
    runner: Arc<Runner>,
    svids: Arc<Svids>,
    /// Until genesis is folded and says which key this must be.
    handed: Mutex<Option<HandedKey>>,
    /// Signs tokens; never reachable through `keys`.
    signing_key: OnceLock<SigningKey>,
}

impl Service for IdentityService {
    const NAME: &'static str = "identity";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const PROVIDES: &'static [&'static str] =
        &["identity.identities Identities/1.0", "identity.workload_api SpiffeWorkloadAPI/1.0"];
    const FOLD_VERSION: Option<u32> = Some(FOLD_VERSION);

    fn table() -> &'static [Operation] {
        &TABLE
    }

    async fn init(mut context: InitContext) -> Result<Self, BoxError> {
        let handed = Mutex::new(Some(context.signing_key()?));
        let runner = Arc::new(Runner::new(context.node));
        let svids = Arc::new(Svids::new(Arc::clone(&runner), svids::settings()?));
        Ok(Self { runner, svids, handed, signing_key: OnceLock::new() })
    }

    fn ready(&self) -> Result<(), BoxError> {
        let mut handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
        // `Start` may be said again, by the next supervisor.
        if let Some(key) = handed.take() {
            let pinned = self.runner.node().local().token_issuer();
            let pinned =
                pinned.ok_or("the log names no key that signs tokens: it does not begin with genesis")?;
            let _ = self.signing_key.set(key.pinned_as(&pinned)?);
        }
        Ok(())
    }

    fn routes(self: &Arc<Self>, kind: ChannelKind) -> Routes {
        match kind {
            ChannelKind::Edge | ChannelKind::Admin => {
                let server = IdentitiesServer::new(contract::Handlers(Arc::clone(self)));
                Routes::new(server.max_decoding_message_size(MESSAGE_BYTES_MAX))
            }
            ChannelKind::Workload => Routes::new(workload::server(Arc::clone(&self.svids))),
            _ => Routes::default(),
        }
    }

    fn feed() -> Option<FeedPlan> {
        Some(FeedPlan::of_types(&[CREDENTIAL_ADDED]))
    }

    fn fold(&self, entry: &FeedEntry) -> Result<(), BoxError> {
        self.runner.fold(entry)?;
        if matches!(entry.decode()?, Payload::IdentityUpdated(update)
            if matches!(update.body.change, IdentityChange::Status { .. }))
        {
            self.svids.status_changed();
        }
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        self.runner.save()
    }

    fn restore(&self, own: &[u8]) -> Result<(), BoxError> {
        self.runner.restore(own)
    }

    async fn drain(&self) {
        self.runner.drain().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: IDN-03
    #[test]
    fn the_table_is_the_contract() {
        assert_eq!(
            kit::check_table(&["bailiwick.identity.v1.Identities", "SpiffeWorkloadAPI"], &TABLE),
            Vec::<String>::new()
        );
    }
}
