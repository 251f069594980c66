//! Names and key paths of new identities.

use base::{KeyPath, key_paths, limits::NAME_BYTES_MAX};
use chain::payload::identity::{Identity, IdentityType};

use super::IdentityError;

/// Names below this prefix are given out by type, never chosen.
const RESERVED_PREFIX: &str = "orbital";

/// One part of a name.
pub(super) fn check(name: &str) -> Result<(), IdentityError> {
    let refuse = || IdentityError::Name(name.chars().take(80).collect());
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let fits = bytes.len() <= NAME_BYTES_MAX && bytes.iter().all(|b| legal(*b)) && !name.contains("..");
    if fits && edge(bytes.first()) && edge(bytes.last()) { Ok(()) } else { Err(refuse()) }
}

/// Names that differ in case alone would be taken for each other, so they count as one.
pub(super) fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// The fully qualified name of a new identity (IDN-36, IDN-37).
pub fn qualified_name(
    name: &str,
    identity_type: IdentityType,
    parent: &Identity,
) -> Result<String, IdentityError> {
    use IdentityType::{Node, Organization, Service, System, User};
    check(name)?;
    match (identity_type, parent.identity_type) {
        (Node, System) => Ok(format!("orbital.nodes.{name}")),
        (Service, System | Organization | User) => Ok(format!("orbital.services.{name}")),
        (User, Organization) => Ok(format!("{name}@{}", parent.name)),
        (User, System | User) | (Organization, System | Organization) => {
            let folded = folded(name);
            let below = folded
                .strip_prefix(RESERVED_PREFIX)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            if below { Err(IdentityError::NameTaken(name.to_owned())) } else { Ok(name.to_owned()) }
        }
        (child, parent) => Err(IdentityError::ParentType(parent, child)),
    }
}

/// Where the key of a new identity stands, unless its creator chose a path below the parent's.
pub(super) fn key_path(
    name: &str,
    identity_type: IdentityType,
    parent: &Identity,
    chosen: Option<KeyPath>,
) -> Result<KeyPath, IdentityError> {
    if let Some(chosen) = chosen {
        return if chosen.is_child_of(&parent.key_path) {
            Ok(chosen)
        } else {
            Err(IdentityError::NotBelowParent)
        };
    }
    let prefix = match (identity_type, parent.identity_type) {
        (IdentityType::User, IdentityType::Organization) => parent.key_path.child("users")?,
        (IdentityType::User, _) => KeyPath::parse(key_paths::USERS)?,
        (IdentityType::Service, _) => KeyPath::parse(key_paths::SERVICES)?,
        (IdentityType::Node, _) => KeyPath::parse(key_paths::NODES)?,
        (IdentityType::Organization, _) => KeyPath::parse(key_paths::ORGS)?,
        (IdentityType::System, _) => KeyPath::parse(key_paths::SYSTEM)?,
    };
    Ok(prefix.child(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: IDN-53
    #[test]
    fn names_have_1_to_64_legal_bytes() {
        let longest = "x".repeat(NAME_BYTES_MAX);
        for good in ["a", "A-1_b.c", "example.org", &longest] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", ".a", "a.", "-a", "a..b", "a b", "a/b", "a@b", "é", "a\0", &long] {
            assert!(matches!(check(bad), Err(IdentityError::Name(_))), "{bad:?}");
        }
    }
}
