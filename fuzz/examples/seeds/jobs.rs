use base::{AxiomRef, AxiomTime, Hash, IdentityId, JobId, PublicKey, Sequence, Signature};
use ed25519_dalek::{Signer, SigningKey};
use job::{
    Binding, EnvironmentBinding, JobManifest, Metrics, Proof, RECEIPT_VERSION, Receipt, ReceiptBody,
    ReceiptHeader, ReceiptSignature, ReceiptStatus, ReceiptType,
};

use crate::{Seeds, chosen};

const MANIFEST: &str = r#"version = 1
name = "word-count"
[executable]
exec_type = "NativeBinary"
hash = "blake3:0000000000000000000000000000000000000000000000000000000000000000"
entry_point = "wc"
args = ["/in/text"]
[environment]
memory_limit = 67108864
[resources]
wall_limit = 5000
[determinism]
is_deterministic = true
concurrency = { ForkJoin = { max_threads = 4 } }
floating_point = "NoFloatingPoint"
constraints = ["no floats"]
clock_ns = 1700000000000000000
random_seed = "0101010101010101010101010101010101010101010101010101010101010101"
[[inputs]]
name = "text"
hash = "blake3:1111111111111111111111111111111111111111111111111111111111111111"
input_type = { Structured = { schema = "text/plain" } }
size = 12
mount = "/in/text"
[[outputs]]
name = "count"
path = "/out/count"
"#;

fn receipt(status: ReceiptStatus, proof: Option<Proof>) -> Vec<u8> {
    let key = SigningKey::from_bytes(&[7; 32]);
    let public_key = PublicKey(key.verifying_key().to_bytes());
    let binding = |name: &str| Binding { name: name.to_owned(), hash: Hash::of(name.as_bytes()), size: 4 };
    let body = ReceiptBody {
        axiom_entry: AxiomRef { sequence: Sequence(7), hash: Hash::of(b"entry") },
        action_id: JobId([1; 16]),
        inputs: vec![binding("text")],
        outputs: vec![binding("count")],
        environment: EnvironmentBinding {
            image_hash: Hash::of(b"image"),
            version: "v".to_owned(),
            config_hash: JobManifest::hash(MANIFEST),
        },
        metrics: Metrics { duration_ns: 5, cpu_time_ns: 4, peak_memory_bytes: 3, io_bytes: 2 },
        status,
        proof,
    };
    let receipt_hash = body.receipt_hash(ReceiptType::JobCompletion);
    let header = ReceiptHeader {
        version: RECEIPT_VERSION,
        receipt_type: ReceiptType::JobCompletion,
        created_at: AxiomTime(9),
        issuer: IdentityId::of_key(&public_key),
        receipt_hash,
    };
    let signature = Signature(key.sign(receipt_hash.as_bytes()).to_bytes());
    Receipt { header, body, signature: ReceiptSignature { public_key, signature } }.to_bytes()
}

pub(crate) fn all() -> Seeds {
    let proof =
        Proof::MultiParty { verifiers: vec![PublicKey([3; 32])], signatures: vec![None], threshold: 0 };
    vec![
        chosen("manifest", 0, MANIFEST.as_bytes()),
        chosen("receipt", 1, &receipt(ReceiptStatus::Success, None)),
        chosen("failed", 1, &receipt(ReceiptStatus::Failed { exit_code: -9 }, Some(proof))),
    ]
}
