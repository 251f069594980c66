//! Services as objects of capabilities.

/// The services of the catalogue by boot name, and the type by which a manifest names the capability on each.
pub const CAPABILITY_TYPES: [(&str, &str); 12] = [
    ("axiom", "Axiom"),
    ("policy", "Policy"),
    ("keys", "Keys"),
    ("identity", "Identity"),
    ("capability_service", "Capability"),
    ("process_manager", "Process"),
    ("block_storage", "BlockStorage"),
    ("filesystem", "Filesystem"),
    ("driver_manager", "Driver"),
    ("network", "Network"),
    ("terminal", "Terminal"),
    ("update_manager", "Update"),
];

/// The type of the capability on a service, if it is one of the catalogue.
#[must_use]
pub fn capability_type(service: &str) -> Option<&'static str> {
    CAPABILITY_TYPES.iter().find(|(name, _)| *name == service).map(|(_, capability_type)| *capability_type)
}
