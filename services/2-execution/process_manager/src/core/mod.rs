//! What process_manager decides, without doing any of it.

mod error;
mod layer;
mod ledger;
pub mod limits;
mod plan;
mod request;
mod state;
mod table;
mod watch;

pub use error::ProcessError;
pub use layer::{JOB_SLOTS, Layer, copied, job_plan};
pub use ledger::{Ledger, Open, Started};
pub use plan::{Host, IMAGE_SLOT, MONITOR_SLOTS, Plans, plans};
pub use request::{PathGrant, Spawn, WindowSize};
pub use state::{Event, ProcessState, next};
pub use table::{Exit, Process, Table, Viewer};
pub use watch::{Finding, Watch, normalize};
