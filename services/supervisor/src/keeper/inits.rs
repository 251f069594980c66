//! Which of the inits has something to say. A thousand channels behind one descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{Timespec, epoll};
use sandbox::Program;

use super::table::Table;

/// Inits that are heard in one turn of the loop; the others are heard in the next.
const HEARD_PER_TURN_MAX: usize = 64;

pub(super) struct Inits {
    waiting: OwnedFd,
    events: Vec<epoll::Event>,
}

impl AsFd for Inits {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waiting.as_fd()
    }
}

impl Inits {
    pub(super) fn new() -> io::Result<Inits> {
        let waiting = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Inits { waiting, events: Vec::with_capacity(HEARD_PER_TURN_MAX) })
    }

    /// `pid` is the init's.
    pub(super) fn add(&self, program: &Program, pid: i32) -> io::Result<()> {
        let data = epoll::EventData::new_u64(u64::from(pid.unsigned_abs()));
        // Once for each message: a channel whose other end has gone would wake the loop until its child is forgotten.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.waiting, program, data, flags)?)
    }

    pub(super) fn hear(&mut self, table: &mut Table) -> io::Result<()> {
        self.events.clear();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.waiting, rustix::buffer::spare_capacity(&mut self.events), Some(&at_once)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            table.hear(i32::try_from(event.data.u64()).unwrap_or(0));
        }
        Ok(())
    }
}
