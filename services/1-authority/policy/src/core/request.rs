//! What a request must be before rules look at it.

use base::{KeyPath, RuleId};
use chain::payload::policy::{PolicyAction, PolicyRequest, ResourceRef, ResourceType};

use super::{
    condition::is_normal_path,
    limits::{METADATA_BYTES_MAX, METADATA_PAIRS_MAX, RESOURCE_BYTES_MAX},
};

/// Why the request is denied before any rule is tried.
pub(super) fn fault_of(request: &PolicyRequest) -> Option<String> {
    let resource = &request.resource;
    if resource.id.is_empty() || resource.id.len() > RESOURCE_BYTES_MAX {
        return Some(format!("a resource id has 1 to {RESOURCE_BYTES_MAX} bytes, not {}", resource.id.len()));
    }
    let metadata = &request.context.metadata;
    let long = |text: &String| text.len() > METADATA_BYTES_MAX;
    if metadata.len() > METADATA_PAIRS_MAX || metadata.iter().any(|(key, value)| long(key) || long(value)) {
        return Some(format!(
            "a context has at most {METADATA_PAIRS_MAX} pairs of at most {METADATA_BYTES_MAX} bytes a side"
        ));
    }
    if matches!(resource.resource_type, ResourceType::File | ResourceType::Key)
        && !is_normal_path(&resource.id)
    {
        return Some("the resource is no absolute path without empty, `.` and `..` components".to_owned());
    }
    (!names_its_resource(&request.action, resource))
        .then(|| "the resource is not the one that the action names".to_owned())
}

/// Without an allocation in the cases that stand on hot paths.
fn names_its_resource(action: &PolicyAction, resource: &ResourceRef) -> bool {
    match action {
        PolicyAction::CreateFile { path, .. }
        | PolicyAction::ReadFile { path }
        | PolicyAction::WriteFile { path }
        | PolicyAction::DeleteFile { path } => {
            resource.resource_type == ResourceType::File && resource.id == *path
        }
        PolicyAction::Connect { address } | PolicyAction::Listen { address } => {
            resource.resource_type == ResourceType::Network && resource.id == *address
        }
        PolicyAction::Sign { key_path, .. }
        | PolicyAction::Encrypt { key_path }
        | PolicyAction::Decrypt { key_path } => {
            resource.resource_type == ResourceType::Key && is_text_of(key_path, &resource.id)
        }
        PolicyAction::ModifyPolicy { rule } => {
            resource.resource_type == ResourceType::Policy && is_id(&rule.id, &resource.id)
        }
        other => other.resource().is_none_or(|named| named == *resource),
    }
}

fn is_id(id: &RuleId, text: &str) -> bool {
    id.as_str() == text
}

fn is_text_of(path: &KeyPath, text: &str) -> bool {
    let rest = path.segments().iter().try_fold(text, |rest, segment| {
        rest.strip_prefix('/').and_then(|rest| rest.strip_prefix(segment.as_str()))
    });
    rest == Some("")
}
