//! The words of the mapping: what a rule looks at, as a Cedar request has it.
//!
//! A request has `Identity::"<id>"` as principal, `Action::"<kind>"` as action and an entity of the resource's type as
//! resource. Every identity is an entity with `name` and `type` whose parents are its parents in the tree; Cedar's `in`
//! holds for the identity itself, as a group does here. Every resource has its `id` as an attribute, too. The context
//! has `now`, nanoseconds since 1970.

use chain::payload::{
    identity::IdentityType,
    policy::{ActionKind, ResourceType},
};
use serde::{
    Deserialize, Serialize,
    de::{IntoDeserializer, value::Error},
};
use toml::Value;

/// Type of a principal; identities are resources under this name, too.
pub const IDENTITY: &str = "Identity";
pub const ACTION: &str = "Action";
/// Attributes of an identity: its fully qualified name, and its type as rule files write it.
pub const NAME: &str = "name";
pub const TYPE: &str = "type";
/// Attribute of a resource: its id as text.
pub const ID: &str = "id";
/// In the context.
pub const NOW: &str = "now";
/// Annotations that hold what a policy has no other place for.
pub const RULE_ID: &str = "id";
pub const RULE_NAME: &str = "name";
pub const RULE_DESCRIPTION: &str = "description";
pub const RULE_PRIORITY: &str = "priority";

/// Entity type of a resource: the word of a rule file with a capital letter.
#[must_use]
pub fn entity_type(resource: ResourceType) -> String {
    let word = word(&resource);
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

pub(super) fn resource_type(entity_type: &str) -> Option<ResourceType> {
    let capital = entity_type.starts_with(|c: char| c.is_ascii_uppercase());
    if capital { meant(&entity_type.to_ascii_lowercase()) } else { None }
        .filter(|found| self::entity_type(*found) == entity_type)
}

#[must_use]
pub fn action_name(kind: ActionKind) -> String {
    word(&kind)
}

pub(super) fn action(name: &str) -> Option<ActionKind> {
    meant(name)
}

#[must_use]
pub fn identity_type_name(identity_type: IdentityType) -> String {
    word(&identity_type)
}

pub(super) fn identity_type(name: &str) -> Option<IdentityType> {
    meant(name)
}

/// A member without data is a string in a rule file.
fn word(member: &impl Serialize) -> String {
    match Value::try_from(member) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

fn meant<'a, T: Deserialize<'a>>(word: &'a str) -> Option<T> {
    let reader: serde::de::value::StrDeserializer<'a, Error> = word.into_deserializer();
    T::deserialize(reader).ok()
}
