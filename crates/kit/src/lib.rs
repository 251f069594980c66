//! The service contract in code: what every service must do is written once here and cannot be skipped.
//!
//! Promises: no handler runs before `Started`, without a complete context, without a row in the authority table,
//! without the capability that the client holds on the service, or beyond the limits; the caller is the socket on which a call arrives; an act that was sent is answered or sent
//! again with the same key; a service that does not hear the log treats every expiry as reached.
//! Never does: decide (policy does), open network sockets, write files but the snapshot of
//! its fold. Calls axiom's feed and policy's authority
//! channel on inherited sockets. Dies with its service; the sockets live on in the keeper and calls wait there.

pub mod admission;
pub mod authority;
mod behind;
mod broken;
mod channel;
pub mod client;
pub mod clients;
mod clock;
pub mod context;
pub mod env;
mod error;
mod feed;
pub mod frames;
mod gate;
mod http_error;
mod image_users;
pub mod images;
mod json;
mod laggard;
mod lifecycle;
mod local;
mod misuse;
pub mod observe;
mod phase;
mod principals;
mod requestor;
mod rights;
mod seen;
mod server;
mod service;
mod signing;
pub mod snapshot;
mod sockets;
mod stream;
mod table;
pub mod token;
mod watched;
pub mod way_out;

pub use behind::stand_back;
pub use broken::{BREAK_VARIABLE, is_broken};
pub use channel::{Caller, ChannelKind};
pub use client::Peer;
pub use clock::{AxiomClock, CLOCK_STALE_NS, WALL_MOVED, boot_time_ns, is_wall_moved, until_next, wall_time};
pub use context::{ActorType, ContextFields, OperationContext, Origin};
pub use error::{CallError, ERROR_METADATA, Guilty, IntoRefusal, KitError, Retry, error_info};
pub use feed::{FEED_SILENCE_MAX, FEED_WAIT_MAX, FEED_WAIT_OPERATOR_MAX, Feed, FeedEntry, FeedPlan, Fold};
pub use http_error::{HTTP_CODES, HttpCode, http_code};
pub use image_users::{ClosedImage, close_image};
pub use laggard::report_laggard;
pub use local::LocalState;
pub use misuse::{Misuse, REFUSED_USES_MAX, REFUSED_USES_WINDOW, misuse};
pub use observe::Counter;
pub use phase::Phase;
pub use requestor::{Requestor, requestor, requestor_in, workload};
/// The kernel's random source; the crate `getrandom` finds none inside of a sandbox.
pub use sandbox::random;
pub use seen::{SEEN_METADATA, SEQUENCE_METADATA, Seen};
pub use service::{
    BoxError, Component, DRAIN_TIMEOUT, FailStart, InitContext, Node, Service, Settings, Threads, caller,
    context_of, run, run_made, serve, uncancelled,
};
pub use signing::{HandedKey, KeyNotPinned};
pub use stream::until_writable;
pub use table::{Callers, Cost, Effect, Operation, Right, Table, check_table, is_capability_name};
pub use watched::{Watched, watch};
