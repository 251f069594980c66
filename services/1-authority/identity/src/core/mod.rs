//! Pure part of the service: the registry as a fold of the log, and what may be added to it.

mod challenges;
mod credentials;
mod error;
mod failures;
mod machine;
mod names;
mod passkeys;
mod registry;
mod svids;

pub use challenges::{CHALLENGE_LIFE_NS, CHALLENGES_MAX, CHALLENGES_PER_CHANNEL_MAX, Challenge};
pub use credentials::{
    Assertion, AuthProof, CREDENTIALS_MAX, CREDENTIALS_PER_IDENTITY_MAX, Credential, Credentials, KEY_BYTES,
    KEY_PREFIX, PERMISSIONS_MAX, challenge_hash, key_hash, key_proof, key_text, parse_key,
};
pub use error::{ActFailure, IdentityError};
pub use machine::{
    Act, AddCredentialRequest, AuthenticateRequest, CreateIdentityRequest, Effect, Event, IdentityCore,
    IssueTokenRequest, NewCredential, PENDING_MAX, Proposal, Reply, RequestId, RevokeCredentialRequest,
    UpdateStatusRequest,
};
pub use names::qualified_name;
pub use passkeys::{
    ASSERTION_SIGNATURE_BYTES_MAX, ATTESTATION_BYTES_MAX, AUTHENTICATOR_DATA_BYTES_MAX,
    CLIENT_DATA_BYTES_MAX, RP_ID, Registration,
};
pub use registry::{FOLD_VERSION, IDENTITIES_MAX, IdentityFilter, Registry, TOKENS_MAX};
pub use svids::{
    Authority, ISSUES_MAX, Issues, SETTINGS_BYTES_MAX, Settings, SettingsError, SvidError, renew_at,
};
