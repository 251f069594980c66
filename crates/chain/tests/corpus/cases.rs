//! What the corpus holds: files that hold, files that never do, and files that hold for another log's key only.

use std::collections::BTreeMap;

use base::PublicKey;
use base64::{Engine, engine::general_purpose::STANDARD};
use chain::{
    checkpoint::Checkpoint,
    evidence::Evidence,
    note::{Algorithm, NoteSignature, NoteSigner, VerifierKey},
    tree::TreeHash,
};
use ed25519_dalek::{Signer, SigningKey};

use crate::log::{Log, SIZE, witness_key, witness_name};

/// Name of a file to its bytes and what is wrong with it.
pub(crate) type Files = BTreeMap<String, (Vec<u8>, String)>;

fn put(files: &mut Files, folder: &str, name: &str, content: impl Into<Vec<u8>>, reason: &str) {
    let before = files.insert(format!("{folder}/{name}"), (content.into(), reason.to_owned()));
    assert!(before.is_none(), "{name} stands twice");
}

pub(crate) fn all() -> Files {
    let log = Log::new(1);
    let mut files = Files::new();
    put(&mut files, ".", "log.key", format!("{}\n", log.verifier()), "the key of the log");
    holds(&log, &mut files);
    foreign(&log, &mut files);
    let evidence = log.evidence(&[3, 4, 11], SIZE, Some(9), &[8]).to_string();
    let proof = log.proof(11, SIZE).to_string();
    for (kind, text) in [("evidence", &evidence), ("proof", &proof)] {
        lines(kind, text, &mut files);
        bytes(kind, text, &mut files);
    }
    numbers(&evidence, &proof, &mut files);
    encodings(&evidence, &mut files);
    keys(&log, &evidence, &mut files);
    signatures(&log, &evidence, &proof, &mut files);
    trees(&log, &mut files);
    leaves(&log, &mut files);
    files
}

fn holds(log: &Log, files: &mut Files) {
    let every: Vec<u64> = (0..SIZE).collect();
    for (name, evidence) in [
        ("some", log.evidence(&[3, 4, 11], SIZE, Some(9), &[8])),
        ("range", log.evidence(&[5, 6, 7, 8, 9], SIZE, None, &[])),
        ("every", log.evidence(&every, SIZE, Some(1), &[8, 9])),
        ("first", log.evidence(&[0], SIZE, None, &[8])),
        ("last", log.evidence(&[19], SIZE, Some(16), &[8])),
        ("only", log.evidence(&[0], 1, Some(1), &[8])),
        ("same-size", log.evidence(&[2], 17, Some(17), &[])),
    ] {
        put(files, "holds", &format!("{name}.evidence"), evidence.to_string(), "holds");
    }
    for (name, index, size) in [("first", 0, SIZE), ("middle", 11, SIZE), ("last", 16, 17), ("only", 0, 1)] {
        put(files, "holds", &format!("{name}.proof"), log.proof(index, size).to_string(), "holds");
    }
    // What strangers sign means nothing: neither an unknown witness nor one who uses the log's name.
    let mut stranger = log.evidence(&[3], SIZE, None, &[8]);
    let key = SigningKey::from_bytes(&[10; 32]);
    for name in ["stranger.example", log.verifier().name()] {
        let line = NoteSigner { name, key: &key }.sign("another text\n").unwrap();
        stranger.checkpoint.note_mut().add(line).unwrap();
    }
    put(files, "holds", "strangers.evidence", stranger.to_string(), "holds");
}

/// Sound in itself, and signed by a key that is not the log's.
fn foreign(log: &Log, files: &mut Files) {
    let (mut other, mut same) = (Log::new(2), Log::new(1));
    other.key = SigningKey::from_bytes(&[11; 32]);
    same.key = other.key.clone();
    let reason = "the file fits together, but another key signed it";
    for (name, evidence) in [
        ("other-key", other.evidence(&[3, 4], SIZE, None, &[8])),
        ("other-key-same-entries", same.evidence(&[3], SIZE, None, &[])),
    ] {
        put(files, "foreign", &format!("{name}.evidence"), evidence.to_string(), reason);
    }
    put(files, "foreign", "other-key.proof", other.proof(3, SIZE).to_string(), reason);
    let renamed = Checkpoint { origin: "node-b/bailiwick/0000000000000000".into(), ..log.checkpoint(SIZE) };
    let mut evidence = log.evidence(&[3], SIZE, None, &[]);
    evidence.log = renamed.key(evidence.log.public_key()).unwrap();
    evidence.checkpoint = renamed.sign(&log.key).unwrap();
    put(
        files,
        "foreign",
        "other-name.evidence",
        evidence.to_string(),
        "the same key under another log's name",
    );
}

/// Another letter of the same alphabet in the middle of a line.
fn change(line: &str) -> String {
    let middle = line.len() / 2;
    let at = (middle..line.len()).chain(0..middle).find(|at| {
        line.is_char_boundary(*at) && line[*at..].starts_with(|letter: char| letter.is_ascii_alphanumeric())
    });
    let at = at.unwrap();
    let letter = match line.as_bytes()[at] {
        b'9' => '0',
        b'Z' => 'A',
        b'z' => 'a',
        other => char::from(other + 1),
    };
    format!("{}{letter}{}", &line[..at], &line[at + 1..])
}

/// Every line left out, doubled, changed, with a space or a carriage return behind it; every two neighbours swapped.
fn lines(kind: &str, text: &str, files: &mut Files) {
    let lines: Vec<&str> = text.strip_suffix('\n').unwrap().split('\n').collect();
    let joined = |lines: Vec<String>| lines.join("\n") + "\n";
    let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    for (at, line) in lines.iter().enumerate() {
        let what = format!("line {} ({})", at + 1, line.split(' ').next().unwrap());
        let with = |line: String| joined([own(&lines[..at]), vec![line], own(&lines[at + 1..])].concat());
        let mut add = |how: &str, content: String| {
            let name = format!("{:02}-{}.{kind}", at + 1, how.replace(' ', "-"));
            put(files, "refused", &format!("line-{name}"), content, &format!("{what} is {how}"));
        };
        let witness_line = line.starts_with("witness ");
        let signature = line.starts_with("— ");
        let unasked = line.starts_with("— witness") && kind == "proof";
        // Without its line a witness is not claimed; in a proof the witness is not asked for.
        if !witness_line && !unasked {
            add("left out", joined([own(&lines[..at]), own(&lines[at + 1..])].concat()));
        }
        if !signature {
            add("doubled", joined([own(&lines[..=at]), own(&lines[at..])].concat()));
        }
        if !line.is_empty() && !unasked {
            add("changed", with(change(line)));
        }
        add("followed by a space", with(format!("{line} ")));
        add("ended by a carriage return", with(format!("{line}\r")));
        if at + 1 < lines.len()
            && lines[at] != lines[at + 1]
            && !(signature && lines[at + 1].starts_with("— "))
        {
            let mut swapped = own(&lines);
            swapped.swap(at, at + 1);
            add("swapped with the next", joined(swapped));
        }
    }
}

/// The file as bytes: cut, begun otherwise, not UTF-8.
fn bytes(kind: &str, text: &str, files: &mut Files) {
    let mut add = |name: &str, content: Vec<u8>, reason: &str| {
        put(files, "refused", &format!("bytes-{name}.{kind}"), content, reason);
    };
    add("empty", Vec::new(), "the file is empty");
    add("mark", format!("\u{feff}{text}").into(), "a byte order mark stands before it");
    add("blank", format!("\n{text}").into(), "an empty line stands before it");
    add("trailing", format!("{text}\n").into(), "an empty line stands behind it");
    add("twice", text.repeat(2).into(), "the file stands twice");
    add("crlf", text.replace('\n', "\r\n").into(), "its lines end as on Windows");
    add("upper", text.to_uppercase().into(), "it is written in capitals");
    add("utf16", text.encode_utf16().flat_map(u16::to_le_bytes).collect(), "it is UTF-16");
    for part in 1..8 {
        let cut = text.as_bytes()[..text.len() * part / 8].to_vec();
        add(&format!("cut-{part}"), cut, "its end is cut off");
    }
    add("cut-last", text.as_bytes()[..text.len() - 1].to_vec(), "its last line feed is cut off");
    let mut invalid = text.as_bytes().to_vec();
    let dash = text.find('—').unwrap();
    invalid[dash] = 0xff;
    add("invalid", invalid, "a byte is no UTF-8");
    let mut control = text.as_bytes().to_vec();
    let origin = text.find("\n\nnode-a").unwrap() + 2;
    control[origin] = 7;
    add("control", control, "the checkpoint has a control character");
    add("hyphen", text.replace("— ", "- ").into(), "hyphens stand before the signatures");
    add("tab", text.replacen(' ', "\t", 2).into(), "tabs stand for spaces");
}

fn numbers(evidence: &str, proof: &str, files: &mut Files) {
    let forms = [
        ("zero", "0"),
        ("plus", "+"),
        ("minus", "-"),
        ("hex", "0x"),
        ("arabic", "\u{660}"),
        ("large", "9223372036854775808"),
        ("huge", "184467440737095516160"),
        ("blank", " "),
    ];
    for (name, form) in forms {
        let reason = format!("a number is written with {form:?} before it");
        for (field, text, from) in
            [("entry", evidence, "entry 11 "), ("old", evidence, "old 9 "), ("index", proof, "index 11\n")]
        {
            let (word, rest) = from.split_once(' ').unwrap();
            let kind = if field == "index" { "proof" } else { "evidence" };
            let content = text.replacen(from, &format!("{word} {form}{rest}"), 1);
            put(files, "refused", &format!("number-{field}-{name}.{kind}"), content, &reason);
        }
    }
    let large = evidence.replacen("entry 11 ", "entry 20 ", 1);
    put(files, "refused", "number-entry-beyond.evidence", large, "an entry is beyond the checkpoint");
    for (name, index) in [("before", 10), ("behind", 12), ("beyond", 20)] {
        let moved = proof.replacen("index 11\n", &format!("index {index}\n"), 1);
        put(files, "refused", &format!("number-index-{name}.proof"), moved, "the entry stands elsewhere");
    }
}

/// Base64 that other readers take for the same bytes.
fn encodings(evidence: &str, files: &mut Files) {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (name, begins) in [
        ("tree", "tree "),
        ("consistency", "consistency "),
        ("old", "old 9 "),
        ("entry", "entry 4 "),
        ("signature", "— node-a"),
        ("cosignature", "— witness"),
    ] {
        let line = evidence.lines().find(|line| line.starts_with(begins)).unwrap();
        let digits = line.trim_end_matches('=');
        let (rest, last) = digits.split_at(digits.len() - 1);
        let bits = alphabet.as_bytes()[alphabet.find(last).unwrap() + 1];
        let padding = &line[digits.len()..];
        let mut add = |how: &str, changed: String, reason: &str| {
            let content = evidence.replacen(line, &changed, 1);
            put(files, "refused", &format!("base64-{name}-{how}.evidence"), content, reason);
        };
        add("bits", format!("{rest}{}{padding}", char::from(bits)), "bits are set that are not used");
        add("unpadded", digits.to_owned(), "the padding is left out");
        add("padded", format!("{line}="), "there is more padding");
        add("space", format!("{rest} {last}{padding}"), "a space stands in it");
        add("behind", format!("{line}AAAA"), "more stands behind the padding");
    }
}

fn keys(log: &Log, evidence: &str, files: &mut Files) {
    let mut add = |name: &str, content: String, reason: &str| {
        put(files, "refused", &format!("key-{name}.evidence"), content, reason);
    };
    let key = log.verifier().to_string();
    let (name, rest) = key.split_once('+').unwrap();
    let (id, base64) = rest.split_once('+').unwrap();
    let with =
        |key: String| evidence.replacen(&format!("log {name}+{id}+{base64}"), &format!("log {key}"), 1);
    add("id-long", with(format!("{name}+0{id}+{base64}")), "the key's id has a digit too many");
    add("id-other", with(format!("{name}+00000000+{base64}")), "the key's id does not follow from it");
    add("id-missing", with(format!("{name}+{base64}")), "the key has no id");
    add("no-name", with(format!("+{id}+{base64}")), "the key has no name");
    add("padded", with(format!("{name}+{id}+{base64}=")), "the key's base64 is padded too much");
    add("short", with(format!("{name}+{id}+{}", &base64[..40])), "the key is too short");
    let witness = witness_key(8).to_string();
    add("witness-as-log", with(witness.clone()), "the log's key is a witness' key");
    let of_type = |name: &str, algorithm| {
        VerifierKey::new(name, algorithm, *log.verifier().public_key()).unwrap().to_string()
    };
    add("type", with(of_type(name, Algorithm::Cosignature)), "the log's key is of a witness' type");
    add("other-name", with(of_type("node-b/bailiwick/00", Algorithm::Ed25519)), "the key is of another log");
    let as_witness =
        |key: &str| evidence.replacen(&format!("witness {witness}"), &format!("witness {key}"), 1);
    add("log-as-witness", as_witness(&key), "a witness' key is the log's");
    add("witness-is-log", as_witness(&of_type("w", Algorithm::Cosignature)), "the log is its own witness");
    add("witness-silent", as_witness(&witness_key(9).to_string()), "a witness did not sign");
    let twice = format!("witness {witness}\nwitness {witness}");
    add(
        "witness-twice",
        evidence.replacen(&format!("witness {witness}"), &twice, 1),
        "a witness stands twice",
    );
    let renamed = VerifierKey::new("other", Algorithm::Cosignature, *witness_key(8).public_key()).unwrap();
    let renamed = format!("witness {witness}\nwitness {renamed}");
    add(
        "witness-renamed",
        evidence.replacen(&format!("witness {witness}"), &renamed, 1),
        "a witness stands twice",
    );
    let spaced = format!("witness {}", witness.replacen("witness.example", "witness\u{a0}example", 1));
    add(
        "name-space",
        evidence.replacen(&format!("witness {witness}"), &spaced, 1),
        "a key's name has a space",
    );
}

/// The lines of a checkpoint again, with other signatures.
fn with_signatures(evidence: &Evidence, lines: &[String]) -> String {
    let text = evidence.to_string();
    let signatures = text.find("\n\n— ").map_or(text.len(), |at| at + 2);
    format!("{}{}", &text[..signatures], lines.concat())
}

fn line(name: &str, key: &VerifierKey, signature: &[u8]) -> String {
    format!("— {name} {}\n", STANDARD.encode([&key.id(), signature].concat()))
}

fn signatures(log: &Log, evidence: &str, proof: &str, files: &mut Files) {
    let plain = log.evidence(&[3], SIZE, None, &[]);
    let key = log.verifier();
    let text = log.checkpoint(SIZE).text();
    let good = log.key.sign(text.as_bytes()).to_bytes();
    let stranger = SigningKey::from_bytes(&[12; 32]);
    let mut add = |name: &str, content: String, reason: &str| {
        put(files, "refused", &format!("signature-{name}.evidence"), content, reason);
    };
    let with = |signature: &[u8]| with_signatures(&plain, &[line(key.name(), &key, signature)]);
    add("stranger", with(&stranger.sign(text.as_bytes()).to_bytes()), "a stranger signed in the log's name");
    add("other-text", with(&log.key.sign(b"other").to_bytes()), "the log signed another text");
    add(
        "head-text",
        with(&log.key.sign(text.replace('\n', "").as_bytes()).to_bytes()),
        "the log signed another text",
    );
    add("zero", with(&[0; 64]), "the signature is zero");
    add("short", with(&good[..63]), "the signature is too short");
    add("long", with(&[&good[..], &[0]].concat()), "the signature is too long");
    add("none", with(&[]), "the signature is empty");
    add("malleable", with(&plus_order(&good)), "the signature's S is not reduced");
    let wrong_beside_right =
        [line(key.name(), &key, &good), line(key.name(), &key, &stranger.sign(text.as_bytes()).to_bytes())];
    add(
        "wrong-beside-right",
        with_signatures(&plain, &wrong_beside_right),
        "a second signature of the log is wrong",
    );
    let many = vec![line(key.name(), &key, &good); 33];
    add("too-many", with_signatures(&plain, &many), "there are 33 signatures");
    let cosigned = NoteSigner { name: key.name(), key: &log.key }.cosign(&text, 1).unwrap();
    add(
        "cosigned-by-log",
        with_signatures(&plain, &[format!("{cosigned}\n")]),
        "the log signed as a witness",
    );
    // A key of order one: this signature would hold for every text.
    let weak = VerifierKey::new(key.name(), Algorithm::Ed25519, PublicKey(small(1))).unwrap();
    let everything = [&small(1)[..], &[0; 32]].concat();
    let weak = Evidence { log: weak, ..plain.clone() };
    add(
        "small-order",
        with_signatures(&weak, &[line(key.name(), &weak.log, &everything)]),
        "the log's key is of small order: one signature holds for every text",
    );
    witnesses(log, &mut add);
    let spliced = |from: &str, other: &str| {
        let (head, _) = from.split_once("\n\n").unwrap();
        let (_, note) = other.split_once("\n\n").unwrap();
        format!("{head}\n\n{note}")
    };
    let forked = Log::new(2);
    let other = forked.evidence(&[3], SIZE, None, &[8]).to_string();
    add("forked", spliced(evidence, &other), "the checkpoint is of another history");
    let smaller = log.evidence(&[3], 12, None, &[8]).to_string();
    add("smaller", spliced(evidence, &smaller), "the checkpoint is of another size");
    put(
        files,
        "refused",
        "signature-forked.proof",
        spliced(proof, &other),
        "the checkpoint is of another history",
    );
    put(
        files,
        "refused",
        "signature-smaller.proof",
        spliced(proof, &smaller),
        "the checkpoint is of another size",
    );
}

fn witnesses(log: &Log, add: &mut impl FnMut(&str, String, &str)) {
    let claimed = log.evidence(&[3], SIZE, None, &[8]);
    let text = log.checkpoint(SIZE).text();
    let own = claimed.checkpoint.note().signatures()[0].to_string();
    let key = SigningKey::from_bytes(&[8; 32]);
    let (name, verifier) = (witness_name(8), witness_key(8));
    let signer = NoteSigner { name: &name, key: &key };
    let mut with = |what: &str, line: String, reason: &str| {
        add(&format!("witness-{what}"), with_signatures(&claimed, &[format!("{own}\n"), line]), reason);
    };
    let of = |line: NoteSignature| format!("{line}\n");
    with("other-text", of(signer.cosign("other\n", 1).unwrap()), "the witness signed another text");
    with("plain", of(signer.sign(&text).unwrap()), "the witness signed without a time");
    with("future", of(signer.cosign(&text, 1 << 63).unwrap()), "the time is not below 2^63");
    let bytes =
        STANDARD.decode(signer.cosign(&text, 5).unwrap().to_string().split(' ').nth(2).unwrap()).unwrap();
    let mut moved = bytes[4..].to_vec();
    moved[7] = 6;
    with("time", line(&name, &verifier, &moved), "the witness' time was changed");
    with("untimed", line(&name, &verifier, &bytes[12..]), "the time is left out");
    with(
        "other-name",
        line("witness.example/9", &verifier, &bytes[4..]),
        "another name stands before the signature",
    );
}

/// The point of order one, or what else begins so.
const fn small(first: u8) -> [u8; 32] {
    let mut point = [0; 32];
    point[0] = first;
    point
}

/// The same signature with the order of the curve added to S.
fn plus_order(signature: &[u8; 64]) -> Vec<u8> {
    let order = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut sum = signature.to_vec();
    let mut carry = 0;
    for (byte, added) in sum[32..].iter_mut().zip(order) {
        carry += u16::from(*byte) + added;
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    sum
}

/// Everything is signed rightly, and the proofs are wrong.
fn trees(log: &Log, files: &mut Files) {
    let forked = Log::new(2);
    let good = log.evidence(&[3, 4, 11], SIZE, Some(9), &[8]);
    let mut add = |name: &str, reason: &str, change: &dyn Fn(&mut Evidence)| {
        let mut changed = good.clone();
        change(&mut changed);
        put(files, "refused", &format!("tree-{name}.evidence"), changed.to_string(), reason);
    };
    let elsewhere = "an entry stands elsewhere";
    add("entry-other-history", "an entry is of another history", &|e| {
        e.entries[2].1 = forked.leaves[11].clone()
    });
    add("entry-renumbered", elsewhere, &|e| e.entries[2].0 = 12);
    add("entry-exchanged", elsewhere, &|e| e.entries[2].1 = log.leaves[12].clone());
    add("entries-swapped", "entries are not ascending", &|e| e.entries.swap(0, 1));
    add("entry-again", "an entry stands twice", &|e| e.entries.insert(0, e.entries[0].clone()));
    add("entry-more", "an entry stands there that the proof does not know", &|e| {
        e.entries.push((12, log.leaves[12].clone()));
    });
    add("entry-less", "the proof knows an entry that is not there", &|e| drop(e.entries.remove(1)));
    add("hash-more", "the set proof has a hash too many", &|e| e.tree.push(TreeHash::empty()));
    add("hash-less", "the set proof has a hash too few", &|e| {
        e.tree.pop();
    });
    add("hashes-reversed", "the set proof is in another order", &|e| e.tree.reverse());
    add("no-hashes", "the set proof is empty", &|e| e.tree.clear());
    add("node-as-leaf", "two hashes of the tree pose as an entry", &|e| {
        e.entries = vec![(0, [e.tree[0].0, e.tree[1].0].concat())];
    });
    add("root-as-proof", "the root stands for the proof", &|e| e.tree = vec![log.checkpoint(SIZE).root]);
    add("proof-other-size", "the set proof is of a smaller tree", &|e| {
        e.tree = log.evidence(&[3, 4, 11], 17, None, &[]).tree;
    });
    add("proof-other-history", "the set proof is of another history", &|e| {
        e.tree = forked.evidence(&[3, 4, 11], SIZE, None, &[]).tree;
    });
    for at in 0..good.tree.len() {
        add(&format!("hash-{at}-flipped"), "a hash of the set proof was changed", &|e| e.tree[at].0[at] ^= 1);
    }
    let older = "the older tree is not part of this one";
    add("old-other-history", older, &|e| e.older = Some(forked.older(9, SIZE)));
    add("old-root", older, &|e| e.older.as_mut().unwrap().root = TreeHash::empty());
    add("old-size", older, &|e| e.older.as_mut().unwrap().size = 10);
    add("old-empty", "the older tree is empty", &|e| {
        let older = e.older.as_mut().unwrap();
        (older.size, older.root) = (0, TreeHash::empty());
        older.consistency.clear();
    });
    add("old-larger", "the older tree is larger", &|e| e.older.as_mut().unwrap().size = SIZE + 1);
    add("old-same-other-root", "two roots of one size", &|e| {
        e.older = Some(forked.older(SIZE, SIZE));
    });
    add("old-same-with-proof", "the proof between equal sizes is not empty", &|e| {
        e.older = Some(log.older(SIZE, SIZE));
        e.older.as_mut().unwrap().consistency.push(log.checkpoint(SIZE).root);
    });
    add("old-hash-more", "the consistency proof has a hash too many", &|e| {
        e.older.as_mut().unwrap().consistency.push(TreeHash::empty());
    });
    add("old-hash-less", "the consistency proof has a hash too few", &|e| {
        e.older.as_mut().unwrap().consistency.pop();
    });
    add("old-no-hashes", "the consistency proof is empty", &|e| {
        e.older.as_mut().unwrap().consistency.clear()
    });
    for at in 0..good.older.as_ref().unwrap().consistency.len() {
        add(&format!("old-hash-{at}-flipped"), "a hash of the consistency proof was changed", &|e| {
            e.older.as_mut().unwrap().consistency[at].0[at] ^= 1;
        });
    }
    for at in 0..4 {
        let mut proof = log.proof(11, SIZE);
        proof.hashes[at].0[31] ^= 0x80;
        put(
            files,
            "refused",
            &format!("tree-hash-{at}-flipped.proof"),
            proof.to_string(),
            "a hash was changed",
        );
    }
    let mut proof = log.proof(11, SIZE);
    proof.hashes.reverse();
    put(files, "refused", "tree-reversed.proof", proof.to_string(), "the path is in another order");
    let proof = chain::tlog_proof::TlogProof { extra: None, ..log.proof(11, SIZE) };
    put(files, "refused", "tree-no-entry.proof", proof.to_string(), "the entry is not in the file");
    let mut proof = log.proof(11, SIZE);
    proof.extra = Some(forked.leaves[11].clone());
    put(files, "refused", "tree-other-history.proof", proof.to_string(), "the entry is of another history");
}

/// The log signed them, and no entry can be so.
fn leaves(log: &Log, files: &mut Files) {
    let mut add = |name: &str, reason: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut leaves = log.leaves.clone();
        change(&mut leaves[4]);
        let evidence = Log::of(leaves).evidence(&[3, 4], SIZE, None, &[8]);
        put(files, "refused", &format!("leaf-{name}.evidence"), evidence.to_string(), reason);
    };
    add("sequence", "the header states another sequence", &|leaf| leaf[0] = 5);
    add("sequence-high", "the header states another sequence", &|leaf| leaf[7] = 1);
    add("size-more", "the header states a larger payload", &|leaf| leaf[84] += 1);
    add("size-less", "the header states a smaller payload", &|leaf| leaf[84] -= 1);
    add("size-high", "the header states a larger payload", &|leaf| leaf[87] = 1);
    add("payload-cut", "the payload is cut", &|leaf| {
        leaf.pop();
    });
    add("payload-more", "bytes stand behind the payload", &|leaf| leaf.push(0));
    add("time", "the time goes back", &|leaf| leaf[72..80].fill(0));
    add("short", "the leaf is shorter than a header", &|leaf| leaf.truncate(87));
    add("empty", "the leaf is empty", &|leaf| leaf.clear());
}
