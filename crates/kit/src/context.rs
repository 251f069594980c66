//! `OperationContext`: who wants what on whose behalf. Complete or refused, before anything else runs.

use base::{IdentityId, PublicKey, TraceId, visible};
use serde::{Deserialize, Serialize};

use crate::{error::KitError, table::is_capability_name};

/// Request metadata and HTTP header that carries the context as JSON.
pub const CONTEXT_METADATA: &str = "bailiwick-context";
/// Bytes of that header.
pub const CONTEXT_BYTES_MAX: usize = 4096;
/// Bytes of a free text member: correlation, version, locale, time zone, domain.
pub const CONTEXT_TEXT_BYTES_MAX: usize = 128;
/// The only client that may present a remote context (CTX-09).
pub const MESH_CLIENT: &str = "mesh";

/// CTX-05; any other value is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorType {
    User,
    Service,
    Automation,
    Delegation,
}

/// CTX-08.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Local,
    Automation,
    Remote,
}

/// The members of CTX-02 and no others, as they travel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester_identity_id: Option<IdentityId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<IdentityId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegated_key_id: Option<PublicKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_type: Option<ActorType>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_remote: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_domain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_node_identity_id: Option<IdentityId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
}

/// Built once and frozen: there is no setter. Stands in the extensions of every request as `Arc<OperationContext>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationContext {
    fields: ContextFields,
    app_id: String,
    actor_type: ActorType,
    origin: Origin,
    trace_id: TraceId,
}

fn invalid(text: impl Into<String>) -> KitError {
    KitError::EnvelopeInvalid(text.into())
}

impl OperationContext {
    /// From the header's text. `public` operations need no requester.
    pub fn parse(text: &[u8], public: bool) -> Result<Self, KitError> {
        if text.len() > CONTEXT_BYTES_MAX {
            return Err(invalid(format!(
                "{CONTEXT_METADATA} has {} bytes, at most {CONTEXT_BYTES_MAX} are allowed",
                text.len()
            )));
        }
        let fields: ContextFields = serde_json::from_slice(text).map_err(|error| {
            invalid(format!(
                "{CONTEXT_METADATA} is not the JSON of a context: {}",
                visible(&error.to_string())
            ))
        })?;
        Self::build(fields, public)
    }

    /// Checks that all is there that must be, and nothing that must not.
    pub fn build(fields: ContextFields, public: bool) -> Result<Self, KitError> {
        let app_id = fields.app_id.clone().ok_or_else(|| invalid("`app_id` is missing"))?;
        if !is_app_id(&app_id) {
            return Err(invalid("`app_id` is `app_` and a number"));
        }
        let actor_type = fields.actor_type.ok_or_else(|| invalid("`actor_type` is missing"))?;
        let is_remote = fields.is_remote.ok_or_else(|| invalid("`is_remote` is missing"))?;
        let trace_id = fields.trace_id.ok_or_else(|| invalid("`trace_id` is missing"))?;
        check_texts(&fields)?;
        if is_remote {
            check_remote(&fields)?;
        } else {
            check_local(&fields, actor_type, public)?;
        }
        let origin = match (is_remote, actor_type) {
            (true, _) => Origin::Remote,
            (false, ActorType::Automation) => Origin::Automation,
            (false, _) => Origin::Local,
        };
        Ok(Self { fields, app_id, actor_type, origin, trace_id })
    }

    /// The context of a service that acts for itself.
    pub fn of_service(service: IdentityId, capability: &str, trace_id: TraceId) -> Result<Self, KitError> {
        Self::build(
            ContextFields {
                app_id: Some("app_0".to_owned()),
                requester_identity_id: Some(service),
                actor_type: Some(ActorType::Service),
                capability: Some(capability.to_owned()),
                is_remote: Some(false),
                trace_id: Some(trace_id),
                ..ContextFields::default()
            },
            false,
        )
    }

    /// A new context for the next call of a chain; only the capability differs (CTX-07).
    pub fn with_capability(&self, capability: &str) -> Result<Self, KitError> {
        let mut fields = self.fields.clone();
        fields.capability = Some(capability.to_owned());
        Self::build(fields, self.fields.requester_identity_id.is_none())
    }

    #[must_use]
    pub fn app_id(&self) -> &str {
        &self.app_id
    }

    /// Claimed, not proven: the socket and the token prove.
    #[must_use]
    pub fn requester(&self) -> Option<IdentityId> {
        self.fields.requester_identity_id
    }

    #[must_use]
    pub fn device(&self) -> Option<IdentityId> {
        self.fields.device_id
    }

    #[must_use]
    pub fn delegated_key(&self) -> Option<PublicKey> {
        self.fields.delegated_key_id
    }

    #[must_use]
    pub fn actor_type(&self) -> ActorType {
        self.actor_type
    }

    #[must_use]
    pub fn capability(&self) -> Option<&str> {
        self.fields.capability.as_deref()
    }

    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// All members, to be stored with an audited action (CTX-16).
    #[must_use]
    pub fn fields(&self) -> &ContextFields {
        &self.fields
    }

    /// As it travels; ASCII, so that it fits a header.
    #[must_use]
    pub fn to_header(&self) -> String {
        let json = serde_json::to_string(&self.fields).unwrap_or_default();
        if json.is_ascii() { json } else { escape_json(&json) }
    }
}

/// JSON may write any character as `\uXXXX`; headers are ASCII.
fn escape_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 16);
    let mut units = [0u16; 2];
    for c in json.chars() {
        if c.is_ascii() {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

/// `app_0` is the node's own namespace (SVC-15).
fn is_app_id(text: &str) -> bool {
    text.strip_prefix("app_").is_some_and(|number| {
        !number.is_empty() && number.len() <= 20 && number.bytes().all(|b| b.is_ascii_digit())
    })
}

fn check_texts(fields: &ContextFields) -> Result<(), KitError> {
    let texts = [
        ("sync_domain", &fields.sync_domain),
        ("correlation_id", &fields.correlation_id),
        ("app_version", &fields.app_version),
        ("locale", &fields.locale),
        ("timezone", &fields.timezone),
    ];
    for (name, text) in texts {
        let Some(text) = text else { continue };
        if text.is_empty() || text.len() > CONTEXT_TEXT_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(invalid(format!(
                "`{name}` has 1 to {CONTEXT_TEXT_BYTES_MAX} bytes and no control characters"
            )));
        }
    }
    Ok(())
}

/// CTX-03, CTX-04 and open point 7: a device is named by users and delegates, services and jobs run on the node's own.
fn check_local(fields: &ContextFields, actor: ActorType, public: bool) -> Result<(), KitError> {
    if fields.sync_domain.is_some() || fields.remote_node_identity_id.is_some() {
        return Err(invalid("a local context has neither `sync_domain` nor `remote_node_identity_id`"));
    }
    let Some(capability) = &fields.capability else {
        return Err(invalid("`capability` is missing"));
    };
    if !is_capability_name(capability) {
        return Err(invalid("`capability` is `area.service.verb` in lower case"));
    }
    if fields.requester_identity_id.is_none() && !public {
        return Err(invalid("`requester_identity_id` is missing"));
    }
    let needs_device = matches!(actor, ActorType::User | ActorType::Delegation);
    if needs_device && fields.device_id.is_none() && !public {
        return Err(invalid("`device_id` is missing; a user or a delegate acts from a device"));
    }
    Ok(())
}

/// CTX-03, CTX-09.
fn check_remote(fields: &ContextFields) -> Result<(), KitError> {
    let local = fields.requester_identity_id.is_some()
        || fields.device_id.is_some()
        || fields.delegated_key_id.is_some()
        || fields.capability.is_some();
    if local {
        return Err(invalid(
            "a remote context has no requester, device, delegated key or capability of this node",
        ));
    }
    if fields.sync_domain.is_none() {
        return Err(invalid("`sync_domain` is missing"));
    }
    if fields.remote_node_identity_id.is_none() {
        return Err(invalid("`remote_node_identity_id` is missing"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn id(byte: &str) -> String {
        byte.repeat(32)
    }

    fn local() -> Value {
        json!({
            "app_id": "app_0", "requester_identity_id": id("0a"), "device_id": id("0b"), "actor_type": "user",
            "capability": "system.keys.sign", "is_remote": false, "trace_id": "0c".repeat(16),
        })
    }

    fn remote() -> Value {
        json!({
            "app_id": "app_7", "actor_type": "service", "is_remote": true, "trace_id": "0c".repeat(16),
            "sync_domain": "home", "remote_node_identity_id": id("0d"),
        })
    }

    fn check(value: &Value, public: bool) -> Result<OperationContext, String> {
        OperationContext::parse(value.to_string().as_bytes(), public).map_err(|error| error.to_string())
    }

    fn with(mut value: Value, name: &str, member: Value) -> Value {
        value[name] = member;
        value
    }

    fn without(mut value: Value, name: &str) -> Value {
        value.as_object_mut().unwrap().remove(name).unwrap();
        value
    }

    /// covers: CTX-02
    #[test]
    fn the_members_are_the_specified_ones_and_no_others() {
        let mut all = local();
        for (name, value) in [
            ("delegated_key_id", json!(id("0e"))),
            ("correlation_id", json!("c")),
            ("app_version", json!("1.0")),
            ("locale", json!("de")),
            ("timezone", json!("Europe/Berlin")),
        ] {
            all = with(all, name, value);
        }
        let context = check(&all, false).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&context.to_header()).unwrap(), all);
        assert!(check(&with(local(), "user", json!("root")), false).unwrap_err().contains("unknown field"));
        let escaped = check(&with(local(), "\n\u{1b}[2J", json!(1)), false).unwrap_err();
        assert!(escaped.contains("`\\n\\u{1b}[2J`"), "{escaped}");
        assert_eq!(check(&remote(), false).unwrap().origin(), Origin::Remote);
    }

    /// covers: CTX-03, CTX-04
    #[test]
    fn each_missing_member_is_named() {
        for name in [
            "app_id",
            "actor_type",
            "is_remote",
            "trace_id",
            "requester_identity_id",
            "device_id",
            "capability",
        ] {
            let text = check(&without(local(), name), false).unwrap_err();
            assert!(text.contains(&format!("`{name}` is missing")), "{name}: {text}");
            let null = check(&with(local(), name, Value::Null), false).unwrap_err();
            assert_eq!(null, text);
        }
        for name in
            ["app_id", "actor_type", "is_remote", "trace_id", "sync_domain", "remote_node_identity_id"]
        {
            let text = check(&without(remote(), name), false).unwrap_err();
            assert!(text.contains(&format!("`{name}` is missing")), "{name}: {text}");
        }
        // A public operation lets somebody unknown in; a service runs on the node's own device.
        assert!(check(&without(local(), "requester_identity_id"), true).is_ok());
        let service = with(without(local(), "device_id"), "actor_type", json!("service"));
        assert!(check(&service, false).is_ok());
    }

    /// covers: CTX-05
    #[test]
    fn four_actor_types_exist() {
        for actor in ["user", "service", "automation", "delegation"] {
            assert!(check(&with(local(), "actor_type", json!(actor)), false).is_ok(), "{actor}");
        }
        for actor in ["User", "admin", "", "remote"] {
            assert!(check(&with(local(), "actor_type", json!(actor)), false).is_err(), "{actor}");
        }
    }

    /// covers: CTX-08, CTX-09
    #[test]
    fn local_and_remote_members_do_not_mix() {
        for (name, value) in [
            ("requester_identity_id", json!(id("0a"))),
            ("device_id", json!(id("0b"))),
            ("delegated_key_id", json!(id("0e"))),
            ("capability", json!("system.keys.sign")),
        ] {
            assert!(check(&with(remote(), name, value), false).is_err(), "{name}");
        }
        for (name, value) in [("sync_domain", json!("home")), ("remote_node_identity_id", json!(id("0d")))] {
            assert!(check(&with(local(), name, value), false).is_err(), "{name}");
        }
        assert_eq!(check(&local(), false).unwrap().origin(), Origin::Local);
        let job = with(local(), "actor_type", json!("automation"));
        assert_eq!(check(&job, false).unwrap().origin(), Origin::Automation);
    }

    /// covers: CTX-07
    #[test]
    fn enrichment_makes_a_new_context_with_the_same_identity() {
        let first = check(&local(), false).unwrap();
        let second = first.with_capability("system.axiom.read").unwrap();
        assert_eq!(first.capability(), Some("system.keys.sign"));
        assert_eq!(second.capability(), Some("system.axiom.read"));
        assert_eq!((second.requester(), second.app_id()), (first.requester(), first.app_id()));
        assert!(first.with_capability("Sign").is_err());
    }

    #[test]
    fn sizes_are_bounded_at_the_limit() {
        let text = |bytes: usize| with(local(), "locale", json!("x".repeat(bytes)));
        assert!(check(&text(CONTEXT_TEXT_BYTES_MAX), false).is_ok());
        assert!(check(&text(CONTEXT_TEXT_BYTES_MAX + 1), false).is_err());
        let mut padded = local().to_string();
        padded.push_str(&" ".repeat(CONTEXT_BYTES_MAX - padded.len()));
        assert!(OperationContext::parse(padded.as_bytes(), false).is_ok());
        padded.push(' ');
        assert!(OperationContext::parse(padded.as_bytes(), false).is_err());
        for wrong in ["", "[]", "null", "{", "\u{0}", "{\"app_id\":5}"] {
            assert!(OperationContext::parse(wrong.as_bytes(), false).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_header_is_ascii() {
        let context = check(&with(local(), "locale", json!("日本𝄞")), false).unwrap();
        let header = context.to_header();
        assert!(header.is_ascii());
        assert_eq!(OperationContext::parse(header.as_bytes(), false).unwrap(), context);
    }
}
