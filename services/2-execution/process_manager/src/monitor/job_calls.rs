//! The calls of a job that its filter shows: answered as declared, or the end of it (ACT-47).

use std::{io, os::fd::OwnedFd};

use sandbox::{
    determined::{Answers, Fixed, Verdict},
    notify::Listener,
    seccomp::call_name,
};

use super::refused::RefusedCalls;

#[derive(Debug)]
pub(crate) struct JobCalls {
    listener: Listener,
    answers: Answers,
    /// Nothing is answered any more: the job is being ended.
    over: bool,
    /// Nothing is a violation.
    all_pass: bool,
}

impl JobCalls {
    pub(crate) fn new(listener: OwnedFd, fixed: Fixed, all_pass: bool) -> Self {
        Self { listener: Listener::from(listener), answers: Answers::new(fixed), over: false, all_pass }
    }

    pub(crate) const fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Answers the call that waits; true if it is a violation, which is named and never answered.
    pub(crate) fn serve(&mut self, refused: &mut RefusedCalls) -> io::Result<bool> {
        let Some(call) = self.listener.receive()? else { return Ok(false) };
        match self.answers.judge(&call) {
            Verdict::GoOn if !self.over => self.listener.go_on(&call)?,
            Verdict::Refuse(errno) if !self.over => self.listener.refuse(&call, errno)?,
            Verdict::Give(given, value) if !self.over => self.listener.give(&call, &given, value)?,
            Verdict::Violation if self.all_pass => self.listener.go_on(&call)?,
            Verdict::Violation if !self.over => {
                self.over = true;
                refused.add(&call_name(i64::from(call.number)), "", 0);
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }
}
