use base::Hash;
use supervisor::core::graph::Graph;
use supervisor::manifest::{self, Priority, RUNNING_IMAGE, ServiceType, shipped};

/// covers: SUP-22, SUP-26, SUP-27
#[test]
fn the_shipped_manifests_load_and_take_the_hash_of_the_image() {
    let loading = manifest::load(shipped::ALL);
    assert_eq!(loading.errors, []);
    assert_eq!(loading.manifests.len(), shipped::ALL.len());
    let image = Hash([5; 32]);
    for loaded in loading.manifests {
        let name = loaded.name().to_owned();
        assert!(loaded.file.ends_with(&format!("/{name}/manifest.toml")));
        let manifest = loaded.manifest;
        assert_eq!(manifest.service.binary, RUNNING_IMAGE);
        assert!(manifest.binary_hash().is_err(), "the placeholder is no hash");
        let is_core = !["driver_manager", "network"].contains(&name.as_str());
        let expected = match is_core {
            true => (ServiceType::Core, Priority::Critical),
            false => (ServiceType::System, Priority::High),
        };
        assert_eq!((manifest.service.service_type, manifest.resources.priority), expected);
        assert_eq!(manifest.key_path().unwrap().to_string(), format!("/orbital/services/{name}"));
        assert_eq!(manifest.with_running_image(image).binary_hash(), Ok(image));
    }
}

/// covers: SUP-08
#[test]
fn the_shipped_manifests_require_what_the_seed_draws() {
    let manifests: Vec<_> = manifest::load(shipped::ALL).manifests.into_iter().map(|m| m.manifest).collect();
    let graph = Graph::new(&manifests).unwrap();
    let required = |name| {
        let mut names: Vec<&str> = graph.required(name).collect();
        names.sort_unstable();
        names
    };
    assert!(required("axiom").is_empty());
    assert_eq!(required("policy"), ["axiom"]);
    assert_eq!(required("keys"), ["policy"]);
    assert_eq!(required("identity"), ["keys", "policy"]);
    assert_eq!(required("capability_service"), ["axiom", "policy"]);
    assert_eq!(required("process_manager"), ["capability_service", "policy"]);
    assert!(required("driver_manager").is_empty());
    assert_eq!(required("network"), ["axiom", "driver_manager", "policy"]);
    assert!(manifests.iter().all(|m| graph.check(&m.service.name).is_ok()));
}
