//! A request of HTTP/1.1: one connection for each hop, its answer passed on as it comes.

use std::{sync::Arc, time::Duration};

use chain::payload::network::CallLimits;
use contracts::network::v1::{self as wire, fetch_part::Part};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{
    Asker, Network,
    answer::{self, Parts},
    headers,
    reach::{Peer, wire_id},
    redirect::Order,
    slots::{Kind, Slot},
};
use crate::core::{
    CallError, NetError, Schemes, Target,
    limits::{HEADERS_MAX, REDIRECTS_MAX, TRANSFER_BYTES_MAX, time_limit_or_default},
};

/// Parts that wait for a caller who reads more slowly than the peer writes.
const PARTS_AHEAD: usize = 2;
const AGENT: HeaderValue = HeaderValue::from_static("bailiwick");

pub(in crate::shell) type FetchStream = ReceiverStream<Result<wire::FetchPart, Status>>;

/// What is asked for, checked but for what policy says of it.
struct Fetch {
    order: Order,
    follows: bool,
    limit: Duration,
}

/// NET-43.
fn method(name: &str) -> Result<Method, NetError> {
    match name {
        "GET" => Ok(Method::GET),
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "DELETE" => Ok(Method::DELETE),
        "PATCH" => Ok(Method::PATCH),
        "HEAD" => Ok(Method::HEAD),
        "OPTIONS" => Ok(Method::OPTIONS),
        other => {
            let shown: String = base::visible(other).chars().take(32).collect();
            Err(NetError::invalid(
                "method",
                format!("{shown:?} is none of GET POST PUT DELETE PATCH HEAD OPTIONS"),
            ))
        }
    }
}

impl Fetch {
    /// A method or a header that does not exist is the caller's misuse; all else is a result.
    fn read(request: wire::FetchRequest, limits: &CallLimits) -> Result<Result<Self, CallError>, NetError> {
        let method = method(&request.method)?;
        let headers = match headers::read(&request.headers, limits.header_bytes)? {
            Ok(headers) => headers,
            Err(error) => return Ok(Err(error)),
        };
        if request.body.len() > limits.request_bytes as usize {
            return Ok(Err(CallError::too_large("the request's body", u64::from(limits.request_bytes))));
        }
        let limit = time_limit_or_default(request.timeout_ms);
        let (follows, body) = (!request.no_redirects, Bytes::from(request.body));
        Ok(Target::parse(&request.url, Schemes::Http).map(|target| Self {
            order: Order { method, target, headers, body },
            follows,
            limit,
        }))
    }
}

/// Drives the connection; ends with this.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Answer {
    response: Response<Incoming>,
    peer: wire::FetchHead,
    _driver: Driver,
}

impl Network {
    /// What comes of a request, as a stream. It ends when nobody reads it any more.
    pub(super) fn fetch(
        self: &Arc<Self>,
        asker: Asker,
        request: wire::FetchRequest,
        upload: Option<Slot>,
    ) -> Result<FetchStream, NetError> {
        let limits = self.calls.policy().limits;
        let read = Fetch::read(request, &limits)?;
        let slot = self.calls.slots.take(Kind::Fetch, asker.requestor.id());
        let (out, parts) = mpsc::channel(PARTS_AHEAD);
        let network = Arc::clone(self);
        tokio::spawn(async move {
            let _upload = upload;
            let (fetch, _slot) = match (read, slot) {
                (Ok(fetch), Ok(slot)) => (fetch, slot),
                (Err(error), _) | (_, Err(error)) => {
                    return answer::last_part(&out, Part::Failed(answer::error(&error))).await;
                }
            };
            let limit = fetch.limit;
            let deadline = Instant::now() + limit;
            let work = timeout_at(deadline, network.follow(&asker, fetch, &limits, deadline, &out));
            let done = tokio::select! {
                done = work => done.unwrap_or(Err(CallError::Timeout(limit.as_millis()))),
                () = out.closed() => return,
            };
            let last = match done {
                Ok(body_bytes) => Part::End(wire::FetchEnd { body_bytes }),
                Err(error) => Part::Failed(answer::error(&error)),
            };
            answer::last_part(&out, last).await;
        });
        Ok(ReceiverStream::new(parts))
    }

    async fn follow(
        self: &Arc<Self>,
        asker: &Asker,
        fetch: Fetch,
        limits: &CallLimits,
        deadline: Instant,
        out: &Parts,
    ) -> Result<u64, CallError> {
        let mut order = fetch.order;
        for redirects in 0..=REDIRECTS_MAX {
            let peer = self.reach(asker, &order.target, deadline).await?;
            let mut answer = exchange(peer, &order, limits).await?;
            if fetch.follows {
                let head = &answer.response;
                if let Some(next) = order.next(head.status(), head.headers(), &asker.user.class)? {
                    order = next;
                    continue;
                }
            }
            answer.peer.redirects = redirects;
            answer.peer.url = order.target.as_str().to_owned();
            return pass_on(answer, limits, out).await;
        }
        Err(CallError::Other(format!("there were more than {REDIRECTS_MAX} redirects")))
    }
}

/// What the HTTP client says of a peer that does not keep to it.
fn broken(error: &hyper::Error, limits: &CallLimits) -> CallError {
    use std::error::Error as _;
    if error.is_parse_too_large() {
        return CallError::too_large("the answer's head", u64::from(limits.header_bytes));
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    match error.is_parse() {
        true => CallError::Other(format!("the answer is no HTTP: {text}")),
        false => CallError::ConnectionFailed(text),
    }
}

async fn exchange(peer: Peer, order: &Order, limits: &CallLimits) -> Result<Answer, CallError> {
    let header_bytes = limits.header_bytes as usize;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(header_bytes)
        .max_headers(HEADERS_MAX)
        .handshake(TokioIo::new(peer.wire))
        .await
        .map_err(|error| broken(&error, limits))?;
    let driver = Driver(tokio::spawn(connection).abort_handle());
    let mut request = Request::builder().method(order.method.clone()).uri(order.target.path());
    let host = HeaderValue::try_from(order.target.authority());
    let host = host.map_err(|error| CallError::InvalidUrl(error.to_string()))?;
    if let Some(headers) = request.headers_mut() {
        headers.insert(HOST, host);
        headers.insert(USER_AGENT, AGENT);
        headers.extend(order.headers.clone());
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let request = request
        .body(Full::new(order.body.clone()))
        .map_err(|error| CallError::InvalidUrl(format!("it cannot be sent: {error}")))?;
    let response = sender.send_request(request).await.map_err(|error| broken(&error, limits))?;
    // The size of a buffer is no exact limit, what it came to is.
    let head: usize =
        response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if head > header_bytes {
        return Err(CallError::too_large("the answer's head", u64::from(limits.header_bytes)));
    }
    let peer = wire::FetchHead {
        status: u32::from(response.status().as_u16()),
        headers: headers::write(response.headers()),
        connection: wire_id(peer.connection.id),
        authorized: Some(peer.connection.at.into()),
        ..wire::FetchHead::default()
    };
    Ok(Answer { response, peer, _driver: driver })
}

/// Bytes of the body.
async fn pass_on(answer: Answer, limits: &CallLimits, out: &Parts) -> Result<u64, CallError> {
    let too_large = || CallError::too_large("the answer's body", limits.response_bytes);
    let gone = || CallError::Other("nobody reads the answer".to_owned());
    let mut body = answer.response.into_body();
    // One that says so beforehand is not read at all.
    if hyper::body::Body::size_hint(&body).lower() > limits.response_bytes {
        return Err(too_large());
    }
    if !answer::part(out, Part::Head(answer.peer)).await {
        return Err(gone());
    }
    let mut bytes = 0u64;
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(|error| broken(&error, limits))?.into_data() else { continue };
        bytes = bytes.saturating_add(data.len() as u64);
        if bytes > limits.response_bytes {
            return Err(too_large());
        }
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(TRANSFER_BYTES_MAX));
            if !answer::part(out, Part::Body(piece.to_vec())).await {
                return Err(gone());
            }
        }
    }
    Ok(bytes)
}
