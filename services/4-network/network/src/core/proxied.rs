//! Whom a request to a program's proxy is for: what two readers could read differently is nobody's.

use hyper::{
    Method, Request, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
};

use super::{CallError, Schemes, Target, limits::URL_BYTES_MAX};

/// Of a tunnel nothing is known but where it leads; rules by URL see it as what is usual there.
pub fn tunnel_to(host: &str, port: u16) -> Result<Target, CallError> {
    let scheme = if port == 80 { "http" } else { "https" };
    if port == 0 || host.len() > URL_BYTES_MAX {
        return Err(CallError::InvalidUrl("nobody listens there".to_owned()));
    }
    Target::parse(&format!("{scheme}://{host}:{port}/"), Schemes::Http)
}

/// It cannot be read, or could be read in two ways.
#[must_use]
pub fn wrong(text: &str) -> CallError {
    CallError::InvalidUrl(text.to_owned())
}

/// Whom its one `Host` names; none where it may have none.
fn host<B>(request: &Request<B>) -> Result<Option<&str>, CallError> {
    let mut all = request.headers().get_all(HOST).iter();
    match (all.next(), all.next()) {
        (Some(one), None) => one.to_str().map(Some).map_err(|_| wrong("its Host cannot be read")),
        (None, _) if request.version() == Version::HTTP_10 || request.method() == Method::CONNECT => Ok(None),
        (None, _) => Err(wrong("it has no Host")),
        (Some(_), Some(_)) => Err(wrong("it names two hosts")),
    }
}

/// What is asked for. What its line and its `Host` say is the same, or nobody's.
pub fn asked<B>(request: &Request<B>) -> Result<Target, CallError> {
    let (uri, host) = (request.uri(), host(request)?);
    if request.headers().contains_key(CONTENT_LENGTH) && request.headers().contains_key(TRANSFER_ENCODING) {
        return Err(wrong("it says twice where its body ends"));
    }
    if request.method() == Method::CONNECT {
        let authority = uri.authority().ok_or_else(|| wrong("it names nobody"))?;
        let port = authority.port_u16().ok_or_else(|| wrong("CONNECT names a port"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("a user is named before the host"));
        }
        let target = tunnel_to(authority.host(), port)?;
        let same = host.is_none_or(|host| {
            // Some leave the port out here.
            host.eq_ignore_ascii_case(authority.as_str()) || host.eq_ignore_ascii_case(authority.host())
        });
        return if same { Ok(target) } else { Err(wrong("its line and its Host name two")) };
    }
    if uri.scheme_str() == Some("https") {
        return Err(wrong("a proxy is asked for https by CONNECT"));
    }
    if uri.authority().is_none() {
        return Err(wrong("this is a proxy: it is asked for whole URLs, http://HOST/…"));
    }
    let text = uri.to_string();
    if text.len() > URL_BYTES_MAX {
        return Err(wrong("its URL is too long"));
    }
    let target = Target::parse(&text, Schemes::Http)?;
    if let Some(host) = host {
        let said = Target::parse(&format!("http://{host}/"), Schemes::Http)?;
        if said.authority() != target.authority() || said.path() != "/" {
            return Err(wrong("its line and its Host name two"));
        }
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(request: hyper::http::request::Builder) -> String {
        asked(&request.body(()).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn what_names_two_or_nobody_is_refused() {
        let of = |method: &str, uri: &str, hosts: &[&str]| {
            hosts.iter().fold(Request::builder().method(method).uri(uri), |request, host| {
                request.header("host", *host)
            })
        };
        let ok = |method: &str, uri: &str, hosts: &[&str]| {
            asked(&of(method, uri, hosts).body(()).unwrap()).map(|target| target.as_str().to_owned()).unwrap()
        };
        assert_eq!(ok("GET", "http://a.test/x", &["A.test"]), "http://a.test/x");
        assert_eq!(ok("GET", "http://a.test:8080/", &["a.test:8080"]), "http://a.test:8080/");
        assert_eq!(ok("CONNECT", "a.test:443", &["a.test:443"]), "https://a.test/");
        assert_eq!(ok("CONNECT", "a.test:8443", &["a.test"]), "https://a.test:8443/");
        assert_eq!(ok("CONNECT", "a.test:80", &[]), "http://a.test/");
        for (method, uri, hosts, why) in [
            ("GET", "http://a.test/", &["b.test"][..], "name two"),
            ("GET", "http://a.test/", &["a.test", "a.test"], "two hosts"),
            ("GET", "http://a.test/", &["a.test:81"], "name two"),
            ("GET", "http://a.test/", &["a.test/x"], "name two"),
            ("GET", "http://a.test/", &[], "no Host"),
            ("GET", "https://a.test/", &["a.test"], "by CONNECT"),
            ("GET", "/x", &["a.test"], "this is a proxy"),
            ("CONNECT", "a.test:443", &["b.test:443"], "name two"),
            ("CONNECT", "a.test:443", &["a.test:443", "b.test:443"], "two hosts"),
        ] {
            let text = refused(of(method, uri, hosts));
            assert!(text.contains(why), "{method} {uri} {hosts:?}: {text}");
        }
        let twice = of("POST", "http://a.test/", &["a.test"]);
        let twice = twice.header("content-length", "3").header("transfer-encoding", "chunked");
        assert!(refused(twice).contains("twice"));
    }
}
