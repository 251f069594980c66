//! Issues SVIDs: each is decided by policy for its service and recorded, and then signed by the authority's key in `keys`,
//! which is decided and recorded once more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{AxiomTime, Hash, KeyPath, TraceId};
use chain::payload::{
    identity::{IdentityChange, IdentityUpdated, Svid},
    policy::{PolicyAction, ResourceRef, ResourceType},
};
use contracts::{
    identity::v1::TrustBundle,
    keys::v1::{DerivePublicKeyRequest, SignBytesRequest, keys_client::KeysClient},
    policy::v1::{
        self as wire, Action, PolicyContext, PolicyRequest, policy_engine_client::PolicyEngineClient,
    },
};
use kit::{
    BoxError, CallError, IntoRefusal, OperationContext, Peer, Requestor, authority::Entry, client::Calls,
};
use p256::ecdsa::SigningKey;
use svid::{Certificate, P256Key, SpiffeId, Token};
use tokio::sync::{OnceCell, watch};
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::run::Runner;
use crate::core::{Authority, IdentityError, Issues, SETTINGS_BYTES_MAX, Settings, SvidError, renew_at};

const X509: &str = "@x509";
const JWT: &str = "@jwt";
const SIGN_CAPABILITY: &str = "system.keys.sign_bytes";
const EVALUATE_CAPABILITY: &str = "system.policy.evaluate";
const NOT_SIGNED: &str = "the authority's key could not be used; ask again";
const DERIVE_CAPABILITY: &str = "system.keys.derive_public_key";
/// Random numbers that are tried as a key; one in 2^32 is none.
const KEY_TRIES: usize = 4;

/// Reads the operator's settings; none are the defaults, bad ones end the start.
pub(super) fn settings() -> Result<Settings, BoxError> {
    use std::io::Read as _;
    let path = std::path::Path::new(kit::env::CONFIG_FOLDER).join(base::layout::IDENTITY_SETTINGS);
    let mut text = String::new();
    match std::fs::File::open(&path) {
        // One byte more, so that a longer file is noticed.
        Ok(file) => file.take(SETTINGS_BYTES_MAX as u64 + 1).read_to_string(&mut text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error.into()),
    };
    Ok(Settings::parse(&text)?)
}

impl IntoRefusal for SvidError {
    const DOMAIN: &'static str = "bailiwick.identity.v1";

    fn reason(&self) -> &'static str {
        match self {
            Self::Format(_) => "InvalidRequest",
            Self::Busy => "Busy",
            _ => "NoTrustDomain",
        }
    }

    fn guilty(&self) -> kit::Guilty {
        match self {
            Self::Format(_) => kit::Guilty::Misuse,
            _ => kit::Guilty::Refused,
        }
    }

    fn retry(&self) -> kit::Retry {
        match self {
            Self::Busy => kit::Retry::After(1000),
            _ => kit::Retry::Never,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Format(_) => Code::InvalidArgument,
            Self::Busy => Code::ResourceExhausted,
            _ => Code::FailedPrecondition,
        }
    }
}

fn refused(error: SvidError) -> Status {
    error.to_status()
}

/// The authority's keys, which are those of this node's seed for ever.
#[derive(Clone, Copy)]
struct Keys {
    x509: P256Key,
    jwt: P256Key,
}

/// An X.509-SVID with the key that was made for it.
pub(super) struct IssuedX509 {
    pub(super) id: SpiffeId,
    pub(super) certificate: Vec<u8>,
    pub(super) private_key: Zeroizing<Vec<u8>>,
    pub(super) authority: Vec<u8>,
    pub(super) renew_at: AxiomTime,
    pub(super) ends_at: AxiomTime,
}

pub(super) struct Svids {
    runner: Arc<Runner>,
    settings: Settings,
    keys: OnceCell<Keys>,
    /// The authority's own certificate, and from which second it is.
    own: tokio::sync::Mutex<Option<(u64, Vec<u8>)>>,
    issues: Mutex<Issues>,
    status: watch::Sender<()>,
}

impl Svids {
    pub(super) fn new(runner: Arc<Runner>, settings: Settings) -> Self {
        Self {
            runner,
            settings,
            keys: OnceCell::new(),
            own: tokio::sync::Mutex::new(None),
            issues: Mutex::default(),
            status: watch::Sender::new(()),
        }
    }

    pub(super) fn runner(&self) -> &Runner {
        &self.runner
    }

    /// Somebody was suspended, or is active again.
    pub(super) fn status_changed(&self) {
        self.status.send_replace(());
    }

    pub(super) fn status_changes(&self) -> watch::Receiver<()> {
        self.status.subscribe()
    }

    fn issues(&self) -> MutexGuard<'_, Issues> {
        self.issues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Result<AxiomTime, Status> {
        Ok(self.runner.node().clock().now().ok_or(IdentityError::TimeUnknown)?)
    }

    pub(super) fn authority(&self) -> Result<Authority, Status> {
        self.runner.read(|registry| registry.authority()).map_err(refused)
    }

    async fn keys(&self) -> Result<Keys, Status> {
        let derived = self.keys.get_or_try_init(|| async {
            let authority = self.authority()?;
            let key = async |purpose| {
                let path = authority.key_path(purpose).map_err(refused)?;
                self.public_key(&path).await
            };
            Ok::<_, Status>(Keys { x509: key(X509).await?, jwt: key(JWT).await? })
        });
        derived.await.copied()
    }

    fn calls(&self, peer: &Peer, capability: &str) -> Result<Calls, Status> {
        let trace = TraceId(kit::authority::random_16()?);
        let context = OperationContext::of_service(self.runner.node().identity(), capability, trace);
        Ok(context.and_then(|context| peer.with(&context, None))?)
    }

    async fn public_key(&self, path: &KeyPath) -> Result<P256Key, Status> {
        let request = DerivePublicKeyRequest { path: path.to_string(), epoch: None };
        let mut keys = KeysClient::new(self.calls(self.runner.keys(), DERIVE_CAPABILITY)?);
        let key = keys.derive_public_key(request).await.map_err(not_signed)?.into_inner().key;
        P256Key::from_bytes(&key).ok_or_else(|| Status::internal("`keys` gave no key on P-256"))
    }

    /// In this service's own name: policy decides about the use of the authority's key, `keys` records it.
    async fn sign(&self, path: &KeyPath, message: &[u8]) -> Result<[u8; 64], Status> {
        let node = self.runner.node();
        let requestor = node.identity().0.to_vec();
        // Over the edge, where the channel proves who asks: in the name of another, this service may ask for no signature.
        let request = PolicyRequest {
            requestor: requestor.clone(),
            action: Some(Action {
                kind: "sign".to_owned(),
                key_path: path.to_string(),
                message_hash: Hash::of(message).0.to_vec(),
                ..Action::default()
            }),
            resource: Some(wire::ResourceRef { r#type: "key".to_owned(), id: path.to_string() }),
            context: Some(PolicyContext::default()),
            nonce: kit::authority::random_16()?.to_vec(),
            signature: Vec::new(),
        };
        let mut policy = PolicyEngineClient::new(self.calls(self.runner.policy(), EVALUATE_CAPABILITY)?);
        let decision = policy.evaluate(request).await.map_err(not_signed)?.into_inner();
        if decision.effect() == wire::Effect::Deny {
            let decision = decision.axiom_ref.map_or(0, |reference| reference.sequence);
            tracing::warn!(decision, "policy refuses this service the authority's key");
            return Err(Status::unavailable(NOT_SIGNED));
        }
        let (key_path, message) = (path.to_string(), message.to_vec());
        let request = SignBytesRequest { key_path, message, requestor, authorization: Some(decision) };
        let mut keys = KeysClient::new(self.calls(self.runner.keys(), SIGN_CAPABILITY)?);
        let signed = keys.sign_bytes(request).await.map_err(not_signed)?;
        let signature = signed.into_inner().signature.try_into();
        signature.map_err(|_| Status::internal("a signature has 64 bytes"))
    }

    /// Policy decides whether the service gets it, and the log has it before it is made.
    async fn record(
        &self,
        requestor: &Requestor,
        svid: Svid,
        message: &[u8],
        expires_at: AxiomTime,
    ) -> Result<(), Status> {
        let node = self.runner.node();
        let identity = requestor.id();
        let resource = ResourceRef { resource_type: ResourceType::Identity, id: identity.to_string() };
        let request = requestor.ask(node, PolicyAction::Authenticate { identity }, resource)?;
        let change = IdentityChange::SvidIssued { svid, message_hash: Hash::of(message), expires_at };
        let entry = Entry::for_request(node.identity(), &request, IdentityUpdated { identity, change })?;
        node.authority().act(&request, entry).await?;
        Ok(())
    }

    /// The certificate that SVIDs are verified with; made once in its period, and the same each time.
    pub(super) async fn own_certificate(&self) -> Result<Vec<u8>, Status> {
        let (authority, keys, now) = (self.authority()?, self.keys().await?, self.now()?);
        let wanted = authority.own_certificate(&keys.x509, now);
        let mut own = self.own.lock().await;
        if let Some((since, certificate)) = &*own
            && *since == wanted.not_before_s
        {
            return Ok(certificate.clone());
        }
        let made = self.certify(&authority, &keys, &wanted).await?;
        *own = Some((wanted.not_before_s, made.clone()));
        Ok(made)
    }

    async fn certify(
        &self,
        authority: &Authority,
        keys: &Keys,
        wanted: &Certificate,
    ) -> Result<Vec<u8>, Status> {
        let message = wanted.to_sign(&keys.x509).map_err(|error| refused(error.into()))?;
        let path = authority.key_path(X509).map_err(refused)?;
        let signature = self.sign(&path, &message).await?;
        svid::certificate(&message, &signature).ok_or_else(|| Status::internal("this is no ES256 signature"))
    }

    pub(super) async fn x509(&self, requestor: &Requestor, client: &str) -> Result<IssuedX509, Status> {
        let (authority, keys, now) = (self.authority()?, self.keys().await?, self.now()?);
        let id = authority.id_of(client).map_err(refused)?;
        let own = self.own_certificate().await?;
        self.issues().count(client, now).map_err(refused)?;
        let (secret, key) = fresh_key()?;
        let lifetime_s = self.settings.x509_lifetime_s;
        let random = kit::authority::random_16()?;
        let wanted = Authority::certificate(id.clone(), key, random, now, lifetime_s);
        let message = wanted.to_sign(&keys.x509).map_err(|error| refused(error.into()))?;
        let ends_at = seconds(wanted.not_after_s);
        self.record(requestor, Svid::X509 { serial: wanted.serial }, &message, ends_at).await?;
        let certificate = self.certify(&authority, &keys, &wanted).await?;
        let private_key = svid::pkcs8(&secret, &key);
        let renew_at = renew_at(now, lifetime_s);
        Ok(IssuedX509 { id, certificate, private_key, authority: own, renew_at, ends_at })
    }

    pub(super) async fn jwt(
        &self,
        requestor: &Requestor,
        client: &str,
        audience: Vec<String>,
    ) -> Result<(SpiffeId, String), Status> {
        let (authority, keys, now) = (self.authority()?, self.keys().await?, self.now()?);
        let id = authority.id_of(client).map_err(refused)?;
        let token = Authority::token(id.clone(), audience, now, self.settings.jwt_lifetime_s);
        let message = token.to_sign(&keys.jwt).map_err(|error| refused(error.into()))?;
        self.issues().count(client, now).map_err(refused)?;
        let path = authority.key_path(JWT).map_err(refused)?;
        let expires_at = seconds(token.expires_at_s);
        self.record(requestor, Svid::Jwt { audience: token.audience }, message.as_bytes(), expires_at)
            .await?;
        let signature = self.sign(&path, message.as_bytes()).await?;
        Ok((id, svid::join(&message, &signature)))
    }

    pub(super) async fn validate(&self, text: &str, audience: &str) -> Result<Token, Status> {
        let (authority, keys, now) = (self.authority()?, self.keys().await?, self.now()?);
        let now_s = now.0 / seconds(1).0;
        let verified = Token::verify(text, authority.domain(), &keys.jwt, audience, now_s);
        verified.map_err(|error| Status::invalid_argument(error.to_string()))
    }

    pub(super) async fn jwt_keys(&self) -> Result<String, Status> {
        Ok(svid::jwt_keys(&self.keys().await?.jwt))
    }

    pub(super) async fn trust_bundle(&self) -> Result<TrustBundle, Status> {
        let (authority, keys) = (self.authority()?, self.keys().await?);
        let own = self.own_certificate().await?;
        Ok(TrustBundle {
            trust_domain: authority.domain().to_string(),
            bundle: svid::trust_bundle(&keys.x509, &own, &keys.jwt),
            x509_authority: own,
            x509_lifetime_s: self.settings.x509_lifetime_s,
            jwt_lifetime_s: self.settings.jwt_lifetime_s,
        })
    }
}

/// What policy or `keys` refuses this service is no refusal of the workload.
fn not_signed(status: Status) -> Status {
    let text = status.message().to_owned();
    tracing::warn!(reason = CallError::from(status).reason(), text, "the authority's key was not used");
    Status::unavailable(NOT_SIGNED)
}

const fn seconds(count: u64) -> AxiomTime {
    AxiomTime(count.saturating_mul(1_000_000_000))
}

/// A key pair for one SVID; the authority's own key never leaves the boundary, and this one goes to its workload.
fn fresh_key() -> Result<(Zeroizing<[u8; 32]>, P256Key), Status> {
    let mut secret = Zeroizing::new([0; 32]);
    for _ in 0..KEY_TRIES {
        sandbox::random::fill(&mut secret[..])
            .map_err(|_| Status::unavailable("the kernel gives no random numbers"))?;
        let Ok(pair) = SigningKey::from_slice(&secret[..]) else { continue };
        if let Some(key) = P256Key::from_bytes(pair.verifying_key().to_sec1_point(false).as_bytes()) {
            return Ok((secret, key));
        }
    }
    Err(Status::unavailable("the kernel's random numbers are no keys"))
}
