//! The name server of the program's own network: what it asks is passed to `network`, and what that says is passed back.
//!
//! Nothing of a message is read here but how long it is. Whoever is in this network may ask: it is the program's alone.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
};

use contracts::network::v1 as wire;
use rustix::event::{PollFd, PollFlags};
use sandbox::Ready;

use super::refused::RefusedCalls;

/// Bytes of a question; `network` reads no longer ones.
const QUESTION_BYTES_MAX: usize = 1_024;
/// Questions that wait for `network`; another is answered with a failure.
const WAITING_MAX: usize = 128;
/// Connections of TCP; the oldest makes room for another.
const STREAMS_MAX: usize = 16;
/// Questions taken in a row before the loop looks at everything else again.
const QUESTIONS_PER_TURN_MAX: usize = 32;
/// Bytes of the head of a message; what is shorter is none.
const HEAD_BYTES: usize = 12;
/// SERVFAIL.
const FAILED: u8 = 2;

/// What is to be asked, under the number that the answer comes back with.
pub(super) type Ask<'a> = &'a mut dyn FnMut(u64, wire::ProgramQuestion) -> bool;

#[derive(Debug)]
pub(crate) struct NameServer {
    udp: UdpSocket,
    tcp: TcpListener,
    streams: Vec<Stream>,
    /// Of streams.
    last: u64,
    waiting: HashMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    who: Who,
    question: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Who {
    Peer(SocketAddr),
    Stream(u64),
}

/// One connection of TCP: messages with their lengths before them, one question at a time.
#[derive(Debug)]
struct Stream {
    number: u64,
    socket: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    asks: bool,
    over: bool,
}

impl NameServer {
    pub(crate) fn new(udp: OwnedFd, tcp: OwnedFd) -> io::Result<Self> {
        let (udp, tcp) = (UdpSocket::from(udp), TcpListener::from(tcp));
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp, streams: Vec::new(), last: 0, waiting: HashMap::new() })
    }

    pub(super) fn poll<'a>(&'a self, polled: &mut Vec<PollFd<'a>>) {
        polled.push(PollFd::new(&self.udp, PollFlags::IN));
        polled.push(PollFd::new(&self.tcp, PollFlags::IN));
        polled.extend(self.streams.iter().filter_map(|stream| {
            let interest = match (stream.output.is_empty(), stream.asks) {
                (false, _) => PollFlags::OUT,
                (true, false) => PollFlags::IN,
                (true, true) => return None,
            };
            Some(PollFd::new(&stream.socket, interest))
        }));
    }

    /// `ask` is false where nobody can be asked.
    pub(super) fn serve(&mut self, ready: &Ready, next: &mut u64, ask: Ask<'_>) {
        for _ in 0..if ready.has(&self.udp) { QUESTIONS_PER_TURN_MAX } else { 0 } {
            // One byte more, so that a longer one is noticed.
            let mut buffer = [0; QUESTION_BYTES_MAX + 1];
            match self.udp.recv_from(&mut buffer) {
                Ok((length @ HEAD_BYTES..=QUESTION_BYTES_MAX, from)) => {
                    let question = buffer.get(..length).unwrap_or_default().to_vec();
                    self.question(Who::Peer(from), question, next, ask);
                }
                Ok(_) => {}
                // Also of an answer that nobody took.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(_) => break,
            }
        }
        while ready.has(&self.tcp)
            && let Ok((socket, _)) = self.tcp.accept()
        {
            if socket.set_nonblocking(true).is_err() {
                continue;
            }
            if self.streams.len() >= STREAMS_MAX {
                self.streams.remove(0);
            }
            self.last += 1;
            self.streams.push(Stream::new(self.last, socket));
        }
        let mut questions = Vec::new();
        for stream in &mut self.streams {
            stream.flush();
            if let Some(question) = stream.next() {
                questions.push((stream.number, question));
            }
        }
        for (stream, question) in questions {
            self.question(Who::Stream(stream), question, next, ask);
        }
        self.streams.retain(|stream| !stream.over);
    }

    fn question(&mut self, who: Who, question: Vec<u8>, next: &mut u64, ask: Ask<'_>) {
        let id = *next;
        *next += 1;
        let stream = matches!(who, Who::Stream(_));
        let fits = self.waiting.len() < WAITING_MAX;
        match fits && ask(id, wire::ProgramQuestion { message: question.clone(), stream }) {
            true => drop(self.waiting.insert(id, Waiting { who, question })),
            false => self.say(who, &failure(question)),
        }
    }

    /// What `network` says to a question; nothing to what is none of these.
    pub(super) fn answer(&mut self, id: u64, answer: &wire::ProgramAnswer, refused: &mut RefusedCalls) {
        let Some(Waiting { who, question }) = self.waiting.remove(&id) else { return };
        if !answer.refused.is_empty() {
            refused.add("resolve", &answer.name, i32::try_from(answer.errno).unwrap_or(0));
        }
        match answer.message.is_empty() {
            true => self.say(who, &failure(question)),
            false => self.say(who, &answer.message),
        }
    }

    /// Nobody answers any more.
    pub(super) fn lose(&mut self) {
        for (_, Waiting { who, question }) in std::mem::take(&mut self.waiting) {
            self.say(who, &failure(question));
        }
    }

    fn say(&mut self, who: Who, message: &[u8]) {
        match who {
            // One that is lost is asked for again.
            Who::Peer(peer) => drop(self.udp.send_to(message, peer)),
            Who::Stream(number) => {
                if let Some(stream) = self.streams.iter_mut().find(|stream| stream.number == number) {
                    stream.say(message);
                }
            }
        }
    }
}

/// The same message, as an answer that says that there is none.
fn failure(mut question: Vec<u8>) -> Vec<u8> {
    if let Some([flags, code]) = question.get_mut(2..4) {
        *flags |= 0x80;
        *code = (*code & 0xf0) | FAILED;
    }
    question
}

impl Stream {
    fn new(number: u64, socket: TcpStream) -> Self {
        Self { number, socket, input: Vec::new(), output: Vec::new(), asks: false, over: false }
    }

    /// A whole question, if there is one and no other is being answered.
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.asks || !self.output.is_empty() || self.over {
            return None;
        }
        loop {
            if let Some((length, rest)) = self.input.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes(*length));
                if !(HEAD_BYTES..=QUESTION_BYTES_MAX).contains(&length) {
                    self.over = true;
                    return None;
                }
                if let Some(question) = rest.get(..length) {
                    let question = question.to_vec();
                    self.input.drain(..length + 2);
                    self.asks = true;
                    return Some(question);
                }
            }
            // Never more than one question and the beginning of another.
            let mut buffer = [0; QUESTION_BYTES_MAX];
            match self.socket.read(&mut buffer) {
                Ok(0) => self.over = true,
                Ok(read) => {
                    self.input.extend_from_slice(buffer.get(..read).unwrap_or_default());
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.over = true,
            }
            return None;
        }
    }

    fn say(&mut self, message: &[u8]) {
        self.asks = false;
        let length = u16::try_from(message.len()).unwrap_or(0);
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(message.get(..usize::from(length)).unwrap_or_default());
        self.flush();
    }

    fn flush(&mut self) {
        while !self.output.is_empty() && !self.over {
            match self.socket.write(&self.output) {
                Ok(written @ 1..) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => self.over = true,
            }
        }
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
