//! Datagrams of programs. They come over a channel of their own from the program's monitor, which reads them out of the program's
//! network, and go out by sockets of this service, one for each port of the program and each peer, connected: the kernel itself takes
//! answers of nobody else.
//!
//! The first datagram to a peer is a connect: decided, on record, and only then sent. What comes meanwhile waits, or is dropped, as
//! datagrams are. What carries them is `datagram_flow.rs`.

use std::{
    collections::HashMap,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use contracts::{
    datagram::{FRAME_BYTES_MAX, Frame},
    network::v1 as wire,
};
use rustix::io::Errno;
use sandbox::fdpass::{Channel, PassError};
use tokio::{
    io::unix::AsyncFd,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

use super::{
    Network,
    datagram_flow::Shares,
    names::now,
    program::Program,
    program_wire::{Wire, register},
    programs::libc_errno,
};
use crate::core::{
    Bucket, Decided, Denied, HostName, Reach,
    limits::{
        DATAGRAM_SOCKETS_OF_PROGRAM_MAX, NEW_PEERS_A_SECOND_MAX, NEW_PEERS_AT_ONCE_MAX, PEERS_OF_PROGRAM_MAX,
        REASON_BYTES_MAX, WAITING_BYTES_OF_PROGRAM_MAX, WAITING_DATAGRAMS_MAX,
    },
};

/// One that waits for its flow.
pub(super) struct Queued {
    pub(super) port: u16,
    pub(super) data: Vec<u8>,
    _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// All of one program.
pub(super) struct Datagrams {
    wire: AsyncFd<Wire>,
    state: Mutex<State>,
    /// Room for what waits, in bytes.
    waiting: Arc<Semaphore>,
    pub(super) sockets: Arc<Semaphore>,
    pub(super) shares: Shares,
}

struct State {
    flows: HashMap<SocketAddr, Flow>,
    /// Counts what was sent.
    sent: u64,
    denied: Denied,
    rate: Bucket,
}

struct Flow {
    queue: mpsc::Sender<Queued>,
    /// The number of what was sent last.
    used: u64,
}

impl State {
    /// The flow to a peer, if it goes on.
    fn known(&mut self, peer: &SocketAddr) -> Option<mpsc::Sender<Queued>> {
        self.sent += 1;
        let flow = self.flows.get_mut(peer).filter(|flow| !flow.queue.is_closed())?;
        flow.used = self.sent;
        Some(flow.queue.clone())
    }

    /// One more. In the place of the one that was not used for longest, if there is no other.
    fn add(&mut self, peer: SocketAddr, queue: mpsc::Sender<Queued>) {
        self.flows.retain(|_, flow| !flow.queue.is_closed());
        let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(peer, _)| *peer);
        if let Some(oldest) = oldest.filter(|_| self.flows.len() >= PEERS_OF_PROGRAM_MAX) {
            self.flows.remove(&oldest);
        }
        self.flows.insert(peer, Flow { queue, used: self.sent });
    }
}

impl Datagrams {
    fn new(wire: AsyncFd<Wire>) -> Self {
        let rate = Bucket::new(NEW_PEERS_AT_ONCE_MAX, NEW_PEERS_A_SECOND_MAX);
        Self {
            wire,
            state: Mutex::new(State { flows: HashMap::new(), sent: 0, denied: Denied::default(), rate }),
            waiting: Arc::new(Semaphore::new(WAITING_BYTES_OF_PROGRAM_MAX)),
            sockets: Arc::new(Semaphore::new(DATAGRAM_SOCKETS_OF_PROGRAM_MAX)),
            shares: Shares::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the program hears from a peer. Where there is no room it is lost, as anywhere on its way.
    pub(super) fn deliver(&self, port: u16, peer: SocketAddr, data: &[u8]) {
        self.send(Frame { errno: 0, port, peer, data });
    }

    /// That one did not go out, and why, if somebody said no.
    pub(super) fn fail(&self, port: u16, peer: SocketAddr, errno: u32, why: &str) {
        let why = why.get(..why.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default();
        let errno = u16::try_from(errno).ok().filter(|errno| *errno > 0).unwrap_or(u16::MAX);
        self.send(Frame { errno, port, peer, data: why.as_bytes() });
    }

    fn send(&self, frame: Frame<'_>) {
        if let Some(bytes) = frame.encode() {
            let _ = self.wire.get_ref().0.send(&bytes, &[]);
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> Result<usize, PassError> {
        loop {
            let mut ready = self.wire.readable().await.map_err(PassError::Io)?;
            match ready.get_inner().0.receive(buffer, &mut Vec::new()) {
                Err(PassError::Full) => ready.clear_ready(),
                other => return other,
            }
        }
    }

    /// Its flow has ended; another may have come in its place.
    pub(super) fn forget(&self, peer: SocketAddr, flow: &mpsc::WeakSender<Queued>) {
        let mut state = self.state();
        let is_this = |known: &Flow| flow.upgrade().is_some_and(|it| it.same_channel(&known.queue));
        if state.flows.get(&peer).is_some_and(is_this) {
            state.flows.remove(&peer);
        }
    }

    /// Policy said no: it is not asked again at once.
    pub(super) fn deny(&self, peer: SocketAddr) {
        self.state().denied.add(peer, now());
    }
}

impl Network {
    /// A monitor that has datagrams to send asks for a channel; it comes with the answer.
    pub(super) fn open_datagrams(self: &Arc<Self>, program: &Arc<Program>, id: u64) {
        let refuse = |errno| program.answer(id, wire::ProgramAnswer { errno, ..Default::default() }, None);
        if !program.places.has_datagrams() {
            return refuse(libc_errno::ACCESS);
        }
        let opened = Channel::pair().and_then(|(ours, theirs)| {
            ours.set_nonblocking()?;
            Ok((register(ours)?, OwnedFd::from(theirs)))
        });
        let Ok((ours, theirs)) = opened else { return refuse(libc_errno::NETDOWN) };
        let datagrams = Arc::new(Datagrams::new(ours));
        // One that asks again has lost the other: its flows end with its end of the channel.
        let (network, served) = (Arc::clone(self), Arc::clone(program));
        tokio::spawn(async move { network.serve_datagrams(served, datagrams).await });
        program.answer(id, wire::ProgramAnswer::default(), Some(theirs));
    }

    async fn serve_datagrams(self: Arc<Self>, program: Arc<Program>, datagrams: Arc<Datagrams>) {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        loop {
            let received = tokio::select! {
                () = program.orders.closed() => break,
                received = datagrams.receive(&mut buffer) => received,
            };
            let Ok(length) = received else { break };
            let Some(frame) = Frame::decode(buffer.get(..length).unwrap_or_default()) else { break };
            self.take_datagram(&program, &datagrams, frame);
            // Whoever floods holds up nobody else.
            tokio::task::yield_now().await;
        }
        datagrams.state().flows.clear();
    }

    fn take_datagram(self: &Arc<Self>, program: &Arc<Program>, datagrams: &Arc<Datagrams>, frame: Frame<'_>) {
        let Frame { port, peer, data, .. } = frame;
        let known = datagrams.state().known(&peer);
        if let Some(flow) = known {
            return self.queue(datagrams, &flow, port, data);
        }
        let fail = |errno: Errno, why: &str| {
            datagrams.fail(port, peer, errno.raw_os_error().unsigned_abs(), why);
        };
        let hosts = self.interfaces.addresses();
        let Decided { reach, name, .. } = program.decide_datagram(peer, hosts.as_deref());
        match reach {
            // What `prove` switched off: policy alone is asked.
            Reach::Own | Reach::Refused(_) if kit::is_broken("datagrams-list") => {}
            Reach::Own => return fail(Errno::ACCESS, "its own loopback is no way out"),
            Reach::Refused(why) => return fail(Errno::ACCESS, &why),
            Reach::Ask => {}
        }
        let mut state = datagrams.state();
        let now = now();
        if state.denied.has(&peer, now) {
            return fail(Errno::CONNREFUSED, "");
        }
        if !state.rate.take(now) {
            return fail(Errno::AGAIN, "it begins to send to too many in a second");
        }
        let rooms = [&program.connects, &self.connects].map(|all| Arc::clone(all).try_acquire_owned());
        let [Ok(one), Ok(of_all)] = rooms else { return fail(Errno::AGAIN, "too much is being decided") };
        let (flow, queue) = mpsc::channel(WAITING_DATAGRAMS_MAX);
        state.add(peer, flow.clone());
        drop(state);
        self.queue(datagrams, &flow, port, data);
        let begun = Begun { peer, name, port, flow: flow.downgrade(), queue, deciding: (one, of_all) };
        let (network, program, datagrams) = (Arc::clone(self), Arc::clone(program), Arc::clone(datagrams));
        tokio::spawn(async move { network.datagram_flow(program, datagrams, begun).await });
    }

    /// What has no room is lost.
    fn queue(&self, datagrams: &Datagrams, flow: &mpsc::Sender<Queued>, port: u16, data: &[u8]) {
        // An empty one takes a place too.
        let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX).max(1);
        let room = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_many_owned(bytes);
        if let (Ok(own), Ok(all)) = (room(&datagrams.waiting), room(&self.waiting_datagrams)) {
            let _ = flow.try_send(Queued { port, data: data.to_vec(), _room: (own, all) });
        }
    }
}

/// A flow whose first datagram has come.
pub(super) struct Begun {
    pub(super) peer: SocketAddr,
    pub(super) name: Option<HostName>,
    /// Of the first.
    pub(super) port: u16,
    pub(super) flow: mpsc::WeakSender<Queued>,
    pub(super) queue: mpsc::Receiver<Queued>,
    pub(super) deciding: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_peer_takes_the_place_of_the_one_that_was_not_used_for_longest() {
        let mut state =
            State { flows: HashMap::new(), sent: 0, denied: Denied::default(), rate: Bucket::new(1, 1) };
        let peer = |number: usize| SocketAddr::from(([192, 0, 2, 1], u16::try_from(number + 1).unwrap()));
        let mut queues = Vec::new();
        let mut add = |state: &mut State, number| {
            assert!(state.known(&peer(number)).is_none());
            let (flow, queue) = mpsc::channel(1);
            state.add(peer(number), flow);
            queues.push(queue);
        };
        (0..PEERS_OF_PROGRAM_MAX).for_each(|number| add(&mut state, number));
        assert!(state.known(&peer(0)).is_some());
        add(&mut state, PEERS_OF_PROGRAM_MAX);
        assert_eq!(state.flows.len(), PEERS_OF_PROGRAM_MAX);
        assert!(state.known(&peer(0)).is_some() && state.known(&peer(1)).is_none());
        // One that has ended gives its place.
        drop(queues.remove(2));
        assert!(state.known(&peer(2)).is_none());
        let (flow, _queue) = mpsc::channel(1);
        state.add(peer(1), flow);
        assert!(state.known(&peer(3)).is_some() && state.known(&peer(1)).is_some());
    }
}
