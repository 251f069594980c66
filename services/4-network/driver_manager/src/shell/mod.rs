//! The service's process: the kernel on one side, the contract on the other.

mod contract;
mod kernel;

use std::{process::ExitCode, sync::Arc};

use base::limits::MESSAGE_BYTES_MAX;
use contracts::driver_manager::v1::devices_server::DevicesServer;
use kit::{BoxError, ChannelKind, Component, Cost, FeedEntry, InitContext, Node, Operation, Service};
use tonic::service::Routes;

use kernel::Kernel;

/// Becomes the process `driver_manager`.
#[must_use]
pub fn main() -> ExitCode {
    if let Err(error) = kernel::adopt() {
        eprintln!("driver_manager: {error}");
        return ExitCode::from(2);
    }
    kit::serve::<DriverManager>()
}

static TABLE: [Operation; 2] = [
    Operation::reads(
        "/bailiwick.driver_manager.v1.Devices/ListInterfaces",
        Cost::Light,
        "system.driver_manager.list_interfaces",
    ),
    Operation::reads(
        "/bailiwick.driver_manager.v1.Devices/WatchInterfaces",
        Cost::Light,
        "system.driver_manager.watch_interfaces",
    )
    .long(),
];

/// Knows the interfaces of the host.
pub struct DriverManager {
    node: Node,
    kernel: Kernel,
}

impl Service for DriverManager {
    const NAME: &'static str = "driver_manager";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const PROVIDES: &'static [&'static str] = &["driver.devices Devices/1.0"];
    /// It has no fold of its own, and the shared one is the kit's.
    const FOLD_VERSION: Option<u32> = Some(1);

    fn table() -> &'static [Operation] {
        &TABLE
    }

    async fn init(context: InitContext) -> Result<Self, BoxError> {
        let socket = kernel::take().ok_or("no netlink socket was handed over")?;
        Ok(Self { node: context.node, kernel: Kernel::start(socket)? })
    }

    fn routes(self: &Arc<Self>, kind: ChannelKind) -> Routes {
        match kind {
            ChannelKind::Edge | ChannelKind::Admin => {
                let server = DevicesServer::new(contract::Handlers(Arc::clone(self)));
                Routes::new(server.max_decoding_message_size(MESSAGE_BYTES_MAX))
            }
            _ => Routes::default(),
        }
    }

    fn fold(&self, _: &FeedEntry) -> Result<(), BoxError> {
        Ok(())
    }

    fn health(&self) -> Vec<Component> {
        vec![self.kernel.health()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_contract() {
        let faults = kit::check_table(&["bailiwick.driver_manager.v1.Devices"], &TABLE);
        assert_eq!(faults, Vec::<String>::new());
    }
}
