//! Where a request goes. One spelling: what rules see is what is connected to.

use ::core::net::IpAddr;

use url::{Host, Url};

use super::{CallError, limits::URL_BYTES_MAX};

/// What a caller may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schemes {
    Http,
    WebSocket,
}

/// Parsed, without user, password and fragment. The scheme is `http` or `https`, also of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    url: Url,
    host: String,
    address: Option<IpAddr>,
    port: u16,
}

fn invalid(text: impl Into<String>) -> CallError {
    CallError::InvalidUrl(text.into())
}

impl Target {
    pub fn parse(text: &str, schemes: Schemes) -> Result<Self, CallError> {
        readable(text)?;
        // A host may be one slash away, or three, for who follows the web's rules; for nobody else.
        if text.split_once("://").is_none_or(|(_, rest)| rest.starts_with('/')) {
            return Err(invalid("a URL begins with its scheme, `://` and a host"));
        }
        let url = Url::parse(text).map_err(|error| invalid(format!("the URL cannot be read: {error}")))?;
        Self::of(url, schemes)
    }

    /// Where this one sends on to.
    pub fn join(&self, location: &str) -> Result<Self, CallError> {
        readable(location)?;
        let url = self.url.join(location);
        Self::of(
            url.map_err(|error| invalid(format!("the redirect cannot be read: {error}")))?,
            Schemes::Http,
        )
    }

    fn of(mut url: Url, schemes: Schemes) -> Result<Self, CallError> {
        let scheme = match (url.scheme(), schemes) {
            ("http", Schemes::Http) | ("ws", Schemes::WebSocket) => "http",
            ("https", Schemes::Http) | ("wss", Schemes::WebSocket) => "https",
            (other, _) => return Err(invalid(format!("scheme {other:?} is none of this call"))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("the URL names a user; say who you are in a header"));
        }
        url.set_scheme(scheme).map_err(|()| invalid("the scheme cannot be compared"))?;
        url.set_fragment(None);
        plain_escapes(&mut url)?;
        let (host, address) = match url.host() {
            Some(Host::Ipv4(v4)) => (v4.to_string(), Some(v4.into())),
            Some(Host::Ipv6(v6)) if v6.to_ipv4_mapped().is_some() => {
                return Err(invalid(format!("{v6} is an address of IPv4; write it as one")));
            }
            Some(Host::Ipv6(v6)) => (format!("[{v6}]"), Some(v6.into())),
            Some(Host::Domain(name)) => (bare(name)?, None),
            None => return Err(invalid("the URL names no host")),
        };
        url.set_host(Some(&host)).map_err(|error| invalid(format!("host {host:?}: {error}")))?;
        // Escapes take more room than what they stand for.
        readable(url.as_str())?;
        let port = url.port_or_known_default().filter(|port| *port != 0);
        let port = port.ok_or_else(|| invalid("there is no port 0"))?;
        Ok(Self { url, host, address, port })
    }

    /// The same with an address in the place of its host: how rules name what is special.
    #[must_use]
    pub fn at(&self, ip: IpAddr) -> Option<Self> {
        let mut url = self.url.clone();
        url.set_ip_host(ip).ok()?;
        Self::of(url, Schemes::Http).ok()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// In lower case, without a dot at its end; IPv6 in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// If the host is one.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// `host`, and the port if it is not the scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        self.url.port().map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }

    /// Path and query, as they are sent.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.url[url::Position::BeforePath..]
    }

    /// Credentials that were for the one are not for the other.
    #[must_use]
    pub fn has_same_origin(&self, other: &Self) -> bool {
        (self.is_tls(), &self.host, self.port) == (other.is_tls(), &other.host, other.port)
    }
}

fn readable(text: &str) -> Result<(), CallError> {
    if text.len() > URL_BYTES_MAX {
        return Err(invalid(format!("the URL has {} bytes, at most {URL_BYTES_MAX} are taken", text.len())));
    }
    // A parser of browsers leaves out what it finds of these, and two readers would see two addresses.
    if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'\\') {
        return Err(invalid("the URL has a blank, a control character or a backslash in it"));
    }
    Ok(())
}

/// A name without the dot of the root.
fn bare(name: &str) -> Result<String, CallError> {
    let bare = name.strip_suffix('.').unwrap_or(name);
    // What means something in a rule by URL is in no name, though the parser lets it pass.
    let is_of_names = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name = !bare.is_empty() && bare.bytes().all(is_of_names);
    match !is_name || bare.ends_with('.') || bare.starts_with('.') || bare.contains("..") {
        true => Err(invalid(format!("{name:?} is no name of a host"))),
        false => Ok(bare.to_ascii_lowercase()),
    }
}

/// `%61` is an `a`: a rule about a path must not be passed by in other letters.
fn plain_escapes(url: &mut Url) -> Result<(), CallError> {
    for _ in 0..2 {
        let text = unescape(url.as_str());
        if text == url.as_str() {
            return Ok(());
        }
        *url = Url::parse(&text).map_err(|error| invalid(format!("the URL cannot be read: {error}")))?;
    }
    match unescape(url.as_str()) == url.as_str() {
        true => Ok(()),
        false => Err(invalid("the URL has no one spelling")),
    }
}

pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let digits = after.get(..2).filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let escaped = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                out.push(char::from(byte));
                rest = after.get(2..).unwrap_or_default();
            }
            Some(byte) => {
                out.push_str(&format!("%{byte:02X}"));
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// A name that is asked for alone, as a host of a URL is read.
pub fn host_name(name: &str) -> Result<Target, CallError> {
    let text =
        if name.contains(':') && !name.starts_with('[') { format!("[{name}]") } else { name.to_owned() };
    if text.bytes().any(|byte| b"/?#@%".contains(&byte)) || (text.contains(':') && !text.ends_with(']')) {
        return Err(invalid(format!("{:?} is no name of a host", base::visible(name))));
    }
    Target::parse(&format!("https://{text}/"), Schemes::Http)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, CallError> {
        Target::parse(text, Schemes::Http).map(|target| target.as_str().to_owned())
    }

    /// covers: NET-53
    #[test]
    fn a_url_has_one_spelling() {
        for (text, expected) in [
            ("https://api.example.com/data", "https://api.example.com/data"),
            ("HTTPS://API.Example.COM./data#part", "https://api.example.com/data"),
            ("https://api.example.com:443", "https://api.example.com/"),
            ("http://a.test:8080/x/../y?q=%41%2f", "http://a.test:8080/y?q=A%2F"),
            ("http://a.test/%73ecret/%2e%2e/b", "http://a.test/b"),
            ("http://a.test/%2e%2e%2fb", "http://a.test/..%2Fb"),
            ("http://127.1/", "http://127.0.0.1/"),
            ("http://0x7f000001/", "http://127.0.0.1/"),
            ("http://2130706433/", "http://127.0.0.1/"),
            ("http://0177.0.0.1/", "http://127.0.0.1/"),
            ("http://127.0.0.1./", "http://127.0.0.1/"),
            ("http://%31%32%37.0.0.1/", "http://127.0.0.1/"),
            ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]/"),
            ("http://①②⑦.0.0.1/", "http://127.0.0.1/"),
            ("http://bücher.test/", "http://xn--bcher-kva.test/"),
            ("http://ＥＸＡＭＰＬＥ.test/", "http://example.test/"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
        let target = Target::parse("http://0x7f.1:81/a?b", Schemes::Http).unwrap();
        assert_eq!((target.address(), target.port()), (Some([127, 0, 0, 1].into()), 81));
        assert_eq!((target.authority().as_str(), target.path()), ("127.0.0.1:81", "/a?b"));
        assert_eq!(target.at([10, 0, 0, 1].into()).unwrap().as_str(), "http://10.0.0.1:81/a?b");
        let socket = Target::parse("wss://a.test/x", Schemes::WebSocket).unwrap();
        assert_eq!((socket.as_str(), socket.is_tls(), socket.port()), ("https://a.test/x", true, 443));
    }

    /// covers: NET-53
    #[test]
    fn what_cannot_be_read_in_one_way_is_refused() {
        for text in [
            "",
            "api.example.com",
            "/data",
            "http://",
            "https:///data",
            "https:data",
            "https:/data",
            "ftp://a.test/",
            "ws://a.test/",
            "file:///etc/passwd",
            "http://good.test@evil.test/",
            "http://user:secret@a.test/",
            "http://a.test\\@evil.test/",
            " http://a.test/",
            "http://a.te\tst/",
            "http://a.test/a b",
            "http://a.test:0/",
            "http://a.test:65536/",
            "http://a..test/",
            "http://2130706433*.test/",
            "http://a$b.test/",
            "http://a.test../",
            "http://.a.test/",
            "http://./",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[fe80::1%25eth0]/",
            "http://1.2.3.4.5/",
            "http://256.1.1.1/",
            "http://a%00b.test/",
        ] {
            assert!(matches!(shown(text), Err(CallError::InvalidUrl(_))), "{text:?}: {:?}", shown(text));
        }
        let long = |bytes: usize| shown(&format!("http://a.test/{}", "x".repeat(bytes - 14)));
        assert!(long(URL_BYTES_MAX).is_ok());
        assert!(long(URL_BYTES_MAX + 1).is_err());
        assert!(Target::parse("http://a.test/", Schemes::WebSocket).is_err());
    }

    #[test]
    fn a_name_alone_is_read_as_a_host_is() {
        assert_eq!(host_name("API.Example.com.").unwrap().host(), "api.example.com");
        assert_eq!(host_name("::1").unwrap().host(), "[::1]");
        for name in ["", "a.test/x", "a.test:80", "u@a.test", "a b", "a%2eb", "a?b"] {
            assert!(host_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_redirect_is_read_beside_where_it_comes_from() {
        let from = Target::parse("https://a.test/x/y", Schemes::Http).unwrap();
        assert_eq!(from.join("../z").unwrap().as_str(), "https://a.test/z");
        assert_eq!(from.join("//b.test/").unwrap().as_str(), "https://b.test/");
        assert!(!from.has_same_origin(&from.join("http://a.test/").unwrap()));
        assert!(from.has_same_origin(&from.join("https://A.test.:443/q").unwrap()));
        for wrong in ["ftp://a.test/", "javascript:1", "data:,x", "https://u@a.test/", "https://[/"] {
            assert!(matches!(from.join(wrong), Err(CallError::InvalidUrl(_))), "{wrong}");
        }
    }
}
