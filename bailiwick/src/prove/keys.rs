//! Section `keys`: what keys must not do, tried with decisions that policy really made.
//!
//! Each attack has one right refusal: another reason means that the defence meant for it is gone, even where a second one
//! still held.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use base::{Hash, KeyPath, PublicKey, Signature};
use contracts::{convert::bytes, keys::v1 as pb, policy::v1 as policy_pb};
use keys::core::{Purpose, SIGNED_BYTES_MAX};
use kit::CallError;
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use sim::Random;
use svid::{Certificate, P256Key, Subject, Token, TrustDomain};
use tonic::{Code, Status};

use super::{Context, Section, Site, hold_still};
use crate::node::{Node, failed, runtime};

/// Random messages that are no format.
const STRANGE_MESSAGES: u64 = 200;
/// How long a signature is waited for while nothing can be recorded; below what makes the supervisor lose patience.
const SILENCE: Duration = Duration::from_millis(1_500);
/// Axiom time, and some more: decisions live 30 s.
const EXPIRY: Duration = Duration::from_secs(31);
const EARLY: &[u8] = b"early";

/// A decision that is not redeemed before it has expired.
pub struct Early {
    decision: policy_pb::PolicyDecision,
    since: Instant,
}

impl Early {
    pub fn decided(context: &mut Context) -> Result<Self> {
        let node = context.site()?.node()?;
        let since = Instant::now();
        let own = node.admin_key_path()?.clone();
        let decision = runtime()?.block_on(decide(&node, &own, "sign", Hash::of(EARLY)))?;
        Ok(Self { decision, since })
    }
}

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("keys");
    let seed = context.seed;
    let early = context.early.take().context("no decision was made early")??;
    let site = context.site()?;
    let node = site.node()?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let own = node.admin_key_path()?.clone();
        let ssh = own.child(Purpose::Ssh.segment())?;
        let mut trial = Trial { node: &node, section: &mut section, on_record: 0 };
        let before = refusals(site)?;
        trial.formats(&ssh, seed).await?;
        trial.purposes(&own, &ssh).await?;
        trial.authorities(&own).await?;
        trial.decisions(&own, &ssh).await?;
        let (expected, found) = (trial.on_record, refusals(site)?.saturating_sub(before));
        trial.section.check(
            found == expected,
            format!("{expected} uses of keys were refused, {found} refusals are on record"),
        );
        trial.locked(site, &own).await?;
        trial.without_record(site, &own).await?;
        if trial.section.ok {
            let left = EXPIRY.saturating_sub(early.since.elapsed());
            if !left.is_zero() {
                eprintln!("prove: keys: waiting until a decision has expired …");
            }
            tokio::time::sleep(left).await;
            let late = trial.sign(&own, Hash::of(EARLY), early.decision).await;
            trial.refused(late, "DecisionExpired", "a decision was used after it had expired");
        }
        anyhow::Ok(())
    })?;
    Ok(section)
}

async fn decide(node: &Node, path: &KeyPath, kind: &str, message: Hash) -> Result<policy_pb::PolicyDecision> {
    let mut nonce = vec![0; base::Nonce::BYTES];
    getrandom::fill(&mut nonce).context("the kernel's random source")?;
    let message_hash = if kind == "sign" { message.0.to_vec() } else { Vec::new() };
    let request = policy_pb::PolicyRequest {
        requestor: node.admin().0.to_vec(),
        action: Some(policy_pb::Action {
            kind: kind.to_owned(),
            key_path: path.to_string(),
            message_hash,
            ..policy_pb::Action::default()
        }),
        resource: Some(policy_pb::ResourceRef { r#type: "key".to_owned(), id: path.to_string() }),
        nonce,
        ..policy_pb::PolicyRequest::default()
    };
    let mut policy = node.policy("system.policy.evaluate").await?;
    Ok(policy.evaluate(request).await.map_err(failed)?.into_inner())
}

/// Refused uses of keys in the log.
fn refusals(site: &Site) -> Result<u64> {
    let shown = site.json(&["log", "show", "0..", "--type", "KeyUsage"])?;
    let entries = shown.as_array().context("no entries")?;
    let refused = |entry: &&Value| entry.pointer("/body/refused").is_some_and(|why| !why.is_null());
    Ok(entries.iter().filter(refused).count() as u64)
}

/// One message in OpenSSH's format for signatures; see `ssh::signed`.
fn sshsig(namespace: &[u8], reserved: &[u8], algorithm: &[u8], hash: &[u8]) -> Vec<u8> {
    let mut out = b"SSHSIG".to_vec();
    [namespace, reserved, algorithm, hash].iter().for_each(|field| put(&mut out, field));
    out
}

/// A login as `ssh` has it signed.
fn login(session: usize, method: &[u8], key: &PublicKey) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, &vec![9; session]);
    out.push(50);
    [&b"root"[..], b"ssh-connection", method].iter().for_each(|field| put(&mut out, field));
    out.push(1);
    put(&mut out, ssh::ED25519.as_bytes());
    put(&mut out, &ssh::key_blob(key));
    out
}

fn put(out: &mut Vec<u8>, field: &[u8]) {
    out.extend(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(field);
}

/// Puts `CA:TRUE` into basic constraints that end at `end` and are empty, and lengthens all that is around them.
fn with_ca_true(good: &[u8], end: usize) -> Vec<u8> {
    let mut bad = good.to_vec();
    bad.splice(end..end, [1, 1, 0xff]);
    // Back from the end: the empty sequence, the string that holds it, its extension, all extensions, and their tag; and
    // the low byte of the whole's length.
    let around = [1, 3, 13, 15, 18].map(|back| end.saturating_sub(back));
    for at in around.into_iter().chain([3]) {
        if let Some(length) = bad.get_mut(at) {
            *length = length.wrapping_add(3);
        }
    }
    bad
}

struct Trial<'t> {
    node: &'t Node,
    section: &'t mut Section,
    /// Refusals that must be found in the log.
    on_record: u64,
}

type Answer<T> = Result<T, Status>;

impl Trial<'_> {
    /// Counts an attack, which must be refused for this reason.
    fn refused<T>(&mut self, answer: Answer<T>, reason: &str, what: &str) {
        self.section.count("attacks", 1);
        match answer {
            Ok(_) => self.section.miss(what),
            Err(status) => {
                let error = CallError::from(status);
                let found = error.reason();
                if found == reason {
                    self.section.count("refused", 1);
                } else {
                    self.section.miss(format!("{what}: refused as {found} and not as {reason}"));
                }
            }
        }
    }

    /// The same for what the log must know of.
    fn refused_on_record<T>(&mut self, answer: Answer<T>, reason: &str, what: &str) {
        self.on_record += 1;
        self.refused(answer, reason, what);
    }

    /// Policy allows the operator's own paths, so every decision here is a good one; how it is used is the attack.
    async fn decide(&self, path: &KeyPath, kind: &str, message: Hash) -> Result<policy_pb::PolicyDecision> {
        decide(self.node, path, kind, message).await
    }

    async fn sign(
        &self,
        path: &KeyPath,
        message: Hash,
        decision: policy_pb::PolicyDecision,
    ) -> Answer<pb::SignResponse> {
        let keys = self.node.keys("system.keys.sign").await;
        let mut keys = keys.map_err(|error| Status::new(Code::Unavailable, error.to_string()))?;
        let request = pb::SignRequest {
            key_path: path.to_string(),
            message: message.0.to_vec(),
            requestor: self.node.admin().0.to_vec(),
            authorization: Some(decision),
        };
        keys.sign(request).await.map(tonic::Response::into_inner)
    }

    async fn sign_bytes(
        &self,
        path: &KeyPath,
        message: &[u8],
        decision: policy_pb::PolicyDecision,
    ) -> Answer<pb::SignResponse> {
        let keys = self.node.keys("system.keys.sign_bytes").await;
        let mut keys = keys.map_err(|error| Status::new(Code::Unavailable, error.to_string()))?;
        let request = pb::SignBytesRequest {
            key_path: path.to_string(),
            message: message.to_vec(),
            requestor: self.node.admin().0.to_vec(),
            authorization: Some(decision),
        };
        keys.sign_bytes(request).await.map(tonic::Response::into_inner)
    }

    /// Asks for a decision for exactly these bytes, and for their signature.
    async fn bytes(&self, path: &KeyPath, message: &[u8]) -> Result<Answer<pb::SignResponse>> {
        let decision = self.decide(path, "sign", Hash::of(message)).await?;
        Ok(self.sign_bytes(path, message, decision).await)
    }

    /// What a key for ssh signs, and what it must not: everything else.
    async fn formats(&mut self, ssh: &KeyPath, seed: u64) -> Result<()> {
        let good = sshsig(b"git", b"", b"sha512", &[1; 64]);
        let signed = self.bytes(ssh, &good).await?;
        let signed = signed.map_err(failed).context("an ssh signature for git was refused")?;
        let key = PublicKey(bytes("public_key", &signed.public_key)?);
        let signature = Signature(bytes("signature", &signed.signature)?);
        self.section.check(keys::core::verify(&key, &good, &signature)?, "the signature does not verify");
        let let_in = self.bytes(ssh, &login(32, b"publickey", &key)).await?;
        self.section.check(let_in.is_ok(), format!("a login was refused: {:?}", let_in.err()));
        self.section.count("signatures", 2);

        let other = PublicKey([9; 32]);
        let mut attacks = vec![
            ("a signature for mail", sshsig(b"mail", b"", b"sha512", &[1; 64])),
            ("a signature for nothing", sshsig(b"", b"", b"sha512", &[1; 64])),
            ("a signature with a reserved field", sshsig(b"git", b"x", b"sha512", &[1; 64])),
            ("a signature of a SHA-1 hash", sshsig(b"git", b"", b"sha1", &[1; 20])),
            ("a signature of a short hash", sshsig(b"git", b"", b"sha512", &[1; 32])),
            ("a signature with something behind it", [&good[..], b"x"].concat()),
            ("a signature cut short", good.get(..good.len() - 1).unwrap_or_default().to_vec()),
            ("a login with another key", login(32, b"publickey", &other)),
            ("a login of a host", login(32, b"hostbased", &key)),
            ("a login without a session", login(0, b"publickey", &key)),
            ("a hash", vec![7; 32]),
            ("nothing", Vec::new()),
            ("a commit as it is", b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\nmessage\n".to_vec()),
            ("a web token", b"eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJyb290In0".to_vec()),
            ("a certificate", [&[0x30, 0x82, 1, 0x0a][..], &[0; 266]].concat()),
            ("as much as there may be", vec![b'S'; SIGNED_BYTES_MAX]),
        ];
        let mut random = Random::new(seed);
        for _ in 0..STRANGE_MESSAGES {
            let mut strange = good.clone();
            match random.below(3) {
                0 => strange.truncate(random.below(good.len() as u64) as usize),
                // A byte of the frame: magic, lengths and names, not the hash.
                1 => {
                    let at = random.below(good.len() as u64 - 64) as usize;
                    let change = u8::try_from(1 + random.below(255)).unwrap_or(1);
                    strange.get_mut(at).into_iter().for_each(|byte| *byte ^= change);
                }
                _ => strange = (0..random.below(200)).map(|_| random.below(256) as u8).collect(),
            }
            attacks.push(("bytes of no format", strange));
        }
        for (what, message) in attacks {
            let answer = self.bytes(ssh, &message).await?;
            self.refused_on_record(answer, "WrongPurpose", &format!("a key for ssh signed {what}"));
        }
        let long = self.bytes(ssh, &vec![b'S'; SIGNED_BYTES_MAX + 1]).await?;
        self.refused(long, "InvalidArgument", "a key for ssh signed more than the limit");
        Ok(())
    }

    /// Keys with a purpose and keys without one do not do each other's work.
    async fn purposes(&mut self, own: &KeyPath, ssh: &KeyPath) -> Result<()> {
        let good = sshsig(b"git", b"", b"sha512", &[1; 64]);
        let below = ssh.child("below")?;
        for (path, what) in [
            (own.clone(), "without a purpose"),
            (own.child("@x509")?, "for certificates"),
            (own.child("@jwt")?, "for web tokens"),
            (own.child("@other")?, "of an unknown purpose"),
            (below.clone(), "below a purpose"),
        ] {
            let answer = self.bytes(&path, &good).await?;
            self.refused_on_record(answer, "WrongPurpose", &format!("a key {what} signed bytes of ssh"));
        }
        for path in [ssh, &below, &own.child("@x509")?, &own.child("@jwt")?, &own.child("@other")?] {
            let hash = Hash::of(path.to_string().as_bytes());
            let decision = self.decide(path, "sign", hash).await?;
            let answer = self.sign(path, hash, decision).await;
            self.refused_on_record(answer, "WrongPurpose", &format!("{path} signed a hash"));
        }
        let requestor = self.node.admin().0.to_vec();
        let mut keys = self.node.keys("system.keys.encrypt").await?;
        let request = |key_path: &KeyPath, decision| pb::EncryptRequest {
            key_path: key_path.to_string(),
            plaintext: b"plain".to_vec(),
            requestor: requestor.clone(),
            authorization: Some(decision),
        };
        let decision = self.decide(ssh, "encrypt", Hash::ZERO).await?;
        let answer = keys.encrypt(request(ssh, decision)).await;
        self.refused_on_record(answer, "WrongPurpose", "a key for ssh encrypted");
        let decision = self.decide(own, "encrypt", Hash::ZERO).await?;
        let sealed = keys.encrypt(request(own, decision)).await.map_err(failed)?.into_inner().ciphertext;
        let mut keys = self.node.keys("system.keys.decrypt").await?;
        let authorization = Some(self.decide(ssh, "decrypt", Hash::ZERO).await?);
        let key_path = ssh.to_string();
        let request = pb::DecryptRequest { key_path, ciphertext: sealed, requestor, authorization };
        let answer = keys.decrypt(request).await;
        self.refused_on_record(answer, "WrongPurpose", "a key for ssh decrypted");
        Ok(())
    }

    /// An authority vouches for its own trust domain, makes nobody else an authority, and nothing that lasts.
    async fn authorities(&mut self, own: &KeyPath) -> Result<()> {
        let (home, other) = (TrustDomain::parse("home")?, TrustDomain::parse("elsewhere")?);
        let path = own.child(home.as_str())?.child(Purpose::X509.segment())?;
        let key = self.p256_key(&path).await?;
        let second = self.p256_key(&own.child("second")?.child(Purpose::X509.segment())?).await?;
        let workload = |domain: &TrustDomain| domain.member(&["services", "web"]).map(Subject::Workload);
        let certificate = |subject, key, lasts_s| Certificate {
            serial: svid::serial([1; svid::SERIAL_BYTES]),
            subject,
            key,
            not_before_s: 0,
            not_after_s: lasts_s,
        };
        let good = certificate(workload(&home)?, second, 3600).to_sign(&key)?;
        let signed = self.bytes(&path, &good).await?;
        let signed = signed.map_err(failed).context("a certificate for a workload was refused")?;
        let signature = Signature(bytes("signature", &signed.signature)?);
        self.section.check(key.verify(&good, &signature.0), "a certificate's signature does not verify");
        // As another authority would have them signed; this one's key id is in none.
        let authority_of_other =
            certificate(Subject::Authority(home.clone()), second, 3600).to_sign(&second)?;
        let of_other = certificate(workload(&other)?, second, 3600).to_sign(&key)?;
        let empty = [0x06, 3, 0x55, 0x1d, 0x13, 1, 1, 0xff, 4, 2, 0x30, 0];
        let at =
            good.windows(empty.len()).position(|window| window == empty).context("no basic constraints")?;
        let attacks = [
            ("a certificate that makes another key an authority", authority_of_other),
            ("a workload's certificate with CA:TRUE", with_ca_true(&good, at + empty.len())),
            ("a certificate for another trust domain", of_other),
            ("a certificate with something behind it", [&good[..], b"x"].concat()),
            (
                "a certificate about the authority itself as a workload",
                certificate(workload(&home)?, key, 3600).to_sign(&second)?,
            ),
            ("a hash", vec![7; 32]),
        ];
        for (what, message) in attacks {
            let answer = self.bytes(&path, &message).await?;
            self.refused_on_record(answer, "WrongPurpose", &format!("an authority signed {what}"));
        }
        let path = own.child(home.as_str())?.child(Purpose::Jwt.segment())?;
        let key = self.p256_key(&path).await?;
        let token = |domain: &TrustDomain, lasts_s| -> Result<Token> {
            let subject = domain.member(&["services", "web"])?;
            Ok(Token { subject, audience: vec!["db".to_owned()], expires_at_s: lasts_s, issued_at_s: 0 })
        };
        let good = token(&home, 300)?.to_sign(&key)?;
        let signed = self.bytes(&path, good.as_bytes()).await?;
        self.section.check(signed.is_ok(), format!("a token was refused: {:?}", signed.err()));
        self.section.count("signatures", 2);
        for (what, message) in [
            ("a token for another trust domain", token(&other, 300)?.to_sign(&key)?),
            ("a token of another key", token(&home, 300)?.to_sign(&second)?),
            ("a token with one more claim", format!("{good}LCJhZG1pbiI6dHJ1ZX0")),
        ] {
            let answer = self.bytes(&path, message.as_bytes()).await?;
            self.refused_on_record(answer, "WrongPurpose", &format!("an authority signed {what}"));
        }
        Ok(())
    }

    /// A locked node has no key, whatever policy decides; one who may unlocks it.
    async fn locked(&mut self, site: &Site, own: &KeyPath) -> Result<()> {
        let requestor = self.node.admin().0.to_vec();
        let key_path = own.to_string();
        let sealed = {
            let authorization = Some(self.decide(own, "encrypt", Hash::ZERO).await?);
            let (key_path, requestor, plaintext) = (key_path.clone(), requestor.clone(), b"plain".to_vec());
            let request = pb::EncryptRequest { key_path, plaintext, requestor, authorization };
            let mut keys = self.node.keys("system.keys.encrypt").await?;
            keys.encrypt(request).await.map_err(failed)?.into_inner().ciphertext
        };
        site.done(&["key", "lock", "--reason", "prove"])?;
        let hash = Hash::of(b"locked");
        let decision = self.decide(own, "sign", hash).await?;
        let answer = self.sign(own, hash, decision).await;
        self.refused(answer, "Locked", "a locked node signed");
        let authorization = Some(self.decide(own, "decrypt", Hash::ZERO).await?);
        let mut keys = self.node.keys("system.keys.decrypt").await?;
        let request =
            pb::DecryptRequest { key_path: key_path.clone(), ciphertext: sealed, requestor, authorization };
        let answer = keys.decrypt(request).await;
        self.refused(answer, "Locked", "a locked node decrypted");
        let mut keys = self.node.keys("system.keys.derive_public_key").await?;
        let answer = keys.derive_public_key(pb::DerivePublicKeyRequest { path: key_path, epoch: None }).await;
        self.refused(answer, "Locked", "a locked node derived a key");
        if self.section.ok {
            site.done(&["key", "unlock", "--reason", "prove"])?;
            let decision = self.decide(own, "sign", hash).await?;
            let answer = self.sign(own, hash, decision).await;
            self.section.check(answer.is_ok(), format!("an unlocked node does not sign: {:?}", answer.err()));
        }
        Ok(())
    }

    async fn p256_key(&self, path: &KeyPath) -> Result<P256Key> {
        let mut keys = self.node.keys("system.keys.derive_public_key").await?;
        let request = pb::DerivePublicKeyRequest { path: path.to_string(), epoch: None };
        let key = keys.derive_public_key(request).await.map_err(failed)?.into_inner().key;
        P256Key::from_bytes(&key).with_context(|| format!("the key of {path} is not on P-256"))
    }

    /// A decision is for one use, of one key, with one message, by one who asked.
    async fn decisions(&mut self, own: &KeyPath, ssh: &KeyPath) -> Result<()> {
        let good = sshsig(b"git", b"", b"sha512", &[1; 64]);
        let other = sshsig(b"git", b"", b"sha512", &[2; 64]);
        let second = own.child("second")?.child(Purpose::Ssh.segment())?;
        let decision = self.decide(ssh, "sign", Hash::of(&good)).await?;
        let answer = self.sign_bytes(ssh, &other, decision.clone()).await;
        self.refused_on_record(answer, "InvalidDecision", "a decision for one message signed another");
        let answer = self.sign_bytes(&second, &good, decision.clone()).await;
        self.refused_on_record(answer, "InvalidDecision", "a decision for one key used another");
        let mut altered = decision.clone();
        if let Some(byte) = altered.signed.last_mut() {
            *byte ^= 1;
        }
        let answer = self.sign_bytes(ssh, &good, altered).await;
        self.refused_on_record(answer, "InvalidDecision", "an altered decision was used");
        let bare = policy_pb::PolicyDecision::default();
        let answer = self.sign_bytes(ssh, &good, bare).await;
        self.refused_on_record(answer, "InvalidDecision", "a key was used without a decision");
        let encrypt = self.decide(ssh, "encrypt", Hash::ZERO).await?;
        let answer = self.sign_bytes(ssh, &good, encrypt).await;
        self.refused_on_record(answer, "InvalidDecision", "a decision to encrypt signed");
        if !self.section.ok {
            return Ok(());
        }
        // None of these has used it up.
        let first = self.sign_bytes(ssh, &good, decision.clone()).await;
        self.section.check(first.is_ok(), format!("the decision's own use failed: {:?}", first.err()));
        self.section.count("signatures", 1);
        let answer = self.sign_bytes(ssh, &good, decision).await;
        self.refused_on_record(answer, "InvalidDecision", "a decision was used twice");
        Ok(())
    }

    /// The log's writer is held still: nothing can be recorded, so nothing may be released.
    async fn without_record(&mut self, site: &Site, own: &KeyPath) -> Result<()> {
        let hash = Hash::of(b"unrecorded");
        let decision = self.decide(own, "sign", hash).await?;
        let pid = site.pid("axiom")?;
        hold_still(self.section, pid)?;
        let answer = tokio::time::timeout(SILENCE, self.sign(own, hash, decision.clone())).await;
        kill_process(pid, Signal::CONT).context("letting axiom go on")?;
        self.section.count("attacks", 1);
        match answer {
            Ok(Ok(_)) => self.section.miss("a signature was released before it was on record"),
            Ok(Err(_)) | Err(_) => self.section.count("refused", 1),
        }
        let answer = self.sign(own, hash, decision).await;
        self.refused(answer, "InvalidDecision", "a decision was used again after nothing had come of it");
        Ok(())
    }
}
