//! The contract of jobs: messages in, messages out.

use std::{fs::File, io::Read, sync::Arc, time::Duration};

use base::{Hash, IdentityId, JobId};
use contracts::process_manager::v1::{self as pb, jobs_server::Jobs};
use job::{Binding, JobState, VerificationResult};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::handlers::Handlers;
use crate::core::{
    JobRecord, ProcessError,
    limits::{CHUNK_BYTES_MAX, READER_WAIT_MAX},
};

/// Chunks under way to a reader, and the word that they are not all.
const CHUNKS_QUEUED: usize = 4 + 1;

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

/// Piece by piece, until all is handed out or the reader takes no more. No thread waits for one.
async fn hand_out(
    mut file: File,
    hash: Hash,
    to: mpsc::Sender<Result<pb::ImageChunk, Status>>,
    wait: Duration,
) {
    // Room for the word that it is not all.
    let Ok(end) = to.clone().reserve_owned().await else { return };
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let mut data = Vec::new();
            let read = file.by_ref().take(CHUNK_BYTES_MAX as u64).read_to_end(&mut data);
            (file, read.map(|_| data))
        });
        let Ok((rest, data)) = read.await else { return };
        file = rest;
        let chunk = match data {
            Ok(data) if data.is_empty() => return,
            Ok(data) => Ok(pb::ImageChunk { data }),
            Err(error) => Err(Status::internal(format!("reading {hash}: {error}"))),
        };
        let is_last = chunk.is_err();
        match to.send_timeout(chunk, wait).await {
            Ok(()) if is_last => return,
            Ok(()) => {}
            Err(_) => {
                let text = format!("nobody took the next piece for {} s", wait.as_secs());
                end.send(Err(Status::deadline_exceeded(text)));
                return;
            }
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
        let file = self.0.images.open(hash, false).await?;
        let (send, receive) = mpsc::channel(CHUNKS_QUEUED);
        tokio::spawn(hand_out(file, hash, send, READER_WAIT_MAX));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Three pieces, of which a queue of two holds the first.
    fn content() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * CHUNK_BYTES_MAX as u64 + 1).unwrap();
        file
    }

    #[tokio::test]
    async fn a_reader_who_does_not_read_is_given_up() {
        let (send, mut receive) = mpsc::channel(2);
        hand_out(content(), Hash::ZERO, send, Duration::from_millis(20)).await;
        let first = receive.recv().await.unwrap().unwrap();
        assert_eq!(first.data.len(), CHUNK_BYTES_MAX);
        let end = receive.recv().await.unwrap().unwrap_err();
        assert_eq!(end.code(), tonic::Code::DeadlineExceeded, "what is not all of it does not look like it");
        assert!(receive.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_reader_gets_all_of_it() {
        let (send, mut receive) = mpsc::channel(2);
        tokio::spawn(hand_out(content(), Hash::ZERO, send, READER_WAIT_MAX));
        let mut bytes = 0;
        while let Some(chunk) = receive.recv().await {
            bytes += chunk.unwrap().data.len();
        }
        assert_eq!(bytes, 2 * CHUNK_BYTES_MAX + 1);
    }
}
