//! Calls to other services: a socket path, a context, a deadline, and a connection that comes back on demand.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{
    context::{CONTEXT_METADATA, OperationContext},
    error::KitError,
};

/// A call that nobody answers ends after this: the socket accepts even while its server is down.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that may be under way in one stream before the receiver reads: one message of the largest size.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// The same for all streams of a connection.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Calls that wait for the connection inside one client.
const CLIENT_QUEUE: usize = 1024;

/// Another service, by its socket. Cheap to clone; connects at the first call and again whenever it must.
#[derive(Clone, Debug)]
pub struct Peer {
    channel: Channel,
    path: PathBuf,
}

/// What generated clients take: `KeysClient::new(peer.with(&context, None)?)`.
pub type Calls = InterceptedService<Channel, Outgoing>;

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
                async move { UnixStream::connect(target).await.map(TokioIo::new) }
            }));
        Self { channel, path }
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
        let outgoing = Outgoing::new(context, token, timeout)?;
        Ok(InterceptedService::new(self.channel.clone(), outgoing))
    }
}

/// Puts context, token and deadline on each call.
#[derive(Clone, Debug)]
pub struct Outgoing {
    context: MetadataValue<Ascii>,
    token: Option<MetadataValue<Ascii>>,
    timeout: Duration,
}

impl Outgoing {
    pub fn new(context: &OperationContext, token: Option<&str>, timeout: Duration) -> Result<Self, KitError> {
        let ascii = |text: String, what: &str| {
            MetadataValue::try_from(text)
                .map_err(|_| KitError::EnvelopeInvalid(format!("the {what} does not fit a header")))
        };
        let token = token.map(|token| ascii(format!("Bearer {token}"), "token")).transpose()?;
        Ok(Self { context: ascii(context.to_header(), "context")?, token, timeout })
    }
}

impl Interceptor for Outgoing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(CONTEXT_METADATA, self.context.clone());
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        if !request.metadata().contains_key("grpc-timeout") {
            request.set_timeout(self.timeout);
        }
        Ok(request)
    }
}
