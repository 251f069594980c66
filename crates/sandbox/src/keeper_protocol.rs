//! What is said to the keeper, and what it says. Messages are CBOR over a [`Channel`], one per packet.
//!
//! A client first says [`Request::Hello`] and drops everything until it is answered: the channel outlives the clients
//! on it, and what was meant for the one before may still be in it. Requests are answered in order; [`Reply::Exited`],
//! [`Reply::Settled`], [`Reply::Done`] and [`Reply::ShutdownRequested`] come in between.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use base::cbor;
use minicbor::{Decode, Encode};
use rustix::fs::{MemfdFlags, SealFlags};
use thiserror::Error;

use crate::fdpass::{Channel, MESSAGE_BYTES_MAX, MESSAGE_DESCRIPTORS_MAX, PassError};
use crate::guard::{Enforced, Missing};
use crate::plan::{PLAN_BYTES_MAX, Plan};
use crate::process::{ExitStatus, Usage};

/// Bytes of a stored descriptor's name, for example `edge:keys:policy`.
pub const NAME_BYTES_MAX: usize = 128;
/// Plans above this travel as a sealed memfd: half of a packet leaves room for the names.
pub const INLINE_PLAN_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;
/// Children in one [`Reply::Children`]; each may bring a pidfd.
pub const CHILDREN_PER_REPLY_MAX: usize = 64;
/// Bytes of an explanation.
pub const TEXT_BYTES_MAX: usize = 512;
/// Entries of each of the two reports in a reply.
const REPORT_ENTRIES_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    #[n(0)]
    Hello(#[n(0)] u64),
    /// With one descriptor, which is held for the node's life or until it is stored again.
    #[n(1)]
    Store(#[n(0)] String),
    #[n(2)]
    Fetch(#[n(0)] String),
    #[n(3)]
    Forget(#[n(0)] String),
    /// Slots of the plan are the stored descriptors named here, then those of the message.
    #[n(4)]
    Launch {
        #[n(0)]
        id: u64,
        /// Absent: the first descriptor of the message is a sealed memfd with the plan.
        #[cbor(n(1), with = "minicbor::bytes")]
        plan: Option<Vec<u8>>,
        #[n(2)]
        stored: Vec<String>,
    },
    #[n(5)]
    Signal {
        #[n(0)]
        id: u64,
        #[n(1)]
        signal: i32,
    },
    /// Stops or continues the whole tree of a child.
    #[n(6)]
    Freeze {
        #[n(0)]
        id: u64,
        #[n(1)]
        frozen: bool,
    },
    #[n(7)]
    Measure(#[n(0)] u64),
    /// Children with an id above this one.
    #[n(8)]
    List(#[n(0)] u64),
    /// The exit of this child was recorded and may be forgotten.
    #[n(9)]
    Ack(#[n(0)] u64),
    /// Ends every child and the keeper. From the supervisor only.
    #[n(10)]
    Shutdown,
    /// Runs a command of this child's plan beside it. A few at once, each of them once; its end is told by [`Reply::Done`].
    #[n(11)]
    Run {
        #[n(0)]
        id: u64,
        #[n(1)]
        command: u8,
        /// Chosen by the client, not 0 and never twice: whose end is told, also to a client after it.
        #[n(2)]
        run: u64,
    },
    /// Kills such a command, if it runs; its end is told as that of any other. Answered by [`Reply::Signalled`].
    #[n(12)]
    EndCommand {
        #[n(0)]
        id: u64,
        #[n(1)]
        command: u8,
    },
    /// Starts one more process beside this child, with three descriptors as its standard streams, and the token of a
    /// [`crate::StartToken`] as the fourth. Its end is told by [`Reply::Done`], also where the token was taken away. It is
    /// killed when the client is gone.
    #[n(13)]
    Execute {
        #[n(0)]
        id: u64,
        /// As of [`Request::Run`].
        #[n(1)]
        run: u64,
        /// An encoded [`crate::Execution`].
        #[cbor(n(2), with = "minicbor::bytes")]
        execution: Vec<u8>,
    },
    /// Kills such a process, if it runs. Answered by [`Reply::Signalled`].
    #[n(14)]
    EndExecuted {
        #[n(0)]
        id: u64,
        #[n(1)]
        run: u64,
    },
}

/// What the group of a child has used; 0 where nothing counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct GroupUsage {
    #[n(0)]
    pub memory_bytes: u64,
    #[n(1)]
    pub memory_peak_bytes: u64,
    #[n(2)]
    pub oom_kills: u64,
    #[n(3)]
    pub cpu_time_us: u64,
    #[n(4)]
    pub processes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Exit {
    #[n(0)]
    pub status: ExitStatus,
    #[n(1)]
    pub usage: Usage,
    #[n(2)]
    pub group: GroupUsage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Child {
    #[n(0)]
    pub id: u64,
    #[n(1)]
    pub pid: i32,
    /// Absent while it runs.
    #[n(2)]
    pub exit: Option<Exit>,
    /// `pid` is the process that stays. Until then something comes before it, and its end is that of a failed start.
    #[n(3)]
    pub settled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    #[n(0)]
    Hello(#[n(0)] u64),
    #[n(1)]
    Stored,
    /// With the descriptor.
    #[n(2)]
    Fetched,
    #[n(3)]
    Forgotten,
    /// With a pidfd.
    #[n(4)]
    Launched {
        #[n(0)]
        id: u64,
        /// Of the program, also behind an init; the handle and signals are the init's, which passes them on.
        #[n(1)]
        pid: i32,
        #[n(2)]
        missing: Vec<Missing>,
        #[n(3)]
        enforced: Vec<Enforced>,
    },
    #[n(5)]
    LaunchFailed {
        #[n(0)]
        id: u64,
        #[n(1)]
        step: String,
        #[n(2)]
        errno: i32,
        #[n(3)]
        text: String,
    },
    #[n(6)]
    Signalled,
    #[n(7)]
    Frozen,
    #[n(8)]
    Measured(#[n(0)] GroupUsage),
    /// With a pidfd for each that runs, in this order. More are to be asked for when `more` is set.
    #[n(9)]
    Children {
        #[n(0)]
        children: Vec<Child>,
        #[n(1)]
        more: bool,
    },
    #[n(10)]
    Acked,
    #[n(11)]
    ShuttingDown,
    #[n(12)]
    Refused(#[n(0)] String),
    /// Not an answer: a child ended. Said again after each `Hello` until acknowledged.
    #[n(13)]
    Exited {
        #[n(0)]
        id: u64,
        #[n(1)]
        exit: Exit,
    },
    /// Not an answer: the machine or the operator wants the node to end. To the supervisor only.
    #[n(14)]
    ShutdownRequested,
    #[n(15)]
    Running,
    /// Not an answer: what was to come before this program is done, or its daemon is there.
    #[n(16)]
    Settled {
        #[n(0)]
        id: u64,
        #[n(1)]
        pid: i32,
    },
    /// Not an answer: a command of this child's plan has ended, or what was executed beside it. Of several before the program
    /// that end in a row before it is told, the last.
    #[n(17)]
    Done {
        #[n(0)]
        id: u64,
        #[n(1)]
        command: u16,
        #[n(2)]
        status: ExitStatus,
        /// As it was asked for; 0 for what comes before the program.
        #[n(3)]
        run: u64,
    },
}

#[derive(Debug, Error)]
pub enum ProtocolError {
    #[error(transparent)]
    Pass(#[from] PassError),
    #[error("the peer's message cannot be decoded: {0}")]
    Decode(#[from] cbor::CborError),
    #[error("a plan of {size} bytes is above the limit of {PLAN_BYTES_MAX}")]
    PlanSize { size: u64 },
    #[error("the plan's memfd is not sealed against writing, growing and shrinking")]
    NotSealed,
    #[error("the plan's memfd cannot be made or read")]
    Memfd(#[source] std::io::Error),
    #[error("the request brings no descriptor for its plan")]
    NoPlan,
}

/// Encodes a reply with its lists and texts cut to their limits, so that it fits one packet.
#[must_use]
pub fn encode_reply(reply: &Reply) -> Vec<u8> {
    let mut reply = reply.clone();
    let cut = |text: &mut String| text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    match &mut reply {
        Reply::Launched { missing, enforced, .. } => {
            missing.truncate(REPORT_ENTRIES_MAX);
            missing.iter_mut().for_each(|missing| cut(&mut missing.why));
            enforced.truncate(REPORT_ENTRIES_MAX);
        }
        Reply::LaunchFailed { text, .. } | Reply::Refused(text) => cut(text),
        _ => {}
    }
    cbor::encode(&reply)
}

/// The message and descriptors of a launch; large plans go into a sealed memfd.
pub fn launch_request(
    id: u64,
    plan: &Plan,
    stored: Vec<String>,
) -> Result<(Request, Option<OwnedFd>), ProtocolError> {
    let bytes = plan.encode();
    if bytes.len() > PLAN_BYTES_MAX {
        return Err(ProtocolError::PlanSize { size: bytes.len() as u64 });
    }
    if bytes.len() <= INLINE_PLAN_BYTES_MAX {
        return Ok((Request::Launch { id, plan: Some(bytes), stored }, None));
    }
    let memfd = sealed(&bytes).map_err(ProtocolError::Memfd)?;
    Ok((Request::Launch { id, plan: None, stored }, Some(memfd)))
}

const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK);

/// Bytes in a memfd that nobody can change any more.
pub fn sealed(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = rustix::fs::memfd_create("plan", flags)?;
    let mut file = std::fs::File::from(memfd);
    std::io::Write::write_all(&mut file, bytes)?;
    rustix::fs::fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
    Ok(file.into())
}

/// Reads a plan's bytes out of a sealed memfd; the size is checked first.
pub fn read_sealed(memfd: BorrowedFd<'_>) -> Result<Vec<u8>, ProtocolError> {
    let seals = rustix::fs::fcntl_get_seals(memfd).map_err(|_| ProtocolError::NotSealed)?;
    if !seals.contains(SEALS) {
        return Err(ProtocolError::NotSealed);
    }
    let failed = |error: rustix::io::Errno| ProtocolError::Memfd(error.into());
    let size = rustix::fs::fstat(memfd).map_err(failed)?.st_size as u64;
    let length = usize::try_from(size).ok().filter(|length| *length <= PLAN_BYTES_MAX);
    let mut bytes = vec![0; length.ok_or(ProtocolError::PlanSize { size })?];
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(memfd, rest, read as u64).map_err(failed)? {
            0 => return Err(ProtocolError::NoPlan),
            some => read += some,
        }
    }
    Ok(bytes)
}

/// A client's end. It blocks unless the channel was made non-blocking; then [`PassError::Full`] means: not yet.
#[derive(Debug)]
pub struct Client {
    channel: Channel,
    buffer: Vec<u8>,
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Client {
    #[must_use]
    pub fn new(channel: Channel) -> Client {
        Client { channel, buffer: vec![0; MESSAGE_BYTES_MAX] }
    }

    pub fn set_nonblocking(&self) -> std::io::Result<()> {
        self.channel.set_nonblocking()
    }

    pub fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), ProtocolError> {
        Ok(self.channel.send(&cbor::encode(request), fds)?)
    }

    /// Sends a launch. `fds` are the plan's slots after the stored ones.
    pub fn launch(
        &self,
        id: u64,
        plan: &Plan,
        stored: Vec<String>,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ProtocolError> {
        let (request, memfd) = launch_request(id, plan, stored)?;
        let mut all: Vec<BorrowedFd<'_>> = memfd.iter().map(AsFd::as_fd).collect();
        all.extend_from_slice(fds);
        if all.len() > MESSAGE_DESCRIPTORS_MAX {
            return Err(PassError::TooManyDescriptors(all.len()).into());
        }
        self.send(&request, &all)
    }

    /// The next reply or notice, with its descriptors.
    pub fn receive(&mut self) -> Result<(Reply, Vec<OwnedFd>), ProtocolError> {
        let mut fds = Vec::new();
        let length = self.channel.receive(&mut self.buffer, &mut fds)?;
        let bytes = self.buffer.get(..length).unwrap_or_default();
        Ok((cbor::decode(bytes)?, fds))
    }

    /// Says hello and drops what was meant for a client before this one.
    pub fn hello(&mut self, nonce: u64) -> Result<(), ProtocolError> {
        self.send(&Request::Hello(nonce), &[])?;
        while self.receive()?.0 != Reply::Hello(nonce) {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{ARGUMENT_BYTES_MAX, Executable};
    use crate::seccomp::Profile;

    #[test]
    fn messages_survive_encoding() {
        let exit = Exit {
            status: ExitStatus::Signal(9),
            usage: Usage { user_time_us: 5, ..Usage::default() },
            group: GroupUsage { oom_kills: 1, ..GroupUsage::default() },
        };
        for reply in [
            Reply::Hello(7),
            Reply::Children {
                children: vec![Child { id: 1, pid: 2, exit: Some(exit), settled: true }],
                more: true,
            },
            Reply::Exited { id: 3, exit },
            Reply::LaunchFailed { id: 1, step: "mount".to_owned(), errno: 2, text: "no".to_owned() },
        ] {
            assert_eq!(cbor::decode::<Reply>(&encode_reply(&reply)), Ok(reply));
        }
        let request = Request::Launch { id: 1, plan: Some(vec![1, 2]), stored: vec!["a".to_owned()] };
        assert_eq!(cbor::decode::<Request>(&cbor::encode(&request)), Ok(request));
        assert!(cbor::decode::<Request>(&[0x82, 0x18, 99, 0x80]).is_err());
    }

    #[test]
    fn the_largest_replies_fit_one_packet() {
        let child = Child {
            id: u64::MAX,
            pid: i32::MAX,
            exit: Some(Exit {
                status: ExitStatus::Code(i32::MAX),
                usage: Usage {
                    user_time_us: u64::MAX,
                    system_time_us: u64::MAX,
                    resident_bytes_max: u64::MAX,
                    blocks_read: u64::MAX,
                    blocks_written: u64::MAX,
                },
                group: GroupUsage {
                    memory_bytes: u64::MAX,
                    memory_peak_bytes: u64::MAX,
                    oom_kills: u64::MAX,
                    cpu_time_us: u64::MAX,
                    processes: u64::MAX,
                },
            }),
            settled: true,
        };
        let children = Reply::Children { children: vec![child; CHILDREN_PER_REPLY_MAX], more: true };
        assert!(encode_reply(&children).len() <= MESSAGE_BYTES_MAX);
        let missing = Missing { guard: crate::Guard::Caps, why: "ä".repeat(9999), whole: true };
        let launched =
            Reply::Launched { id: u64::MAX, pid: 1, missing: vec![missing; 999], enforced: Vec::new() };
        assert!(encode_reply(&launched).len() <= MESSAGE_BYTES_MAX);
    }

    #[test]
    fn large_plans_go_sealed_and_unsealed_ones_are_refused() {
        let mut plan = Plan::new("large", Executable::Path("/x".to_owned()), Profile::Program);
        plan.arguments = vec!["x".repeat(ARGUMENT_BYTES_MAX - 1)];
        let (request, memfd) = launch_request(1, &plan, Vec::new()).unwrap();
        assert_eq!(request, Request::Launch { id: 1, plan: None, stored: Vec::new() });
        let bytes = read_sealed(memfd.unwrap().as_fd()).unwrap();
        assert_eq!(Plan::decode(&bytes, 0), Ok(plan));
        let open = rustix::fs::memfd_create("open", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        assert!(matches!(read_sealed(open.as_fd()), Err(ProtocolError::NotSealed)));
        let too_large = sealed(&vec![0; PLAN_BYTES_MAX + 1]).unwrap();
        assert!(matches!(read_sealed(too_large.as_fd()), Err(ProtocolError::PlanSize { .. })));
        assert!(read_sealed(sealed(&vec![0; PLAN_BYTES_MAX]).unwrap().as_fd()).is_ok());
    }
}
