//! The manifests of the services that this build ships, as they stand in their folders.

/// File name in the repository, and text.
pub const ALL: [(&str, &str); 8] = [
    ("services/1-authority/axiom/manifest.toml", include_str!("../../../1-authority/axiom/manifest.toml")),
    ("services/1-authority/policy/manifest.toml", include_str!("../../../1-authority/policy/manifest.toml")),
    ("services/1-authority/keys/manifest.toml", include_str!("../../../1-authority/keys/manifest.toml")),
    (
        "services/1-authority/identity/manifest.toml",
        include_str!("../../../1-authority/identity/manifest.toml"),
    ),
    (
        "services/2-execution/capability_service/manifest.toml",
        include_str!("../../../2-execution/capability_service/manifest.toml"),
    ),
    (
        "services/2-execution/process_manager/manifest.toml",
        include_str!("../../../2-execution/process_manager/manifest.toml"),
    ),
    (
        "services/4-network/driver_manager/manifest.toml",
        include_str!("../../../4-network/driver_manager/manifest.toml"),
    ),
    ("services/4-network/network/manifest.toml", include_str!("../../../4-network/network/manifest.toml")),
];
