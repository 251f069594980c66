//! What a registry asks who it does not know: `WWW-Authenticate` (RFC 9110, section 11.6.1), and the token that answers it. Pure.

use serde::Deserialize;

/// Bytes of a token's document, and of a token: it goes into one header.
pub(super) const TOKEN_BYTES_MAX: u64 = 64 * 1024;
const TOKEN_HEADER_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a challenge.
const CHALLENGE_BYTES_MAX: usize = 4 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// Where a token is given.
    Bearer {
        url: String,
    },
}

impl Challenge {
    /// `origin` is who asks: one that is spoken to by TLS sends nobody elsewhere without it.
    pub(super) fn parse(text: &str, origin: &str) -> Result<Self, String> {
        if text.len() > CHALLENGE_BYTES_MAX {
            return Err(format!("its challenge has {} bytes, more than {CHALLENGE_BYTES_MAX}", text.len()));
        }
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Ok(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(format!(
                "it asks for {:?}, and only Basic and Bearer are understood",
                base::visible(scheme)
            ));
        }
        let parameters = parameters(rest)?;
        let of =
            |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let realm = of("realm").ok_or("its challenge does not say where a token is given")?;
        let is_plain = realm.starts_with("http://");
        if !(is_plain || realm.starts_with("https://")) || realm.contains(['#', ' ']) {
            return Err(format!("{:?} is no place at which a token is given", base::visible(realm)));
        }
        if is_plain && origin.starts_with("https://") {
            return Err(format!("it sends on to {:?}, without TLS, for a token", base::visible(realm)));
        }
        let mut url = realm.to_owned();
        for name in ["service", "scope"] {
            if let Some(value) = of(name) {
                url.push(if url.contains('?') { '&' } else { '?' });
                url.push_str(&format!("{name}={}", encoded(value)));
            }
        }
        Ok(Self::Bearer { url })
    }
}

/// `name="value"` and `name=value`, with commas between.
fn parameters(text: &str) -> Result<Vec<(String, String)>, String> {
    let broken = || "its challenge cannot be read".to_owned();
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(broken)?;
        let name = name.trim().to_ascii_lowercase();
        let value;
        if let Some(quoted) = after.strip_prefix('"') {
            let (inner, end) = unquoted(quoted).ok_or_else(broken)?;
            value = inner;
            rest = quoted.get(end..).unwrap_or_default().trim_start();
        } else {
            let end = after.find(',').unwrap_or(after.len());
            value = after.get(..end).unwrap_or_default().trim().to_owned();
            rest = after.get(end..).unwrap_or_default();
        }
        found.push((name, value));
        rest = match rest.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if rest.is_empty() => rest,
            None => return Err(broken()),
        };
    }
    Ok(found)
}

/// The text before the closing quote, and where what follows it begins.
fn unquoted(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, at + 1)),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b',' => {
                out.push(char::from(byte))
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[derive(Deserialize)]
struct Given {
    token: Option<String>,
    access_token: Option<String>,
}

/// The token in what was given.
pub(super) fn token(bytes: &[u8]) -> Result<String, String> {
    let given: Given =
        serde_json::from_slice(bytes).map_err(|error| format!("what was given is no token: {error}"))?;
    let token = given.token.or(given.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or("no token was given")?;
    let legal = token.bytes().all(|b| b.is_ascii_graphic());
    if !legal || token.len() > TOKEN_HEADER_BYTES_MAX {
        return Err(format!("a token has at most {TOKEN_HEADER_BYTES_MAX} printable bytes"));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_says_where_a_token_is_given_and_for_what() {
        let hub = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:library/nginx:pull\"";
        let url =
            "https://auth.docker.io/token?service=registry.docker.io&scope=repository:library/nginx:pull";
        assert_eq!(Challenge::parse(hub, "https://x"), Ok(Challenge::Bearer { url: url.to_owned() }));
        let odd = "bearer Realm=\"https://a.test/t?x=1\" , scope=\"a \\\"b\\\"&c\", error=none";
        let url = "https://a.test/t?x=1&scope=a%20%22b%22%26c";
        assert_eq!(Challenge::parse(odd, "https://x"), Ok(Challenge::Bearer { url: url.to_owned() }));
        assert_eq!(Challenge::parse("Basic realm=\"x\"", "https://x"), Ok(Challenge::Basic));
    }

    #[test]
    fn a_challenge_that_leads_astray_is_refused() {
        let plain = "Bearer realm=\"http://a.test/t\"";
        assert!(Challenge::parse(plain, "http://x").is_ok());
        assert!(Challenge::parse(plain, "https://x").is_err(), "nobody is sent on without TLS");
        let long = format!("Bearer realm=\"https://a.test/{}\"", "a".repeat(CHALLENGE_BYTES_MAX));
        for wrong in [
            "",
            "Digest realm=x",
            "Bearer",
            "Bearer scope=x",
            "Bearer realm=\"https://a",
            "Bearer realm=\"file:///x\"",
            "Bearer realm=\"https://a\"x",
            "Bearer realm",
            long.as_str(),
        ] {
            assert!(Challenge::parse(wrong, "https://x").is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_token_has_two_names_and_fits_into_a_header() {
        assert_eq!(token(br#"{"token":"abc"}"#), Ok("abc".to_owned()));
        assert_eq!(token(br#"{"access_token":"abc","expires_in":60}"#), Ok("abc".to_owned()));
        let of = |length: usize| token(format!("{{\"token\":\"{}\"}}", "t".repeat(length)).as_bytes());
        assert!(of(TOKEN_HEADER_BYTES_MAX).is_ok() && of(TOKEN_HEADER_BYTES_MAX + 1).is_err());
        for wrong in ["", "{}", r#"{"token":""}"#, r#"{"token":"a b"}"#, r#"{"token":"a\r\nx: y"}"#] {
            assert!(token(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
