//! The netlink socket: asks for everything once, and follows.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kit::Component;
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags},
};
use thiserror::Error;
use tokio::{io::unix::AsyncFd, sync::watch, time};

use crate::core::{Interfaces, Message, MessageError, messages, request};

/// The number of the socket's descriptor. It was made where the host's interfaces are, and hears of links and addresses.
const SOCKET_FD: &str = "BAILIWICK_NETLINK_FD";
/// The kernel's messages have at most 32 KiB.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
/// Changes that come so close together are told as one.
const TOGETHER: Duration = Duration::from_millis(50);
/// Between two attempts to list everything.
const PAUSE: Duration = Duration::from_millis(200);
/// The kernel answers at once.
const ANSWER_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Error)]
pub(super) enum KernelError {
    #[error("{SOCKET_FD} is not the number of a descriptor: this service is started by the supervisor")]
    Missing,
    #[error("the netlink socket: {0}")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("the kernel did not list its interfaces within {} s", ANSWER_MAX.as_secs())]
    Silent,
    #[error("the kernel dropped messages, since they were not read in time")]
    Lost,
    #[error("the list changed while it was read")]
    Interrupted,
}

impl From<Errno> for KernelError {
    fn from(errno: Errno) -> Self {
        if errno == Errno::NOBUFS { Self::Lost } else { Self::Socket(errno.into()) }
    }
}

/// Adopted at the start of the process, taken by `Init`.
static SOCKET: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// To be called first: descriptors are adopted before anything else is opened.
pub(super) fn adopt() -> Result<(), KernelError> {
    let raw = std::env::var(SOCKET_FD).ok().and_then(|text| text.parse().ok()).ok_or(KernelError::Missing)?;
    let socket = sandbox::inherited::adopt_descriptor(raw)?;
    *SOCKET.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
    Ok(())
}

pub(super) fn take() -> Option<OwnedFd> {
    SOCKET.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// What the kernel says; nothing before it said something, and an error while it says nothing.
pub(super) type View = Result<Option<Arc<Interfaces>>, String>;

pub(super) struct Kernel {
    view: watch::Receiver<View>,
}

impl Kernel {
    /// Needs a running tokio runtime.
    #[expect(
        deprecated,
        reason = "the form without the warning is unsafe; this one owns its descriptor and never swaps it"
    )]
    pub(super) fn start(socket: OwnedFd) -> Result<Self, KernelError> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let (tell, view) = watch::channel(Ok(None));
        let follower = Follower { socket: AsyncFd::new(socket)?, number: 0, tell };
        tokio::spawn(follower.run());
        Ok(Self { view })
    }

    pub(super) fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    pub(super) fn health(&self) -> Component {
        match &*self.view.borrow() {
            Ok(_) => Component::healthy("interfaces"),
            Err(why) => Component::failed("interfaces", why.as_str()),
        }
    }
}

struct Follower {
    socket: AsyncFd<OwnedFd>,
    number: u32,
    tell: watch::Sender<View>,
}

impl Follower {
    async fn run(mut self) {
        loop {
            let error = match self.follow().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            match error {
                // What was told still holds until it is read anew.
                KernelError::Lost | KernelError::Interrupted => {
                    tracing::info!(%error, "listing interfaces again")
                }
                error => {
                    tracing::warn!(%error, "interfaces are not known");
                    let _ = self.tell.send_replace(Err(error.to_string()));
                }
            }
            time::sleep(PAUSE).await;
        }
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, KernelError> {
        let mut known = self.list().await?;
        self.say(&known);
        loop {
            let mut changed = self.take_in(&mut known).await?;
            let quiet = time::Instant::now() + TOGETHER;
            while let Ok(more) = time::timeout_at(quiet, self.take_in(&mut known)).await {
                changed |= more?;
            }
            if changed {
                self.say(&known);
            }
        }
    }

    fn say(&self, known: &Interfaces) {
        let _ = self.tell.send_replace(Ok(Some(Arc::new(known.clone()))));
    }

    /// Everything there is. Links first: addresses of unknown links are passed over.
    async fn list(&mut self) -> Result<Interfaces, KernelError> {
        let mut known = Interfaces::default();
        for links in [true, false] {
            self.number = self.number.wrapping_add(1);
            rustix::net::send(&self.socket, &request(links, self.number), SendFlags::empty())?;
            time::timeout(ANSWER_MAX, self.answer(&mut known)).await.map_err(|_| KernelError::Silent)??;
        }
        Ok(known)
    }

    async fn answer(&self, known: &mut Interfaces) -> Result<(), KernelError> {
        loop {
            for message in self.read().await? {
                match message {
                    // Of a list that was given up before.
                    Message::Done { number, .. } if number != self.number => {}
                    Message::Done { interrupted: true, .. } => return Err(KernelError::Interrupted),
                    Message::Done { .. } => return Ok(()),
                    other => {
                        known.apply(&other);
                    }
                }
            }
        }
    }

    async fn take_in(&self, known: &mut Interfaces) -> Result<bool, KernelError> {
        let read = self.read().await?;
        Ok(read.iter().fold(false, |changed, message| known.apply(message) | changed))
    }

    async fn read(&self) -> Result<Vec<Message>, KernelError> {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let mut ready = self.socket.readable().await?;
            let read = ready.try_io(|socket| {
                rustix::net::recv(socket, &mut *buffer, RecvFlags::TRUNC).map_err(io::Error::from)
            });
            let Ok(read) = read else { continue };
            let (_, bytes) = read.map_err(|error| {
                Errno::from_io_error(&error).map_or_else(|| KernelError::Socket(error), KernelError::from)
            })?;
            let Some(datagram) = buffer.get(..bytes) else { return Err(KernelError::Lost) };
            return Ok(messages(datagram)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, netlink, socket_with};
    use std::process::{Command, Stdio};

    const LIMIT: Duration = Duration::from_secs(20);
    /// Links, addresses of IPv4 and of IPv6.
    const GROUPS: u32 = 0x111;
    const INSIDE: &str = "shell::kernel::tests::inside_of_a_network_of_its_own";

    fn socket() -> OwnedFd {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &netlink::SocketAddrNetlink::new(0, GROUPS)).unwrap();
        socket
    }

    async fn seen(view: &mut watch::Receiver<View>, wanted: impl Fn(&Interfaces) -> bool) {
        let there = view.wait_for(|view| matches!(view, Ok(Some(known)) if wanted(known)));
        time::timeout(LIMIT, there).await.unwrap().unwrap();
    }

    fn lo_is_usable(known: &Interfaces) -> bool {
        known.all().any(|one| one.is_loopback() && one.is_usable())
    }

    /// Set by the test below, which runs this one in a network namespace of its own, where `lo` is down.
    const IS_INSIDE: &str = "TEST_IN_OWN_NETWORK";

    /// No test where nobody has made that namespace.
    #[tokio::test]
    async fn inside_of_a_network_of_its_own() {
        if std::env::var_os(IS_INSIDE).is_none() {
            return;
        }
        let kernel = Kernel::start(socket()).unwrap();
        assert!(kernel.health().healthy);
        let mut view = kernel.view();
        seen(&mut view, |known| known.all().any(|one| one.is_loopback() && !one.is_up())).await;
        for (change, wanted) in [("up", true), ("down", false)] {
            assert!(Command::new("ip").args(["link", "set", "lo", change]).status().unwrap().success());
            seen(&mut view, |known| lo_is_usable(known) == wanted).await;
        }
        println!("seen");
    }

    #[test]
    fn what_is_there_is_listed_and_a_change_is_told() {
        let mut inside = Command::new("unshare");
        inside.args(["--user", "--map-root-user", "--net", "--"]).arg(std::env::current_exe().unwrap());
        inside.args(["--exact", INSIDE, "--nocapture"]).env(IS_INSIDE, "1").stdin(Stdio::null());
        let Ok(output) = inside.output() else {
            println!("skipped: `unshare` is not installed");
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && said.contains("seen"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
