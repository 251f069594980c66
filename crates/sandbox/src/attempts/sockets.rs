//! Servers of the user on this host.

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixStream};
use std::time::Duration;

use super::servers::hear;
use super::{Attempt, Canaries, Failure, same};
use crate::guard::Guard::{Landlock, Mountns, Netns};

/// Answers on one machine take microseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(400);

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("connect_by_tcp", "talks with a TCP server on the host's loopback", &[Netns], tcp),
    Attempt::new("send_by_udp", "talks with a UDP server on the host's loopback", &[Netns], udp),
    Attempt::new(
        "connect_to_an_abstract_socket",
        "talks with an abstract socket",
        &[Netns, Landlock],
        stream,
    ),
    Attempt::new("send_to_an_abstract_socket", "sends to an abstract socket", &[Netns, Landlock], datagram),
    Attempt::new("connect_to_a_socket_file", "talks with a socket in a folder of the user", &[Mountns], file),
];

fn tcp(canaries: &Canaries) -> Result<(), Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, canaries.number("tcp_port")?));
    let stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    same(&hear(stream)?, canaries.get("secret")?)
}

fn udp(canaries: &Canaries) -> Result<(), Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect((Ipv4Addr::LOCALHOST, canaries.number("udp_port")?))?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.send(b"x")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    same(buffer.get(..length).unwrap_or_default(), canaries.get("secret")?)
}

fn stream(canaries: &Canaries) -> Result<(), Failure> {
    let address = UnixAddress::from_abstract_name(canaries.get("stream_name")?)?;
    same(&hear(UnixStream::connect_addr(&address)?)?, canaries.get("secret")?)
}

fn datagram(canaries: &Canaries) -> Result<(), Failure> {
    let address = UnixAddress::from_abstract_name(canaries.get("datagram_name")?)?;
    UnixDatagram::unbound()?.send_to_addr(b"x", &address)?;
    Ok(())
}

fn file(canaries: &Canaries) -> Result<(), Failure> {
    same(&hear(UnixStream::connect(canaries.get("socket_file")?)?)?, canaries.get("secret")?)
}
