//! The audit trail of a range of the log (ACT-33): for each entry whether its receipt holds, and one hash over all of it.

use base::{AxiomRef, Hash, IdentityId};
use serde::Serialize;

use crate::Receipt;

/// What a trail begins with, so that it is no hash of anything else.
const DOMAIN: &[u8] = b"bailiwick audit trail v1\0";

/// What was found of one entry's receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "result", content = "text")]
pub enum Outcome {
    Passed,
    /// It is not what it says.
    Failed(String),
    /// It could not be looked at.
    Error(String),
}

/// What the log says of a signed receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded<'a> {
    /// The entry that it closes, as the log has it.
    pub entry: AxiomRef,
    /// Who signs receipts on this node.
    pub issuer: IdentityId,
    /// Hash of the signed receipt's bytes.
    pub receipt: Hash,
    pub outputs: &'a [Hash],
}

impl Recorded<'_> {
    /// Whether these bytes are that receipt, signed by its issuer, over that entry and those outputs.
    #[must_use]
    pub fn check(&self, bytes: &[u8]) -> Outcome {
        let failed = |text: String| Outcome::Failed(text);
        let found = Hash::of(bytes);
        if found != self.receipt {
            return failed(format!("its content has the hash {found}, the log names {}", self.receipt));
        }
        let receipt = match Receipt::from_bytes(bytes) {
            Ok(receipt) => receipt,
            Err(fault) => return failed(fault.to_string()),
        };
        if let Err(fault) = receipt.check() {
            return failed(fault.to_string());
        }
        if receipt.header.issuer != self.issuer {
            return failed(format!("it was issued by {}, not by {}", receipt.header.issuer, self.issuer));
        }
        if receipt.body.axiom_entry != self.entry {
            return failed(format!("it is over the entry {}, not {}", receipt.body.axiom_entry, self.entry));
        }
        if !receipt.body.outputs.iter().map(|one| &one.hash).eq(self.outputs) {
            return failed("it has other outputs than the log".to_owned());
        }
        Outcome::Passed
    }
}

/// Grows by one entry after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditTrail {
    /// Over all before it, the entry's hash, the receipt's and what became of it. Equal logs with equal receipts, equal trails.
    pub hash: Hash,
    pub entries: u64,
    pub passed: u64,
    pub failed: u64,
    pub errors: u64,
}

impl Default for AuditTrail {
    fn default() -> Self {
        Self { hash: Hash::of(DOMAIN), entries: 0, passed: 0, failed: 0, errors: 0 }
    }
}

impl AuditTrail {
    /// One entry, with its receipts: none of most, one of an act that was carried out.
    pub fn add(&mut self, entry: &Hash, receipts: &[(Hash, Outcome)]) {
        self.entries = self.entries.saturating_add(1);
        self.chain(entry, &Hash::ZERO, 0);
        for (receipt, outcome) in receipts {
            let (count, number) = match outcome {
                Outcome::Passed => (&mut self.passed, 1),
                Outcome::Failed(_) => (&mut self.failed, 2),
                Outcome::Error(_) => (&mut self.errors, 3),
            };
            *count = count.saturating_add(1);
            self.chain(entry, receipt, number);
        }
    }

    fn chain(&mut self, entry: &Hash, receipt: &Hash, outcome: u8) {
        self.hash = Hash::of_parts(&[DOMAIN, &self.hash.0, &entry.0, &receipt.0, &[outcome]]);
    }
}

#[cfg(test)]
mod tests {
    use base::{AxiomTime, JobId, PublicKey, Sequence, Signature};
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;
    use crate::{
        Binding, EnvironmentBinding, Metrics, RECEIPT_VERSION, ReceiptBody, ReceiptHeader, ReceiptSignature,
        ReceiptStatus, ReceiptType,
    };

    fn entry(n: u64) -> AxiomRef {
        AxiomRef { sequence: Sequence(n), hash: Hash::of(&n.to_be_bytes()) }
    }

    fn signed(change: impl FnOnce(&mut ReceiptBody)) -> Receipt {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public_key = PublicKey(key.verifying_key().to_bytes());
        let mut body = ReceiptBody {
            axiom_entry: entry(4),
            action_id: JobId([1; 16]),
            inputs: vec![],
            outputs: vec![Binding { name: "out".into(), hash: Hash::of(b"out"), size: 3 }],
            environment: EnvironmentBinding {
                image_hash: Hash::ZERO,
                version: "1".into(),
                config_hash: Hash::ZERO,
            },
            metrics: Metrics::default(),
            status: ReceiptStatus::Success,
            proof: None,
        };
        change(&mut body);
        let receipt_type = ReceiptType::JobCompletion;
        let receipt_hash = body.receipt_hash(receipt_type);
        let signature = Signature(key.sign(receipt_hash.as_bytes()).to_bytes());
        let header = ReceiptHeader {
            version: RECEIPT_VERSION,
            receipt_type,
            created_at: AxiomTime(9),
            issuer: IdentityId::of_key(&public_key),
            receipt_hash,
        };
        Receipt { header, body, signature: ReceiptSignature { public_key, signature } }
    }

    #[test]
    fn a_signed_receipt_is_over_the_entry_and_the_outputs_that_the_log_has() {
        let outputs = [Hash::of(b"out")];
        let issuer = signed(|_| {}).header.issuer;
        let check = |receipt: &Receipt, change: &dyn Fn(&mut Recorded<'_>)| {
            let bytes = receipt.to_bytes();
            let mut recorded =
                Recorded { entry: entry(4), issuer, receipt: Hash::of(&bytes), outputs: &outputs };
            change(&mut recorded);
            match recorded.check(&bytes) {
                Outcome::Passed => String::new(),
                Outcome::Failed(text) => text,
                other @ Outcome::Error(_) => panic!("{other:?}"),
            }
        };
        let good = signed(|_| {});
        assert_eq!(check(&good, &|_| {}), "");
        assert!(check(&good, &|recorded| recorded.receipt = Hash::ZERO).contains("the log names"));
        assert!(check(&good, &|recorded| recorded.issuer = IdentityId([1; 32])).contains("it was issued by"));
        assert!(check(&good, &|recorded| recorded.entry = entry(5)).contains("it is over the entry"));
        assert!(check(&good, &|recorded| recorded.outputs = &[]).contains("other outputs"));
        let mut altered = signed(|_| {});
        altered.body.outputs.clear();
        assert!(check(&altered, &|_| {}).contains("something in it was changed"));
        let bytes = b"no receipt";
        let recorded = Recorded { entry: entry(4), issuer, receipt: Hash::of(bytes), outputs: &outputs };
        assert!(matches!(recorded.check(bytes), Outcome::Failed(_)));
    }

    /// `docs/format.md`.
    #[test]
    fn a_trail_is_the_published_one() {
        let hex = |trail: &AuditTrail| trail.hash.to_hex();
        let mut trail = AuditTrail::default();
        assert_eq!(hex(&trail), "942e462515ffe33c630765677e234d5e901998c05d2fe92992aa59890c8dd437");
        let entry = Hash::of(b"entry");
        let mut alone = trail.clone();
        alone.add(&entry, &[]);
        assert_eq!(hex(&alone), "889c2f6e40b146f9abb6711c5808c2c1881ae7c0e49be7f3a5ebc11ac53a6580");
        trail.add(&entry, &[(Hash::of(b"receipt"), Outcome::Passed)]);
        assert_eq!(hex(&trail), "3d28ddeecfae2e6f30fd103c5bbe177b2c226f8c9dd986d355932018b8d7cb16");
    }

    /// covers: ACT-33
    #[test]
    fn a_trail_is_over_each_entry_its_receipt_and_what_became_of_it_in_their_order() {
        let (passed, failed) = (Outcome::Passed, Outcome::Failed("x".into()));
        let error = Outcome::Error("x".into());
        let receipt = |n: u8, outcome: &Outcome| (Hash([n; 32]), outcome.clone());
        let trail = |entries: &[(u64, Vec<(Hash, Outcome)>)]| {
            let mut trail = AuditTrail::default();
            entries.iter().for_each(|(n, receipts)| trail.add(&entry(*n).hash, receipts));
            trail
        };
        let whole =
            [(0, vec![]), (1, vec![receipt(1, &passed)]), (2, vec![receipt(2, &failed), receipt(3, &error)])];
        let all = trail(&whole);
        assert_eq!((all.entries, all.passed, all.failed, all.errors), (3, 1, 1, 1));
        assert_eq!(trail(&whole), all);
        // Each of these is another trail.
        let others = [
            trail(&whole[1..]),
            trail(&whole[..2]),
            trail(&[whole[1].clone(), whole[0].clone(), whole[2].clone()]),
            trail(&[(0, vec![]), (7, vec![receipt(1, &passed)]), whole[2].clone()]),
            trail(&[(0, vec![]), (1, vec![receipt(9, &passed)]), whole[2].clone()]),
            trail(&[(0, vec![]), (1, vec![receipt(1, &failed)]), whole[2].clone()]),
            trail(&[(0, vec![receipt(1, &passed)]), (1, vec![]), whole[2].clone()]),
            AuditTrail::default(),
        ];
        let mut hashes: Vec<Hash> = others.iter().map(|other| other.hash).chain([all.hash]).collect();
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }
}
