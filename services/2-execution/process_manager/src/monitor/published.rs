//! What is published of a service: whoever comes to a socket of the host's is accepted here, and handed to `network` together with a
//! socket that leads to the program's own loopback. Nothing is read.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};

/// Accepted in a row before the loop looks at everything else again; the others wait in the kernel.
const ACCEPTED_PER_TURN_MAX: usize = 32;

#[derive(Debug)]
struct Place {
    listener: TcpListener,
    listens: SocketAddr,
    port: u16,
}

#[derive(Debug, Default)]
pub(crate) struct Published(Vec<Place>);

/// Somebody who has come.
pub(super) struct Came {
    pub(super) listens: SocketAddr,
    pub(super) accepted: OwnedFd,
    pub(super) own: OwnedFd,
}

impl Published {
    pub(crate) fn new(published: Vec<(OwnedFd, u16)>) -> io::Result<Self> {
        let place = |(fd, port): (OwnedFd, u16)| {
            let listener = TcpListener::from(fd);
            listener.set_nonblocking(true)?;
            Ok(Place { listens: listener.local_addr()?, listener, port })
        };
        published.into_iter().map(place).collect::<io::Result<_>>().map(Self)
    }

    /// Without `network` whoever comes waits in the kernel. They are named all the same: what is not, the init does not keep.
    pub(super) fn poll<'a>(&'a self, polled: &mut Vec<PollFd<'a>>, is_served: bool) {
        let flags = if is_served { PollFlags::IN } else { PollFlags::empty() };
        polled.extend(self.0.iter().map(|place| PollFd::new(&place.listener, flags)));
    }

    /// Where it is known at once that the program takes nobody they are closed; else `network` finds out.
    pub(super) fn serve(&self, mut hand: impl FnMut(Came)) {
        for place in &self.0 {
            for _ in 0..ACCEPTED_PER_TURN_MAX {
                let Ok((accepted, _)) = place.listener.accept() else { break };
                if let Ok(own) = connect(place.port) {
                    hand(Came { listens: place.listens, accepted: accepted.into(), own });
                }
            }
        }
    }
}

/// On the way to the program's own loopback; nobody waits for it here.
fn connect(port: u16) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    #[test]
    fn who_comes_is_handed_over_with_a_way_to_the_program_and_else_closed() {
        let (outside, inside) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (listens, port) = (outside.local_addr().unwrap(), inside.local_addr().unwrap().port());
        let published = Published::new(vec![(outside.into(), port)]).unwrap();
        let mut polled = Vec::new();
        published.poll(&mut polled, false);
        assert_eq!(polled.len(), 1, "what nobody serves yet is kept");
        let _peer = TcpStream::connect(listens).unwrap();
        let mut came = Vec::new();
        published.serve(|one| came.push(one));
        let [one] = &came[..] else { panic!("{}", came.len()) };
        assert_eq!(one.listens, listens);
        inside.accept().unwrap();
        drop(inside);
        let mut peer = TcpStream::connect(listens).unwrap();
        // At once, or when the kernel has found out: then the way to the program has an error.
        published.serve(|one| {
            let mut polled = [PollFd::new(&one.own, PollFlags::OUT)];
            rustix::event::poll(&mut polled, None).unwrap();
            assert_eq!(rustix::net::sockopt::socket_error(&one.own).unwrap(), Err(Errno::CONNREFUSED));
        });
        assert_eq!(peer.read(&mut [0; 1]).unwrap_or(0), 0);
    }
}
