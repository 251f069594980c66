//! The key boundary without a node: makes a seed at the first boot, and does what only it can do while the node is not up.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context, Result, bail};
use keys::boundary::BoundaryClient;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sandbox::{Descriptor, Executable, Features, Guard, Namespaces, Plan, seccomp::Profile};
use seal::SecretKind;

/// The first descriptor behind the standard streams.
const FIRST_FD: u32 = 3;

/// What a boundary is given besides its socket; each is read once.
#[derive(Default)]
pub struct Given {
    pub sealed: Option<OwnedFd>,
    pub secret: Option<(SecretKind, OwnedFd)>,
    pub next: Option<(SecretKind, OwnedFd)>,
    pub words: Option<OwnedFd>,
}

/// Starts it without a namespace of mounts or a file of its own; it ends with the client.
pub fn start(image: &OwnedFd, features: &Features, given: Given) -> Result<BoundaryClient> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .context("making the boundary's socket")?;
    let null = OwnedFd::from(File::open("/dev/null").context("opening /dev/null")?);
    let errors = std::io::stderr().as_fd().try_clone_to_owned().context("standard error")?;
    let image = image.try_clone().context("the running image")?;
    let named = std::iter::once(("boundary".to_owned(), theirs))
        .chain(given.sealed.map(|fd| ("sealed".to_owned(), fd)))
        .chain(given.secret.map(|(kind, fd)| (format!("secret:{}", kind.name()), fd)))
        .chain(given.next.map(|(kind, fd)| (format!("next:{}", kind.name()), fd)))
        .chain(given.words.map(|fd| ("words".to_owned(), fd)));
    let (mut slots, mut tokens) = (vec![image, null, errors], Vec::new());
    let mut descriptors = [(1, 0), (1, 1), (2, 2)].map(|(slot, target)| Descriptor { slot, target }).to_vec();
    // The numbers happen to be the same: three streams, and three slots for the image and what the streams are.
    for ((name, fd), number) in named.zip(FIRST_FD..) {
        tokens.push(format!("{name}={number}"));
        descriptors.push(Descriptor { slot: number, target: number });
        slots.push(fd);
    }
    let mut plan = Plan::new("boundary", Executable::Slot(0), Profile::Boundary);
    plan.arguments = ["bailiwick", "process", "boundary"].map(str::to_owned).to_vec();
    plan.environment = vec![("BAILIWICK_FDS".to_owned(), tokens.join(","))];
    // It locks itself down once it has read the secret; its filter and namespaces are those of every later start
    // except the mount namespace, which needs no root before there is a node.
    plan.namespaces = Namespaces { mount: false, pid: false, ..Namespaces::ALL };
    (plan.landlock, plan.seccomp) = (None, None);
    plan.required = sandbox::GuardSet::of(&[Guard::NoNewPrivs, Guard::Caps]);
    plan.descriptors = descriptors;
    sandbox::launch(&plan, &slots, features, None).context("starting the key boundary")?;
    Ok(BoundaryClient::new(ours))
}

/// One that has opened its seed.
pub fn opened(image: &OwnedFd, features: &Features, given: Given) -> Result<BoundaryClient> {
    let mut boundary = start(image, features, given)?;
    match boundary.locked().context("asking the key boundary")? {
        None => Ok(boundary),
        Some(why) => bail!("the seed does not open: {why}"),
    }
}

/// What is sealed is no secret and fits every pipe.
pub fn in_pipe(sealed: &[u8]) -> Result<OwnedFd> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("making a pipe")?;
    File::from(write).write_all(sealed).context("writing into a pipe")?;
    Ok(read)
}
