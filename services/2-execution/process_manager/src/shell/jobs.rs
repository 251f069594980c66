//! Jobs from their submission to their receipt, in the order of the log: submit, start, complete, receipt (ACT-49).

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base::{AxiomRef, EntryKey, Hash, JobId};
use chain::payload::{
    Body, Receipt as ReceiptEntry, ReceiptStatus,
    job::{JobComplete, JobFailed, JobOutput, JobStart, JobSubmit},
    policy::{PolicyAction, PolicyRequest, ResourceRef, ResourceType},
};
use job::{JobError, JobManifest, JobState, Receipt, compare_outputs};
use kit::{Node, Peer, Requestor, authority::Entry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;

use super::{
    job_run::{Ran, asked},
    manager::Manager,
};
use crate::core::{
    JobRecord, ProcessError, Viewer, job_id,
    limits::{JOBS_AT_ONCE, JOBS_OPEN_MAX, REASON_BYTES_MAX},
};

/// How long an end waits to be folded here before whoever watches is told without it.
const FOLD_WAITS_MAX: usize = 20;

/// What is going on with a job that is not over.
#[derive(Debug)]
pub(super) struct Live {
    /// Where the log says no more than `Submitted`.
    state: JobState,
    progress: &'static str,
    cancel: watch::Sender<bool>,
}

/// What jobs need besides what programs need.
pub(super) struct Jobs {
    /// Where runs write, one folder each.
    pub(super) runs: PathBuf,
    live: Mutex<HashMap<JobId, Live>>,
    told: watch::Sender<()>,
    /// One permit a run.
    pub(super) turns: Arc<Semaphore>,
    /// One permit a job that is not over.
    places: Arc<Semaphore>,
    pub(super) keys: Peer,
    pub(super) policy: Peer,
}

/// The folder of a run is its job's, which may have taken everybody's rights on it, its own too.
pub(super) fn give_back(out: &Path) {
    let _ = fs::set_permissions(out, fs::Permissions::from_mode(0o777));
}

impl Jobs {
    /// What runs of before have left is removed: nobody takes it over.
    pub(super) fn open(images: &Path, node: &Node) -> io::Result<Self> {
        let runs = images.join("jobs");
        // A run that locked its own folder must not keep this service from its start.
        for left in fs::read_dir(&runs).into_iter().flatten().flatten() {
            give_back(&left.path());
        }
        match fs::remove_dir_all(&runs) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, folder = %runs.display(), "what runs of before have left stays");
            }
            _ => {}
        }
        fs::create_dir_all(&runs)?;
        // As for images: who has the path passes through, nobody else gets here.
        fs::set_permissions(&runs, fs::Permissions::from_mode(0o711))?;
        Ok(Self {
            runs,
            live: Mutex::default(),
            told: watch::channel(()).0,
            turns: Arc::new(Semaphore::new(JOBS_AT_ONCE)),
            places: Arc::new(Semaphore::new(JOBS_OPEN_MAX)),
            keys: node.peer("keys"),
            policy: node.peer("policy"),
        })
    }

    fn live(&self) -> MutexGuard<'_, HashMap<JobId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changed(&self) {
        self.told.send_replace(());
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.told.subscribe()
    }

    fn go_on(&self, job: JobId, state: JobState, progress: &'static str) {
        if let Some(live) = self.live().get_mut(&job) {
            (live.state, live.progress) = (state, progress);
        }
        self.changed();
    }

    /// The state within what the log says, and words.
    pub(super) fn state_of(&self, record: &JobRecord) -> (JobState, &'static str) {
        match self.live().get(&record.submit.job) {
            Some(live) if record.state == JobState::Submitted => (live.state, live.progress),
            Some(live) if !record.state.is_final() => (record.state, live.progress),
            _ => (record.state, ""),
        }
    }
}

/// The key of an entry of a job, the same after a crash.
fn entry_key(job: JobId, what: &str) -> EntryKey {
    let hash = Hash::of_parts(&[b"bailiwick job entry v1\0", &job.0, what.as_bytes()]);
    let mut key = [0; 16];
    key.iter_mut().zip(hash.0).for_each(|(to, from)| *to = from);
    EntryKey(key)
}

/// What a run needs of its job.
pub(super) struct Submitted {
    pub(super) job: JobId,
    pub(super) at: AxiomRef,
    pub(super) manifest: JobManifest,
    pub(super) manifest_hash: Hash,
}

impl Manager {
    /// The same key is one job, whoever asks twice.
    pub(super) async fn submit(
        self: &Arc<Self>,
        text: String,
        key: [u8; 16],
        requestor: Requestor,
    ) -> Result<(JobId, AxiomRef), Status> {
        self.ready().await?;
        let manifest = JobManifest::parse(&text)
            .map_err(|error| ProcessError::invalid("manifest", error.to_string()))?;
        let manifest_hash = JobManifest::hash(&text);
        let job = job_id(requestor.id(), &key);
        if let Some(record) = self.state().jobs.get(&job) {
            return match record.submit.manifest == manifest_hash {
                true => Ok((job, record.at)),
                false => {
                    Err(ProcessError::invalid("idempotency_key", "it has submitted another manifest").into())
                }
            };
        }
        // Taken here and held until it is over: of many at once none slips past a count.
        let place = Arc::clone(&self.jobs.places).try_acquire_owned();
        let place = place.map_err(|_| ProcessError::JobsFull)?;
        let request = self.job_question(&manifest, &requestor)?;
        self.node.authority().preflight(&request).await?;
        self.check_inputs(&manifest).await?;
        self.keep(text.into_bytes()).await?;
        let process = {
            let mut state = self.state();
            let on_record = state.ledger.highest().max(state.jobs.highest());
            state.table.reserve(on_record)
        };
        let submit = JobSubmit {
            job,
            manifest: manifest_hash,
            executable: manifest.executable.hash,
            inputs: manifest.inputs.iter().map(|input| input.hash).collect(),
            by: requestor.id(),
            name: manifest.name.clone(),
            process,
        };
        let entry =
            Entry::build(self.node.identity(), Some(request.hash()), entry_key(job, "submit"), submit)?;
        let committed = self.node.authority().act(&request, entry).await?;
        let at = committed.entry.ok_or_else(|| ProcessError::Internal("policy named no entry".to_owned()))?;
        self.fold_of(at).await;
        if !committed.duplicate {
            self.begin(Submitted { job, at, manifest, manifest_hash }, place);
        }
        Ok((job, at))
    }

    async fn fold_of(&self, at: AxiomRef) {
        for _ in 0..FOLD_WAITS_MAX {
            if self.node.feed().wait_for(at.sequence).await.is_ok() {
                return;
            }
        }
    }

    /// What policy is asked before a program is run for a job.
    pub(super) fn job_question(
        &self,
        manifest: &JobManifest,
        requestor: &Requestor,
    ) -> Result<PolicyRequest, Status> {
        let image = manifest.executable.hash;
        let resource = ResourceRef { resource_type: ResourceType::Image, id: image.to_string() };
        let mut request = requestor.ask(&self.node, PolicyAction::CreateProcess { image }, resource)?;
        request.context.metadata.insert("job".to_owned(), manifest.name.clone());
        Ok(request)
    }

    /// Everything that it names is there, is what its name says, and has its size.
    async fn check_inputs(&self, manifest: &JobManifest) -> Result<(), ProcessError> {
        self.images.open(manifest.executable.hash, false).await?;
        for input in &manifest.inputs {
            let file = self.images.open(input.hash, false).await?;
            let size = file.metadata().map_err(|error| ProcessError::Internal(error.to_string()))?.len();
            if size != input.size {
                let text = format!("input {} has {size} bytes, the manifest says {}", input.name, input.size);
                return Err(ProcessError::invalid("manifest", text));
            }
        }
        Ok(())
    }

    /// Puts bytes into the content store.
    pub(super) async fn keep(&self, bytes: Vec<u8>) -> Result<Hash, ProcessError> {
        let images = self.images.clone();
        let kept = tokio::task::spawn_blocking(move || images.keep(&*bytes, bytes.len() as u64)).await;
        let kept = kept.map_err(|error| ProcessError::Internal(error.to_string()))?;
        kept.map(|(hash, _)| hash)
            .map_err(|error| ProcessError::Internal(format!("storing what a job names: {error}")))
    }

    fn begin(self: &Arc<Self>, submitted: Submitted, place: OwnedSemaphorePermit) {
        let (cancel, cancelled) = watch::channel(false);
        let live = Live { state: JobState::Validated, progress: "waits for its turn", cancel };
        self.jobs.live().insert(submitted.job, live);
        let manager = Arc::clone(self);
        tokio::spawn(async move {
            let (job, at) = (submitted.job, submitted.at);
            if let Err(error) = manager.carry_out(&submitted, cancelled).await {
                manager.fail(job, at, &error).await;
            }
            manager.jobs.live().remove(&job);
            drop(place);
            manager.jobs.changed();
        });
    }

    async fn fail(&self, job: JobId, submitted: AxiomRef, error: &JobError) {
        let (name, text) = (error.name().to_owned(), error.to_string());
        if let Err(error) = self.note(job, "failed", JobFailed { job, submitted, error: name, text }).await {
            tracing::error!(%job, %error, "the end of a job is not on record");
        }
    }

    /// What is not on record has not happened: whoever notes goes no further.
    async fn note<T: Body>(&self, job: JobId, what: &str, body: T) -> Result<(), JobError> {
        must_stand(self.record(entry_key(job, what), body).await, what)
    }

    /// Twice, compared, signed, recorded.
    async fn carry_out(
        self: &Arc<Self>,
        submitted: &Submitted,
        mut cancelled: watch::Receiver<bool>,
    ) -> Result<(), JobError> {
        let (job, at) = (submitted.job, submitted.at);
        self.jobs.go_on(job, JobState::Scheduled, "waits for its turn");
        let turns = Arc::clone(&self.jobs.turns);
        let turn = tokio::select! {
            turn = turns.acquire_owned() => turn,
            () = asked(&mut cancelled) => return Err(JobError::Cancelled),
        };
        let _turn = turn.map_err(|error| JobError::EnvironmentError(error.to_string()))?;
        self.jobs.go_on(job, JobState::Running, "runs");
        self.note(job, "start", JobStart { job, submitted: at }).await?;
        let started = SystemTime::now();
        let first = self.run_job(&submitted.manifest, true, &mut cancelled).await?;
        let outputs = first.outputs.iter();
        let outputs = outputs.map(|output| JobOutput {
            name: output.name.clone(),
            hash: output.hash,
            size_bytes: output.size,
        });
        let complete = JobComplete { job, submitted: at, outputs: outputs.collect(), usage: first.usage };
        self.note(job, "complete", complete).await?;
        self.jobs.go_on(job, JobState::Completed, "runs again, to be compared");
        another_second(started).await;
        let second = self.run_job(&submitted.manifest, false, &mut cancelled).await?;
        if let Some(differs) = compare_outputs(&first.outputs, &second.outputs) {
            return Err(JobError::DeterminismViolation(format!(
                "its second run differs: {}",
                named(&differs)
            )));
        }
        self.jobs.go_on(job, JobState::Completed, "gets its receipt");
        self.give_receipt(submitted, first).await
    }

    /// Signs, stores, records. Without the entry there is no receipt, without the signature no entry.
    async fn give_receipt(&self, submitted: &Submitted, ran: Ran) -> Result<(), JobError> {
        let receipt = self.sign_receipt(submitted, ran).await?;
        let stored = self.keep(receipt.to_bytes()).await;
        let proof = stored.map_err(|error| JobError::EnvironmentError(error.to_string()))?;
        let Receipt { body, .. } = receipt;
        let hashes = |bindings: &[job::Binding]| bindings.iter().map(|binding| binding.hash).collect();
        let entry = ReceiptEntry {
            axiom_entry: submitted.at,
            inputs: hashes(&body.inputs),
            outputs: hashes(&body.outputs),
            environment: body.environment.id(submitted.manifest.environment_type()),
            status: ReceiptStatus::Success,
            proof: Some(proof),
        };
        self.note(submitted.job, "receipt", entry).await
    }

    /// Jobs of before whose process is gone end here. They are not run again: one of them may be why.
    pub(super) fn close_interrupted_jobs(self: &Arc<Self>) {
        let open: Vec<(JobId, AxiomRef)> = {
            let state = self.state();
            let open = state.jobs.all().filter(|job| !job.state.is_final());
            open.map(|job| (job.submit.job, job.at)).collect()
        };
        for (job, at) in open {
            let manager = Arc::clone(self);
            tokio::spawn(async move {
                let text = "the process manager ended meanwhile; submit it again".to_owned();
                manager.fail(job, at, &JobError::EnvironmentError(text)).await;
            });
        }
    }

    pub(super) fn find_job(&self, job: JobId, viewer: Viewer) -> Result<JobRecord, ProcessError> {
        let state = self.state();
        let record = state.jobs.get(&job).filter(|record| record.is_seen_by(viewer));
        record.cloned().ok_or(ProcessError::NoSuchJob(job))
    }

    /// The decision is the record of the asking, `JobFailed` that of the end.
    pub(super) async fn cancel_job(
        self: &Arc<Self>,
        job: JobId,
        reason: String,
        requestor: Requestor,
        viewer: Viewer,
    ) -> Result<AxiomRef, Status> {
        self.ready().await?;
        if reason.len() > REASON_BYTES_MAX {
            let text = format!("{} bytes, at most {REASON_BYTES_MAX} are allowed", reason.len());
            return Err(ProcessError::invalid("reason", text).into());
        }
        let record = self.find_job(job, viewer)?;
        let over = || ProcessError::WrongJobState { job, state: record.state, wanted: "cancelled" };
        if !self.jobs.live().contains_key(&job) {
            return Err(over().into());
        }
        let pid = record.submit.process;
        let resource = ResourceRef { resource_type: ResourceType::Process, id: pid.to_string() };
        let mut request = requestor.ask(&self.node, PolicyAction::TerminateProcess { pid }, resource)?;
        request.context.process = pid;
        request.context.metadata.insert("reason".to_owned(), reason);
        let committed = self.node.authority().evaluate(&request).await?;
        let at = committed.decision;
        let at = at.ok_or_else(|| ProcessError::Internal("policy named no entry".to_owned()))?;
        let mut jobs = self.jobs.live();
        let live = jobs.get_mut(&job).ok_or_else(over)?;
        live.cancel.send_replace(true);
        Ok(at)
    }
}

fn must_stand(stands: bool, what: &str) -> Result<(), JobError> {
    let refused =
        || JobError::EnvironmentError(format!("its entry `{what}` was refused: it goes no further"));
    if stands { Ok(()) } else { Err(refused()) }
}

/// What differs, for people.
fn named(differs: &job::VerificationResult) -> String {
    let job::VerificationResult::OutputMismatch { expected, actual } = differs else { return String::new() };
    let mut names: Vec<&str> = expected.iter().chain(actual).map(|binding| binding.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// A coarse clock shows whole seconds to whoever finds one: two runs must not see the same.
async fn another_second(first: SystemTime) {
    let second = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = SystemTime::now();
    if second(now) == second(first) {
        let into =
            Duration::from_nanos(now.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos().into());
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(into)).await;
    }
}
