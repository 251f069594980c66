//! What process_manager decides, without doing any of it.

mod credential;
pub mod datagram;
mod error;
mod execution;
mod io_limits;
mod job_plan;
mod jobs;
mod layer;
pub mod learn;
mod ledger;
pub mod limits;
mod plan;
mod request;
mod root;
mod secret;
mod state;
mod table;
mod tree;
mod watch;

pub use credential::{logged_credential, parse_credential};
pub use error::ProcessError;
pub use execution::Execution;
pub use job_plan::{JobPlace, JobPlans, OUT_FOLDER, job_plans};
pub(crate) use jobs::{DETERMINISM, OUTPUT_LIMIT, job_id};
pub use jobs::{JobLedger, JobRecord, ended_as};
pub use kit::images::{ImageLedger, NOT_SHOWN, Named, Tree, candidates, image_name, normalize};
pub use layer::{JOB_SLOTS, Layer, copied, job_plan};
pub use learn::{Learned, UsedPath, Uses};
pub use ledger::{Ledger, Open, Started};
pub use plan::{
    DATAGRAMS_FD, Host, IMAGE_SLOT, LAYERS_FD, MONITOR_SLOTS, NAME_SERVERS_FILE, NAMES_FD, Plans,
    SECRETS_SLOT, has_datagrams, layers_bytes_max, plans,
};
pub use request::{PathGrant, Spawn, WindowSize};
pub use root::Root;
pub use secret::Secret;
pub use state::{Event, ProcessState, next};
pub use table::{Exit, Process, Table, Viewer};
pub(crate) use tree::show;
pub use tree::{TREE_SLOTS, trees_folder, unpack_plan};
pub use watch::{Finding, Watch};
