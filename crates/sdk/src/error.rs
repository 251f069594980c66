use kit::CallError;
use thiserror::Error;

/// Why a service could not be found or did not answer. What a service answers in the end is no error: see `HttpResponse`.
#[derive(Debug, Error)]
pub enum Error {
    #[error("{variable} is not set: a program of a node has it from its supervisor")]
    NoEnvironment { variable: &'static str },
    #[error("{variable} is {value:?}, which is no identity")]
    Identity { variable: &'static str, value: String },
    #[error("cannot run: {0}")]
    Runtime(#[from] std::io::Error),
    #[error("cannot connect to {name} at {socket}: {source}")]
    Connect { name: String, socket: String, source: std::io::Error },
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("there is no message 0x{0:04x}")]
    UnknownMessage(u16),
    #[error("message 0x{code:04x} cannot be read: {text}")]
    Malformed { code: u16, text: String },
    #[error("{0} ended its answer in the middle")]
    Short(&'static str),
    #[error("nothing was sent that would be answered")]
    NothingSent,
}

impl Error {
    /// How the service's contract names it, if it was the service that refused.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Call(error) => Some(error.reason()),
            _ => None,
        }
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Self::Call(status.into())
    }
}
