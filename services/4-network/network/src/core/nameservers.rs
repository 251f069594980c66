//! Who is asked for names: what the operator has set, or else what the host asks itself.

use ::core::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::Deserialize;
use thiserror::Error;

use super::limits::{CONNECTS_A_SECOND_MAX, CONNECTS_AT_ONCE_MAX, CONNECTS_SET_MAX};

/// Servers that are asked, one after the other; as many as the C library looks at.
pub const NAMESERVERS_MAX: usize = 3;
/// Bytes of the settings, and of the host's own list.
pub const SETTINGS_BYTES_MAX: usize = 64 * 1024;
const PORT: u16 = 53;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    #[error("network.toml has more than {SETTINGS_BYTES_MAX} bytes")]
    TooLong,
    #[error("network.toml: {0}")]
    Malformed(String),
    #[error(
        "network.toml: nameservers: {0:?} is no address such as 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53"
    )]
    Nameserver(String),
    #[error("network.toml: {0} = {1}: from 1 to {CONNECTS_SET_MAX}")]
    Rate(&'static str, u32),
    #[error("network.toml: {0} nameservers, at most {NAMESERVERS_MAX} are asked")]
    TooMany(usize),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    nameservers: Vec<String>,
    programs: Programs,
}

/// What holds each program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Programs {
    /// Connects in a row, and a second from then on.
    pub connects_at_once: u32,
    pub connects_a_second: u32,
}

impl Default for Programs {
    fn default() -> Self {
        Self { connects_at_once: CONNECTS_AT_ONCE_MAX, connects_a_second: CONNECTS_A_SECOND_MAX }
    }
}

impl Programs {
    fn check(self) -> Result<Self, SettingsError> {
        let set =
            [("connects_at_once", self.connects_at_once), ("connects_a_second", self.connects_a_second)];
        match set.into_iter().find(|(_, count)| !(1..=CONNECTS_SET_MAX).contains(count)) {
            Some((name, count)) => Err(SettingsError::Rate(name, count)),
            None => Ok(self),
        }
    }
}

/// What the operator has set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Empty: those that the host asks.
    pub nameservers: Vec<SocketAddr>,
    pub programs: Programs,
}

impl Settings {
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        if text.len() > SETTINGS_BYTES_MAX {
            return Err(SettingsError::TooLong);
        }
        let file: File = toml::from_str(text).map_err(|error| SettingsError::Malformed(error.to_string()))?;
        if file.nameservers.len() > NAMESERVERS_MAX {
            return Err(SettingsError::TooMany(file.nameservers.len()));
        }
        let read = |text: &String| place(text).ok_or_else(|| SettingsError::Nameserver(text.clone()));
        let nameservers = file.nameservers.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { nameservers, programs: file.programs.check()? })
    }
}

fn place(text: &str) -> Option<SocketAddr> {
    let place = match IpAddr::from_str(text) {
        Ok(ip) => SocketAddr::new(ip, PORT),
        Err(_) => text.parse().ok()?,
    };
    (place.port() != 0 && !place.ip().is_unspecified()).then_some(place)
}

/// The first few of `resolv.conf`; what cannot be read there, as an address of one link, is passed over as the C library does.
#[must_use]
pub fn of_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_one = words.next() == Some("nameserver");
        IpAddr::from_str(words.next().filter(|_| is_one)?).ok()
    });
    servers.map(|ip| SocketAddr::new(ip, PORT)).take(NAMESERVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn settings_are_read_and_what_is_wrong_is_named() {
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
        let set =
            Settings::parse(r#"nameservers = ["192.0.2.53", "127.0.0.1:5353", "2001:db8::53"]"#).unwrap();
        assert_eq!(set.nameservers, servers(&["192.0.2.53:53", "127.0.0.1:5353", "[2001:db8::53]:53"]));
        for text in ["dns.example", "", "192.0.2.53:0", "0.0.0.0", "192.0.2.53:x"] {
            let error = Settings::parse(&format!("nameservers = [{text:?}]")).unwrap_err();
            assert_eq!(error, SettingsError::Nameserver(text.to_owned()));
        }
        assert!(matches!(Settings::parse("nameserver = []"), Err(SettingsError::Malformed(_))));
        let many = |count| Settings::parse(&format!("nameservers = [{}]", "\"::1\",".repeat(count)));
        assert!(many(NAMESERVERS_MAX).is_ok());
        assert_eq!(many(NAMESERVERS_MAX + 1), Err(SettingsError::TooMany(NAMESERVERS_MAX + 1)));
        let padded = |bytes: usize| Settings::parse(&format!("#{}", "x".repeat(bytes - 1)));
        assert!(padded(SETTINGS_BYTES_MAX).is_ok());
        assert_eq!(padded(SETTINGS_BYTES_MAX + 1), Err(SettingsError::TooLong));
    }

    #[test]
    fn how_often_a_program_may_connect_is_set_within_bounds() {
        let set = |text: &str| Settings::parse(&format!("[programs]\n{text}")).map(|set| set.programs);
        assert_eq!(set(""), Ok(Programs::default()));
        let most = Programs { connects_at_once: CONNECTS_SET_MAX, ..Programs::default() };
        assert_eq!(set(&format!("connects_at_once = {CONNECTS_SET_MAX}")), Ok(most));
        for (name, count) in [("connects_at_once", CONNECTS_SET_MAX + 1), ("connects_a_second", 0)] {
            assert_eq!(set(&format!("{name} = {count}")), Err(SettingsError::Rate(name, count)));
        }
        assert!(matches!(set("connects = 1"), Err(SettingsError::Malformed(_))));
    }

    #[test]
    fn the_hosts_own_list_is_read_as_the_c_library_reads_it() {
        let text = "# nameserver 192.0.2.1\nsearch example.org\nnameserver\t192.0.2.53\noptions edns0\n\
                    nameserver fe80::1%eth0\nnameserver 2001:db8::53 # one\nnameserver 192.0.2.54\nnameserver 192.0.2.55\n";
        assert_eq!(of_resolv_conf(text), servers(&["192.0.2.53:53", "[2001:db8::53]:53", "192.0.2.54:53"]));
        assert_eq!(
            of_resolv_conf("nameservers 192.0.2.1\n nameserver 192.0.2.2"),
            servers(&["192.0.2.2:53"])
        );
        assert!(of_resolv_conf("").is_empty());
    }
}
