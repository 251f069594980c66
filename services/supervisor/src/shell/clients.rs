//! Tells running services of clients that come and go.
//!
//! Each process of a service has a channel of its own for it; the keeper holds the supervisor's end, so that the next
//! supervisor can go on. What is said changes nothing when it is said twice: after its own death a supervisor says
//! everything again.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use kit::{ChannelKind, clients::ClientChange};
use sandbox::fdpass::{Channel, PassError};
use thiserror::Error;

use super::{
    keeper_client::{Keeper, KeeperError},
    sockets::{Purpose, Socket, WORKLOAD_API},
};

/// A service takes what it is told within milliseconds. One that is stuck has it from its next start on.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);
/// The channel holds some messages; when it is full, it is tried again after this.
const FULL_PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug, Error)]
enum TellFault {
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error(transparent)]
    Channel(#[from] PassError),
    #[error("it has not read what it was told before within {} ms", TELL_TIMEOUT.as_millis())]
    Stuck,
    #[error("the keeper does not hold the socket of {0}")]
    NoSocket(String),
}

/// Under which the keeper holds the supervisor's end.
#[must_use]
pub(super) fn stored_name(service: &str) -> String {
    format!("{}:{service}", ChannelKind::Clients)
}

/// For one process: the supervisor's end, then the service's.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = Channel::pair()?;
    ours.set_nonblocking()?;
    Ok((ours.into(), theirs.into()))
}

/// Tells a service which clients it has, and passes the sockets of those that are new to it. `sockets` are the node's.
/// One that does not run is told nothing: it is given everything at its start.
pub(super) async fn tell(
    keeper: &Keeper,
    sockets: &[Socket],
    server: &str,
    is_new: impl Fn(&Socket) -> bool,
) {
    if let Err(error) = try_tell(keeper, sockets, server, is_new).await {
        tracing::warn!(%error, server, "a service was not told of its clients; it knows them from its next start on");
    }
}

async fn try_tell(
    keeper: &Keeper,
    sockets: &[Socket],
    server: &str,
    is_new: impl Fn(&Socket) -> bool,
) -> Result<(), TellFault> {
    let Some(channel) = keeper.fetch(&stored_name(server)).await? else { return Ok(()) };
    let channel = Channel::from(channel);
    for kind in [ChannelKind::Edge, ChannelKind::Workload] {
        if kind == ChannelKind::Workload && server != WORKLOAD_API {
            continue;
        }
        let own = |socket: &&Socket| socket.server == server && socket.purpose == Purpose::Kit(kind);
        let mut clients = Vec::new();
        for (socket, client) in sockets.iter().filter(own).filter_map(|s| Some((s, s.client.clone()?))) {
            if is_new(socket) {
                let held = keeper.fetch(&socket.stored_name()).await?;
                let held = held.ok_or_else(|| TellFault::NoSocket(client.clone()))?;
                let change = match kind {
                    ChannelKind::Workload => ClientChange::ServeWorkload(client.clone()),
                    _ => ClientChange::Serve(client.clone()),
                };
                say(&channel, &change, &[held.as_fd()]).await?;
            }
            clients.push(client);
        }
        let change = match kind {
            ChannelKind::Workload => ClientChange::OnlyWorkloads(clients),
            _ => ClientChange::Only(clients),
        };
        say(&channel, &change, &[]).await?;
    }
    Ok(())
}

async fn say(channel: &Channel, change: &ClientChange, fds: &[BorrowedFd<'_>]) -> Result<(), TellFault> {
    let (bytes, since) = (change.encode(), Instant::now());
    loop {
        match channel.send(&bytes, fds) {
            Ok(()) => return Ok(()),
            // It has ended; the next process has a channel of its own.
            Err(PassError::Closed) => return Ok(()),
            Err(PassError::Full) if since.elapsed() < TELL_TIMEOUT => tokio::time::sleep(FULL_PAUSE).await,
            Err(PassError::Full) => return Err(TellFault::Stuck),
            Err(error) => return Err(error.into()),
        }
    }
}
