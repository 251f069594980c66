//! Passkeys: what a browser's authenticator says when one is made or used, checked by webauthn-rs (IDN-27, IDN-45). Pure: the
//! challenge comes from outside, so the crate's own, which is random, is never asked for.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chain::payload::identity::{CredentialBody, PasskeyOrigin};
use serde::de::DeserializeOwned;
use serde_json::json;
use webauthn_rs_core::{
    WebauthnCore,
    error::WebauthnError,
    proto::{
        AttestationFormat, AuthenticatorAssertionResponseRaw, AuthenticatorAttestationResponseRaw,
        COSEAlgorithm, COSEEC2Key, COSEKey, COSEKeyType, Credential, ECDSACurve, ParsedAttestation,
        PublicKeyCredential, RegisterPublicKeyCredential, RegisteredExtensions, UserVerificationPolicy,
    },
};

use super::{Assertion, Challenge, IdentityError, challenge_hash};

/// Whom passkeys are made for: a page that the machine shows to itself.
pub const RP_ID: &str = "localhost";
pub const CLIENT_DATA_BYTES_MAX: usize = 4_096;
pub const ATTESTATION_BYTES_MAX: usize = 16_384;
pub const AUTHENTICATOR_DATA_BYTES_MAX: usize = 4_096;
pub const ASSERTION_SIGNATURE_BYTES_MAX: usize = 1_024;
/// Of an authenticator's id for a passkey, as CTAP has it.
const WEBAUTHN_ID_BYTES_MAX: usize = 1_023;
const ORIGIN: &str = "http://localhost";
/// Where the authenticator's kind stands in its data: behind the hash of the id, the flags and the counter.
const AAGUID_AT: std::ops::Range<usize> = 37..53;
/// An ES256 key in COSE's canonical form: kty EC2, alg ES256, crv P-256, then x and y behind their heads.
const COSE_HEAD: [u8; 10] = [0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20];
const COSE_Y_HEAD: [u8; 3] = [0x22, 0x58, 0x20];
const COORDINATE_BYTES: usize = 32;

/// A new passkey, as the authenticator gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Names the credential that is to be, and the page.
    pub challenge: Challenge,
    pub client_data: Vec<u8>,
    pub attestation_object: Vec<u8>,
}

/// Whether a page of that origin may be asked for a passkey.
pub(super) fn is_origin(text: &str) -> bool {
    match text.strip_prefix(ORIGIN) {
        Some("") => true,
        // Written as a browser writes it, so that there is one text for one page.
        Some(rest) => rest.strip_prefix(':').is_some_and(|port| {
            port.parse::<u16>().is_ok_and(|number| number != 0 && number != 80 && number.to_string() == port)
        }),
        None => false,
    }
}

/// A counter that stands still is that of a copy, unless the authenticator has none (IDN-45).
pub(super) const fn advances(stored: u32, reported: u32) -> bool {
    reported > stored || (stored == 0 && reported == 0)
}

fn relying_party(challenge: &Challenge) -> Result<WebauthnCore, IdentityError> {
    let origin = challenge.origin.as_deref().filter(|origin| is_origin(origin));
    let origin = origin.and_then(|origin| origin.parse().ok()).ok_or(IdentityError::Origin)?;
    // The time is for the browser, and nothing here is said to one.
    let timeout = Duration::ZERO;
    Ok(WebauthnCore::new_unsafe_experts_only("Bailiwick", RP_ID, vec![origin], timeout, None, None))
}

/// The state in which the crate left a ceremony, had it begun with our challenge: it offers no other way to give it one.
fn state<T: DeserializeOwned>(mut fields: serde_json::Value, challenge: &Challenge) -> Option<T> {
    let text = URL_SAFE_NO_PAD.encode(challenge_hash(challenge).0);
    fields.as_object_mut()?.insert("challenge".to_owned(), text.into());
    serde_json::from_value(fields).ok()
}

fn cose_of(key: &COSEKey) -> Option<Vec<u8>> {
    let COSEKeyType::EC_EC2(COSEEC2Key { curve: ECDSACurve::SECP256R1, x, y }) = &key.key else {
        return None;
    };
    if key.type_ != COSEAlgorithm::ES256 || x.len() != COORDINATE_BYTES || y.len() != COORDINATE_BYTES {
        return None;
    }
    Some([&COSE_HEAD[..], x, &COSE_Y_HEAD, y].concat())
}

fn key_of(cose: &[u8]) -> Option<COSEKey> {
    let (x, rest) = cose.strip_prefix(&COSE_HEAD)?.split_at_checked(COORDINATE_BYTES)?;
    let y = rest.strip_prefix(&COSE_Y_HEAD)?;
    if y.len() != COORDINATE_BYTES {
        return None;
    }
    let key = COSEEC2Key { curve: ECDSACurve::SECP256R1, x: x.to_vec(), y: y.to_vec() };
    Some(COSEKey { type_: COSEAlgorithm::ES256, key: COSEKeyType::EC_EC2(key) })
}

/// The kind of authenticator, which the crate reads and does not hand out.
fn aaguid(attestation_object: &[u8]) -> Option<[u8; 16]> {
    let mut decoder = minicbor::Decoder::new(attestation_object);
    for _ in 0..decoder.map().ok()?? {
        if decoder.str().ok()? == "authData" {
            return decoder.bytes().ok()?.get(AAGUID_AT)?.try_into().ok();
        }
        decoder.skip().ok()?;
    }
    None
}

/// The credential's body, and the authenticator's id for it. Attestation is not asked for: what counts is who adds it.
pub(super) fn check_registration(
    registration: &Registration,
) -> Result<(CredentialBody, Vec<u8>), IdentityError> {
    let Registration { challenge, client_data, attestation_object } = registration;
    if client_data.len() > CLIENT_DATA_BYTES_MAX || attestation_object.len() > ATTESTATION_BYTES_MAX {
        return Err(IdentityError::Registration("it has too many bytes"));
    }
    let fields = json!({
        "policy": "required", "exclude_credentials": [], "credential_algorithms": ["ES256"],
        "require_resident_key": false, "authenticator_attachment": null, "extensions": {},
        "allow_synchronised_authenticators": true,
    });
    let state = state(fields, challenge).ok_or(IdentityError::Registration("its state cannot be made"))?;
    let response = RegisterPublicKeyCredential {
        // Not looked at: the id is in the attestation object.
        id: String::new(),
        raw_id: vec![],
        response: AuthenticatorAttestationResponseRaw {
            attestation_object: attestation_object.clone(),
            client_data_json: client_data.clone(),
            transports: None,
        },
        type_: "public-key".to_owned(),
        extensions: Default::default(),
    };
    let made = relying_party(challenge)?.register_credential(&response, &state, None);
    let made = made.map_err(|error| match error {
        WebauthnError::UserNotVerified => IdentityError::UserNotVerified,
        WebauthnError::InvalidRPOrigin | WebauthnError::InvalidRPIDHash => IdentityError::OtherPage,
        WebauthnError::MismatchedChallenge => IdentityError::Registration("it answers another challenge"),
        WebauthnError::CredentialAlteredAlgFromRequest => {
            IdentityError::Registration("only ES256 keys are taken")
        }
        _ => IdentityError::Registration("webauthn-rs refuses it"),
    })?;
    if made.cred_id.is_empty() || made.cred_id.len() > WEBAUTHN_ID_BYTES_MAX {
        return Err(IdentityError::Registration("its id has no byte or too many"));
    }
    let public_key = cose_of(&made.cred).ok_or(IdentityError::Registration("only ES256 keys are taken"))?;
    let aaguid = aaguid(attestation_object).ok_or(IdentityError::Registration("it has no aaguid"))?;
    let origin = PasskeyOrigin { webauthn_id: made.cred_id.clone(), backup_eligible: made.backup_eligible };
    let body = CredentialBody::Passkey { public_key, aaguid, sign_count: made.counter, origin: Some(origin) };
    Ok((body, made.cred_id))
}

/// Where the counter stands after it.
pub(super) fn check_assertion(
    body: &CredentialBody,
    challenge: &Challenge,
    assertion: &Assertion,
) -> Result<u32, IdentityError> {
    let CredentialBody::Passkey { public_key, sign_count, origin: Some(origin), .. } = body else {
        return Err(IdentityError::ProofRefused);
    };
    let Assertion { client_data, authenticator_data, signature } = assertion;
    if client_data.len() > CLIENT_DATA_BYTES_MAX
        || authenticator_data.len() > AUTHENTICATOR_DATA_BYTES_MAX
        || signature.len() > ASSERTION_SIGNATURE_BYTES_MAX
    {
        return Err(IdentityError::ProofRefused);
    }
    let credential = Credential {
        cred_id: origin.webauthn_id.clone(),
        cred: key_of(public_key).ok_or(IdentityError::ProofRefused)?,
        counter: *sign_count,
        transports: None,
        user_verified: true,
        backup_eligible: origin.backup_eligible,
        backup_state: false,
        registration_policy: UserVerificationPolicy::Required,
        extensions: RegisteredExtensions::none(),
        attestation: ParsedAttestation::default(),
        attestation_format: AttestationFormat::None,
    };
    let fields = json!({
        "credentials": [], "policy": "required", "appid": null, "allow_backup_eligible_upgrade": false,
    });
    let state = state(fields, challenge).ok_or(IdentityError::ProofRefused)?;
    let response = PublicKeyCredential {
        id: String::new(),
        raw_id: origin.webauthn_id.clone(),
        response: AuthenticatorAssertionResponseRaw {
            authenticator_data: authenticator_data.clone(),
            client_data_json: client_data.clone(),
            signature: signature.clone(),
            user_handle: None,
        },
        extensions: Default::default(),
        type_: "public-key".to_owned(),
    };
    let relying_party = relying_party(challenge).map_err(|_| IdentityError::ProofRefused)?;
    let result = relying_party.authenticate_single_credential(&response, &state, &credential);
    let result = result.map_err(|error| match error {
        WebauthnError::UserNotVerified => IdentityError::UserNotVerified,
        WebauthnError::InvalidRPOrigin | WebauthnError::InvalidRPIDHash => IdentityError::OtherPage,
        WebauthnError::CredentialPossibleCompromise => IdentityError::PasskeyCopied,
        _ => IdentityError::ProofRefused,
    })?;
    // The fold takes no counter that stands still: whatever the crate says, no token is given for one.
    if advances(*sign_count, result.counter()) {
        Ok(result.counter())
    } else {
        Err(IdentityError::PasskeyCopied)
    }
}
