//! Servers that are canaries: TCP and UDP on the loopback, abstract sockets, a socket file. Each answers with the
//! secret and counts who came.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};

use crate::fdpass::Channel;

#[derive(Debug)]
pub(super) struct Servers {
    tcp_port: u16,
    udp_port: u16,
    stream_name: String,
    datagram_name: String,
    descriptor_name: String,
    socket_file: PathBuf,
    visits: Arc<AtomicU64>,
    /// Closed, it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

struct Sockets {
    stopped: UnixStream,
    tcp: TcpListener,
    udp: UdpSocket,
    stream: UnixListener,
    datagram: UnixDatagram,
    /// Whoever comes is given a descriptor of the secret.
    descriptor: UnixListener,
    file: UnixListener,
    secret_file: fs::File,
}

impl Servers {
    pub(super) fn start(folder: &Path, secret: &str) -> io::Result<Servers> {
        let (stop, stopped) = UnixStream::pair()?;
        let [stream_name, datagram_name, descriptor_name] =
            ["stream", "datagram", "descriptor"].map(|kind| format!("{secret}-{kind}"));
        let socket_file = folder.join("socket");
        let sockets = Sockets {
            stopped,
            tcp: TcpListener::bind("127.0.0.1:0")?,
            udp: UdpSocket::bind("127.0.0.1:0")?,
            stream: UnixListener::bind_addr(&SocketAddr::from_abstract_name(&stream_name)?)?,
            datagram: UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&datagram_name)?)?,
            descriptor: UnixListener::bind_addr(&SocketAddr::from_abstract_name(&descriptor_name)?)?,
            file: UnixListener::bind(&socket_file)?,
            secret_file: fs::File::open(folder.join("secret"))?,
        };
        let (tcp_port, udp_port) = (sockets.tcp.local_addr()?.port(), sockets.udp.local_addr()?.port());
        let visits = Arc::new(AtomicU64::new(0));
        let (counted, secret) = (Arc::clone(&visits), secret.to_owned());
        let thread =
            std::thread::spawn(
                move || {
                    while matches!(sockets.serve_one(secret.as_bytes(), &counted), Ok(true)) {}
                },
            );
        Ok(Servers {
            tcp_port,
            udp_port,
            stream_name,
            datagram_name,
            descriptor_name,
            socket_file,
            visits,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(super) fn describe(&self, name: &mut impl FnMut(&str, String)) {
        name("tcp_port", self.tcp_port.to_string());
        name("udp_port", self.udp_port.to_string());
        name("stream_name", self.stream_name.clone());
        name("datagram_name", self.datagram_name.clone());
        name("descriptor_name", self.descriptor_name.clone());
        name("socket_file", self.socket_file.to_string_lossy().into_owned());
    }

    /// How many came since this was asked last.
    pub(super) fn take_visits(&self) -> u64 {
        self.visits.swap(0, Ordering::AcqRel)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Sockets {
    /// Waits for one visitor and answers; false when it is over.
    fn serve_one(&self, secret: &[u8], visits: &AtomicU64) -> io::Result<bool> {
        let mut polled = [
            PollFd::new(&self.stopped, PollFlags::IN),
            PollFd::new(&self.tcp, PollFlags::IN),
            PollFd::new(&self.udp, PollFlags::IN),
            PollFd::new(&self.stream, PollFlags::IN),
            PollFd::new(&self.datagram, PollFlags::IN),
            PollFd::new(&self.file, PollFlags::IN),
            PollFd::new(&self.descriptor, PollFlags::IN),
        ];
        poll(&mut polled, None)?;
        let ready = polled.map(|one| !one.revents().is_empty());
        let [stopped, tcp, udp, stream, datagram, file, descriptor] = ready;
        if stopped {
            return Ok(false);
        }
        visits.fetch_add(1, Ordering::AcqRel);
        let mut buffer = [0; 64];
        // A visitor that is gone already is no reason to stop.
        let _ = if tcp {
            self.tcp.accept().and_then(|(mut one, _)| one.write_all(secret))
        } else if udp {
            self.udp.recv_from(&mut buffer).and_then(|(_, from)| self.udp.send_to(secret, from).map(|_| ()))
        } else if stream {
            self.stream.accept().and_then(|(mut one, _)| one.write_all(secret))
        } else if file {
            self.file.accept().and_then(|(mut one, _)| one.write_all(secret))
        } else if descriptor {
            self.descriptor.accept().and_then(|(one, _)| {
                let channel = Channel::from(OwnedFd::from(one));
                channel.send(b"x", &[self.secret_file.as_fd()]).map_err(io::Error::other)
            })
        } else if datagram {
            self.datagram.recv(&mut buffer).map(|_| ())
        } else {
            Ok(())
        };
        Ok(true)
    }
}

/// All that a server says before it hangs up.
pub(super) fn hear(mut stream: impl Read) -> io::Result<Vec<u8>> {
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard)?;
    Ok(heard)
}
