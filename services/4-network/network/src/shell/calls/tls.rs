//! TLS of calls: the authorities of the build, and those that an administrator has added on record.

use std::sync::Arc;

use chain::payload::network::NetworkPolicyUpdate;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::{Calls, lock, reach::Wire};
use crate::core::CallError;

/// One certificate of an authority.
fn authority(pem: &str) -> Result<CertificateDer<'static>, String> {
    let mut all = CertificateDer::pem_slice_iter(pem.as_bytes());
    match (all.next(), all.next()) {
        (Some(Ok(one)), None) => Ok(one),
        _ => Err("an authority is one certificate in PEM".to_owned()),
    }
}

/// Whether it can vouch for anybody.
pub(in crate::shell) fn check_authority(pem: &str) -> Result<(), String> {
    alone(pem).map(drop)
}

/// Nobody else vouches then.
fn alone(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let added = roots.add(authority(pem)?);
    added.map_err(|error| format!("an authority cannot be used: {error}"))?;
    Ok(roots)
}

fn roots(policy: &NetworkPolicyUpdate) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for pem in &policy.authorities {
        let added = roots.add(authority(pem)?);
        added.map_err(|error| format!("an authority cannot be used: {error}"))?;
    }
    Ok(roots)
}

/// What would be trusted under this policy, or why it cannot be.
pub(super) fn config(policy: &NetworkPolicyUpdate) -> Result<Arc<ClientConfig>, String> {
    by(roots(policy)?)
}

fn by(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

impl Calls {
    fn tls_config(&self) -> Result<Arc<ClientConfig>, CallError> {
        let mut known = lock(&self.tls);
        // Read under the lock: an older policy must not be what is remembered after a newer one was folded.
        let policy = self.policy();
        if let Some(config) = &*known {
            return Ok(Arc::clone(config));
        }
        let made = config(&policy).map_err(CallError::Other)?;
        *known = Some(Arc::clone(&made));
        Ok(made)
    }

    /// NET-60: verified for the name that was asked for.
    pub(super) async fn tls(&self, stream: Wire, host: &str) -> Result<Wire, CallError> {
        self.tls_by(stream, host, None).await
    }

    /// The same where this certificate alone vouches for the host, if one is named.
    pub(in crate::shell) async fn tls_by(
        &self,
        stream: Wire,
        host: &str,
        authority: Option<&str>,
    ) -> Result<Wire, CallError> {
        let failed = |text: String| CallError::ConnectionFailed(format!("TLS with {host}: {text}"));
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|error| failed(error.to_string()))?;
        let connector = TlsConnector::from(match authority {
            Some(pem) => alone(pem).and_then(by).map_err(CallError::Other)?,
            None => self.tls_config()?,
        });
        let stream = connector.connect(name, stream).await.map_err(|error| failed(error.to_string()))?;
        Ok(Box::new(stream))
    }
}
