//! One program that may connect: what is known of it, and what is said about it.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use base::{IdentityId, ProcessId, RuleId};
use contracts::network::v1::{self as wire, program_order::Order};
use tokio::sync::{Semaphore, mpsc};

use super::{live::Live, names::Names, opening::Opening, proxy::Waiting};
use crate::core::{
    Bucket, Credential, Kept, Places, SocketId, Target,
    limits::{
        CONNECTS_A_SECOND_MAX, CONNECTS_AT_ONCE_MAX, CONNECTS_OF_PROGRAM_MAX, PROXIED_OF_PROGRAM_MAX,
        RELAYS_OF_PROGRAM_MAX, TOLD_A_SECOND_MAX, TOLD_AT_ONCE_MAX,
    },
    nameservers::Programs,
};

/// One program.
pub(super) struct Program {
    /// 0 of a service's.
    pub(super) process: ProcessId,
    pub(super) identity: IdentityId,
    pub(super) places: Places,
    /// Under which it is known, and its sockets stand in the table.
    pub(super) client: String,
    pub(super) orders: mpsc::UnboundedSender<Said>,
    pub(super) connects: Arc<Semaphore>,
    pub(super) relays: Arc<Semaphore>,
    /// Connections to its proxy.
    pub(super) proxied: Arc<Semaphore>,
    /// What its proxy has open for the next request.
    kept: Mutex<Kept<Waiting>>,
    flows: Mutex<HashMap<u64, Open>>,
    teller: Mutex<Told>,
    rate: Mutex<Bucket>,
    told: Mutex<Bucket>,
    since: Instant,
    pub(super) names: Names,
    credentials: Mutex<Vec<Given>>,
    pub(super) opening: Opening,
}

/// A secret that it does not have itself.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) credential: Credential,
    /// Which let it be used, once policy has been asked.
    pub(super) rule: Option<RuleId>,
}

/// One that is known, by the kernel's number. What there is to know of it is in `live`, and nowhere else.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) inode: u64,
    pub(super) socket: SocketId,
    pub(super) live: Arc<Live>,
}

/// Who hears what process_manager is to do for it.
#[derive(Debug, Default)]
enum Told {
    #[default]
    Nobody,
    By(Teller),
    /// There is nothing left to be told.
    Over,
}

/// To process_manager.
pub(super) type Teller = mpsc::UnboundedSender<wire::ProgramCut>;
/// What goes to a monitor.
pub(super) type Said = (wire::ProgramOrder, Vec<OwnedFd>);
pub(super) type Heard = mpsc::UnboundedReceiver<Said>;

/// A connection of a program: this service has nothing of it, and its monitor ends it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) orders: mpsc::UnboundedSender<Said>,
    /// The kernel's number of the socket.
    pub(super) inode: u64,
}

/// Of one word to a monitor: a number has at most ten bytes in it.
pub(super) const CUT_AT_ONCE_MAX: usize = 1_000;

/// What monitors are to end: those of one program that come in a row are one word, which is said at the latest when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    to: Option<mpsc::UnboundedSender<Said>>,
    sockets: Vec<u64>,
}

impl Cuts {
    pub(super) fn add(&mut self, held: Held) {
        let is_same = self.to.as_ref().is_some_and(|to| to.same_channel(&held.orders));
        if !is_same || self.sockets.len() >= CUT_AT_ONCE_MAX {
            self.tell();
            self.to = Some(held.orders);
        }
        self.sockets.push(held.inode);
    }

    fn tell(&mut self) {
        let sockets = std::mem::take(&mut self.sockets);
        if let Some(to) = self.to.take() {
            let cut = Order::Cut(wire::ProgramSockets { sockets });
            // Nobody hears it any more if the program has ended, and its connections with it.
            let _ = to.send((wire::ProgramOrder { id: 0, order: Some(cut) }, Vec::new()));
        }
    }
}

impl Drop for Cuts {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Before the name of a service.
const SERVICE: &str = "service ";

/// Of a service each start is another client.
pub(super) fn client_of(hello: &wire::ProgramHello) -> String {
    match hello.service.as_str() {
        "" => format!("program {}", hello.process),
        service => format!("{SERVICE}{service} {}", hello.process),
    }
}

/// The service whose program a client is, if it is one's.
pub(super) fn service_of(client: &str) -> Option<&str> {
    client.strip_prefix(SERVICE)?.split(' ').next()
}

impl Program {
    pub(super) fn new(
        hello: &wire::ProgramHello,
        identity: IdentityId,
        places: Places,
        credentials: Vec<Credential>,
    ) -> Self {
        let (orders, heard) = mpsc::unbounded_channel();
        Self {
            process: ProcessId(if hello.service.is_empty() { hello.process } else { 0 }),
            identity,
            places,
            client: client_of(hello),
            orders,
            connects: Arc::new(Semaphore::new(CONNECTS_OF_PROGRAM_MAX)),
            relays: Arc::new(Semaphore::new(RELAYS_OF_PROGRAM_MAX)),
            proxied: Arc::new(Semaphore::new(PROXIED_OF_PROGRAM_MAX)),
            kept: Mutex::default(),
            flows: Mutex::default(),
            teller: Mutex::default(),
            rate: Mutex::new(Bucket::new(CONNECTS_AT_ONCE_MAX, CONNECTS_A_SECOND_MAX)),
            told: Mutex::new(Bucket::new(TOLD_AT_ONCE_MAX, TOLD_A_SECOND_MAX)),
            since: Instant::now(),
            names: Names::new(),
            credentials: Mutex::new(
                credentials.into_iter().map(|credential| Given { credential, rule: None }).collect(),
            ),
            opening: Opening::new(heard),
        }
    }

    /// The service whose program it is.
    pub(super) fn service(&self) -> Option<&str> {
        service_of(&self.client)
    }

    /// How often it may connect, as the operator has set it.
    pub(super) fn held_to(mut self, set: Programs) -> Self {
        self.rate = Mutex::new(Bucket::new(set.connects_at_once, set.connects_a_second));
        self
    }

    fn given(&self) -> MutexGuard<'_, Vec<Given>> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of those that are here, the ones that policy has not been asked about.
    pub(super) fn unreleased(&self) -> Vec<Credential> {
        let is_new = |given: &&Given| given.rule.is_none() && given.credential.held().is_ok();
        self.given().iter().filter(is_new).map(|given| given.credential.clone()).collect()
    }

    /// By name, those that whoever starts the program has no more, and why.
    pub(super) fn lost(&self) -> Vec<(String, String)> {
        let named = |given: &Given| {
            let credential = &given.credential;
            Some((credential.named(), credential.lost()?.to_owned()))
        };
        self.given().iter().filter_map(named).collect()
    }

    /// Withholds those that are not among these, whatever became of their values; there are no new ones.
    pub(super) fn keep_only(&self, named: &[Credential]) {
        let is_named = |given: &Given| named.iter().any(|one| one.is_same(&given.credential));
        self.withhold("whoever starts the program names it no more", |given| !is_named(given));
    }

    /// The one that a plain request to there is given.
    pub(super) fn credential_for(&self, asked: &Target) -> Option<Credential> {
        self.given().iter().map(|given| &given.credential).find(|it| it.is_for(asked)).cloned()
    }

    pub(super) fn allowed_by(&self, credential: &Credential, rule: &RuleId) {
        for given in self.given().iter_mut().filter(|given| given.credential.is_same(credential)) {
            given.rule = Some(rule.clone());
        }
    }

    /// The rule that may let it be used some time; one that has let it be used stays that.
    pub(super) fn waits_for(&self, credential: &Credential, rule: &RuleId) {
        for given in self.given().iter_mut().filter(|given| given.credential.is_same(credential)) {
            given.rule.get_or_insert_with(|| rule.clone());
        }
    }

    /// Wipes those that are meant.
    pub(super) fn withhold(&self, why: &str, is_meant: impl Fn(&Given) -> bool) {
        for given in self.given().iter_mut().filter(|given| is_meant(given)) {
            given.credential.withhold(why);
        }
    }

    fn flows(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is taken out is dropped when this is let go.
    pub(super) fn kept(&self) -> MutexGuard<'_, Kept<Waiting>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_open(&self) -> bool {
        !self.flows().is_empty()
    }

    /// The table's number of one that is known; it is replaced by the new.
    pub(super) fn remember(&self, inode: u64, socket: SocketId, live: Arc<Live>) -> Option<SocketId> {
        self.flows().insert(inode, Open { inode, socket, live }).map(|before| before.socket)
    }

    /// Its number in the table.
    pub(super) fn known(&self, inode: u64) -> Option<SocketId> {
        self.flows().get(&inode).map(|flow| flow.socket)
    }

    /// What of it was cut.
    pub(super) fn open_and_cut(&self) -> Vec<Open> {
        self.flows().values().filter(|open| open.live.is_cut()).cloned().collect()
    }

    /// Everything that is known.
    pub(super) fn open(&self) -> Vec<Open> {
        self.flows().values().cloned().collect()
    }

    pub(super) fn forget(&self, inode: u64, socket: SocketId) {
        let mut flows = self.flows();
        if flows.get(&inode).is_some_and(|flow| flow.socket == socket) {
            flows.remove(&inode);
        }
    }

    pub(super) fn say(&self, id: u64, order: Order, fds: Vec<OwnedFd>) {
        let _ = self.orders.send((wire::ProgramOrder { id, order: Some(order) }, fds));
    }

    pub(super) fn answer(&self, id: u64, answer: wire::ProgramAnswer, fd: Option<OwnedFd>) {
        self.say(id, Order::Answer(answer), fd.into_iter().collect());
    }

    /// Its monitor ends these, where it finds them.
    pub(super) fn cut(&self, sockets: &[u64]) {
        for part in sockets.chunks(CUT_AT_ONCE_MAX) {
            self.say(0, Order::Cut(wire::ProgramSockets { sockets: part.to_vec() }), Vec::new());
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.teller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever speaks for it hears from now on what is said there; its end, when nothing is any more.
    pub(super) fn tell_to(&self, teller: Teller) {
        let mut told = self.told();
        if !matches!(*told, Told::Over) {
            *told = Told::By(teller);
        }
    }

    /// process_manager is to end these, whoever has them, and perhaps the program.
    pub(super) fn tell(&self, cut: wire::ProgramCut) {
        if let Told::By(teller) = &*self.told() {
            let _ = teller.send(cut);
        }
    }

    /// There is nothing left to be told.
    pub(super) fn hush(&self) {
        *self.told() = Told::Over;
    }

    pub(super) fn may_connect(&self) -> bool {
        let now = self.since.elapsed();
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }

    /// Whether its monitor is told of one more refusal that it did not ask about: what is told waits for the monitor in memory.
    pub(super) fn may_tell(&self) -> bool {
        let now = self.since.elapsed();
        self.told.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::live::{Io, Live};
    use contracts::way_out::{Message as _, PACKET_BYTES_MAX};
    use kit::way_out;

    fn program() -> (Program, Heard) {
        let hello = wire::ProgramHello { process: 1, ..Default::default() };
        let program = Program::new(&hello, IdentityId([1; 32]), Places::default(), Vec::new());
        let heard = program.opening.heard_for_test();
        (program, heard)
    }

    /// Whatever their numbers are: what a monitor cannot hear costs it the channel.
    #[test]
    fn what_is_cut_at_once_is_told_in_packets_that_a_monitor_can_hear() {
        let (program, mut heard) = program();
        let cut: Vec<u64> = (0..=CUT_AT_ONCE_MAX as u64).map(|number| u64::MAX - number).collect();
        program.cut(&cut);
        let mut told = Vec::new();
        for sockets in [CUT_AT_ONCE_MAX, 1] {
            let (order, _) = heard.try_recv().unwrap();
            assert!(order.encoded_len() <= PACKET_BYTES_MAX);
            let Some(Order::Cut(part)) = order.order else { panic!("{order:?}") };
            assert_eq!(part.sockets.len(), sockets);
            told.extend(part.sockets);
        }
        assert_eq!(told, cut);
    }

    /// Whatever comes between: nothing of one program is told to the monitor of another.
    #[test]
    fn what_is_cut_in_a_row_is_one_word_to_each_monitor() {
        let ((one, mut ones), (other, mut others)) = (program(), program());
        let held = |program: &Program, inode| Held { orders: program.orders.clone(), inode };
        let mut cuts = Cuts::default();
        let last = CUT_AT_ONCE_MAX as u64;
        (0..=last).for_each(|inode| cuts.add(held(&one, inode)));
        [7, 8].into_iter().for_each(|inode| cuts.add(held(&other, inode)));
        cuts.add(held(&one, 9));
        drop(cuts);
        let told = |heard: &mut Heard| {
            std::iter::from_fn(|| heard.try_recv().ok())
                .map(|(order, _)| match order.order {
                    Some(Order::Cut(cut)) => cut.sockets,
                    other => panic!("{other:?}"),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&mut ones), [(0..last).collect(), vec![last], vec![9]]);
        assert_eq!(told(&mut others), [[7, 8]]);
    }

    fn credential(host: &str, value: Option<&[u8]>) -> Credential {
        let written = way_out::Written { secret: "key", host, ..Default::default() };
        let value = value.map(|value| zeroize::Zeroizing::new(value.to_vec()));
        Credential::new(way_out::Credential::new(written, value).unwrap()).unwrap()
    }

    #[test]
    fn policy_is_asked_once_about_what_is_here_and_what_is_named_no_more_goes() {
        let hello = wire::ProgramHello { process: 1, ..Default::default() };
        let [used, waits, new, lost] = ["used", "waits", "new", "lost"]
            .map(|host| credential(host, (host != "lost").then_some(&b"s3cret"[..])));
        let all = vec![used.clone(), waits.clone(), new.clone(), lost.clone()];
        let program = Program::new(&hello, IdentityId([1; 32]), Places::default(), all);
        let places = |all: Vec<Credential>| all.iter().map(Credential::place).collect::<Vec<_>>();
        assert_eq!(places(program.unreleased()), ["used:443", "waits:443", "new:443"]);
        let [first, second] = ["first", "second"].map(|rule| RuleId::new(rule).unwrap());
        program.allowed_by(&used, &first);
        program.waits_for(&waits, &second);
        program.waits_for(&used, &second);
        assert_eq!(places(program.unreleased()), ["new:443"]);
        assert_eq!(program.lost().len(), 1);
        assert_eq!(program.lost()[0].0, "key@lost:443");
        let held = |host: &str| {
            program.given().iter().any(|given| {
                given.credential.place() == format!("{host}:443") && given.credential.held().is_ok()
            })
        };
        // With the rule that let it be used, and with none that did not.
        program.withhold("its rule was removed", |given| given.rule.as_ref() == Some(&second));
        assert!(held("used") && !held("waits") && held("new"));
        // Another value of the same secret is the same secret.
        program.keep_only(&[credential("used", Some(b"another"))]);
        assert!(held("used") && !held("new"));
    }

    #[test]
    fn each_start_of_a_service_is_a_client_of_its_own_and_says_whose_it_is() {
        let hello = |process, service: &str| wire::ProgramHello {
            process,
            service: service.to_owned(),
            ..Default::default()
        };
        let clients = [hello(1, ""), hello(1, "web"), hello(2, "web")].map(|hello| client_of(&hello));
        assert_eq!(clients, ["program 1", "service web 1", "service web 2"]);
        let services = clients.each_ref().map(|client| service_of(client));
        assert_eq!(services, [None, Some("web"), Some("web")]);
        assert_eq!(
            Program::new(&hello(7, "web"), IdentityId([1; 32]), Places::default(), Vec::new()).process,
            ProcessId(0)
        );
    }

    #[test]
    fn a_close_and_a_cut_by_its_owner_reach_the_monitor() {
        for end in [Live::close, Live::cut] {
            let (program, mut heard) = program();
            let live = Live::of(Io::Program(Held { orders: program.orders.clone(), inode: 7 }));
            end(&live);
            let (order, _) = heard.try_recv().unwrap();
            let cut = Order::Cut(wire::ProgramSockets { sockets: vec![7] });
            assert_eq!(order.order, Some(cut));
        }
    }
}
