//! The contract of jobs: messages in, messages out.

use std::{io::Read, sync::Arc};

use base::{Hash, IdentityId, JobId};
use contracts::process_manager::v1::{self as pb, jobs_server::Jobs};
use job::{Binding, JobState, VerificationResult};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::handlers::Handlers;
use crate::core::{JobRecord, ProcessError, limits::CHUNK_BYTES_MAX};

/// Chunks under way to a reader.
const CHUNKS_QUEUED: usize = 4;

fn id(bytes: &[u8]) -> Result<JobId, ProcessError> {
    JobId::from_slice(bytes)
        .ok_or_else(|| ProcessError::invalid("job", format!("not {} bytes", JobId::BYTES)))
}

fn bindings(of: &[Binding]) -> Vec<pb::JobBinding> {
    let binding = |binding: &Binding| pb::JobBinding {
        name: binding.name.clone(),
        hash: binding.hash.0.to_vec(),
        size_bytes: binding.size,
    };
    of.iter().map(binding).collect()
}

impl Handlers {
    fn describe_job(&self, record: &JobRecord) -> pb::JobInfo {
        let (state, progress) = self.0.jobs.state_of(record);
        let (error, error_text) = record.error.clone().unwrap_or_default();
        let outputs = record.outputs.iter().map(|output| pb::JobBinding {
            name: output.name.clone(),
            hash: output.hash.0.to_vec(),
            size_bytes: output.size_bytes,
        });
        pb::JobInfo {
            job: record.submit.job.0.to_vec(),
            name: record.submit.name.clone(),
            state: state.name().to_owned(),
            progress: progress.to_owned(),
            manifest: record.submit.manifest.0.to_vec(),
            by: record.submit.by.0.to_vec(),
            axiom_ref: Some(record.at.into()),
            outputs: outputs.collect(),
            error,
            error_text,
            receipt: record.receipt.map(|hash| hash.0.to_vec()).unwrap_or_default(),
        }
    }
}

#[tonic::async_trait]
impl Jobs for Handlers {
    async fn submit(
        &self,
        request: Request<pb::SubmitJobRequest>,
    ) -> Result<Response<pb::SubmitJobReply>, Status> {
        let (requestor, _) = self.requestor(&request)?;
        let pb::SubmitJobRequest { manifest, idempotency_key } = request.into_inner();
        let key: [u8; 16] = idempotency_key
            .try_into()
            .map_err(|_| ProcessError::invalid("idempotency_key", "it is missing or has not 16 bytes"))?;
        let manager = Arc::clone(&self.0);
        // From commit to the start of its work nothing may cut it.
        let submit = async move { manager.submit(manifest, key, requestor).await };
        let (job, at) = kit::uncancelled(submit).await?;
        Ok(Response::new(pb::SubmitJobReply { job: job.0.to_vec(), axiom_ref: Some(at.into()) }))
    }

    async fn get(&self, request: Request<pb::JobRef>) -> Result<Response<pb::JobInfo>, Status> {
        let (_, viewer) = self.requestor(&request)?;
        self.0.ready().await?;
        let record = self.0.find_job(id(&request.get_ref().job)?, viewer)?;
        Ok(Response::new(self.describe_job(&record)))
    }

    async fn watch(&self, request: Request<pb::WatchJobRequest>) -> Result<Response<pb::JobInfo>, Status> {
        let (_, viewer) = self.requestor(&request)?;
        let pb::WatchJobRequest { job, than, than_progress } = request.into_inner();
        let job = id(&job)?;
        self.0.ready().await?;
        let mut told = self.0.jobs.subscribe();
        loop {
            told.borrow_and_update();
            let record = self.0.find_job(job, viewer)?;
            let info = self.describe_job(&record);
            if info.state != than || info.progress != than_progress || record.state.is_final() {
                return Ok(Response::new(info));
            }
            if told.changed().await.is_err() {
                return Err(ProcessError::NoSuchJob(job).into());
            }
        }
    }

    async fn list_jobs(&self, request: Request<pb::JobFilter>) -> Result<Response<pb::JobList>, Status> {
        let (_, viewer) = self.requestor(&request)?;
        let wanted = request.into_inner().state;
        if !wanted.is_empty() && !JobState::ALL.iter().any(|state| state.name() == wanted) {
            return Err(ProcessError::invalid("state", format!("there is no state {wanted:?}")).into());
        }
        self.0.ready().await?;
        let records: Vec<JobRecord> =
            self.0.state().jobs.all().filter(|record| record.is_seen_by(viewer)).cloned().collect();
        let jobs = records.iter().map(|record| self.describe_job(record));
        let jobs = jobs.filter(|info| wanted.is_empty() || info.state == wanted).collect();
        Ok(Response::new(pb::JobList { jobs }))
    }

    async fn cancel(
        &self,
        request: Request<pb::CancelJobRequest>,
    ) -> Result<Response<pb::CancelJobReply>, Status> {
        let (requestor, viewer) = self.requestor(&request)?;
        let pb::CancelJobRequest { job, reason } = request.into_inner();
        let (job, manager) = (id(&job)?, Arc::clone(&self.0));
        let cancel = async move { manager.cancel_job(job, reason, requestor, viewer).await };
        let at = kit::uncancelled(cancel).await?;
        Ok(Response::new(pb::CancelJobReply { axiom_ref: Some(at.into()) }))
    }

    type FetchStream = ReceiverStream<Result<pb::ImageChunk, Status>>;

    async fn fetch(&self, request: Request<pb::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let (_, viewer) = self.requestor(&request)?;
        let pb::FetchRequest { job, hash } = request.into_inner();
        let hash = Hash::from_slice(&hash)
            .ok_or_else(|| ProcessError::invalid("hash", "it has not 32 bytes".to_owned()))?;
        self.0.ready().await?;
        let record = self.0.find_job(id(&job)?, viewer)?;
        // A hash alone opens nothing: the job must name it.
        if !record.names(&hash) {
            return Err(ProcessError::ImageNotFound(hash).into());
        }
        let mut file = self.0.images.open(hash, false).await?;
        let (send, receive) = mpsc::channel(CHUNKS_QUEUED);
        tokio::task::spawn_blocking(move || {
            loop {
                let mut data = Vec::new();
                let read = file.by_ref().take(CHUNK_BYTES_MAX as u64).read_to_end(&mut data);
                let chunk = match read {
                    Ok(0) => return,
                    Ok(_) => Ok(pb::ImageChunk { data }),
                    Err(error) => Err(Status::internal(format!("reading {hash}: {error}"))),
                };
                let is_last = chunk.is_err();
                if send.blocking_send(chunk).is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn verify(
        &self,
        request: Request<pb::VerifyJobRequest>,
    ) -> Result<Response<pb::VerifyJobReply>, Status> {
        let (requestor, _) = self.requestor(&request)?;
        let pb::VerifyJobRequest { receipt, issuer } = request.into_inner();
        let issuer = match issuer.as_slice() {
            [] => None,
            bytes => Some(
                IdentityId::from_slice(bytes)
                    .ok_or_else(|| ProcessError::invalid("issuer", "it has not 32 bytes"))?,
            ),
        };
        let manager = Arc::clone(&self.0);
        let verify = async move { manager.verify_job(&receipt, issuer, &requestor).await };
        let (result, error) = kit::uncancelled(verify).await?;
        let mut reply = pb::VerifyJobReply { error, ..pb::VerifyJobReply::default() };
        reply.result = match result {
            VerificationResult::Verified { receipt_hash, verified_at } => {
                (reply.receipt_hash, reply.verified_at_ns) = (receipt_hash.0.to_vec(), verified_at.0);
                "verified"
            }
            VerificationResult::OutputMismatch { expected, actual } => {
                (reply.expected, reply.actual) = (bindings(&expected), bindings(&actual));
                "output_mismatch"
            }
            VerificationResult::InputNotFound { missing } => {
                reply.missing = missing.iter().map(|hash| hash.0.to_vec()).collect();
                "input_not_found"
            }
            VerificationResult::EnvironmentMismatch { expected, actual } => {
                reply.expected_environment = expected.0.to_vec();
                reply.actual_environment = actual.0.to_vec();
                "environment_mismatch"
            }
            VerificationResult::InvalidSignature => "invalid_signature",
            VerificationResult::ExecutionFailed { .. } => "execution_failed",
        }
        .to_owned();
        Ok(Response::new(reply))
    }
}
