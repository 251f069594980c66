//! The one task that owns the machine: takes in what happens, carries out what follows, waits for nobody.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use base::IdentityId;
use kit::authority::Authority;
use sandbox::{keeper_protocol::Exit, process};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use super::{
    acts,
    apply::Applier,
    contract::NodeProgress,
    control::{self, Check},
    fd_store::FdStore,
    host_manager::HostManager,
    inputs::{Answer, Input, Told},
    keeper_client::Notice,
    launches,
    lifecycle::Link,
    marker::Marker,
    memory::{self, Remembered},
    noticed::{LateOnes, Notices},
    preparing::Preparations,
    pressure::{self, Sleep},
    probes,
    settling::Launching,
    timers::{self, Alarm, Timers},
    way_out::WaysOut,
};
use crate::{
    core::{
        supervisor::{
            CallId, Effect, Event, ExitStatus, LaunchId, Monotonic, Record, RequestId, Signal, SubscriberId,
            Supervisor,
        },
        wall::Wall,
    },
    manifest::{HealthCheck, NetworkSwitch},
};

/// How the node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) emergency: bool,
    pub(super) survivors: Vec<String>,
}

/// What the loop needs beside the machine.
pub(super) struct Shell {
    pub(super) applier: Applier,
    pub(super) authority: Authority,
    pub(super) records: mpsc::UnboundedSender<Record>,
    pub(super) inputs: mpsc::UnboundedSender<Input>,
    pub(super) marker: Marker,
    host: HostManager,
    pub(super) progress: Arc<NodeProgress>,
    pub(super) boot_began_ns: u64,
    pub(super) links: BTreeMap<LaunchId, Link>,
    /// Which service each launch is of; stays until the exit is acknowledged.
    pub(super) launches: BTreeMap<LaunchId, String>,
    pub(super) launching: BTreeMap<LaunchId, Launching>,
    /// Exec checks under way, until their end is told.
    pub(super) checks: BTreeMap<LaunchId, Check>,
    pub(super) preparations: Preparations,
    sleep: Sleep,
    /// For the sd_notify sockets: which launch their owner is.
    pub(super) current: BTreeMap<String, watch::Sender<Option<LaunchId>>>,
    /// Who waits for the end of a reload.
    pub(super) reloads: BTreeMap<LaunchId, RequestId>,
    pub(super) callers: BTreeMap<RequestId, (oneshot::Sender<Answer>, Option<IdentityId>)>,
    /// Those who wait for a connection to a service.
    pub(super) waiting: BTreeMap<String, AbortHandle>,
    /// Of programs that have one.
    pub(super) ways_out: WaysOut,
    pub(super) fd_store: FdStore,
    pub(super) timers: Timers,
    pub(super) wall: Wall,
    pub(super) notices: Notices,
    pub(super) late_ones: LateOnes,
    pub(super) alarm: Option<Alarm>,
    subscribers: BTreeMap<SubscriberId, mpsc::Sender<Told>>,
    next_caller: u64,
    /// The machine's memory is not what the keeper holds.
    pub(super) unremembered: bool,
    files: memory::Files,
    end: Option<End>,
}

#[must_use]
pub(super) fn now() -> Monotonic {
    Monotonic(kit::boot_time_ns())
}

impl Shell {
    #[must_use]
    pub(super) fn new(
        applier: Applier,
        authority: Authority,
        records: mpsc::UnboundedSender<Record>,
        inputs: mpsc::UnboundedSender<Input>,
        boot_began_ns: u64,
    ) -> Self {
        let marker = Marker::new(&applier.house.layout);
        let notices = Notices::start(authority.clone());
        Self {
            applier,
            authority,
            records,
            inputs,
            marker,
            host: HostManager::find(),
            progress: Arc::new(NodeProgress::default()),
            boot_began_ns,
            links: BTreeMap::new(),
            launches: BTreeMap::new(),
            launching: BTreeMap::new(),
            checks: BTreeMap::new(),
            preparations: Preparations::default(),
            sleep: Sleep::default(),
            reloads: BTreeMap::new(),
            current: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ways_out: WaysOut::default(),
            fd_store: FdStore::default(),
            timers: Timers::default(),
            wall: Wall::default(),
            notices,
            late_ones: LateOnes::default(),
            alarm: None,
            callers: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            next_caller: 1,
            unremembered: false,
            files: memory::Files::default(),
            end: None,
        }
    }

    /// Until the machine says that all has ended.
    pub(super) async fn run(
        &mut self,
        mut machine: Supervisor,
        first: Event,
        mut inputs: mpsc::UnboundedReceiver<Input>,
        mut notices: mpsc::UnboundedReceiver<Notice>,
    ) -> End {
        self.step(&mut machine, first);
        self.keep_ways_out(&machine);
        let alarm = self.alarm.clone();
        loop {
            if let Some(end) = self.end.take() {
                return end;
            }
            self.look_at_wall();
            if self.timers.take_changed() {
                self.fire_timers(&mut machine);
            }
            // With more to take in, what would be stored is old at once.
            if self.unremembered && inputs.is_empty() && notices.is_empty() {
                self.remember(&machine);
            }
            let wait = machine.deadline().map_or(Duration::from_secs(3600), |due| due.since(now()));
            let wait = self.wall.due_in_ns(now().0).map_or(wait, |due| wait.min(Duration::from_nanos(due)));
            tokio::select! {
                Some(input) = inputs.recv() => self.take(&mut machine, input),
                notice = notices.recv() => match notice {
                    Some(notice) => self.take_notice(&mut machine, notice),
                    // Without its keeper a supervisor is nothing; the keeper's end is the end of all.
                    None => return End { emergency: true, survivors: Vec::new() },
                },
                () = timers::rung(alarm.as_ref()) => self.timers.set_changed(),
                () = tokio::time::sleep(wait) => self.step(&mut machine, Event::Timer),
            }
        }
    }

    fn take(&mut self, machine: &mut Supervisor, input: Input) {
        match input {
            Input::Event(event) => self.step(machine, event),
            Input::Call { event, by, answer } => {
                let request = RequestId(self.next_caller);
                self.next_caller += 1;
                self.callers.insert(request, (answer, by));
                self.step(machine, event(request));
            }
            Input::View(look) => look(machine),
            Input::Subscribe { filter, events } => {
                let subscriber = SubscriberId(self.next_caller);
                self.next_caller += 1;
                self.subscribers.insert(subscriber, events.clone());
                let inputs = self.inputs.clone();
                tokio::spawn(async move {
                    events.closed().await;
                    let _ = inputs.send(Input::Event(Event::Unsubscribe { subscriber }));
                });
                self.step(machine, Event::Subscribe { subscriber, filter });
            }
            Input::Listen { service, socket } => launches::listen(self, &service, socket),
            Input::StopListening { service } => drop(self.current.remove(&service)),
            Input::CheckGone { launch, run } => self.check_is_over(machine, launch, run, None),
            Input::NotReloaded { launch, text } => self.reloaded(machine, launch, Err(text)),
            Input::StoreDescriptors { service, name, fds } => self.store_descriptors(&service, &name, fds),
            // With the next change: one that refuses would be asked without end.
            Input::NotKept => self.files.not_kept(),
            Input::ForgetDescriptors { service, name } => self.forget_descriptors(&service, &name),
            Input::Launched { launch, result } => self.launched(machine, launch, result),
        }
    }

    fn take_notice(&mut self, machine: &mut Supervisor, notice: Notice) {
        match notice {
            Notice::ShutdownRequested => {
                let reason = "the keeper was told to end".to_owned();
                self.step(machine, Event::ShutdownRequested { request: None, reason });
            }
            Notice::Exited { id, exit } => match launches::kind(id) {
                launches::Kind::Service(launch) => self.exited(machine, launch, exit),
                launches::Kind::Companion(launch) => self.companion_exited(id, launch),
            },
            Notice::Settled { id, pid } => {
                if let launches::Kind::Service(launch) = launches::kind(id) {
                    self.settled(machine, launch, pid.unsigned_abs());
                }
            }
            Notice::Done { id, command, status, run } => {
                if let launches::Kind::Service(launch) = launches::kind(id) {
                    self.command_done(machine, launch, control::Done { place: command, status, run });
                }
            }
        }
    }

    pub(super) fn step(&mut self, machine: &mut Supervisor, event: Event) {
        // First, or everybody would be late who could do nothing meanwhile.
        if let Some(duration) = self.sleep.more(now(), pressure::awake()) {
            tracing::info!(?duration, "the machine slept; deadlines of services are put off by that");
            self.take_in(machine, Event::Slept { duration });
        }
        self.take_in(machine, event);
    }

    fn take_in(&mut self, machine: &mut Supervisor, event: Event) {
        for effect in machine.step(now(), event) {
            self.perform(machine, effect);
        }
        if machine.is_ending() {
            self.host.ends();
        }
    }

    fn perform(&mut self, machine: &Supervisor, effect: Effect) {
        if self.unremembered && effect.leaves_a_trace() {
            self.remember(machine);
        }
        match effect {
            Effect::Remember => {
                self.unremembered = true;
                self.timers.set_changed();
            }
            Effect::Act { act, service, operation, request } => {
                let by = request.and_then(|request| self.callers.get(&request)?.1);
                let requestor = by.unwrap_or(self.applier.knowledge.own);
                let (authority, inputs) = (self.authority.clone(), self.inputs.clone());
                tokio::spawn(async move {
                    let outcome = acts::ask(authority, requestor, service, operation).await;
                    let _ = inputs.send(Input::Event(Event::ActResult { act, outcome }));
                });
            }
            Effect::Append(record) => {
                let _ = self.records.send(record);
            }
            Effect::Launch { launch, service, manifest, binary } => {
                self.timers.started(&service);
                let identity =
                    machine.setups().find(|setup| setup.name() == service).map(|setup| setup.identity);
                self.launch(launch, service, manifest, identity, binary)
            }
            Effect::SendLifecycle { launch, call, message } => {
                let inputs = self.inputs.clone();
                if let Some(link) = self.link(launch) {
                    link.send(launch, call, message, inputs);
                }
            }
            Effect::Probe { launch, call, check, timeout } => {
                self.probe(machine, launch, call, check, timeout)
            }
            Effect::ReadPressure { launch } => {
                let pid = machine.status_of_launch(launch).and_then(|status| status.pid);
                let reading = pressure::read(now(), pid);
                let _ = self.inputs.send(Input::Event(Event::Pressure { launch, reading }));
            }
            Effect::Signal { launch, signal } => self.signal(machine, launch, signal),
            Effect::ForgetDemand { service } => self.stop_waiting(&service),
            Effect::RunAfter { launch } => self.run_after(machine, launch, 0),
            Effect::Reload { launch, request } => self.reload(machine, launch, request),
            Effect::AwaitDemand { service } => self.await_demand(machine, service),
            Effect::Rested { service } => self.rested(&service),
            Effect::Acknowledge { launch } => {
                self.launches.remove(&launch);
                self.acknowledge(launch.0);
            }
            Effect::Notify { subscribers, event } => {
                for subscriber in subscribers {
                    let sender = self.subscribers.get(&subscriber);
                    if sender.is_some_and(|sender| sender.try_send(Ok(event.clone())).is_err()) {
                        // Too far behind or gone: its stream ends, and the machine is told.
                        self.subscribers.remove(&subscriber);
                        let _ = self.inputs.send(Input::Event(Event::Unsubscribe { subscriber }));
                    }
                }
            }
            Effect::RefuseSubscriber { subscriber, error } => {
                if let Some(sender) = self.subscribers.remove(&subscriber) {
                    let _ = sender.try_send(Err(error));
                }
            }
            Effect::Reply { request, result } => {
                if let Some((answer, _)) = self.callers.remove(&request) {
                    let _ = answer.send(result);
                }
            }
            Effect::Booted { missing } => self.booted(&missing),
            Effect::Emergency { reason } => {
                tracing::error!(reason, "emergency shutdown");
                if let Err(error) = self.marker.leave(&reason) {
                    tracing::error!(%error, "the mark for the next boot cannot be left");
                }
            }
            Effect::Finished { emergency, survivors } => self.end = Some(End { emergency, survivors }),
            Effect::Warn(text) => tracing::warn!("{text}"),
            Effect::Late { service, text } => self.late(service, text),
        }
    }

    /// In the file that the keeper holds, or in its queue, before whatever follows.
    fn remember(&mut self, machine: &Supervisor) {
        self.unremembered = false;
        self.remember_users(machine);
        let boot_ms = Some(self.progress.boot_ms.load(Ordering::Acquire)).filter(|ms| *ms > 0);
        let unsettled = self
            .launching
            .iter()
            .filter_map(|(launch, launching)| Some((launch.0, launching.started.as_ref()?.missing.clone())));
        let mut launches: Vec<_> = machine.live().map(|(launch, name)| (launch.0, name.to_owned())).collect();
        launches.sort_unstable();
        let remembered = Remembered {
            unsettled: unsettled.collect(),
            machine: machine.memory(),
            launches,
            is_recovery: self.progress.is_recovery.load(Ordering::Acquire),
            boot_ms,
            fd_store: self.fd_store.clone(),
            timers: self.timers.accounts(),
            wall: self.wall,
        };
        let written = self.files.write(remembered);
        self.keep(memory::NAME, written);
    }

    fn remember_users(&mut self, machine: &Supervisor) {
        let users = || machine.setups().filter(|setup| super::start::is_users(&setup.manifest));
        let written = self.files.write_users(users);
        self.keep(memory::USERS_NAME, written);
    }

    /// A file that takes the place of the one before, if there is one.
    fn keep(&self, name: &'static str, written: std::io::Result<Option<OwnedFd>>) {
        match written {
            Ok(None) => {}
            Ok(Some(fd)) => {
                let (stored, inputs) = (self.applier.keeper.store(name, fd), self.inputs.clone());
                tokio::spawn(async move {
                    if let Err(error) = stored.await {
                        tracing::error!(%error, name, "what must outlive the supervisor is not kept");
                        let _ = inputs.send(Input::NotKept);
                    }
                });
            }
            Err(error) => tracing::error!(%error, name, "what must outlive the supervisor cannot be written"),
        }
    }

    fn booted(&mut self, missing: &[String]) {
        let boot_ms = kit::boot_time_ns().saturating_sub(self.boot_began_ns) / 1_000_000;
        self.progress.boot_ms.store(boot_ms.max(1), Ordering::Release);
        self.marker.clear();
        self.host.ready(missing);
        tracing::info!(boot_ms, missing = missing.join(" "), "the node has booted");
        if !self.progress.is_recovery.load(Ordering::Acquire) {
            tokio::spawn(self.applier.clone().apply_folder());
        }
    }

    pub(super) fn acknowledge(&self, id: u64) {
        let done = self.applier.keeper.acknowledge(id);
        tokio::spawn(async move {
            if let Err(error) = done.await {
                tracing::debug!(%error, id, "an exit was not acknowledged");
            }
        });
    }

    /// The lifecycle channel of a launch; made at its first use, so after an adoption too.
    fn link(&mut self, launch: LaunchId) -> Option<&mut Link> {
        let name = self.launches.get(&launch)?;
        let (layout, registry) = (&self.applier.house.layout, &self.applier.registry);
        let link = || Link::new(layout.socket("lifecycle", name), registry.manifest(name));
        Some(self.links.entry(launch).or_insert_with(link))
    }

    pub(super) fn exited(&mut self, machine: &mut Supervisor, launch: LaunchId, exit: Exit) {
        // Told before the launch itself was: both are taken in, in their order.
        if let Some(launching) = self.launching.get_mut(&launch) {
            launching.exit = Some(exit);
            return self.end_unsettled(machine, launch);
        }
        self.reloaded(machine, launch, Err("it ended meanwhile".to_owned()));
        self.applier.executions.end_with(launch);
        self.links.remove(&launch);
        self.ways_out.end(launch);
        self.checks.remove(&launch);
        if let Some(name) = self.launches.get(&launch) {
            match exit.status {
                process::ExitStatus::Code(0) => tracing::info!(service = name, %launch, "ended"),
                status => tracing::warn!(service = name, %launch, ?status, "ended"),
            }
            if let Some(current) = self.current.get(name) {
                current.send_if_modified(|known| known.take_if(|known| *known == launch).is_some());
            }
        }
        self.end_companion(launch);
        self.step(machine, Event::Exited { launch, status: exit_status(exit.status) });
    }

    pub(super) fn signal(&mut self, machine: &Supervisor, launch: LaunchId, signal: Signal) {
        // What the keeper does not know yet cannot be signalled.
        if let Some(launching) =
            self.launching.get_mut(&launch).filter(|launching| launching.started.is_none())
        {
            launching.signals.push(signal);
            return;
        }
        match signal {
            Signal::Kill => self.send_signal(launch, process::Signal::KILL),
            Signal::Terminate => self.tell_to_end(machine, launch),
        }
    }

    fn probe(
        &mut self,
        machine: &Supervisor,
        launch: LaunchId,
        call: CallId,
        check: HealthCheck,
        timeout: Duration,
    ) {
        let Some(name) = self.launches.get(&launch).cloned() else { return };
        // Of what runs, not of what is about to take its place.
        let Some(manifest) = machine.manifest_of(launch) else { return };
        let question = match check {
            HealthCheck::Tcp { address } => probes::Question::Connect { address },
            HealthCheck::Http { address, path } => probes::Question::Http { address, path },
            HealthCheck::Exec { .. } => {
                return self.probe_by_command(&manifest.manifest, launch, call, timeout);
            }
            HealthCheck::Lifecycle | HealthCheck::SdNotify { .. } | HealthCheck::Process => return,
        };
        let network = match manifest.manifest.sandbox.network {
            NetworkSwitch::Host => probes::Network::Host,
            NetworkSwitch::Own => {
                let pid = machine.status_by_name(&name).ok().and_then(|status| status.pid);
                probes::Network::Of(pid.unwrap_or(0))
            }
        };
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let result = probes::ask(question, network, timeout).await;
            let _ = inputs.send(Input::Event(Event::ProbeResult { launch, call, result }));
        });
    }
}

pub(super) fn exit_status(status: process::ExitStatus) -> ExitStatus {
    match status {
        process::ExitStatus::Code(code) => ExitStatus::Code(code),
        process::ExitStatus::Signal(signal) => ExitStatus::Signal(signal),
    }
}
