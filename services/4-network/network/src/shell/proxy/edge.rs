//! Secrets that are put into requests here, so that the program does not have them (`core/credential.rs`): that policy lets one be
//! used is on record before, each time and when it is handed over; and what falls with a rule or an identity is wiped.

use base::{IdentityId, RuleId, cbor};
use chain::payload::policy::{PolicyAction, SignedDecision};
use hyper::{
    Method, Request,
    body::Incoming,
    client::conn::http1 as client,
    header::{CONNECTION, HeaderValue},
};
use hyper_util::rt::TokioIo;
use kit::authority::AuthorityError;
use tokio::time::timeout;
use tonic::Status;

use super::{
    Proxied,
    http::{Answer, By, Task, passed_on, written_anew},
    line::Sent,
};
use crate::{
    core::{
        CallError, Credential, Target, User,
        limits::{EDGE_TLS_TIMEOUT, HEADERS_MAX, RELAY_BUFFER_BYTES},
    },
    shell::{
        Network,
        authorize::resource_of,
        calls::{Wire, failed},
        program::Program,
    },
};

/// A secret that policy has just let be used.
pub(super) struct Usable {
    credential: Credential,
    rule: RuleId,
    /// Where it goes, and in whose name that was judged.
    upstream: Target,
    user: User,
}

impl Proxied {
    /// What is put into this request, which is none for a tunnel.
    pub(super) async fn credential_for(
        &self,
        method: &Method,
        target: &Target,
    ) -> Result<Option<Usable>, CallError> {
        let Some(credential) = self.program.credential_for(target) else { return Ok(None) };
        credential.permits(method)?;
        credential.held()?;
        // What costs nothing comes first: whom rules by URL and the windows of requests refuse puts nothing on record.
        let upstream = credential.upstream(target)?;
        let user = self.judge(&upstream)?;
        let rule = self.network.may_use(&self.program, &credential).await?;
        self.program.allowed_by(&credential, &rule);
        Ok(Some(Usable { credential, rule, upstream, user }))
    }

    /// As it is now: since policy was asked its host may have taken its time.
    fn still_given(&self, usable: &Usable, asked: &Target) -> Result<Credential, CallError> {
        let Usable { credential, rule, .. } = usable;
        let withheld = |why: &str| {
            CallError::PolicyDenied(format!("the secret {} is withheld: {why}", credential.secret()))
        };
        let given = self.program.credential_for(asked).filter(|given| given.is_same(credential));
        let given = given.ok_or_else(|| withheld("its program has it no more"))?;
        let local = self.network.node.local();
        if !local.is_active(&self.program.identity) {
            return Err(withheld("its identity is not active"));
        }
        if !local.rule_in_force(rule) {
            return Err(withheld("the rule that let it be used was removed"));
        }
        given.held()?;
        Ok(given)
    }

    /// To its host by TLS, with its header, over a connection that is this request's alone.
    pub(super) async fn exchange_with(
        &self,
        usable: Usable,
        request: Request<Incoming>,
        asked: &Target,
    ) -> Result<Answer, CallError> {
        let Usable { credential, upstream: target, user, .. } = &usable;
        let failed = |error: hyper::Error| CallError::ConnectionFailed(format!("{}: {error}", target.host()));
        let mut request = written_anew(request, target)?;
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        let opened = self.open(user.clone(), target, Some(credential.secret())).await?;
        let (here, inside) = tokio::io::duplex(RELAY_BUFFER_BYTES);
        let carrying = Task(tokio::spawn(opened.carry(inside, Vec::new())).abort_handle());
        let here: Wire = if kit::is_broken("edge-tls") {
            // What `prove` switched off: whoever answers is told.
            Box::new(here)
        } else {
            // Nothing is said before the host has shown whom it is.
            let made = self.network.calls.tls_by(Box::new(here), target.host(), credential.authority());
            let late = |_| CallError::Timeout(EDGE_TLS_TIMEOUT.as_millis());
            timeout(EDGE_TLS_TIMEOUT, made).await.map_err(late)??
        };
        let (mut sender, connection) = client::Builder::new()
            .max_headers(HEADERS_MAX)
            .handshake::<_, Sent>(TokioIo::new(here))
            .await
            .map_err(failed)?;
        let driving = Task(tokio::spawn(connection).abort_handle());
        // Last: what the program says of its headers is done by then, and the host is the one that it is for.
        self.still_given(&usable, asked)?.put_into(request.headers_mut())?;
        let answer = sender.send_request(request).await.map_err(failed)?;
        passed_on(answer, By::Own { _tasks: [carrying, driving] })
    }
}

impl Network {
    /// Asks policy in the program's name. What is denied is wiped: it is there again when the program is started again.
    async fn may_use(&self, program: &Program, credential: &Credential) -> Result<RuleId, CallError> {
        let denied = |why: String| {
            program.withhold(&why, |given| given.credential.is_same(credential));
            Err(CallError::PolicyDenied(format!("the secret {} is withheld: {why}", credential.secret())))
        };
        if !self.node.local().is_active(&program.identity) {
            return denied(format!("identity {} is not active", program.identity));
        }
        let (name, place) = (credential.secret().to_owned(), credential.place());
        let action = PolicyAction::UseSecret { name, place };
        let resource = resource_of(&action);
        let authority = self.node.authority();
        let request = authority.request(program.identity, action, resource);
        let mut request = request.map_err(|error| failed(&error.into()))?;
        request.context.process = program.process;
        if let Some(service) = program.service() {
            request.context.metadata.insert("service".to_owned(), service.to_owned());
        }
        let decided = match authority.evaluate(&request).await {
            Ok(decided) => decided,
            Err(AuthorityError::Denied { decision }) => {
                return denied(format!(
                    "policy does not let {} be used for {} (`bailiwick why {}`)",
                    credential.secret(),
                    credential.place(),
                    decision.sequence
                ));
            }
            Err(error) => return Err(failed(&error.into())),
        };
        let body = cbor::decode::<SignedDecision>(&decided.signed_decision).and_then(|it| it.decode_body());
        let unread = |error| failed(&Status::internal(format!("the decision cannot be read: {error}")));
        let rule = body.map_err(unread)?.deciding_rule;
        // A rule that goes is seen here once what it decided by is folded: it takes the secret along from then on.
        self.folded(decided.decided_by()).await.map_err(|status| failed(&status))?;
        match self.node.local().rule_in_force(&rule) {
            true => Ok(rule),
            false => denied(format!("rule {rule}, which let it be used, was removed")),
        }
    }

    /// What a program was started with, before it has its way out: kept if policy lets it be used, wiped if not. An error is
    /// neither: it is asked for again.
    pub(in crate::shell) async fn release_secrets(&self, program: &Program) -> Result<(), CallError> {
        for credential in program.credentials() {
            if credential.held().is_err() {
                continue;
            }
            match self.may_use(program, &credential).await {
                Ok(rule) => program.allowed_by(&credential, &rule),
                // Wiped, and the program hears why when it asks.
                Err(CallError::PolicyDenied(why)) => {
                    tracing::warn!(client = program.client, why, "a secret of a program");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(in crate::shell) fn withhold_by(&self, rule: &RuleId) {
        let why = format!("rule {rule}, which let it be used, was removed");
        for program in self.all_programs() {
            program.withhold(&why, |given| given.rule.as_ref() == Some(rule));
        }
    }

    pub(in crate::shell) fn withhold_of(&self, identity: &IdentityId) {
        for program in self.all_programs().iter().filter(|program| program.identity == *identity) {
            program.withhold("its identity is not active", |_| true);
        }
    }
}
