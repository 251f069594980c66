//! The interfaces as they are known now.

use std::collections::{BTreeMap, BTreeSet};

use ::core::net::IpAddr;

use super::message::{AddressChange, LinkChange, Message};

/// More are not kept: whoever has so many has made them.
pub const INTERFACES_MAX: usize = 4096;
/// Of one interface.
pub const ADDRESSES_MAX: usize = 256;

const FLAG_UP: u32 = 0x1;
const FLAG_LOOPBACK: u32 = 0x8;
const FLAG_POINT_TO_POINT: u32 = 0x10;
const FLAG_RUNNING: u32 = 0x40;

const ETHERNET: u16 = 1;
/// `ARPHRD_TUNNEL`, `TUNNEL6`, `SIT`, `IPGRE`, `IP6GRE`, `NONE` (of a TUN device).
const TUNNELS: [u16; 6] = [768, 769, 776, 778, 823, 0xfffe];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Loopback,
    Ethernet,
    PointToPoint,
    Tunnel,
    Other,
}

impl Kind {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Ethernet => "ethernet",
            Self::PointToPoint => "point_to_point",
            Self::Tunnel => "tunnel",
            Self::Other => "other",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    pub hardware_address: Vec<u8>,
    /// With the length of the prefix.
    pub addresses: BTreeSet<(IpAddr, u8)>,
    hardware_type: u16,
    flags: u32,
}

impl Interface {
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.flags & FLAG_UP != 0
    }

    /// Something is at the other end.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.flags & FLAG_RUNNING != 0
    }

    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.flags & FLAG_LOOPBACK != 0
    }

    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.is_up() && self.is_running() && !self.addresses.is_empty()
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.hardware_type {
            _ if self.is_loopback() => Kind::Loopback,
            ETHERNET => Kind::Ethernet,
            kind if TUNNELS.contains(&kind) => Kind::Tunnel,
            _ if self.flags & FLAG_POINT_TO_POINT != 0 => Kind::PointToPoint,
            _ => Kind::Other,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces(BTreeMap<u32, Interface>);

impl Interfaces {
    /// Takes one message in; true if something is different now.
    pub fn apply(&mut self, message: &Message) -> bool {
        match message {
            Message::Link(change) => self.link(change),
            Message::LinkGone(index) => self.0.remove(index).is_some(),
            Message::Address(change) => self.address(change, true),
            Message::AddressGone(change) => self.address(change, false),
            Message::Done { .. } => false,
        }
    }

    fn link(&mut self, change: &LinkChange) -> bool {
        if !self.0.contains_key(&change.index) && self.0.len() >= INTERFACES_MAX {
            return false;
        }
        let known = self.0.entry(change.index).or_default();
        let before = known.clone();
        known.index = change.index;
        known.flags = change.flags;
        known.hardware_type = change.hardware_type;
        known.hardware_address.clone_from(&change.hardware_address);
        if let Some(name) = &change.name {
            known.name.clone_from(name);
        }
        if let Some(mtu) = change.mtu {
            known.mtu = mtu;
        }
        *known != before
    }

    fn address(&mut self, change: &AddressChange, there: bool) -> bool {
        // The address of an interface that is not kept, or that has gone meanwhile.
        let Some(known) = self.0.get_mut(&change.index) else { return false };
        let address = (change.address, change.prefix_length);
        match there {
            true if known.addresses.len() >= ADDRESSES_MAX => false,
            true => known.addresses.insert(address),
            false => known.addresses.remove(&address),
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &Interface> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(index: u32, flags: u32) -> Message {
        Message::Link(LinkChange { index, flags, name: Some(format!("i{index}")), ..LinkChange::default() })
    }

    fn address(index: u32, last: u8) -> AddressChange {
        AddressChange { index, address: IpAddr::from([192, 0, 2, last]), prefix_length: 24 }
    }

    #[test]
    fn an_interface_is_usable_while_it_is_up_runs_and_has_an_address() {
        let mut all = Interfaces::default();
        let usable = |all: &Interfaces| all.all().filter(|one| one.is_usable()).count();
        assert!(all.apply(&up(1, FLAG_UP | FLAG_RUNNING)) && usable(&all) == 0);
        assert!(all.apply(&Message::Address(address(1, 1))) && usable(&all) == 1);
        assert!(!all.apply(&Message::Address(address(1, 1))), "nothing new");
        assert!(all.apply(&up(1, FLAG_UP)) && usable(&all) == 0);
        assert!(all.apply(&up(1, FLAG_RUNNING)) && usable(&all) == 0);
        assert!(all.apply(&up(1, FLAG_UP | FLAG_RUNNING)) && usable(&all) == 1);
        assert!(all.apply(&Message::AddressGone(address(1, 1))) && usable(&all) == 0);
        assert!(all.apply(&Message::LinkGone(1)) && all.all().count() == 0);
        assert!(!all.apply(&Message::Address(address(1, 2))), "of one that has gone");
    }

    #[test]
    fn kinds_are_told_apart() {
        let kind = |hardware_type: u16, flags: u32| {
            let mut all = Interfaces::default();
            all.apply(&Message::Link(LinkChange { index: 1, hardware_type, flags, ..LinkChange::default() }));
            let kinds: Vec<Kind> = all.all().map(Interface::kind).collect();
            kinds[0].name()
        };
        assert_eq!(kind(772, FLAG_LOOPBACK), "loopback");
        assert_eq!(kind(1, 0), "ethernet");
        assert_eq!(kind(0xfffe, FLAG_POINT_TO_POINT), "tunnel");
        assert_eq!(kind(512, FLAG_POINT_TO_POINT), "point_to_point");
        assert_eq!(kind(24, 0), "other");
    }

    #[test]
    fn no_more_are_kept_than_the_limits_say() {
        let mut all = Interfaces::default();
        for index in 0..u32::try_from(INTERFACES_MAX).unwrap() {
            assert!(all.apply(&up(index, 0)));
        }
        assert!(!all.apply(&up(u32::MAX, 0)));
        assert!(all.apply(&up(0, FLAG_UP)), "one that is known still changes");
        for last in 0..=255 {
            assert!(all.apply(&Message::Address(address(0, last))));
        }
        let beyond = AddressChange { address: IpAddr::from([10, 0, 0, 1]), ..address(0, 0) };
        assert!(!all.apply(&Message::Address(beyond)));
    }
}
