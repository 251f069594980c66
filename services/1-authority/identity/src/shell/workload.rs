//! SPIFFE's Workload API: who calls is the socket, streams go on until their workload ends or may no longer have what it gets.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use base::{AxiomTime, limits::MESSAGE_BYTES_MAX};
use contracts::spiffe::{
    self as wire,
    spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer},
};
use kit::Requestor;
use prost_types::{ListValue, Struct, Value, value::Kind};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, service::interceptor::InterceptedService};

use super::svids::Svids;
use crate::core::IdentityError;

/// Without it a browser, or whoever else can be made to call, could be made to call this (SPIFFE_Workload_API.md, section 4).
const HEADER: &str = "workload.spiffe.io";
/// How often a stream looks at the time at least: the kernel's timers stand still while the machine sleeps.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// And at most: what could not be renewed is tried again.
const LOOK_MIN: Duration = Duration::from_secs(1);
/// Messages under way to a workload; the next waits.
const QUEUE: usize = 1;
/// How often bundles are said again; the authority's certificate changes each five years.
const BUNDLE_EVERY_NS: u64 = 3600 * 1_000_000_000;

type Header = fn(Request<()>) -> Result<Request<()>, Status>;
type Stream<T> = ReceiverStream<Result<T, Status>>;

pub(super) fn server(svids: Arc<Svids>) -> InterceptedService<SpiffeWorkloadApiServer<Workloads>, Header> {
    let server = SpiffeWorkloadApiServer::new(Workloads(svids)).max_decoding_message_size(MESSAGE_BYTES_MAX);
    InterceptedService::new(server, check_header as Header)
}

fn check_header(request: Request<()>) -> Result<Request<()>, Status> {
    let mut values = request.metadata().get_all(HEADER).iter();
    let is_there = values.next().is_some_and(|value| value.as_encoded_bytes() == b"true");
    if is_there && values.next().is_none() {
        return Ok(request);
    }
    Err(Status::invalid_argument(format!(
        "send the metadata `{HEADER}: true` once, as every client of SPIFFE does"
    )))
}

#[derive(Clone)]
pub(super) struct Workloads(Arc<Svids>);

/// Who calls, and on which socket.
#[derive(Clone)]
struct Workload {
    requestor: Requestor,
    name: Arc<str>,
}

/// One message of a stream.
struct Turn<T> {
    message: T,
    renew_at: AxiomTime,
    /// After which it is worth nothing.
    ends_at: AxiomTime,
}

impl Workloads {
    fn workload<T>(&self, request: &Request<T>) -> Result<Workload, Status> {
        let requestor = kit::workload(self.0.runner().node(), request).map_err(|error| {
            let status = Status::from(error);
            // SPIFFE knows one answer for who gets nothing.
            Status::with_metadata(Code::PermissionDenied, status.message(), status.metadata().clone())
        })?;
        Ok(Workload { requestor, name: kit::caller(request)?.client.clone() })
    }

    /// The first message is made before the call is answered, so that a refusal is the call's.
    async fn stream<T, M, F>(&self, workload: Workload, make: M) -> Result<Response<Stream<T>>, Status>
    where
        T: Send + 'static,
        M: Fn(Arc<Svids>, Workload) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Turn<T>, Status>> + Send + 'static,
    {
        let svids = Arc::clone(&self.0);
        let changes = svids.status_changes();
        let mut turn = kit::uncancelled(make(Arc::clone(&svids), workload.clone())).await?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let mut waiting = Waiting { svids, workload, changes };
            loop {
                if sender.send(Ok(turn.message)).await.is_err() {
                    return;
                }
                let next = async {
                    loop {
                        waiting.until(turn.renew_at).await?;
                        let made = make(Arc::clone(&waiting.svids), waiting.workload.clone());
                        match kit::uncancelled(made).await {
                            // What holds still is kept while a new one cannot be had.
                            Err(status) if is_passing(&status) && waiting.svids.now()? < turn.ends_at => {
                                tokio::time::sleep(LOOK_MIN).await;
                            }
                            made => return made,
                        }
                    }
                };
                let next = tokio::select! {
                    next = next => next,
                    () = sender.closed() => return,
                };
                match next {
                    Ok(next) => turn = next,
                    Err(status) => {
                        let _ = sender.send(Err(status)).await;
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// A stream between two messages.
struct Waiting {
    svids: Arc<Svids>,
    workload: Workload,
    changes: watch::Receiver<()>,
}

impl Waiting {
    /// Until it is time for the next message; an error if the workload may not have it any more.
    async fn until(&mut self, renew_at: AxiomTime) -> Result<(), Status> {
        loop {
            let id = self.workload.requestor.id();
            if !self.svids.runner().node().local().is_active(&id) {
                return Err(Status::permission_denied(IdentityError::NotActive(id).to_string()));
            }
            let now = self.svids.now()?;
            if now >= renew_at {
                return Ok(());
            }
            let left = Duration::from_nanos(renew_at.since(now)).clamp(LOOK_MIN, LOOK_MAX);
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                // Never closed: this stream holds what sends it.
                _ = self.changes.changed() => {}
            }
        }
    }
}

/// Policy, log or keys are not there or have too much to do, which says nothing about the workload.
fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Internal
    )
}

async fn x509_svid(svids: Arc<Svids>, workload: Workload) -> Result<Turn<wire::X509svidResponse>, Status> {
    let issued = svids.x509(&workload.requestor, &workload.name).await?;
    let svid = wire::X509svid {
        spiffe_id: issued.id.to_string(),
        x509_svid: issued.certificate,
        x509_svid_key: issued.private_key.to_vec(),
        bundle: issued.authority,
        hint: String::new(),
    };
    let message = wire::X509svidResponse { svids: vec![svid], ..wire::X509svidResponse::default() };
    Ok(Turn { message, renew_at: issued.renew_at, ends_at: issued.ends_at })
}

/// By the trust domain, to be said again after a while.
fn bundle(svids: &Svids, bytes: Vec<u8>) -> Result<Turn<HashMap<String, Vec<u8>>>, Status> {
    let message = HashMap::from([(svids.authority()?.domain().id(), bytes)]);
    let renew_at = svids.now()?.saturating_add(BUNDLE_EVERY_NS);
    Ok(Turn { message, renew_at, ends_at: AxiomTime(u64::MAX) })
}

async fn x509_bundles(svids: Arc<Svids>, _: Workload) -> Result<Turn<wire::X509BundlesResponse>, Status> {
    let Turn { message, renew_at, ends_at } = bundle(&svids, svids.own_certificate().await?)?;
    let message = wire::X509BundlesResponse { crl: Vec::new(), bundles: message };
    Ok(Turn { message, renew_at, ends_at })
}

async fn jwt_bundles(svids: Arc<Svids>, _: Workload) -> Result<Turn<wire::JwtBundlesResponse>, Status> {
    let Turn { message, renew_at, ends_at } = bundle(&svids, svids.jwt_keys().await?.into_bytes())?;
    Ok(Turn { message: wire::JwtBundlesResponse { bundles: message }, renew_at, ends_at })
}

fn claims(token: &svid::Token) -> Struct {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    #[expect(clippy::cast_precision_loss, reason = "JSON's numbers are such; seconds are far below 2^53")]
    let number = |seconds: u64| Value { kind: Some(Kind::NumberValue(seconds as f64)) };
    let audience = ListValue { values: token.audience.iter().map(|one| text(one)).collect() };
    let members = [
        ("sub", text(token.subject.as_str())),
        ("aud", Value { kind: Some(Kind::ListValue(audience)) }),
        ("exp", number(token.expires_at_s)),
        ("iat", number(token.issued_at_s)),
    ];
    Struct { fields: members.map(|(name, value)| (name.to_owned(), value)).into() }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Workloads {
    type FetchX509SVIDStream = Stream<wire::X509svidResponse>;
    type FetchX509BundlesStream = Stream<wire::X509BundlesResponse>;
    type FetchJWTBundlesStream = Stream<wire::JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<wire::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.stream(self.workload(&request)?, x509_svid).await
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<wire::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.stream(self.workload(&request)?, x509_bundles).await
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<wire::JwtsvidRequest>,
    ) -> Result<Response<wire::JwtsvidResponse>, Status> {
        let Workload { requestor, name } = self.workload(&request)?;
        let wire::JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        let svids = Arc::clone(&self.0);
        let own = svids
            .authority()?
            .id_of(&name)
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        if !spiffe_id.is_empty() && spiffe_id != own.as_str() {
            let text = format!("this socket's workload is {own}, and gets an SVID for no other id");
            return Err(Status::permission_denied(text));
        }
        kit::uncancelled(async move {
            let (id, svid) = svids.jwt(&requestor, &name, audience).await?;
            let svid = wire::Jwtsvid { spiffe_id: id.to_string(), svid, hint: String::new() };
            Ok(Response::new(wire::JwtsvidResponse { svids: vec![svid] }))
        })
        .await
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<wire::JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.stream(self.workload(&request)?, jwt_bundles).await
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<wire::ValidateJwtsvidRequest>,
    ) -> Result<Response<wire::ValidateJwtsvidResponse>, Status> {
        self.workload(&request)?;
        let wire::ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        let token = self.0.validate(&svid, &audience).await?;
        let (spiffe_id, claims) = (token.subject.to_string(), Some(claims(&token)));
        Ok(Response::new(wire::ValidateJwtsvidResponse { spiffe_id, claims }))
    }
}
