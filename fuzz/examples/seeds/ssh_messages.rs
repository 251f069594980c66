//! What clients ask of an agent, and what they have signed.

use fuzz::ssh::KEY;
use ssh::{ED25519, agent::Request, key_blob};

use crate::{Seeds, chosen};

fn strings(fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        out.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
        out.extend(*field);
    }
    out
}

fn signature(namespace: &str, algorithm: &str, hash: &[u8]) -> Vec<u8> {
    let fields = strings(&[namespace.as_bytes(), b"", algorithm.as_bytes(), hash]);
    [b"SSHSIG".to_vec(), fields].concat()
}

fn login(method: &str, host_key: &[&[u8]]) -> Vec<u8> {
    let mut out = strings(&[&[9; 32]]);
    out.push(50);
    out.extend(strings(&[b"alice", b"ssh-connection", method.as_bytes()]));
    out.push(1);
    out.extend(strings(&[ED25519.as_bytes(), &key_blob(&KEY)]));
    out.extend(strings(host_key));
    out
}

pub(crate) fn all() -> Seeds {
    let (git, file) = (signature("git", "sha512", &[1; 64]), signature("file", "sha256", &[2; 32]));
    let plain = login("publickey", &[]);
    let bound = login("publickey-hostbound-v00@openssh.com", &[&key_blob(&KEY)]);
    let asks = [
        ("identities", Request::Identities),
        ("sign_git", Request::Sign { key: Some(KEY), data: &git }),
        ("sign_login", Request::Sign { key: Some(KEY), data: &bound }),
        ("sign_unknown", Request::Sign { key: None, data: b"x" }),
        ("extension", Request::Other(27)),
    ];
    let mut seeds: Seeds = asks.iter().map(|(name, ask)| chosen(name, 0, &ask.to_bytes())).collect();
    for (name, bytes) in [("git", &git), ("file", &file), ("login", &plain), ("login_bound", &bound)] {
        seeds.push(chosen(name, 1, bytes));
    }
    seeds
}
