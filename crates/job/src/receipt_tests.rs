use super::*;
use base::Sequence;
use ed25519_dalek::{Signer, SigningKey};

fn key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

fn public(byte: u8) -> PublicKey {
    PublicKey(key(byte).verifying_key().to_bytes())
}

fn sign(byte: u8, hash: &Hash) -> Signature {
    Signature(key(byte).sign(hash.as_bytes()).to_bytes())
}

fn binding(name: &str, content: &[u8]) -> Binding {
    Binding { name: name.to_owned(), hash: Hash::of(content), size: content.len() as u64 }
}

/// The vector of `docs/format.md`.
fn receipt() -> Receipt {
    let body = ReceiptBody {
        axiom_entry: AxiomRef { sequence: Sequence(7), hash: Hash::of(b"entry") },
        action_id: JobId([1; 16]),
        inputs: vec![binding("text", b"in")],
        outputs: vec![binding("count", b"out")],
        environment: EnvironmentBinding {
            image_hash: Hash::of(b"image"),
            version: "v".to_owned(),
            config_hash: Hash::of(b"manifest"),
        },
        metrics: Metrics { duration_ns: 5, cpu_time_ns: 4, peak_memory_bytes: 3, io_bytes: 2 },
        status: ReceiptStatus::Success,
        proof: None,
    };
    let receipt_hash = body.receipt_hash(ReceiptType::JobCompletion);
    Receipt {
        header: ReceiptHeader {
            version: RECEIPT_VERSION,
            receipt_type: ReceiptType::JobCompletion,
            created_at: AxiomTime(9),
            issuer: IdentityId::of_key(&public(7)),
            receipt_hash,
        },
        body,
        signature: ReceiptSignature { public_key: public(7), signature: sign(7, &receipt_hash) },
    }
}

/// covers: ACT-21, ACT-22, ACT-23, ACT-24, ACT-25
#[test]
fn a_receipt_has_the_bytes_of_the_vector_and_holds() {
    let receipt = receipt();
    receipt.check().unwrap();
    let bytes = receipt.to_bytes();
    assert_eq!(Receipt::from_bytes(&bytes).unwrap(), receipt);
    assert_eq!(
        (receipt.header.receipt_hash.to_string().as_str(), Hash::of(&bytes).to_string().as_str()),
        (
            "blake3:2006ec4e0842bcf8bc586dd61a2badea5aee6025fa1368a20a5fd13d465fcb74",
            "blake3:51cce96df2272b43661522620e03502fd8ae4f30ca961f708e641f3c63a9f06d"
        )
    );
    for status in [ReceiptStatus::Failed { exit_code: -9 }, ReceiptStatus::Timeout, ReceiptStatus::Cancelled]
    {
        let mut other = receipt.clone();
        other.body.status = status;
        assert_eq!(Receipt::from_bytes(&other.to_bytes()).unwrap(), other);
    }
}

/// covers: ACT-26
#[test]
fn the_hash_covers_all_but_time_metrics_and_proof() {
    let original = receipt();
    let changed = |change: &dyn Fn(&mut Receipt)| {
        let mut other = original.clone();
        change(&mut other);
        assert_ne!(other, original);
        other.check()
    };
    assert_eq!(changed(&|r| r.header.created_at = AxiomTime(10)), Ok(()));
    assert_eq!(changed(&|r| r.body.metrics.duration_ns += 1), Ok(()));
    let covered: [&dyn Fn(&mut Receipt); 11] = [
        &|r| r.header.receipt_type = ReceiptType::Aggregate,
        &|r| r.body.axiom_entry.sequence = Sequence(8),
        &|r| r.body.action_id = JobId([2; 16]),
        &|r| r.body.inputs[0].hash = Hash::ZERO,
        &|r| r.body.inputs[0].name.push('x'),
        &|r| r.body.outputs[0].hash = Hash::ZERO,
        &|r| r.body.outputs[0].size += 1,
        &|r| r.body.environment.image_hash = Hash::ZERO,
        &|r| r.body.environment.version.push('x'),
        &|r| r.body.environment.config_hash = Hash::ZERO,
        &|r| r.body.status = ReceiptStatus::Timeout,
    ];
    for (at, change) in covered.into_iter().enumerate() {
        assert!(matches!(changed(change), Err(ReceiptFault::Hash { .. })), "change {at}");
    }
    // Whoever changes the hash too has no signature for it.
    let forged = changed(&|r| {
        r.body.outputs[0].hash = Hash::ZERO;
        r.header.receipt_hash = r.body.receipt_hash(r.header.receipt_type);
    });
    assert_eq!(forged, Err(ReceiptFault::Signature));
    // Nor does a key of one's own make one the issuer.
    let own = changed(&|r| {
        r.signature = ReceiptSignature { public_key: public(8), signature: sign(8, &r.header.receipt_hash) };
    });
    assert_eq!(own, Err(ReceiptFault::Issuer { issuer: original.header.issuer }));
}

#[test]
fn what_is_too_large_or_of_another_version_is_refused() {
    let mut newer = receipt();
    newer.header.version = 2;
    assert_eq!(Receipt::from_bytes(&newer.to_bytes()), Err(ReceiptFault::Version(2)));
    let long = vec![0; RECEIPT_BYTES_MAX + 1];
    assert_eq!(Receipt::from_bytes(&long), Err(ReceiptFault::TooLarge(RECEIPT_BYTES_MAX + 1)));
    assert!(matches!(Receipt::from_bytes(&long[1..]), Err(ReceiptFault::Malformed(_))));
    let mut many = receipt();
    many.body.outputs = vec![binding("o", b"o"); OUTPUTS_MAX];
    many.body.inputs = vec![binding("i", b"i"); INPUTS_MAX];
    assert!(Receipt::from_bytes(&many.to_bytes()).is_ok());
    many.body.outputs.push(binding("o", b"o"));
    assert_eq!(Receipt::from_bytes(&many.to_bytes()), Err(ReceiptFault::Bindings(OUTPUTS_MAX + 1)));
}

/// covers: ACT-35
#[test]
fn a_proof_by_several_needs_as_many_as_it_says() {
    let hash = receipt().header.receipt_hash;
    let with = |verifiers: &[u8], signed: &[Option<u8>], threshold| {
        let mut receipt = receipt();
        receipt.body.proof = Some(Proof::MultiParty {
            verifiers: verifiers.iter().map(|byte| public(*byte)).collect(),
            signatures: signed.iter().map(|byte| byte.map(|byte| sign(byte, &hash))).collect(),
            threshold,
        });
        assert_eq!(Receipt::from_bytes(&receipt.to_bytes()).unwrap(), receipt);
        receipt.check()
    };
    assert_eq!(with(&[1, 2, 3], &[Some(1), None, Some(3)], 2), Ok(()));
    let all: Vec<u8> = (0..VERIFIERS_MAX as u8 + 1).collect();
    let signed: Vec<Option<u8>> = all.iter().map(|byte| Some(*byte)).collect();
    assert_eq!(with(&all[1..], &signed[1..], 2), Ok(()));
    for (verifiers, signed, threshold) in [
        (&[1, 2, 3][..], &[Some(1), None, None][..], 2),
        (&[1, 2], &[Some(1), Some(1)], 2),
        (&[1, 1], &[Some(1), Some(1)], 2),
        (&[1, 2], &[Some(1)], 1),
        (&[1], &[None], 0),
        (&all, &signed, 1),
    ] {
        assert!(matches!(with(verifiers, signed, threshold), Err(ReceiptFault::Proof(_))), "{verifiers:?}");
    }
}
