//! A secret that `network` puts into a program's requests to one place, so that the program never has it. It goes from whoever
//! starts the program to `network`, in memory, and nowhere else.

use std::fmt;

use contracts::network::v1 as wire;
use http::HeaderName;
use zeroize::{Zeroize, Zeroizing};

use super::header::is_withheld_from_secrets;

/// Of one program.
pub const CREDENTIALS_MAX: usize = 8;
/// Bytes of a secret, of its name, of a place, of a header's name, of what it is put in as, and of a certificate.
pub const CREDENTIAL_BYTES_MAX: usize = 4 * 1024;
pub const CREDENTIAL_NAME_BYTES_MAX: usize = 64;
pub const CREDENTIAL_HOST_BYTES_MAX: usize = 260;
pub const CREDENTIAL_HEADER_BYTES_MAX: usize = 64;
pub const CREDENTIAL_FORMAT_BYTES_MAX: usize = 256;
pub const CREDENTIAL_AUTHORITY_BYTES_MAX: usize = 8 * 1024;
/// Bytes of why one is withheld; more is left out.
pub const CREDENTIAL_WITHHELD_BYTES_MAX: usize = 256;

/// Where the secret stands in a format.
pub const SECRET_MARK: &str = "{}";
const HEADER: &str = "authorization";
const FORMAT: &str = "Bearer {}";
/// Of a place that names none: that of HTTPS.
const PORT: u16 = 443;

#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its name, which is on record.
    pub secret: String,
    /// `HOST:PORT`, in small letters.
    pub host: String,
    pub header: String,
    pub format: String,
    /// PEM; empty if the host's certificate is vouched for by those who vouch for the hosts of calls.
    pub authority: String,
    /// None where it is not there any more.
    pub value: Option<Zeroizing<Vec<u8>>>,
    /// Why not, if somebody knows.
    pub withheld: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret {} for {} in {}", self.secret, self.host, self.header)
    }
}

/// As somebody wrote it down: what is left out is empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written<'a> {
    pub secret: &'a str,
    pub host: &'a str,
    pub header: &'a str,
    pub format: &'a str,
    pub authority: &'a str,
}

impl Credential {
    /// What is wrong with it is said without its value.
    pub fn new(written: Written<'_>, value: Option<Zeroizing<Vec<u8>>>) -> Result<Self, String> {
        let Written { secret, host, header, format, authority } = written;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if !(1..=CREDENTIAL_NAME_BYTES_MAX).contains(&secret.len())
            || secret.starts_with('.')
            || !secret.bytes().all(plain)
        {
            return Err(format!(
                "the name {secret:?} of a secret is not 1 to {CREDENTIAL_NAME_BYTES_MAX} letters, digits, `_`, `-` and `.` that do \
                 not start with `.`"
            ));
        }
        let place = place(host).ok_or_else(|| {
            format!("{host:?} is no place for the secret {secret}; write HOST or HOST:PORT, without `*`")
        })?;
        let header = if header.is_empty() { HEADER.to_owned() } else { header.to_ascii_lowercase() };
        if header.len() > CREDENTIAL_HEADER_BYTES_MAX
            || HeaderName::from_bytes(header.as_bytes()).is_err()
            || is_withheld_from_secrets(&header)
        {
            return Err(format!("{header:?} is no header that the secret {secret} can be put into"));
        }
        let format = match format {
            "" if header == HEADER => FORMAT,
            "" => SECRET_MARK,
            format => format,
        };
        if format.len() > CREDENTIAL_FORMAT_BYTES_MAX
            || format.matches(SECRET_MARK).count() != 1
            || format.bytes().any(is_control)
        {
            return Err(format!(
                "{format:?} is no format for the secret {secret}: at most {CREDENTIAL_FORMAT_BYTES_MAX} bytes in one line, with one \
                 {SECRET_MARK} where it stands"
            ));
        }
        if authority.len() > CREDENTIAL_AUTHORITY_BYTES_MAX {
            return Err(format!(
                "the certificate for {host} has {} bytes, at most {CREDENTIAL_AUTHORITY_BYTES_MAX} are allowed",
                authority.len()
            ));
        }
        let value = value.map(|value| readable(secret, value)).transpose()?;
        let (secret, format, authority) = (secret.to_owned(), format.to_owned(), authority.to_owned());
        Ok(Self { secret, host: place, header, format, authority, value, withheld: String::new() })
    }

    /// One that cannot be used now. What stands in the way is told to the program, without any path of the host's.
    pub fn withheld(written: Written<'_>, why: &str) -> Result<Self, String> {
        let mut withheld = base::visible(why).into_owned();
        withheld.truncate(withheld.floor_char_boundary(CREDENTIAL_WITHHELD_BYTES_MAX));
        Ok(Self { withheld, ..Self::new(written, None)? })
    }

    /// `secret` for `place`, as decisions and the log name it.
    #[must_use]
    pub fn named(&self) -> String {
        format!("{}@{}", self.secret, self.host)
    }

    pub(super) fn to_wire(&self) -> wire::ProgramCredential {
        wire::ProgramCredential {
            secret: self.secret.clone(),
            host: self.host.clone(),
            header: self.header.clone(),
            format: self.format.clone(),
            authority: self.authority.clone(),
            value: self.value.as_ref().map(|value| value.to_vec()).unwrap_or_default(),
            withheld: self.withheld.clone(),
        }
    }

    /// The value is taken out of the message.
    pub fn of_wire(said: &mut wire::ProgramCredential) -> Result<Self, String> {
        let value = Zeroizing::new(std::mem::take(&mut said.value));
        let written = Written {
            secret: &said.secret,
            host: &said.host,
            header: &said.header,
            format: &said.format,
            authority: &said.authority,
        };
        match value.is_empty() {
            true => Self::withheld(written, &said.withheld),
            false => Self::new(written, Some(value)),
        }
    }
}

/// How many there are, and that each place has one.
pub fn check_all(all: &[Credential]) -> Result<(), String> {
    if all.len() > CREDENTIALS_MAX {
        return Err(format!("{} credentials, at most {CREDENTIALS_MAX} are allowed", all.len()));
    }
    let mut rest = all;
    while let [one, others @ ..] = rest {
        if others.iter().any(|other| other.host == one.host) {
            return Err(format!("{} has two credentials; one can be put in", one.host));
        }
        rest = others;
    }
    Ok(())
}

pub(super) fn wipe(hello: &mut wire::ProgramHello) {
    hello.credentials.iter_mut().for_each(|one| one.value.zeroize());
}

const fn is_control(byte: u8) -> bool {
    byte < b' ' || byte == 0x7f
}

/// What a header can say. The end of its line is what a file of one line has behind it.
fn readable(name: &str, mut value: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, String> {
    if value.last() == Some(&b'\n') {
        value.pop();
    }
    match value.len() {
        0 => Err(format!("the secret {name} is empty")),
        bytes if bytes > CREDENTIAL_BYTES_MAX => {
            Err(format!("the secret {name} has {bytes} bytes, at most {CREDENTIAL_BYTES_MAX} are allowed"))
        }
        _ if value.iter().copied().any(is_control) => Err(format!(
            "the secret {name} has a line's end or another control character in it, which no header may have"
        )),
        _ => Ok(value),
    }
}

/// Which host it is, is read where it is connected to.
fn place(text: &str) -> Option<String> {
    let has_port = text.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let (host, port) = match text.rsplit_once(':').filter(|_| has_port) {
        Some((host, port)) => (host, port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse().ok())??),
        None => (text, PORT),
    };
    let wrong = |c: char| c.is_control() || c.is_whitespace() || "*/\\?#@%,".contains(c);
    let bare = host.strip_suffix('.').unwrap_or(host);
    let is_host = !bare.is_empty() && text.len() <= CREDENTIAL_HOST_BYTES_MAX && !host.contains(wrong);
    (is_host && port != 0).then(|| format!("{}:{port}", bare.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(change: impl FnOnce(&mut Written<'a>), value: &[u8]) -> Result<Credential, String> {
        let mut written = Written { secret: "key", host: "api.test", ..Written::default() };
        change(&mut written);
        Credential::new(written, Some(Zeroizing::new(value.to_vec())))
    }

    #[test]
    fn what_is_left_out_is_what_is_usual() {
        let usual = of(|_| {}, b"s3cret\n").unwrap();
        assert_eq!((usual.header.as_str(), usual.format.as_str()), ("authorization", "Bearer {}"));
        assert_eq!(usual.value.as_ref().unwrap().as_slice(), b"s3cret");
        assert_eq!(usual.named(), "key@api.test:443");
        let other = of(|w| w.header = "X-Api-Key", b"s").unwrap();
        assert_eq!((other.header.as_str(), other.format.as_str()), ("x-api-key", "{}"));
        assert!(!format!("{usual:?}").contains("s3cret"));
        let mut wire = usual.to_wire();
        assert_eq!(Credential::of_wire(&mut wire), Ok(usual));
        assert!(wire.value.is_empty());
    }

    #[test]
    fn a_place_has_one_spelling_and_no_star() {
        for (text, expected) in [
            ("API.Example.com.", "api.example.com:443"),
            ("api.test:8443", "api.test:8443"),
            ("192.0.2.1", "192.0.2.1:443"),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
            ("[::1]", "[::1]:443"),
        ] {
            assert_eq!(place(text).as_deref(), Some(expected), "{text}");
        }
        for text in
            ["", ".", "*.test", "a.test:0", "a.test:x", "a.test:", "a/b", "u@a.test", "a b", "a.test:65536"]
        {
            assert_eq!(place(text), None, "{text:?}");
        }
        assert!(place(&"x".repeat(CREDENTIAL_HOST_BYTES_MAX)).is_some());
        assert!(place(&"x".repeat(CREDENTIAL_HOST_BYTES_MAX + 1)).is_none());
    }

    #[test]
    fn every_limit_of_a_credential_holds_at_the_limit_and_one_past_it() {
        assert!(of(|_| {}, &[b'x'; CREDENTIAL_BYTES_MAX]).is_ok());
        assert!(of(|_| {}, &[b'x'; CREDENTIAL_BYTES_MAX + 1]).is_err());
        let long = |bytes: usize| "x".repeat(bytes);
        let name = long(CREDENTIAL_NAME_BYTES_MAX + 1);
        assert!(of(|w| w.secret = name.get(1..).unwrap(), b"s").is_ok());
        assert!(of(|w| w.secret = &name, b"s").is_err());
        let header = long(CREDENTIAL_HEADER_BYTES_MAX + 1);
        assert!(of(|w| w.header = header.get(1..).unwrap(), b"s").is_ok());
        assert!(of(|w| w.header = &header, b"s").is_err());
        let format = format!("{}{{}}", long(CREDENTIAL_FORMAT_BYTES_MAX - 1));
        assert!(of(|w| w.format = format.get(1..).unwrap(), b"s").is_ok());
        assert!(of(|w| w.format = &format, b"s").is_err());
        let authority = long(CREDENTIAL_AUTHORITY_BYTES_MAX + 1);
        assert!(of(|w| w.authority = authority.get(1..).unwrap(), b"s").is_ok());
        assert!(of(|w| w.authority = &authority, b"s").is_err());
        let many: Vec<Credential> = (0..=CREDENTIALS_MAX)
            .map(|n| {
                let host = format!("h{n}.test");
                of(|w| w.host = &host, b"s").unwrap()
            })
            .collect();
        assert!(check_all(&many[1..]).is_ok());
        assert!(check_all(&many).is_err());
        assert!(check_all(&[many[1].clone(), many[1].clone()]).unwrap_err().contains("two credentials"));
    }

    #[test]
    fn why_one_is_withheld_is_said_in_one_line_and_not_at_any_length() {
        let written = Written { secret: "key", host: "api.test", ..Written::default() };
        let why = |text: &str| {
            let withheld = Credential::withheld(written, text).unwrap();
            assert_eq!(Credential::of_wire(&mut withheld.to_wire()).as_ref(), Ok(&withheld));
            assert!(withheld.value.is_none());
            withheld.withheld
        };
        assert_eq!(why("gone\n"), "gone\\n");
        let longest = "x".repeat(CREDENTIAL_WITHHELD_BYTES_MAX);
        assert_eq!((why(&longest), why(&format!("{longest}x"))), (longest.clone(), longest.clone()));
        assert_eq!(why(&format!("{}é", &longest[1..])).len(), CREDENTIAL_WITHHELD_BYTES_MAX - 1);
    }

    #[test]
    fn what_would_be_another_header_or_none_is_refused_and_no_error_tells_the_secret() {
        for value in [
            &b"hunter2\r\nx: y"[..],
            b"hunter2\n\n",
            b"hunter2\r\n",
            b"hunter2\0",
            b"hunter2\t",
            b"hunter2\x7f",
        ] {
            let error = of(|_| {}, value).unwrap_err();
            assert!(error.contains("control character") && !error.contains("hunter2"), "{error}");
        }
        assert!(of(|_| {}, b"").is_err() && of(|_| {}, b"\n").is_err());
        for header in ["host", "proxy-authenticate", "a b", "x:", "x\r\ny", "Host"] {
            assert!(of(|w| w.header = header, b"s").is_err(), "{header:?}");
        }
        for format in ["Bearer", "{} {}", "a\r\nb: {}"] {
            assert!(of(|w| w.format = format, b"s").is_err(), "{format:?}");
        }
        for name in ["", ".a", "a b", "a@b", "a/b"] {
            assert!(of(|w| w.secret = name, b"s").is_err(), "{name:?}");
        }
    }
}
