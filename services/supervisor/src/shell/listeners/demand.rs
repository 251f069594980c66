//! Waits until somebody comes to one of a service's sockets. Looks only: what came stays in the socket's queue.

use std::{future::poll_fn, os::fd::OwnedFd, sync::Arc, task::Poll};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{io::Interest, sync::mpsc, task::AbortHandle};

use super::super::inputs::Input;
use crate::core::supervisor::Event;

/// Says once that something waits for `service`; whoever holds the handle can end the waiting.
pub(in crate::shell) fn watch(
    service: String,
    sockets: &[Arc<OwnedFd>],
    inputs: mpsc::UnboundedSender<Input>,
) -> std::io::Result<AbortHandle> {
    let waited = anything_waits(sockets)?;
    let copies: Vec<OwnedFd> =
        sockets.iter().map(|socket| socket.try_clone()).collect::<std::io::Result<_>>()?;
    // Others hold the sockets too: each copy has a number of its own.
    let watched = copies.into_iter().map(|copy| kit::watch(copy, Interest::READABLE));
    let watched: Vec<_> = watched.collect::<std::io::Result<_>>()?;
    let task = tokio::spawn(async move {
        if !waited {
            let came = poll_fn(|context| {
                // Each is asked, so that each wakes this task.
                let ready: Vec<bool> =
                    watched.iter().map(|one| one.poll_read_ready(context).is_ready()).collect();
                if ready.contains(&true) { Poll::Ready(()) } else { Poll::Pending }
            });
            came.await;
        }
        let _ = inputs.send(Input::Event(Event::Demanded { service, waited }));
    });
    Ok(task.abort_handle())
}

fn anything_waits(sockets: &[Arc<OwnedFd>]) -> std::io::Result<bool> {
    let mut polled: Vec<PollFd<'_>> =
        sockets.iter().map(|socket| PollFd::new(socket.as_ref(), PollFlags::IN)).collect();
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::io::retry_on_intr(|| poll(&mut polled, Some(&at_once)))? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[tokio::test]
    async fn a_connection_and_a_datagram_are_seen_and_stay() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sockets: Vec<Arc<OwnedFd>> = vec![
            Arc::new(listener.try_clone().unwrap().into()),
            Arc::new(datagrams.try_clone().unwrap().into()),
        ];
        let (inputs, mut told) = mpsc::unbounded_channel();
        let demanded = |input| match input {
            Some(Input::Event(Event::Demanded { service, waited })) if service == "mine" => waited,
            _ => panic!("something else"),
        };
        watch("mine".to_owned(), &sockets, inputs.clone()).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!demanded(told.recv().await), "it came while it was waited for");
        watch("mine".to_owned(), &sockets, inputs.clone()).unwrap();
        assert!(demanded(told.recv().await), "it waits already");
        drop(listener.accept().unwrap());
        drop(client);
        watch("mine".to_owned(), &sockets, inputs.clone()).unwrap();
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", datagrams.local_addr().unwrap()).unwrap();
        assert!(!demanded(told.recv().await));
        let mut buffer = [0; 8];
        assert_eq!(datagrams.recv(&mut buffer).unwrap(), 1, "nobody has taken it");
        let waiting = watch("mine".to_owned(), &sockets, inputs).unwrap();
        waiting.abort();
        assert!(told.recv().await.is_none(), "nobody waits any more");
    }
}
