//! What the boundary is handed at its start, and the entry of its process.

use std::{os::fd::RawFd, process::ExitCode};

use rustix::fd::OwnedFd;
use thiserror::Error;

use super::{
    process::{BoundaryError, Inputs, main},
    protocol::SecretKind,
};

/// Descriptors by number: `boundary=3,sealed=4,secret:key_file=5`.
const FDS_VARIABLE: &str = "BAILIWICK_FDS";
/// Socket, sealed seed, secret, next secret, socket of the operator, place of words.
const TOKENS_MAX: usize = 6;
/// The process was started otherwise than by the node, or with other descriptors than it needs.
const EXIT_INPUTS: u8 = 2;

#[derive(Debug, Error)]
enum InputError {
    #[error("{FDS_VARIABLE} is not set: the key boundary is started by the node alone")]
    Missing,
    #[error(
        "{FDS_VARIABLE} has {0:?}; it names `boundary`, `sealed`, `unlock`, `words`, `secret:<kind>` and `next:<kind>`, each at most once, as `name=fd`"
    )]
    Token(String),
    #[error("{FDS_VARIABLE} names no `boundary` socket")]
    NoSocket,
    #[error("cannot adopt descriptor {raw}")]
    Adopt { raw: RawFd, source: std::io::Error },
}

#[derive(Debug, PartialEq, Eq)]
struct Numbers {
    socket: RawFd,
    sealed: Option<RawFd>,
    secret: Option<(SecretKind, RawFd)>,
    next: Option<(SecretKind, RawFd)>,
    unlock: Option<RawFd>,
    words: Option<RawFd>,
}

/// Becomes the key boundary. Ends with 0 when its peer is gone.
#[must_use]
pub fn run() -> ExitCode {
    let inputs = match inherit() {
        Ok(inputs) => inputs,
        Err(error) => return failed(&error, EXIT_INPUTS),
    };
    match main(inputs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ BoundaryError::Misuse(_)) => failed(&error, EXIT_INPUTS + 1),
        Err(error) => failed(&error, 1),
    }
}

fn failed(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    // A line on standard error is the boundary's whole log; nothing here was secret.
    let _ = rustix::io::write(rustix::stdio::stderr(), format!("key boundary: {error}{cause}\n").as_bytes());
    ExitCode::from(code)
}

fn inherit() -> Result<Inputs, InputError> {
    let text = std::env::var(FDS_VARIABLE).map_err(|_| InputError::Missing)?;
    let numbers = parse(&text)?;
    let secret = |(kind, raw)| Ok((kind, adopt(raw)?));
    Ok(Inputs {
        socket: adopt(numbers.socket)?,
        sealed: numbers.sealed.map(adopt).transpose()?,
        secret: numbers.secret.map(secret).transpose()?,
        next: numbers.next.map(secret).transpose()?,
        unlock: numbers.unlock.map(adopt).transpose()?,
        words: numbers.words.map(adopt).transpose()?,
    })
}

fn adopt(raw: RawFd) -> Result<OwnedFd, InputError> {
    sandbox::inherited::adopt_descriptor(raw).map_err(|source| InputError::Adopt { raw, source })
}

fn parse(text: &str) -> Result<Numbers, InputError> {
    let (mut socket, mut sealed, mut secret, mut next, mut unlock, mut words) =
        (None, None, None, None, None, None);
    for token in text.split(',').filter(|token| !token.is_empty()).take(TOKENS_MAX + 1) {
        let wrong = || InputError::Token(token.chars().take(80).collect());
        let (name, raw) = token.split_once('=').ok_or_else(wrong)?;
        let raw: RawFd = raw.parse().map_err(|_| wrong())?;
        let of_kind = |kind| Ok((SecretKind::from_name(kind).ok_or_else(wrong)?, raw));
        let taken = match name.split_once(':') {
            Some(("secret", kind)) => secret.replace(of_kind(kind)?).is_some(),
            Some(("next", kind)) => next.replace(of_kind(kind)?).is_some(),
            None if name == "boundary" => socket.replace(raw).is_some(),
            None if name == "sealed" => sealed.replace(raw).is_some(),
            None if name == "unlock" => unlock.replace(raw).is_some(),
            None if name == "words" => words.replace(raw).is_some(),
            _ => true,
        };
        if taken {
            return Err(wrong());
        }
    }
    Ok(Numbers { socket: socket.ok_or(InputError::NoSocket)?, sealed, secret, next, unlock, words })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_named_once_and_nothing_else_is() {
        let bare =
            || Numbers { socket: 3, sealed: None, secret: None, next: None, unlock: None, words: None };
        let whole = Numbers {
            sealed: Some(4),
            secret: Some((SecretKind::KeyFile, 5)),
            next: Some((SecretKind::Tpm2, 6)),
            unlock: Some(7),
            words: Some(8),
            ..bare()
        };
        assert_eq!(
            parse("boundary=3,sealed=4,secret:key_file=5,next:tpm2=6,unlock=7,words=8").unwrap(),
            whole
        );
        assert_eq!(parse("boundary=3").unwrap(), bare());
        for kind in SecretKind::ALL {
            let text = format!("boundary=3,secret:{0}=7,next:{0}=8", kind.name());
            let given = parse(&text).unwrap();
            assert_eq!((given.secret, given.next), (Some((kind, 7)), Some((kind, 8))));
        }
        assert!(matches!(parse("sealed=4"), Err(InputError::NoSocket)));
        for bad in [
            "boundary=3,boundary=4",
            "boundary",
            "boundary=x",
            "secret:key=5",
            "admin=3",
            "secret:key_file=3,secret:credential=4",
            "next:key_file=3,next:credential=4",
            "next:key=5",
            "boundary:key_file=3",
        ] {
            assert!(matches!(parse(bad), Err(InputError::Token(_))), "{bad}");
        }
    }
}
