//! Calls over the node's sockets, as the operator or, inside a sandbox, as a service; each waits for its answer.

use std::{future::Future, path::PathBuf};

use base::{IdentityId, TraceId};
use contracts::identity::v1::{IssueTokenRequest, identities_client::IdentitiesClient};
use kit::{CallError, OperationContext, Peer, client::Calls};
use tokio::runtime::Runtime;
use tonic::Status;

use crate::TestNode;

/// Somebody who calls.
pub struct Client {
    runtime: Runtime,
    /// Where the sockets lie, each named after its server.
    sockets: PathBuf,
    identity: IdentityId,
    token: Option<String>,
}

impl Client {
    /// Over the sockets of this folder, as this identity, which the socket must prove.
    #[must_use]
    pub fn new(sockets: impl Into<PathBuf>, identity: IdentityId) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self { runtime: runtime.expect("a runtime"), sockets: sockets.into(), identity, token: None }
    }

    /// The operator, without a token.
    #[must_use]
    pub fn operator(node: &TestNode) -> Self {
        let me = node.json(&["identity", "whoami"]);
        let identity = me["id"].as_str().expect("an id").parse().expect("an id");
        Self::new(node.root().join("run/admin"), identity)
    }

    #[must_use]
    pub fn identity(&self) -> IdentityId {
        self.identity
    }

    /// The same with a token of that text, or without one.
    #[must_use]
    pub fn with_token(mut self, token: Option<&str>) -> Self {
        self.token = token.map(str::to_owned);
        self
    }

    /// A token for the operator that permits these kinds of action; none means all.
    #[must_use]
    pub fn issue(&self, actions: &[&str]) -> String {
        let actions = actions.iter().map(|action| (*action).to_owned()).collect();
        let request = IssueTokenRequest { actions, ..IssueTokenRequest::default() };
        let mut identities = IdentitiesClient::new(self.calls("identity", "system.identity.issue_token"));
        let issued = self.wait(identities.issue_token(request)).expect("a token");
        issued.into_inner().token
    }

    /// What generated clients take.
    #[must_use]
    pub fn calls(&self, server: &str, capability: &str) -> Calls {
        let _inside = self.runtime.enter();
        let context = OperationContext::of_service(self.identity, capability, TraceId([4; 16]));
        let peer = Peer::at(self.sockets.join(format!("{server}.sock")));
        peer.with(&context.expect("a context"), self.token.as_deref()).expect("headers")
    }

    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}

/// How the contract names what went wrong.
#[must_use]
pub fn reason(status: Status) -> String {
    CallError::from(status).reason().to_owned()
}
