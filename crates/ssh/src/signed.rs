//! What a key for SSH signs: a signature of its own format (OpenSSH's PROTOCOL.sshsig), or a login (RFC 4252 §7).
//!
//! The two cannot be taken for each other: one begins with `SSHSIG`, the other with the length of a session id. Whoever
//! is asked to sign anything else is being asked to speak another protocol, and must refuse.

use base::PublicKey;
use thiserror::Error;

use crate::{
    key::{ED25519, key_of_blob},
    wire::{Reader, WireError},
};

const MAGIC: &[u8] = b"SSHSIG";
/// What a signature may be for: commits and tags, and files as `ssh-keygen -Y sign` signs them by default.
pub const NAMESPACES: [&str; 2] = ["git", "file"];
const HASHES: [(&str, usize); 2] = [("sha256", 32), ("sha512", 64)];
/// Bytes of a session id: the hash of the key exchange, SHA-1 to SHA-512.
const SESSION_ID_BYTES: [usize; 4] = [20, 32, 48, 64];
/// SSH_MSG_USERAUTH_REQUEST.
const USERAUTH_REQUEST: u8 = 50;
/// Of a name in a refusal.
const SHOWN_CHARS: usize = 40;

/// What is to be signed, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed<'b> {
    /// Of a hash, for one namespace.
    Signature { namespace: &'static str },
    /// To be let in somewhere.
    Login {
        user: &'b str,
        /// The server's key, where the client binds the login to it.
        host_key: Option<&'b [u8]>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    #[error("it is neither a signature of ssh's format nor a login")]
    Neither,
    #[error("it is no whole message: {0}")]
    Wire(#[from] WireError),
    #[error("signatures are for `git` and `file`, not for {0:?}")]
    Namespace(String),
    #[error("its {0} is not what the format says")]
    Field(&'static str),
    #[error("it is a login with another key")]
    OtherKey,
}

/// Reads what `key` is asked to sign. Whatever is left open by the formats is refused: one message, one encoding.
pub fn signed<'b>(bytes: &'b [u8], key: &PublicKey) -> Result<Signed<'b>, FormatError> {
    if let Some(rest) = bytes.strip_prefix(MAGIC) {
        return signature(rest);
    }
    let mut reader = Reader::new(bytes);
    let begins_like_a_login = reader.string().is_ok_and(|id| SESSION_ID_BYTES.contains(&id.len()))
        && reader.byte() == Ok(USERAUTH_REQUEST);
    if !begins_like_a_login {
        return Err(FormatError::Neither);
    }
    login(reader, key)
}

fn signature(rest: &[u8]) -> Result<Signed<'static>, FormatError> {
    let mut reader = Reader::new(rest);
    let (namespace, reserved) = (reader.string()?, reader.string()?);
    let (algorithm, hash) = (reader.string()?, reader.string()?);
    reader.end()?;
    let known = NAMESPACES.into_iter().find(|known| known.as_bytes() == namespace);
    let namespace = known.ok_or_else(|| FormatError::Namespace(shown(namespace)))?;
    if !reserved.is_empty() {
        return Err(FormatError::Field("reserved field"));
    }
    match HASHES.into_iter().find(|(name, _)| name.as_bytes() == algorithm) {
        None => Err(FormatError::Field("hash algorithm")),
        Some((_, length)) if hash.len() != length => Err(FormatError::Field("hash")),
        Some(_) => Ok(Signed::Signature { namespace }),
    }
}

/// After the session id and the message's number.
fn login<'b>(mut reader: Reader<'b>, key: &PublicKey) -> Result<Signed<'b>, FormatError> {
    let user = std::str::from_utf8(reader.string()?).map_err(|_| FormatError::Field("user"))?;
    if reader.string()? != b"ssh-connection" {
        return Err(FormatError::Field("service"));
    }
    let bound = match reader.string()? {
        b"publickey" => false,
        b"publickey-hostbound-v00@openssh.com" => true,
        _ => return Err(FormatError::Field("method")),
    };
    if !reader.boolean()? {
        return Err(FormatError::Field("mark of a signed request"));
    }
    if reader.string()? != ED25519.as_bytes() {
        return Err(FormatError::Field("algorithm"));
    }
    let own = key_of_blob(reader.string()?).ok_or(FormatError::Field("key"))?;
    let host_key = if bound { Some(reader.string()?) } else { None };
    reader.end()?;
    if own != *key {
        return Err(FormatError::OtherKey);
    }
    Ok(Signed::Login { user, host_key })
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        key::key_blob,
        wire::{put_string, strings},
    };
    use proptest::prelude::*;

    const KEY: PublicKey = PublicKey([7; 32]);

    fn sshsig(fields: [&[u8]; 4]) -> Vec<u8> {
        [MAGIC, &strings(fields)].concat()
    }

    fn userauth(session: &[u8], fields: [&[u8]; 3], signs: u8, key: &[u8], host: Option<&[u8]>) -> Vec<u8> {
        let mut out = strings([session]);
        out.push(USERAUTH_REQUEST);
        out.extend(strings(fields));
        out.push(signs);
        out.extend(strings([ED25519.as_bytes(), key]));
        host.iter().for_each(|host| put_string(&mut out, host));
        out
    }

    const PLAIN: [&[u8]; 3] = [b"alice", b"ssh-connection", b"publickey"];
    const BOUND: [&[u8]; 3] = [b"alice", b"ssh-connection", b"publickey-hostbound-v00@openssh.com"];

    #[test]
    fn signatures_for_git_and_file_and_nothing_else_of_their_format() {
        for (namespace, hash, length) in
            [("git", "sha512", 64), ("git", "sha256", 32), ("file", "sha512", 64)]
        {
            let good = sshsig([namespace.as_bytes(), b"", hash.as_bytes(), &vec![1; length]]);
            assert!(matches!(signed(&good, &KEY), Ok(Signed::Signature { namespace: n }) if n == namespace));
            assert_eq!(signed(&[&good[..], &[0]].concat(), &KEY), Err(WireError::Trailing(1).into()));
            assert_eq!(signed(&good[..good.len() - 1], &KEY), Err(WireError::Short.into()));
        }
        let field = |name| Err(FormatError::Field(name));
        let sha512 = [1; 64];
        for (fields, expected) in [
            ([&b"mail"[..], b"", b"sha512", &sha512], Err(FormatError::Namespace("mail".to_owned()))),
            ([b"", b"", b"sha512", &sha512], Err(FormatError::Namespace(String::new()))),
            ([b"git\0", b"", b"sha512", &sha512], Err(FormatError::Namespace("git\0".to_owned()))),
            ([b"git", b"x", b"sha512", &sha512], field("reserved field")),
            ([b"git", b"", b"sha1", &sha512], field("hash algorithm")),
            ([b"git", b"", b"sha512", &sha512[..63]], field("hash")),
            ([b"git", b"", b"sha256", &sha512], field("hash")),
        ] {
            assert_eq!(signed(&sshsig(fields), &KEY), expected);
        }
    }

    #[test]
    fn logins_with_the_key_itself_and_nothing_else_of_their_format() {
        let own = key_blob(&KEY);
        for session in SESSION_ID_BYTES {
            let plain = userauth(&vec![1; session], PLAIN, 1, &own, None);
            assert_eq!(signed(&plain, &KEY), Ok(Signed::Login { user: "alice", host_key: None }));
        }
        let bound = userauth(&[1; 32], BOUND, 1, &own, Some(b"host"));
        assert_eq!(signed(&bound, &KEY), Ok(Signed::Login { user: "alice", host_key: Some(b"host") }));
        let field = |name| Err(FormatError::Field(name));
        let other = key_blob(&PublicKey([8; 32]));
        for (bytes, expected) in [
            (userauth(&[1; 33], PLAIN, 1, &own, None), Err(FormatError::Neither)),
            (userauth(&[], PLAIN, 1, &own, None), Err(FormatError::Neither)),
            (userauth(&[1; 32], PLAIN, 1, &other, None), Err(FormatError::OtherKey)),
            (userauth(&[1; 32], PLAIN, 1, b"key", None), field("key")),
            (userauth(&[1; 32], PLAIN, 0, &own, None), field("mark of a signed request")),
            (userauth(&[1; 32], PLAIN, 2, &own, None), Err(WireError::Boolean(2).into())),
            (userauth(&[1; 32], PLAIN, 1, &own, Some(b"")), Err(WireError::Trailing(4).into())),
            (userauth(&[1; 32], BOUND, 1, &own, None), Err(WireError::Short.into())),
            (userauth(&[1; 32], [b"\xff", PLAIN[1], PLAIN[2]], 1, &own, None), field("user")),
            (userauth(&[1; 32], [b"a", b"ssh-userauth", PLAIN[2]], 1, &own, None), field("service")),
            (userauth(&[1; 32], [b"a", PLAIN[1], b"hostbased"], 1, &own, None), field("method")),
        ] {
            assert_eq!(signed(&bytes, &KEY), expected);
        }
        let mut rsa = userauth(&[1; 32], PLAIN, 1, &own, None);
        let at = rsa.windows(ED25519.len()).position(|window| window == ED25519.as_bytes()).unwrap();
        rsa[at] = b'x';
        assert_eq!(signed(&rsa, &KEY), field("algorithm"));
        let mut other_message = userauth(&[1; 32], PLAIN, 1, &own, None);
        other_message[36] = USERAUTH_REQUEST + 1;
        assert_eq!(signed(&other_message, &KEY), Err(FormatError::Neither));
    }

    proptest! {
        /// Neither a hash, which is what keys without a purpose sign, nor any other bytes.
        #[test]
        fn any_other_bytes_are_refused_in_one_line(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let refusal = signed(&bytes, &KEY).unwrap_err();
            prop_assert!(!refusal.to_string().contains('\n'));
        }

        #[test]
        fn a_changed_byte_of_the_frame_is_refused_or_changes_the_content(at in 0_usize..200, change in 1_u8..) {
            let good = userauth(&[1; 32], BOUND, 1, &key_blob(&KEY), Some(b"host"));
            let mut bad = good.clone();
            let at = at % bad.len();
            bad[at] ^= change;
            // Only session id, user and host key are free.
            let free = (4..36).contains(&at) || (41..46).contains(&at) || at >= good.len() - 4;
            prop_assert!(signed(&bad, &KEY).is_err() || free, "byte {}", at);
        }
    }
}
