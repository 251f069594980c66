//! The program's datagrams: read as packets where they leave its network, passed to `network` one by one, and what comes back is written
//! there as packets from whom it is.
//!
//! The program can change nothing of what is decided about: a packet is a copy that the kernel has made. What does not arrive is lost,
//! as anywhere on its way; of what is refused its socket hears as of a peer that does not listen.

use std::{io, os::fd::OwnedFd};

use contracts::datagram::{FRAME_BYTES_MAX as FRAME_OF_CHANNEL_BYTES_MAX, Frame};
use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
};
use sandbox::{
    Ready,
    fdpass::{Channel, PassError},
};

use super::refused::RefusedCalls;
use crate::core::datagram::{FRAME_BYTES_MAX, Outgoing, Reader, Unreachable, incoming, unreachable};

/// Packets taken in a row, each way, before the loop looks at everything else again.
const PACKETS_PER_TURN_MAX: usize = 64;
/// One byte more than the longest, so that a longer one is noticed.
const BUFFER_BYTES: usize = {
    let longest = if FRAME_BYTES_MAX > FRAME_OF_CHANNEL_BYTES_MAX {
        FRAME_BYTES_MAX
    } else {
        FRAME_OF_CHANNEL_BYTES_MAX
    };
    longest + 1
};

#[derive(Debug)]
pub(crate) struct Datagrams {
    packets: OwnedFd,
    channel: Option<Channel>,
    /// `network` has given one: one that is lost is asked for again.
    was_open: bool,
    /// Something was to go out since, and found none.
    is_missed: bool,
    reader: Reader,
    /// Of the last one that was written in pieces.
    number: u32,
    buffer: Vec<u8>,
}

impl Datagrams {
    pub(crate) fn new(packets: OwnedFd) -> Self {
        Self {
            packets,
            channel: None,
            was_open: false,
            is_missed: false,
            reader: Reader::default(),
            number: 0,
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// From `network`.
    pub(super) fn open(&mut self, fd: OwnedFd) -> io::Result<()> {
        let channel = Channel::from(fd);
        channel.set_nonblocking()?;
        self.channel = Some(channel);
        (self.was_open, self.is_missed) = (true, false);
        Ok(())
    }

    /// `network` gives none.
    pub(super) fn refuse(&mut self) {
        self.was_open = false;
    }

    /// Whether its channel is to be asked for again: once for each answer, and only while the program sends something.
    pub(super) fn misses_channel(&mut self) -> bool {
        std::mem::take(&mut self.is_missed) && self.was_open && self.channel.is_none()
    }

    pub(super) fn lose(&mut self) {
        self.channel = None;
    }

    pub(super) fn poll<'a>(&'a self, polled: &mut Vec<PollFd<'a>>) {
        polled.push(PollFd::new(&self.packets, PollFlags::IN));
        polled.extend(self.channel.as_ref().map(|channel| PollFd::new(channel, PollFlags::IN)));
    }

    pub(super) fn serve(&mut self, ready: &Ready, refused: &mut RefusedCalls) {
        let turns = |says: bool| if says { PACKETS_PER_TURN_MAX } else { 0 };
        for _ in 0..turns(ready.has(&self.packets)) {
            match rustix::io::read(&self.packets, &mut self.buffer) {
                Ok(length) => {
                    let sent = self.reader.read(self.buffer.get(..length).unwrap_or_default());
                    if let Some(outgoing) = sent {
                        self.pass(&outgoing);
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        for _ in 0..turns(self.channel.as_ref().is_some_and(|channel| ready.has(channel))) {
            let Some(channel) = &self.channel else { break };
            match channel.receive(&mut self.buffer, &mut Vec::new()) {
                Ok(length) => {
                    let buffer = std::mem::take(&mut self.buffer);
                    match Frame::decode(buffer.get(..length).unwrap_or_default()) {
                        Some(frame) => self.hear(&frame, refused),
                        None => self.lose(),
                    }
                    self.buffer = buffer;
                }
                Err(PassError::Full) => break,
                Err(_) => self.lose(),
            }
        }
    }

    fn pass(&mut self, Outgoing { port, to, data }: &Outgoing) {
        let frame = Frame { errno: 0, port: *port, peer: *to, data };
        let sent = match (&self.channel, frame.encode()) {
            (Some(channel), Some(bytes)) => channel.send(&bytes, &[]),
            _ => Err(PassError::Closed),
        };
        match sent {
            // Where there is no room it is lost.
            Ok(()) | Err(PassError::Full) => {}
            Err(_) => {
                self.lose();
                self.is_missed = true;
                self.write(&unreachable(*to, *port, Unreachable::Network));
            }
        }
    }

    fn hear(&mut self, frame: &Frame<'_>, refused: &mut RefusedCalls) {
        let Frame { errno, port, peer, data } = *frame;
        if errno == 0 {
            self.number = self.number.wrapping_add(1);
            incoming(peer, port, data, self.number).iter().for_each(|packet| self.write(packet));
            return;
        }
        if !data.is_empty() {
            refused.add("sendto", &format!("{peer}/udp"), i32::from(errno));
        }
        let why = match Errno::from_raw_os_error(i32::from(errno)) {
            Errno::ACCESS | Errno::PERM | Errno::CONNREFUSED | Errno::CONNABORTED => Unreachable::Port,
            Errno::HOSTUNREACH | Errno::HOSTDOWN => Unreachable::Host,
            Errno::NETUNREACH | Errno::NETDOWN => Unreachable::Network,
            // Lost without a word.
            _ => return,
        };
        self.write(&unreachable(peer, port, why));
    }

    /// What does not fit into the program's queue is lost.
    fn write(&self, packet: &[u8]) {
        let _ = rustix::io::write(&self.packets, packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn a_channel_that_is_lost_is_missed_as_soon_as_something_is_to_go_out() {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let mut datagrams = Datagrams::new(ours);
        let send = |datagrams: &mut Datagrams| {
            // An answer with its addresses and ports turned round is what the program sends.
            for mut packet in incoming("192.0.2.1:53".parse().unwrap(), 7, b"question", 1) {
                packet[26..34].rotate_left(4);
                packet[34..38].rotate_left(2);
                rustix::io::write(&theirs, &packet).unwrap();
            }
            let mut polled = Vec::new();
            datagrams.poll(&mut polled);
            rustix::event::poll(&mut polled, None).unwrap();
            let ready = Ready::of(&polled);
            drop(polled);
            datagrams.serve(&ready, &mut RefusedCalls::default());
            let _ = rustix::io::read(&theirs, &mut [0; 1024]);
        };
        send(&mut datagrams);
        assert!(!datagrams.misses_channel(), "nobody has given it one");
        let (far, near) = Channel::pair().unwrap();
        far.set_nonblocking().unwrap();
        datagrams.open(near.into()).unwrap();
        send(&mut datagrams);
        assert!(far.receive(&mut [0; 1024], &mut Vec::new()).is_ok() && !datagrams.misses_channel());
        drop(far);
        send(&mut datagrams);
        assert!(datagrams.misses_channel() && !datagrams.misses_channel(), "it is asked for once");
        send(&mut datagrams);
        assert!(datagrams.misses_channel());
        datagrams.refuse();
        send(&mut datagrams);
        assert!(!datagrams.misses_channel(), "`network` gives none");
    }
}
