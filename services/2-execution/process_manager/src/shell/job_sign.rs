//! The receipt of a job: made here, signed by `keys` with this service's own key path, on a decision of its own (ACT-27).

use base::{Hash, KeyPath, PublicKey, Signature, TraceId, key_paths};
use contracts::{
    keys::v1::{SignRequest, keys_client::KeysClient},
    policy::v1::{
        self as wire, Action, PolicyContext, PolicyRequest, policy_engine_client::PolicyEngineClient,
    },
};
use job::{
    Binding, ENVIRONMENT_VERSION, EnvironmentBinding, JobError, JobManifest, Metrics, RECEIPT_VERSION,
    Receipt, ReceiptBody, ReceiptHeader, ReceiptSignature, ReceiptStatus, ReceiptType,
};
use kit::{OperationContext, Peer, client::Calls};
use tonic::Status;

use super::{job_run::Ran, jobs::Submitted, manager::Manager};

const SIGN_CAPABILITY: &str = "system.keys.sign";
const EVALUATE_CAPABILITY: &str = "system.policy.evaluate";
const SERVICE: &str = "process_manager";

/// What the receipt says a job was surrounded by.
pub(super) fn environment(manifest: &JobManifest, manifest_hash: Hash) -> EnvironmentBinding {
    EnvironmentBinding {
        image_hash: manifest.executable.hash,
        version: ENVIRONMENT_VERSION.to_owned(),
        config_hash: manifest_hash,
    }
}

pub(super) fn inputs(manifest: &JobManifest) -> Vec<Binding> {
    let binding =
        |input: &job::InputSpec| Binding { name: input.name.clone(), hash: input.hash, size: input.size };
    manifest.inputs.iter().map(binding).collect()
}

impl Manager {
    pub(super) async fn sign_receipt(&self, submitted: &Submitted, ran: Ran) -> Result<Receipt, JobError> {
        let Submitted { job, at, manifest, manifest_hash } = submitted;
        let usage = ran.usage;
        let body = ReceiptBody {
            axiom_entry: *at,
            action_id: *job,
            inputs: inputs(manifest),
            outputs: ran.outputs,
            environment: environment(manifest, *manifest_hash),
            metrics: Metrics {
                duration_ns: ran.duration_ns,
                cpu_time_ns: usage.cpu_time_ns,
                peak_memory_bytes: usage.memory_peak_bytes,
                io_bytes: usage.io_read_bytes.saturating_add(usage.io_write_bytes),
            },
            status: ReceiptStatus::Success,
            proof: None,
        };
        let receipt_type = ReceiptType::JobCompletion;
        let receipt_hash = body.receipt_hash(receipt_type);
        let unsigned = |status: Status| {
            JobError::EnvironmentError(format!("the receipt could not be signed: {}", status.message()))
        };
        let (public_key, signature) = self.sign(receipt_hash).await.map_err(unsigned)?;
        let created_at = self.node.clock().now();
        let created_at = created_at.ok_or_else(|| unsigned(Status::unavailable("the time is not known")))?;
        let header = ReceiptHeader {
            version: RECEIPT_VERSION,
            receipt_type,
            created_at,
            issuer: self.node.identity(),
            receipt_hash,
        };
        let receipt = Receipt { header, body, signature: ReceiptSignature { public_key, signature } };
        let held = receipt.check();
        held.map_err(|fault| JobError::EnvironmentError(format!("the receipt as signed: {fault}")))?;
        Ok(receipt)
    }

    fn calls(&self, peer: &Peer, capability: &str) -> Result<Calls, Status> {
        let trace = TraceId(kit::authority::random_16()?);
        let context = OperationContext::of_service(self.node.identity(), capability, trace);
        Ok(context.and_then(|context| peer.with(&context, None))?)
    }

    async fn sign(&self, message: Hash) -> Result<(PublicKey, Signature), Status> {
        let path = KeyPath::parse(&format!("{}/{SERVICE}", key_paths::SERVICES));
        let path = path.map_err(|error| Status::internal(error.to_string()))?;
        let requestor = self.node.identity().0.to_vec();
        let request = PolicyRequest {
            requestor: requestor.clone(),
            action: Some(Action {
                kind: "sign".to_owned(),
                key_path: path.to_string(),
                message_hash: message.0.to_vec(),
                ..Action::default()
            }),
            resource: Some(wire::ResourceRef { r#type: "key".to_owned(), id: path.to_string() }),
            context: Some(PolicyContext::default()),
            nonce: kit::authority::random_16()?.to_vec(),
            signature: Vec::new(),
        };
        let mut policy = PolicyEngineClient::new(self.calls(&self.jobs.policy, EVALUATE_CAPABILITY)?);
        let decision = policy.evaluate(request).await?.into_inner();
        if decision.effect() == wire::Effect::Deny {
            let sequence = decision.axiom_ref.map_or(0, |reference| reference.sequence);
            return Err(Status::permission_denied(format!("decision {sequence} refuses the key")));
        }
        let request = SignRequest {
            key_path: path.to_string(),
            message: message.0.to_vec(),
            requestor,
            authorization: Some(decision),
        };
        let mut keys = KeysClient::new(self.calls(&self.jobs.keys, SIGN_CAPABILITY)?);
        let signed = keys.sign(request).await?.into_inner();
        let (key, signature) =
            (PublicKey::from_slice(&signed.public_key), Signature::from_slice(&signed.signature));
        key.zip(signature).ok_or_else(|| Status::internal("`keys` gave no Ed25519 signature"))
    }
}
