use base::{CredentialId, IdentityId, PublicKey};
use chain::payload::identity as log;

use super::{ConvertError, bytes, from_name, parse, require, to_name};
use crate::identity::v1 as pb;

impl From<&log::Identity> for pb::Identity {
    fn from(i: &log::Identity) -> Self {
        Self {
            id: i.id.0.to_vec(),
            name: i.name.clone(),
            identity_type: to_name(&i.identity_type),
            parent: i.parent.map(|id| id.0.to_vec()),
            public_key: i.public_key.0.to_vec(),
            key_path: i.key_path.to_string(),
            created_at: Some(i.created_at.into()),
            status: to_name(&i.status),
            credentials: i
                .credentials
                .iter()
                .map(|c| pb::CredentialRef { id: c.id.0.to_vec(), kind: to_name(&c.kind) })
                .collect(),
        }
    }
}

impl TryFrom<&pb::Identity> for log::Identity {
    type Error = ConvertError;

    fn try_from(i: &pb::Identity) -> Result<Self, ConvertError> {
        let credential = |c: &pb::CredentialRef| {
            Ok(log::CredentialRef {
                id: CredentialId(bytes("credential.id", &c.id)?),
                kind: from_name("credential.kind", &c.kind)?,
            })
        };
        Ok(Self {
            id: IdentityId(bytes("id", &i.id)?),
            name: i.name.clone(),
            identity_type: from_name("identity_type", &i.identity_type)?,
            parent: i.parent.as_deref().map(|id| bytes("parent", id).map(IdentityId)).transpose()?,
            public_key: PublicKey(bytes("public_key", &i.public_key)?),
            key_path: parse("key_path", &i.key_path)?,
            created_at: require("created_at", i.created_at.as_ref())?.try_into()?,
            status: from_name("status", &i.status)?,
            credentials: i.credentials.iter().map(credential).collect::<Result<_, ConvertError>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{AxiomRef, Hash, Sequence};

    /// covers: SUP-77, IDN-11, IDN-14, IDN-15
    #[test]
    fn an_identity_survives_and_unknown_members_are_refused() {
        let identity = log::Identity {
            id: IdentityId([1; 32]),
            name: "alice".to_owned(),
            identity_type: log::IdentityType::Organization,
            parent: Some(IdentityId([2; 32])),
            public_key: PublicKey([3; 32]),
            key_path: "/orbital/users/alice".parse().unwrap(),
            created_at: AxiomRef { sequence: Sequence(4), hash: Hash([5; 32]) },
            status: log::IdentityStatus::Suspended,
            credentials: vec![log::CredentialRef {
                id: CredentialId([6; 16]),
                kind: log::CredentialKind::ApiKey,
            }],
        };
        let message = pb::Identity::from(&identity);
        assert_eq!(log::Identity::try_from(&message).as_ref(), Ok(&identity));
        let other = pb::Identity { identity_type: "Root".to_owned(), ..message.clone() };
        assert!(matches!(
            log::Identity::try_from(&other),
            Err(ConvertError::Unknown { field: "identity_type", .. })
        ));
        let pending = pb::Identity { status: "Pending".to_owned(), ..message };
        assert!(matches!(
            log::Identity::try_from(&pending),
            Err(ConvertError::Unknown { field: "status", .. })
        ));
    }
}
