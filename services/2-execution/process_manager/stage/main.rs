//! The tests' other half: a keeper with one client that launches from one thread, and the monitors that it launches.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
};

use base::cbor;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandbox::{
    Features, Parts, Plan,
    cgroup::{Group, Tree},
    fdpass::{Channel, MESSAGE_BYTES_MAX, PassError},
    inherited::adopt_descriptor,
    keeper_protocol::{Child, Exit, GroupUsage, Reply, Request, encode_reply, read_sealed},
    launch_from,
    process::{Signal, SignalReader, adopt_orphans, pidfd_send_signal, reap},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["keeper", channel] => Keeper::run(channel),
        ["process", "monitor"] => return process_manager::monitor::main(),
        ["process", "service"] => return process_manager::main(),
        ["end"] => Ok(()),
        _ => Err(io::Error::other("usage: keeper CHANNEL | process monitor | process service | end")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stage: {error}");
            ExitCode::FAILURE
        }
    }
}

/// As the real keeper has it.
const PARTS: Parts = Parts { part, watch: process_manager::monitor::watch };

fn part(_: &[String]) -> u8 {
    process_manager::monitor::part()
}

struct Kept {
    pid: i32,
    pidfd: OwnedFd,
    group: Option<Group>,
    exit: Option<Exit>,
}

struct Keeper {
    channel: Channel,
    features: Features,
    tree: Tree,
    children: BTreeMap<u64, Kept>,
}

impl Keeper {
    fn run(channel: &str) -> io::Result<()> {
        let channel = channel.parse().map_err(io::Error::other)?;
        let channel = Channel::from(adopt_descriptor(channel)?);
        channel.set_nonblocking()?;
        adopt_orphans()?;
        let signals = SignalReader::new(&[Signal::CHILD])?;
        let features = Features::detect();
        let tree = Tree::create(&features, &format!("process-test-{}", std::process::id()), false);
        let mut keeper = Keeper { channel, features, tree, children: BTreeMap::new() };
        let result = keeper.serve(&signals);
        keeper.end();
        result
    }

    fn serve(&mut self, signals: &SignalReader) -> io::Result<()> {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        loop {
            let mut polled = [PollFd::new(signals, PollFlags::IN), PollFd::new(&self.channel, PollFlags::IN)];
            poll(&mut polled, None)?;
            while signals.next()?.is_some() {}
            self.reap()?;
            let mut fds = Vec::new();
            match self.channel.receive(&mut buffer, &mut fds) {
                Ok(length) => {
                    let request = cbor::decode(buffer.get(..length).unwrap_or_default());
                    let reply = match request.map_err(|error| error.to_string()) {
                        Ok(request) => self.answer(request, fds),
                        Err(text) => Err(text),
                    };
                    let (reply, fds) = reply.unwrap_or_else(|text| (Reply::Refused(text), Vec::new()));
                    self.say(&reply, &fds)?;
                }
                Err(PassError::Full) => {}
                Err(PassError::Closed) => return Ok(()),
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
    }

    fn say(&self, reply: &Reply, fds: &[OwnedFd]) -> io::Result<()> {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.channel.send(&encode_reply(reply), &fds).map_err(|error| io::Error::other(error.to_string()))
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Some(reaped) = reap()? {
            let found =
                self.children.iter_mut().find(|(_, kept)| kept.pid == reaped.pid && kept.exit.is_none());
            let Some((id, kept)) = found else { continue };
            let group = kept.group.as_ref().map(measure).unwrap_or_default();
            let exit = Exit { status: reaped.status, usage: reaped.usage, group };
            kept.exit = Some(exit);
            let id = *id;
            self.say(&Reply::Exited { id, exit }, &[])?;
        }
        Ok(())
    }

    fn answer(&mut self, request: Request, mut fds: Vec<OwnedFd>) -> Result<(Reply, Vec<OwnedFd>), String> {
        let plain = |reply| Ok((reply, Vec::new()));
        match request {
            Request::Hello(nonce) => plain(Reply::Hello(nonce)),
            Request::Launch { id, plan, .. } => {
                let bytes = match plan {
                    Some(bytes) => bytes,
                    None => read_sealed(fds.remove(0).as_fd()).map_err(|error| error.to_string())?,
                };
                let plan = Plan::decode(&bytes, fds.len()).map_err(|error| error.to_string())?;
                let group = self.tree.group(&format!("{id}"), &plan.limits).ok();
                match launch_from(&plan, &fds, &self.features, group.as_ref(), Some(PARTS)) {
                    Ok(launched) => {
                        let handle = launched.pidfd.try_clone().map_err(|error| error.to_string())?;
                        let kept = Kept { pid: launched.pid, pidfd: launched.pidfd, group, exit: None };
                        self.children.insert(id, kept);
                        let (pid, missing, enforced) = (launched.pid, launched.missing, launched.enforced);
                        Ok((Reply::Launched { id, pid, missing, enforced }, vec![handle]))
                    }
                    Err(error) => {
                        if let Some(group) = group {
                            let _ = group.remove();
                        }
                        let (step, errno) = error.step_and_errno();
                        plain(Reply::LaunchFailed {
                            id,
                            step: step.to_owned(),
                            errno,
                            text: error.to_string(),
                        })
                    }
                }
            }
            Request::Signal { id, signal } => {
                let kept =
                    self.children.get(&id).filter(|kept| kept.exit.is_none()).ok_or("no such child")?;
                let signal = Signal::from_named_raw(signal).ok_or("no such signal")?;
                pidfd_send_signal(&kept.pidfd, signal).map_err(|error| error.to_string())?;
                plain(Reply::Signalled)
            }
            Request::Measure(id) => {
                let group = self.children.get(&id).and_then(|kept| kept.group.as_ref());
                plain(Reply::Measured(group.map(measure).unwrap_or_default()))
            }
            Request::List(after) => {
                let children = self.children.iter().filter(|(id, _)| **id > after);
                let children = children
                    .map(|(id, kept)| Child { id: *id, pid: kept.pid, exit: kept.exit, settled: true })
                    .collect();
                plain(Reply::Children { children, more: false })
            }
            Request::Ack(id) => {
                if let Some(Kept { group: Some(group), .. }) = self.children.remove(&id) {
                    remove(&group);
                }
                plain(Reply::Acked)
            }
            _ => Err("the stage has no such request".to_owned()),
        }
    }

    /// Nothing stays behind.
    fn end(&mut self) {
        for kept in self.children.values().filter(|kept| kept.exit.is_none()) {
            let _ = pidfd_send_signal(&kept.pidfd, Signal::KILL);
        }
        for kept in std::mem::take(&mut self.children).into_values() {
            let mut polled = [PollFd::new(&kept.pidfd, PollFlags::IN)];
            let _ = poll(&mut polled, Some(&Timespec { tv_sec: 5, tv_nsec: 0 }));
            let _ = reap();
            if let Some(group) = &kept.group {
                remove(group);
            }
        }
        let _ = self.tree.remove();
    }
}

fn remove(group: &Group) {
    for _ in 0..200 {
        if group.remove().is_ok() {
            return;
        }
        let _ = group.kill();
        while matches!(reap(), Ok(Some(_))) {}
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn measure(group: &Group) -> GroupUsage {
    GroupUsage {
        memory_bytes: group.memory_bytes().unwrap_or(0),
        memory_peak_bytes: group.memory_peak_bytes().unwrap_or(0),
        oom_kills: group.oom_kills().unwrap_or(0),
        cpu_time_us: group.cpu_time_us().unwrap_or(0),
        processes: group.processes().map_or(0, |processes| processes.len() as u64),
    }
}
