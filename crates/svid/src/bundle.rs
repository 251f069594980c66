//! What others verify SVIDs with (SPIFFE_Trust_Domain_and_Bundle.md).

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::P256Key;

/// How often to look for a new bundle, in seconds: the authority's keys change only with the node's seed.
const REFRESH_HINT_S: u32 = 3600;

/// The keys that sign tokens, as a plain JSON web key set: what the Workload API hands out.
#[must_use]
pub fn jwt_keys(key: &P256Key) -> String {
    format!(r#"{{"keys":[{}]}}"#, key.jwk_with(&format!(r#","kid":"{}""#, key.thumbprint())))
}

/// Both authorities of a trust domain as a SPIFFE bundle. `authority` is the certificate of the first key.
#[must_use]
pub fn trust_bundle(x509: &P256Key, authority: &[u8], jwt: &P256Key) -> String {
    let chain = STANDARD.encode(authority);
    let certificates = x509.jwk_with(&format!(r#","use":"x509-svid","x5c":["{chain}"]"#));
    let tokens = jwt.jwk_with(&format!(r#","use":"jwt-svid","kid":"{}""#, jwt.thumbprint()));
    format!(r#"{{"keys":[{certificates},{tokens}],"spiffe_refresh_hint":{REFRESH_HINT_S}}}"#)
}
