//! All cores in one thread from one seed, with simulated disk, clock and bus.
//!
//! Promises: the same seed gives the same run; a failure names the seed and the step that repeat it; what is audited is
//! the real store, the real recovery and the real verifier on a disk that forgets, tears and reorders.
//! Never does: touch the machine's disk or clock. Calls `axiom`'s store and core, `policy`'s engine, `keys`' core, `chain`'s
//! verifier.

mod broken;
mod disk;
mod path;
mod powercut;
mod random;
mod tamper;
mod workload;

pub use broken::Broken;
pub use disk::{Fault, SimDisk, SimFile};
pub use path::{Defect, PathReport, path};
pub use powercut::{Report, faults, powercut, replay};
pub use random::Random;
pub use tamper::{TamperReport, tamper};
