//! The node as the command line sees it: folders, admin sockets, who the operator is, a token.

use std::{
    io::ErrorKind,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use base::{IdentityId, KeyPath, Sequence, TraceId, layout::Layout};
use chain::payload::{Payload, identity::IdentityType, service::Genesis};
use contracts::{
    axiom::v1::{GetHeadRequest, axiom_client::AxiomClient},
    capability_service::v1::capabilities_client::CapabilitiesClient,
    driver_manager::v1::devices_client::DevicesClient,
    identity::v1::{IssueTokenRequest, identities_client::IdentitiesClient},
    keys::v1::keys_client::KeysClient,
    network::v1::network_client::NetworkClient,
    policy::v1::policy_engine_client::PolicyEngineClient,
    process_manager::v1::{jobs_client::JobsClient, processes_client::ProcessesClient},
    supervisor::v1::{GetNodeRequest, supervisor_client::SupervisorClient},
};
use kit::{
    CallError, OperationContext, Peer, Seen,
    client::Calls,
    context::{ActorType, ContextFields},
};
use tonic::Status;

use crate::{
    exit::{Failure, REFUSED, UNREACHABLE},
    head, token,
};

/// How long a call may wait for a service that is being restarted.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A boot that takes longer has failed; the node's log says why.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
/// A command asks how far the log goes before it asks a service; one that axiom keeps waiting goes on without.
const HEAD_TIMEOUT: Duration = Duration::from_millis(500);
const BOOT_LOOK: Duration = Duration::from_millis(10);
/// Calls that follow or wait end only when the other side ends them.
const LONG_TIMEOUT: Duration = Duration::from_secs(86_400);

pub struct Node {
    pub layout: Layout,
    pub genesis: Genesis,
    seen: Seen,
}

impl Node {
    /// Finds the node of these folders; says how to make one if there is none.
    pub fn find(layout: Layout) -> Result<Self> {
        let file = layout.genesis();
        let bytes = std::fs::read(&file).map_err(|error| {
            let text = format!(
                "no node of yours under {} ({error}); `bailiwick up` makes one",
                layout.state.display()
            );
            Failure::new(UNREACHABLE, text)
        })?;
        match Payload::decode(0, &bytes).with_context(|| format!("reading {}", file.display()))? {
            Payload::Genesis(envelope) => Ok(Self { layout, genesis: envelope.body, seen: Seen::new() }),
            _ => bail!("{} holds no genesis", file.display()),
        }
    }

    /// The operator: the first admin, vouched for by the uid that owns the admin sockets.
    pub fn admin(&self) -> IdentityId {
        self.genesis.admin
    }

    /// The operator's own key path, as genesis made it.
    pub fn admin_key_path(&self) -> Result<&KeyPath> {
        let own = self.genesis.identities.iter().find(|identity| identity.identity_id == self.admin());
        own.map(|identity| &identity.key_path).context("genesis does not say which key is the operator's")
    }

    /// The node's own identity, the device that the operator acts from.
    fn device(&self) -> Option<IdentityId> {
        let node =
            self.genesis.identities.iter().find(|identity| identity.identity_type == IdentityType::Node);
        node.map(|identity| identity.identity_id)
    }

    /// Identity id by name, among those that genesis made.
    pub fn genesis_name(&self, name: &str) -> Option<IdentityId> {
        let found = self.genesis.identities.iter().find(|identity| identity.name == name);
        found.map(|identity| identity.identity_id)
    }

    pub fn context(&self, capability: &str) -> Result<OperationContext> {
        self.context_of(self.admin(), capability)
    }

    fn context_of(&self, requester: IdentityId, capability: &str) -> Result<OperationContext> {
        let mut trace = [0; 16];
        getrandom::fill(&mut trace).context("the kernel's random source")?;
        let fields = ContextFields {
            app_id: Some("app_0".to_owned()),
            requester_identity_id: Some(requester),
            device_id: self.device(),
            actor_type: Some(ActorType::User),
            capability: Some(capability.to_owned()),
            is_remote: Some(false),
            trace_id: Some(TraceId(trace)),
            ..ContextFields::default()
        };
        Ok(OperationContext::build(fields, false)?)
    }

    /// For the commands that follow.
    pub fn keep(&self, token: &contracts::identity::v1::Token) {
        token::keep(&self.layout, token);
    }

    pub fn admin_socket(&self, service: &str) -> PathBuf {
        self.layout.socket("admin", service)
    }

    /// The way to a service, for several calls over one connection within one runtime.
    pub fn peer(&self, service: &str) -> Peer {
        Peer::at(self.admin_socket(service)).seeing(&self.seen)
    }

    fn calls(
        &self,
        service: &str,
        capability: &str,
        token: Option<&str>,
        timeout: Duration,
    ) -> Result<Calls> {
        let socket = self.admin_socket(service);
        if !socket.exists() {
            let text = format!(
                "the node is not up: {} is not there; start it with `bailiwick up`",
                socket.display()
            );
            return Err(Failure::new(UNREACHABLE, text).into());
        }
        self.calls_over(&self.peer(service), capability, token, timeout)
    }

    fn calls_over(
        &self,
        peer: &Peer,
        capability: &str,
        token: Option<&str>,
        timeout: Duration,
    ) -> Result<Calls> {
        // A token may be another identity's, and the context must agree with it.
        let requester = token.and_then(kit::token::claimed_identity).unwrap_or_else(|| self.admin());
        let context = self.context_of(requester, capability)?;
        Ok(peer.within(&context, token, timeout)?)
    }

    /// Calls to a service that folds the log: its answer knows what earlier commands, whoever gave them, have done.
    async fn fresh_calls(
        &self,
        service: &str,
        capability: &str,
        token: Option<&str>,
        timeout: Duration,
    ) -> Result<Calls> {
        let calls = self.calls(service, capability, token, timeout)?;
        self.see_head().await?;
        Ok(calls)
    }

    /// How far the log goes, once in a command. The head file says it without a question: it is written before an entry is
    /// acknowledged.
    async fn see_head(&self) -> Result<()> {
        if self.seen.get() > Sequence(0) {
            return Ok(());
        }
        let head = match head::on_disk(&self.layout) {
            Some(head) => Some(head),
            None => {
                let capability = "system.axiom.get_head";
                let mut axiom = AxiomClient::new(self.calls("axiom", capability, None, HEAD_TIMEOUT)?);
                let head =
                    axiom.get_head(GetHeadRequest {}).await.ok().and_then(|head| head.into_inner().head);
                head.map(|head| Sequence(head.sequence))
            }
        };
        self.seen.note(head.unwrap_or(Sequence(0)));
        Ok(())
    }

    /// A token for the operator, bound to the admin sockets; kept until shortly before it expires.
    pub async fn token(&self) -> Result<String> {
        if let Some(token) = token::kept(&self.layout) {
            return Ok(token);
        }
        let mut identities = self.identities("system.identity.issue_token").await?;
        let issued = identities.issue_token(IssueTokenRequest::default()).await.map_err(failed)?.into_inner();
        token::keep(&self.layout, &issued);
        Ok(issued.token)
    }

    pub async fn identities(&self, capability: &str) -> Result<IdentitiesClient<Calls>> {
        Ok(IdentitiesClient::new(self.fresh_calls("identity", capability, None, CALL_TIMEOUT).await?))
    }

    /// The same with the operator's token, for what changes something.
    pub async fn identities_acting(&self, capability: &str) -> Result<IdentitiesClient<Calls>> {
        let token = self.token().await?;
        Ok(IdentitiesClient::new(self.fresh_calls("identity", capability, Some(&token), CALL_TIMEOUT).await?))
    }

    pub async fn policy(&self, capability: &str) -> Result<PolicyEngineClient<Calls>> {
        let token = self.token().await?;
        Ok(PolicyEngineClient::new(self.fresh_calls("policy", capability, Some(&token), CALL_TIMEOUT).await?))
    }

    pub async fn keys(&self, capability: &str) -> Result<KeysClient<Calls>> {
        let token = self.token().await?;
        Ok(KeysClient::new(self.fresh_calls("keys", capability, Some(&token), CALL_TIMEOUT).await?))
    }

    pub async fn capabilities(&self, capability: &str) -> Result<CapabilitiesClient<Calls>> {
        let token = self.token().await?;
        Ok(CapabilitiesClient::new(
            self.fresh_calls("capability_service", capability, Some(&token), CALL_TIMEOUT).await?,
        ))
    }

    pub async fn processes(&self, capability: &str) -> Result<ProcessesClient<Calls>> {
        let token = self.token().await?;
        Ok(ProcessesClient::new(
            self.fresh_calls("process_manager", capability, Some(&token), LONG_TIMEOUT).await?,
        ))
    }

    /// The same over a connection that is there already.
    pub async fn processes_over(&self, peer: &Peer, capability: &str) -> Result<ProcessesClient<Calls>> {
        let token = self.token().await?;
        self.see_head().await?;
        Ok(ProcessesClient::new(self.calls_over(peer, capability, Some(&token), LONG_TIMEOUT)?))
    }

    pub async fn jobs(&self, capability: &str) -> Result<JobsClient<Calls>> {
        let token = self.token().await?;
        Ok(JobsClient::new(
            self.fresh_calls("process_manager", capability, Some(&token), LONG_TIMEOUT).await?,
        ))
    }

    pub async fn network(&self, capability: &str) -> Result<NetworkClient<Calls>> {
        let token = self.token().await?;
        Ok(NetworkClient::new(self.fresh_calls("network", capability, Some(&token), CALL_TIMEOUT).await?))
    }

    /// For calls that have a time limit of their own.
    pub async fn network_patient(&self, capability: &str) -> Result<NetworkClient<Calls>> {
        let token = self.token().await?;
        Ok(NetworkClient::new(self.fresh_calls("network", capability, Some(&token), LONG_TIMEOUT).await?))
    }

    pub async fn devices(&self, capability: &str) -> Result<DevicesClient<Calls>> {
        Ok(DevicesClient::new(self.fresh_calls("driver_manager", capability, None, CALL_TIMEOUT).await?))
    }

    pub fn axiom(&self, capability: &str) -> Result<AxiomClient<Calls>> {
        Ok(AxiomClient::new(self.calls("axiom", capability, None, CALL_TIMEOUT)?))
    }

    /// The supervisor answers without a token: it runs when nothing else does.
    pub fn supervisor(&self, capability: &str) -> Result<SupervisorClient<Calls>> {
        Ok(SupervisorClient::new(self.calls("supervisor", capability, None, CALL_TIMEOUT)?))
    }

    /// For events, which come as long as somebody listens, and for starts and stops, which take what the manifest gives
    /// them.
    pub fn supervisor_patient(&self, capability: &str) -> Result<SupervisorClient<Calls>> {
        Ok(SupervisorClient::new(self.calls("supervisor", capability, None, LONG_TIMEOUT)?))
    }

    /// Waits while the node boots; true once it has, false if it does not answer or takes too long.
    pub async fn has_booted(&self) -> bool {
        let since = Instant::now();
        while since.elapsed() < BOOT_TIMEOUT {
            let Ok(mut supervisor) = self.supervisor("system.supervisor.get_node") else { return false };
            match supervisor.get_node(GetNodeRequest {}).await {
                Ok(node) if node.get_ref().state == "booting" => tokio::time::sleep(BOOT_LOOK).await,
                answer => return answer.is_ok(),
            }
        }
        false
    }

    /// Identity by name: genesis first, then the identity service.
    pub async fn identity_id(&self, name: &str) -> Result<IdentityId> {
        if let Some(id) = self.genesis_name(name) {
            return Ok(id);
        }
        let mut identities = self.identities("system.identity.find_identity").await?;
        let request = contracts::identity::v1::FindIdentityRequest { name: name.to_owned() };
        let found = identities.find_identity(request).await.map_err(failed)?.into_inner();
        let identity = found.identity.with_context(|| {
            format!(
                "there is no identity named {name:?}; `bailiwick identity list` shows those that are there"
            )
        })?;
        Ok(IdentityId(contracts::convert::bytes("id", &identity.id)?))
    }
}

/// For the calls of one command.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")
}

/// A failed call as the operator reads it, with an exit code.
pub fn failed(status: Status) -> anyhow::Error {
    if nobody_listens(&status) {
        return Failure::new(UNREACHABLE, "the node is not up; start it with `bailiwick up`").into();
    }
    match CallError::from(status) {
        CallError::Refused { refusal: Some(id), reason, text, .. } => {
            let text = format!("refused: {text} ({reason}); `bailiwick why {}` explains", id.0);
            Failure::new(REFUSED, text)
        }
        CallError::Refused { reason, text, .. } if is_authority(&reason) => {
            Failure::new(REFUSED, format!("refused: {text} ({reason})"))
        }
        CallError::Refused { reason, text, .. } | CallError::Misuse { reason, text } => {
            Failure::new(1, format!("{text} ({reason})"))
        }
        CallError::Gone { reason, text, .. } => {
            Failure::new(UNREACHABLE, format!("no answer: {text} ({reason})"))
        }
    }
    .into()
}

/// The keeper holds the sockets as long as the node is up: calls then wait in them.
fn nobody_listens(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound);
        }
        cause = error.source();
    }
    false
}

/// Refusals for want of a right that no decision of policy records, by the reasons of kit, identity and policy. All others
/// say that something cannot be done, whoever asks.
fn is_authority(reason: &str) -> bool {
    const REASONS: [&str; 7] = [
        "auth_required",
        "auth_invalid",
        "acl_denied",
        "PolicyDenied",
        "Unauthorized",
        "Unauthenticated",
        "CapabilityDenied",
    ];
    REASONS.contains(&reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(status: Status) -> u8 {
        failed(status).downcast_ref::<Failure>().unwrap().code
    }

    #[test]
    fn exit_codes_tell_a_refusal_from_what_cannot_be_done_and_from_nobody_there() {
        let kit = |error: kit::KitError| code(Status::from(error));
        assert_eq!(kit(kit::KitError::TokenRequired), REFUSED);
        assert_eq!(kit(kit::KitError::Busy { what: "x", limit: 1, retry_after_ms: 1 }), 1);
        assert_eq!(kit(kit::KitError::MalformedBody("x".to_owned())), 1);
        assert_eq!(kit(kit::KitError::NotReady { service: "x" }), UNREACHABLE);
        assert_eq!(code(Status::unknown("x")), UNREACHABLE);
    }

    #[tokio::test]
    async fn a_socket_that_nobody_holds_means_that_the_node_is_down() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        for path in [path, folder.path().join("none")] {
            let context = OperationContext::of_service(
                IdentityId([1; 32]),
                "system.supervisor.get_node",
                TraceId([2; 16]),
            );
            let calls = Peer::at(path).with(&context.unwrap(), None).unwrap();
            let request = contracts::supervisor::v1::GetNodeRequest {};
            let status = SupervisorClient::new(calls).get_node(request).await.unwrap_err();
            assert!(failed(status).to_string().contains("bailiwick up"));
        }
    }
}
