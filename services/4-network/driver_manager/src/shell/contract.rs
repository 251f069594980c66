//! The `Devices` contract.

use std::sync::Arc;

use contracts::driver_manager::v1::{self as wire, devices_server::Devices};
use kit::{Guilty, IntoRefusal, Retry};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::{DriverManager, kernel::View};
use crate::core::{Interface, Interfaces};

/// When to ask again while the kernel says nothing.
const RETRY_MS: u32 = 500;

#[derive(Debug, Error)]
pub(super) enum DeviceError {
    #[error("the host's interfaces are not known: {0}")]
    NoInterfaces(String),
}

impl IntoRefusal for DeviceError {
    const DOMAIN: &'static str = "bailiwick.driver_manager.v1";

    fn reason(&self) -> &'static str {
        "NoInterfaces"
    }

    fn guilty(&self) -> Guilty {
        Guilty::Gone
    }

    fn retry(&self) -> Retry {
        Retry::After(RETRY_MS)
    }

    fn code(&self) -> Code {
        Code::Unavailable
    }
}

impl From<DeviceError> for Status {
    fn from(error: DeviceError) -> Self {
        error.to_status()
    }
}

pub(super) struct Handlers(pub(super) Arc<DriverManager>);

fn interface(known: &Interface) -> wire::Interface {
    let hex: Vec<String> = known.hardware_address.iter().map(|byte| format!("{byte:02x}")).collect();
    wire::Interface {
        index: known.index,
        name: known.name.clone(),
        kind: known.kind().name().to_owned(),
        up: known.is_up(),
        running: known.is_running(),
        loopback: known.is_loopback(),
        mtu: known.mtu,
        hardware_address: hex.join(":"),
        addresses: known.addresses.iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect(),
        usable: known.is_usable(),
    }
}

fn list(known: &Interfaces, only_usable: bool) -> wire::InterfaceList {
    let wanted = known.all().filter(|one| one.is_usable() || !only_usable);
    wire::InterfaceList { interfaces: wanted.map(interface).collect() }
}

/// What is known, once anything is.
async fn known(view: &mut watch::Receiver<View>) -> Result<Arc<Interfaces>, Status> {
    loop {
        match &*view.borrow_and_update() {
            Ok(Some(known)) => return Ok(Arc::clone(known)),
            Ok(None) => {}
            Err(why) => return Err(DeviceError::NoInterfaces(why.clone()).into()),
        }
        view.changed().await.map_err(|_| DeviceError::NoInterfaces("this service is ending".to_owned()))?;
    }
}

#[tonic::async_trait]
impl Devices for Handlers {
    async fn list_interfaces(
        &self,
        request: Request<wire::ListInterfacesRequest>,
    ) -> Result<Response<wire::InterfaceList>, Status> {
        kit::requestor(&self.0.node, &request, false)?;
        let known = known(&mut self.0.kernel.view()).await?;
        Ok(Response::new(list(&known, request.get_ref().only_usable)))
    }

    type WatchInterfacesStream = ReceiverStream<Result<wire::InterfaceList, Status>>;

    async fn watch_interfaces(
        &self,
        request: Request<wire::WatchInterfacesRequest>,
    ) -> Result<Response<Self::WatchInterfacesStream>, Status> {
        kit::requestor(&self.0.node, &request, false)?;
        let only_usable = request.get_ref().only_usable;
        let mut view = self.0.kernel.view();
        let (send, lists) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut told = None;
            loop {
                let next = known(&mut view).await.map(|known| list(&known, only_usable));
                let ended = next.is_err();
                // Of unusable interfaces a caller may not want to hear.
                if next.as_ref().ok() != told.as_ref() {
                    told = next.as_ref().ok().cloned();
                    if send.send(next).await.is_err() {
                        return;
                    }
                }
                let next_change = async {
                    tokio::select! {
                        changed = view.changed() => changed.is_ok(),
                        // Who asked has gone; interfaces may never change again.
                        () = send.closed() => false,
                    }
                };
                if ended || !next_change.await {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(lists)))
    }
}
