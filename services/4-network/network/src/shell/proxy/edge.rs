//! Secrets that are put into requests here, so that the program does not have them (`core/credential.rs`): that policy lets one be
//! used is on record before, each time and when it is handed over; and what falls with a rule or an identity is wiped.

use std::sync::Arc;

use base::{IdentityId, RuleId, cbor};
use chain::payload::policy::{PolicyAction, SignedDecision};
use hyper::{
    Method, Request,
    body::Incoming,
    client::conn::http1 as client,
    header::{CONNECTION, HeaderValue},
};
use hyper_util::rt::TokioIo;
use kit::{Component, authority::AuthorityError};
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

/// Why a secret is not put into a request.
enum NotUsed {
    /// It is wiped, and there again when the program is started again.
    ForGood(String),
    /// Time alone stands against it, and it stays.
    Now(String),
    /// Nobody has decided.
    Undecided(CallError),
}

impl NotUsed {
    /// What is denied for good is wiped; what a rate or a point in time denies is not there for this once.
    fn settle(self, program: &Program, credential: &Credential) -> CallError {
        let secret = credential.secret();
        match self {
            Self::ForGood(why) => {
                program.withhold(&why, |given| given.credential.is_same(credential));
                CallError::PolicyDenied(format!("the secret {secret} is withheld: {why}"))
            }
            Self::Now(why) => {
                CallError::RateLimitExceeded(format!("the secret {secret} cannot be used now: {why}"))
            }
            Self::Undecided(error) => error,
        }
    }
}

impl Network {
    /// Asks policy in the program's name.
    async fn may_use(&self, program: &Program, credential: &Credential) -> Result<RuleId, CallError> {
        let used = self.decide_use(program, credential).await;
        used.map_err(|not_used| not_used.settle(program, credential))
    }

    async fn decide_use(&self, program: &Program, credential: &Credential) -> Result<RuleId, NotUsed> {
        let unsure = |status: &Status| NotUsed::Undecided(failed(status));
        if !self.node.local().is_active(&program.identity) {
            return Err(NotUsed::ForGood(format!("identity {} is not active", program.identity)));
        }
        let (name, place) = (credential.secret().to_owned(), credential.place());
        let refused = format!("policy does not let {name} be used for {place}");
        let action = PolicyAction::UseSecret { name, place };
        let resource = resource_of(&action);
        let authority = self.node.authority();
        let request = authority.request(program.identity, action, resource);
        let mut request = request.map_err(|error| unsure(&error.into()))?;
        request.context.process = program.process;
        if let Some(service) = program.service() {
            request.context.metadata.insert("service".to_owned(), service.to_owned());
        }
        let decided = match authority.use_now(&request).await {
            Ok(decided) => decided,
            Err(AuthorityError::Denied { decision, later_by }) => {
                let why = format!("{refused} (`bailiwick why {}`)", decision.sequence);
                let Some(rule) = later_by else { return Err(NotUsed::ForGood(why)) };
                // With the rule that can let it be used it goes, whether it was used or not.
                program.waits_for(credential, &rule);
                self.folded(decision.sequence).await.map_err(|status| unsure(&status))?;
                return Err(match self.node.local().rule_in_force(&rule) {
                    true => NotUsed::Now(format!("{why}; by rule {rule} it may later")),
                    false => NotUsed::ForGood(why),
                });
            }
            // The rule stands, and asks for more than is there now. Whatever else is refused was not decided.
            Err(error) if error.is_of_a_condition() => {
                return Err(NotUsed::Now(format!("{refused}: {error}")));
            }
            Err(error) => return Err(unsure(&error.into())),
        };
        let body = cbor::decode::<SignedDecision>(&decided.signed_decision).and_then(|it| it.decode_body());
        let unread = |error| unsure(&Status::internal(format!("the decision cannot be read: {error}")));
        let body = body.map_err(unread)?;
        if !body.allows() {
            return Err(NotUsed::ForGood(refused));
        }
        let rule = body.deciding_rule;
        // A rule that goes is seen here once what it decided by is folded: it takes the secret along from then on.
        program.allowed_by(credential, &rule);
        self.folded(decided.decided_by()).await.map_err(|status| unsure(&status))?;
        match self.node.local().rule_in_force(&rule) {
            true => Ok(rule),
            false => Err(NotUsed::ForGood(format!("rule {rule}, which let it be used, was removed"))),
        }
    }

    /// What a program was started with, before it has its way out: kept if policy lets it be used, now or later, wiped if not. An
    /// error is neither: it is asked for again.
    pub(in crate::shell) async fn release_secrets(&self, program: &Program) -> Result<(), CallError> {
        for credential in program.unreleased() {
            match self.decide_use(program, &credential).await {
                Ok(_) => {}
                Err(NotUsed::Undecided(error)) => return Err(error),
                // The program hears why when it asks.
                Err(not_used) => {
                    let why = not_used.settle(program, &credential).to_string();
                    tracing::warn!(client = program.client, why, "a secret of a program");
                }
            }
        }
        Ok(())
    }

    /// What somebody has to see to: a secret that policy withholds is not among it.
    pub(in crate::shell) fn secrets_health(&self) -> Component {
        const NAME: &str = "secrets";
        let programs = self.all_programs();
        let of = |program: &Arc<Program>| {
            let client = program.client.clone();
            program.lost().into_iter().map(move |(name, why)| format!("{name} of {client}: {why}"))
        };
        let lost: Vec<String> = programs.iter().flat_map(of).collect();
        match lost.first() {
            None => Component::healthy(NAME),
            Some(first) => Component::degraded(NAME, format!("{} withheld; {first}", lost.len())),
        }
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
