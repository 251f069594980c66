//! Threads that carry what is relayed, beside the one that answers calls: what fills a processor holds up no decision, and one
//! processor is not all that is had.

use std::{
    future::Future,
    io,
    net::TcpStream as StdStream,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle},
    sync::oneshot,
    task::AbortHandle,
};

use crate::core::limits::CARRIERS_MAX;

/// As any thread's: what the proxy asks for, and decides with policy, calls as deep as the rest of this service.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// Started with the first relay, and ended with this.
#[derive(Debug, Default)]
pub(super) struct Carriers {
    all: OnceLock<Vec<Carrier>>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Carrier {
    handle: Handle,
    /// Its thread ends when this is dropped.
    _end: oneshot::Sender<()>,
}

impl Carrier {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        thread::Builder::new().name("relay".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            // Nothing is ever sent.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { handle, _end: end })
    }
}

/// As many as there are processors, up to a limit; those that could be had.
fn start() -> Vec<Carrier> {
    let count = thread::available_parallelism().map_or(1, usize::from).min(CARRIERS_MAX);
    let started: io::Result<Vec<_>> = (0..count).map(|_| Carrier::start()).collect();
    started.unwrap_or_else(|error| {
        tracing::warn!(%error, "relays have no threads of their own, and share that of the calls");
        Vec::new()
    })
}

impl Carriers {
    /// One flow after the other, on each in turn.
    pub(super) fn spawn(&self, carrying: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let all = self.all.get_or_init(start);
        let turn = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(all.len());
        match turn.and_then(|turn| all.get(turn)) {
            Some(carrier) => carrier.handle.spawn(carrying).abort_handle(),
            None => tokio::spawn(carrying).abort_handle(),
        }
    }
}

/// A socket that is watched by another thread from now on.
pub(super) fn taken_over(stream: StdStream) -> io::Result<TcpStream> {
    TcpStream::from_std(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn each_carries_its_part_on_a_thread_that_is_not_the_callers() {
        let carriers = Carriers::default();
        let mut threads = HashSet::new();
        for _ in 0..2 * CARRIERS_MAX {
            let (say, said) = oneshot::channel();
            carriers.spawn(async move { assert_eq!(say.send(thread::current().id()), Ok(())) });
            threads.insert(said.await.unwrap());
        }
        let count = thread::available_parallelism().unwrap().get().min(CARRIERS_MAX);
        assert_eq!((threads.len(), threads.contains(&thread::current().id())), (count, false));
        // What is carried ends with them.
        let (say, said) = oneshot::channel::<()>();
        carriers.spawn(async move {
            std::future::pending::<()>().await;
            drop(say);
        });
        drop(carriers);
        assert!(said.await.is_err());
    }

    #[tokio::test]
    async fn a_socket_goes_on_with_another_thread() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut one = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (other, _) = listener.accept().await.unwrap();
        let carriers = Carriers::default();
        let other = other.into_std().unwrap();
        carriers.spawn(async move {
            let mut other = taken_over(other).unwrap();
            let mut heard = [0; 4];
            other.read_exact(&mut heard).await.unwrap();
            other.write_all(&heard).await.unwrap();
        });
        one.write_all(b"here").await.unwrap();
        let mut heard = [0; 4];
        one.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"here");
    }
}
