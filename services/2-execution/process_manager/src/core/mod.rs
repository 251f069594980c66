//! What process_manager decides, without doing any of it.

mod error;
mod execution;
mod layer;
mod ledger;
pub mod limits;
mod plan;
mod request;
mod secret;
mod state;
mod table;
mod watch;

pub use error::ProcessError;
pub use execution::Execution;
pub use layer::{JOB_SLOTS, Layer, copied, job_plan};
pub use ledger::{Ledger, Open, Started};
pub use plan::{Host, IMAGE_SLOT, LAYERS_FD, MONITOR_SLOTS, Plans, SECRETS_SLOT, layers_bytes_max, plans};
pub use request::{PathGrant, Spawn, WindowSize};
pub use secret::Secret;
pub use state::{Event, ProcessState, next};
pub use table::{Exit, Process, Table, Viewer};
pub use watch::{Finding, Watch, normalize};
