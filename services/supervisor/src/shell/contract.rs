//! `bailiwick.supervisor.v1`, served by the kit in the supervisor's own process.

use std::{path::PathBuf, pin::Pin, sync::Arc};

use base::{CapabilityId, IdentityId, ServiceId, TreeId, limits::MESSAGE_BYTES_MAX};
use contracts::{
    lifecycle::v1::{ComponentHealth, HealthStatus},
    supervisor::v1::{
        supervisor_server::{Supervisor as Contract, SupervisorServer},
        *,
    },
};
use jiff::Timestamp;
use kit::{BoxError, Callers, ChannelKind, Cost, Feed, FeedPlan, InitContext, Operation, Service};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, service::Routes};

use super::{
    apply::Applier,
    grants::service_object,
    inputs::{Answer, Told},
    measure,
    sockets::{INSIDE, SUPERVISOR},
};
use crate::{
    core::{
        state::ServiceState,
        supervisor::{self as core, Event, NodeState, Reply, SupervisorError},
    },
    manifest::{ProtocolVersion, ServiceManifest, SocketConfig},
};

macro_rules! operation {
    ($form:ident, $name:literal, $cost:ident, $verb:literal) => {
        Operation::$form(
            concat!("/bailiwick.supervisor.v1.Supervisor/", $name),
            Cost::$cost,
            concat!("system.supervisor.", $verb),
        )
    };
}

static TABLE: [Operation; 20] = [
    operation!(acts, "StartService", Heavy, "start_service").long(),
    operation!(acts, "StopService", Heavy, "stop_service").long(),
    operation!(acts, "RestartService", Heavy, "restart_service").long(),
    operation!(acts, "ReloadService", Heavy, "reload_service").long(),
    operation!(reads, "GetStatus", Light, "get_status"),
    operation!(reads, "ListServices", Light, "list_services"),
    operation!(reads, "Subscribe", Light, "subscribe").long(),
    operation!(reads, "LookupService", Light, "lookup_service"),
    operation!(acts, "ApplyManifest", Heavy, "apply_manifest").callers(Callers::Admin).long(),
    operation!(reads, "Plan", Medium, "plan").callers(Callers::Admin),
    operation!(reads, "ListGenerations", Light, "list_generations").callers(Callers::Admin),
    operation!(reads, "GetGeneration", Medium, "get_generation").callers(Callers::Admin),
    operation!(acts, "Unregister", Medium, "unregister").callers(Callers::Admin),
    operation!(reads, "GetNode", Light, "get_node"),
    operation!(acts, "ReportMisuse", Medium, "report_misuse"),
    operation!(acts, "ReportLaggard", Light, "report_laggard").callers(Callers::Only(&["axiom"])),
    operation!(reads, "ImageUsers", Light, "image_users").callers(Callers::Only(&["process_manager"])),
    operation!(reads, "CloseImage", Light, "close_image").callers(Callers::Only(&["process_manager"])).long(),
    operation!(acts, "Execute", Heavy, "execute").callers(Callers::Admin).long(),
    operation!(acts, "Shutdown", Light, "shutdown").callers(Callers::Admin),
];

/// What only the shell knows of the node.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeFacts {
    pub(super) name: String,
    pub(super) root: String,
    /// What the host cannot give to any sandbox.
    pub(super) missing: Vec<String>,
}

/// What changes while the node runs.
#[derive(Debug, Default)]
pub(super) struct NodeProgress {
    pub(super) boot_ms: std::sync::atomic::AtomicU64,
    pub(super) is_recovery: std::sync::atomic::AtomicBool,
    /// When each timer is due, by service.
    pub(super) timers: std::sync::Mutex<std::collections::BTreeMap<String, Timestamp>>,
    /// Pids of companions, by service.
    pub(super) companions: std::sync::Mutex<std::collections::BTreeMap<String, u32>>,
}

impl NodeProgress {
    pub(super) fn set_timers(&self, timers: std::collections::BTreeMap<String, Timestamp>) {
        *self.timers.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = timers;
    }
}

/// The supervisor as a service of the kit.
pub(super) struct SupervisorService {
    pub(super) applier: Applier,
    pub(super) facts: NodeFacts,
    pub(super) progress: Arc<NodeProgress>,
}

impl Service for SupervisorService {
    const NAME: &'static str = SUPERVISOR;
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const PROVIDES: &'static [&'static str] = &["supervisor bailiwick.supervisor/1.0"];

    fn table() -> &'static [Operation] {
        &TABLE
    }

    /// It follows the log by itself, because it does so before it serves.
    fn feed() -> Option<FeedPlan> {
        None
    }

    fn place(&self, _: &kit::Node) -> Feed {
        self.applier.knowledge.feed().clone()
    }

    async fn init(_: InitContext) -> Result<Self, BoxError> {
        Err("the supervisor has no lifecycle but its own".into())
    }

    fn routes(self: &Arc<Self>, kind: ChannelKind) -> Routes {
        match kind {
            ChannelKind::Edge | ChannelKind::Admin => Routes::new(
                SupervisorServer::new(Handlers(Arc::clone(self)))
                    .max_decoding_message_size(MESSAGE_BYTES_MAX),
            ),
            _ => Routes::default(),
        }
    }
}

struct Handlers(Arc<SupervisorService>);

impl Handlers {
    /// A program finds services with this contract; how the node is and what runs on it is none of its business.
    fn refuse_programs<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let caller = kit::caller(request)?;
        let manifest = self.0.applier.registry.manifest(&caller.client);
        match !caller.is_admin() && manifest.is_some_and(|loaded| loaded.manifest.program.is_some()) {
            true => Err(SupervisorError::NotForPrograms(caller.client.to_string()).into()),
            false => Ok(()),
        }
    }

    /// In whose name: the operator on `admin`, the service behind the socket elsewhere.
    fn requestor<T>(&self, request: &Request<T>) -> Result<IdentityId, Status> {
        self.refuse_programs(request)?;
        let caller = kit::caller(request)?;
        let knowledge = &self.0.applier.knowledge;
        if caller.is_admin() {
            return Ok(knowledge.admin);
        }
        let unknown = || Status::from(SupervisorError::NotFound(caller.client.to_string()));
        knowledge.service(&caller.client).ok_or_else(unknown)
    }

    async fn name(&self, id: u32, name: String) -> Result<String, Status> {
        if !name.is_empty() {
            return Ok(name);
        }
        let found = self.0.applier.inbox.view(move |machine| machine.status(ServiceId(id))).await?;
        Ok(found?.name)
    }

    /// What was begun goes on if the caller does not wait.
    async fn control(
        &self,
        by: Option<IdentityId>,
        event: impl FnOnce(core::RequestId) -> Event + Send + 'static,
    ) -> Result<Response<ServiceStatus>, Status> {
        let inbox = self.0.applier.inbox.clone();
        let answer = kit::uncancelled(async move { inbox.call(by, event).await }).await;
        self.status(answer).map(Response::new)
    }

    fn status(&self, answer: Answer) -> Result<ServiceStatus, Status> {
        match answer? {
            Reply::Status(status) => Ok(self.wire(*status)),
            Reply::Done => Err(SupervisorError::Unavailable("no status came".to_owned()).into()),
        }
    }

    fn timer(&self, name: &str) -> ServiceTimer {
        let timers = self.0.progress.timers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let unix_ms = |at: Timestamp| u64::try_from(at.as_millisecond()).ok();
        ServiceTimer {
            next_ms: timers.get(name).copied().and_then(unix_ms),
            last_ms: self.0.applier.knowledge.last_start(name).and_then(unix_ms),
        }
    }

    fn wire(&self, status: core::ServiceStatus) -> ServiceStatus {
        let companions = self.0.progress.companions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let companion = status.pid.and_then(|_| companions.get(&status.name).copied());
        drop(companions);
        let manifest = self.0.applier.registry.manifest(&status.name);
        let measure = match manifest.as_ref().is_some_and(|manifest| manifest.manifest.program.is_some()) {
            true => measure::tree_pss_bytes,
            false => measure::pss_bytes,
        };
        let pids = status.pid.into_iter().chain(companion);
        let name = status.name.clone();
        ServiceStatus {
            id: status.id.0,
            name: status.name,
            state: status.state.name().to_owned(),
            error: match status.state {
                ServiceState::Failed { error } => format!("{error:?}"),
                _ => String::new(),
            },
            memory_bytes: pids.map(measure).fold(0, u64::saturating_add),
            pid: status.pid,
            uptime_ms: status.uptime.map(millis),
            restarts: status.restarts,
            last_error: status.last_error,
            health: Some(HealthStatus {
                healthy: status.health.healthy,
                components: status
                    .health
                    .components
                    .into_iter()
                    .map(|part| ComponentHealth {
                        name: part.name,
                        healthy: part.healthy,
                        message: part.message,
                        degraded: part.degraded,
                    })
                    .collect(),
                last_error: status.health.last_error,
                uptime_ms: millis(status.health.uptime),
                degraded: status.health.degraded,
            }),
            info: Some(ServiceInfo {
                name: status.info.name,
                version: status.info.version.to_string(),
                service_type: format!("{:?}", status.info.service_type),
                binary: status.info.binary,
                description: status.info.description,
            }),
            missing: status.missing,
            sockets: manifest.as_ref().map(|manifest| sockets(&manifest.manifest)).unwrap_or_default(),
            listening: status.listening,
            timer: manifest.filter(|manifest| manifest.manifest.timer.is_some()).map(|_| self.timer(&name)),
        }
    }
}

fn sockets(manifest: &ServiceManifest) -> Vec<ServiceSocket> {
    let of = |socket: &SocketConfig| ServiceSocket {
        name: socket.name.clone(),
        listen: socket.listen.to_string(),
        on_demand: socket.on_demand,
    };
    manifest.sockets.iter().map(of).collect()
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

type Events = Pin<Box<dyn Stream<Item = Result<ServiceEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Contract for Handlers {
    async fn start_service(
        &self,
        request: Request<StartServiceRequest>,
    ) -> Result<Response<ServiceStatus>, Status> {
        let by = Some(self.requestor(&request)?);
        let service = request.into_inner().name;
        self.control(by, move |request| Event::StartRequested { request, service }).await
    }

    async fn stop_service(
        &self,
        request: Request<StopServiceRequest>,
    ) -> Result<Response<ServiceStatus>, Status> {
        let by = Some(self.requestor(&request)?);
        let StopServiceRequest { id, name } = request.into_inner();
        let service = self.name(id, name).await?;
        self.control(by, move |request| Event::StopRequested { request, service }).await
    }

    async fn restart_service(
        &self,
        request: Request<RestartServiceRequest>,
    ) -> Result<Response<ServiceStatus>, Status> {
        let by = Some(self.requestor(&request)?);
        let RestartServiceRequest { id, name } = request.into_inner();
        let service = self.name(id, name).await?;
        self.control(by, move |request| Event::RestartRequested { request, service }).await
    }

    async fn reload_service(
        &self,
        request: Request<ReloadServiceRequest>,
    ) -> Result<Response<ServiceStatus>, Status> {
        let by = Some(self.requestor(&request)?);
        let ReloadServiceRequest { id, name } = request.into_inner();
        let service = self.name(id, name).await?;
        self.control(by, move |request| Event::ReloadRequested { request, service }).await
    }

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<ServiceStatus>, Status> {
        self.refuse_programs(&request)?;
        let GetStatusRequest { id, name } = request.into_inner();
        let name = self.name(id, name).await?;
        let status = self.0.applier.inbox.view(move |machine| machine.status_by_name(&name)).await??;
        Ok(Response::new(self.wire(status)))
    }

    async fn list_services(
        &self,
        request: Request<ListServicesRequest>,
    ) -> Result<Response<ServiceList>, Status> {
        self.refuse_programs(&request)?;
        let all = self.0.applier.inbox.view(core::Supervisor::list).await?;
        Ok(Response::new(ServiceList { services: all.into_iter().map(|status| self.wire(status)).collect() }))
    }

    type SubscribeStream = Events;

    async fn subscribe(&self, request: Request<EventFilter>) -> Result<Response<Events>, Status> {
        self.refuse_programs(&request)?;
        let EventFilter { services, states } = request.into_inner();
        let told = self.0.applier.inbox.subscribe(core::EventFilter { services, states });
        let knowledge = self.0.applier.knowledge.clone();
        let state =
            |state: Option<ServiceState>| state.map_or_else(String::new, |state| state.name().to_owned());
        let events = ReceiverStream::new(told).map(move |told: Told| {
            let event = told?;
            Ok(ServiceEvent {
                name: event.name,
                from: state(event.from),
                to: state(event.to),
                cause: event.cause,
                axiom_time_ns: knowledge.now().map_or(0, |now| now.0),
            })
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn lookup_service(
        &self,
        request: Request<LookupServiceRequest>,
    ) -> Result<Response<Endpoint>, Status> {
        let caller = kit::caller(&request)?.clone();
        let LookupServiceRequest { name, version } = request.into_inner();
        let wanted = match version.as_str() {
            "" => None,
            text => Some(
                text.parse::<ProtocolVersion>()
                    .map_err(|error| Status::from(SupervisorError::InvalidManifest(error.to_string())))?,
            ),
        };
        let asked = name.clone();
        let view = self.0.applier.inbox.view(move |machine| machine.lookup(&asked, wanted)).await??;
        let socket = match caller.is_admin() {
            true => self.0.applier.house.layout.socket("admin", &name),
            false => match self.0.applier.registry.edge(&name, &caller.client) {
                Some(_) => PathBuf::from(format!("{INSIDE}/{name}.sock")),
                None => return Err(SupervisorError::NoEndpoint(name).into()),
            },
        };
        Ok(Response::new(Endpoint {
            name: view.service,
            socket: socket.to_string_lossy().into_owned(),
            version: view.version,
            provides: view.provides.iter().map(|e| format!("{} {}", e.name, e.protocol)).collect(),
        }))
    }

    async fn apply_manifest(
        &self,
        request: Request<ApplyManifestRequest>,
    ) -> Result<Response<ServiceStatus>, Status> {
        let by = Some(self.requestor(&request)?);
        let ApplyManifestRequest { manifest, file } = request.into_inner();
        let applier = self.0.applier.clone();
        let answer = kit::uncancelled(async move { applier.apply(by, &file, &manifest).await }).await;
        self.status(answer).map(Response::new)
    }

    async fn plan(&self, request: Request<PlanRequest>) -> Result<Response<PlanReply>, Status> {
        self.0.applier.planned(request.into_inner()).await.map(Response::new)
    }

    async fn list_generations(
        &self,
        _request: Request<ListGenerationsRequest>,
    ) -> Result<Response<Generations>, Status> {
        Ok(Response::new(self.0.applier.generations()?))
    }

    async fn get_generation(
        &self,
        request: Request<GetGenerationRequest>,
    ) -> Result<Response<Generation>, Status> {
        let number = request.into_inner().number;
        Ok(Response::new(self.0.applier.generation(number).await?))
    }

    async fn unregister(
        &self,
        request: Request<UnregisterRequest>,
    ) -> Result<Response<UnregisterReply>, Status> {
        let by = Some(self.requestor(&request)?);
        let name = request.into_inner().name;
        let applier = self.0.applier.clone();
        kit::uncancelled(async move {
            let _alone = applier.turns.take(&name).await?;
            let service = name.clone();
            applier.inbox.call(by, move |request| Event::UnregisterRequested { request, service }).await?;
            applier.forget(&name).await;
            Ok::<(), SupervisorError>(())
        })
        .await?;
        Ok(Response::new(UnregisterReply {}))
    }

    async fn get_node(&self, request: Request<GetNodeRequest>) -> Result<Response<Node>, Status> {
        self.refuse_programs(&request)?;
        use std::sync::atomic::Ordering::Acquire;
        let view = self.0.applier.inbox.view(core::Supervisor::node).await?;
        let troubles: Vec<String> = self.0.applier.knowledge.trouble().into_iter().collect();
        let state = match view.state {
            NodeState::Booting => "booting",
            NodeState::Running | NodeState::Degraded if self.0.progress.is_recovery.load(Acquire) => {
                "recovery"
            }
            NodeState::Running if troubles.is_empty() => "running",
            NodeState::Running | NodeState::Degraded => "degraded",
            NodeState::Stopping => "stopping",
        };
        Ok(Response::new(Node {
            name: self.0.facts.name.clone(),
            state: state.to_owned(),
            keeper_pid: rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs()),
            supervisor_pid: std::process::id(),
            uptime_ms: millis(view.uptime),
            boot_ms: self.0.progress.boot_ms.load(Acquire),
            not_installed: view.not_installed,
            missing: self.0.facts.missing.clone(),
            root: self.0.facts.root.clone(),
            troubles,
        }))
    }

    async fn report_misuse(
        &self,
        request: Request<ReportMisuseRequest>,
    ) -> Result<Response<ReportMisuseReply>, Status> {
        self.refuse_programs(&request)?;
        let client = kit::caller(&request)?.client.to_string();
        let ReportMisuseRequest { capability, text } = request.into_inner();
        let unknown = || SupervisorError::NotFound(format!("a capability on {client}"));
        let capability = CapabilityId::from_slice(&capability).ok_or_else(unknown)?;
        let object = self.0.applier.knowledge.granted_on(&capability).ok_or_else(unknown)?;
        // Nobody takes away what is held on another.
        if base::capability_type(&client).is_none_or(|own| object != service_object(own)) {
            return Err(unknown().into());
        }
        let applier = self.0.applier.clone();
        kit::uncancelled(async move { applier.revoke(capability, &text).await }).await?;
        Ok(Response::new(ReportMisuseReply {}))
    }

    async fn report_laggard(
        &self,
        request: Request<ReportLaggardRequest>,
    ) -> Result<Response<ReportLaggardReply>, Status> {
        let service = request.into_inner().name;
        self.0.applier.inbox.tell(Event::Laggard { service });
        Ok(Response::new(ReportLaggardReply {}))
    }

    async fn image_users(
        &self,
        request: Request<ImageUsersRequest>,
    ) -> Result<Response<ImageUsersReply>, Status> {
        let services = self.0.applier.image_users(tree_of(&request.into_inner().tree)?).await?;
        Ok(Response::new(ImageUsersReply { services }))
    }

    type CloseImageStream = ReceiverStream<Result<ImageUsersReply, Status>>;

    async fn close_image(
        &self,
        request: Request<ImageUsersRequest>,
    ) -> Result<Response<Self::CloseImageStream>, Status> {
        let (services, closed) = self.0.applier.close_image(tree_of(&request.into_inner().tree)?).await?;
        let (send, answer) = mpsc::channel(1);
        // There is room for it.
        let _ = send.try_send(Ok(ImageUsersReply { services }));
        tokio::spawn(async move {
            if closed.is_some() {
                // Until who removes it is done, or is gone.
                send.closed().await;
            }
        });
        Ok(Response::new(ReceiverStream::new(answer)))
    }

    type ExecuteStream = ReceiverStream<Result<ExecuteOutput, Status>>;

    async fn execute(
        &self,
        request: Request<Streaming<ExecuteInput>>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let by = self.requestor(&request)?;
        let mut input = request.into_inner();
        let first = input.message().await?.and_then(|message| message.input);
        let applier = self.0.applier.clone();
        // Once it is decided, nothing may cut it before its end is on record.
        let executed = async move { applier.execute(by, first, input).await };
        Ok(Response::new(ReceiverStream::new(kit::uncancelled(executed).await?)))
    }

    async fn shutdown(&self, request: Request<ShutdownRequest>) -> Result<Response<ShutdownReply>, Status> {
        let by = Some(self.requestor(&request)?);
        let reason = request.into_inner().reason;
        let event = move |request| Event::ShutdownRequested { request: Some(request), reason };
        self.0.applier.inbox.call(by, event).await?;
        Ok(Response::new(ShutdownReply {}))
    }
}

fn tree_of(bytes: &[u8]) -> Result<TreeId, SupervisorError> {
    let invalid = || SupervisorError::InvalidManifest(format!("an image's id has {} bytes", TreeId::BYTES));
    TreeId::from_slice(bytes).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_contract() {
        assert_eq!(kit::check_table(&["bailiwick.supervisor.v1.Supervisor"], &TABLE), Vec::<String>::new());
    }
}
