//! How a program's connection goes: by the kernel alone, or through a relay of this service.

use chain::payload::network::NetworkGrant;

/// Where one address serves many names, and who connects says in the first bytes which one is meant.
const WEB_PORTS: [u16; 2] = [80, 443];

/// Whether who is let out to a name has to ask for it there. Elsewhere a server may be the first to speak, and the address that was
/// answered is all that binds.
#[must_use]
pub fn asks_by_name(port: u16) -> bool {
    WEB_PORTS.contains(&port)
}

/// What was decided about a flow beside that it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The program's own socket, at the kernel's full speed.
    Direct,
    Relay(Relay),
}

/// What a relay holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Of whom its first bytes have to ask for one; none if for nobody.
    pub names: Vec<String>,
    pub send: bool,
    pub recv: bool,
    /// Bytes a second, both ways together; 0 is no limit.
    pub bandwidth_limit: u64,
}

impl Way {
    /// `names`: the address was allowed as theirs, and can be many others'.
    #[must_use]
    pub fn of(grant: &NetworkGrant, names: Vec<String>) -> Self {
        let NetworkGrant { send, recv, bandwidth_limit, .. } = *grant;
        match send && recv && bandwidth_limit == 0 && names.is_empty() {
            true => Self::Direct,
            false => Self::Relay(Relay { names, send, recv, bandwidth_limit }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::DurationNs;

    #[test]
    fn the_ports_of_the_web_are_asked_by_name() {
        let asked: Vec<u16> = (0..=u16::MAX).filter(|port| asks_by_name(*port)).collect();
        assert_eq!(asked, [80, 443]);
    }

    /// covers: NET-32
    #[test]
    fn whatever_has_to_be_held_while_it_is_carried_goes_through_the_relay() {
        let free = NetworkGrant::UNLIMITED;
        assert_eq!(Way::of(&free, Vec::new()), Way::Direct);
        // Its end is the monitor's to make.
        assert_eq!(Way::of(&NetworkGrant { duration_limit: DurationNs(1), ..free }, Vec::new()), Way::Direct);
        for (grant, names) in [
            (NetworkGrant { send: false, ..free }, Vec::new()),
            (NetworkGrant { recv: false, ..free }, Vec::new()),
            (NetworkGrant { bandwidth_limit: 1, ..free }, Vec::new()),
            (free, vec!["api.example.org".to_owned()]),
        ] {
            let Way::Relay(relay) = Way::of(&grant, names.clone()) else { panic!("{grant:?} {names:?}") };
            assert_eq!(
                (relay.send, relay.recv, relay.bandwidth_limit),
                (grant.send, grant.recv, grant.bandwidth_limit)
            );
            assert_eq!(relay.names, names);
        }
    }
}
