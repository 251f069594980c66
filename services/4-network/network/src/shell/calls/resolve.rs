//! Addresses of a name, for who asks and for requests.

use std::{net::IpAddr, sync::Arc};

use contracts::network::v1 as wire;
use tokio::time::timeout;

use super::{Asker, Network, answer};
use crate::core::{CallError, HostName, decide, host_name, limits::time_limit_or_default, special};

/// One address of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) ip: IpAddr,
    pub(super) ttl_seconds: u32,
}

impl Network {
    /// Asks for both families. What is special by its name alone is not asked for: its address is named instead.
    pub(super) async fn lookup(&self, host: &str) -> Result<Vec<Known>, CallError> {
        let name: HostName =
            host.parse().map_err(|error| CallError::InvalidUrl(format!("{host:?}: {error}")))?;
        if let Some(kind) = name.special() {
            let text = format!("{name} is {} by its name; name its address instead", kind.name());
            return Err(CallError::PolicyDenied(text));
        }
        let answer = self.resolver.resolve(&name).await.map_err(|error| CallError::Dns(error.to_string()))?;
        let ttl_seconds = u32::try_from(answer.ttl.as_secs()).unwrap_or(u32::MAX);
        Ok(answer.addresses.into_iter().map(|ip| Known { ip, ttl_seconds }).collect())
    }

    /// A name is allowed that could be asked for by https, and counts towards what its caller may ask for (open point 7).
    pub(super) async fn resolve(
        self: &Arc<Self>,
        asker: &Asker,
        request: &wire::ResolveRequest,
    ) -> wire::ResolveReply {
        let limit = time_limit_or_default(request.timeout_ms);
        let found = timeout(limit, self.addresses_for(asker, &request.name)).await;
        match found.unwrap_or(Err(CallError::Timeout(limit.as_millis()))) {
            Ok(addresses) => wire::ResolveReply { addresses, failed: None },
            Err(error) => wire::ResolveReply { addresses: Vec::new(), failed: Some(answer::error(&error)) },
        }
    }

    async fn addresses_for(
        self: &Arc<Self>,
        asker: &Asker,
        name: &str,
    ) -> Result<Vec<wire::ResolvedAddress>, CallError> {
        let target = host_name(name)?;
        let policy = self.calls.policy();
        decide(&policy.rules, &asker.user, &target).map_err(|(_, refused)| refused)?;
        self.calls.count(&policy, &asker.user, None)?;
        let known = match target.address() {
            Some(ip) => vec![Known { ip, ttl_seconds: 0 }],
            None => self.lookup(target.host()).await?,
        };
        let shown = |known: Known| wire::ResolvedAddress {
            ip: match known.ip {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            },
            ttl_seconds: known.ttl_seconds,
            special: special(known.ip).map(|kind| kind.name().to_owned()).unwrap_or_default(),
        };
        Ok(known.into_iter().map(shown).collect())
    }
}
