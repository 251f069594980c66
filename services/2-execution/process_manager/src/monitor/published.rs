//! What is published of a service: whoever comes to a socket of the host's is accepted here, and handed to `network` together with a
//! socket that leads to the program's own loopback. Nothing is read. While the program does not listen there, as when it has just been
//! started or is being replaced, whoever comes waits in the kernel, for a while.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, socket_with},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

/// Accepted in a row before the loop looks at everything else again; the others wait in the kernel.
const ACCEPTED_PER_TURN_MAX: usize = 32;

/// A program that does not listen for longer than this is not about to: who comes then is reset.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A connect on the loopback is over at once, unless the kernel is late.
const OVER_WITHIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

#[derive(Debug)]
struct Place {
    listener: TcpListener,
    listens: SocketAddr,
    port: u16,
    /// Since when somebody waits whom the program does not take.
    refuses_since: Option<Instant>,
    /// Not looked at before the timer has run out.
    waits: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Published {
    places: Vec<Place>,
    /// None where nothing is published.
    timer: Option<OwnedFd>,
}

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
            let listens = listener.local_addr()?;
            Ok(Place { listener, listens, port, refuses_since: None, waits: false })
        };
        let places = published.into_iter().map(place).collect::<io::Result<Vec<_>>>()?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer =
            (!places.is_empty()).then(|| timerfd_create(TimerfdClockId::Monotonic, flags)).transpose()?;
        Ok(Self { places, timer })
    }

    /// Without `network` whoever comes waits in the kernel. They are named all the same: what is not, the init does not keep.
    pub(super) fn poll<'a>(&'a self, polled: &mut Vec<PollFd<'a>>, is_served: bool) {
        let flags =
            |place: &Place| if is_served && !place.waits { PollFlags::IN } else { PollFlags::empty() };
        polled.extend(self.places.iter().map(|place| PollFd::new(&place.listener, flags(place))));
        // Nobody reads it while nobody is served.
        let looks = if is_served { PollFlags::IN } else { PollFlags::empty() };
        polled.extend(self.timer.iter().map(|timer| PollFd::new(timer, looks)));
    }

    /// Of whom the program does not take, some time after it was to listen, `network` is not told. Where the program's queue is full,
    /// one is handed over at each look, and the others wait in the kernel: each costs the time of a connect that is not over.
    pub(super) fn serve(&mut self, mut hand: impl FnMut(Came)) -> io::Result<()> {
        let Some(timer) = &self.timer else { return Ok(()) };
        if rustix::io::read(timer, &mut [0; 8]).is_ok() {
            self.places.iter_mut().for_each(|place| place.waits = false);
        }
        let mut begins_to_wait = false;
        for place in self.places.iter_mut().filter(|place| !place.waits) {
            for _ in 0..ACCEPTED_PER_TURN_MAX {
                if !place.somebody_is_there() {
                    break;
                }
                let own = connect(place.port);
                let since = own.is_err().then(|| *place.refuses_since.get_or_insert_with(Instant::now));
                if since.is_some_and(|since| since.elapsed() < LISTENS_WITHIN) {
                    place.waits = true;
                    break;
                }
                // Whom there is no descriptor for waits, too.
                let Ok((accepted, _)) = place.listener.accept() else {
                    place.waits = true;
                    break;
                };
                if let Ok(Way { own, is_over }) = own {
                    place.refuses_since = None;
                    hand(Came { listens: place.listens, accepted: accepted.into(), own });
                    if !is_over {
                        place.waits = true;
                        break;
                    }
                }
            }
            begins_to_wait |= place.waits;
        }
        // Set once for all that wait: a program that calls often puts off nobody.
        if begins_to_wait {
            let nanoseconds = i64::try_from(LOOK_EVERY.as_nanos()).unwrap_or(i64::MAX);
            let once = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: Timespec { tv_sec: 0, tv_nsec: nanoseconds },
            };
            timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
        }
        Ok(())
    }
}

impl Place {
    fn somebody_is_there(&self) -> bool {
        let mut polled = [PollFd::new(&self.listener, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

/// A socket that leads to the program, or is on its way there.
struct Way {
    own: OwnedFd,
    is_over: bool,
}

/// On the way to the program's own loopback; nobody waits for it here.
fn connect(port: u16) -> Result<Way, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    let place = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match rustix::net::connect(&socket, &place) {
        // To itself, where nobody listens and the kernel has chosen that very port for it.
        Ok(()) if rustix::net::getsockname(&socket)? == SocketAddrAny::from(place) => {
            return Err(Errno::CONNREFUSED);
        }
        Ok(()) => return Ok(Way { own: socket, is_over: true }),
        Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno),
    }
    // One that is not over by then is waited for by `network`, as where the program's queue is full.
    let is_over = rustix::event::poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&OVER_WITHIN))? > 0;
    rustix::net::sockopt::socket_error(&socket)??;
    Ok(Way { own: socket, is_over })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn who_comes_is_handed_over_with_a_way_to_the_program() {
        let ((outside, listens), (inside, own)) = (listening(), listening());
        let mut published = Published::new(vec![(outside.into(), own.port())]).unwrap();
        let mut polled = Vec::new();
        published.poll(&mut polled, false);
        assert_eq!(polled.len(), 2, "what nobody serves yet is kept");
        let _peer = TcpStream::connect(listens).unwrap();
        let mut came = Vec::new();
        published.serve(|one| came.push(one)).unwrap();
        let [one] = &came[..] else { panic!("{}", came.len()) };
        assert_eq!(one.listens, listens);
        inside.accept().unwrap();
    }

    #[test]
    fn who_comes_before_the_program_listens_waits_until_it_does() {
        let ((outside, listens), (inside, own)) = (listening(), listening());
        drop(inside);
        let mut published = Published::new(vec![(outside.into(), own.port())]).unwrap();
        let _peer = TcpStream::connect(listens).unwrap();
        published.serve(|_| panic!("nobody is there to take it")).unwrap();
        assert!(published.places[0].waits);
        let inside = TcpListener::bind(own).unwrap();
        let mut came = 0;
        for _ in 0..500 {
            rustix::event::poll(&mut [PollFd::new(published.timer.as_ref().unwrap(), PollFlags::IN)], None)
                .unwrap();
            published.serve(|_| came += 1).unwrap();
            if came > 0 {
                break;
            }
        }
        assert_eq!(came, 1);
        inside.accept().unwrap();
        assert!(published.places[0].refuses_since.is_none());
    }

    /// Each that is not over costs the whole wait: of many that come at once one a look pays it, and when there is room again all
    /// others come.
    #[test]
    fn at_a_program_whose_queue_is_full_one_is_waited_for_at_each_look() {
        let ((outside, listens), (inside, own)) = (listening(), listening());
        rustix::net::listen(&inside, 0).unwrap();
        // The last one finds no room, however late the kernel is.
        let mut fills = vec![connect(own.port()).unwrap()];
        let long = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
        while let Some(Way { own: last, .. }) = fills.last()
            && rustix::event::poll(&mut [PollFd::new(last, PollFlags::OUT)], Some(&long)).unwrap() > 0
        {
            assert!(fills.len() < 100, "it has no end");
            fills.push(connect(own.port()).unwrap());
        }
        let mut published = Published::new(vec![(outside.into(), own.port())]).unwrap();
        let peers: Vec<_> = (0..8).map(|_| TcpStream::connect(listens).unwrap()).collect();
        let mut came = Vec::new();
        published.serve(|one| came.push(one)).unwrap();
        assert_eq!(came.len(), 1);
        assert!(published.places[0].waits, "the others are not looked at before the timer has run out");
        rustix::net::listen(&inside, 1_000).unwrap();
        for _ in 0..500 {
            let timer = published.timer.as_ref().unwrap();
            rustix::event::poll(&mut [PollFd::new(timer, PollFlags::IN)], None).unwrap();
            published.serve(|one| came.push(one)).unwrap();
            if came.len() == peers.len() {
                break;
            }
        }
        assert_eq!(came.len(), peers.len());
    }

    #[test]
    fn whom_a_program_does_not_take_for_long_is_closed() {
        let ((outside, listens), (inside, own)) = (listening(), listening());
        drop(inside);
        let mut published = Published::new(vec![(outside.into(), own.port())]).unwrap();
        let mut peer = TcpStream::connect(listens).unwrap();
        published.places[0].refuses_since = Instant::now().checked_sub(LISTENS_WITHIN);
        published.serve(|_| panic!("nobody is there to take it")).unwrap();
        assert_eq!(peer.read(&mut [0; 1]).unwrap_or(0), 0);
    }
}
