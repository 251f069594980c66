//! Sockets and authorisations, without any of the system's.

mod address;
pub mod dns;
mod egress;
mod error;
mod grant;
pub mod limits;
mod name_place;
pub mod names;
pub mod nameservers;
mod options;
pub mod pins;
pub mod query;
mod rate;
mod rules;
mod special;
mod state;
mod table;

pub use address::{from_wire, peer_from_wire, to_wire};
pub use egress::{PLACES_MAX, Places, Reach};
pub use error::NetError;
pub use grant::{UnknownLimit, grant_of};
pub use names::{HostName, NameError};
pub use options::{SocketOption, check_value};
pub use rate::Bucket;
pub use rules::{FOLD_VERSION, Rules};
pub use special::{Special, special};
pub use state::{Event, SocketState, next};
pub use table::{Connection, Domain, Record, SocketId, SocketType, Sockets};
