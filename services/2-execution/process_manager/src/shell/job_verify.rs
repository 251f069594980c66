//! Runs the job of a receipt again and compares (ACT-29): signature, inputs, environment, run, outputs. Nothing of it is
//! recorded or kept.

use std::{future::Future, io::Read, sync::Arc, time::Duration};

use base::{Hash, IdentityId};
use job::{
    JobError, JobManifest, Receipt, VerificationResult, compare_outputs,
    limits::{MANIFEST_BYTES_MAX, RECEIPT_BYTES_MAX},
};
use kit::Requestor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;

use super::{
    job_sign::{environment, inputs},
    manager::Manager,
};
use crate::core::{ProcessError, limits::VERIFY_MARGIN};

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
        // Who may not has no turn kept for them.
        self.node.authority().preflight(&request).await?;
        let bound = bound(&manifest);
        let _turn = turn(&self.jobs.turns, bound).await?;
        // It runs a program: the decision stands on record, though nothing is changed by it.
        self.node.authority().evaluate(&request).await?;
        let (cancel, mut cancelled) = watch::channel(false);
        // Who asked may go: its wall time ends it, and where that fails this does.
        let run = self.run_job(&manifest, false, &mut cancelled);
        let ran = match end_within(run, bound, &cancel).await {
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

/// As long as the job itself may take, and a margin.
fn bound(manifest: &JobManifest) -> Duration {
    Duration::from_millis(manifest.resources.wall_limit).saturating_add(VERIFY_MARGIN)
}

async fn turn(turns: &Arc<Semaphore>, bound: Duration) -> Result<OwnedSemaphorePermit, ProcessError> {
    let waited_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
    match tokio::time::timeout(bound, Arc::clone(turns).acquire_owned()).await {
        Ok(turn) => turn.map_err(|error| ProcessError::Internal(error.to_string())),
        Err(_) => Err(ProcessError::NoTurn { waited_ms }),
    }
}

/// Cancels a run that its own limit has not ended, and lets it clean up.
async fn end_within<T>(
    run: impl Future<Output = Result<T, JobError>>,
    bound: Duration,
    cancel: &watch::Sender<bool>,
) -> Result<T, JobError> {
    let mut run = std::pin::pin!(run);
    match tokio::time::timeout(bound, &mut run).await {
        Ok(ran) => ran,
        Err(_) => {
            cancel.send_replace(true);
            // It ended by itself at the last moment, or as one that took too long.
            run.await.map_err(|error| if error == JobError::Cancelled { JobError::Timeout } else { error })
        }
    }
}

fn missing(missing: Vec<Hash>) -> (VerificationResult, String) {
    (VerificationResult::InputNotFound { missing }, String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_turn_that_does_not_come_is_not_waited_for() {
        let turns = Arc::new(Semaphore::new(1));
        let taken = turn(&turns, SHORT).await.unwrap();
        assert_eq!(turn(&turns, SHORT).await.unwrap_err(), ProcessError::NoTurn { waited_ms: 20 });
        drop(taken);
        assert!(turn(&turns, SHORT).await.is_ok());
    }

    #[tokio::test]
    async fn a_run_that_does_not_end_is_cancelled_and_has_taken_too_long() {
        let (cancel, mut cancelled) = watch::channel(false);
        let run = async {
            super::super::job_run::asked(&mut cancelled).await;
            Err::<(), _>(JobError::Cancelled)
        };
        assert_eq!(end_within(run, SHORT, &cancel).await, Err(JobError::Timeout));
        let other = async { Err::<(), _>(JobError::ResourceExceeded("memory".to_owned())) };
        let memory = JobError::ResourceExceeded("memory".to_owned());
        assert_eq!(end_within(other, SHORT, &cancel).await, Err(memory));
    }
}
