//! What a monitor does for a job: answers what is declared, and ends it at anything else.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use sandbox::Launched;
use sandbox::determined::{Answers, Fixed, Verdict};
use sandbox::notify::Listener;
use sandbox::process::{ExitStatus, Signal, pidfd_send_signal, reap};
use sandbox::seccomp::call_name;

pub(crate) fn attend(listener: &OwnedFd, launched: &Launched, options: &[&str]) -> io::Result<ExitCode> {
    let fixed = Fixed {
        clock_ns: options.contains(&"clock").then_some(7_000_000_009),
        seed: options.contains(&"seed").then_some([1; 32]),
        threads: options.contains(&"threads_declared"),
    };
    let mut answers = Answers::new(fixed);
    let listener = Listener::from(listener.try_clone()?);
    loop {
        let mut polled = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        rustix::event::poll(&mut polled, Some(&wait))?;
        let [polled] = polled;
        if polled.revents().contains(rustix::event::PollFlags::IN)
            && let Some(call) = listener.receive()?
        {
            match answers.judge(&call) {
                Verdict::GoOn => listener.go_on(&call)?,
                Verdict::Refuse(errno) => listener.refuse(&call, errno)?,
                Verdict::Give(given, value) => listener.give(&call, &given, value)?,
                Verdict::Violation => {
                    println!("violation {}", call_name(i64::from(call.number)));
                    pidfd_send_signal(launched.pidfd.as_fd(), Signal::KILL)?;
                }
            }
            continue;
        }
        match reap()?.filter(|reaped| reaped.pid == launched.pid).map(|reaped| reaped.status) {
            Some(ExitStatus::Code(code)) => println!("exit {code}"),
            Some(ExitStatus::Signal(signal)) => println!("signal {signal}"),
            None => continue,
        }
        return Ok(ExitCode::SUCCESS);
    }
}
