//! Asks for names: by UDP from a port and with a number that nobody can guess, by TCP what does not fit. Nothing is kept.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kit::{Component, authority::random_16};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use crate::core::{
    HostName,
    dns::{self, Disbelief, Family, Found},
    limits::QUESTIONS_MAX,
    nameservers::{SETTINGS_BYTES_MAX, Settings, of_resolv_conf},
};

/// How often each server is asked.
const ROUNDS: usize = 2;
/// For how long one server is waited for, each time.
const PATIENCE: Duration = Duration::from_secs(2);
/// For how long a name is asked for, with all its servers.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages to one question that are not believed; then the next server is asked.
const DISBELIEVED_MAX: usize = 64;
/// More than was asked for, since some servers send it.
const BUFFER_BYTES: usize = 4_096;
/// The host's list, as this service sees it.
const HOST_LIST: &str = "resolv.conf";

/// Addresses of a name, as its server has them: whoever connects judges them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Empty: there is the name, and none of the kind that was asked for.
    pub(super) addresses: Vec<IpAddr>,
    /// For how long they are valid, as the server says.
    pub(super) ttl: Duration,
}

#[derive(Debug, Error)]
pub(super) enum ResolveError {
    #[error("there is no name {0}")]
    NoSuchName(HostName),
    #[error("{0} cannot be resolved: {1}")]
    Failed(HostName, String),
    #[error("{QUESTIONS_MAX} names are being asked for already; try again")]
    Busy,
    #[error(
        "no nameserver is known: set `nameservers` in network.toml, or one in the host's /etc/resolv.conf"
    )]
    NoServer,
}

#[derive(Debug)]
enum Attempt {
    /// Another server may know it.
    Failed(String),
}

impl From<io::Error> for Attempt {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Disbelief> for Attempt {
    fn from(error: Disbelief) -> Self {
        Self::Failed(error.to_string())
    }
}

/// One for all of this process.
#[derive(Debug)]
pub(super) struct Resolver {
    /// What the operator has set; empty: the host's.
    set: Vec<SocketAddr>,
    places: Semaphore,
    disbelieved: AtomicU64,
}

impl Resolver {
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            set: settings.nameservers,
            places: Semaphore::new(QUESTIONS_MAX),
            disbelieved: AtomicU64::new(0),
        })
    }

    /// Messages that came for a question and were not its answer, since this process began.
    fn disbelieved(&self) -> u64 {
        self.disbelieved.load(Ordering::Relaxed)
    }

    /// Somebody who sends what nobody asked for makes nothing here unhealthy.
    pub(super) fn health(&self) -> Component {
        let message = match self.disbelieved() {
            0 => None,
            count => Some(format!("{count} messages were no answers to what was asked, and dropped")),
        };
        Component { message, ..Component::healthy("names") }
    }

    /// Both families of addresses; an error if there are none.
    pub(super) async fn resolve(&self, name: &HostName) -> Result<Answer, ResolveError> {
        let (v4, v6) = tokio::join!(self.lookup(name, Family::V4), self.lookup(name, Family::V6));
        match (v4, v6) {
            (Ok(mut one), Ok(other)) => {
                one.ttl = match (one.addresses.is_empty(), other.addresses.is_empty()) {
                    (true, _) => other.ttl,
                    (false, true) => one.ttl,
                    (false, false) => one.ttl.min(other.ttl),
                };
                one.addresses.extend(other.addresses);
                match one.addresses.is_empty() {
                    true => Err(ResolveError::Failed(name.clone(), "it has no address".to_owned())),
                    false => Ok(one),
                }
            }
            (Ok(one), Err(error)) | (Err(error), Ok(one)) => {
                if one.addresses.is_empty() {
                    Err(error)
                } else {
                    Ok(one)
                }
            }
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// Addresses of one family.
    pub(super) async fn lookup(&self, name: &HostName, family: Family) -> Result<Answer, ResolveError> {
        let _place = self.places.try_acquire().map_err(|_| ResolveError::Busy)?;
        let servers = if self.set.is_empty() { host_list() } else { self.set.clone() };
        if servers.is_empty() {
            return Err(ResolveError::NoServer);
        }
        let failed = |why: String| ResolveError::Failed(name.clone(), why);
        match timeout(RESOLVE_TIMEOUT, self.ask_all(&servers, name, family)).await {
            Ok(Ok(Found::Addresses { addresses, ttl })) => Ok(Answer { addresses, ttl }),
            Ok(Ok(Found::Nothing)) => Err(ResolveError::NoSuchName(name.clone())),
            Ok(Ok(other)) => Err(failed(format!("{other:?}"))),
            Ok(Err(Attempt::Failed(why))) => Err(failed(why)),
            Err(_) => Err(failed(format!("no answer within {} s", RESOLVE_TIMEOUT.as_secs()))),
        }
    }

    /// The first server that knows.
    async fn ask_all(
        &self,
        servers: &[SocketAddr],
        name: &HostName,
        family: Family,
    ) -> Result<Found, Attempt> {
        let mut last = Attempt::Failed("nobody was asked".to_owned());
        for _ in 0..ROUNDS {
            for server in servers {
                let why = match timeout(PATIENCE, self.ask(*server, name, family)).await {
                    Ok(Ok(Found::Failed(code))) => format!("{server} says {code}"),
                    Ok(Ok(found)) => return Ok(found),
                    Ok(Err(Attempt::Failed(why))) => format!("{server}: {why}"),
                    Err(_) => format!("{server} does not answer"),
                };
                last = Attempt::Failed(why);
            }
        }
        Err(last)
    }

    async fn ask(&self, server: SocketAddr, name: &HostName, family: Family) -> Result<Found, Attempt> {
        match self.by_udp(server, name, family).await? {
            Found::Truncated => self.by_tcp(server, name, family).await,
            found => Ok(found),
        }
    }

    /// A socket for each question: its port is the kernel's choice, and only this server's messages arrive.
    async fn by_udp(&self, server: SocketAddr, name: &HostName, family: Family) -> Result<Found, Attempt> {
        let id = number()?;
        let any: SocketAddr =
            if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(server).await?;
        socket.send(&dns::question(name, family, id)?).await?;
        let mut buffer = vec![0; BUFFER_BYTES];
        for _ in 0..DISBELIEVED_MAX {
            let length = socket.recv(&mut buffer).await?;
            match dns::answer(buffer.get(..length).unwrap_or_default(), name, family, id) {
                Ok(found) => return Ok(found),
                // The true answer may still come.
                Err(error) => self.disbelieve(server, name, error),
            }
        }
        Err(Attempt::Failed("only what was not asked for was answered".to_owned()))
    }

    async fn by_tcp(&self, server: SocketAddr, name: &HostName, family: Family) -> Result<Found, Attempt> {
        let id = number()?;
        let question = dns::question(name, family, id)?;
        let length = u16::try_from(question.len()).map_err(|_| Disbelief::Malformed)?;
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(&[&length.to_be_bytes()[..], &question].concat()).await?;
        let length = usize::from(stream.read_u16().await?);
        if length > dns::TCP_BYTES_MAX {
            return Err(Attempt::Failed(format!(
                "{length} bytes by TCP, at most {} are read",
                dns::TCP_BYTES_MAX
            )));
        }
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await?;
        match dns::answer(&bytes, name, family, id) {
            Ok(Found::Truncated) => Err(Attempt::Failed("truncated by TCP too".to_owned())),
            Ok(found) => Ok(found),
            Err(error) => {
                self.disbelieve(server, name, error);
                Err(error.into())
            }
        }
    }

    fn disbelieve(&self, server: SocketAddr, name: &HostName, error: Disbelief) {
        self.disbelieved.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%server, %name, %error, "an answer is not believed");
    }
}

/// What a question is known by.
fn number() -> Result<u16, Attempt> {
    let [one, other, ..] = random_16().map_err(|error| Attempt::Failed(error.to_string()))?;
    Ok(u16::from_ne_bytes([one, other]))
}

/// Read each time: the host's servers change with the networks that it joins.
fn host_list() -> Vec<SocketAddr> {
    of_resolv_conf(&read_config(HOST_LIST).unwrap_or_default())
}

/// Reads the operator's settings; none are the defaults, bad ones end the start.
pub(super) fn settings() -> Result<Settings, kit::BoxError> {
    Ok(Settings::parse(&read_config(base::layout::NETWORK_SETTINGS)?)?)
}

/// Empty if there is no such file.
fn read_config(name: &str) -> io::Result<String> {
    use std::io::Read as _;
    let path = std::path::Path::new(kit::env::CONFIG_FOLDER).join(name);
    let mut text = String::new();
    match std::fs::File::open(&path) {
        // One byte more, so that a longer file is noticed.
        Ok(file) => file.take(SETTINGS_BYTES_MAX as u64 + 1).read_to_string(&mut text).map(|_| text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(text),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
