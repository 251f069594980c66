//! Signals for a thread whose blocking `connect` is under way.
//!
//! Who waits for the answer to a call that was shown is woken by no signal but one that kills: else each would have the call made, and
//! decided, once more. So it is looked from time to time whether one has come. The kernel then delivers it, and ends the call or makes
//! it anew, as it would have one of its own; made anew it finds the socket on its way, and waits on.

use std::{
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use sandbox::{
    host_socket,
    notify::{Notification, a_signal_waits},
};

use super::egress::{Local, Waiting, WayOut, What};

/// A connect that is not over by then is looked at, and then as often.
const LOOK_AFTER: Duration = Duration::from_millis(50);

impl WayOut {
    pub(crate) fn next_look(&self) -> Option<Duration> {
        let connects = self.waiting.values().any(|waiting| matches!(waiting.what, What::Connect { .. }));
        (connects || !self.local.is_empty()).then_some(LOOK_AFTER)
    }

    pub(super) fn look_for_signals(&mut self) -> io::Result<()> {
        if self.looked.elapsed() < LOOK_AFTER {
            return Ok(());
        }
        self.looked = Instant::now();
        let is_due = |waiting: &Waiting| match waiting.what {
            // One that is being decided is not on its way: made anew it would find that somebody else has the socket.
            What::Connect { since, .. } => {
                is_old(since) && is_on_its_way(&waiting.call) && a_signal_waits(waiting.call.pid)
            }
            _ => false,
        };
        let due: Vec<u64> =
            self.waiting.iter().filter(|(_, waiting)| is_due(waiting)).map(|(id, _)| *id).collect();
        for waiting in due.iter().filter_map(|id| self.waiting.remove(id)) {
            waiting.listener.break_off(&waiting.call)?;
        }
        let is_due = |local: &Local| is_old(local.since) && a_signal_waits(local.call.pid);
        let (due, left) = std::mem::take(&mut self.local).into_iter().partition(is_due);
        self.local = left;
        let due: Vec<Local> = due;
        due.iter().try_for_each(|local| local.listener.break_off(&local.call))
    }
}

fn is_old(since: Instant) -> bool {
    since.elapsed() >= LOOK_AFTER
}

fn is_on_its_way(call: &Notification) -> bool {
    let [number, ..] = call.arguments;
    let socket = host_socket::fetch(call.pid, number as i32);
    socket.is_ok_and(|socket| !host_socket::is_idle(socket.as_fd()).unwrap_or(true))
}
