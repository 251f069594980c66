//! Sockets and authorisations, without any of the system's.

mod address;
mod egress;
mod error;
pub mod first_bytes;
mod flow;
mod grant;
pub mod limits;
mod options;
mod rate;
mod rules;
mod special;
mod state;
mod table;
mod way;

pub use address::{from_wire, peer_from_wire, to_wire};
pub use egress::{PLACES_MAX, Places, Reach};
pub use error::NetError;
pub use flow::{ANSWER_BYTES_MAX, Flow, Held, held};
pub use grant::{UnknownLimit, grant_of};
pub use options::{SocketOption, check_value};
pub use rate::Bucket;
pub use rules::{FOLD_VERSION, Rules};
pub use special::{Special, special};
pub use state::{Event, SocketState, next};
pub use table::{Connection, Domain, Record, SocketId, SocketType, Sockets};
pub use way::{Relay, Way};
