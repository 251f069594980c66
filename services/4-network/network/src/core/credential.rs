//! A secret that is put into what a program asks one place for: which requests are meant, where they go on to, and what becomes
//! of their headers.

use ::core::fmt;

use hyper::{
    HeaderMap, Method,
    body::Bytes,
    header::{HeaderName, HeaderValue},
};
use kit::way_out::{self, SECRET_MARK};
use zeroize::Zeroizing;

use super::{CallError, Schemes, Target};

/// Wherefrom plain requests to the usual port of TLS come.
const PLAIN_PORT: u16 = 80;
const TLS_PORT: u16 = 443;

/// What becomes of the secret.
#[derive(Clone)]
enum Value {
    /// As the header has it. What it is kept in is wiped with the last who has it.
    Held(HeaderValue),
    /// It is not here, for this reason.
    Withheld(String),
    /// Whoever starts the program has it no more, for this reason.
    Lost(String),
}

/// Of one program, for one place.
#[derive(Clone)]
pub struct Credential {
    secret: String,
    host: String,
    port: u16,
    header: HeaderName,
    /// Who alone vouches for the host; empty if those of calls do.
    authority: String,
    value: Value,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret {} for {} in {}", self.secret, self.place(), self.header)
    }
}

impl Credential {
    pub fn new(given: way_out::Credential) -> Result<Self, String> {
        let wrong = |error: CallError| format!("{}: {error}", given.host);
        let target = Target::parse(&format!("https://{}/", given.host), Schemes::Http).map_err(wrong)?;
        let header = HeaderName::from_bytes(given.header.as_bytes())
            .map_err(|_| format!("{:?} is no name of a header", given.header))?;
        let value = match &given.value {
            Some(secret) => Value::Held(
                filled(&given.format, secret)
                    .ok_or_else(|| format!("the secret {} is nothing that a header can say", given.secret))?,
            ),
            None => {
                let why = match given.withheld.as_str() {
                    "" => "whoever started the program has it no more",
                    why => why,
                };
                Value::Lost(format!("{why}; see to it, and start the program again"))
            }
        };
        let (host, port) = (target.host().to_owned(), target.port());
        Ok(Self { secret: given.secret, host, port, header, authority: given.authority, value })
    }

    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// `HOST:PORT`, as decisions name it.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// As decisions and the log name it.
    #[must_use]
    pub fn named(&self) -> String {
        format!("{}@{}", self.secret, self.place())
    }

    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        Some(self.authority.as_str()).filter(|pem| !pem.is_empty())
    }

    /// Whether a plain request is meant: to its host, on its port or, where that is the usual one of TLS, on the usual one
    /// without. A tunnel is not: nobody here sees what is asked in it.
    #[must_use]
    pub fn is_for(&self, asked: &Target) -> bool {
        let port = asked.port();
        let is_port = port == self.port || (self.port == TLS_PORT && port == PLAIN_PORT);
        !asked.is_tls() && asked.host() == self.host && is_port
    }

    /// Where such a request goes on to: the same place, by TLS.
    pub fn upstream(&self, asked: &Target) -> Result<Target, CallError> {
        Target::parse(&format!("https://{}{}", self.place(), asked.path()), Schemes::Http)
    }

    /// Where it is not here, why not.
    pub fn held(&self) -> Result<(), CallError> {
        match &self.value {
            Value::Held(_) => Ok(()),
            Value::Withheld(why) | Value::Lost(why) => {
                Err(CallError::PolicyDenied(format!("the secret {} is withheld: {why}", self.secret)))
            }
        }
    }

    /// Why, if it is not here though nobody has decided so.
    #[must_use]
    pub fn lost(&self) -> Option<&str> {
        match &self.value {
            Value::Lost(why) => Some(why),
            Value::Held(_) | Value::Withheld(_) => None,
        }
    }

    /// From here on it is not here. What is not already, keeps its reason.
    pub fn withhold(&mut self, why: &str) {
        if matches!(self.value, Value::Held(_)) {
            self.value = Value::Withheld(why.to_owned());
        }
    }

    /// What the program may ask for in its name. `TRACE` has what was sent said back.
    pub fn permits(&self, method: &Method) -> Result<(), CallError> {
        // Servers are not all strict about its spelling, and some have it by another name.
        match ["TRACE", "TRACK"].iter().any(|name| method.as_str().eq_ignore_ascii_case(name)) {
            true => {
                let text = format!("TRACE would say the secret {} back to the program", self.secret);
                Err(CallError::PolicyDenied(text))
            }
            false => Ok(()),
        }
    }

    /// What the program said in its place goes, also in the spelling that servers take for the same.
    pub fn put_into(&self, headers: &mut HeaderMap) -> Result<(), CallError> {
        self.held()?;
        let own = self.header.as_str().replace('_', "-");
        let same: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().replace('_', "-") == own).cloned().collect();
        same.iter().for_each(|name| drop(headers.remove(name)));
        if let Value::Held(value) = &self.value {
            headers.insert(self.header.clone(), value.clone());
        }
        Ok(())
    }

    /// The same one, whatever became of the value.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.secret, &self.host, self.port) == (&other.secret, &other.host, other.port)
    }
}

/// None if no header can say it.
fn filled(format: &str, secret: &[u8]) -> Option<HeaderValue> {
    let (before, behind) = format.split_once(SECRET_MARK)?;
    let text = Zeroizing::new([before.as_bytes(), secret, behind.as_bytes()].concat());
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::way_out::Written;

    fn credential(host: &str, header: &str, format: &str) -> Credential {
        let written = Written { secret: "key", host, header, format, ..Written::default() };
        let value = Some(Zeroizing::new(b"s3cret".to_vec()));
        Credential::new(way_out::Credential::new(written, value).unwrap()).unwrap()
    }

    fn target(text: &str) -> Target {
        Target::parse(text, Schemes::Http).unwrap()
    }

    #[test]
    fn one_place_is_meant_and_it_is_reached_by_tls_alone() {
        let usual = credential("API.test.", "", "");
        for (url, goes_to) in [
            ("http://api.test/a?b=c", "https://api.test/a?b=c"),
            ("http://API.test.:80/", "https://api.test/"),
            ("http://api.test:443/x", "https://api.test/x"),
        ] {
            assert!(usual.is_for(&target(url)), "{url}");
            assert_eq!(usual.upstream(&target(url)).unwrap().as_str(), goes_to);
        }
        for url in [
            "http://api.test:8080/",
            "http://api.test.evil.test/",
            "http://xapi.test/",
            "http://sub.api.test/",
            "http://test/",
            "https://api.test/",
        ] {
            assert!(!usual.is_for(&target(url)), "{url}");
        }
        let other = credential("api.test:8443", "", "");
        assert!(other.is_for(&target("http://api.test:8443/")));
        assert!(!other.is_for(&target("http://api.test/")) && !other.is_for(&target("http://api.test:443/")));
        assert_eq!(
            other.upstream(&target("http://api.test:8443/x")).unwrap().as_str(),
            "https://api.test:8443/x"
        );
        let six = credential("[2001:DB8::1]:8443", "", "");
        assert!(six.is_for(&target("http://[2001:db8:0::1]:8443/")));
        assert_eq!(six.place(), "[2001:db8::1]:8443");
    }

    #[test]
    fn a_header_of_the_programs_own_is_replaced_however_it_is_spelt() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-api-key", "a"), ("x-api-key", "b"), ("x_api_key", "c"), ("x-api-keys", "d")]
        {
            headers.append(name, HeaderValue::from_static(value));
        }
        credential("api.test", "X-Api-Key", "key={};").put_into(&mut headers).unwrap();
        let all: Vec<&HeaderValue> = headers.get_all("x-api-key").iter().collect();
        assert_eq!(all, ["key=s3cret;"]);
        assert!(all[0].is_sensitive());
        assert!(!headers.contains_key("x_api_key") && headers.contains_key("x-api-keys"));
    }

    #[test]
    fn what_is_withheld_is_put_into_nothing_and_shown_nowhere() {
        let mut held = credential("api.test", "", "");
        assert!(held.held().is_ok() && !format!("{held:?}").contains("s3cret"));
        held.withhold("it was taken back");
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("mine"));
        let refused = held.put_into(&mut headers).unwrap_err().to_string();
        assert!(refused.contains("taken back"), "{refused}");
        assert!(held.is_same(&credential("api.test", "x-other", "")));
        assert!(!held.is_same(&credential("api.test:8443", "", "")));
        let written = Written { secret: "key", host: "api.test", ..Written::default() };
        let lost = Credential::new(way_out::Credential::new(written, None).unwrap()).unwrap();
        assert!(lost.held().unwrap_err().to_string().contains("start the program again"));
        assert!(lost.lost().is_some() && held.lost().is_none());
        let named = way_out::Credential::withheld(written, "its file is gone").unwrap();
        let mut named = Credential::new(named).unwrap();
        named.withhold("another reason");
        assert!(named.lost().unwrap().contains("its file is gone"));
        assert!(held.permits(&Method::GET).is_ok() && held.permits(&Method::TRACE).is_err());
    }
}
