//! Whom a connection asks for, as its first bytes say it: SNI of a ClientHello, `Host` of an HTTP/1 request. An address can be
//! many names; only what is said there tells which one is meant. What cannot be read is refused, never guessed.

/// Bytes that are looked at; whoever has not said it by then is refused.
pub const FIRST_BYTES_MAX: usize = 16 * 1024;

/// What is known so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More has to come.
    More,
    /// It asks for the name that is expected.
    Agrees,
    Refused(Why),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It asks for this one.
    Other(String),
    /// It asks for nobody.
    Nobody,
    /// It asks for more than one, or twice.
    Several,
    /// It asks for one whom it shows to the server alone (ECH).
    Hidden,
    TooLong,
    Unreadable(&'static str),
}

impl Why {
    /// For the operator.
    #[must_use]
    pub fn text(&self, expected: &str) -> String {
        match self {
            Self::Other(name) => format!("{expected} was allowed, and it asks for {name:?}"),
            Self::Nobody => format!("{expected} was allowed, and it names nobody"),
            Self::Several => format!("{expected} was allowed, and it names more than one"),
            Self::Hidden => format!("{expected} was allowed, and it hides whom it asks for (ECH)"),
            Self::TooLong => {
                format!(
                    "{expected} was allowed, and its first {FIRST_BYTES_MAX} bytes do not say whom it asks for"
                )
            }
            Self::Unreadable(why) => {
                format!("{expected} was allowed, and whom it asks for cannot be read: {why}")
            }
        }
    }
}

/// How far reading has come: what was read, or what is said at once.
type Read<T> = Result<T, Verdict>;

fn refused<T>(why: Why) -> Read<T> {
    Err(Verdict::Refused(why))
}

fn unreadable<T>(why: &'static str) -> Read<T> {
    refused(Why::Unreadable(why))
}

/// [`judge`] for whoever may ask for any of these; the first one's refusal is said.
#[must_use]
pub fn judge_all(bytes: &[u8], expected: &[String]) -> Verdict {
    let mut refused = None;
    for name in expected {
        match judge(bytes, name) {
            Verdict::Refused(why) => refused = refused.or(Some(why)),
            other => return other,
        }
    }
    refused.map_or(Verdict::Agrees, Verdict::Refused)
}

/// What the first bytes of a connection say, as far as they have come. `expected` is a name as it was asked for.
#[must_use]
pub fn judge(bytes: &[u8], expected: &str) -> Verdict {
    let looked_at = bytes.get(..FIRST_BYTES_MAX).unwrap_or(bytes);
    let said = match looked_at.first() {
        None => Err(Verdict::More),
        Some(&HANDSHAKE) => sni(looked_at),
        Some(byte) if byte.is_ascii_alphabetic() => host(looked_at, expected),
        Some(_) => unreadable("it is neither TLS nor HTTP"),
    };
    match said {
        Ok(name) => compare(&name, expected),
        Err(Verdict::More) if bytes.len() >= FIRST_BYTES_MAX => Verdict::Refused(Why::TooLong),
        Err(verdict) => verdict,
    }
}

fn compare(name: &str, expected: &str) -> Verdict {
    match plain(name) {
        "" => Verdict::Refused(Why::Nobody),
        said if said.eq_ignore_ascii_case(plain(expected)) => Verdict::Agrees,
        _ => Verdict::Refused(Why::Other(name.to_owned())),
    }
}

/// One dot at the end says only that the name is whole.
fn plain(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Record types and messages of TLS.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_BYTES_MAX: usize = 16 * 1024;
const SERVER_NAME: u16 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
const HOST_NAME: u8 = 0;

/// Takes from the front. Within a message that is whole, what is missing is missing for good.
struct Cursor<'b>(&'b [u8]);

impl<'b> Cursor<'b> {
    fn take(&mut self, length: usize) -> Read<&'b [u8]> {
        match self.0.split_at_checked(length) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => unreadable("a length of its hello is wrong"),
        }
    }

    /// A number of so many bytes.
    fn number(&mut self, bytes: usize) -> Read<usize> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// What stands behind its length.
    fn vector(&mut self, length_bytes: usize) -> Read<Cursor<'b>> {
        let length = self.number(length_bytes)?;
        self.take(length).map(Cursor)
    }
}

/// The first handshake message, out of as many records as it was put in.
fn hello(mut bytes: &[u8]) -> Read<Vec<u8>> {
    const RECORD_HEADER: usize = 5;
    const MESSAGE_HEADER: usize = 4;
    let mut message = Vec::new();
    loop {
        if let Some((&[kind, a, b, c], body)) = message.split_first_chunk::<MESSAGE_HEADER>() {
            if kind != CLIENT_HELLO {
                return unreadable("its first message is no hello");
            }
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if length > FIRST_BYTES_MAX {
                return refused(Why::TooLong);
            }
            if let Some(body) = body.get(..length) {
                return Ok(body.to_vec());
            }
        }
        let Some((&[kind, major, _, high, low], rest)) = bytes.split_first_chunk::<RECORD_HEADER>() else {
            return match bytes.first() {
                Some(&kind) if kind != HANDSHAKE => unreadable("its hello is interrupted"),
                _ => Err(Verdict::More),
            };
        };
        let length = usize::from(high) << 8 | usize::from(low);
        if kind != HANDSHAKE || major != 3 {
            return unreadable("its hello is interrupted, or of another protocol");
        }
        if length == 0 || length > RECORD_BYTES_MAX {
            return unreadable("a record of its hello is empty or too long");
        }
        let (part, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        message.extend_from_slice(part);
        bytes = after;
    }
}

fn sni(bytes: &[u8]) -> Read<String> {
    let message = hello(bytes)?;
    let mut body = Cursor(&message);
    // Version and random.
    body.take(2 + 32)?;
    body.vector(1)?;
    body.vector(2)?;
    body.vector(1)?;
    if body.0.is_empty() {
        return refused(Why::Nobody);
    }
    let mut extensions = body.vector(2)?;
    if !body.0.is_empty() {
        return unreadable("something follows its hello");
    }
    let (mut name, mut is_hidden) = (None, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let content = extensions.vector(2)?;
        match u16::try_from(kind) {
            Ok(SERVER_NAME) if name.is_some() => return refused(Why::Several),
            Ok(SERVER_NAME) => name = Some(server_name(content)?),
            Ok(ENCRYPTED_CLIENT_HELLO) => is_hidden = true,
            _ => {}
        }
    }
    match (name, is_hidden) {
        // What it shows is somebody else's name, or a pretence; the server alone can tell.
        (_, true) => refused(Why::Hidden),
        (Some(name), false) => Ok(name),
        (None, false) => refused(Why::Nobody),
    }
}

fn server_name(mut content: Cursor<'_>) -> Read<String> {
    let mut list = content.vector(2)?;
    if !content.0.is_empty() {
        return unreadable("something follows the name");
    }
    let kind = list.number(1)?;
    let name = list.vector(2)?.0;
    if kind != usize::from(HOST_NAME) {
        return unreadable("its name is of an unknown kind");
    }
    if !list.0.is_empty() {
        return refused(Why::Several);
    }
    text(name)
}

/// A name has no control characters, no spaces and nothing beyond ASCII.
fn text(name: &[u8]) -> Read<String> {
    match name.iter().all(u8::is_ascii_graphic) {
        true => Ok(name.iter().map(|byte| char::from(*byte)).collect()),
        false => unreadable("its name has characters that no name has"),
    }
}

/// `Host` of an HTTP/1 request; what its target names has to be the same.
fn host(bytes: &[u8], expected: &str) -> Read<String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Err(Verdict::More);
    };
    let head = bytes.get(..end).unwrap_or_default();
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    // Two readers may take a line end that is none for different things.
    let has_bare = |line: &[u8]| line.iter().any(|byte| [b'\r', 0].contains(byte));
    let feeds = head.iter().filter(|byte| **byte == b'\n').count();
    let ends = head.windows(2).filter(|two| *two == b"\r\n").count();
    if feeds != ends || head.ends_with(b"\r") || lines.clone().any(has_bare) {
        return unreadable("a line of its request does not end as lines do");
    }
    let request = lines.next().unwrap_or_default();
    let mut words = request.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) =
        (method, target, version, words.next())
    else {
        return unreadable("its request is none of HTTP/1");
    };
    let mut named = None;
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return unreadable("a header has no colon");
        };
        let (name, value) =
            (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
        if name.is_empty() || name.iter().any(|byte| !byte.is_ascii_graphic()) {
            return unreadable("a header is folded, or has spaces in its name");
        }
        if name.eq_ignore_ascii_case(b"host") && named.replace(value).is_some() {
            return refused(Why::Several);
        }
    }
    let Some(named) = named else { return refused(Why::Nobody) };
    let named = name_of(text(named.trim_ascii())?.as_str())?;
    if let Some(asked) = authority(method, target)? {
        let asked = name_of(&asked)?;
        if compare(&asked, expected) != Verdict::Agrees {
            return Ok(asked);
        }
    }
    Ok(named)
}

/// What the target of a request names, if it names anybody.
fn authority(method: &[u8], target: &[u8]) -> Read<Option<String>> {
    if method.eq_ignore_ascii_case(b"CONNECT") {
        return text(target).map(Some);
    }
    if target.starts_with(b"/") || target == b"*" {
        return Ok(None);
    }
    let target = text(target)?;
    let Some((_, rest)) = target.split_once("://") else {
        return unreadable("the target of its request is none");
    };
    Ok(Some(rest.split(['/', '?', '#']).next().unwrap_or_default().to_owned()))
}

/// Without its port.
fn name_of(authority: &str) -> Read<String> {
    if authority.contains('@') {
        return unreadable("a user is named before the host");
    }
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (authority, ""),
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || (name.contains(':') && !name.starts_with('[')) {
        return unreadable("its host is no name and no port");
    }
    Ok(name.to_owned())
}

#[cfg(test)]
#[path = "first_bytes_tests.rs"]
mod tests;
