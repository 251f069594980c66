//! For programs that a node runs: find a service, speak to it, wait for its answer. Nothing here is asynchronous.
//!
//! A program sees the sockets that its manifest names under `[[dependencies]]`, and no others; who it is, the node
//! knows by the socket. `supervisor` must be among them to look others up.
//!
//! ```no_run
//! use sdk::{HttpMethod, HttpRequest, MSG_NET_REQUEST, encode, lookup_service, receive_reply, send};
//!
//! # fn main() -> Result<(), sdk::Error> {
//! // Look up network service
//! let network_ep = lookup_service("network")?;
//!
//! // Make HTTP request
//! let request = HttpRequest {
//!     method: HttpMethod::Get,
//!     url: "https://api.example.com/data".to_string(),
//!     headers: vec![],
//!     body: None,
//!     timeout_ms: 30000,
//! };
//! send(network_ep, MSG_NET_REQUEST, &encode(&request));
//! let response = receive_reply();
//! # drop(response);
//! # Ok(())
//! # }
//! ```
//!
//! ```no_run
//! use sdk::{Client, Supervisor};
//!
//! # fn main() -> Result<(), sdk::Error> {
//! # let supervisor = Supervisor::of_environment()?;
//! // Find a service
//! let endpoint = supervisor.lookup_service("filesystem")?;
//!
//! // Connect
//! let client = Client::connect(endpoint)?;
//! # drop(client);
//! # Ok(())
//! # }
//! ```

mod client;
mod endpoint;
mod error;
mod message;
mod network;
mod session;

pub use client::Client;
pub use endpoint::{Endpoint, IDENTITY_VARIABLE, RUN_VARIABLE, Supervisor, lookup_service};
pub use error::Error;
pub use message::{
    Encode, MSG_DNS_RESOLVE, MSG_DNS_RESPONSE, MSG_NET_REQUEST, MSG_NET_RESPONSE, MSG_WS_CLOSE,
    MSG_WS_CLOSED, MSG_WS_ERROR, MSG_WS_MESSAGE, MSG_WS_OPEN, MSG_WS_OPENED, Reply, encode,
};
pub use network::{
    DnsRequest, HttpMethod, HttpRequest, HttpResponse, NetworkError, WsCloseRequest, WsData, WsMessage,
    WsOpenRequest,
};
pub use session::{receive_reply, send};
