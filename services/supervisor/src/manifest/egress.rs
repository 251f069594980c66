use kit::way_out::{EGRESS_BYTES_MAX, EGRESS_MAX};
use serde::{Deserialize, Serialize};

/// `[egress]`: whereto a `[program]` may connect out of its own network. Each connect is decided by policy as that of the
/// service, and on record, before anything is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressConfig {
    /// As `run --egress` takes them: addresses with a port, ranges of them, and names; `/udp` behind one is for datagrams.
    pub allow: Vec<String>,
    /// A proxy on its loopback, and the variables that name it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proxy: bool,
}

impl EgressConfig {
    /// What is wrong with its places, as far as it can be told without `network`, which reads them.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.allow.is_empty() || self.allow.len() > EGRESS_MAX {
            return Some(format!("1 to {EGRESS_MAX} places are allowed, not {}", self.allow.len()));
        }
        let wrong = |place: &&String| {
            place.is_empty()
                || place.len() > EGRESS_BYTES_MAX
                || place.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        let place = self.allow.iter().find(wrong)?;
        Some(format!("{place:?} is no place; write ADDRESS:PORT or NAME, at most {EGRESS_BYTES_MAX} bytes"))
    }

    /// Whether a place is for datagrams, which leave its network as packets.
    #[must_use]
    pub fn has_datagrams(&self) -> bool {
        self.allow.iter().any(|place| place.ends_with("/udp"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{check_places, parse};

    #[test]
    fn a_place_that_its_reader_refuses_is_named_with_its_line() {
        let text = "version = 1\n[service]\nname = \"web\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n[program]\n\
                    image = \"/bin/true\"\n[egress]\nallow = [\n  \"a.example\",\n  \"wrong\",\n]\n";
        let loaded = parse("web.toml", text).unwrap();
        let read = |place: &str| if place == "wrong" { Err("it is no place".to_owned()) } else { Ok(()) };
        let errors = check_places(&loaded, read).unwrap_err();
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, ["web.toml:11:3: key `egress.allow[1]`: it is no place"]);
        assert_eq!(check_places(&loaded, |_| Ok(())), Ok(()));
    }

    #[test]
    fn places_are_bounded_in_number_and_length() {
        let of = |allow: Vec<String>| EgressConfig { allow, proxy: false }.fault();
        let place = || "192.0.2.1:443".to_owned();
        assert_eq!(of(vec![place(); EGRESS_MAX]), None);
        assert!(of(vec![place(); EGRESS_MAX + 1]).is_some() && of(Vec::new()).is_some());
        assert_eq!(of(vec!["x".repeat(EGRESS_BYTES_MAX)]), None);
        for wrong in ["x".repeat(EGRESS_BYTES_MAX + 1), String::new(), "a b".to_owned(), "a\0".to_owned()] {
            assert!(of(vec![place(), wrong.clone()]).is_some(), "{wrong:?}");
        }
    }
}
