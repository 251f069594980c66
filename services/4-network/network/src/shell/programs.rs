//! Programs that may connect: a channel to the monitor of each, from process_manager's hands. What is said on it is answered in
//! `program_connect.rs`.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use base::IdentityId;
use contracts::{
    network::v1::{self as wire, program_order::Order, program_word::Word},
    way_out::{PACKET_BYTES_MAX, SPARE_MAX, with_length},
};
use kit::{
    Caller,
    way_out::{self, CREDENTIALS_MAX},
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use sandbox::host_socket;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, unix::AsyncFd},
    net::UnixStream,
    sync::mpsc,
    time::timeout,
};

use super::{
    Network,
    program::{Heard, Program, client_of},
    program_wire::{Wire, hello, pass, receive, send},
};
use crate::core::{Credential, Domain, NetError, Places, limits::PROGRAMS_MAX};

/// Who alone speaks for programs of `run`.
const STARTER: &str = "process_manager";
/// Who alone speaks for programs of services.
const SUPERVISOR: &str = "supervisor";
/// Bytes of a service's name.
const SERVICE_BYTES_MAX: usize = 128;
/// It says everything at once.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the kernel is asked which connections a program still has.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Network {
    pub(super) fn take_program(self: &Arc<Self>, caller: &Caller, stream: UnixStream) {
        let of_services = &*caller.client == SUPERVISOR;
        if !of_services && &*caller.client != STARTER {
            tracing::warn!(client = %caller.client, "asks for a way out of a program, which is {STARTER}'s to do");
            return;
        }
        let network = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = network.greet(stream, of_services).await {
                tracing::warn!(%error, "a way out was asked for and not opened");
            }
        });
    }

    async fn greet(self: &Arc<Self>, mut stream: UnixStream, of_services: bool) -> io::Result<()> {
        let mut hello = timeout(HELLO_TIMEOUT, hello(&mut stream)).await??;
        // Taken out of the message at once, which nobody wipes.
        let credentials = credentials_of(&mut hello);
        if let Err(error) = speaks_for(&hello, of_services) {
            return pass(&stream, &wire::ProgramWelcome { refused: error.to_string() }, None).await;
        }
        if !self.kernel.is_there() {
            let refused = self.kernel.health().message.unwrap_or_default();
            return pass(&stream, &wire::ProgramWelcome { refused }, None).await;
        }
        let program = match credentials {
            Ok(credentials) => self.open_one(&hello, credentials, &mut stream).await?,
            Err(error) => Err(error),
        };
        let program = match program {
            Ok(program) => program,
            Err(error) => {
                let refused = error.to_string();
                return pass(&stream, &wire::ProgramWelcome { refused }, None).await;
            }
        };
        let (teller, mut told) = mpsc::unbounded_channel();
        program.tell_to(teller);
        drop(program);
        // The end of this connection tells process_manager of ours, or of the program's; nothing is said to us on it. What was
        // read before can leave it looking readable: its end is read.
        let (mut hears, mut says) = stream.split();
        let mut said = [0; 1];
        loop {
            tokio::select! {
                cut = told.recv() => match cut {
                    Some(cut) => says.write_all(&with_length(&cut)).await?,
                    None => break,
                },
                _ = hears.read(&mut said) => break,
            }
        }
        Ok(())
    }

    /// What of its secrets is not in the table is gone when this returns.
    async fn open_one(
        self: &Arc<Self>,
        hello: &wire::ProgramHello,
        credentials: Vec<Credential>,
        stream: &mut UnixStream,
    ) -> io::Result<Result<Arc<Program>, NetError>> {
        loop {
            let program = match self.find_or_enter(hello, &credentials) {
                Ok(program) => program,
                Err(error) => return Ok(Err(error)),
            };
            if self.open(&program, stream).await? {
                return Ok(Ok(program));
            }
        }
    }

    /// In the table before anything is said, so that of two greetings for one program one opens it. One that is known is told by
    /// its identity and its places; its secrets are what they were, or withheld.
    fn find_or_enter(
        &self,
        hello: &wire::ProgramHello,
        credentials: &[Credential],
    ) -> Result<Arc<Program>, NetError> {
        let identity = IdentityId::from_slice(&hello.identity)
            .ok_or_else(|| NetError::invalid("identity", "it is not 32 bytes"))?;
        let places = Places::parse(&hello.egress)?;
        let client = client_of(hello);
        let mut programs = self.programs();
        if let Some(known) = programs.get(&client) {
            if known.identity != identity || known.places != places {
                return Err(NetError::invalid(
                    "process",
                    "it is known with another identity or other places",
                ));
            }
            known.keep_only(credentials);
            return Ok(Arc::clone(known));
        }
        if programs.len() >= PROGRAMS_MAX {
            return Err(NetError::TooMany(format!("{PROGRAMS_MAX} programs have a way out already")));
        }
        let program =
            Arc::new(Program::new(hello, identity, places, credentials.to_vec()).held_to(self.rates));
        for (name, why) in program.lost() {
            tracing::warn!(client = program.client, secret = name, why, "a secret of a program is withheld");
        }
        programs.insert(client, Arc::clone(&program));
        Ok(program)
    }

    pub(super) fn all_programs(&self) -> Vec<Arc<Program>> {
        self.programs().values().cloned().collect()
    }

    fn programs(&self) -> MutexGuard<'_, HashMap<String, Arc<Program>>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn serve_program(
        self: Arc<Self>,
        program: Arc<Program>,
        mut heard: Heard,
        wire: AsyncFd<Wire>,
    ) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                said = heard.recv() => {
                    let Some((order, fds)) = said else { break };
                    if send(&wire, &order, &fds).await.is_err() {
                        break;
                    }
                }
                word = receive(&wire, &mut buffer) => match word {
                    Ok((word, mut fds)) => match word.word {
                        Some(Word::Alive(_)) | None => {}
                        Some(Word::Socket(domain)) => self.make_socket(&program, word.id, &domain),
                        Some(Word::Spare(spare)) => self.make_spare(&program, word.id, &spare),
                        Some(Word::Connect(address)) => self.start_connect(&program, word.id, address, fds.pop()),
                        Some(Word::Leads(address)) => self.tell_leads(&program, word.id, &address),
                        Some(Word::Datagrams(_)) => self.open_datagrams(&program, word.id),
                        Some(Word::Question(question)) => self.start_question(&program, word.id, question),
                        Some(Word::Proxied(_)) => self.start_proxied(&program, fds.pop()),
                        Some(Word::Came(came)) => self.start_came(&program, &came, fds),
                    },
                    Err(_) => break,
                },
                _ = look.tick(), if program.has_open() => self.look_for_gone(&program).await,
            }
        }
        self.end_program(&program, heard);
    }

    /// What is being decided finds the channel closed, or its row is in the table by now; only then another program can have
    /// the number.
    pub(super) fn end_program(self: &Arc<Self>, program: &Arc<Program>, mut heard: Heard) {
        heard.close();
        let (network, ended) = (Arc::clone(self), Arc::clone(program));
        tokio::spawn(async move { network.end_outlived(&ended).await });
        program.withhold("its program has ended", |_| true);
        self.drain_of(program);
        self.registry.remove_of(&program.client, "its program has ended");
        let mut programs = self.programs();
        if programs.get(&program.client).is_some_and(|known| Arc::ptr_eq(known, program)) {
            programs.remove(&program.client);
        }
    }

    fn make_socket(&self, program: &Program, id: u64, domain: &str) {
        match Domain::parse(domain).map_err(|_| libc_errno::AFNOSUPPORT).and_then(host_stream) {
            Ok(socket) => program.answer(id, wire::ProgramAnswer::default(), Some(socket)),
            Err(errno) => program.answer(id, wire::ProgramAnswer { errno, ..Default::default() }, None),
        }
    }

    /// Fewer than were asked for, also none, if there are no more to be had.
    fn make_spare(&self, program: &Program, id: u64, spare: &wire::ProgramSpare) {
        let count = usize::try_from(spare.count).unwrap_or(SPARE_MAX).min(SPARE_MAX);
        let Ok(domain) = Domain::parse(&spare.domain) else {
            let answer = wire::ProgramAnswer { errno: libc_errno::AFNOSUPPORT, ..Default::default() };
            return program.answer(id, answer, None);
        };
        let sockets = (0..count).map_while(|_| host_stream(domain).ok()).collect();
        program.say(id, Order::Answer(wire::ProgramAnswer::default()), sockets);
    }

    fn start_connect(
        self: &Arc<Self>,
        program: &Arc<Program>,
        id: u64,
        address: wire::Address,
        socket: Option<OwnedFd>,
    ) {
        let refuse = |errno| program.answer(id, wire::ProgramAnswer { errno, ..Default::default() }, None);
        let Some(socket) = socket else { return refuse(libc_errno::BADF) };
        if !program.may_connect() {
            return refuse(libc_errno::AGAIN);
        }
        let places = [&program.connects, &self.connects].map(|all| Arc::clone(all).try_acquire_owned());
        let [Ok(one), Ok(of_all)] = places else { return refuse(libc_errno::AGAIN) };
        let (network, program) = (Arc::clone(self), Arc::clone(program));
        tokio::spawn(async move {
            let answer = network.connect_for(&program, socket, &address).await;
            program.answer(id, answer, None);
            drop((one, of_all));
        });
    }
}

/// What is wrong with one is said without its value.
fn credentials_of(hello: &mut wire::ProgramHello) -> Result<Vec<Credential>, NetError> {
    let wrong = |text: String| NetError::invalid("credentials", text);
    let again = hello.again;
    // All are taken out, whatever is wrong with one of them.
    let read: Vec<_> = hello.credentials.iter_mut().map(|said| credential_of(said, again)).collect();
    let all: Vec<Credential> = read.into_iter().collect::<Result<_, _>>().map_err(wrong)?;
    if all.len() > CREDENTIALS_MAX {
        return Err(wrong(format!("{} credentials, at most {CREDENTIALS_MAX} are allowed", all.len())));
    }
    // Two spellings of one host.
    let mut places = std::collections::HashSet::new();
    match all.iter().find(|one| !places.insert(one.place())) {
        Some(twice) => Err(wrong(format!("{} has two credentials; one can be put in", twice.place()))),
        None => Ok(all),
    }
}

/// Of a program that runs already, one that cannot be used is withheld for that reason.
fn credential_of(said: &mut wire::ProgramCredential, again: bool) -> Result<Credential, String> {
    let read = |said: &mut wire::ProgramCredential| {
        let given = way_out::Credential::of_wire(said)?;
        if !given.authority.is_empty() {
            super::calls::check_authority(&given.authority)?;
        }
        Credential::new(given)
    };
    let error = match read(said) {
        Err(error) if again => error,
        other => return other,
    };
    // Its value was taken out.
    said.value.clear();
    said.authority.clear();
    said.withheld = error;
    read(said)
}

/// process_manager has no service, and the supervisor nothing else.
fn speaks_for(hello: &wire::ProgramHello, of_services: bool) -> Result<(), NetError> {
    let service = hello.service.as_str();
    // A space would end it where it is shown.
    let is_name = service.len() <= SERVICE_BYTES_MAX && service.bytes().all(|byte| byte.is_ascii_graphic());
    match (of_services, service.is_empty()) {
        (true, false) if is_name => Ok(()),
        (false, true) => Ok(()),
        _ => Err(NetError::invalid("service", "whoever asks does not speak for it")),
    }
}

/// Numbers that a program understands.
pub(super) mod libc_errno {
    use rustix::io::Errno;

    pub(in crate::shell) const AFNOSUPPORT: u32 = Errno::AFNOSUPPORT.raw_os_error().unsigned_abs();
    pub(in crate::shell) const BADF: u32 = Errno::BADF.raw_os_error().unsigned_abs();
    pub(in crate::shell) const AGAIN: u32 = Errno::AGAIN.raw_os_error().unsigned_abs();
    pub(in crate::shell) const ACCESS: u32 = Errno::ACCESS.raw_os_error().unsigned_abs();
    pub(in crate::shell) const INVAL: u32 = Errno::INVAL.raw_os_error().unsigned_abs();
    pub(in crate::shell) const ALREADY: u32 = Errno::ALREADY.raw_os_error().unsigned_abs();
    pub(in crate::shell) const INPROGRESS: u32 = Errno::INPROGRESS.raw_os_error().unsigned_abs();
    pub(in crate::shell) const NETDOWN: u32 = Errno::NETDOWN.raw_os_error().unsigned_abs();
}

/// A TCP socket that only goes out.
fn host_stream(domain: Domain) -> Result<OwnedFd, u32> {
    let family = match domain {
        Domain::Inet => AddressFamily::INET,
        Domain::Inet6 => AddressFamily::INET6,
    };
    let made = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = made.map_err(|errno| errno.raw_os_error().unsigned_abs())?;
    // One lock more, where the kernel lets a process without rights have it; the monitor lets nothing listen here.
    if let Err(error) = host_socket::lock_outbound(socket.as_fd()) {
        tracing::debug!(%error, "a program's socket is not locked by a filter of its own");
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_for_services_speaks_for_no_other_program_and_the_other_way_round() {
        let hello = |service: &str| wire::ProgramHello { service: service.to_owned(), ..Default::default() };
        let long = "x".repeat(SERVICE_BYTES_MAX + 1);
        for (service, of_services, may) in [
            ("", false, true),
            ("web", true, true),
            (&long[1..], true, true),
            ("", true, false),
            ("web", false, false),
            (&long, true, false),
            ("web 7", true, false),
        ] {
            assert_eq!(speaks_for(&hello(service), of_services).is_ok(), may, "{service:?} {of_services}");
        }
    }
}
