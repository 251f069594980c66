//! The lifecycle channel of one running service: one message at a time, a newer one replaces one without an answer.

use std::{path::PathBuf, sync::Arc};

use contracts::lifecycle::v1::{self as wire, lifecycle_client::LifecycleClient};
use kit::Peer;
use thiserror::Error;
use tokio::{sync::mpsc, task::AbortHandle};
use tonic::{Status, transport::Channel};

use super::{inputs::Input, sockets::INSIDE};
use crate::{
    core::{
        lifecycle::{ComponentHealth, HealthStatus, LifecycleMessage, LifecycleResponse},
        ready::{NotReady, ReadyReport},
        supervisor::{CallId, Event, LaunchId},
    },
    manifest::LoadedManifest,
};

/// Dropped with its process: a call that nobody will answer ends then, and its connection with it.
#[derive(Debug)]
pub(super) struct Link {
    peer: Peer,
    call: Option<AbortHandle>,
    /// By which it was started.
    manifest: Option<Arc<LoadedManifest>>,
}

impl Link {
    /// Connects at the first message: the socket is there before the service is.
    #[must_use]
    pub(super) fn new(socket: PathBuf, manifest: Option<Arc<LoadedManifest>>) -> Self {
        Self { peer: Peer::at(socket), call: None, manifest }
    }

    /// The answer comes as an event; how long it may take is decided elsewhere.
    pub(super) fn send(
        &mut self,
        launch: LaunchId,
        call: CallId,
        message: LifecycleMessage,
        inputs: mpsc::UnboundedSender<Input>,
    ) {
        self.cancel();
        let (channel, manifest) = (self.peer.channel(), self.manifest.clone());
        let task = tokio::spawn(async move {
            let event = match ask(channel, message, manifest.as_deref()).await {
                Ok(response) => Event::LifecycleReply { launch, call, response },
                Err(unanswered) => {
                    let text = unanswered.to_string();
                    tracing::warn!(%launch, text, "a lifecycle message was not answered");
                    Event::LifecycleClosed { launch, text }
                }
            };
            let _ = inputs.send(Input::Event(event));
        });
        self.call = Some(task.abort_handle());
    }

    fn cancel(&mut self) {
        if let Some(call) = self.call.take() {
            call.abort();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Why a message has no answer that counts, in words for whoever runs the node.
#[derive(Debug, Error)]
enum Unanswered {
    #[error("closed its lifecycle channel before it answered")]
    Closed,
    #[error("refused a lifecycle message: {0}")]
    Refused(String),
    #[error("was not taken as ready: {0}")]
    NotReady(#[from] NotReady),
}

impl From<Status> for Unanswered {
    /// What came over the channel has no cause on this side of it.
    fn from(status: Status) -> Self {
        match std::error::Error::source(&status) {
            Some(_) => Self::Closed,
            None => Self::Refused(status.message().to_owned()),
        }
    }
}

async fn ask(
    channel: Channel,
    message: LifecycleMessage,
    manifest: Option<&LoadedManifest>,
) -> Result<LifecycleResponse, Unanswered> {
    let mut client = LifecycleClient::new(channel);
    Ok(match message {
        LifecycleMessage::Init { config, capabilities, identity } => {
            client
                .init(wire::InitRequest {
                    config: Some(wire::ServiceConfig {
                        name: config.name,
                        version: config.version,
                        manifest: config.manifest,
                    }),
                    capabilities: capabilities.iter().map(|id| id.0.to_vec()).collect(),
                    identity: Some(wire::ServiceIdentity {
                        id: identity.id.0.to_vec(),
                        key_path: identity.key_path.to_string(),
                        permissions: identity.permissions,
                    }),
                })
                .await?;
            LifecycleResponse::InitComplete
        }
        LifecycleMessage::Start => {
            let wire::Started { version, provides, name, endpoint } =
                client.start(wire::StartRequest {}).await?.into_inner();
            let report = ReadyReport { name, endpoint, version, provides };
            if let Some(loaded) = manifest {
                let socket = format!("{INSIDE}/{}.sock", loaded.name());
                report.check(&loaded.manifest, &socket)?;
            }
            LifecycleResponse::Started
        }
        LifecycleMessage::PrepareStop => {
            client.prepare_stop(wire::PrepareStopRequest {}).await?;
            LifecycleResponse::ReadyToStop
        }
        LifecycleMessage::Stop => {
            client.stop(wire::StopRequest {}).await?;
            LifecycleResponse::Stopped
        }
        LifecycleMessage::HealthCheck => {
            let health = client.health_check(wire::HealthCheckRequest {}).await?.into_inner();
            LifecycleResponse::Health(health_of(health))
        }
        // What a service says of itself beside its health is for people and is asked where it is shown.
        LifecycleMessage::StatusRequest => {
            let status = client.status_request(wire::ServiceStatusRequest {}).await?.into_inner();
            LifecycleResponse::Health(health_of(status.health.unwrap_or_default()))
        }
    })
}

fn health_of(health: wire::HealthStatus) -> HealthStatus {
    HealthStatus {
        healthy: health.healthy,
        components: health
            .components
            .into_iter()
            .map(|part| ComponentHealth {
                name: part.name,
                healthy: part.healthy,
                message: part.message,
                degraded: part.degraded,
            })
            .collect(),
        last_error: health.last_error,
        uptime: std::time::Duration::from_millis(health.uptime_ms),
        degraded: health.degraded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::wrappers::UnixListenerStream;
    use tonic::{Request, Response};
    use wire::lifecycle_server::{Lifecycle, LifecycleServer};

    /// A service that is ready and says this, or refuses.
    struct Ready(Result<wire::Started, &'static str>);

    type Answer<T> = Result<Response<T>, Status>;

    #[tonic::async_trait]
    impl Lifecycle for Ready {
        async fn init(&self, _: Request<wire::InitRequest>) -> Answer<wire::InitComplete> {
            Err(Status::unimplemented("init"))
        }

        async fn start(&self, _: Request<wire::StartRequest>) -> Answer<wire::Started> {
            self.0.clone().map(Response::new).map_err(Status::internal)
        }

        async fn prepare_stop(&self, _: Request<wire::PrepareStopRequest>) -> Answer<wire::ReadyToStop> {
            Err(Status::unimplemented("prepare_stop"))
        }

        async fn stop(&self, _: Request<wire::StopRequest>) -> Answer<wire::Stopped> {
            Err(Status::unimplemented("stop"))
        }

        async fn health_check(&self, _: Request<wire::HealthCheckRequest>) -> Answer<wire::HealthStatus> {
            Err(Status::unimplemented("health_check"))
        }

        async fn status_request(
            &self,
            _: Request<wire::ServiceStatusRequest>,
        ) -> Answer<wire::ServiceStatus> {
            Err(Status::unimplemented("status_request"))
        }
    }

    /// What the machine hears of one that was started as `keys`.
    async fn heard(change: impl FnOnce(&mut wire::Started)) -> Event {
        let mut started = wire::Started {
            version: "1.0.0".to_owned(),
            provides: vec!["keys.keys Keys/1.0".to_owned()],
            name: "keys".to_owned(),
            endpoint: "/run/bailiwick/keys.sock".to_owned(),
        };
        change(&mut started);
        heard_of(Ready(Ok(started))).await
    }

    fn keys() -> Arc<LoadedManifest> {
        let text = "version = 1\n[service]\nname = \"keys\"\nversion = \"1.0.0\"\nservice_type = \"Core\"\n\
                    [[endpoints]]\nname = \"keys.keys\"\nprotocol = \"Keys/1.0\"\n";
        Arc::new(crate::manifest::parse("test", text).unwrap())
    }

    async fn heard_of(service: Ready) -> Event {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("lifecycle.sock");
        let listener = UnixListenerStream::new(tokio::net::UnixListener::bind(&socket).unwrap());
        let server = tonic::transport::Server::builder().add_service(LifecycleServer::new(service));
        tokio::spawn(server.serve_with_incoming(listener));
        asked_at(socket, keys()).await
    }

    async fn asked_at(socket: PathBuf, manifest: Arc<LoadedManifest>) -> Event {
        let (inputs, mut told) = mpsc::unbounded_channel();
        let mut link = Link::new(socket, Some(manifest));
        link.send(LaunchId(1), CallId(1), LifecycleMessage::Start, inputs);
        match told.recv().await.unwrap() {
            Input::Event(event) => event,
            _ => panic!("no event"),
        }
    }

    /// covers: SUP-91
    #[tokio::test]
    async fn who_reports_itself_ready_as_another_has_not_started() {
        let is_started =
            |event| matches!(event, Event::LifecycleReply { response: LifecycleResponse::Started, .. });
        assert!(is_started(heard(|_| {}).await));
        let old = |started: &mut wire::Started| (started.name, started.endpoint) = Default::default();
        assert!(is_started(heard(old).await), "an older build says less");
        let closed = |event| match event {
            Event::LifecycleClosed { launch: LaunchId(1), text } => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            closed(heard(|started| started.name = "policy".to_owned()).await),
            "was not taken as ready: it reports itself ready as \"policy\", and was started as \"keys\""
        );
        let elsewhere =
            |started: &mut wire::Started| started.endpoint = "/run/bailiwick/policy.sock".to_owned();
        assert_eq!(
            closed(heard(elsewhere).await),
            "was not taken as ready: it says that it is found at \"/run/bailiwick/policy.sock\"; its clients look for it \
             at \"/run/bailiwick/keys.sock\""
        );
        assert_eq!(
            closed(heard(|started| started.provides.clear()).await),
            "was not taken as ready: it does not provide keys.keys Keys/1.0, which its manifest promises"
        );
        assert_eq!(closed(heard_of(Ready(Err("no key"))).await), "refused a lifecycle message: no key");
    }

    /// Somebody listens there who hangs up.
    #[tokio::test]
    async fn who_hangs_up_has_closed_its_channel() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("lifecycle.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            loop {
                drop(listener.accept().await);
            }
        });
        match asked_at(socket, keys()).await {
            Event::LifecycleClosed { text, .. } => {
                assert_eq!(text, "closed its lifecycle channel before it answered");
            }
            other => panic!("{other:?}"),
        }
    }
}
