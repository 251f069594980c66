//! Headers that are neither a caller's nor a secret's: what goes through `network` is framed and led by `network`.

/// Whom a request is for, and where it ends: what two could read differently.
const OF_THE_REQUEST: [&str; 2] = ["host", "content-length"];
/// About the connection that it comes by, and not for the next.
const OF_THE_CONNECTION: [&str; 9] = [
    "connection",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
];
/// A caller could offer another protocol with the one, and end a request at a proxy on its way with the other. A secret in one of them
/// would be of no use, and asks for nothing.
const NOT_OF_CALLERS: [&str; 2] = ["http2-settings", "max-forwards"];
/// Said by a proxy, and asked for by nobody: in a request of a caller it says nothing. A secret in it would be read by whoever looks for
/// what proxies say, and taken for no secret.
const NOT_OF_SECRETS: [&str; 1] = ["proxy-authenticate"];

/// What ends with one connection, of requests and answers: whoever passes them on leaves it out (RFC 9110, 7.6.1).
pub fn of_one_connection() -> impl Iterator<Item = &'static str> {
    OF_THE_CONNECTION.into_iter().chain(NOT_OF_SECRETS)
}

fn is_of_network(name: &str) -> bool {
    OF_THE_REQUEST.contains(&name) || OF_THE_CONNECTION.contains(&name)
}

/// Whether a caller may not set it; in small letters.
#[must_use]
pub fn is_withheld_from_callers(name: &str) -> bool {
    is_of_network(name) || NOT_OF_CALLERS.contains(&name)
}

/// Whether no secret is put into it; in small letters.
#[must_use]
pub fn is_withheld_from_secrets(name: &str) -> bool {
    is_of_network(name) || NOT_OF_SECRETS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is refused stands here once more, by name: who takes one out of a list has to say so.
    #[test]
    fn what_is_withheld_of_whom() {
        let both = [
            "host",
            "connection",
            "content-length",
            "transfer-encoding",
            "te",
            "trailer",
            "upgrade",
            "expect",
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
        ];
        let of = |name| (is_withheld_from_callers(name), is_withheld_from_secrets(name));
        for name in both {
            assert_eq!(of(name), (true, true), "{name}");
        }
        for name in ["http2-settings", "max-forwards"] {
            assert_eq!(of(name), (true, false), "{name}");
        }
        assert_eq!(of("proxy-authenticate"), (false, true));
        for name in ["accept", "authorization", "cookie", "x-api-key", "Host"] {
            assert_eq!(of(name), (false, false), "{name}");
        }
    }
}
