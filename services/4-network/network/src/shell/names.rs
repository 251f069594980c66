//! What programs ask for by name. Only what their places allow is asked for, and what it answers is theirs alone.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contracts::network::v1 as wire;
use tokio::sync::Semaphore;

use super::{Network, program::Program, programs::libc_errno, resolver::ResolveError};
use crate::core::{
    Bucket, CallError, Decided, HostName, Reach,
    dns::Family,
    limits::{QUESTIONS_A_SECOND_MAX, QUESTIONS_AT_ONCE_MAX, QUESTIONS_OF_PROGRAM_MAX},
    pins::Pins,
    query::{Asked, Question, Said},
    special,
};

/// Of one program.
pub(super) struct Names {
    pins: Mutex<Pins>,
    questions: Arc<Semaphore>,
    rate: Mutex<Bucket>,
}

/// What a program hears, and what its monitor writes down.
#[derive(Debug, Default)]
struct Answered {
    addresses: Vec<IpAddr>,
    ttl: Duration,
    /// Why it hears less than was answered, and of what name.
    refused: Option<(String, String)>,
}

/// What is heard instead of an answer.
enum Instead {
    NoSuchName,
    Failed,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            pins: Mutex::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS_OF_PROGRAM_MAX)),
            rate: Mutex::new(Bucket::new(QUESTIONS_AT_ONCE_MAX, QUESTIONS_A_SECOND_MAX)),
        }
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_ask(&self) -> bool {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(now())
    }
}

/// Since the machine started: a name does not live longer because the machine slept.
pub(super) fn now() -> Duration {
    Duration::from_nanos(kit::boot_time_ns())
}

impl Program {
    /// What a connect to this address is to the program, and the name that leads to it.
    pub(super) fn decide(&self, to: SocketAddr, hosts: Option<&[IpAddr]>) -> Decided {
        if kit::is_broken("egress-pins") || (self.service().is_some() && kit::is_broken("service-pins")) {
            // What `prove` switched off: whoever answered it, policy alone is asked.
            return Decided { reach: Reach::Ask, name: None, asks_for: Vec::new() };
        }
        let pins = self.names.pins();
        self.places.decide(to, hosts, pins.names(to.ip(), now()))
    }

    /// Whether the name has answered this address, and lives.
    pub(super) fn is_answered(&self, name: &HostName, ip: IpAddr) -> bool {
        self.names.pins().names(ip, now()).any(|one| one == name)
    }

    /// The same of a datagram to somebody new.
    pub(super) fn decide_datagram(&self, to: SocketAddr, hosts: Option<&[IpAddr]>) -> Decided {
        let pins = self.names.pins();
        self.places.decide_datagram(to, hosts, pins.names(to.ip(), now()))
    }
}

impl Network {
    pub(super) fn start_question(
        self: &Arc<Self>,
        program: &Arc<Program>,
        id: u64,
        asked: wire::ProgramQuestion,
    ) {
        let Some(question) = Question::read(&asked.message) else {
            return program.answer(id, wire::ProgramAnswer::default(), None);
        };
        let place = Arc::clone(&program.names.questions).try_acquire_owned();
        let (true, Ok(place)) = (program.names.may_ask(), place) else {
            return program.answer(id, heard(&question, Said::Failed, asked.stream), None);
        };
        let (network, program) = (Arc::clone(self), Arc::clone(program));
        tokio::spawn(async move {
            let answer = network.question(&program, &question, asked.stream).await;
            program.answer(id, answer, None);
            drop(place);
        });
    }

    async fn question(&self, program: &Program, question: &Question, stream: bool) -> wire::ProgramAnswer {
        let (name, family) = match question.asked() {
            Asked::Addresses(name, family) if is_allowed(program, &name) => (name, family),
            Asked::Nothing(name) if is_allowed(program, &name) => {
                return heard(question, Said::Nothing, stream);
            }
            Asked::Addresses(name, _) | Asked::Nothing(name) => {
                let why = "it is not among the places of the program".to_owned();
                return refused(heard(question, Said::Refused, stream), name.to_string(), why);
            }
            Asked::Unknown => return heard(question, Said::NotImplemented, stream),
            Asked::NoName(error) => {
                let answer = heard(question, Said::Refused, stream);
                return refused(answer, question.name(), error.to_string());
            }
        };
        match self.ask_for(program, &name, family).await {
            Ok(Answered { addresses, ttl, refused: left_out }) => {
                let said = match (addresses.is_empty(), &left_out) {
                    (false, _) => Said::Addresses(&addresses, ttl),
                    (true, Some(_)) => Said::Refused,
                    (true, None) => Said::Nothing,
                };
                let answer = heard(question, said, stream);
                match left_out {
                    Some((name, why)) => refused(answer, name, why),
                    None => answer,
                }
            }
            Err(Instead::NoSuchName) => heard(question, Said::NoSuchName, stream),
            Err(Instead::Failed) => heard(question, Said::Failed, stream),
        }
    }

    /// Of a name that it asks its proxy for: as if it had asked its name server.
    pub(super) async fn addresses_of(
        &self,
        program: &Program,
        name: &HostName,
    ) -> Result<Vec<IpAddr>, CallError> {
        if !is_allowed(program, name) {
            let text = format!("{name} is not among the places of the program; name it with --egress");
            return Err(CallError::PolicyDenied(text));
        }
        let place = Arc::clone(&program.names.questions).try_acquire_owned();
        let (true, Ok(_place)) = (program.names.may_ask(), place) else {
            return Err(CallError::RateLimitExceeded("too many names are asked for at once".to_owned()));
        };
        let (v4, v6) =
            tokio::join!(self.ask_for(program, name, Family::V4), self.ask_for(program, name, Family::V6));
        let mut refused = None;
        let mut all = Vec::new();
        for answered in [v4, v6].into_iter().flatten() {
            all.extend(answered.addresses);
            refused = refused.or(answered.refused);
        }
        match (all.is_empty(), refused) {
            (false, _) => Ok(all),
            (true, Some((_, why))) => Err(CallError::PolicyDenied(format!("{name}: {why}"))),
            (true, None) => Err(CallError::Dns(format!("{name} has no address that could be asked for"))),
        }
    }

    /// What is handed on is entered before, so that no connect comes too early.
    async fn ask_for(&self, program: &Program, name: &HostName, family: Family) -> Result<Answered, Instead> {
        let answer = self.resolver.lookup(name, family).await.map_err(|error| {
            tracing::debug!(process = %program.process, %error, "a name of a program");
            match error {
                ResolveError::NoSuchName(_) => Instead::NoSuchName,
                _ => Instead::Failed,
            }
        })?;
        let hosts = self.interfaces.addresses();
        let is_taken =
            |ip: &IpAddr| program.places.takes(*ip, hosts.as_deref()) || kit::is_broken("egress-pins");
        let (addresses, left): (Vec<IpAddr>, Vec<IpAddr>) = answer.addresses.into_iter().partition(is_taken);
        let ttl =
            program.names.pins().add(name, &addresses, answer.ttl, now()).map_err(|_| Instead::Failed)?;
        let refused = left.first().map(|ip| {
            let kind = match special(*ip) {
                Some(kind) => kind.name(),
                None if *ip == ip.to_canonical() => "this host itself",
                None => "another spelling of an address of IPv4",
            };
            (format!("{name}={ip}"), format!("it answers {ip}, which is {kind}"))
        });
        Ok(Answered { addresses, ttl, refused })
    }
}

fn is_allowed(program: &Program, name: &HostName) -> bool {
    // What `prove` switched off: every name is asked for.
    program.places.has_name(name) || kit::is_broken("egress-pins")
}

fn heard(question: &Question, said: Said<'_>, stream: bool) -> wire::ProgramAnswer {
    wire::ProgramAnswer { message: question.reply(said, stream), ..Default::default() }
}

fn refused(answer: wire::ProgramAnswer, name: String, why: String) -> wire::ProgramAnswer {
    wire::ProgramAnswer { errno: libc_errno::ACCESS, name, refused: why, ..answer }
}
