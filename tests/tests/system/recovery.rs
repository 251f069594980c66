//! The words bring a node back whose seals nothing opens any more; other words do not.

use std::{
    io::Write,
    process::{Output, Stdio},
};

use system_tests::TestNode;

const PATH: &str = "/orbital/users/admin";

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that reads the words from its standard input.
fn with_words(node: &TestNode, args: &[&str], words: &str) -> Output {
    let mut command = node.command(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(words.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", text(&output), String::from_utf8_lossy(&output.stdout));
    let long = words.split_whitespace().filter(|word| word.len() > 6);
    long.for_each(|word| assert!(!said.contains(word), "a word is repeated: {said}"));
    output
}

fn phrase(page: &str) -> Vec<String> {
    let words = page.split_whitespace().filter(|word| word.parse::<u8>().is_err());
    words.map(str::to_owned).collect()
}

/// covers: KEY-18, KEY-25
#[test]
fn the_words_bring_a_node_back_and_no_others_do() {
    let Some(mut node) = TestNode::boot() else { return };
    let public = node.ok(&["key", "public", PATH]);
    assert!(text(&node.run(&["recovery", "words", "--force"])).contains("`bailiwick down` stops it"));
    node.down();
    let piped = node.run(&["recovery", "words"]);
    assert!(piped.stdout.is_empty() && text(&piped).contains("no terminal"), "{}", text(&piped));
    let words = phrase(&node.ok(&["recovery", "words", "--force"]));
    assert_eq!(words.len(), 24);
    let right = format!("{}\n", words.join(" "));

    let tested = with_words(&node, &["recovery", "test", "-o", "json"], &right);
    assert!(tested.status.success(), "{}", text(&tested));
    let tested: serde_json::Value = serde_json::from_slice(&tested.stdout).unwrap();
    assert_eq!(tested["signing_keys"], 4);
    let refused = |words: &str, why: &str| {
        let output = with_words(&node, &["recovery", "test"], words);
        assert!(!output.status.success() && text(&output).contains(why), "{}", text(&output));
    };
    refused(&words[..23].join(" "), "23 words were given");
    refused(&format!("{right} zoo"), "25 words were given");
    refused(&right.replacen(&words[4], "nonsensical", 1), "word ");
    let other = format!("{} art", ["abandon"; 23].join(" "));
    refused(&other, "this is the seed of another node");
    let mut swapped = words.clone();
    swapped.swap(0, 1);
    if swapped != words {
        let output = with_words(&node, &["recovery", "test"], &swapped.join(" "));
        assert!(!output.status.success(), "swapped words were taken");
    }

    // Nothing opens the seals any more, and the words of another node do not help.
    let state = node.root().join("state");
    for file in ["keys/seal.key", "keys/seed.sealed", "axiom/signing.sealed", "policy/signing.sealed"] {
        std::fs::remove_file(state.join(file)).unwrap();
    }
    assert!(node.try_up_with(&[], &[]).is_err());
    let output = with_words(&node, &["recovery", "restore"], &other);
    assert!(text(&output).contains("nothing was restored"), "{}", text(&output));
    assert!(!state.join("keys/seal.key").exists() && !state.join("keys/seal.key.next").exists());
    let output = with_words(&node, &["recovery", "restore"], &right);
    assert!(output.status.success(), "{}", text(&output));
    node.up();
    node.settled();
    assert_eq!(node.ok(&["key", "public", PATH]), public);
    let message = node.file("message", "signed");
    node.ok(&["key", "sign", PATH, &message]);
    node.down();

    // Without the copies of the signing keys, what is missing is named.
    std::fs::remove_file(state.join("recovery/policy.sealed")).unwrap();
    let output = with_words(&node, &["recovery", "test"], &right);
    assert!(text(&output).contains("recovery/policy.sealed is not there"), "{}", text(&output));
    node.ok(&["recovery", "words", "--force"]);
    assert!(with_words(&node, &["recovery", "test"], &right).status.success(), "the copy is made again");
}
