//! The keeper: the one process under which everything lives.
//!
//! Promises: it is the parent of every service and program for their whole life; it holds descriptors, so that a
//! restart changes no socket; it keeps an exit status until someone has recorded it; when the supervisor dies it
//! starts it again, and its children do not notice. Never does: decide who may run what, open a path on request, talk
//! to the network, start a thread, write a file other than cgroup and id-map files. Calls nobody: two clients (the
//! supervisor and `process_manager`) call it, each over a channel of its own, and neither sees the other's children
//! or descriptors. When it is killed, each of its children dies with it (`PR_SET_PDEATHSIG`), and with a child
//! that is PID 1 of a pid namespace all that runs in it; descendants of a child without one are ended by an orderly
//! end only. As PID 1 the kernel ends everything.
//!
//! Memory: the tables have their full capacity from the start and never grow. What still allocates, and is freed
//! again: the plan of a launch while it is decoded and carried out, the paths of its cgroup, the text of a reply.
//!
//! Reading order: `run` is the loop, `answer.rs` is one function per request, `table.rs` is what it remembers,
//! `beside.rs` of that
//! what runs beside a child, `inits.rs` is how it hears what stands before programs, `supervise.rs` is the one child that it starts by itself.

mod answer;
mod beside;
mod inits;
mod supervise;
mod table;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandbox::cgroup::{Group, Tree};
use sandbox::fdpass::{Channel, MESSAGE_BYTES_MAX, PassError};
use sandbox::keeper_protocol::{Reply, encode_reply};
use sandbox::process::{Signal, SignalReader, adopt_orphans, reap};
use sandbox::{Features, Parts};

pub use beside::EXECUTED_AT_ONCE;
use inits::Inits;
use supervise::{Supervised, Verdict};
use table::Table;

/// Children of both clients together: a node of a few hundred programs, and a bound for the table.
pub const CHILDREN_MAX: usize = 1024;
/// Descriptors that one client stores: the sockets of a thousand services, what they leave, and room.
pub const STORED_MAX: usize = 2048;
/// Cgroups that could not be removed yet because something in them was still ending.
pub const LEFTOVERS_MAX: usize = CHILDREN_MAX;
/// While cgroups wait to be removed or a start is due, the loop looks again after this long.
const TICK_MS: u64 = 20;
/// A supervisor that is told to end has this long: it has stopped its services by then and only says goodbye.
pub const SUPERVISOR_GRACE_MS: u64 = 5_000;
/// Number under which the supervisor finds its end of the channel.
pub const KEEPER_FD: u32 = 3;
/// Name under which the supervisor finds the end of `process_manager`'s channel among its stored descriptors, to be
/// named in that service's launch.
pub const PROGRAMS_CHANNEL: &str = "keeper:process_manager";

/// What the keeper is told at its start, by the command line alone.
#[derive(Debug)]
pub struct KeeperConfig {
    /// The image of the supervisor: this program's own.
    pub image: OwnedFd,
    /// With `argv[0]`.
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Passed on as the supervisor's standard streams.
    pub streams: [OwnedFd; 3],
    pub features: Features,
    /// Name of its own cgroup below the current one.
    pub cgroup: String,
    /// What a child whose plan is of a part of the house goes on as, and what answers the calls of a service's program.
    pub parts: Parts,
}

/// Why the keeper ended. Nothing that it started is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The supervisor said so.
    Shutdown,
    /// A second SIGTERM or SIGINT.
    Forced,
    /// The supervisor died too often; see `RESTARTS_MAX`.
    SupervisorLost,
}

/// A client's channel from the keeper's side. The other end is kept too: it is the replacement's.
#[derive(Debug)]
struct Link {
    channel: Channel,
    other: OwnedFd,
    /// A reply that did not fit the queue yet; until it is gone, nothing is read and nothing else is sent.
    pending: Option<(Vec<u8>, Vec<OwnedFd>)>,
    told_of_shutdown: bool,
}

impl Link {
    fn new() -> io::Result<Link> {
        let (channel, other) = Channel::pair()?;
        channel.set_nonblocking()?;
        Ok(Link { channel, other: other.into(), pending: None, told_of_shutdown: false })
    }

    fn flush(&mut self) {
        if let Some((bytes, fds)) = self.pending.take() {
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            if let Err(PassError::Full) = self.channel.send(&bytes, &borrowed) {
                drop(borrowed);
                self.pending = Some((bytes, fds));
            }
        }
    }

    /// To be called only when nothing is pending.
    fn send(&mut self, reply: &Reply, fds: Vec<OwnedFd>) {
        self.pending = Some((encode_reply(reply), fds));
        self.flush();
    }
}

/// The two clients, by index into links and tables.
const SUPERVISOR: usize = 0;
const PROGRAMS: usize = 1;

struct Keeper {
    features: Features,
    parts: Parts,
    tree: Tree,
    links: [Link; 2],
    table: Table,
    inits: Inits,
    leftovers: Vec<Group>,
    buffer: Vec<u8>,
    supervised: Supervised,
    shutdown_wanted: bool,
    ending: Option<(Ending, Instant)>,
}

/// Runs until the node ends. The caller has one thread and nothing else to do.
pub fn run(config: KeeperConfig) -> io::Result<Ending> {
    adopt_orphans()?;
    let signals = SignalReader::new(&[Signal::TERM, Signal::INT, Signal::CHILD])?;
    raise_descriptor_limit();
    let tree = Tree::create(&config.features, &config.cgroup, true);
    let links = [Link::new()?, Link::new()?];
    let mut table = Table::new();
    let [_, programs] = &links;
    table.store(SUPERVISOR, PROGRAMS_CHANNEL, programs.other.try_clone()?).map_err(io::Error::other)?;
    let mut keeper = Keeper {
        features: config.features.clone(),
        parts: config.parts,
        tree,
        links,
        table,
        inits: Inits::new()?,
        leftovers: Vec::with_capacity(LEFTOVERS_MAX),
        buffer: vec![0; MESSAGE_BYTES_MAX],
        supervised: Supervised::new(config),
        shutdown_wanted: false,
        ending: None,
    };
    let ending = keeper.run(&signals);
    // Whatever is left on an error path must not outlive its parent.
    keeper.kill_children();
    keeper.remove_groups();
    ending
}

/// Each child costs a pidfd and up to one cgroup descriptor, each edge a socket.
fn raise_descriptor_limit() {
    let resource = rustix::process::Resource::Nofile;
    let maximum = rustix::process::getrlimit(resource).maximum;
    // Lower is survivable: launches and stores are refused one by one.
    let _ = rustix::process::setrlimit(resource, rustix::process::Rlimit { current: maximum, maximum });
}

impl Keeper {
    fn run(&mut self, signals: &SignalReader) -> io::Result<Ending> {
        loop {
            self.supervise()?;
            if let Some(ending) = self.ended() {
                return Ok(ending);
            }
            self.tell();
            self.wait(signals)?;
            while let Some(signal) = signals.next()? {
                self.take_signal(signal);
            }
            self.inits.hear(&mut self.table)?;
            self.reap()?;
            for client in [SUPERVISOR, PROGRAMS] {
                self.serve(client);
            }
            self.remove_groups();
        }
    }

    /// Blocks until a signal, a request, room for a reply, or the next tick when one is due.
    fn wait(&self, signals: &SignalReader) -> io::Result<()> {
        let interest = |link: &Link| if link.pending.is_some() { PollFlags::OUT } else { PollFlags::IN };
        let [supervisor, programs] = &self.links;
        let mut polled = [
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(&supervisor.channel, interest(supervisor)),
            PollFd::new(&programs.channel, interest(programs)),
            PollFd::new(&self.inits, PollFlags::IN),
        ];
        let due = !self.leftovers.is_empty() || self.ending.is_some() || self.supervised.is_waiting();
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK_MS as i64 * 1_000_000 };
        match poll(&mut polled, due.then_some(&tick)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The first request to end is handed on, the second is carried out.
    fn take_signal(&mut self, signal: i32) {
        if signal == Signal::CHILD.as_raw() {
            return;
        }
        if self.shutdown_wanted {
            self.end(Ending::Forced);
        }
        self.shutdown_wanted = true;
    }

    fn end(&mut self, ending: Ending) {
        if self.ending.is_none() {
            self.ending = Some((ending, Instant::now()));
            self.kill_children();
        }
        if ending == Ending::Forced {
            self.supervised.kill();
        }
    }

    fn kill_children(&mut self) {
        for child in self.table.running() {
            child.kill_all();
        }
    }

    /// Over when everything has ended; a supervisor that does not take its leave is killed.
    fn ended(&mut self) -> Option<Ending> {
        let (ending, since) = self.ending?;
        if since.elapsed().as_millis() as u64 >= SUPERVISOR_GRACE_MS {
            self.supervised.kill();
        }
        let over = self.table.running().next().is_none()
            && !self.supervised.is_running()
            && self.leftovers.is_empty();
        over.then_some(ending)
    }

    fn supervise(&mut self) -> io::Result<()> {
        if self.ending.is_some() {
            return Ok(());
        }
        let [link, _] = &mut self.links;
        match self.supervised.keep_running(&link.other, &self.features) {
            Verdict::Running | Verdict::Waiting => Ok(()),
            Verdict::Started => {
                link.told_of_shutdown = false;
                Ok(())
            }
            Verdict::Lost => {
                self.end(Ending::SupervisorLost);
                Ok(())
            }
        }
    }

    /// Notices that nobody asked for: what children came to, and the wish to end.
    fn tell(&mut self) {
        for (client, link) in self.links.iter_mut().enumerate() {
            link.flush();
            if client == SUPERVISOR
                && self.shutdown_wanted
                && !link.told_of_shutdown
                && link.pending.is_none()
            {
                link.told_of_shutdown = true;
                link.send(&Reply::ShutdownRequested, Vec::new());
            }
            while link.pending.is_none()
                && let Some(notice) = self.table.next_untold(client)
            {
                link.send(&notice, Vec::new());
            }
        }
    }

    /// Reaps everything that has ended: own children, the supervisor, and orphans of anyone, whose status nobody wants.
    fn reap(&mut self) -> io::Result<()> {
        while let Some(reaped) = reap()? {
            if self.supervised.has_ended(reaped.pid) {
                self.table.forget_executed(SUPERVISOR);
                continue;
            }
            if let Some(group) = self.table.record_exit(&reaped) {
                // What the child left behind ends with it.
                let _ = group.kill();
                self.leftovers.push(group);
            }
        }
        Ok(())
    }

    /// Removes the groups of the ended, and in the end the sub-tree; busy ones are tried again at the next tick.
    fn remove_groups(&mut self) {
        self.leftovers.retain(|group| {
            let busy = group.remove().is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy);
            if busy {
                let _ = group.kill();
            }
            busy
        });
        if self.ending.is_some() && self.leftovers.is_empty() && self.table.running().next().is_none() {
            // Its own leaf on v2 stays until the keeper has gone.
            let _ = self.tree.remove();
        }
    }
}
