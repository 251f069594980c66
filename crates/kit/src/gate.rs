//! What every call passes before a handler: route, context, admission, authority table; once, for gRPC and JSON.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, Request, Response, header::CONTENT_TYPE};
use hyper::body::Incoming;
use tokio::{
    net::UnixStream,
    sync::{Notify, OwnedSemaphorePermit},
};
use tonic::{Status, body::Body, service::Routes};
use tower::Service as _;

use crate::{
    admission::{Admission, Slot},
    authority,
    channel::{Caller, ChannelKind},
    context::{CONTEXT_METADATA, MESH_CLIENT, OperationContext, Origin},
    error::KitError,
    feed::{FEED_WAIT_MAX, FEED_WAIT_OPERATOR_MAX, Feed},
    frames::{Guarded, Metered},
    json,
    misuse::{EdgeRights, Misuse, Now},
    observe::{Counter, Metrics},
    phase::{Life, Phase},
    seen,
    table::{Callers, Cost, Operation, Table},
};

/// What an operation of a class may take until it answers, in milliseconds; ten times what is expected, because the
/// machine is shared. The caller's own deadline counts if it is shorter.
pub(crate) const fn time_limit_ms(cost: Cost) -> u64 {
    match cost {
        Cost::Light => 10_000,
        Cost::Medium => 30_000,
        Cost::Heavy => 120_000,
    }
}

/// Handlers by kind of socket; there once `Init` was answered.
pub(crate) type RouteSet = HashMap<ChannelKind, Routes>;

/// Takes a connection that carries no calls.
pub(crate) type Take = Box<dyn Fn(&Caller, UnixStream) + Send + Sync>;

pub(crate) struct Gate {
    pub(crate) service: &'static str,
    pub(crate) table: Table,
    pub(crate) life: Arc<Life>,
    pub(crate) admission: Admission,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) routes: Arc<OnceLock<RouteSet>>,
    pub(crate) rights: Arc<EdgeRights>,
    /// Set with the routes.
    pub(crate) now: Arc<OnceLock<Now>>,
    pub(crate) lifecycle: Routes,
    pub(crate) tools: OnceLock<Routes>,
    pub(crate) rows: &'static [Operation],
    pub(crate) counters: &'static [&'static Counter],
    /// Where the service stands in the log; set with the routes.
    pub(crate) feed: Arc<OnceLock<Feed>>,
    /// It folds the log through the kit, so that it can wait for what a caller has seen.
    pub(crate) follows: bool,
    pub(crate) owner_uid: Option<u32>,
    /// Rings when a call has ended, for whoever drains.
    pub(crate) ended: Arc<Notify>,
    /// What a connection begins with that carries no calls, and who takes it; set with the routes.
    pub(crate) greeting: Option<&'static [u8]>,
    pub(crate) take: Arc<OnceLock<Take>>,
}

/// How the caller wants its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Face {
    Grpc,
    Json,
}

impl Face {
    fn of(headers: &HeaderMap) -> Self {
        let grpc =
            headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if grpc { Self::Grpc } else { Self::Json }
    }
}

/// Counts a call in flight until its answer was written.
struct InFlight {
    metrics: Arc<Metrics>,
    ended: Arc<Notify>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.leave();
        self.ended.notify_waiters();
    }
}

/// Held by an answer: class slot, count in flight, place on the socket.
type Guards = (Option<Slot>, Option<InFlight>, OwnedSemaphorePermit);

impl Gate {
    pub(crate) async fn handle(
        &self,
        caller: &Caller,
        place: Option<OwnedSemaphorePermit>,
        busy: &KitError,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let face = Face::of(request.headers());
        match caller.channel {
            ChannelKind::Lifecycle => self.plumbing(self.lifecycle.clone(), request, place).await,
            ChannelKind::Feed | ChannelKind::Authority | ChannelKind::Append => {
                self.node_channel(caller, request, place).await
            }
            ChannelKind::Boundary | ChannelKind::Clients | ChannelKind::Signing => {
                self.refuse(face, &KitError::UnknownOperation(String::new()).into())
            }
            ChannelKind::Edge | ChannelKind::Admin => match place {
                None => self.refuse(face, &busy.clone().into()),
                Some(place) => self.operation(caller, place, face, request).await,
            },
            ChannelKind::Workload => match place {
                None => self.refuse(face, &busy.clone().into()),
                Some(place) => self.workload(caller, place, face, request).await,
            },
        }
    }

    fn refuse(&self, face: Face, status: &Status) -> Response<Body> {
        match face {
            Face::Grpc => status.clone().into_http(),
            Face::Json => json::error_response(self.service, self.life.phase(), status),
        }
    }

    /// The kit's own contracts: their messages carry what an operation context would say.
    async fn plumbing(
        &self,
        mut routes: Routes,
        request: Request<Incoming>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Response<Body> {
        let request = request.map(|body| Body::new(Metered::new(body)));
        let Ok(response) = routes.call(request).await;
        response.map(|body| Body::new(Guarded::new(body, place)))
    }

    async fn node_channel(
        &self,
        caller: &Caller,
        mut request: Request<Incoming>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Response<Body> {
        let face = Face::of(request.headers());
        let phase = self.life.phase();
        // A service that drains still answers what others need to finish their work.
        if !matches!(phase, Phase::Serving | Phase::Draining) {
            return self.refuse(face, &KitError::NotReady { service: self.service }.into());
        }
        let expected = match caller.channel {
            ChannelKind::Feed => "/bailiwick.axiom.v1.Feed/Follow",
            ChannelKind::Append => "/bailiwick.axiom.v1.Append/Channel",
            _ => "/bailiwick.policy.v1.Authority/Channel",
        };
        let routes = self.routes.get().and_then(|set| set.get(&caller.channel)).cloned();
        match routes {
            Some(routes) if request.uri().path() == expected && face == Face::Grpc => {
                request.extensions_mut().insert(caller.clone());
                self.plumbing(routes, request, place).await
            }
            _ => self.refuse(face, &KitError::UnknownOperation(path_of(&request)).into()),
        }
    }

    /// A published contract: no context, for its callers know of none. The socket says who calls, and the rest is as for
    /// every other call.
    async fn workload(
        &self,
        caller: &Caller,
        place: OwnedSemaphorePermit,
        face: Face,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let row = self.table.find(request.uri().path());
        let row = row.filter(|(_, operation)| operation.callers == Callers::Workload && face == Face::Grpc);
        let Some((row, operation)) = row else {
            self.metrics.unrouted();
            return self.refuse(face, &KitError::UnknownOperation(path_of(&request)).into());
        };
        let since = Instant::now();
        self.metrics.enter();
        let in_flight = InFlight { metrics: Arc::clone(&self.metrics), ended: Arc::clone(&self.ended) };
        match self.admission.admit(self.life.phase(), operation.cost).await {
            Ok(slot) => {
                let slot = if operation.long { None } else { Some(slot) };
                let guards = (slot, Some(in_flight), place);
                self.dispatch(caller, face, row, operation, None, guards, since, request).await
            }
            Err(error) => {
                self.metrics.answered(row, true, since);
                tracing::info!(client = %caller.client, operation = operation.path, reason = %error, "refused");
                self.refuse(face, &error.into())
            }
        }
    }

    async fn operation(
        &self,
        caller: &Caller,
        place: OwnedSemaphorePermit,
        face: Face,
        request: Request<Incoming>,
    ) -> Response<Body> {
        if caller.is_admin() {
            if let Err(error) = self.check_owner(caller) {
                return self.refuse(face, &error.into());
            }
            if let Some(response) = self.tool(&request) {
                return response;
            }
            if is_tool(request.uri().path()) {
                let tools = self.tools.get_or_init(|| build_tools(self.rows, &self.life)).clone();
                return self.plumbing(tools, request, Some(place)).await;
            }
        }
        let Some((row, operation)) = self.table.find(request.uri().path()) else {
            self.metrics.unrouted();
            return match face {
                Face::Grpc => self.refuse(face, &KitError::UnknownOperation(path_of(&request)).into()),
                Face::Json => json::not_found(),
            };
        };
        let since = Instant::now();
        self.metrics.enter();
        let in_flight = InFlight { metrics: Arc::clone(&self.metrics), ended: Arc::clone(&self.ended) };
        let mut response = match self.let_in(caller, operation, &request).await {
            Ok((context, slot)) => {
                let guards = (if operation.long { None } else { Some(slot) }, Some(in_flight), place);
                self.dispatch(caller, face, row, operation, Some(context), guards, since, request).await
            }
            Err(error) => {
                self.rights.refused(caller, &error);
                self.metrics.answered(row, true, since);
                tracing::info!(client = %caller.client, operation = operation.path, reason = %error, "refused");
                self.refuse(face, &error.into())
            }
        };
        if let Some(feed) = self.feed.get() {
            feed.seen().answer(response.headers_mut());
        }
        response
    }

    /// Structure first, then health and room, then who may (CTX-14, FCL-03).
    async fn let_in(
        &self,
        caller: &Caller,
        operation: &'static Operation,
        request: &Request<Incoming>,
    ) -> Result<(OperationContext, Slot), KitError> {
        let mut headers = request.headers().get_all(CONTEXT_METADATA).iter();
        let header = headers.next().ok_or_else(|| {
            KitError::EnvelopeInvalid(format!("the header `{CONTEXT_METADATA}` is missing"))
        })?;
        if headers.next().is_some() {
            return Err(KitError::EnvelopeInvalid(format!(
                "the header `{CONTEXT_METADATA}` stands there twice"
            )));
        }
        let context = OperationContext::parse(header.as_bytes(), operation.public)?;
        if context.origin() == Origin::Remote && &*caller.client != MESH_CLIENT {
            return Err(KitError::EnvelopeInvalid("a remote context is made by the mesh alone".to_owned()));
        }
        // Before there is a slot: who cites what does not come must not keep others from theirs.
        self.catch_up(caller, request.headers()).await?;
        let slot = self.admission.admit(self.life.phase(), operation.cost).await?;
        if !operation.lets_in(&caller.client, caller.is_admin()) {
            return Err(KitError::CallerNotAllowed {
                client: caller.client.to_string(),
                operation: operation.path,
            });
        }
        if let Some(stated) = context.capability().filter(|stated| *stated != operation.capability) {
            return Err(KitError::CapabilityMismatch {
                stated: stated.to_owned(),
                needed: operation.capability,
                operation: operation.path,
            });
        }
        self.rights.check(caller, operation, self.now.get().and_then(|now| now()))?;
        Ok((context, slot))
    }

    /// Nobody is answered from an older state than they have seen elsewhere; not even who may is decided on one.
    async fn catch_up(&self, caller: &Caller, headers: &HeaderMap) -> Result<(), KitError> {
        let wanted = seen::cited(headers)?.filter(|_| self.follows && self.life.phase() == Phase::Serving);
        let (Some(wanted), Some(feed)) = (wanted, self.feed.get()) else { return Ok(()) };
        let patience = if caller.is_admin() { FEED_WAIT_OPERATOR_MAX } else { FEED_WAIT_MAX };
        feed.wait_within(wanted, patience).await
    }

    #[expect(clippy::too_many_arguments, reason = "everything that was learned about one call, used once")]
    async fn dispatch(
        &self,
        caller: &Caller,
        face: Face,
        row: usize,
        operation: &'static Operation,
        context: Option<OperationContext>,
        mut guards: Guards,
        since: Instant,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let Some(mut routes) = self.routes.get().and_then(|set| set.get(&caller.channel)).cloned() else {
            return self.refuse(face, &KitError::UnknownOperation(operation.path.to_owned()).into());
        };
        let limit = time_limit(operation, request.headers());
        let call = async {
            let (mut request, method) = match self.read(face, request).await {
                Ok(read) => read,
                Err(error) => return self.refuse(face, &error.into()),
            };
            request.extensions_mut().insert(caller.clone());
            request.extensions_mut().insert(Misuse::new(&self.rights, caller));
            if let Some(context) = context {
                request.extensions_mut().insert(Arc::new(context));
            }
            request.extensions_mut().insert(operation);
            let Ok(response) = routes.call(request).await;
            match method {
                None => response,
                Some(method) => {
                    json::write_response(self.service, self.life.phase(), &method, response).await
                }
            }
        };
        let response = match limit {
            None => call.await,
            Some(limit) => match tokio::time::timeout(limit, call).await {
                Ok(response) => response,
                Err(_) => {
                    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                    self.refuse(face, &KitError::TooSlow { limit_ms }.into())
                }
            },
        };
        self.metrics.answered(row, is_failure(&response), since);
        if operation.long && caller.channel == ChannelKind::Workload {
            // Such a stream ends with its workload alone: it is not waited for when this service stops.
            guards.1 = None;
        }
        response.map(|body| Body::new(Guarded::new(body, guards)))
    }

    /// The request as the handler expects it, and the method if the answer must be JSON.
    async fn read(
        &self,
        face: Face,
        request: Request<Incoming>,
    ) -> Result<(Request<Body>, Option<prost_reflect::MethodDescriptor>), KitError> {
        if face == Face::Grpc {
            return Ok((request.map(|body| Body::new(Metered::new(body))), None));
        }
        let (mut parts, body) = request.into_parts();
        let is_json = parts
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        if parts.method != Method::POST || !is_json {
            return Err(KitError::MalformedBody("send a POST with content-type application/json".to_owned()));
        }
        let method = json::find_method(parts.uri.path())
            .ok_or_else(|| KitError::UnknownOperation(parts.uri.path().chars().take(120).collect()))?;
        let body = json::read_request(&method, body).await?;
        parts.headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
        parts.headers.remove(http::header::CONTENT_LENGTH);
        Ok((Request::from_parts(parts, body), Some(method)))
    }

    fn check_owner(&self, caller: &Caller) -> Result<(), KitError> {
        if is_owner(caller.peer_uid, self.owner_uid) {
            Ok(())
        } else {
            Err(KitError::NotOwner(caller.peer_uid))
        }
    }

    fn tool(&self, request: &Request<Incoming>) -> Option<Response<Body>> {
        (request.method() == Method::GET && request.uri().path() == "/metrics").then(|| {
            let own = [self.counters, &authority::COUNTERS].concat();
            let folded = self.feed.get().map_or(0, |feed| feed.folded().0);
            let text = self.metrics.text(folded, &own);
            json::text_response("text/plain; version=0.0.4", text)
        })
    }
}

/// Root or the owner; an unknown peer is nobody, also where no owner is named.
fn is_owner(peer: Option<u32>, owner: Option<u32>) -> bool {
    peer.is_some() && (peer == Some(0) || peer == owner)
}

fn path_of(request: &Request<Incoming>) -> String {
    request.uri().path().chars().take(120).collect()
}

fn is_failure(response: &Response<Body>) -> bool {
    !response.status().is_success()
        || response.headers().get("grpc-status").is_some_and(|status| status.as_bytes() != b"0")
}

fn time_limit(operation: &Operation, headers: &HeaderMap) -> Option<Duration> {
    let asked = headers.get("grpc-timeout").and_then(|value| parse_timeout(value.as_bytes()));
    let own = (!operation.long).then(|| Duration::from_millis(time_limit_ms(operation.cost)));
    match (own, asked) {
        (Some(own), Some(asked)) => Some(own.min(asked)),
        (own, asked) => own.or(asked),
    }
}

/// `grpc-timeout`: at most eight digits and a unit.
fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

fn is_tool(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.Health/") || path.starts_with("/grpc.reflection.v1.ServerReflection/")
}

/// Health and reflection as clients expect them; built when first asked for.
fn build_tools(rows: &'static [Operation], life: &Arc<Life>) -> Routes {
    let (reporter, health) = tonic_health::server::health_reporter();
    let life = Arc::clone(life);
    tokio::spawn(async move {
        reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        life.reached(Phase::Serving).await;
        reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
        life.reached(Phase::Draining).await;
        reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    });
    let routes = Routes::new(health);
    let mut builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(contracts::FILE_DESCRIPTOR_SET);
    for row in rows {
        if let Some((service, _)) = row.path.trim_start_matches('/').split_once('/') {
            builder = builder.with_service_name(service);
        }
    }
    match builder.build_v1() {
        Ok(reflection) => routes.add_service(reflection),
        Err(error) => {
            tracing::error!(%error, "no reflection: the descriptor set cannot be read");
            routes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_socket_is_for_root_and_the_owner() {
        assert!(is_owner(Some(0), None) && is_owner(Some(0), Some(7)) && is_owner(Some(7), Some(7)));
        assert!(
            !is_owner(Some(8), Some(7))
                && !is_owner(Some(8), None)
                && !is_owner(None, None)
                && !is_owner(None, Some(7))
        );
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse_timeout(b"10S"), Some(Duration::from_secs(10)));
        assert_eq!(parse_timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "S", "1", "1s", "-1S", "123456789S", "1.5S"] {
            assert_eq!(parse_timeout(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
