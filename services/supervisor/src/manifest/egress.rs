use kit::way_out::{Credential, EGRESS_BYTES_MAX, EGRESS_MAX, Written, check_all};
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
    /// Secrets that `network` puts into what is asked of the proxy. The program never has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<CredentialConfig>,
}

/// A secret for one host: a plain request to the host, made of the proxy, goes on by TLS, with the secret in a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialConfig {
    /// `HOST` or `HOST:PORT`, which is the port of TLS; left out, 443.
    pub host: String,
    /// Its name, which stands in decisions and in the log.
    pub secret: String,
    /// File of the host in which it is, where the program does not see it; read at each start.
    pub path: String,
    /// Left out: `authorization`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub header: String,
    /// `{}` is where the secret stands. Left out: `Bearer {}` of `authorization`, `{}` of any other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// File of the host with the one certificate (PEM) that vouches for the host. Left out: those that vouch for the hosts of calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

impl CredentialConfig {
    #[must_use]
    pub fn written<'a>(&'a self, authority: &'a str) -> Written<'a> {
        Written {
            secret: &self.secret,
            host: &self.host,
            header: &self.header,
            format: &self.format,
            authority,
        }
    }
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

    /// What is wrong with its credentials, as far as it can be told without reading them.
    #[must_use]
    pub fn credential_fault(&self) -> Option<String> {
        let files = self.credentials.iter().flat_map(|one| [Some(&one.path), one.authority.as_ref()]);
        if let Some(path) = files.flatten().find(|path| !path.starts_with('/') || path.contains('\0')) {
            return Some(format!("{path:?} is no absolute path of a file"));
        }
        let read = self.credentials.iter().map(|one| Credential::new(one.written(""), None));
        match read.collect::<Result<Vec<_>, _>>() {
            Err(wrong) => Some(wrong),
            Ok(all) if !all.is_empty() && !self.proxy => check_all(&all)
                .err()
                .or_else(|| Some("they are put in by the proxy; say proxy = true".to_owned())),
            Ok(all) => check_all(&all).err(),
        }
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
        let of = |allow: Vec<String>| EgressConfig { allow, proxy: false, credentials: Vec::new() }.fault();
        let place = || "192.0.2.1:443".to_owned();
        assert_eq!(of(vec![place(); EGRESS_MAX]), None);
        assert!(of(vec![place(); EGRESS_MAX + 1]).is_some() && of(Vec::new()).is_some());
        assert_eq!(of(vec!["x".repeat(EGRESS_BYTES_MAX)]), None);
        for wrong in ["x".repeat(EGRESS_BYTES_MAX + 1), String::new(), "a b".to_owned(), "a\0".to_owned()] {
            assert!(of(vec![place(), wrong.clone()]).is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn credentials_are_for_one_place_each_and_need_the_proxy() {
        let of = |text: &str| {
            let egress: EgressConfig = toml::from_str(&format!("allow = [\"api.test\"]\n{text}")).unwrap();
            egress.credential_fault()
        };
        let one = "[[credentials]]\nhost = \"api.test\"\nsecret = \"key\"\npath = \"/k\"\n";
        let other = one.replace("api.test", "b.test");
        assert_eq!(of(&format!("proxy = true\n{one}{other}")), None);
        assert_eq!(of(""), None);
        for (wrong, why) in [
            (one.to_owned(), "proxy = true"),
            (format!("proxy = true\n{one}{one}"), "two credentials"),
            (format!("proxy = true\n{}", one.replace("/k", "k")), "absolute"),
            (format!("proxy = true\n{}", one.replace("api.test", "*.test")), "no place"),
            (format!("proxy = true\n{one}header = \"host\""), "no header"),
            (format!("proxy = true\n{one}format = \"x\""), "no format"),
            (format!("proxy = true\n{one}authority = \"ca.pem\""), "absolute"),
        ] {
            let fault = of(&wrong).unwrap_or_default();
            assert!(fault.contains(why), "{wrong}: {fault}");
        }
    }
}
