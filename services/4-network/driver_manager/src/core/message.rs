//! Messages of `rtnetlink(7)`: those about links and addresses, and nothing else of it.
//!
//! The kernel is the sender, so a message that is cut short is a mistake here or there: it ends the reading with an error
//! and the shell asks for everything again.

use ::core::net::IpAddr;
use thiserror::Error;

/// `struct nlmsghdr`: length, type, flags, number of the request, port.
const HEADER_BYTES: usize = 16;
/// `struct ifinfomsg`, `struct ifaddrmsg`, `struct rtattr`.
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;
const ATTRIBUTE_BYTES: usize = 4;
/// Messages and attributes begin at multiples of it.
const ALIGNMENT: usize = 4;

const DONE: u16 = 3;
const ERROR: u16 = 2;
const NEW_LINK: u16 = 16;
const DELETED_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETED_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;

const REQUEST: u16 = 1;
/// Of everything there is.
const DUMP: u16 = 0x300;
/// The list changed while it was given.
const INTERRUPTED: u16 = 0x10;

const LINK_HARDWARE: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const ADDRESS_PEER: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;

/// `IFNAMSIZ` without its end.
const NAME_BYTES_MAX: usize = 15;
/// The longest that the kernel knows (`MAX_ADDR_LEN`).
const HARDWARE_BYTES_MAX: usize = 32;

const FAMILY_UNSPECIFIED: u8 = 0;
const FAMILY_INET: u8 = 2;
const FAMILY_INET6: u8 = 10;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    #[error("a netlink message of {bytes} bytes is cut short at byte {at}")]
    Short { at: usize, bytes: usize },
    #[error("the kernel refuses to list its interfaces: error {0}")]
    Refused(i32),
}

/// One that says something about links or addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Link(LinkChange),
    LinkGone(u32),
    Address(AddressChange),
    AddressGone(AddressChange),
    /// The end of a list; it changed meanwhile and has to be asked for again.
    Done {
        number: u32,
        interrupted: bool,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkChange {
    pub index: u32,
    /// `ARPHRD_*`.
    pub hardware_type: u16,
    /// `IFF_*`.
    pub flags: u32,
    pub name: Option<String>,
    pub mtu: Option<u32>,
    pub hardware_address: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressChange {
    pub index: u32,
    pub address: IpAddr,
    pub prefix_length: u8,
}

/// Asks for all links, or for all addresses.
#[must_use]
pub fn request(links: bool, number: u32) -> Vec<u8> {
    let (kind, body) = if links { (GET_LINK, LINK_BYTES) } else { (GET_ADDRESS, ADDRESS_BYTES) };
    let length = HEADER_BYTES + body;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(REQUEST | DUMP).to_ne_bytes());
    bytes.extend_from_slice(&number.to_ne_bytes());
    bytes.resize(length, 0);
    bytes
}

/// All messages of one datagram; those about other things are passed over.
pub fn messages(datagram: &[u8]) -> Result<Vec<Message>, MessageError> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < datagram.len() {
        let short = MessageError::Short { at, bytes: datagram.len() };
        let rest = datagram.get(at..).ok_or_else(|| short.clone())?;
        let length =
            usize::try_from(u32_at(rest, 0).ok_or_else(|| short.clone())?).map_err(|_| short.clone())?;
        if length < HEADER_BYTES {
            return Err(short);
        }
        let whole = rest.get(..length).ok_or_else(|| short.clone())?;
        let kind = u16_at(whole, 4).ok_or_else(|| short.clone())?;
        let flags = u16_at(whole, 6).ok_or_else(|| short.clone())?;
        let number = u32_at(whole, 8).ok_or_else(|| short.clone())?;
        let body = whole.get(HEADER_BYTES..).unwrap_or_default();
        if let Some(message) = one(kind, flags, number, body, &short)? {
            found.push(message);
        }
        at += aligned(length);
    }
    Ok(found)
}

fn one(
    kind: u16,
    flags: u16,
    number: u32,
    body: &[u8],
    short: &MessageError,
) -> Result<Option<Message>, MessageError> {
    let short = || short.clone();
    Ok(match kind {
        DONE => Some(Message::Done { number, interrupted: flags & INTERRUPTED != 0 }),
        ERROR => match i32_at(body, 0).ok_or_else(short)? {
            0 => None,
            error => return Err(MessageError::Refused(error.saturating_neg())),
        },
        // A bridge tells of its ports with the same types: that a port left one is not that it is gone.
        NEW_LINK | DELETED_LINK if body.first().is_some_and(|family| *family != FAMILY_UNSPECIFIED) => None,
        NEW_LINK => Some(Message::Link(link(body).ok_or_else(short)?)),
        DELETED_LINK => Some(Message::LinkGone(link(body).ok_or_else(short)?.index)),
        NEW_ADDRESS => address(body).ok_or_else(short)?.map(Message::Address),
        DELETED_ADDRESS => address(body).ok_or_else(short)?.map(Message::AddressGone),
        _ => None,
    })
}

fn link(body: &[u8]) -> Option<LinkChange> {
    let mut change = LinkChange {
        hardware_type: u16_at(body, 2)?,
        index: u32_at(body, 4)?,
        flags: u32_at(body, 8)?,
        ..LinkChange::default()
    };
    for (kind, value) in attributes(body.get(LINK_BYTES..)?)? {
        match kind {
            LINK_NAME => change.name = Some(name(value)),
            LINK_MTU => change.mtu = Some(u32_at(value, 0)?),
            LINK_HARDWARE if value.len() <= HARDWARE_BYTES_MAX => change.hardware_address = value.to_vec(),
            _ => {}
        }
    }
    Some(change)
}

/// None inside for families that are no internet addresses.
fn address(body: &[u8]) -> Option<Option<AddressChange>> {
    let (family, prefix_length, index) = (*body.first()?, *body.get(1)?, u32_at(body, 4)?);
    let (mut local, mut peer) = (None, None);
    for (kind, value) in attributes(body.get(ADDRESS_BYTES..)?)? {
        match kind {
            ADDRESS_LOCAL => local = ip(family, value),
            ADDRESS_PEER => peer = ip(family, value),
            _ => {}
        }
    }
    // Of a point-to-point link the one is its own, the other the peer's; elsewhere both are the same or there is one.
    Some(local.or(peer).map(|address| AddressChange { index, address, prefix_length }))
}

fn ip(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        FAMILY_INET => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        FAMILY_INET6 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Up to its NUL; what is no text is replaced, it is shown and never used.
fn name(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()).min(NAME_BYTES_MAX);
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn attributes(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    // Less than a header is padding.
    while bytes.len() >= ATTRIBUTE_BYTES {
        let length = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(ATTRIBUTE_BYTES..length)?;
        // The two highest bits say how a value is nested or ordered.
        found.push((u16_at(bytes, 2)? & 0x3fff, value));
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Some(found)
}

fn aligned(length: usize) -> usize {
    length.div_ceil(ALIGNMENT) * ALIGNMENT
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().copied().map(i32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(ATTRIBUTE_BYTES + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn link_body(index: u32, flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![0, 0];
        body.extend_from_slice(&1u16.to_ne_bytes());
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend_from_slice(&flags.to_ne_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend(attributes.concat());
        body
    }

    fn address_body(family: u8, prefix: u8, index: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![family, prefix, 0, 0];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend(attributes.concat());
        body
    }

    #[test]
    fn links_and_addresses_are_read_and_the_rest_is_passed_over() {
        let attributes = [
            attribute(LINK_NAME, b"eth0\0"),
            attribute(LINK_MTU, &1500u32.to_ne_bytes()),
            attribute(77, b"?"),
        ];
        let all = [
            message(NEW_LINK, 2, &link_body(7, 0x41, &attributes)),
            message(99, 0, b"of something else"),
            message(DELETED_LINK, 0, &[&[7][..], &link_body(7, 0, &[])[1..]].concat()),
            message(NEW_ADDRESS, 2, &address_body(2, 24, 7, &[attribute(ADDRESS_LOCAL, &[192, 0, 2, 1])])),
            message(DELETED_ADDRESS, 0, &address_body(10, 64, 7, &[attribute(ADDRESS_PEER, &[1; 16])])),
            message(NEW_ADDRESS, 0, &address_body(17, 0, 7, &[])),
            message(DELETED_LINK, 0, &link_body(7, 0, &[])),
            message(DONE, INTERRUPTED, &[0; 4]),
        ]
        .concat();
        let v4 = AddressChange { index: 7, address: IpAddr::from([192, 0, 2, 1]), prefix_length: 24 };
        let v6 = AddressChange { index: 7, address: IpAddr::from([1; 16]), prefix_length: 64 };
        let up = LinkChange {
            index: 7,
            hardware_type: 1,
            flags: 0x41,
            name: Some("eth0".to_owned()),
            mtu: Some(1500),
            hardware_address: vec![],
        };
        let expected = [
            Message::Link(up),
            Message::Address(v4),
            Message::AddressGone(v6),
            Message::LinkGone(7),
            Message::Done { number: 0, interrupted: true },
        ];
        assert_eq!(messages(&all).unwrap(), expected);
    }

    #[test]
    fn of_a_point_to_point_link_the_own_address_is_taken() {
        let both = [attribute(ADDRESS_PEER, &[10, 0, 0, 2]), attribute(ADDRESS_LOCAL, &[10, 0, 0, 1])];
        let read = messages(&message(NEW_ADDRESS, 0, &address_body(2, 32, 3, &both))).unwrap();
        assert!(
            matches!(&read[..], [Message::Address(change)] if change.address == IpAddr::from([10, 0, 0, 1]))
        );
    }

    #[test]
    fn a_refusal_is_told_and_an_acknowledgement_is_not() {
        assert_eq!(messages(&message(ERROR, 0, &(-1i32).to_ne_bytes())), Err(MessageError::Refused(1)));
        assert_eq!(messages(&message(ERROR, 0, &0i32.to_ne_bytes())), Ok(vec![]));
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let whole = message(NEW_LINK, 0, &link_body(7, 0, &[attribute(LINK_NAME, b"eth0\0")]));
        assert!(messages(&whole).is_ok());
        for end in 1..whole.len() {
            assert!(messages(&whole[..end]).is_err(), "{end}");
        }
        let mut lies = whole;
        lies[0] = 15;
        assert_eq!(messages(&lies), Err(MessageError::Short { at: 0, bytes: lies.len() }));
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_makes_it_panic_or_run_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = messages(&bytes);
        }
    }
}
