//! Accepts connections and speaks HTTP/1.1 and HTTP/2 on the same socket. An idle connection costs its buffer only.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustix::net::RecvFlags;
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
};

use crate::{
    channel::{Caller, ChannelKind},
    client::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES},
    env::Listener,
    error::KitError,
    gate::Gate,
    phase::Phase,
    stream::Stream,
};

/// Connections of one client at once; the next one waits in the socket's backlog, at the cost of that client alone.
pub(crate) const CONNECTIONS_PER_SOCKET_MAX: usize = 64;
/// Calls of one client at once; the next one is answered `Busy`.
pub(crate) const REQUESTS_PER_SOCKET_MAX: usize = 1024;
/// What a caller beyond that is told to wait.
const BUSY_RETRY_MS: u32 = 50;
/// Streams on one connection before HTTP/2 itself holds the client back; above the limit that answers `Busy`.
const STREAMS_PER_CONNECTION_MAX: u32 = 1088;
/// All headers of one request.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// A client that has begun a request line finishes its headers within this.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// When the process has no descriptor left, accepting is tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The streams of feed, decision and append channels end with the process only; what was said on them has this long to
/// leave it. Whoever hears no answer asks again with the same key.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(20);
/// How long answers may still be written after `Stop`.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Serves one listening socket until the service ends.
///
/// `alive` is held by each connection, so that the process can wait until the last answer was written.
pub(crate) async fn accept_loop(
    listener: Listener,
    gate: Arc<Gate>,
    alive: mpsc::Sender<()>,
) -> io::Result<()> {
    listener.socket.set_nonblocking(true)?;
    let socket = UnixListener::from_std(listener.socket)?;
    let connections = Arc::new(Semaphore::new(CONNECTIONS_PER_SOCKET_MAX));
    let requests = Arc::new(Semaphore::new(REQUESTS_PER_SOCKET_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return Ok(()) };
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, kind = %listener.kind, client = %listener.client, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let caller = caller_of(listener.kind, &listener.client, &stream);
        let (gate, requests, alive) = (Arc::clone(&gate), Arc::clone(&requests), alive.clone());
        tokio::spawn(async move {
            serve_connection(stream, caller, gate, requests).await;
            drop((permit, alive));
        });
    }
}

fn caller_of(kind: ChannelKind, client: &Arc<str>, stream: &UnixStream) -> Caller {
    let peer = (kind == ChannelKind::Admin).then(|| stream.peer_cred().ok()).flatten();
    Caller {
        channel: kind,
        client: Arc::clone(client),
        peer_uid: peer.map(|peer| peer.uid()),
        peer_pid: peer.and_then(|peer| peer.pid()),
    }
}

async fn serve_connection(stream: UnixStream, caller: Caller, gate: Arc<Gate>, requests: Arc<Semaphore>) {
    let life = Arc::clone(&gate.life);
    let close_timeout = match caller.channel {
        ChannelKind::Feed | ChannelKind::Authority | ChannelKind::Append => FLUSH_TIMEOUT,
        _ => CLOSE_TIMEOUT,
    };
    if let (ChannelKind::Edge, Some(greeting)) = (caller.channel, gate.greeting) {
        let greeted = tokio::select! {
            greeted = begins_with(&stream, greeting) => greeted,
            () = life.reached(Phase::Ended) => return,
        };
        if greeted {
            if let Some(take) = gate.take.get().filter(|_| life.phase() == Phase::Serving) {
                take(&caller, stream);
            }
            return;
        }
    }
    let service = hyper::service::service_fn(move |request| {
        let (gate, caller) = (Arc::clone(&gate), caller.clone());
        let place = Arc::clone(&requests).try_acquire_owned().ok();
        async move {
            let busy = KitError::Busy {
                what: "the calls of this client",
                limit: REQUESTS_PER_SOCKET_MAX,
                retry_after_ms: BUSY_RETRY_MS,
            };
            Ok::<_, Infallible>(gate.handle(&caller, place, &busy, request).await)
        }
    });
    let stream = match Stream::new(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "cannot watch a connection"),
    };
    let builder = builder();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        result = connection.as_mut() => {
            if let Err(error) = result {
                // The peer's fault or its death; nothing of ours is lost.
                tracing::debug!(%error, "connection ended");
            }
        }
        () = life.reached(Phase::Ended) => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(close_timeout, connection).await;
        }
    }
}

/// Looks at the first bytes and takes none. A greeting comes whole or is none.
async fn begins_with(stream: &UnixStream, greeting: &[u8]) -> bool {
    let mut start = vec![0; greeting.len()];
    let look = stream.async_io(Interest::READABLE, || {
        let (seen, _) = rustix::net::recv(stream, start.as_mut_slice(), RecvFlags::PEEK)?;
        Ok(seen)
    });
    look.await.is_ok_and(|seen| seen == greeting.len()) && start == greeting
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX as usize)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const GREETING: &[u8] = b"no call 1\n";

    async fn greeted(said: &[u8]) -> (bool, UnixStream) {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(said).await.unwrap();
        drop(client);
        (begins_with(&server, GREETING).await, server)
    }

    #[tokio::test]
    async fn a_greeting_is_told_from_calls_and_stays_to_be_read() {
        let (is_one, mut server) = greeted(b"no call 1\nmore").await;
        assert!(is_one);
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"no call 1\nmore");
        for other in [&b"POST / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0\r\n", b"no call 2\n", b"no call", b""] {
            assert!(!greeted(other).await.0, "{other:?}");
        }
    }
}
