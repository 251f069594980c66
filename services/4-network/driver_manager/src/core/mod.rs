//! What the kernel says about its interfaces, read and kept.

mod message;
mod table;

pub use message::{AddressChange, LinkChange, Message, MessageError, messages, request};
pub use table::{ADDRESSES_MAX, INTERFACES_MAX, Interface, Interfaces, Kind};
