//! Whereto a program was given a way out: what `run --egress` names, before any rule is asked.

use ::core::net::{IpAddr, SocketAddr};

use super::{
    HostName, NetError,
    address_place::{AddressPlace, is_address},
    asks_by_name,
    name_place::{NamePlace, parse_port},
    special::{is_hosts, special},
};

/// Places of one program.
pub const PLACES_MAX: usize = 64;

/// Everything that it may try.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    addresses: Vec<AddressPlace>,
    names: Vec<NamePlace>,
    /// The same for datagrams, if there are any.
    datagrams: Option<Box<Places>>,
}

/// Behind a place for datagrams; one for TCP may say so too.
const UDP: &str = "/udp";
const TCP: &str = "/tcp";

/// What a connect is to a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Policy is asked.
    Ask,
    /// Its own loopback, of which no other network knows.
    Own,
    /// Not named: for this reason.
    Refused(String),
}

/// A connect of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    pub reach: Reach,
    /// The name that leads there, if the program has asked for one.
    pub name: Option<HostName>,
    /// Because of which alone it may be asked, if no address was given: the address can be many others'.
    pub asks_for: Vec<HostName>,
}

/// Where one address serves many names, and what is sent is hidden from its first byte on.
const QUIC: &str =
    "nobody sees whom QUIC asks for, so no name leads there; name its address with --egress, or use TCP";

impl Places {
    pub fn parse(texts: &[String]) -> Result<Self, NetError> {
        if texts.len() > PLACES_MAX {
            return Err(NetError::invalid("egress", format!("{} places, at most {PLACES_MAX}", texts.len())));
        }
        let mut places = Self::default();
        for text in texts {
            match text.strip_suffix(UDP) {
                Some(place) => places.datagrams.get_or_insert_default().add_datagrams(place, text)?,
                None => places.add(text.strip_suffix(TCP).unwrap_or(text))?,
            }
        }
        Ok(places)
    }

    fn add(&mut self, text: &str) -> Result<(), NetError> {
        match is_address(text) {
            true => self.addresses.push(text.parse()?),
            false => self.names.push(NamePlace::parse(text)?),
        }
        Ok(())
    }

    /// A name has to say its port, and not that of QUIC alone.
    fn add_datagrams(&mut self, text: &str, whole: &str) -> Result<(), NetError> {
        if !is_address(text) {
            let wrong = |why: &str| Err(NetError::invalid("egress", format!("{whole:?}: {why}")));
            match text.rsplit_once(':') {
                None => return wrong("the port is missing; a name for datagrams is NAME:PORT/udp"),
                Some((_, port)) if parse_port(port).is_some_and(asks_by_name) => return wrong(QUIC),
                Some(_) => {}
            }
        }
        self.add(text)
    }

    #[must_use]
    pub fn has_datagrams(&self) -> bool {
        self.datagrams.is_some()
    }

    /// What a datagram is to the program, to whom it has not sent before.
    pub fn decide_datagram<'a>(
        &self,
        to: SocketAddr,
        hosts: Option<&[IpAddr]>,
        answered: impl IntoIterator<Item = &'a HostName>,
    ) -> Decided {
        let refused = |why: String| Decided { reach: Reach::Refused(why), name: None, asks_for: Vec::new() };
        let Some(places) = self.datagrams.as_deref().filter(|_| to.ip() == to.ip().to_canonical()) else {
            return refused(format!("{to} is not among the places of the program for datagrams"));
        };
        match places.decide(to, hosts, answered) {
            Decided { asks_for, .. } if !asks_for.is_empty() && asks_by_name(to.port()) => {
                refused(format!("{to}: {QUIC}"))
            }
            Decided { reach: Reach::Refused(why), .. } => refused(format!("by UDP: {why}")),
            decided => decided,
        }
    }

    /// Whether the name may be asked for.
    #[must_use]
    pub fn has_name(&self, name: &HostName) -> bool {
        let datagrams = || self.datagrams.as_deref().is_some_and(|places| places.has_name(name));
        self.names.iter().any(|place| place.has(name)) || datagrams()
    }

    /// Whether an address that a name has answered may be handed on: one that is special has to be named itself.
    #[must_use]
    pub fn takes(&self, ip: IpAddr, hosts: Option<&[IpAddr]>) -> bool {
        let (kind, is_hosts) = (special(ip), is_hosts(ip, hosts));
        let datagrams = self.datagrams.iter().flat_map(|places| &places.addresses);
        let mut all = self.addresses.iter().chain(datagrams);
        let mut is_named = || all.any(|place| place.has(ip) && place.means(kind, is_hosts));
        ip == ip.to_canonical() && ((kind.is_none() && !is_hosts) || is_named())
    }

    /// What a connect is to the program, of which these names have answered the address; and for which of them it is.
    pub fn decide<'a>(
        &self,
        to: SocketAddr,
        hosts: Option<&[IpAddr]>,
        answered: impl IntoIterator<Item = &'a HostName>,
    ) -> Decided {
        let allows = |name: &&HostName| self.names.iter().any(|place| place.allows(name, to.port()));
        let names: Vec<HostName> = answered.into_iter().filter(allows).cloned().collect();
        let name = names.first().cloned();
        let is_ordinary = special(to.ip()).is_none() && !is_hosts(to.ip(), hosts);
        match (self.reach(to, hosts), name) {
            (Reach::Refused(_), Some(name)) if is_ordinary => {
                Decided { reach: Reach::Ask, name: Some(name), asks_for: names }
            }
            (Reach::Refused(why), _) if !self.names.is_empty() => {
                let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
                let why = format!("{why}; none of its names answered it: {}", names.join(", "));
                Decided { reach: Reach::Refused(why), name: None, asks_for: Vec::new() }
            }
            (Reach::Ask, name) => Decided { reach: Reach::Ask, name, asks_for: Vec::new() },
            (reach, _) => Decided { reach, name: None, asks_for: Vec::new() },
        }
    }

    /// `to` is no IPv4 in the clothes of IPv6. `hosts` are the addresses of this host; none while they are not known.
    #[must_use]
    pub fn reach(&self, to: SocketAddr, hosts: Option<&[IpAddr]>) -> Reach {
        let (ip, kind) = (to.ip(), special(to.ip()));
        let is_hosts = is_hosts(ip, hosts);
        let fits = |place: &AddressPlace| place.is_at(to.port()) && place.has(ip);
        match self.addresses.iter().any(|place| fits(place) && place.means(kind, is_hosts)) {
            true => Reach::Ask,
            false if ip.is_loopback() || ip.is_unspecified() => Reach::Own,
            false => Reach::Refused(match kind {
                Some(kind) if self.addresses.iter().any(fits) => {
                    format!("{to} is {}; name its address with --egress", kind.name())
                }
                None if self.addresses.iter().any(fits) && hosts.is_none() => {
                    format!(
                        "which addresses are this host's is not known, and {to} may be one; name it with --egress"
                    )
                }
                None if self.addresses.iter().any(fits) => {
                    format!("{to} is this host itself; name its address with --egress")
                }
                _ => format!("{to} is not among the places of the program; name it with --egress"),
            }),
        }
    }
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
