//! HTTP: `CONNECT` is a tunnel, a plain request is read, decided and written anew, so that whoever reads it behind this reads what
//! was read here. Each request of a kept connection is decided for itself.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{Either, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    client::conn::http1 as client,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue},
    server::conn::http1 as server,
    service::service_fn,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, task::AbortHandle, time::timeout};

use super::{Proxied, open::Opened};
use crate::core::{
    CallError, Credential, Target,
    limits::{FIRST_BYTES_TIMEOUT, HEADER_BYTES_MIN, HEADERS_MAX, RELAY_BUFFER_BYTES},
    proxied::{asked, wrong},
};
use crate::shell::calls::{Calls, Wire};

/// How long a host has to show whom it is.
const TLS_TIMEOUT: Duration = Duration::from_secs(30);

/// About one connection, and not for the next.
const HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// Ended when it is dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of an answer, with what brings it: both end together.
struct Passed {
    body: Incoming,
    _tasks: [Task; 2],
}

impl Body for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

type Answer = Response<Either<Full<Bytes>, Passed>>;

fn refusal(error: &CallError) -> Answer {
    let status = match error {
        CallError::PolicyDenied(_) => StatusCode::FORBIDDEN,
        CallError::Dns(_) | CallError::ConnectionFailed(_) | CallError::Other(_) => StatusCode::BAD_GATEWAY,
        CallError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        CallError::InvalidUrl(_) => StatusCode::BAD_REQUEST,
        CallError::RateLimitExceeded(_) => StatusCode::TOO_MANY_REQUESTS,
    };
    let mut answer = Response::new(Either::Left(Full::from(format!("bailiwick: {error}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// Leaves what is for the next, and not what `Connection` says is for this one alone.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Where the body ends is said by whoever writes it.
        .filter(|name: &HeaderName| *name != CONTENT_LENGTH && *name != HOST)
        .collect();
    named.iter().for_each(|name| drop(headers.remove(name)));
    HOP.iter().for_each(|name| drop(headers.remove(*name)));
}

impl Proxied {
    pub(super) async fn http(&self, stream: TcpStream) {
        let header_bytes = self.network.calls.policy().limits.header_bytes.max(HEADER_BYTES_MIN);
        let service = service_fn(|request| async { Ok::<_, Infallible>(self.answer(request).await) });
        let connection = server::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(FIRST_BYTES_TIMEOUT)
            .max_buf_size(header_bytes as usize)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Err(error) = connection.await {
            tracing::debug!(process = %self.program.process, %error, "a connection to the proxy");
        }
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Answer {
        let target = match asked(&request) {
            Ok(target) => target,
            Err(error) => return refusal(&error),
        };
        let is_tunnel = request.method() == Method::CONNECT;
        let answered = match is_tunnel {
            true => self.open(&target, None).await.map(|opened| {
                let (upgrade, held) = (hyper::upgrade::on(&mut request), self.clone());
                tokio::spawn(async move { held.tunnel(opened, upgrade).await });
                Response::new(Either::Left(Full::default()))
            }),
            false => self.plain(request, &target).await,
        };
        answered.unwrap_or_else(|error| {
            self.tell(&format!("{}:{}", target.host(), target.port()), &error);
            refusal(&error)
        })
    }

    /// With a secret for the place that is asked for it goes on by TLS, and with its header; without one as it came.
    async fn plain(&self, request: Request<Incoming>, target: &Target) -> Result<Answer, CallError> {
        let Some(credential) = self.credential_for(request.method(), target).await? else {
            return exchange(self.open(target, None).await?, request, target, None).await;
        };
        let target = credential.upstream(target)?;
        let opened = self.open(&target, Some(credential.secret())).await?;
        exchange(opened, request, &target, Some((&credential, &self.network.calls))).await
    }

    async fn tunnel(self, opened: Opened, upgrade: impl Future<Output = hyper::Result<Upgraded>>) {
        let carrying = async {
            // Who does not take the answer has no connection that nobody cuts.
            let Ok(Ok(upgraded)) = timeout(FIRST_BYTES_TIMEOUT, upgrade).await else { return };
            // What came right behind the request belongs into the tunnel.
            if let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() {
                opened.carry(parts.io.into_inner(), parts.read_buf.to_vec()).await;
            }
        };
        tokio::select! {
            biased;
            () = self.program.orders.closed() => {}
            () = carrying => {}
        }
    }
}

/// The request to where it was asked for, over a connection of its own.
async fn exchange(
    opened: Opened,
    request: Request<Incoming>,
    target: &Target,
    credential: Option<(&Credential, &Calls)>,
) -> Result<Answer, CallError> {
    let failed = |error: hyper::Error| CallError::ConnectionFailed(format!("{}: {error}", target.host()));
    let (here, inside) = tokio::io::duplex(RELAY_BUFFER_BYTES);
    let carrying = Task(tokio::spawn(opened.carry(inside, Vec::new())).abort_handle());
    let here: Wire = match credential {
        None => Box::new(here),
        // What `prove` switched off: whoever answers is told.
        Some(_) if kit::is_broken("edge-tls") => Box::new(here),
        // Nothing is said before the host has shown whom it is.
        Some((credential, calls)) => {
            let made = calls.tls_by(Box::new(here), target.host(), credential.authority());
            let late = |_| CallError::Timeout(TLS_TIMEOUT.as_millis());
            timeout(TLS_TIMEOUT, made).await.map_err(late)??
        }
    };
    let (mut sender, connection) = client::Builder::new()
        .max_headers(HEADERS_MAX)
        .handshake::<_, Incoming>(TokioIo::new(here))
        .await
        .map_err(failed)?;
    let driving = Task(tokio::spawn(connection).abort_handle());
    let (mut parts, body) = request.into_parts();
    strip(&mut parts.headers);
    parts.uri = target.path().parse().map_err(|_| wrong("its path cannot be sent"))?;
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let host = HeaderValue::try_from(target.authority()).map_err(|_| wrong("its host cannot be sent"))?;
    parts.headers.insert(HOST, host);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    // Last: what the program says of its headers is done by then.
    if let Some((credential, _)) = credential {
        credential.put_into(&mut parts.headers)?;
    }
    let answer = sender.send_request(Request::from_parts(parts, body)).await.map_err(failed)?;
    let (mut parts, body) = answer.into_parts();
    strip(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(CallError::Other("it answers in another protocol, which nobody asked for".to_owned()));
    }
    Ok(Response::from_parts(parts, Either::Right(Passed { body, _tasks: [carrying, driving] })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_one_connection_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-own, close"),
            ("x-own", "1"),
            ("proxy-authorization", "secret"),
            ("proxy-connection", "keep-alive"),
            ("content-length", "3"),
            ("accept", "a"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length"]);
    }
}
