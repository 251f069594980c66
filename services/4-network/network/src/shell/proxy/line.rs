//! Connections over which plain requests are sent, one after the other: kept for the next request of the same program to the same
//! place. Each is one authorisation, and lives by it; each request is judged for itself before it is sent.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::ThreadId,
    time::Duration,
};

use http_body_util::{Either, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1::{self as client, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustix::{io::Errno, net::RecvFlags};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, task::AbortHandle, time::sleep};

use super::{
    Proxied,
    open::{Opened, denied, name_in, too_many},
    stream::Wire,
};
use crate::{
    core::{
        CallError, Connection, Repeats, SocketId, Target, User,
        first_bytes::{Verdict, judge_all},
        limits::{HEADERS_MAX, PROXY_KEPT_FOR},
    },
    shell::{Network, live::reset, names::now, program::Program, relay::room},
};

/// None where it cannot be sent twice.
pub(super) type Sent = Either<Incoming, Empty<Bytes>>;

/// It was not answered.
pub(super) struct Failed {
    error: hyper::Error,
    /// Of what nothing was sent.
    unsent: Option<Request<Sent>>,
}

/// While something is being asked.
const BUSY: u64 = u64::MAX;

/// What is known of a connection beside the table.
struct Known {
    network: Arc<Network>,
    program: Arc<Program>,
    id: SocketId,
    to: std::net::SocketAddr,
    connection: Connection,
    live: Arc<crate::shell::live::Live>,
    /// Of whoever carries it, and gone with that.
    stream: Weak<TcpStream>,
    place: String,
    thread: ThreadId,
    /// Since when nothing is asked, in nanoseconds of [`now`].
    idle_since: AtomicU64,
    has_ended: AtomicBool,
}

/// Whether the other end has said nothing since it has answered: neither that it closes nor, which nobody asked for, that it is about to.
/// The kernel is asked, which knows before the task that reads there is woken.
fn is_silent(stream: &TcpStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    matches!(rustix::net::recv(stream, &mut [0; 1], flags), Err(Errno::AGAIN))
}

impl Known {
    /// It does not wait any more. Dropped when the list is let go: what ends there looks into it, too.
    fn leave(&self) {
        let gone = self.program.kept().remove(self.id);
        drop(gone);
    }

    /// Comes when it has waited for too long.
    async fn idle(&self) {
        let mut left = PROXY_KEPT_FOR;
        loop {
            sleep(left).await;
            left = match self.idle_since.load(Ordering::SeqCst) {
                BUSY => PROXY_KEPT_FOR,
                since => PROXY_KEPT_FOR.saturating_sub(now().saturating_sub(Duration::from_nanos(since))),
            };
            if left.is_zero() {
                return;
            }
        }
    }
}

/// A connection, until it is dropped.
pub(in crate::shell) struct Line {
    sender: SendRequest<Sent>,
    known: Arc<Known>,
    driving: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        match self.known.program.orders.is_closed() {
            // Its program has ended: as of what it connects itself, nothing that is queued is delivered any more.
            true => self.known.live.cut(),
            false => self.driving.abort(),
        }
    }
}

/// One that waits, and counts as such.
pub(in crate::shell) struct Waiting {
    line: Line,
    _room: OwnedSemaphorePermit,
}

impl Waiting {
    /// Better on the thread that asks: the answer wakes no other one then.
    fn rank(&self) -> Option<bool> {
        let line = &self.line;
        line.sender.is_ready().then(|| line.known.thread == std::thread::current().id())
    }
}

/// One over which something is asked.
pub(super) struct Asked {
    line: Line,
    room: [OwnedSemaphorePermit; 2],
}

/// Takes it out of those that wait when it ends, so that it counts no longer.
struct Ends {
    _opened: Opened,
    known: Arc<Known>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.known.has_ended.store(true, Ordering::SeqCst);
        self.known.leave();
    }
}

async fn drive(ends: Ends, connection: client::Connection<TokioIo<Wire>, Sent>, stream: Arc<TcpStream>) {
    let known = &ends.known;
    let carried = async {
        // What came of it is told to whoever asked.
        let _ = connection.await;
        Ok(())
    };
    tokio::select! {
        biased;
        () = known.program.orders.closed() => {
            known.live.cut();
            reset(&*stream);
        }
        // What ends by itself has said so to both sides; all else is not delivered any more.
        cut = known.live.until_cut(carried) => if cut.is_err() {
            reset(&*stream);
        },
        () = known.idle() => {}
    }
}

impl Asked {
    async fn new(proxied: &Proxied, mut opened: Opened, target: &Target) -> Result<Self, CallError> {
        let failed =
            |why: &dyn std::fmt::Display| CallError::ConnectionFailed(format!("{}: {why}", target.host()));
        let (Some((there, to)), Some(room)) = (opened.there.take(), opened.room.take()) else {
            return Err(failed(&"its connection is another's"));
        };
        let _ = there.set_nodelay(true);
        let stream = Arc::new(there);
        let live = Arc::clone(opened.live());
        let wire = Wire::new(Arc::clone(&stream), Arc::clone(&live), opened.relay.bandwidth_limit);
        let (sender, connection) = client::Builder::new()
            .max_headers(HEADERS_MAX)
            .handshake::<_, Sent>(TokioIo::new(wire))
            .await
            .map_err(|error| failed(&error))?;
        let known = Arc::new(Known {
            network: Arc::clone(&proxied.network),
            program: Arc::clone(&proxied.program),
            id: opened.id(),
            to,
            connection: opened.connection.clone(),
            live,
            stream: Arc::downgrade(&stream),
            place: target.authority(),
            thread: std::thread::current().id(),
            idle_since: AtomicU64::new(BUSY),
            has_ended: AtomicBool::new(false),
        });
        let ends = Ends { _opened: opened, known: Arc::clone(&known) };
        let driving = tokio::spawn(drive(ends, connection, stream)).abort_handle();
        Ok(Self { line: Line { sender, known, driving }, room })
    }

    /// What was read of it to its end may be followed by the next request.
    pub(super) fn keep(self) {
        let Self { line, room } = self;
        drop(room);
        let known = Arc::clone(&line.known);
        let Ok(place) = Arc::clone(&known.network.kept).try_acquire_owned() else { return };
        let since = now();
        known.idle_since.store(since.as_nanos() as u64, Ordering::SeqCst);
        let waiting = Waiting { line, _room: place };
        let left_out = known.program.kept().put(known.id, known.place.clone(), since, waiting);
        drop(left_out);
        // It may have ended while it was put there: who takes it out has been here already.
        if known.has_ended.load(Ordering::SeqCst) {
            known.leave();
        }
    }

    pub(super) async fn ask(&mut self, request: Request<Sent>) -> Result<Response<Incoming>, Failed> {
        let asked = self.line.sender.try_send_request(request).await;
        asked.map_err(|mut failed| Failed { unsent: failed.take_message(), error: failed.into_error() })
    }
}

impl Failed {
    /// What can be sent once more, on another connection.
    pub(super) fn again(self, copy: Option<Request<Sent>>) -> Result<Request<Sent>, hyper::Error> {
        self.unsent.or(copy).ok_or(self.error)
    }

    pub(super) fn into_error(self) -> hyper::Error {
        self.error
    }
}

impl Proxied {
    /// A new one.
    pub(super) async fn line(&self, user: User, target: &Target) -> Result<Asked, CallError> {
        let opened = self.open(user, target, None).await?;
        if !(opened.relay.send && opened.relay.recv) {
            return Err(denied("its authorisation does not cover both sending and receiving"));
        }
        asks_for(target, &opened.relay.names)?;
        Asked::new(self, opened, target).await
    }

    /// One that stands, if what allowed it allows this request too, as things are now.
    pub(super) fn kept_line(
        &self,
        user: &User,
        target: &Target,
        repeats: Repeats,
    ) -> Result<Option<Asked>, CallError> {
        let (network, program) = (&self.network, &self.program);
        let place = target.authority();
        while let Some(waiting) = self.take(&place, repeats) {
            let Waiting { line, .. } = waiting;
            let known = &line.known;
            known.idle_since.store(BUSY, Ordering::SeqCst);
            // What its server has closed takes no request: one that cannot be sent twice would be lost there.
            let is_silent = known.stream.upgrade().is_some_and(|stream| is_silent(&stream));
            if is_silent && self.still_leads_there(&line, user, target) {
                let room = room(&network.relays, &program.relays).map_err(|_| too_many())?;
                return Ok(Some(Asked { line, room }));
            }
        }
        Ok(None)
    }

    fn take(&self, place: &str, repeats: Repeats) -> Option<Waiting> {
        self.program.kept().take(place, now(), repeats, Waiting::rank)
    }

    fn still_leads_there(&self, line: &Line, user: &User, target: &Target) -> bool {
        let (network, known) = (&self.network, &line.known);
        let hosts = network.interfaces.addresses();
        // From here on a change of the policy cuts it for what is asked now.
        network.calls.hold_for(known.id, user, target)
            && !known.live.is_cut()
            && network.stands(self.program.identity, &known.connection).is_ok()
            && self.leads_to(target, known.to, hosts.as_deref()).is_ok_and(|(_, names)| asks_for(target, &names).is_ok())
            // Of a name that has not answered this address lately another one may be meant by now.
            && name_in(target).is_ok_and(|name| name.is_none_or(|name| self.program.is_answered(&name, known.to.ip())))
            && (network.calls.still_held(known.id, hosts.as_deref()).is_ok() || kit::is_broken("proxy-rules"))
    }
}

/// Whether the request as it is written anew asks for whom its address was allowed: as of what is carried unread.
fn asks_for(target: &Target, names: &[String]) -> Result<(), CallError> {
    let head = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", target.authority());
    match judge_all(head.as_bytes(), names) {
        Verdict::Refused(why) => Err(denied(why.text(&names.join(" or ")))),
        Verdict::Agrees | Verdict::More => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Nothing was polled here since: what the kernel knows is enough.
    #[tokio::test]
    async fn what_the_other_end_has_said_last_is_seen_before_anybody_reads_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = || {
            let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            stream.set_nonblocking(true).unwrap();
            (TcpStream::from_std(stream).unwrap(), listener.accept().unwrap().0)
        };
        let (waits, _peer) = connected();
        assert!(is_silent(&waits) && is_silent(&waits));
        let (closed, peer) = connected();
        drop(peer);
        assert!(!is_silent(&closed));
        let (late, mut peer) = connected();
        peer.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
        assert!(!is_silent(&late));
        // It is still there for whoever reads.
        let mut heard = [0; 4];
        late.readable().await.unwrap();
        assert_eq!(late.try_read(&mut heard).unwrap(), 4);
    }
}
