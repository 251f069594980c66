//! Calls to other services: a socket path, a context, a deadline, and a connection that comes back on demand.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Request, Response, header::AUTHORIZATION};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::Service;

use crate::{
    context::{CONTEXT_METADATA, OperationContext},
    error::KitError,
    seen::Seen,
    stream::Stream,
};

/// A call that nobody answers ends after this: the socket accepts even while its server is down.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that may be under way in one stream before the receiver reads: one message of the largest size.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// The same for all streams of a connection.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Calls that wait for the connection inside one client.
const CLIENT_QUEUE: usize = 1024;
const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("grpc-timeout");
const TIMEOUT_MS_MAX: u128 = 99_999_999;

/// Another service, by its socket. Cheap to clone; connects at the first call and again whenever it must.
#[derive(Clone, Debug)]
pub struct Peer {
    channel: Channel,
    path: PathBuf,
    seen: Seen,
}

impl Peer {
    /// Needs a running tokio runtime; does not connect yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let target = path.clone();
        // The name is never resolved: the connector goes to the socket.
        let channel = Endpoint::from_static("http://bailiwick.local")
            .buffer_size(CLIENT_QUEUE)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_timeout(CALL_TIMEOUT)
            .connect_with_connector_lazy(tower::service_fn(move |_| {
                let target = target.clone();
                async move { UnixStream::connect(target).await.and_then(Stream::new).map(TokioIo::new) }
            }));
        Self { channel, path, seen: Seen::new() }
    }

    /// Calls say how far this caller has seen the log, and it learns from the answers.
    #[must_use]
    pub fn seeing(mut self, seen: &Seen) -> Self {
        self.seen = seen.clone();
        self
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For contracts that carry no context: lifecycle, feed, authority, append.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Calls in this context, with `token` as proof of the requester where one is needed.
    pub fn with(&self, context: &OperationContext, token: Option<&str>) -> Result<Calls, KitError> {
        self.within(context, token, CALL_TIMEOUT)
    }

    /// The same with a deadline of its own.
    pub fn within(
        &self,
        context: &OperationContext,
        token: Option<&str>,
        timeout: Duration,
    ) -> Result<Calls, KitError> {
        let ascii = |text: String, what: &str| {
            HeaderValue::try_from(text)
                .map_err(|_| KitError::EnvelopeInvalid(format!("the {what} does not fit a header")))
        };
        let token = token.map(|token| ascii(format!("Bearer {token}"), "token")).transpose()?;
        let context = ascii(context.to_header(), "context")?;
        Ok(Calls { channel: self.channel.clone(), context, token, timeout, seen: self.seen.clone() })
    }
}

/// What generated clients take, `KeysClient::new(peer.with(&context, None)?)`: puts context, token, deadline and what was
/// seen of the log on each call.
#[derive(Clone, Debug)]
pub struct Calls {
    channel: Channel,
    context: HeaderValue,
    token: Option<HeaderValue>,
    timeout: Duration,
    seen: Seen,
}

impl Service<Request<Body>> for Calls {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let headers = request.headers_mut();
        headers.insert(CONTEXT_METADATA, self.context.clone());
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        if !headers.contains_key(TIMEOUT_HEADER) {
            headers.insert(TIMEOUT_HEADER, timeout_value(self.timeout));
        }
        self.seen.cite(headers);
        let (answer, seen) = (self.channel.call(request), self.seen.clone());
        Box::pin(async move {
            let response = answer.await?;
            seen.learn(response.headers());
            Ok(response)
        })
    }
}

/// At most eight digits, as gRPC wants them; one day in milliseconds has as many.
fn timeout_value(timeout: Duration) -> HeaderValue {
    let ms = timeout.as_millis().min(TIMEOUT_MS_MAX);
    HeaderValue::try_from(format!("{ms}m")).unwrap_or(HeaderValue::from_static("10S"))
}
