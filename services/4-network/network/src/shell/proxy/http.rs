//! HTTP: `CONNECT` is a tunnel, a plain request is read, decided and written anew, so that whoever reads it behind this reads what
//! was read here. Each request of a kept connection is decided for itself.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::{Either, Empty, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue},
    server::conn::http1 as server,
    service::service_fn,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use kit::way_out::of_one_connection;
use tokio::{net::TcpStream, task::AbortHandle, time::timeout};

use super::{
    Proxied,
    line::{Asked, Sent},
    open::Opened,
};
use crate::core::{
    CallError, Repeats, Target,
    limits::{FIRST_BYTES_TIMEOUT, HEADER_BYTES_MIN, HEADERS_MAX},
    proxied::{asked, wrong},
};

/// What brings the body of an answer. What is dropped before the end ends with it.
pub(super) enum By {
    /// For the next request, too.
    Kept(Asked),
    /// For this one alone.
    Own { _tasks: [Task; 2] },
}

/// Ended when it is dropped.
pub(super) struct Task(pub(super) AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of an answer.
pub(super) struct Passed {
    body: Incoming,
    by: Option<By>,
}

impl Passed {
    fn new(body: Incoming, by: By) -> Self {
        let mut passed = Self { body, by: Some(by) };
        if passed.body.is_end_stream() {
            passed.end();
        }
        passed
    }

    fn end(&mut self) {
        if let Some(By::Kept(asked)) = self.by.take() {
            asked.keep();
        }
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.end(),
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pub(super) type Answer = Response<Either<Full<Bytes>, Passed>>;

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
    of_one_connection().for_each(|name| drop(headers.remove(name)));
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
            true => self.open_tunnel(&mut request, &target).await,
            false => self.plain(request, &target).await,
        };
        answered.unwrap_or_else(|error| {
            self.tell(&format!("{}:{}", target.host(), target.port()), &error);
            refusal(&error)
        })
    }

    async fn open_tunnel(
        &self,
        request: &mut Request<Incoming>,
        target: &Target,
    ) -> Result<Answer, CallError> {
        let opened = self.open(self.judge(target)?, target, None).await?;
        let (upgrade, held) = (hyper::upgrade::on(request), self.clone());
        tokio::spawn(async move { held.tunnel(opened, upgrade).await });
        Ok(Response::new(Either::Left(Full::default())))
    }

    /// With a secret for the place that is asked for it goes on by TLS, and with its header; without one as it came.
    async fn plain(&self, request: Request<Incoming>, target: &Target) -> Result<Answer, CallError> {
        match self.credential_for(request.method(), target).await? {
            Some(usable) => self.exchange_with(usable, request, target).await,
            None => self.exchange(request, target).await,
        }
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

/// As it is sent on: what is about the connection to the proxy stays here.
pub(super) fn written_anew(request: Request<Incoming>, target: &Target) -> Result<Request<Sent>, CallError> {
    let (mut parts, body) = request.into_parts();
    strip(&mut parts.headers);
    parts.uri = target.path().parse().map_err(|_| wrong("its path cannot be sent"))?;
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let host = HeaderValue::try_from(target.authority()).map_err(|_| wrong("its host cannot be sent"))?;
    parts.headers.insert(HOST, host);
    let body = if body.is_end_stream() { Either::Right(Empty::new()) } else { Either::Left(body) };
    Ok(Request::from_parts(parts, body))
}

/// The same once more, of what does nothing twice (RFC 9110, 9.2.2) and has no body.
fn copy(request: &Request<Sent>) -> Option<Request<Sent>> {
    let repeats = request.method().is_idempotent() && matches!(request.body(), Either::Right(_));
    repeats.then(|| {
        let mut copy = Request::new(Either::Right(Empty::new()));
        request.method().clone_into(copy.method_mut());
        request.uri().clone_into(copy.uri_mut());
        request.headers().clone_into(copy.headers_mut());
        copy
    })
}

impl Proxied {
    /// Over a connection that stands, or a new one. Of one that stands the server may have closed its end as it was asked: what
    /// can be sent again is sent once more, on a new one.
    async fn exchange(&self, request: Request<Incoming>, target: &Target) -> Result<Answer, CallError> {
        let failed = |error: hyper::Error| CallError::ConnectionFailed(format!("{}: {error}", target.host()));
        let user = self.judge(target)?;
        let mut request = written_anew(request, target)?;
        let copy = copy(&request);
        let repeats = if copy.is_some() { Repeats::Yes } else { Repeats::No };
        if let Some(mut kept) = self.kept_line(&user, target, repeats)? {
            match kept.ask(request).await {
                Ok(answer) => return passed_on(answer, By::Kept(kept)),
                Err(error) => request = error.again(copy).map_err(failed)?,
            }
        }
        let mut line = self.line(user, target).await?;
        match line.ask(request).await {
            Ok(answer) => passed_on(answer, By::Kept(line)),
            Err(error) => Err(failed(error.into_error())),
        }
    }
}

pub(super) fn passed_on(answer: Response<Incoming>, by: By) -> Result<Answer, CallError> {
    let (mut parts, body) = answer.into_parts();
    strip(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(CallError::Other("it answers in another protocol, which nobody asked for".to_owned()));
    }
    Ok(Response::from_parts(parts, Either::Right(Passed::new(body, by))))
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
