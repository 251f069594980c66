//! The service's process: contract in front, keeper and monitors behind.

mod adopt;
mod attach;
mod control;
mod egress;
mod execute;
mod exits;
mod handlers;
mod images;
mod inherited;
mod job_handlers;
mod job_run;
mod job_sign;
mod job_verify;
mod jobs;
mod keeper;
mod layer_handlers;
mod layers;
mod manager;
mod signal;
mod spawn;
mod tree_acts;
mod tree_entry;
mod tree_handlers;
mod tree_unpack;
mod trees;

use std::{process::ExitCode, sync::Arc};

use base::limits::MESSAGE_BYTES_MAX;
use contracts::process_manager::v1::{jobs_server::JobsServer, processes_server::ProcessesServer};
use kit::{BoxError, ChannelKind, Component, Cost, FeedEntry, FeedPlan, InitContext, Operation, Service};
use tonic::service::Routes;

use handlers::Handlers;
use manager::Manager;

/// Becomes the process `process_manager`.
#[must_use]
pub fn main() -> ExitCode {
    if let Err(error) = inherited::adopt() {
        eprintln!("process_manager: {error}");
        return ExitCode::from(2);
    }
    kit::serve::<ProcessManager>()
}

static TABLE: [Operation; 22] = [
    // Content under its own name changes nothing until a program is made of it, which is decided.
    Operation::reads(
        "/bailiwick.process_manager.v1.Processes/PutImage",
        Cost::Heavy,
        "system.process_manager.put_image",
    )
    .long(),
    Operation::acts(
        "/bailiwick.process_manager.v1.Processes/Spawn",
        Cost::Heavy,
        "system.process_manager.spawn",
    ),
    Operation::acts(
        "/bailiwick.process_manager.v1.Processes/Kill",
        Cost::Medium,
        "system.process_manager.kill",
    ),
    Operation::reads(
        "/bailiwick.process_manager.v1.Processes/GetInfo",
        Cost::Light,
        "system.process_manager.get_info",
    ),
    Operation::reads(
        "/bailiwick.process_manager.v1.Processes/List",
        Cost::Light,
        "system.process_manager.list",
    ),
    Operation::reads(
        "/bailiwick.process_manager.v1.Processes/Wait",
        Cost::Light,
        "system.process_manager.wait",
    )
    .long(),
    Operation::reads(
        "/bailiwick.process_manager.v1.Processes/Attach",
        Cost::Light,
        "system.process_manager.attach",
    )
    .long(),
    Operation::acts(
        "/bailiwick.process_manager.v1.Processes/Execute",
        Cost::Heavy,
        "system.process_manager.execute",
    )
    .long(),
    Operation::reads(
        "/bailiwick.process_manager.v1.Processes/ListLayers",
        Cost::Light,
        "system.process_manager.list_layers",
    ),
    Operation::reads(
        "/bailiwick.process_manager.v1.Processes/Diff",
        Cost::Heavy,
        "system.process_manager.diff",
    )
    .long(),
    Operation::acts(
        "/bailiwick.process_manager.v1.Processes/Commit",
        Cost::Heavy,
        "system.process_manager.commit",
    )
    .long(),
    Operation::acts(
        "/bailiwick.process_manager.v1.Processes/Discard",
        Cost::Heavy,
        "system.process_manager.discard",
    )
    .long(),
    Operation::acts(
        "/bailiwick.process_manager.v1.Processes/ImportTree",
        Cost::Heavy,
        "system.process_manager.import_tree",
    )
    .long(),
    Operation::reads(
        "/bailiwick.process_manager.v1.Processes/ListTrees",
        Cost::Light,
        "system.process_manager.list_trees",
    ),
    Operation::acts(
        "/bailiwick.process_manager.v1.Processes/RemoveTree",
        Cost::Heavy,
        "system.process_manager.remove_tree",
    )
    .long(),
    Operation::acts(
        "/bailiwick.process_manager.v1.Jobs/Submit",
        Cost::Heavy,
        "system.process_manager.submit",
    ),
    Operation::reads("/bailiwick.process_manager.v1.Jobs/Get", Cost::Light, "system.process_manager.get"),
    Operation::reads("/bailiwick.process_manager.v1.Jobs/Watch", Cost::Light, "system.process_manager.watch")
        .long(),
    Operation::reads(
        "/bailiwick.process_manager.v1.Jobs/ListJobs",
        Cost::Light,
        "system.process_manager.list_jobs",
    ),
    Operation::acts(
        "/bailiwick.process_manager.v1.Jobs/Cancel",
        Cost::Medium,
        "system.process_manager.cancel",
    ),
    Operation::reads(
        "/bailiwick.process_manager.v1.Jobs/Fetch",
        Cost::Medium,
        "system.process_manager.fetch",
    )
    .long(),
    // It changes nothing, but it runs a program: policy is asked whether the caller may.
    Operation::acts(
        "/bailiwick.process_manager.v1.Jobs/Verify",
        Cost::Heavy,
        "system.process_manager.verify",
    )
    .long(),
];

/// Creations, exits, jobs, names of images, and receipts: what of it is finished.
const FOLDED_TYPES: [u32; 9] = [30, 31, 70, 71, 72, 73, 76, 77, 80];
/// Of what the saved ledgers mean: a fold that changes has another.
const FOLD_VERSION: u32 = 1;

pub(crate) struct ProcessManager {
    manager: Arc<Manager>,
}

impl Service for ProcessManager {
    const NAME: &'static str = "process_manager";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const PROVIDES: &'static [&'static str] = &["process.processes Processes/1.0", "process.jobs Jobs/1.0"];
    const FOLD_VERSION: Option<u32> = Some(FOLD_VERSION);

    fn table() -> &'static [Operation] {
        &TABLE
    }

    fn feed() -> Option<FeedPlan> {
        Some(FeedPlan::of_types(&FOLDED_TYPES))
    }

    async fn init(context: InitContext) -> Result<Self, BoxError> {
        let inherited = inherited::take().ok_or("nothing was inherited from the supervisor")?;
        let manager = Manager::start(context.node, &context.state_folder, inherited).await?;
        Ok(Self { manager })
    }

    fn routes(self: &Arc<Self>, kind: ChannelKind) -> Routes {
        match kind {
            ChannelKind::Edge | ChannelKind::Admin => {
                let handlers = || Handlers(Arc::clone(&self.manager));
                Routes::new(ProcessesServer::new(handlers()).max_decoding_message_size(MESSAGE_BYTES_MAX))
                    .add_service(JobsServer::new(handlers()).max_decoding_message_size(MESSAGE_BYTES_MAX))
            }
            _ => Routes::default(),
        }
    }

    fn fold(&self, entry: &FeedEntry) -> Result<(), BoxError> {
        self.manager.fold(entry)
    }

    fn save(&self) -> Vec<u8> {
        self.manager.save()
    }

    fn restore(&self, own: &[u8]) -> Result<(), BoxError> {
        self.manager.restore(own)
    }

    fn health(&self) -> Vec<Component> {
        vec![self.manager.health()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_contract() {
        let services = ["bailiwick.process_manager.v1.Processes", "bailiwick.process_manager.v1.Jobs"];
        let faults = kit::check_table(&services, &TABLE);
        assert_eq!(faults, Vec::<String>::new());
    }
}
