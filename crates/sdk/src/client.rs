//! A connection to one service, for the clients that are generated from its contract.

use std::{future::Future, os::unix::net::UnixStream, time::Duration};

use base::TraceId;
use kit::{
    OperationContext, Peer,
    client::{CALL_TIMEOUT, Calls},
};
use tokio::runtime::Runtime;

use crate::{Endpoint, Error};

/// Calls of this operation, with an end.
pub(crate) fn calls(
    endpoint: &Endpoint,
    peer: &Peer,
    capability: &str,
    limit: Duration,
) -> Result<Calls, Error> {
    let mut trace = [0; 16];
    kit::random::fill(&mut trace)?;
    let context = OperationContext::of_service(endpoint.identity, capability, TraceId(trace));
    let context = context.map_err(tonic::Status::from)?;
    Ok(peer.within(&context, None, limit).map_err(tonic::Status::from)?)
}

/// Speaks to one service, and waits for it.
///
/// ```no_run
/// use contracts::network::v1::{ResolveRequest, network_client::NetworkClient};
///
/// # fn main() -> Result<(), sdk::Error> {
/// let client = sdk::Client::connect(sdk::lookup_service("network")?)?;
/// let mut network = NetworkClient::new(client.calls("system.network.resolve")?);
/// let request = ResolveRequest { name: "example.com".to_owned(), ..ResolveRequest::default() };
/// let found = client.wait(network.resolve(request))?.into_inner();
/// # drop(found);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    runtime: Runtime,
    peer: Peer,
}

impl Client {
    /// Whether it is there is found out now; after that it is connected to again whenever it must.
    pub fn connect(endpoint: Endpoint) -> Result<Self, Error> {
        UnixStream::connect(&endpoint.socket).map_err(|source| Error::Connect {
            name: endpoint.name.clone(),
            socket: endpoint.socket.display().to_string(),
            source,
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let peer = {
            let _inside = runtime.enter();
            Peer::at(&endpoint.socket)
        };
        Ok(Self { endpoint, runtime, peer })
    }

    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What a generated client takes. `capability` is the operation's, `system.SERVICE.OPERATION`.
    pub fn calls(&self, capability: &str) -> Result<Calls, Error> {
        calls(&self.endpoint, &self.peer, capability, CALL_TIMEOUT)
    }

    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}
