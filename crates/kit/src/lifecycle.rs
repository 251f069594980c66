//! The lifecycle contract, served to the supervisor alone (SUP-56 to SUP-60).

use std::sync::{Arc, OnceLock};

use base::{CapabilityId, IdentityId, KeyPath};
use contracts::lifecycle::v1::{
    ComponentHealth, HealthCheckRequest, HealthStatus, InitComplete, InitRequest, PrepareStopRequest,
    ReadyToStop, ServiceStatus, ServiceStatusRequest, StartRequest, Started, StopRequest, Stopped,
    lifecycle_server::Lifecycle,
};
use tokio::sync::{Mutex, Notify, mpsc};
use tonic::{Request, Response, Status};

use crate::{
    channel::ChannelKind,
    env::RUN_FOLDER,
    feed::Feed,
    gate::{RouteSet, Take},
    misuse::Now,
    observe::Metrics,
    phase::{Life, Phase},
    service::{FailStart, InitContext, Node, Service, Settings, uncancelled},
    signing::HandedKey,
    snapshot::Snapshots,
};

/// Capabilities that one `Init` can carry.
pub(crate) const CAPABILITIES_MAX: usize = 256;
/// Bytes of a manifest.
pub(crate) const MANIFEST_BYTES_MAX: usize = 64 * 1024;

/// Shared between the lifecycle and the loop that owns the process.
pub(crate) struct Shared<S> {
    pub(crate) life: Arc<Life>,
    pub(crate) node: Node,
    pub(crate) settings: Settings,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) routes: Arc<OnceLock<RouteSet>>,
    pub(crate) now: Arc<OnceLock<Now>>,
    pub(crate) feed: Arc<OnceLock<Feed>>,
    pub(crate) ended: Arc<Notify>,
    pub(crate) take: Arc<OnceLock<Take>>,
    pub(crate) service: OnceLock<Arc<S>>,
    /// Held while `Init` runs; what the service is given then waits in it.
    pub(crate) init: Mutex<Handed>,
    pub(crate) failed: mpsc::Sender<FailStart>,
}

/// What only one service is handed.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) boundary: Option<std::os::fd::OwnedFd>,
    pub(crate) signing: Option<HandedKey>,
}

pub(crate) struct LifecycleServer<S>(pub(crate) Arc<Shared<S>>);

impl<S> Shared<S> {
    /// Exiting before the reply is the failure: the caller never sees an answer.
    async fn fail(&self, error: FailStart) -> Status {
        let _ = self.failed.send(error).await;
        std::future::pending().await
    }
}

impl<S: Service> Shared<S> {
    async fn init(self: &Arc<Self>, request: InitRequest) -> Result<(), Status> {
        let mut handed = self.init.lock().await;
        if self.service.get().is_some() {
            return Ok(());
        }
        let context = self.read_init(request, &mut handed)?;
        let snapshots = context.snapshots.clone();
        let service = match S::init(context).await {
            Ok(service) => Arc::new(service),
            Err(error) => return Err(self.fail(FailStart::Init(error)).await),
        };
        self.install(service, snapshots);
        self.life.advance(Phase::Initialized);
        Ok(())
    }

    /// Routes, feed and health are there from now on.
    pub(crate) fn install(&self, service: Arc<S>, snapshots: Option<Snapshots>) {
        let kinds = [
            ChannelKind::Edge,
            ChannelKind::Admin,
            ChannelKind::Feed,
            ChannelKind::Authority,
            ChannelKind::Append,
            ChannelKind::Workload,
        ];
        let routes = kinds.into_iter().map(|kind| (kind, service.routes(kind).prepare())).collect();
        let _ = self.feed.set(service.place(&self.node));
        let (clock, node) = (Arc::clone(&service), self.node.clone());
        let _ = self.now.set(Box::new(move || clock.now(&node)));
        let _ = self.routes.set(routes);
        let taker = Arc::clone(&service);
        let _ = self.take.set(Box::new(move |caller, stream| taker.take(caller, stream)));
        if let Some(plan) = S::feed() {
            self.node.follow(plan, Arc::clone(&service), snapshots);
        }
        let _ = self.service.set(service);
    }

    fn read_init(&self, request: InitRequest, handed: &mut Handed) -> Result<InitContext, Status> {
        let wrong = |text: &str| Status::invalid_argument(text.to_owned());
        let config = request.config.ok_or_else(|| wrong("`config` is missing"))?;
        if config.name != S::NAME {
            return Err(wrong("`config.name` names another service"));
        }
        if config.manifest.len() > MANIFEST_BYTES_MAX {
            return Err(wrong("`config.manifest` has more than 65536 bytes"));
        }
        if request.capabilities.len() > CAPABILITIES_MAX {
            return Err(wrong("more than 256 capabilities"));
        }
        let capabilities =
            request.capabilities.iter().map(|id| CapabilityId::from_slice(id)).collect::<Option<_>>();
        let identity = request.identity.ok_or_else(|| wrong("`identity` is missing"))?;
        let id =
            IdentityId::from_slice(&identity.id).ok_or_else(|| wrong("`identity.id` has not 32 bytes"))?;
        let key_path = KeyPath::parse(&identity.key_path).map_err(|error| wrong(&error.to_string()))?;
        self.node.set_identity(id);
        Ok(InitContext {
            name: S::NAME,
            version: config.version,
            manifest: config.manifest,
            identity: id,
            key_path,
            permissions: identity.permissions,
            capabilities: capabilities.ok_or_else(|| wrong("a capability id has not 16 bytes"))?,
            state_folder: self.settings.state_folder.clone(),
            node: self.node.clone(),
            boundary: handed.boundary.take(),
            signing: handed.signing.take(),
            snapshots: self.snapshots(),
        })
    }

    fn snapshots(&self) -> Option<Snapshots> {
        let (plan, version) = S::feed().zip(S::FOLD_VERSION)?;
        Snapshots::open(&self.settings.state_folder, S::NAME, version, &plan)
    }

    async fn drain(self: &Arc<Self>) {
        self.life.advance(Phase::Draining);
        let finish = async {
            loop {
                let ended = self.ended.notified();
                if self.metrics.in_flight() <= 0 {
                    return;
                }
                ended.await;
            }
        };
        if tokio::time::timeout(self.settings.drain_timeout, finish).await.is_err() {
            tracing::warn!(left = self.metrics.in_flight(), "calls are still open at the end of the drain");
        }
        if let Some(service) = self.service.get()
            && tokio::time::timeout(self.settings.drain_timeout, service.drain()).await.is_err()
        {
            tracing::warn!("the service did not finish its own drain in time");
        }
        if S::feed().zip(S::FOLD_VERSION).is_some() {
            self.node.feed().save().await;
        }
    }

    /// The log's silence is told but does not count: a restart of this service would not bring the log back.
    fn health(&self) -> HealthStatus {
        let own = self.service.get().map(|service| service.health()).unwrap_or_default();
        let phase = self.life.phase();
        let healthy =
            matches!(phase, Phase::Serving | Phase::Draining) && own.iter().all(|part| part.healthy);
        let degraded = own.iter().any(|part| part.degraded);
        let worst = own.iter().find(|part| !part.healthy).or_else(|| own.iter().find(|part| part.degraded));
        let last_error = worst.and_then(|part| part.message.clone());
        let mut components: Vec<ComponentHealth> = own
            .into_iter()
            .map(|part| ComponentHealth {
                name: part.name,
                healthy: part.healthy,
                message: part.message,
                degraded: part.degraded,
            })
            .collect();
        if S::feed().is_some() {
            let hears = self.node.clock().now().is_some();
            let message =
                (!hears).then(|| "nothing heard from the log: every expiry counts as reached".to_owned());
            components.push(ComponentHealth {
                name: "feed".to_owned(),
                healthy: hears,
                message,
                degraded: false,
            });
        }
        HealthStatus { healthy, components, last_error, uptime_ms: self.metrics.uptime_ms(), degraded }
    }
}

#[tonic::async_trait]
impl<S: Service> Lifecycle for LifecycleServer<S> {
    async fn init(&self, request: Request<InitRequest>) -> Result<Response<InitComplete>, Status> {
        let shared = Arc::clone(&self.0);
        // Goes on if the supervisor dies meanwhile: half an `Init` cannot be repeated.
        uncancelled(async move { shared.init(request.into_inner()).await }).await?;
        Ok(Response::new(InitComplete {}))
    }

    async fn start(&self, _: Request<StartRequest>) -> Result<Response<Started>, Status> {
        match self.0.life.phase() {
            Phase::Initializing => return Err(Status::failed_precondition("`Start` follows `InitComplete`")),
            Phase::Draining | Phase::Ended => {
                return Err(Status::failed_precondition("the service is stopping; start a new process"));
            }
            Phase::Initialized | Phase::Serving => {}
        }
        if S::feed().is_some() {
            let feed = self.0.node.feed();
            let stopped = tokio::select! {
                () = feed.caught_up() => None,
                reason = feed.stopped() => Some(reason),
            };
            if let Some(reason) = stopped {
                return Err(self.0.fail(FailStart::Ready(reason.into())).await);
            }
        }
        if let Some(Err(error)) = self.0.service.get().map(|service| service.ready()) {
            return Err(self.0.fail(FailStart::Ready(error)).await);
        }
        self.0.life.advance(Phase::Serving);
        let provides = S::PROVIDES.iter().map(|name| (*name).to_owned()).collect();
        let endpoint = format!("{RUN_FOLDER}/{}.sock", S::NAME);
        Ok(Response::new(Started {
            version: S::VERSION.to_owned(),
            provides,
            name: S::NAME.to_owned(),
            endpoint,
        }))
    }

    async fn prepare_stop(&self, _: Request<PrepareStopRequest>) -> Result<Response<ReadyToStop>, Status> {
        let shared = Arc::clone(&self.0);
        uncancelled(async move { shared.drain().await }).await;
        Ok(Response::new(ReadyToStop {}))
    }

    async fn stop(&self, _: Request<StopRequest>) -> Result<Response<Stopped>, Status> {
        self.0.life.advance(Phase::Ended);
        Ok(Response::new(Stopped {}))
    }

    async fn health_check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthStatus>, Status> {
        Ok(Response::new(self.0.health()))
    }

    async fn status_request(
        &self,
        _: Request<ServiceStatusRequest>,
    ) -> Result<Response<ServiceStatus>, Status> {
        let (requests, refused) = self.0.metrics.totals();
        Ok(Response::new(ServiceStatus {
            name: S::NAME.to_owned(),
            version: S::VERSION.to_owned(),
            phase: self.0.life.phase().name().to_owned(),
            folded_sequence: self.0.node.feed().folded().0,
            health: Some(self.0.health()),
            requests,
            refused,
        }))
    }
}
