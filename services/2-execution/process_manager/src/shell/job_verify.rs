//! Runs the job of a receipt again and compares (ACT-29): signature, inputs, environment, run, outputs. Nothing of it is
//! recorded or kept.

use std::{io::Read, sync::Arc};

use base::{Hash, IdentityId};
use job::{
    JobManifest, Receipt, VerificationResult, compare_outputs,
    limits::{MANIFEST_BYTES_MAX, RECEIPT_BYTES_MAX},
};
use kit::Requestor;
use tokio::sync::watch;
use tonic::Status;

use super::{
    job_sign::{environment, inputs},
    manager::Manager,
};
use crate::core::ProcessError;

impl Manager {
    /// The result, and words where they say more.
    pub(super) async fn verify_job(
        self: &Arc<Self>,
        bytes: &[u8],
        issuer: Option<IdentityId>,
        requestor: &Requestor,
    ) -> Result<(VerificationResult, String), Status> {
        self.ready().await?;
        if bytes.len() > RECEIPT_BYTES_MAX {
            let text = format!("{} bytes, at most {RECEIPT_BYTES_MAX} are allowed", bytes.len());
            return Err(ProcessError::invalid("receipt", text).into());
        }
        let receipt = Receipt::from_bytes(bytes)
            .map_err(|fault| ProcessError::invalid("receipt", fault.to_string()))?;
        let trusted = issuer.unwrap_or_else(|| self.node.identity());
        if let Err(fault) = receipt.check() {
            return Ok((VerificationResult::InvalidSignature, fault.to_string()));
        }
        if receipt.header.issuer != trusted {
            let text = format!("it was issued by {}, trusted is {trusted}", receipt.header.issuer);
            return Ok((VerificationResult::InvalidSignature, text));
        }
        let body = &receipt.body;
        let manifest = match self.content(body.environment.config_hash).await {
            Some(manifest) => manifest,
            None => return Ok(missing(vec![body.environment.config_hash])),
        };
        let named = [body.environment.image_hash].into_iter();
        let mut absent = Vec::new();
        for hash in named.chain(body.inputs.iter().map(|input| input.hash)) {
            if self.images.open(hash, false).await.is_err() {
                absent.push(hash);
            }
        }
        if !absent.is_empty() {
            return Ok(missing(absent));
        }
        let manifest = JobManifest::parse(&manifest)
            .map_err(|error| ProcessError::invalid("receipt", format!("its manifest: {error}")))?;
        let here = environment(&manifest, body.environment.config_hash);
        if here != body.environment || inputs(&manifest) != body.inputs {
            let kind = manifest.environment_type();
            let (expected, actual) = (body.environment.id(kind), here.id(kind));
            let text =
                format!("the receipt's is {:?}, this node's {:?}", body.environment.version, here.version);
            return Ok((VerificationResult::EnvironmentMismatch { expected, actual }, text));
        }
        let request = self.job_question(&manifest, requestor)?;
        // It runs a program: the decision stands on record, though nothing is changed by it.
        self.node.authority().evaluate(&request).await?;
        let _turn = Arc::clone(&self.jobs.turns).acquire_owned().await;
        // Nobody cancels it: who asked may go, and its wall time ends it.
        let (_cancel, mut cancelled) = watch::channel(false);
        let ran = match self.run_job(&manifest, false, &mut cancelled).await {
            Ok(ran) => ran,
            Err(error) => {
                let text = error.to_string();
                return Ok((VerificationResult::ExecutionFailed { error }, text));
            }
        };
        if !kit::is_broken("job-compare")
            && let Some(differs) = compare_outputs(&body.outputs, &ran.outputs)
        {
            return Ok((differs, String::new()));
        }
        let verified_at = self.node.clock().now().unwrap_or_default();
        let receipt_hash = receipt.header.receipt_hash;
        Ok((VerificationResult::Verified { receipt_hash, verified_at }, String::new()))
    }

    /// A manifest of the store.
    async fn content(&self, hash: Hash) -> Option<String> {
        let file = self.images.open(hash, false).await.ok()?;
        let mut text = String::new();
        file.take(MANIFEST_BYTES_MAX as u64).read_to_string(&mut text).ok()?;
        Some(text)
    }
}

fn missing(missing: Vec<Hash>) -> (VerificationResult, String) {
    (VerificationResult::InputNotFound { missing }, String::new())
}
