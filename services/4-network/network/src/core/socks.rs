//! SOCKS5 (RFC 1928), as a program says it to its proxy: no authentication, since who asks is known by the socket, and `CONNECT` alone.

use ::core::net::{Ipv4Addr, Ipv6Addr};

/// The first byte of everything that a client says.
pub const VERSION: u8 = 5;
/// Of the ways to say who one is.
const NOBODY_ASKS: u8 = 0;
const NONE_OF_THEM: u8 = 0xff;
const CONNECT: u8 = 1;
const V4: u8 = 1;
const NAME: u8 = 3;
const V6: u8 = 4;

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    Done = 0,
    Failed = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    TimedOut = 6,
    NoSuchCommand = 7,
    NoSuchAddress = 8,
}

impl Reply {
    /// As it is sent. Where the connection began here is nobody's business.
    #[must_use]
    pub const fn bytes(self) -> [u8; 10] {
        [VERSION, self as u8, 0, V4, 0, 0, 0, 0, 0, 0]
    }
}

/// How far reading has come. `Done` says how many bytes it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<T> {
    More,
    Done(T, usize),
    /// It cannot be read: the client hears this, and no more.
    Refused(Vec<u8>),
}

/// What the client offers; the answer to it.
#[must_use]
pub fn greeting(bytes: &[u8]) -> Step<[u8; 2]> {
    let Some((&[version, count], rest)) = bytes.split_first_chunk::<2>() else { return Step::More };
    if version != VERSION {
        return Step::Refused(Vec::new());
    }
    match rest.get(..usize::from(count)) {
        None => Step::More,
        Some(methods) if methods.contains(&NOBODY_ASKS) => {
            Step::Done([VERSION, NOBODY_ASKS], 2 + usize::from(count))
        }
        Some(_) => Step::Refused(vec![VERSION, NONE_OF_THEM]),
    }
}

/// Host and port that are asked for, as a URL would write them.
#[must_use]
pub fn request(bytes: &[u8]) -> Step<(String, u16)> {
    let refused = |reply: Reply| Step::Refused(reply.bytes().to_vec());
    let Some((&[version, command, _, kind], rest)) = bytes.split_first_chunk::<4>() else {
        return Step::More;
    };
    if version != VERSION {
        return Step::Refused(Vec::new());
    }
    if command != CONNECT {
        return refused(Reply::NoSuchCommand);
    }
    let (host, rest, taken) = match kind {
        V4 => match rest.split_first_chunk::<4>() {
            Some((ip, rest)) => (Ipv4Addr::from(*ip).to_string(), rest, 4),
            None => return Step::More,
        },
        V6 => match rest.split_first_chunk::<16>() {
            Some((ip, rest)) => (format!("[{}]", Ipv6Addr::from(*ip)), rest, 16),
            None => return Step::More,
        },
        NAME => {
            let Some((&length, rest)) = rest.split_first() else { return Step::More };
            let Some((name, rest)) = rest.split_at_checked(usize::from(length)) else { return Step::More };
            // What else a URL could read into it is no name.
            let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
            match name.iter().all(known) && !name.is_empty() {
                true => (name.iter().map(|byte| char::from(*byte)).collect(), rest, 1 + usize::from(length)),
                false => return refused(Reply::NotAllowed),
            }
        }
        _ => return refused(Reply::NoSuchAddress),
    };
    match rest.first_chunk::<2>() {
        Some(port) => Step::Done((host, u16::from_be_bytes(*port)), 4 + taken + 2),
        None => Step::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &[u8]) -> Vec<u8> {
        let length = u8::try_from(name.len()).unwrap();
        [&[5, 1, 0, 3, length], name, &[1, 187]].concat()
    }

    #[test]
    fn a_greeting_offers_to_say_nothing_or_is_refused() {
        assert_eq!(greeting(&[5, 2, 2, 0, 9]), Step::Done([5, 0], 4));
        assert_eq!(greeting(&[5, 1, 2]), Step::Refused(vec![5, 0xff]), "a password is for nobody");
        assert_eq!(greeting(&[5, 0]), Step::Refused(vec![5, 0xff]));
        assert_eq!(greeting(&[4, 1, 0]), Step::Refused(vec![]));
        for some in [&[][..], &[5], &[5, 2, 0]] {
            assert_eq!(greeting(some), Step::More, "{some:?}");
        }
    }

    #[test]
    fn a_request_says_whom_it_wants_in_three_ways_and_is_waited_for() {
        let v6: Vec<u8> =
            [&[5, 1, 0, 4][..], &"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets(), &[1, 187]].concat();
        for (bytes, host) in [
            (vec![5, 1, 0, 1, 192, 0, 2, 1, 1, 187], "192.0.2.1"),
            (v6, "[2001:db8::1]"),
            (named(b"api.example.com"), "api.example.com"),
        ] {
            assert_eq!(request(&bytes), Step::Done((host.to_owned(), 443), bytes.len()));
            let more = [&bytes[..], b"rest"].concat();
            assert_eq!(request(&more), Step::Done((host.to_owned(), 443), bytes.len()));
            for length in 0..bytes.len() {
                assert_eq!(request(&bytes[..length]), Step::More, "{host} {length}");
            }
        }
    }

    #[test]
    fn what_is_no_connect_and_no_name_is_refused() {
        let code = |bytes: &[u8]| match request(bytes) {
            Step::Refused(said) => said.get(1).copied(),
            other => panic!("{other:?}"),
        };
        assert_eq!(code(&[5, 2, 0, 1, 1, 2, 3, 4, 0, 1]), Some(7), "bind");
        assert_eq!(code(&[5, 3, 0, 1, 1, 2, 3, 4, 0, 1]), Some(7), "UDP");
        assert_eq!(code(&[5, 1, 0, 2, 1, 2, 3, 4, 0, 1]), Some(8));
        for name in
            [&b""[..], b"a.test/@b", b"u@a.test", b"a.test:80", b"a\0.test", b"a b", b"[::1]", b"%61.test"]
        {
            assert_eq!(code(&named(name)), Some(2), "{name:?}");
        }
        assert_eq!(code(&[4, 1, 0, 1]), None);
    }
}
