//! Decided, on record, and only then done.

use std::{
    net::SocketAddr,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use base::{AxiomRef, ConnectionId, IdentityId, Nonce, ProcessId, RuleId, Sequence, cbor};
use chain::payload::{
    Receipt, ReceiptStatus,
    network::{ConnectionAuthorize, ConnectionRevoke, Direction, NetworkGrant, Protocol},
    policy::{PolicyAction, PolicyRequest, ResourceRef, ResourceType, SignedDecision},
};
use kit::{
    Requestor,
    authority::{AuthorityError, Entry, random_16},
};
use tonic::Status;

use super::Network;
use crate::core::{Asked, Connection, Expected, NetError, UnknownLimit, grant_of};

/// Each of a tenth of a second (`kit::FEED_WAIT_MAX`).
const FOLD_WAITS: usize = 20;
/// Receipts are recorded so often: much more often than anybody looks for one.
const RECEIPTS_EVERY: Duration = Duration::from_millis(10);

/// What is to be allowed.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) direction: Direction,
    pub(super) protocol: Protocol,
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
    /// The name by which the peer was asked for.
    pub(super) name: Option<String>,
    /// Name of the secret that is put into what goes there.
    pub(super) secret: Option<String>,
}

impl Wish {
    /// Who goes out connects, who lets in listens (NET-12).
    fn action(&self) -> Result<PolicyAction, NetError> {
        let text = |address: Option<SocketAddr>| {
            address
                .map(|address| address.to_string())
                .ok_or_else(|| NetError::invalid("address", "it is missing"))
        };
        Ok(match self.direction {
            Direction::Outbound | Direction::Bidirectional => {
                PolicyAction::Connect { address: text(self.remote)? }
            }
            Direction::Inbound => PolicyAction::Listen { address: text(self.local)? },
        })
    }
}

impl Wish {
    /// Of one who comes in: rules are about where it comes to, the record also says from where.
    fn describe_peer(&self, request: &mut PolicyRequest) {
        if let (Direction::Inbound, Some(remote)) = (self.direction, self.remote) {
            request.context.metadata.insert("remote".to_owned(), remote.to_string());
        }
    }

    /// What rules can ask for beside the address. Without a protocol it is TCP.
    fn describe(&self, request: &mut PolicyRequest) {
        let metadata = &mut request.context.metadata;
        if let Some(name) = &self.name {
            metadata.insert("name".to_owned(), name.clone());
        }
        if let Some(secret) = &self.secret {
            metadata.insert("secret".to_owned(), secret.clone());
        }
        if self.protocol == Protocol::Udp {
            metadata.insert("protocol".to_owned(), "udp".to_owned());
        }
    }
}

fn taken_back() -> NetError {
    NetError::AuthorizationRequired("what allowed it was taken back meanwhile".to_owned())
}

/// What rules and a token's scope see: the address, or the connection.
pub(super) fn resource_of(action: &PolicyAction) -> ResourceRef {
    // Each action of this service names its resource.
    action.resource().unwrap_or(ResourceRef { resource_type: ResourceType::Network, id: String::new() })
}

impl Network {
    /// Asks policy, and records what it allows with the limits that it sets. Durable when this returns.
    pub(super) async fn authorize(&self, requestor: &Requestor, wish: Wish) -> Result<Connection, Status> {
        let action = wish.action()?;
        let resource = resource_of(&action);
        let mut request = requestor.ask(&self.node, action, resource)?;
        wish.describe_peer(&mut request);
        wish.describe(&mut request);
        self.authorize_request(request, wish, ProcessId(0)).await
    }

    /// The same for a program, which no token and no socket of its own speaks for: process_manager does.
    pub(super) async fn authorize_program(
        &self,
        identity: IdentityId,
        process: ProcessId,
        wish: Wish,
    ) -> Result<Connection, Status> {
        if !self.node.local().is_active(&identity) {
            return Err(NetError::PermissionDenied(format!("identity {identity} is not active")).into());
        }
        let action = wish.action()?;
        let resource = resource_of(&action);
        let mut request = self.node.authority().request(identity, action, resource)?;
        request.context.process = process;
        wish.describe_peer(&mut request);
        wish.describe(&mut request);
        self.authorize_request(request, wish, process).await
    }

    async fn authorize_request(
        &self,
        mut request: PolicyRequest,
        wish: Wish,
        process: ProcessId,
    ) -> Result<Connection, Status> {
        let asked = Asked {
            identity: request.requestor,
            process,
            inbound: Asked::is_inbound(wish.direction),
            datagrams: Asked::is_datagrams(wish.protocol),
            local: wish.local,
            remote: wish.remote,
            name: wish.name.clone(),
        };
        let expected = self.expected().rule(&asked);
        if let Some(rule) = expected {
            if let Some(connection) = self.authorize_by(&request, &wish, process, rule).await? {
                return Ok(connection);
            }
            self.expected().forget(&asked);
            // The request may have been used up.
            request.nonce = Nonce(random_16()?);
        }
        let connection = self.authorize_anew(&request, &wish, process).await?;
        self.expected().remember(asked, connection.rule.clone());
        Ok(connection)
    }

    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decided and recorded in one step, with the limits of the rule that decided the last time. None if another one decides by
    /// now, or this one has other limits; what was recorded then is closed as not done.
    async fn authorize_by(
        &self,
        request: &PolicyRequest,
        wish: &Wish,
        process: ProcessId,
        rule: RuleId,
    ) -> Result<Option<Connection>, Status> {
        let Some(Ok(grant)) = self.grant_by(&rule) else { return Ok(None) };
        let (id, entry) = self.entry_for(request, wish, process, grant)?;
        let committed = match self.node.authority().act_by(request, entry, &rule).await {
            Err(error) if error.is_of_another_rule() => return Ok(None),
            committed => committed?,
        };
        let at = committed.entry.ok_or_else(|| Status::internal("an act without an entry"))?;
        if let Err(error) = self.folded(committed.decided_by()).await {
            // Whether it still stands cannot be told.
            self.close_act(at, false);
            return Err(error);
        }
        // By all rules that it was decided by. One of the same name may have taken the place of the one that was known here.
        match self.grant_by(&rule) {
            Some(Ok(known)) if known == grant => Ok(Some(Connection { id, at, rule, grant })),
            _ => {
                self.close_act(at, false);
                Ok(None)
            }
        }
    }

    /// Decided first, then recorded with the limits of the rule that decided.
    async fn authorize_anew(
        &self,
        request: &PolicyRequest,
        wish: &Wish,
        process: ProcessId,
    ) -> Result<Connection, Status> {
        let authority = self.node.authority();
        let decided = authority.evaluate(request).await?;
        let decision = decided.decision.ok_or_else(|| Status::internal("a decision without an entry"))?;
        let body = cbor::decode::<SignedDecision>(&decided.signed_decision)
            .and_then(|signed| signed.decode_body())
            .map_err(|error| Status::internal(format!("the decision cannot be read: {error}")))?;
        // The rule that decided may be younger than what is folded here; its limits must be known.
        self.folded(decided.decided_by()).await?;
        let grant = self.grant_by(&body.deciding_rule).ok_or_else(taken_back)?.map_err(|error| {
            NetError::PermissionDenied(format!("decision {}: {error}", decision.sequence))
        })?;
        let (id, entry) = self.entry_for(request, wish, process, grant)?;
        let committed = authority.redeem(decision.sequence, entry).await?;
        let at = committed.entry.ok_or_else(|| Status::internal("an act without an entry"))?;
        if let Err(error) = self.folded(committed.decided_by()).await {
            // Whether it still stands cannot be told.
            self.close_act(at, false);
            return Err(error);
        }
        Ok(Connection { id, at, rule: body.deciding_rule, grant })
    }

    /// What a rule allows; none of one that is not in force, or not known here yet.
    fn grant_by(&self, rule: &RuleId) -> Option<Result<NetworkGrant, UnknownLimit>> {
        self.registry.rules().restrictions(rule).map(grant_of)
    }

    fn entry_for(
        &self,
        request: &PolicyRequest,
        wish: &Wish,
        process: ProcessId,
        grant: NetworkGrant,
    ) -> Result<(ConnectionId, Entry), AuthorityError> {
        let id = ConnectionId(random_16()?);
        let record = ConnectionAuthorize {
            connection: id,
            direction: wish.direction,
            protocol: wish.protocol,
            local: wish.local.map(|address| address.to_string()),
            remote: wish.remote.map(|address| address.to_string()),
            name: wish.name.clone(),
            identity: request.requestor,
            process,
            grant,
            secret: wish.secret.clone(),
        };
        Ok((id, Entry::for_request(self.node.identity(), request, record)?))
    }

    /// Until this process has folded what it is about to rely on. The feed is behind for a moment on a busy machine.
    pub(super) async fn folded(&self, sequence: Sequence) -> Result<(), Status> {
        let mut waited = self.node.feed().wait_for(sequence).await;
        for _ in 1..FOLD_WAITS {
            if waited.is_ok() {
                break;
            }
            waited = self.node.feed().wait_for(sequence).await;
        }
        Ok(waited?)
    }

    /// To be asked once the connection is in the table: what was taken away before that has cut nothing, and what is taken
    /// away after it finds it there.
    pub(super) fn stands(&self, owner: IdentityId, connection: &Connection) -> Result<(), NetError> {
        let local = self.node.local();
        match local.is_active(&owner) && local.rule_in_force(&connection.rule) {
            true => Ok(()),
            false => {
                Err(NetError::AuthorizationRequired("what allowed it was taken back meanwhile".to_owned()))
            }
        }
    }

    /// Takes an authorisation back.
    pub(super) async fn revoke(
        &self,
        requestor: &Requestor,
        connection: ConnectionId,
        reason: String,
    ) -> Result<AxiomRef, Status> {
        let action = PolicyAction::Disconnect { connection };
        let resource = resource_of(&action);
        let request = requestor.ask(&self.node, action, resource)?;
        let body = ConnectionRevoke { connection, by: requestor.id(), reason };
        let entry = Entry::for_request(self.node.identity(), &request, body)?;
        let committed = self.node.authority().act(&request, entry).await?;
        committed.entry.ok_or_else(|| Status::internal("an act without an entry"))
    }

    /// Closes the act: it was carried out, or was not. Nobody waits for it, so those of a moment go together: no act waits for
    /// the disk behind the receipt of the one before it.
    pub(super) fn close_act(&self, at: AxiomRef, done: bool) {
        let receipt = Receipt::closing(at, ReceiptStatus::of(done));
        let node = self.node.clone();
        tokio::spawn(async move {
            tokio::time::sleep(kit::until_next(RECEIPTS_EVERY)).await;
            let recorded = match Entry::record(node.identity(), receipt) {
                Ok(entry) => node.authority().record(entry).await.map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = recorded {
                tracing::warn!(%error, sequence = %at.sequence, "the receipt of a connection is not on record");
            }
        });
    }
}
