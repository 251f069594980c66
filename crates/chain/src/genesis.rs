//! Builds the first entry from keys that the boundary derived: who exists before anyone can be asked (DESIGN 6, AX-29).

use std::collections::BTreeMap;

use base::{AxiomTime, Hash, IdentityId, KeyPath, KeyPathError, PublicKey};
use thiserror::Error;

use crate::payload::{
    capability::CapabilityGrant,
    identity::{IdentityCreated, IdentityType},
    policy::PolicyRule,
    service::Genesis,
};

/// The services that a node ships with, by boot name (seed 003 §2.1).
pub const SERVICE_NAMES: [&str; 12] = [
    "axiom",
    "policy",
    "keys",
    "identity",
    "capability_service",
    "process_manager",
    "block_storage",
    "filesystem",
    "driver_manager",
    "network",
    "terminal",
    "update_manager",
];
/// The one identity without a parent (IDN-37).
pub const ROOT_NAME: &str = "orbital.system";
/// The first admin.
pub const ADMIN_NAME: &str = "admin";
/// Version of the log's format that genesis names.
pub const GENESIS_VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GenesisError {
    #[error("{0:?} cannot be a node's name: {1}")]
    NodeName(String, KeyPathError),
    #[error("no public key was given for {0}")]
    KeyMissing(KeyPath),
    #[error("{0} and {1} have the same public key")]
    SameKey(String, String),
}

/// What genesis holds beside the identities.
#[derive(Clone, Debug)]
pub struct GenesisPlan {
    pub image_hash: Hash,
    pub genesis_time: AxiomTime,
    pub node_name: String,
    /// Public halves of the signing keys in the node's, axiom's, policy's and identity's own folders.
    pub node_key: PublicKey,
    pub sequencer_key: PublicKey,
    pub policy_key: PublicKey,
    pub identity_key: PublicKey,
    /// The host user whose peer credentials vouch for the admin.
    pub admin_uid: u32,
    pub rules: Vec<PolicyRule>,
    pub initial_capabilities: Vec<CapabilityGrant>,
}

struct Founder {
    name: String,
    identity_type: IdentityType,
    key_path: KeyPath,
}

/// Root first, so that parents stand before children.
fn founders(node_name: &str) -> Result<Vec<Founder>, GenesisError> {
    let illegal = |error| GenesisError::NodeName(node_name.chars().take(80).collect(), error);
    let founder = |name: String, identity_type, path: String| {
        KeyPath::parse(&path).map(|key_path| Founder { name, identity_type, key_path }).map_err(illegal)
    };
    // One segment, checked as such: a slash would give the node a path of another's.
    base::PathSegment::new(node_name).map_err(illegal)?;
    let mut all = vec![
        founder(ROOT_NAME.to_owned(), IdentityType::System, "/orbital/system".to_owned())?,
        founder(
            format!("orbital.nodes.{node_name}"),
            IdentityType::Node,
            format!("/orbital/nodes/{node_name}"),
        )?,
    ];
    // The supervisor is no service of the catalogue's twelve, but it records and asks like one.
    for name in SERVICE_NAMES.into_iter().chain(["supervisor"]) {
        let path = format!("/orbital/services/{name}");
        all.push(founder(format!("orbital.services.{name}"), IdentityType::Service, path)?);
    }
    all.push(founder(ADMIN_NAME.to_owned(), IdentityType::User, format!("/orbital/users/{ADMIN_NAME}"))?);
    Ok(all)
}

/// The key paths whose public keys `build` needs, so that they can be derived before.
pub fn key_paths(node_name: &str) -> Result<Vec<KeyPath>, GenesisError> {
    Ok(founders(node_name)?.into_iter().map(|founder| founder.key_path).collect())
}

/// The first entry's body. `public_key` tells the key that the boundary derives for a path (IDN-13).
pub fn build(
    plan: GenesisPlan,
    mut public_key: impl FnMut(&KeyPath) -> Option<PublicKey>,
) -> Result<Genesis, GenesisError> {
    let mut identities: Vec<IdentityCreated> = Vec::new();
    let mut names = BTreeMap::new();
    for Founder { name, identity_type, key_path } in founders(&plan.node_name)? {
        let key = public_key(&key_path).ok_or_else(|| GenesisError::KeyMissing(key_path.clone()))?;
        if let Some(other) = names.insert(key, name.clone()) {
            return Err(GenesisError::SameKey(other, name));
        }
        let parent = identities.first().map(|root| root.identity_id);
        identities.push(IdentityCreated {
            identity_id: IdentityId::of_key(&key),
            name,
            identity_type,
            parent,
            public_key: key,
            key_path,
        });
    }
    // The admin is the last founder; the list is never empty.
    let admin = identities.last().map_or(IdentityId([0; 32]), |admin| admin.identity_id);
    Ok(Genesis {
        version: GENESIS_VERSION,
        image_hash: plan.image_hash,
        initial_capabilities: plan.initial_capabilities,
        genesis_time: plan.genesis_time,
        node_name: plan.node_name,
        node_key: plan.node_key,
        sequencer_key: plan.sequencer_key,
        policy_key: plan.policy_key,
        identity_key: plan.identity_key,
        identities,
        admin,
        admin_uid: plan.admin_uid,
        rules: plan.rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(node_name: &str) -> GenesisPlan {
        GenesisPlan {
            image_hash: Hash([1; 32]),
            genesis_time: AxiomTime(7),
            node_name: node_name.to_owned(),
            node_key: PublicKey([2; 32]),
            sequencer_key: PublicKey([3; 32]),
            policy_key: PublicKey([4; 32]),
            identity_key: PublicKey([5; 32]),
            admin_uid: 1000,
            rules: vec![],
            initial_capabilities: vec![],
        }
    }

    fn key_of(path: &KeyPath) -> Option<PublicKey> {
        Some(PublicKey(Hash::of(path.to_string().as_bytes()).0))
    }

    /// covers: AX-29, IDN-12, IDN-13, IDN-37
    #[test]
    fn everyone_has_the_key_of_their_path_and_the_root_as_parent() {
        let genesis = build(plan("desk"), key_of).unwrap();
        let root = &genesis.identities[0];
        assert_eq!(
            (root.name.as_str(), root.parent, root.identity_type),
            (ROOT_NAME, None, IdentityType::System)
        );
        assert_eq!(genesis.identities.len(), 16);
        for identity in &genesis.identities {
            assert_eq!(Some(identity.public_key), key_of(&identity.key_path));
            assert_eq!(identity.identity_id, IdentityId::of_key(&identity.public_key));
            assert_eq!(identity.parent.is_none(), identity == root);
            assert!(identity.parent.is_none_or(|parent| parent == root.identity_id));
        }
        let row = |name: &str| genesis.identities.iter().find(|i| i.name == name).unwrap();
        assert_eq!(row("orbital.services.axiom").key_path.to_string(), "/orbital/services/axiom");
        assert_eq!(row("orbital.nodes.desk").key_path.to_string(), "/orbital/nodes/desk");
        assert_eq!(row("admin").key_path.to_string(), "/orbital/users/admin");
        assert_eq!((genesis.admin, genesis.admin_uid), (row("admin").identity_id, 1000));
        let paths: Vec<_> = genesis.identities.iter().map(|i| i.key_path.clone()).collect();
        assert_eq!(key_paths("desk"), Ok(paths));
    }

    #[test]
    fn a_missing_or_repeated_key_and_an_illegal_name_are_refused() {
        let missing = |path: &KeyPath| key_of(path).filter(|_| !path.to_string().ends_with("keys"));
        assert!(matches!(build(plan("desk"), missing), Err(GenesisError::KeyMissing(_))));
        assert!(matches!(build(plan("desk"), |_| Some(PublicKey([1; 32]))), Err(GenesisError::SameKey(..))));
        for bad in ["", "a/b", "..", "a\0", &"x".repeat(256)] {
            assert!(matches!(build(plan(bad), key_of), Err(GenesisError::NodeName(..))), "{bad:?}");
        }
    }
}
