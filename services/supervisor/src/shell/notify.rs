//! sd_notify: each program has a datagram socket of its own, so the socket says who speaks and no message can lie.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
};

use tokio::sync::mpsc;

use super::inputs::Input;
use crate::core::supervisor::{Event, Notification};

/// Bytes of one datagram; systemd's own limit.
const DATAGRAM_BYTES_MAX: usize = 4096;
/// Assignments of one datagram that are looked at.
const LINES_MAX: usize = 32;

/// Which process the socket's owner is just now; none while it does not run.
pub(super) type CurrentLaunch = tokio::sync::watch::Receiver<Option<crate::core::supervisor::LaunchId>>;

/// Reads until `launch` has no sender any more.
pub(super) fn listen(
    fd: OwnedFd,
    mut launch: CurrentLaunch,
    inputs: mpsc::UnboundedSender<Input>,
) -> io::Result<()> {
    let socket = UnixDatagram::from(fd);
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UnixDatagram::from_std(socket)?;
    tokio::spawn(async move {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let received = tokio::select! {
                received = socket.recv(&mut buffer) => received,
                changed = launch.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            let Ok(length) = received else { return };
            let Some(launch) = *launch.borrow() else { continue };
            for notification in parse(buffer.get(..length).unwrap_or_default()) {
                let _ = inputs.send(Input::Event(Event::Notify { launch, notification }));
            }
        }
    });
    Ok(())
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

    #[tokio::test]
    async fn what_is_said_counts_for_the_process_that_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n.sock");
        let server = UnixDatagram::bind(&path).unwrap();
        let (inputs, mut told) = mpsc::unbounded_channel();
        let (current, watcher) = tokio::sync::watch::channel(None);
        listen(server.into(), watcher, inputs).unwrap();
        let client = tokio::net::UnixDatagram::unbound().unwrap();
        client.send_to(b"READY=1", &path).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        current.send_replace(Some(LaunchId(4)));
        client.send_to(b"WATCHDOG=1", &path).await.unwrap();
        let Some(Input::Event(event)) = told.recv().await else { panic!() };
        assert_eq!(event, Event::Notify { launch: LaunchId(4), notification: Notification::Watchdog });
        drop(current);
        assert!(told.recv().await.is_none(), "nobody listens any more");
    }
}
