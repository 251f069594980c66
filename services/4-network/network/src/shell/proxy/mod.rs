//! The proxy of a program: HTTP (`CONNECT` and plain requests) and SOCKS5 on one port of its own loopback. Its monitor hands over
//! what was accepted there, so whose connection it is, is known by the channel. Each request goes the way of [`open`].

mod edge;
mod http;
mod line;
mod open;
mod socks;
mod stream;

use std::{net::TcpStream as StdStream, os::fd::OwnedFd, sync::Arc};

use contracts::network::v1 as wire;
use rustix::net::{SocketType as KernelType, sockopt};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, time::timeout};

use super::{Network, carriers::taken_over, program::Program, programs::libc_errno};
use crate::core::{
    CallError,
    limits::{FIRST_BYTES_TIMEOUT, TOLD_BYTES_MAX},
    socks::VERSION,
};

pub(super) use line::Waiting;

/// That a connection to the proxy is counted, for as long as somebody has this.
type Room = Arc<[OwnedSemaphorePermit; 2]>;

/// One connection to the proxy.
#[derive(Clone)]
struct Proxied {
    network: Arc<Network>,
    program: Arc<Program>,
    _room: Room,
}

impl Network {
    /// One that there is no room for is closed at once.
    pub(super) fn start_proxied(self: &Arc<Self>, program: &Arc<Program>, socket: Option<OwnedFd>) {
        let Some(stream) = socket.and_then(stream_of) else { return };
        let places = [&program.proxied, &self.proxied].map(|all| Arc::clone(all).try_acquire_owned());
        let [Ok(one), Ok(of_all)] = places else { return };
        let (network, program) = (Arc::clone(self), Arc::clone(program));
        let proxied = Proxied { network, program, _room: Arc::new([one, of_all]) };
        self.carriers.spawn(async move {
            let Ok(stream) = taken_over(stream) else { return };
            let gone = proxied.program.orders.clone();
            tokio::select! {
                biased;
                () = gone.closed() => {}
                () = proxied.serve(stream) => {}
            }
        });
    }
}

/// For the thread that carries it, as all that it leads to: the one that answers calls has nothing of it.
fn stream_of(socket: OwnedFd) -> Option<StdStream> {
    if !matches!(sockopt::socket_type(&socket), Ok(KernelType::STREAM)) {
        return None;
    }
    let stream = StdStream::from(socket);
    stream.set_nonblocking(true).ok().map(|()| stream)
}

impl Proxied {
    async fn serve(self, stream: TcpStream) {
        let mut first = [0; 1];
        match timeout(FIRST_BYTES_TIMEOUT, stream.peek(&mut first)).await {
            Ok(Ok(1)) if first == [VERSION] => self.socks(stream).await,
            Ok(Ok(1)) => self.http(stream).await,
            // It said nothing.
            _ => {}
        }
    }

    /// For the operator: `why` shows it.
    fn tell(&self, place: &str, error: &CallError) {
        if let CallError::PolicyDenied(why) = error
            && self.program.may_tell()
        {
            let shown = |text: &str| text.chars().take(TOLD_BYTES_MAX / 4).collect();
            let refused = wire::ProgramAnswer {
                errno: libc_errno::ACCESS,
                refused: shown(why),
                name: shown(place),
                ..Default::default()
            };
            self.program.answer(0, refused, None);
        }
    }
}
