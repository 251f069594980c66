//! Names and key paths by type and parent, and what a filter selects.

use super::*;

/// A node with an organisation below the root.
fn peopled() -> IdentityCore {
    let mut core = core();
    let org = request(&core, "example", IdentityType::Organization, "orbital.system");
    created(&mut core, org);
    core
}

/// covers: IDN-16, IDN-36, IDN-37
#[test]
fn a_name_and_a_path_follow_from_type_and_parent() {
    use IdentityType::{Node, Organization, Service, System, User};
    const ROOT: &str = "orbital.system";
    const SERVICE: &str = "orbital.services.keys";
    const NODE: &str = "orbital.nodes.desk";
    for (kind, parent, expected) in [
        (User, ROOT, Some(("x", "/orbital/users/x"))),
        (User, "admin", Some(("x", "/orbital/users/x"))),
        (User, "example", Some(("x@example", "/orbital/orgs/example/users/x"))),
        (User, SERVICE, None),
        (User, NODE, None),
        (Organization, ROOT, Some(("x", "/orbital/orgs/x"))),
        (Organization, "example", Some(("x", "/orbital/orgs/x"))),
        (Organization, "admin", None),
        (Service, ROOT, Some(("orbital.services.x", "/orbital/services/x"))),
        (Service, "example", Some(("orbital.services.x", "/orbital/services/x"))),
        (Service, "admin", Some(("orbital.services.x", "/orbital/services/x"))),
        (Service, SERVICE, None),
        (Node, ROOT, Some(("orbital.nodes.x", "/orbital/nodes/x"))),
        (Node, "admin", None),
        (System, ROOT, None),
    ] {
        let mut core = peopled();
        let request = request(&core, "x", kind, parent);
        match expected {
            Some((name, path)) => {
                let made = created(&mut core, request);
                assert_eq!((made.name.as_str(), made.key_path.to_string().as_str()), (name, path));
            }
            None => {
                let error = refused(&mut core, request);
                assert!(matches!(error, IdentityError::ParentType(..)), "{kind:?} below {parent}: {error}");
            }
        }
    }
}

/// covers: IDN-53
#[test]
fn names_below_the_system_s_own_are_not_chosen() {
    let mut core = peopled();
    for name in ["orbital", "Orbital", "orbital.x"] {
        let request = request(&core, name, IdentityType::User, "orbital.system");
        assert_eq!(refused(&mut core, request), IdentityError::NameTaken(name.to_owned()));
    }
    for name in ["orbitals", "x.orbital"] {
        let request = request(&core, name, IdentityType::User, "orbital.system");
        assert_eq!(created(&mut core, request).name, name);
    }
}

/// covers: IDN-10
#[test]
fn every_part_of_a_filter_must_hold() {
    let mut core = peopled();
    set_status(&mut core, "orbital.services.network", IdentityStatus::Suspended, NOW);
    let root = id_of(&core, "orbital.system");
    let count = |filter: &IdentityFilter| core.registry().list(filter).count();
    let suspended_service = IdentityFilter {
        identity_type: Some(IdentityType::Service),
        status: Some(IdentityStatus::Suspended),
        parent: Some(root),
        name_prefix: "orbital.services.n".to_owned(),
    };
    assert_eq!(count(&suspended_service), 1);
    for wrong in [
        IdentityFilter { identity_type: Some(IdentityType::User), ..suspended_service.clone() },
        IdentityFilter { status: Some(IdentityStatus::Active), ..suspended_service.clone() },
        IdentityFilter { parent: Some(IdentityId([1; 32])), ..suspended_service.clone() },
        IdentityFilter { name_prefix: "orbital.services.k".to_owned(), ..suspended_service.clone() },
    ] {
        assert_eq!(count(&wrong), 0, "{wrong:?}");
    }
    assert!(!core.registry().is_empty() && Registry::default().is_empty());
}
