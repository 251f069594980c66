//! A rotated path signs with another key, on record, and opens what was encrypted before.

use system_tests::TestNode;

const OWN: &str = "/orbital/users/admin";
const PATH: &str = "/orbital/users/admin/release";

/// covers: KEY-36
#[test]
fn a_rotated_path_has_a_new_key_and_the_old_one_still_verifies_and_decrypts() {
    let Some(mut node) = TestNode::boot() else { return };
    let message = node.file("message", "signed");
    let first = node.ok(&["key", "public", PATH]).trim().to_owned();
    let signature = node.ok(&["key", "sign", PATH, &message]).trim().to_owned();
    let sealed = node.file("sealed", "");
    node.ok(&["key", "encrypt", PATH, &message, "--to", &sealed]);
    let below = node.ok(&["key", "public", &format!("{PATH}/below")]);

    let identity = node.run(&["key", "rotate", OWN, "--reason", "why not"]);
    assert!(String::from_utf8_lossy(&identity.stderr).contains("(NotRotatable)"), "{identity:?}");
    let foreign = node.run(&["key", "rotate", "/orbital/users/other", "--reason", "why not"]);
    assert_eq!(foreign.status.code(), Some(3), "{foreign:?}");
    let rotated = node.json(&["key", "rotate", PATH, "--reason", "a year is over"]);
    assert_eq!(rotated["epoch"], 1);
    let second = node.ok(&["key", "public", PATH]).trim().to_owned();
    assert_eq!(rotated["public_key"].as_str(), Some(second.as_str()));
    assert_ne!(second, first);
    assert_eq!(node.ok(&["key", "public", PATH, "--epoch", "0"]).trim(), first);
    assert_eq!(node.ok(&["key", "public", &format!("{PATH}/below")]), below);
    let none = node.run(&["key", "public", PATH, "--epoch", "2"]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("(NoEpoch)"), "{none:?}");

    node.ok(&["key", "verify", &first, &signature, &message]);
    assert_eq!(node.ok(&["key", "decrypt", PATH, &sealed]), "signed");
    let signed = node.json(&["key", "sign", PATH, &message]);
    assert_eq!(signed["public_key"].as_str(), Some(second.as_str()), "the new key signs");
    let later = node.file("later", "");
    node.ok(&["key", "encrypt", PATH, &message, "--to", &later]);
    assert_eq!(std::fs::read(&later).unwrap().len(), std::fs::read(&sealed).unwrap().len() + 5);

    // The log alone says it, so a new boot knows.
    node.down();
    node.up();
    assert_eq!(node.ok(&["key", "public", PATH]).trim(), second);
    assert_eq!(node.ok(&["key", "decrypt", PATH, &later]), "signed");
    assert_eq!(node.ok(&["key", "decrypt", PATH, &sealed]), "signed");
    let entries = node.log(&["KeyUsage"]);
    let rotations: Vec<_> = entries.iter().filter(|entry| entry["body"]["operation"] == "Rotate").collect();
    assert_eq!(rotations.len(), 1);
    let rotation = &rotations[0]["body"]["rotation"];
    assert_eq!(rotation["old_path"], PATH);
    assert_eq!(rotation["new_path"], PATH);
    assert_eq!((rotation["old_epoch"].as_u64(), rotation["new_epoch"].as_u64()), (Some(0), Some(1)));
    assert_eq!(rotation["reason"], "a year is over");
    assert_eq!(rotation["rotated_by"], rotations[0]["body"]["identity"]);
    let epochs: Vec<_> = entries.iter().filter_map(|entry| entry["body"]["epoch"].as_u64()).collect();
    assert_eq!(epochs, [1, 1, 1], "signed, encrypted and decrypted in epoch 1");
}
