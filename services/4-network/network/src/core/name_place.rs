//! Places that are names: `api.example.com`, `api.example.com:8443`, and `*.example.com` for what lies below.

use ::core::{fmt, str::FromStr};

use super::{HostName, NameError, NetError};

/// Of a place that names none: that of HTTPS.
const PORT_DEFAULT: u16 = 443;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamePlace {
    name: HostName,
    /// What lies below the name is meant, and not the name itself.
    below: bool,
    port: Option<u16>,
}

impl NamePlace {
    pub(super) fn has(&self, name: &HostName) -> bool {
        if self.below { name.is_below(&self.name) } else { *name == self.name }
    }

    pub(super) fn allows(&self, name: &HostName, port: u16) -> bool {
        self.has(name) && self.port.is_none_or(|own| own == port)
    }

    /// A place that is neither an address nor meant as one.
    pub(super) fn parse(text: &str) -> Result<Self, NetError> {
        let wrong = |why: &dyn fmt::Display| {
            let form = "NAME, NAME:PORT or *.NAME:PORT; the port is 443 if it is left out, and may be *";
            NetError::invalid("egress", format!("{text:?}: {why}; a name is {form}"))
        };
        let (host, port) = match text.rsplit_once(':') {
            None => (text, Some(PORT_DEFAULT)),
            Some((host, "*")) => (host, None),
            Some((host, port)) => {
                let port = parse_port(port).ok_or_else(|| wrong(&"the port is no number from 1 to 65535"))?;
                (host, Some(port))
            }
        };
        let (below, host) = match host.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, host),
        };
        let name = HostName::from_str(host).map_err(|error| wrong(&error))?;
        if let Some(kind) = name.special() {
            return Err(wrong(&NameError::Special(kind)));
        }
        // What everybody can register below says nothing about who is reached.
        if below && !name.as_str().contains('.') {
            return Err(wrong(&"all names of a top-level domain are no place"));
        }
        Ok(Self { name, below, port })
    }
}

/// 1 to 65535, in one spelling but for zeros in front.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
        .filter(|port| *port > 0)
}

impl fmt::Display for NamePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.below {
            f.write_str("*.")?;
        }
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.name),
            None => write!(f, "{}:*", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_meaning() {
        for (text, shown) in [
            ("api.example.com", "api.example.com:443"),
            ("API.example.com.:8443", "api.example.com:8443"),
            ("*.Example.com", "*.example.com:443"),
            ("*.example.com:*", "*.example.com:*"),
            ("bücher.example:80", "xn--bcher-kva.example:80"),
            ("printer:631", "printer:631"),
        ] {
            assert_eq!(NamePlace::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn a_place_means_its_name_or_what_is_below() {
        let allows = |place: &str, name: &str, port: u16| {
            NamePlace::parse(place).unwrap().allows(&name.parse().unwrap(), port)
        };
        assert!(allows("api.example.com", "API.example.com.", 443));
        assert!(!allows("api.example.com", "api.example.com", 80));
        assert!(!allows("api.example.com", "v1.api.example.com", 443));
        assert!(!allows("api.example.com", "example.com", 443));
        assert!(allows("*.example.com:*", "a.b.example.com", 22));
        assert!(!allows("*.example.com:*", "example.com", 22));
        assert!(!allows("*.example.com:*", "evilexample.com", 22));
    }
}
