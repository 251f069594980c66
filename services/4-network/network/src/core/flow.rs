//! Which connection of this host's a program has, as the kernel tells it apart, and whether the kernel still has it
//! (`sock_diag`, `tcp_diag`): the one account of it that no program can hide anything from.

use ::core::net::{IpAddr, SocketAddr};

use super::Domain;

/// `struct nlmsghdr`, `struct inet_diag_req_v2`, `struct inet_diag_msg`.
const HEADER_BYTES: usize = 16;
const QUESTION_BYTES: usize = 56;
const ANSWER_BYTES: usize = 72;
/// Of a question and an answer.
const BY_FAMILY: u16 = 20;
const REQUEST: u16 = 1;
const ERROR: u16 = 2;
const INET: u8 = 2;
const INET6: u8 = 10;
const TCP: u8 = 6;
/// The kernel knows of none, or of another one.
const ENOENT: i32 = 2;
const ESTALE: i32 = 116;
/// What the kernel says about one flow fits.
pub const ANSWER_BYTES_MAX: usize = 1024;

/// One connection. The cookie is the socket's own for the life of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub domain: Domain,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub cookie: u64,
}

/// Where a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Some descriptor leads to it, whoever has that.
    Yes,
    /// It has ended, or was closed by all who had it.
    No,
}

impl Flow {
    /// What the kernel is asked.
    #[must_use]
    pub fn question(&self, number: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + QUESTION_BYTES);
        let length = u32::try_from(HEADER_BYTES + QUESTION_BYTES).unwrap_or(0);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(BY_FAMILY.to_ne_bytes());
        bytes.extend(REQUEST.to_ne_bytes());
        bytes.extend(number.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        let family = if self.domain == Domain::Inet { INET } else { INET6 };
        bytes.extend([family, TCP, 0, 0]);
        // In every state.
        bytes.extend(u32::MAX.to_ne_bytes());
        bytes.extend(self.local.port().to_be_bytes());
        bytes.extend(self.remote.port().to_be_bytes());
        bytes.extend(octets(self.local.ip()));
        bytes.extend(octets(self.remote.ip()));
        let scope = match self.remote {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        bytes.extend(scope.to_ne_bytes());
        bytes.extend(self.cookie.to_ne_bytes());
        bytes
    }
}

/// What the kernel answered to this question; none if it is no answer to it, or says why it cannot tell.
#[must_use]
pub fn held(answer: &[u8], number: u32) -> Option<Held> {
    const INODE_AT: usize = HEADER_BYTES + 68;
    let u32_at = |at: usize| Some(u32::from_ne_bytes(*answer.get(at..)?.first_chunk()?));
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    let length = usize::try_from(u32_at(0)?).ok()?;
    if u32_at(8)? != number || length > answer.len() {
        return None;
    }
    match kind {
        BY_FAMILY if length >= HEADER_BYTES + ANSWER_BYTES => {
            Some(if u32_at(INODE_AT)? == 0 { Held::No } else { Held::Yes })
        }
        ERROR => {
            let errno = u32_at(HEADER_BYTES)?.cast_signed();
            [-ENOENT, -ESTALE].contains(&errno).then_some(Held::No)
        }
        _ => None,
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: u32 = 7;

    fn answer(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(NUMBER.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_question_names_one_flow() {
        let flow = Flow {
            domain: Domain::Inet,
            local: "192.0.2.1:258".parse().unwrap(),
            remote: "192.0.2.2:443".parse().unwrap(),
            cookie: 0x0102_0304_0506_0708,
        };
        let asked = flow.question(NUMBER);
        assert_eq!(asked.len(), 72);
        assert_eq!(asked[16..20], [INET, TCP, 0, 0]);
        assert_eq!(asked[24..28], [1, 2, 1, 187]);
        assert_eq!((&asked[28..32], &asked[44..48]), (&[192, 0, 2, 1][..], &[192, 0, 2, 2][..]));
        assert_eq!(asked[64..], 0x0102_0304_0506_0708_u64.to_ne_bytes());
        let sixth = Flow { domain: Domain::Inet6, remote: "[fe80::1%3]:443".parse().unwrap(), ..flow };
        assert_eq!(sixth.question(NUMBER)[16], INET6);
        assert_eq!(sixth.question(NUMBER)[60..64], 3_u32.to_ne_bytes());
    }

    #[test]
    fn one_that_nobody_has_any_more_is_gone_and_what_is_no_answer_says_nothing() {
        let mut found = vec![0; ANSWER_BYTES];
        assert_eq!(held(&answer(BY_FAMILY, &found), NUMBER), Some(Held::No), "closed, and still to be sent");
        found[68] = 1;
        assert_eq!(held(&answer(BY_FAMILY, &found), NUMBER), Some(Held::Yes));
        assert_eq!(held(&answer(BY_FAMILY, &found), NUMBER + 1), None, "of another question");
        assert_eq!(held(&answer(BY_FAMILY, &found[..71]), NUMBER), None);
        let failed = |errno: i32| held(&answer(ERROR, &(-errno).to_ne_bytes()), NUMBER);
        assert_eq!(
            (failed(ENOENT), failed(ESTALE), failed(1), failed(0)),
            (Some(Held::No), Some(Held::No), None, None)
        );
        for length in 0..answer(BY_FAMILY, &found).len() {
            assert_eq!(held(&answer(BY_FAMILY, &found)[..length], NUMBER), None, "{length}");
        }
    }
}
