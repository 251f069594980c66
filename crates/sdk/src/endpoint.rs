//! Where a service is.

use std::path::PathBuf;

use base::IdentityId;
use contracts::supervisor::v1::{LookupServiceRequest, supervisor_client::SupervisorClient};
/// Who this program is: set by the supervisor, shown in the context of each call, proven by the socket.
pub use kit::env::IDENTITY_VARIABLE;

use crate::{Client, Error};

/// The folder of the sockets, if it is another than the usual.
pub const RUN_VARIABLE: &str = "BAILIWICK_RUN";

const SUPERVISOR: &str = "supervisor";

/// A service that was found, and who asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub name: String,
    pub socket: PathBuf,
    /// Of its contract, `major.minor`.
    pub version: String,
    pub identity: IdentityId,
}

/// Knows where the others are.
#[derive(Debug)]
pub struct Supervisor {
    client: Client,
}

impl Supervisor {
    /// By what the supervisor has put into this program's environment.
    pub fn of_environment() -> Result<Self, Error> {
        let value = std::env::var(IDENTITY_VARIABLE)
            .map_err(|_| Error::NoEnvironment { variable: IDENTITY_VARIABLE })?;
        let identity = value.parse().map_err(|_| Error::Identity { variable: IDENTITY_VARIABLE, value })?;
        let folder =
            std::env::var_os(RUN_VARIABLE).map_or_else(|| PathBuf::from(kit::env::RUN_FOLDER), PathBuf::from);
        Self::at(folder.join(format!("{SUPERVISOR}.sock")), identity)
    }

    /// By its socket, as this identity.
    pub fn at(socket: impl Into<PathBuf>, identity: IdentityId) -> Result<Self, Error> {
        let (name, socket) = (SUPERVISOR.to_owned(), socket.into());
        Client::connect(Endpoint { name, socket, version: String::new(), identity })
            .map(|client| Self { client })
    }

    /// Only what this program's manifest names is found.
    pub fn lookup_service(&self, name: &str) -> Result<Endpoint, Error> {
        let calls = self.client.calls("system.supervisor.lookup_service")?;
        let request = LookupServiceRequest { name: name.to_owned(), ..LookupServiceRequest::default() };
        let found = self.client.wait(SupervisorClient::new(calls).lookup_service(request))?.into_inner();
        Ok(Endpoint {
            name: found.name,
            socket: found.socket.into(),
            version: found.version,
            identity: self.client.endpoint().identity,
        })
    }
}

/// The same by the environment's supervisor.
pub fn lookup_service(name: &str) -> Result<Endpoint, Error> {
    Supervisor::of_environment()?.lookup_service(name)
}
