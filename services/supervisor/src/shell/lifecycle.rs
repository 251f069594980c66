//! The lifecycle channel of one running service: one message at a time, a newer one replaces one without an answer.

use std::path::PathBuf;

use contracts::lifecycle::v1::{self as wire, lifecycle_client::LifecycleClient};
use kit::Peer;
use tokio::{sync::mpsc, task::AbortHandle};
use tonic::{Status, transport::Channel};

use super::inputs::Input;
use crate::core::{
    lifecycle::{ComponentHealth, HealthStatus, LifecycleMessage, LifecycleResponse},
    supervisor::{CallId, Event, LaunchId},
};

/// Dropped with its process: a call that nobody will answer ends then, and its connection with it.
#[derive(Debug)]
pub(super) struct Link {
    peer: Peer,
    call: Option<AbortHandle>,
}

impl Link {
    /// Connects at the first message: the socket is there before the service is.
    #[must_use]
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { peer: Peer::at(socket), call: None }
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
        let channel = self.peer.channel();
        let task = tokio::spawn(async move {
            let event = match ask(channel, message).await {
                Ok(response) => Event::LifecycleReply { launch, call, response },
                Err(status) => {
                    tracing::warn!(%launch, %status, "a lifecycle message was not answered");
                    Event::LifecycleClosed { launch }
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

async fn ask(channel: Channel, message: LifecycleMessage) -> Result<LifecycleResponse, Status> {
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
            client.start(wire::StartRequest {}).await?;
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
