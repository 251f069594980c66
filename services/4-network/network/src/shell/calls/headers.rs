//! Headers of a request: what a caller may say, and what is ours.

use contracts::network::v1 as wire;
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use kit::way_out::is_withheld_from_callers;

use crate::core::{CallError, NetError, limits::HEADERS_MAX};

/// Of WebSocket's handshake; the subprotocols are named beside.
const HANDSHAKE: &str = "sec-websocket-";
/// Not told to another origin (open point 9).
pub(super) const CREDENTIALS: [&str; 2] = ["authorization", "cookie"];

/// Refuses what is no header before it says that there are too many bytes of them.
pub(super) fn read(
    headers: &[wire::Header],
    bytes_max: u32,
) -> Result<Result<HeaderMap, CallError>, NetError> {
    if headers.len() > HEADERS_MAX {
        return Ok(Err(CallError::Other(format!(
            "too large: {} headers, at most {HEADERS_MAX}",
            headers.len()
        ))));
    }
    let mut read = HeaderMap::with_capacity(headers.len());
    let mut bytes = 0usize;
    for header in headers {
        bytes = bytes.saturating_add(header.name.len()).saturating_add(header.value.len()).saturating_add(4);
        if bytes > bytes_max as usize {
            return Ok(Err(CallError::too_large("the request's head", u64::from(bytes_max))));
        }
        let shown = base::visible(&header.name).chars().take(64).collect::<String>();
        let wrong = |text: &str| NetError::invalid("headers", format!("{shown:?} {text}"));
        let name =
            HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| wrong("is no name of a header"))?;
        if is_withheld_from_callers(name.as_str()) || name.as_str().starts_with(HANDSHAKE) {
            return Err(wrong("is not for a caller to set"));
        }
        let value = HeaderValue::from_str(&header.value)
            .or_else(|_| HeaderValue::from_bytes(header.value.as_bytes()))
            .map_err(|_| wrong("has a value with control characters"))?;
        read.append(name, value);
    }
    Ok(Ok(read))
}

/// As the contract says them; bytes that are no text are read as Latin-1.
pub(super) fn write(headers: &HeaderMap) -> Vec<wire::Header> {
    let text = |value: &HeaderValue| match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => value.as_bytes().iter().copied().map(char::from).collect(),
    };
    headers
        .iter()
        .map(|(name, value)| wire::Header { name: name.as_str().to_owned(), value: text(value) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::limits::CALL_LIMITS_DEFAULT;

    fn check(headers: &[(&str, &str)]) -> Result<Result<HeaderMap, CallError>, NetError> {
        let headers: Vec<wire::Header> = headers
            .iter()
            .map(|(name, value)| wire::Header { name: (*name).to_owned(), value: (*value).to_owned() })
            .collect();
        read(&headers, CALL_LIMITS_DEFAULT.header_bytes)
    }

    #[test]
    fn a_caller_says_nothing_about_the_connection() {
        for name in ["host", "max-forwards"] {
            assert!(check(&[(name, "x")]).is_err(), "{name}");
            assert!(check(&[(&name.to_uppercase(), "x")]).is_err(), "{name}");
        }
        for (name, value) in [
            ("sec-websocket-key", "x"),
            ("", "x"),
            ("a b", "x"),
            ("a:", "x"),
            ("x\r\nhost", "x"),
            ("x", "a\r\nhost: evil.test"),
            ("x", "a\nb"),
            ("x", "a\0b"),
        ] {
            assert!(check(&[(name, value)]).is_err(), "{name:?} {value:?}");
        }
        let read = check(&[("Accept", "a"), ("accept", "b"), ("x", "ü\t")]).unwrap().unwrap();
        assert_eq!(read.get_all("accept").iter().count(), 2);
        assert_eq!(write(&read).len(), 3);
    }

    #[test]
    fn a_head_has_so_many_bytes_and_names() {
        let most = CALL_LIMITS_DEFAULT.header_bytes as usize;
        assert!(check(&[("x", &"v".repeat(most - 5))]).unwrap().is_ok());
        assert!(check(&[("x", &"v".repeat(most - 4))]).unwrap().is_err());
        assert!(check(&vec![("x", "v"); HEADERS_MAX]).unwrap().is_ok());
        assert!(check(&vec![("x", "v"); HEADERS_MAX + 1]).unwrap().is_err());
    }
}
