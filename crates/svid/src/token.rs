//! JWT-SVIDs (JWT-SVID.md, RFC 7515, RFC 7519) in one form: members in this order, no space, no escape.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;

use crate::{FormatError, P256Key, SIGNATURE_BYTES, SpiffeId, TrustDomain};

/// A token is a bearer's: whoever sees it can use it until it ends, so no token lives longer than an hour.
pub const TOKEN_LIFETIME_S_MAX: u64 = 3600;
/// For whom one token may be.
pub const AUDIENCES_MAX: usize = 8;
/// Bytes of one of them: visible ASCII without `"` and `\`, so that JSON needs no escapes.
pub const AUDIENCE_BYTES_MAX: usize = 255;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub subject: SpiffeId,
    pub audience: Vec<String>,
    /// Seconds since 1970.
    pub expires_at_s: u64,
    pub issued_at_s: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    #[error("it is no token of this trust domain: {0}")]
    Format(#[from] FormatError),
    #[error("its signature is not the authority's")]
    Signature,
    #[error("it has expired")]
    Expired,
    #[error("it is for another audience")]
    Audience,
}

impl Token {
    /// What the key is to sign.
    pub fn to_sign(&self, key: &P256Key) -> Result<String, FormatError> {
        self.check(self.subject.trust_domain())?;
        Ok(format!("{}.{}", encode(&header(key)), encode(&self.claims())))
    }

    /// Reads what `key`, of this trust domain, is asked to sign.
    pub fn read(bytes: &[u8], domain: &TrustDomain, key: &P256Key) -> Result<Self, FormatError> {
        let text = std::str::from_utf8(bytes).map_err(|_| FormatError::NoToken)?;
        let (head, claims) = text.split_once('.').ok_or(FormatError::NoToken)?;
        if head != encode(&header(key)) {
            return Err(FormatError::Field("header"));
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).ok().and_then(|claims| String::from_utf8(claims).ok());
        let claims = claims.ok_or(FormatError::NoToken)?;
        let token = find(&claims)?;
        token.check(domain)?;
        if token.claims() == claims { Ok(token) } else { Err(FormatError::Field("list of claims")) }
    }

    /// Reads a whole token and says whether it holds now, for this audience.
    pub fn verify(
        text: &str,
        domain: &TrustDomain,
        key: &P256Key,
        audience: &str,
        now_s: u64,
    ) -> Result<Self, TokenError> {
        let (signed, signature) = text.rsplit_once('.').ok_or(FormatError::NoToken)?;
        let token = Self::read(signed.as_bytes(), domain, key)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok().and_then(|bytes| bytes.try_into().ok());
        if !signature.is_some_and(|signature| key.verify(signed.as_bytes(), &signature)) {
            return Err(TokenError::Signature);
        }
        if token.expires_at_s <= now_s {
            return Err(TokenError::Expired);
        }
        match token.audience.iter().any(|one| one == audience) {
            true => Ok(token),
            false => Err(TokenError::Audience),
        }
    }

    fn claims(&self) -> String {
        let audience = self.audience.join("\",\"");
        let Self { subject, expires_at_s, issued_at_s, .. } = self;
        format!(r#"{{"sub":"{subject}","aud":["{audience}"],"exp":{expires_at_s},"iat":{issued_at_s}}}"#)
    }

    fn check(&self, domain: &TrustDomain) -> Result<(), FormatError> {
        if self.subject.trust_domain() != domain {
            return Err(FormatError::OtherTrustDomain(self.subject.trust_domain().to_string()));
        }
        let legal = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        let fits = |one: &String| (1..=AUDIENCE_BYTES_MAX).contains(&one.len()) && one.bytes().all(legal);
        if !(1..=AUDIENCES_MAX).contains(&self.audience.len()) || !self.audience.iter().all(fits) {
            return Err(FormatError::Field("audience"));
        }
        let life = self.expires_at_s.checked_sub(self.issued_at_s).ok_or(FormatError::Field("expiry"))?;
        match (1..=TOKEN_LIFETIME_S_MAX).contains(&life) {
            true => Ok(()),
            false => Err(FormatError::Lifetime(life, TOKEN_LIFETIME_S_MAX)),
        }
    }
}

/// The whole token, of what was signed and the signature.
#[must_use]
pub fn join(signed: &str, signature: &[u8; SIGNATURE_BYTES]) -> String {
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn header(key: &P256Key) -> String {
    format!(r#"{{"alg":"ES256","kid":"{}","typ":"JWT"}}"#, key.thumbprint())
}

/// Finds what varies, and nothing more.
fn find(claims: &str) -> Result<Token, FormatError> {
    let field = FormatError::Field;
    let rest = claims.strip_prefix(r#"{"sub":""#).ok_or(field("subject"))?;
    let (subject, rest) = rest.split_once(r#"","aud":[""#).ok_or(field("subject"))?;
    let (audience, rest) = rest.split_once(r#""],"exp":"#).ok_or(field("audience"))?;
    let (expires_at, rest) = rest.split_once(r#","iat":"#).ok_or(field("expiry"))?;
    let issued_at = rest.strip_suffix('}').ok_or(field("time of issue"))?;
    let number = |text: &str, name| text.parse().map_err(|_| field(name));
    Ok(Token {
        subject: SpiffeId::parse(subject)?,
        // One more than allowed, so that too many are noticed.
        audience: audience.split("\",\"").take(AUDIENCES_MAX + 1).map(str::to_owned).collect(),
        expires_at_s: number(expires_at, "expiry")?,
        issued_at_s: number(issued_at, "time of issue")?,
    })
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
