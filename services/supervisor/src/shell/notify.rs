//! sd_notify: each program has a datagram socket of its own, so the socket says who speaks and no message can lie.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixDatagram,
    },
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::{
    io::Interest,
    sync::{mpsc, oneshot},
};

use super::inputs::Input;
use crate::{
    core::supervisor::{Event, Notification},
    manifest::limits::{NAME_BYTES_MAX, STORED_DESCRIPTORS_MAX},
};

/// Bytes of one datagram; systemd's own limit.
const DATAGRAM_BYTES_MAX: usize = 4096;
/// Assignments of one datagram that are looked at.
const LINES_MAX: usize = 32;
/// Room for the descriptors of one datagram; the kernel closes what does not fit.
const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(STORED_DESCRIPTORS_MAX));
/// What a descriptor is called that was left without a name, as systemd calls it.
const NAMELESS: &str = "stored";

/// Which process the socket's owner is just now; none while it does not run.
pub(super) type CurrentLaunch = tokio::sync::watch::Receiver<Option<crate::core::supervisor::LaunchId>>;

/// Reads until `launch` has no sender any more.
pub(super) fn listen(
    service: &str,
    fd: OwnedFd,
    mut launch: CurrentLaunch,
    inputs: mpsc::UnboundedSender<Input>,
) -> io::Result<()> {
    let socket = UnixDatagram::from(fd);
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UnixDatagram::from_std(socket)?;
    let service = service.to_owned();
    tokio::spawn(async move {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let received = tokio::select! {
                received = socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer)) => received,
                changed = launch.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            let Ok((length, fds)) = received else { return };
            let Some(launch) = *launch.borrow() else { continue };
            let said = buffer.get(..length).unwrap_or_default();
            match about_descriptors(said) {
                // What comes without it is closed.
                Some(Wish::Store(name)) => {
                    let service = service.clone();
                    let _ = inputs.send(Input::StoreDescriptors { service, name, fds });
                }
                Some(Wish::Forget(name)) => {
                    let _ = inputs.send(Input::ForgetDescriptors { service: service.clone(), name });
                }
                None => {}
            }
            for notification in parse(said) {
                let _ = inputs.send(Input::Event(Event::Notify { launch, notification }));
            }
            // The next is read once this one was taken in: what a program says in a loop waits in its own socket.
            let (taken, wait) = oneshot::channel();
            let _ = inputs.send(Input::View(Box::new(move |_| {
                let _ = taken.send(());
            })));
            let _ = wait.await;
        }
    });
    Ok(())
}

fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::<u8>::uninit(); CONTROL_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = part {
            fds.extend(passed);
        }
    }
    Ok((received.bytes, fds))
}

/// What a program wants done with descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wish {
    Store(String),
    Forget(String),
}

fn about_descriptors(datagram: &[u8]) -> Option<Wish> {
    let text = String::from_utf8_lossy(datagram);
    let lines = || text.lines().take(LINES_MAX);
    let has = |line: &str| lines().any(|other| other == line);
    let legal = |name: &&str| {
        let legal = |b: u8| b.is_ascii_graphic() && b != b':';
        !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(legal)
    };
    let name = lines().find_map(|line| line.strip_prefix("FDNAME=")).filter(legal);
    match (has("FDSTORE=1"), has("FDSTOREREMOVE=1")) {
        (_, true) => name.map(|name| Wish::Forget(name.to_owned())),
        (true, false) => Some(Wish::Store(name.unwrap_or(NAMELESS).to_owned())),
        (false, false) => None,
    }
}

/// What is understood of a datagram; the rest is for service managers of another kind.
#[must_use]
pub(super) fn parse(datagram: &[u8]) -> Vec<Notification> {
    let text = String::from_utf8_lossy(datagram);
    let lines = text.lines().take(LINES_MAX);
    lines
        .filter_map(|line| match line.split_once('=')? {
            ("READY", "1") => Some(Notification::Ready),
            ("WATCHDOG", "1") => Some(Notification::Watchdog),
            ("STOPPING", "1") => Some(Notification::Stopping),
            ("STATUS", status) => Some(Notification::Status(status.to_owned())),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::supervisor::LaunchId;

    #[test]
    fn known_assignments_are_read_and_the_rest_is_passed_over() {
        let parsed = parse(b"READY=1\nSTATUS=warm\nMAINPID=1\nWATCHDOG=0\nnonsense\nSTOPPING=1\nWATCHDOG=1");
        let expected = [
            Notification::Ready,
            Notification::Status("warm".to_owned()),
            Notification::Stopping,
            Notification::Watchdog,
        ];
        assert_eq!(parsed, expected);
        assert_eq!(parse(&[b'\n'; 100]), []);
        let many = "READY=1\n".repeat(LINES_MAX + 5);
        assert_eq!(parse(many.as_bytes()).len(), LINES_MAX);
    }

    #[test]
    fn descriptors_are_left_and_taken_back_by_name() {
        let store = |name: &str| Some(Wish::Store(name.to_owned()));
        assert_eq!(about_descriptors(b"FDSTORE=1\nFDNAME=peer"), store("peer"));
        assert_eq!(about_descriptors(b"FDSTORE=1"), store(NAMELESS));
        assert_eq!(about_descriptors(b"FDSTORE=1\nFDNAME=a:b"), store(NAMELESS));
        let long = |length: usize| format!("FDNAME={}\nFDSTORE=1", "n".repeat(length));
        assert_eq!(about_descriptors(long(NAME_BYTES_MAX).as_bytes()), store(&"n".repeat(NAME_BYTES_MAX)));
        assert_eq!(about_descriptors(long(NAME_BYTES_MAX + 1).as_bytes()), store(NAMELESS));
        let forget = Some(Wish::Forget("peer".to_owned()));
        assert_eq!(about_descriptors(b"FDSTOREREMOVE=1\nFDNAME=peer"), forget);
        assert_eq!(about_descriptors(b"FDSTOREREMOVE=1"), None);
        assert_eq!(about_descriptors(b"FDNAME=peer\nFDSTORE=0"), None);
    }

    #[tokio::test]
    async fn what_is_said_counts_for_the_process_that_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n.sock");
        let server = UnixDatagram::bind(&path).unwrap();
        let (inputs, mut told) = mpsc::unbounded_channel();
        let (current, watcher) = tokio::sync::watch::channel(None);
        listen("mine", server.into(), watcher, inputs).unwrap();
        let client = tokio::net::UnixDatagram::unbound().unwrap();
        client.send_to(b"READY=1", &path).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        current.send_replace(Some(LaunchId(4)));
        client.send_to(b"WATCHDOG=1", &path).await.unwrap();
        let Some(Input::Event(event)) = told.recv().await else { panic!() };
        assert_eq!(event, Event::Notify { launch: LaunchId(4), notification: Notification::Watchdog });
        // A second message waits in the socket until the first one was taken in.
        client.send_to(b"STOPPING=1", &path).await.unwrap();
        let Some(Input::View(taken)) = told.recv().await else { panic!() };
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(told.try_recv().is_err(), "it was read too early");
        // Whoever looks has taken it in.
        drop(taken);
        let Some(Input::Event(event)) = told.recv().await else { panic!() };
        assert_eq!(event, Event::Notify { launch: LaunchId(4), notification: Notification::Stopping });
        assert!(matches!(told.recv().await, Some(Input::View(_))));
        drop(current);
        assert!(told.recv().await.is_none(), "nobody listens any more");
    }
}
