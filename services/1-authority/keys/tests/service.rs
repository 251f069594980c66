//! The service over real sockets, with a real boundary in a process of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, helpers too"
)]

#[path = "../../../../crates/kit/tests/support/node.rs"]
mod node;

use std::{
    fs::File,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base::{Hash, KeyPath, Nonce, PublicKey, Signature, cbor};
use chain::payload::{
    Payload,
    policy::{PolicyAction, PolicyContext, PolicyRequest, ResourceRef, ResourceType},
};
use contracts::{
    keys::v1::{self as wire, keys_client::KeysClient},
    policy::v1::PolicyDecision,
};
use keys::{
    EXIT_BOUNDARY_GONE, KeysService,
    boundary::{Inputs, protocol::SecretKind},
};
use kit::{
    OperationContext, Peer,
    client::Calls,
    context::{ActorType, ContextFields},
};
use node::{LIMIT, Node, genesis_plan, reason, service_id};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// Set in the child processes: `boundary` with its socket as standard input, or `service`, which loses its boundary.
const ROLE: &str = "BAILIWICK_TEST_KEYS";
const FOLDER: &str = "BAILIWICK_TEST_FOLDER";
const TERMINAL_PATH: &str = "/orbital/services/terminal";
const MESSAGE: [u8; 32] = [7; 32];

/// Not a test of its own: the body of the child processes below.
#[test]
fn child() {
    match std::env::var(ROLE).as_deref() {
        Ok("boundary") => {
            let socket = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned().unwrap();
            let folder = std::path::PathBuf::from(std::env::var(FOLDER).unwrap());
            let open = |name: &str| OwnedFd::from(File::open(folder.join(name)).unwrap());
            let secret = Some((SecretKind::KeyFile, open("key")));
            let ended = keys::boundary::main(Inputs {
                socket,
                sealed: Some(open("seed.sealed")),
                secret,
                next: None,
                unlock: None,
                words: None,
            });
            std::process::exit(i32::from(ended.is_err()));
        }
        Ok("service") => lose_the_boundary(),
        _ => {}
    }
}

fn run(role: &str, folder: &std::path::Path, input: Stdio) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(ROLE, role).env(FOLDER, folder);
    command.stdin(input).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

struct Boundary {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Boundary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A boundary with the seed of the fixed vectors, opened by a key file of `byte`s; 1 is the right one.
fn boundary(byte: u8) -> (Boundary, OwnedFd) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("seed.sealed"),
        include_bytes!("../../../../crates/seal/src/counting-seed.sealed"),
    )
    .unwrap();
    std::fs::write(folder.path().join("key"), [byte; 32]).unwrap();
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let child = run("boundary", folder.path(), Stdio::from(theirs));
    (Boundary { child, _folder: folder }, ours)
}

struct Rig {
    node: Node,
    _boundary: Boundary,
}

async fn rig(byte: u8) -> Rig {
    let (boundary, socket) = boundary(byte);
    Rig { node: Node::start::<KeysService>(Some(socket), genesis_plan()).await, _boundary: boundary }
}

impl Rig {
    fn keys(&self, client: &str, verb: &str) -> KeysClient<Calls> {
        KeysClient::new(self.node.calls(client, &format!("system.keys.{verb}"), None))
    }

    async fn sign(&self, request: wire::SignRequest) -> Result<wire::SignResponse, tonic::Status> {
        let answer = tokio::time::timeout(LIMIT, self.keys("terminal", "sign").sign(request)).await.unwrap();
        answer.map(tonic::Response::into_inner)
    }

    /// A decision of policy for the terminal's own key and this message.
    fn decide(&self, nonce: u8, message: [u8; 32]) -> PolicyDecision {
        let key_path = KeyPath::parse(TERMINAL_PATH).unwrap();
        self.decide_on(nonce, PolicyAction::Sign { key_path, message_hash: Hash(message) })
    }

    fn decide_on(&self, nonce: u8, action: PolicyAction) -> PolicyDecision {
        let (at, signed, _) = self.node.world.decide(&PolicyRequest {
            requestor: service_id("terminal"),
            resource: ResourceRef { resource_type: ResourceType::Key, id: TERMINAL_PATH.to_owned() },
            action,
            context: PolicyContext::default(),
            nonce: Nonce([nonce; 16]),
            signature: None,
        });
        PolicyDecision::of(&signed.decode_body().unwrap(), cbor::encode(&signed), Some(at))
    }

    fn usages(&self) -> Vec<(base::AxiomRef, chain::payload::identity::KeyUsage)> {
        let of = |(at, payload)| match payload {
            Payload::KeyUsage(usage) => (at, usage.body),
            other => panic!("{other:?}"),
        };
        self.node.world.payloads(92).into_iter().map(of).collect()
    }
}

fn request(authorization: PolicyDecision) -> wire::SignRequest {
    wire::SignRequest {
        key_path: TERMINAL_PATH.to_owned(),
        message: MESSAGE.to_vec(),
        requestor: service_id("terminal").0.to_vec(),
        authorization: Some(authorization),
    }
}

/// covers: KEY-04, KEY-13, KEY-14, KEY-15, KEY-16
#[tokio::test]
async fn one_decision_gives_one_recorded_signature() {
    let rig = rig(1).await;
    let decision = rig.decide(1, MESSAGE);
    let signed = rig.sign(request(decision.clone())).await.unwrap();
    let public = PublicKey(signed.public_key.as_slice().try_into().unwrap());
    let signature = Signature(signed.signature.as_slice().try_into().unwrap());
    assert_eq!(keys::core::verify(&public, &MESSAGE, &signature), Ok(true));
    let usages = rig.usages();
    let [(at, usage)] = &usages[..] else { panic!("{usages:?}") };
    assert_eq!(signed.receipt, Some((*at).into()), "the receipt is the entry");
    assert_eq!(usage.identity, service_id("terminal"));
    assert_eq!(usage.output_hash, Some(Hash::of(&signature.0)));
    assert_eq!((usage.message_hash, &usage.refused), (Some(Hash(MESSAGE)), &None));

    assert_eq!(reason(rig.sign(request(decision)).await), "InvalidDecision", "it was used");
    rig.node.world.set_verdict(|_| false);
    let denied = rig.decide(2, MESSAGE);
    assert_eq!(reason(rig.sign(request(denied)).await), "Unauthorized");
    rig.node.world.set_verdict(|_| true);
    assert_eq!(reason(rig.sign(request(rig.decide(3, [8; 32]))).await), "InvalidDecision", "another message");
    let mut unread = rig.decide(4, MESSAGE);
    unread.signed.push(0);
    assert_eq!(reason(rig.sign(request(unread)).await), "InvalidDecision");
    let refusals = rig.usages().into_iter().filter(|(_, usage)| usage.refused.is_some());
    assert!(refusals.clone().all(|(_, usage)| usage.output_hash.is_none()));
    assert_eq!(refusals.count(), 4, "each was recorded (KEY-34)");
}

/// What `git commit -S` has signed: see `crates/ssh`.
fn sshsig() -> Vec<u8> {
    let mut bytes = b"SSHSIG".to_vec();
    for field in [&b"git"[..], b"", b"sha512", &[1; 64]] {
        bytes.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
        bytes.extend(field);
    }
    bytes
}

/// covers: KEY-34
#[tokio::test]
async fn keys_with_a_purpose_sign_bytes_of_their_format_and_all_others_hashes() {
    let rig = rig(1).await;
    let ssh_path = format!("{TERMINAL_PATH}/@ssh");
    let decide = |nonce, path: &str, message: &[u8]| {
        let key_path = KeyPath::parse(path).unwrap();
        rig.decide_on(nonce, PolicyAction::Sign { key_path, message_hash: Hash::of(message) })
    };
    let ask = |nonce, path: &str, message: Vec<u8>, decided: &[u8]| {
        let request = wire::SignBytesRequest {
            key_path: path.to_owned(),
            authorization: Some(decide(nonce, path, decided)),
            message,
            requestor: service_id("terminal").0.to_vec(),
        };
        let mut keys = rig.keys("terminal", "sign_bytes");
        async move { keys.sign_bytes(request).await.map(tonic::Response::into_inner) }
    };
    let signed = ask(1, &ssh_path, sshsig(), &sshsig()).await.unwrap();
    let public = PublicKey(signed.public_key.as_slice().try_into().unwrap());
    let signature = Signature(signed.signature.as_slice().try_into().unwrap());
    assert_eq!(keys::core::verify(&public, &sshsig(), &signature), Ok(true));
    let usages = rig.usages();
    let [(at, usage)] = &usages[..] else { panic!("{usages:?}") };
    assert_eq!(signed.receipt, Some((*at).into()));
    assert_eq!(
        (usage.message_hash, usage.key_path.to_string()),
        (Some(Hash::of(&sshsig())), ssh_path.clone())
    );

    assert_eq!(reason(ask(2, TERMINAL_PATH, sshsig(), &sshsig()).await), "WrongPurpose");
    assert_eq!(reason(ask(3, &ssh_path, MESSAGE.to_vec(), &MESSAGE).await), "WrongPurpose");
    assert_eq!(reason(ask(4, &ssh_path, sshsig(), b"another").await), "InvalidDecision");
    let reserved = format!("{TERMINAL_PATH}/@x509");
    assert_eq!(reason(ask(5, &reserved, sshsig(), &sshsig()).await), "WrongPurpose");
    let key_path = KeyPath::parse(&ssh_path).unwrap();
    let hash = wire::SignRequest {
        key_path: ssh_path.clone(),
        ..request(rig.decide_on(6, PolicyAction::Sign { key_path, message_hash: Hash(MESSAGE) }))
    };
    assert_eq!(reason(rig.sign(hash).await), "WrongPurpose");
    let refused = rig.usages().into_iter().filter(|(_, usage)| usage.refused.is_some()).count();
    assert_eq!(refused, 5, "each is on record");
    let long = ask(7, &ssh_path, vec![0; keys::core::SIGNED_BYTES_MAX + 1], b"").await.unwrap_err();
    assert_eq!(long.code(), tonic::Code::InvalidArgument);
    let most = vec![0; keys::core::SIGNED_BYTES_MAX];
    assert_eq!(reason(ask(8, &ssh_path, most.clone(), &most).await), "WrongPurpose");
    let info = wire::GetKeyInfoRequest { path: ssh_path, epoch: None };
    let info = rig.keys("terminal", "get_key_info").get_key_info(info).await.unwrap().into_inner();
    assert_eq!(
        (info.encryption_key, info.algorithms),
        (vec![], vec!["Ed25519".to_owned(), "HKDF-SHA256".to_owned()])
    );
}

/// covers: KEY-06, KEY-07, KEY-16
#[tokio::test]
async fn what_is_encrypted_is_decrypted_under_decisions_and_on_record() {
    let rig = rig(1).await;
    let key_path = || KeyPath::parse(TERMINAL_PATH).unwrap();
    let requestor = service_id("terminal").0.to_vec();
    let encrypt = |plaintext: Vec<u8>, nonce| {
        let decision = rig.decide_on(nonce, PolicyAction::Encrypt { key_path: key_path() });
        let request = wire::EncryptRequest {
            key_path: TERMINAL_PATH.to_owned(),
            plaintext,
            requestor: requestor.clone(),
            authorization: Some(decision),
        };
        let mut keys = rig.keys("terminal", "encrypt");
        async move { keys.encrypt(request).await.map(tonic::Response::into_inner) }
    };
    let decrypt = |ciphertext: Vec<u8>, action: PolicyAction, nonce| {
        let request = wire::DecryptRequest {
            key_path: TERMINAL_PATH.to_owned(),
            ciphertext,
            requestor: requestor.clone(),
            authorization: Some(rig.decide_on(nonce, action)),
        };
        let mut keys = rig.keys("terminal", "decrypt");
        async move { keys.decrypt(request).await.map(tonic::Response::into_inner) }
    };
    let may_decrypt = || PolicyAction::Decrypt { key_path: key_path() };
    let plaintext = vec![b'x'; keys::core::PLAINTEXT_BYTES_MAX];
    let sealed = encrypt(plaintext.clone(), 1).await.unwrap();
    let opened = decrypt(sealed.ciphertext.clone(), may_decrypt(), 2).await.unwrap();
    assert!(opened.plaintext == plaintext);
    let usages = rig.usages();
    assert_eq!(usages.len(), 2);
    assert_eq!(sealed.receipt, Some(usages[0].0.into()));
    assert_eq!(opened.receipt, Some(usages[1].0.into()));
    assert_eq!(usages[1].1.message_hash, Some(Hash::of(&sealed.ciphertext)));
    // The right to encrypt opens nothing, and what was changed does not open; both are on record.
    let may_encrypt = PolicyAction::Encrypt { key_path: key_path() };
    assert_eq!(reason(decrypt(sealed.ciphertext.clone(), may_encrypt, 3).await), "InvalidDecision");
    let mut changed = sealed.ciphertext;
    changed[70] ^= 1;
    assert_eq!(reason(decrypt(changed, may_decrypt(), 4).await), "CryptoFailure");
    assert_eq!(rig.usages().iter().filter(|(_, usage)| usage.refused.is_some()).count(), 2);
    let long = encrypt(vec![0; keys::core::PLAINTEXT_BYTES_MAX + 1], 5).await.unwrap_err();
    assert_eq!(long.code(), tonic::Code::InvalidArgument);
    let short = vec![1; keys::core::OVERHEAD_BYTES - 1];
    assert_eq!(decrypt(short, may_decrypt(), 6).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

/// covers: KEY-34
#[tokio::test]
async fn without_a_record_nothing_is_released_and_the_decision_stays_spent() {
    let rig = rig(1).await;
    rig.node.world.set_deaf(true);
    let decision = rig.decide(1, MESSAGE);
    assert_eq!(reason(rig.sign(request(decision.clone())).await), "AuditUnavailable");
    let bare = wire::SignRequest { authorization: None, ..request(decision.clone()) };
    assert_eq!(reason(rig.sign(bare.clone()).await), "AuditUnavailable", "a refusal is recorded first, too");
    rig.node.world.set_deaf(false);
    assert_eq!(reason(rig.sign(request(decision)).await), "InvalidDecision");
    assert_eq!(reason(rig.sign(bare).await), "InvalidDecision");
    assert!(rig.usages().iter().all(|(_, usage)| usage.output_hash.is_none()));
}

#[tokio::test]
async fn a_decision_that_is_never_committed_is_not_waited_for_longer_than_two_seconds() {
    let rig = rig(1).await;
    let other = rig.decide(1, MESSAGE);
    // Decided in another log: the signature is policy's, the entry is not here.
    let second = self::rig(1).await;
    let elsewhere = second.decide(9, MESSAGE);
    let began = Instant::now();
    assert_eq!(reason(rig.sign(request(elsewhere)).await), "InvalidDecision");
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(8)).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
    assert!(rig.sign(request(other)).await.is_ok());
}

#[tokio::test]
async fn the_requestor_is_the_caller_and_the_operator_shows_a_token() {
    let rig = rig(1).await;
    let mut other = request(rig.decide(1, MESSAGE));
    other.requestor = node::admin().0.to_vec();
    assert_eq!(reason(rig.sign(other).await), "Unauthorized");
    let refused = rig.usages();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].1.identity, service_id("terminal"), "recorded under who it was");
    let mut network = rig.keys("network", "sign");
    let stolen = network.sign(request(rig.decide(2, MESSAGE))).await;
    assert_eq!(reason(stolen), "Unauthorized", "a decision is of use to its requestor alone");
    let mut claimed =
        KeysClient::new(rig.node.calls_as("network", service_id("terminal"), "system.keys.sign", None));
    assert_eq!(reason(claimed.sign(request(rig.decide(3, MESSAGE))).await), "envelope_invalid");

    let mut bare = rig.keys("admin", "sign");
    assert_eq!(reason(bare.sign(request(rig.decide(4, MESSAGE))).await), "auth_required");
    let token = rig.node.token(node::admin(), "admin");
    let mut admin = KeysClient::new(rig.node.calls("admin", "system.keys.sign", Some(&token)));
    assert_eq!(reason(admin.sign(request(rig.decide(5, MESSAGE))).await), "Unauthorized");
}

/// covers: KEY-03, KEY-05, KEY-08
#[tokio::test]
async fn public_facts_need_neither_requester_nor_decision() {
    let rig = rig(1).await;
    let fields = ContextFields {
        app_id: Some("app_0".to_owned()),
        actor_type: Some(ActorType::Service),
        is_remote: Some(false),
        trace_id: Some(base::TraceId([1; 16])),
        ..ContextFields::default()
    };
    let public = |verb: &str| {
        let capability = Some(format!("system.keys.{verb}"));
        let context = OperationContext::build(ContextFields { capability, ..fields.clone() }, true).unwrap();
        KeysClient::new(Peer::at(rig.node.socket("terminal")).with(&context, None).unwrap())
    };
    let path = "/orbital/users/alice/signing".to_owned();
    let request = wire::DerivePublicKeyRequest { path: path.clone(), epoch: None };
    let key = public("derive_public_key").derive_public_key(request).await.unwrap().into_inner().key;
    let expected: PublicKey =
        "88848f5b82a818a92c943b4ddd79320df2d5689ab0fcfc6fd7f6359844c757c5".parse().unwrap();
    assert_eq!(key, expected.0);
    let request = wire::GetKeyInfoRequest { path: path.clone(), epoch: None };
    let info = public("get_key_info").get_key_info(request).await.unwrap().into_inner();
    // Exhaustive on purpose: a new field must be argued here.
    let wire::KeyInfo { path: told, signing_key, algorithms, state, encryption_key, epoch } = info;
    assert_eq!(epoch, 0, "it was never rotated");
    assert_eq!((told, signing_key, state.as_str()), (path, key.clone(), "unsealed"));
    assert_eq!(algorithms, ["Ed25519", "X25519", "XChaCha20-Poly1305", "HKDF-SHA256"]);
    assert!(encryption_key.len() == 32 && encryption_key != key);
    let verify = |signature: Vec<u8>, message: Vec<u8>| {
        let request = wire::VerifyRequest { public_key: key.clone(), message, signature };
        let mut client = public("verify");
        async move { client.verify(request).await.map(|answer| answer.into_inner().valid) }
    };
    assert!(!verify(vec![1; 64], MESSAGE.to_vec()).await.unwrap());
    assert!(!verify(vec![1; 64], vec![0; 64 * 1024]).await.unwrap());
    assert_eq!(
        verify(vec![1; 64], vec![0; 64 * 1024 + 1]).await.unwrap_err().code(),
        tonic::Code::InvalidArgument
    );
    assert_eq!(verify(vec![1; 63], vec![]).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    for bad in ["", "/", "orbital", "/a/../b"] {
        let request = wire::DerivePublicKeyRequest { path: bad.to_owned(), epoch: None };
        assert_eq!(
            reason(public("derive_public_key").derive_public_key(request).await),
            "InvalidPath",
            "{bad:?}"
        );
    }
    assert!(rig.usages().is_empty(), "none of it is recorded");
}

#[tokio::test]
async fn a_seed_that_does_not_open_is_told_and_nothing_is_signed() {
    let rig = rig(2).await;
    let began = Instant::now();
    let health = loop {
        match rig.node.health().await {
            health if health.degraded || began.elapsed() > LIMIT => break health,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert!(health.healthy && health.degraded, "a restart would not help");
    assert!(health.last_error.unwrap().starts_with("locked: "));
    assert_eq!(reason(rig.sign(request(rig.decide(1, MESSAGE))).await), "Locked");
    let request = wire::GetKeyInfoRequest { path: TERMINAL_PATH.to_owned(), epoch: None };
    let info = rig.keys("terminal", "get_key_info").get_key_info(request).await.unwrap().into_inner();
    assert_eq!((info.state.as_str(), info.signing_key), ("locked", vec![]));
}

#[test]
fn when_the_boundary_ends_the_service_ends_with_its_own_code() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = run("service", folder.path(), Stdio::null());
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("the service did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(EXIT_BOUNDARY_GONE));
}

fn lose_the_boundary() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (boundary, socket) = boundary(1);
        let node = Node::start::<KeysService>(Some(socket), genesis_plan()).await;
        assert!(node.health().await.healthy);
        drop(boundary);
        tokio::time::sleep(LIMIT).await;
    });
    // Reached only if nothing noticed.
    std::process::exit(0);
}
