//! What the log says about jobs: a fold, and what the end of a run means.

use std::collections::{BTreeMap, HashMap};

use base::{
    AxiomRef, Hash, IdentityId, JobId,
    cbor::{self, CborError},
};
use chain::payload::{
    Payload,
    job::{JobComplete, JobOutput, JobSubmit},
    process::{ExitStatus, RefusedCall},
};
use job::{JobError, JobState};
use minicbor::{Decode, Encode};

use super::{Viewer, limits::JOBS_MAX};

/// SIGSYS: the kernel's own end of a call that no rule of a filter allows.
const BAD_CALL: i32 = 31;
/// Added to a signal's number for an exit code, as a shell does.
const SIGNALLED: i32 = 128;
/// The monitor's word for a job that it ended for a call.
pub(crate) const DETERMINISM: &str = "determinism";
/// And for one that ended because it could write no more.
pub(crate) const OUTPUT_LIMIT: &str = "output_limit";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    pub at: AxiomRef,
    /// Who speaks for it: an entry of another service is none of its.
    pub submitter: IdentityId,
    pub submit: JobSubmit,
    pub state: JobState,
    pub outputs: Vec<JobOutput>,
    /// Name and text.
    pub error: Option<(String, String)>,
    /// Hash of the signed receipt.
    pub receipt: Option<Hash>,
}

impl JobRecord {
    #[must_use]
    pub fn is_seen_by(&self, viewer: Viewer) -> bool {
        match viewer {
            Viewer::All => true,
            Viewer::Identity(id) => self.submit.by == id,
        }
    }

    /// Whether the job names this content.
    #[must_use]
    pub fn names(&self, hash: &Hash) -> bool {
        let named = [self.submit.manifest, self.submit.executable];
        named.contains(hash)
            || self.submit.inputs.contains(hash)
            || self.receipt == Some(*hash)
            || self.outputs.iter().any(|output| output.hash == *hash)
    }
}

/// Fold of entries 70 to 73 and 80.
#[derive(Debug, Default)]
pub struct JobLedger {
    jobs: HashMap<JobId, JobRecord>,
    /// In the order of the log.
    order: BTreeMap<u64, JobId>,
    by_entry: HashMap<Hash, JobId>,
    highest: u64,
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct SavedJob {
    #[n(0)]
    at: AxiomRef,
    #[n(1)]
    submitter: IdentityId,
    #[n(2)]
    submit: JobSubmit,
    /// Its place in `JobState::ALL`.
    #[n(3)]
    state: u8,
    #[n(4)]
    outputs: Vec<JobOutput>,
    #[n(5)]
    error: Option<(String, String)>,
    #[n(6)]
    receipt: Option<Hash>,
}

impl SavedJob {
    fn of(job: &JobRecord) -> Self {
        let JobRecord { at, submitter, submit, state, outputs, error, receipt } = job.clone();
        let state = (0_u8..).zip(JobState::ALL).find(|(_, known)| *known == state);
        // Every state is in that list: its own test says so.
        let state = state.map_or(u8::MAX, |(place, _)| place);
        Self { at, submitter, submit, state, outputs, error, receipt }
    }

    fn restore(self) -> Result<JobRecord, CborError> {
        let Self { at, submitter, submit, state, outputs, error, receipt } = self;
        let unknown = || CborError::Decode(format!("there is no state {state} of a job"));
        let state = *JobState::ALL.get(usize::from(state)).ok_or_else(unknown)?;
        Ok(JobRecord { at, submitter, submit, state, outputs, error, receipt })
    }
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct SavedJobs {
    #[n(0)]
    jobs: BTreeMap<JobId, SavedJob>,
    #[n(1)]
    order: BTreeMap<u64, JobId>,
    #[n(2)]
    by_entry: BTreeMap<Hash, JobId>,
    #[n(3)]
    highest: u64,
}

impl JobLedger {
    /// Equal folds, equal bytes.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        cbor::encode(&SavedJobs {
            jobs: self.jobs.iter().map(|(id, job)| (*id, SavedJob::of(job))).collect(),
            order: self.order.clone(),
            by_entry: self.by_entry.iter().map(|(hash, id)| (*hash, *id)).collect(),
            highest: self.highest,
        })
    }

    /// What `save` has written, as it was folded.
    pub fn restore(bytes: &[u8]) -> Result<Self, CborError> {
        let SavedJobs { jobs, order, by_entry, highest } = cbor::decode(bytes)?;
        let jobs = jobs.into_iter().map(|(id, job)| Ok((id, job.restore()?)));
        let jobs = jobs.collect::<Result<_, CborError>>()?;
        Ok(Self { jobs, order, by_entry: by_entry.into_iter().collect(), highest })
    }

    /// Folds one committed entry.
    pub fn apply(&mut self, at: AxiomRef, payload: &Payload) {
        match payload {
            Payload::JobSubmit(entry) => self.submitted(at, entry.submitter, &entry.body),
            Payload::JobStart(entry) => {
                self.change(entry.body.job, entry.submitter, |job| job.state = JobState::Running);
            }
            Payload::JobComplete(entry) => {
                let JobComplete { job, outputs, .. } = &entry.body;
                self.change(*job, entry.submitter, |job| {
                    job.state = JobState::Completed;
                    job.outputs.clone_from(outputs);
                });
            }
            Payload::JobFailed(entry) => {
                let cancelled = entry.body.error == JobError::Cancelled.name();
                let error = Some((entry.body.error.clone(), entry.body.text.clone()));
                self.change(entry.body.job, entry.submitter, |job| {
                    // What ran and was ended has failed (ACT-45).
                    let never_ran = matches!(job.state, JobState::Submitted);
                    job.state = if cancelled && never_ran { JobState::Cancelled } else { JobState::Failed };
                    job.error = error;
                });
            }
            Payload::Receipt(entry) => {
                let id = self.by_entry.get(&entry.body.axiom_entry.hash).copied();
                if let Some(id) = id {
                    let proof = entry.body.proof;
                    self.change(id, entry.submitter, |job| {
                        if job.state == JobState::Completed {
                            job.state = JobState::Verified;
                            job.receipt = proof;
                        }
                    });
                }
            }
            _ => {}
        }
    }

    fn submitted(&mut self, at: AxiomRef, submitter: IdentityId, submit: &JobSubmit) {
        self.highest = self.highest.max(submit.process.0);
        let record = JobRecord {
            at,
            submitter,
            submit: submit.clone(),
            state: JobState::Submitted,
            outputs: Vec::new(),
            error: None,
            receipt: None,
        };
        self.jobs.insert(submit.job, record);
        self.order.insert(at.sequence.0, submit.job);
        self.by_entry.insert(at.hash, submit.job);
        if self.jobs.len() > JOBS_MAX {
            self.give_up_oldest();
        }
    }

    /// One that is over: those that are not have to be ended.
    fn give_up_oldest(&mut self) {
        let is_over = |id: &JobId| self.jobs.get(id).is_none_or(|job| job.state.is_final());
        let Some(sequence) = self.order.iter().find(|(_, id)| is_over(id)).map(|(sequence, _)| *sequence)
        else {
            return;
        };
        if let Some(job) = self.order.remove(&sequence).and_then(|id| self.jobs.remove(&id)) {
            self.by_entry.remove(&job.at.hash);
        }
    }

    /// Nobody speaks for a job but the service that submitted it.
    fn change(&mut self, id: JobId, speaker: IdentityId, change: impl FnOnce(&mut JobRecord)) {
        let open = |job: &&mut JobRecord| !job.state.is_final() && job.submitter == speaker;
        if let Some(job) = self.jobs.get_mut(&id).filter(open) {
            change(job);
        }
    }

    #[must_use]
    pub fn get(&self, id: &JobId) -> Option<&JobRecord> {
        self.jobs.get(id)
    }

    /// Oldest first.
    pub fn all(&self) -> impl Iterator<Item = &JobRecord> {
        self.order.values().filter_map(|id| self.jobs.get(id))
    }

    #[must_use]
    pub fn open(&self) -> usize {
        self.jobs.values().filter(|job| !job.state.is_final()).count()
    }

    /// Highest process id that a job has had.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest
    }
}

/// The id of what somebody submits under a key.
#[must_use]
pub(crate) fn job_id(by: IdentityId, key: &[u8; 16]) -> JobId {
    let hash = Hash::of_parts(&[b"bailiwick job v1\0", &by.0, key]);
    let mut id = [0; 16];
    id.iter_mut().zip(hash.0).for_each(|(to, from)| *to = from);
    JobId(id)
}

/// What the end of a run means; none if it ran to its end.
#[must_use]
pub fn ended_as(status: &ExitStatus, refused: &[RefusedCall], stderr: &str) -> Option<JobError> {
    let failed = |exit_code| Some(JobError::ExecutionError { exit_code, stderr: stderr.to_owned() });
    match status {
        ExitStatus::Code(0) => None,
        ExitStatus::Code(code) => failed(*code),
        ExitStatus::Limit(limit) if limit == DETERMINISM => {
            let call = refused.last().map_or("a call that is not allowed", |refused| refused.call.as_str());
            Some(JobError::DeterminismViolation(format!("it called {call}{}", declare(call))))
        }
        ExitStatus::Signal(BAD_CALL) => {
            Some(JobError::DeterminismViolation("it made a call of another architecture".to_owned()))
        }
        ExitStatus::Limit(limit) if limit == "wall_time" => Some(JobError::Timeout),
        ExitStatus::Limit(limit) => Some(JobError::ResourceExceeded(limit.clone())),
        ExitStatus::Signal(signal) => failed(signal.saturating_add(SIGNALLED)),
        ExitStatus::Unknown => Some(JobError::EnvironmentError("nobody saw how it ended".to_owned())),
    }
}

/// What a manifest could declare for a call.
fn declare(call: &str) -> &'static str {
    match call {
        "clock_gettime" | "clock_getres" | "gettimeofday" | "time" => {
            "; determinism.clock_ns declares a clock"
        }
        "getrandom" => "; determinism.random_seed declares what random bytes are made from",
        "clone" => "; determinism.concurrency declares threads, and nothing declares processes",
        _ => "",
    }
}

#[cfg(test)]
#[path = "jobs_tests.rs"]
mod tests;
