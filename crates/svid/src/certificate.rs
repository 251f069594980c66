//! The two certificates that a trust domain's authority signs (X509-SVID.md, RFC 5280): its own, and a workload's.
//!
//! One form each. To read is to find what varies, to write it again and to compare: nothing else can be in there.

use p256::ecdsa::Signature;

use crate::{
    FormatError, P256Key, SIGNATURE_BYTES, SpiffeId, TrustDomain,
    der::{
        self, BIT_STRING, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE, SET, TRUE, UTF8_STRING,
        context, element, implicit, sequence,
    },
    key::bit_string,
    time,
};

/// A random number; the first byte lies between 0x40 and 0x7f, so that it is positive and always as long.
pub const SERIAL_BYTES: usize = 16;
/// A workload's certificate cannot be revoked, so it lives for a day at most.
pub const SVID_LIFETIME_S_MAX: u64 = 24 * 3600;
/// Twenty years: what holds an authority's certificate is told of the next one long before.
pub const AUTHORITY_LIFETIME_S_MAX: u64 = 20 * 366 * 86_400;

const ORGANIZATION: &str = "Bailiwick";
const ECDSA_WITH_SHA256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
const ORGANIZATION_NAME: [u8; 3] = [0x55, 0x04, 0x0a];
const SUBJECT_KEY_ID: [u8; 3] = [0x55, 0x1d, 0x0e];
const KEY_USAGE: [u8; 3] = [0x55, 0x1d, 0x0f];
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 0x13];
const AUTHORITY_KEY_ID: [u8; 3] = [0x55, 0x1d, 0x23];
const EXTENDED_KEY_USAGE: [u8; 3] = [0x55, 0x1d, 0x25];
const SERVER_AUTH: [u8; 8] = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const CLIENT_AUTH: [u8; 8] = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
/// The named bits of a key usage with the number of bits that are left over.
const DIGITAL_SIGNATURE: [u8; 2] = [7, 0x80];
const CERT_AND_CRL_SIGN: [u8; 2] = [1, 0x06];

/// Whom a certificate is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The trust domain itself: its authority, which may sign others.
    Authority(TrustDomain),
    /// A workload, which may sign nothing but its own connections.
    Workload(SpiffeId),
}

/// What varies between certificates of one authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub serial: [u8; SERIAL_BYTES],
    pub subject: Subject,
    pub key: P256Key,
    /// Seconds since 1970.
    pub not_before_s: u64,
    pub not_after_s: u64,
}

impl Subject {
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        match self {
            Self::Authority(domain) => domain,
            Self::Workload(id) => id.trust_domain(),
        }
    }

    fn uri(&self) -> String {
        match self {
            Self::Authority(domain) => domain.id(),
            Self::Workload(id) => id.to_string(),
        }
    }

    const fn lifetime_s_max(&self) -> u64 {
        match self {
            Self::Authority(_) => AUTHORITY_LIFETIME_S_MAX,
            Self::Workload(_) => SVID_LIFETIME_S_MAX,
        }
    }
}

/// A serial number from random bytes.
#[must_use]
pub const fn serial(mut random: [u8; SERIAL_BYTES]) -> [u8; SERIAL_BYTES] {
    random[0] = random[0] & 0x3f | 0x40;
    random
}

impl Certificate {
    /// The TBSCertificate that `authority` is to sign.
    pub fn to_sign(&self, authority: &P256Key) -> Result<Vec<u8>, FormatError> {
        self.check(self.subject.trust_domain(), authority)?;
        let parts = self.parts(authority)?;
        Ok(element(SEQUENCE, &parts.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect::<Vec<_>>()))
    }

    /// Reads what `authority`, of this trust domain, is asked to sign.
    pub fn read(bytes: &[u8], domain: &TrustDomain, authority: &P256Key) -> Result<Self, FormatError> {
        let mut outer = Reader::new(bytes);
        let content = outer.take(SEQUENCE).filter(|_| outer.is_empty()).ok_or(FormatError::NoCertificate)?;
        let read = find(content)?;
        read.check(domain, authority)?;
        let mut rest = content;
        for (name, part) in read.parts(authority)? {
            rest = rest.strip_prefix(part.as_slice()).ok_or(FormatError::Field(name))?;
        }
        // What is left are lengths that have a shorter form, or something behind the last field.
        if rest.is_empty() && element(SEQUENCE, content) == bytes {
            Ok(read)
        } else {
            Err(FormatError::Field("end"))
        }
    }

    fn check(&self, domain: &TrustDomain, authority: &P256Key) -> Result<(), FormatError> {
        if self.subject.trust_domain() != domain {
            return Err(FormatError::OtherTrustDomain(self.subject.trust_domain().to_string()));
        }
        match (&self.subject, self.key == *authority) {
            (Subject::Authority(_), false) => return Err(FormatError::OtherAuthority),
            (Subject::Workload(_), true) => return Err(FormatError::OwnKey),
            _ => {}
        }
        let lifetime_s =
            self.not_after_s.checked_sub(self.not_before_s).ok_or(FormatError::Field("validity"))?;
        let max = self.subject.lifetime_s_max();
        if lifetime_s == 0 || lifetime_s > max {
            return Err(FormatError::Lifetime(lifetime_s, max));
        }
        if self.serial.first().is_none_or(|first| !(0x40..0x80).contains(first)) {
            return Err(FormatError::Field("serial number"));
        }
        Ok(())
    }

    /// All fields in their order, by name.
    fn parts(&self, authority: &P256Key) -> Result<Vec<(&'static str, Vec<u8>)>, FormatError> {
        let domain = self.subject.trust_domain().as_str();
        let time = |seconds| time::write(seconds).ok_or(FormatError::Field("validity"));
        let name = |common: Option<&str>| {
            let organization = attribute(&ORGANIZATION_NAME, ORGANIZATION);
            let common = common.map(|name| attribute(&COMMON_NAME, name)).unwrap_or_default();
            sequence(&[&organization, &common])
        };
        let is_authority = matches!(self.subject, Subject::Authority(_));
        Ok(vec![
            ("version", element(context(0), &element(INTEGER, &[2]))),
            ("serial number", element(INTEGER, &self.serial)),
            ("algorithm", algorithm()),
            ("issuer", name(Some(domain))),
            ("validity", sequence(&[&time(self.not_before_s)?, &time(self.not_after_s)?])),
            ("subject", name(is_authority.then_some(domain))),
            ("key", self.key.spki()),
            ("extensions", element(context(3), &sequence(&[&self.extensions(authority, is_authority)]))),
        ])
    }

    fn extensions(&self, authority: &P256Key, is_authority: bool) -> Vec<u8> {
        let (constraints, usage) = match is_authority {
            true => (sequence(&[&TRUE]), CERT_AND_CRL_SIGN),
            false => (sequence(&[]), DIGITAL_SIGNATURE),
        };
        let purposes = [SERVER_AUTH, CLIENT_AUTH].map(|purpose| element(OBJECT_IDENTIFIER, &purpose));
        let authority_id = sequence(&[&element(implicit(0), &authority.key_id())]);
        let uri = element(implicit(6), self.subject.uri().as_bytes());
        let mut all = extension(&BASIC_CONSTRAINTS, true, &constraints);
        all.extend(extension(&KEY_USAGE, true, &element(BIT_STRING, &usage)));
        if !is_authority {
            all.extend(extension(&EXTENDED_KEY_USAGE, false, &sequence(&[&purposes.concat()])));
        }
        all.extend(extension(&SUBJECT_KEY_ID, false, &element(OCTET_STRING, &self.key.key_id())));
        all.extend(extension(&AUTHORITY_KEY_ID, false, &authority_id));
        all.extend(extension(&SUBJECT_ALT_NAME, false, &sequence(&[&uri])));
        all
    }
}

fn attribute(kind: &[u8], text: &str) -> Vec<u8> {
    let pair = sequence(&[&element(OBJECT_IDENTIFIER, kind), &element(UTF8_STRING, text.as_bytes())]);
    element(SET, &pair)
}

fn algorithm() -> Vec<u8> {
    sequence(&[&element(OBJECT_IDENTIFIER, &ECDSA_WITH_SHA256)])
}

fn extension(kind: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &TRUE } else { &[] };
    sequence(&[&element(OBJECT_IDENTIFIER, kind), critical, &element(OCTET_STRING, value)])
}

/// Finds what varies, and nothing more.
fn find(content: &[u8]) -> Result<Certificate, FormatError> {
    let field = FormatError::Field;
    let mut fields = Reader::new(content);
    fields.take(context(0)).ok_or(field("version"))?;
    let serial =
        fields.take(INTEGER).and_then(|number| number.try_into().ok()).ok_or(field("serial number"))?;
    fields.take(SEQUENCE).ok_or(field("algorithm"))?;
    fields.take(SEQUENCE).ok_or(field("issuer"))?;
    let mut validity = Reader::new(fields.take(SEQUENCE).ok_or(field("validity"))?);
    let mut time =
        || validity.any().and_then(|(tag, content)| time::read(tag, content)).ok_or(field("validity"));
    let (not_before_s, not_after_s) = (time()?, time()?);
    fields.take(SEQUENCE).ok_or(field("subject"))?;
    let key = fields.take(SEQUENCE).and_then(P256Key::of_spki).ok_or(field("key"))?;
    let extensions = fields.take(context(3)).and_then(|content| Reader::new(content).take(SEQUENCE));
    let uri = extensions.and_then(subject_uri).ok_or(field("subject's name"))?;
    // Only the authority has an id without a path.
    let subject = match uri.strip_prefix("spiffe://").filter(|rest| !rest.contains('/')) {
        Some(domain) => Subject::Authority(TrustDomain::parse(domain)?),
        None => Subject::Workload(SpiffeId::parse(uri)?),
    };
    Ok(Certificate { serial, subject, key, not_before_s, not_after_s })
}

fn subject_uri(extensions: &[u8]) -> Option<&str> {
    let mut all = Reader::new(extensions);
    while let Some(one) = all.take(SEQUENCE) {
        let mut one = Reader::new(one);
        if one.take(OBJECT_IDENTIFIER) == Some(&SUBJECT_ALT_NAME) {
            let names = Reader::new(one.take(OCTET_STRING)?).take(SEQUENCE)?;
            return std::str::from_utf8(Reader::new(names).take(implicit(6))?).ok();
        }
    }
    None
}

/// The whole certificate, of what was signed and the signature. None for a signature that cannot be one.
#[must_use]
pub fn certificate(signed: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> Option<Vec<u8>> {
    Signature::from_slice(signature).ok()?;
    let (r, s) = signature.split_at(SIGNATURE_BYTES / 2);
    let numbers = sequence(&[&der::unsigned(r), &der::unsigned(s)]);
    Some(sequence(&[signed, &algorithm(), &bit_string(&numbers)]))
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
pub(crate) mod tests;
