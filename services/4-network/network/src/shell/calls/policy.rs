//! The policy by URL: what is in force, what it says, and another one in its place.

use std::sync::Arc;

use chain::payload::{
    network::{NetworkPolicyUpdate, ProcessClass, UrlRule},
    policy::{PolicyAction, ServiceOperation},
};
use contracts::{
    convert::network::{class_name, class_of},
    network::v1 as wire,
};
use kit::{Requestor, authority::Entry};
use tonic::Status;

use super::{Asker, Network, answer, lock, tls};
use crate::{
    core::{CallError, NetError, Schemes, Target, User, check_policy, decide, special},
    shell::authorize::resource_of,
};

fn from_wire(policy: wire::NetworkPolicy, by: &Requestor) -> Result<NetworkPolicyUpdate, String> {
    let rules: Result<Vec<UrlRule>, _> = policy.rules.into_iter().map(UrlRule::try_from).collect();
    let mut read = NetworkPolicyUpdate {
        rules: rules.map_err(|error| error.to_string())?,
        limits: (&policy.limits.unwrap_or_default()).into(),
        authorities: policy.authorities,
        by: by.id(),
    };
    check_policy(&mut read)?;
    // Whoever could not be trusted would be told so at the first request only.
    tls::config(&read)?;
    Ok(read)
}

impl Network {
    fn user_named(&self, asker: &Asker, name: &str) -> Result<User, NetError> {
        if name.is_empty() || name == asker.user.name {
            return Ok(asker.user.clone());
        }
        if self.node.local().genesis_admin() != Some(asker.requestor.id()) {
            return Err(NetError::PermissionDenied(
                "what holds for others is told to administrators".to_owned(),
            ));
        }
        match class_of(name) {
            Some(ProcessClass::Named(name)) => Ok(lock(&self.calls.fold).user(&name, false)),
            Some(class) => Ok(User { class, name: String::new() }),
            None => Ok(lock(&self.calls.fold).user(name, false)),
        }
    }

    pub(super) fn policy_query(
        &self,
        asker: &Asker,
        request: &wire::PolicyQueryRequest,
    ) -> Result<wire::PolicyQueryReply, NetError> {
        let user = self.user_named(asker, &request.r#as)?;
        let (policy, at) = {
            let fold = lock(&self.calls.fold);
            (fold.policy(), fold.policy_at())
        };
        let decision = (!request.url.is_empty()).then(|| self.url_decision(&policy, &user, &request.url));
        Ok(wire::PolicyQueryReply {
            policy: Some((&policy).into()),
            updated_at: at.map(Into::into),
            process_class: class_name(&user.class),
            decision,
        })
    }

    fn url_decision(&self, policy: &NetworkPolicyUpdate, user: &User, url: &str) -> wire::UrlDecision {
        let schemes = if url.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("ws")) {
            Schemes::WebSocket
        } else {
            Schemes::Http
        };
        let refused = |error: &CallError| Some(answer::error(error));
        let target = match Target::parse(url, schemes) {
            Ok(target) => target,
            Err(error) => return wire::UrlDecision { failed: refused(&error), ..Default::default() },
        };
        let (rule, failed) = match decide(&policy.rules, user, &target) {
            Ok(rule) => (Some(rule), self.permit(policy, user, &target).err()),
            Err((rule, error)) => (rule, Some(error)),
        };
        wire::UrlDecision {
            allowed: failed.is_none(),
            rule: rule.map(|rule| rule.id.clone()).unwrap_or_default(),
            url: target.as_str().to_owned(),
            host: target.host().to_owned(),
            port: u32::from(target.port()),
            special: target
                .address()
                .and_then(special)
                .map(|kind| kind.name().to_owned())
                .unwrap_or_default(),
            failed: failed.as_ref().and_then(refused),
        }
    }

    /// NET-40, NET-63: an act, decided and on record, and in force when this returns.
    pub(super) async fn policy_update(
        self: Arc<Self>,
        asker: Asker,
        policy: wire::NetworkPolicy,
    ) -> Result<wire::PolicyUpdateReply, Status> {
        if asker.user.class != ProcessClass::System {
            let text = "an application does not change the network policy".to_owned();
            return Err(NetError::PermissionDenied(text).into());
        }
        let read = from_wire(policy, &asker.requestor).map_err(|text| NetError::invalid("policy", text))?;
        let action = PolicyAction::ControlService {
            service: "network".to_owned(),
            operation: ServiceOperation::Configure,
        };
        let resource = resource_of(&action);
        let request = asker.requestor.ask(&self.node, action, resource)?;
        let entry = Entry::for_request(self.node.identity(), &request, read)
            .map_err(|error| NetError::invalid("policy", error.to_string()))?;
        let committed = self.node.authority().act(&request, entry).await?;
        let at = committed.entry.ok_or_else(|| Status::internal("an act without an entry"))?;
        let folded = self.folded(at.sequence).await;
        self.close_act(at, folded.is_ok());
        folded?;
        Ok(wire::PolicyUpdateReply { updated_at: Some(at.into()) })
    }
}
