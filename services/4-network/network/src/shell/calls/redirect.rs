//! Where an answer sends on to, and what of the request goes along (open point 9).

use chain::payload::network::ProcessClass;
use hyper::{
    HeaderMap, Method, StatusCode,
    body::Bytes,
    header::{CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, LOCATION},
};

use super::headers::CREDENTIALS;
use crate::core::{CallError, Target};

/// One request, as it is sent to one target.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Order {
    /// What is asked next; none if the answer is the answer.
    pub(super) fn next(
        &self,
        status: StatusCode,
        answer: &HeaderMap,
        class: &ProcessClass,
    ) -> Result<Option<Self>, CallError> {
        let drops_body = match status {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => false,
            _ => return Ok(None),
        };
        let Some(location) = answer.get(LOCATION) else { return Ok(None) };
        let location = std::str::from_utf8(location.as_bytes())
            .map_err(|_| CallError::InvalidUrl("the redirect is no text".to_owned()))?;
        let mut next = self.clone();
        next.target = self.target.join(location)?;
        if self.target.is_tls() && !next.target.is_tls() && *class == ProcessClass::Application {
            let text = format!("{} sends on to {}, without TLS", self.target.host(), next.target.as_str());
            return Err(CallError::PolicyDenied(text));
        }
        if !self.target.has_same_origin(&next.target) {
            CREDENTIALS.iter().for_each(|name| drop(next.headers.remove(*name)));
        }
        if drops_body {
            next.method = Method::GET;
            next.body = Bytes::new();
            [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE].iter().for_each(|name| {
                next.headers.remove(name);
            });
        }
        Ok(Some(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Schemes;
    use hyper::header::{AUTHORIZATION, COOKIE};

    fn order(method: Method, url: &str) -> Order {
        let headers = [(AUTHORIZATION, "Bearer x"), (COOKIE, "a=b"), (CONTENT_TYPE, "text/plain")];
        Order {
            method,
            target: Target::parse(url, Schemes::Http).unwrap(),
            headers: headers.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect(),
            body: Bytes::from_static(b"body"),
        }
    }

    fn next(from: &Order, status: u16, to: &str, class: &ProcessClass) -> Result<Option<Order>, CallError> {
        let answer = [(LOCATION, to.parse().unwrap())].into_iter().collect();
        from.next(StatusCode::from_u16(status).unwrap(), &answer, class)
    }

    #[test]
    fn credentials_stay_with_the_origin_and_a_body_with_its_method() {
        let system = ProcessClass::System;
        let from = order(Method::POST, "https://a.test/x");
        for (status, method, keeps) in [
            (301, Method::GET, false),
            (302, Method::GET, false),
            (303, Method::GET, false),
            (307, Method::POST, true),
            (308, Method::POST, true),
        ] {
            let next = next(&from, status, "/y", &system).unwrap().unwrap();
            assert_eq!((next.method, !next.body.is_empty()), (method, keeps), "{status}");
            assert_eq!(next.headers.contains_key(CONTENT_TYPE), keeps);
            assert!(next.headers.contains_key(AUTHORIZATION) && next.headers.contains_key(COOKIE));
        }
        for to in ["https://b.test/", "https://a.test:444/", "http://a.test/", "//a.test.evil.test/"] {
            let next = next(&from, 307, to, &system).unwrap().unwrap();
            assert!(!next.headers.contains_key(AUTHORIZATION) && !next.headers.contains_key(COOKIE), "{to}");
        }
        let put = order(Method::PUT, "https://a.test/x");
        assert_eq!(next(&put, 302, "/y", &system).unwrap().unwrap().method, Method::PUT);
        let head = order(Method::HEAD, "https://a.test/x");
        assert_eq!(next(&head, 303, "/y", &system).unwrap().unwrap().method, Method::HEAD);
    }

    #[test]
    fn what_sends_nowhere_is_the_answer_and_what_sends_astray_is_refused() {
        let application = ProcessClass::Application;
        let from = order(Method::GET, "https://a.test/x");
        for status in [200, 300, 304, 305, 404] {
            assert!(next(&from, status, "/y", &application).unwrap().is_none(), "{status}");
        }
        let without = from.next(StatusCode::FOUND, &HeaderMap::new(), &application);
        assert!(without.unwrap().is_none());
        let plain = next(&from, 302, "http://a.test/", &application);
        assert!(matches!(plain, Err(CallError::PolicyDenied(_))));
        assert!(next(&from, 302, "http://a.test/", &ProcessClass::Runtime).is_ok());
        for to in ["ftp://a.test/", "file:///etc/passwd", "https://user@b.test/", "https://[x/"] {
            assert!(matches!(next(&from, 302, to, &application), Err(CallError::InvalidUrl(_))), "{to}");
        }
    }
}
