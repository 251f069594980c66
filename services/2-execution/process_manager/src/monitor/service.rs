//! The monitor of a service's program: what the init before it runs, with the same code as the monitor of a program of `run`.
//!
//! It is told two things by the supervisor: a new channel to `network`, and which connections to end. It tells nobody
//! anything; what was refused stands in the service's own log, each once.

use std::{
    io::{self, Write},
    os::fd::OwnedFd,
};

use contracts::way_out::{TO_INIT_BYTES_MAX, ToInit};
use rustix::event::{PollFd, PollFlags};
use sandbox::{
    Given, Ready, Watcher,
    fdpass::{Channel, PassError},
};

use super::{
    datagrams::Datagrams, egress::WayOut, names::NameServer, notice::Notices, proxy::Proxy,
    published::Published, refused::RefusedCalls,
};
use crate::core::Watch;

/// What is said in a row before the loop looks at everything else again.
const WORDS_PER_TURN_MAX: usize = 16;

struct OfService {
    /// None when nobody can say anything any more.
    control: Option<Channel>,
    way_out: WayOut,
    /// Of the program, and of each command beside it that lives.
    notices: Vec<Notices>,
    refused: RefusedCalls,
    /// So many of them stand in the log.
    told: usize,
    buffer: Vec<u8>,
}

/// What the keeper gives to the init of a service.
pub fn watch(given: Given) -> io::Result<Box<dyn Watcher>> {
    let Given { control, names, packets, leads_out, proxy, published, given_ports } = given;
    let control = Channel::from(control);
    control.set_nonblocking()?;
    let names = names.map(|[udp, tcp]| NameServer::new(udp, tcp)).transpose()?;
    let proxy = (leads_out && proxy).then(Proxy::new).transpose()?;
    let way_out = WayOut::new(leads_out, names, packets.map(Datagrams::new), proxy)?
        .of_service(given_ports, Published::new(published)?);
    Ok(Box::new(OfService {
        control: Some(control),
        way_out,
        notices: Vec::new(),
        refused: RefusedCalls::default(),
        told: 0,
        buffer: vec![0; TO_INIT_BYTES_MAX],
    }))
}

impl Watcher for OfService {
    fn poll<'a>(&'a self, polled: &mut Vec<PollFd<'a>>) {
        polled.extend(self.control.as_ref().map(|control| PollFd::new(control, PollFlags::IN)));
        polled.extend(self.notices.iter().map(|notices| PollFd::new(notices.listener(), PollFlags::IN)));
        self.way_out.poll(polled);
    }

    fn serve(&mut self, ready: &Ready) -> io::Result<()> {
        if self.control.as_ref().is_some_and(|control| ready.has(control)) {
            self.listen()?;
        }
        let shows = |notices: &Notices| ready.has(notices.listener());
        self.notices.retain(|notices| !(shows(notices) && notices.is_over()));
        for notices in self.notices.iter().filter(|notices| shows(notices)) {
            notices.serve(&mut self.refused, Some(&mut self.way_out))?;
        }
        self.way_out.serve(ready, &mut self.refused)?;
        self.tell();
        Ok(())
    }

    fn hear(&mut self, listener: OwnedFd) -> io::Result<()> {
        self.notices.push(Notices::new(listener, Watch::default(), true));
        Ok(())
    }
}

impl OfService {
    fn listen(&mut self) -> io::Result<()> {
        for _ in 0..WORDS_PER_TURN_MAX {
            let Some(control) = &self.control else { return Ok(()) };
            let mut fds = Vec::new();
            match control.receive(&mut self.buffer, &mut fds) {
                Ok(length) => {
                    match (ToInit::decode(self.buffer.get(..length).unwrap_or_default()), fds.pop()) {
                        (Some(ToInit::Open), Some(channel)) => self.way_out.open(channel)?,
                        (Some(ToInit::Cut(sockets)), _) => self.way_out.add_cuts(sockets),
                        // Of a later build.
                        _ => {}
                    }
                }
                Err(PassError::Full) => return Ok(()),
                Err(_) => self.control = None,
            }
        }
        Ok(())
    }

    /// Where the program's errors go. A log that takes nothing is none of the program's business.
    fn tell(&mut self) {
        for call in self.refused.after(self.told) {
            let why = io::Error::from_raw_os_error(call.errno);
            let line = format!("bailiwick: {} {} was refused: {why}\n", call.call, call.target);
            let _ = io::stderr().write_all(line.as_bytes());
            self.told += 1;
        }
    }
}
