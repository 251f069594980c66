use super::*;
use base::{EntryKey, ProcessId, Sequence};
use chain::payload::{
    Body, Envelope, Receipt, ReceiptStatus,
    job::{JobFailed, JobStart},
    process::ResourceUsage,
};

fn at(sequence: u64) -> AxiomRef {
    AxiomRef { sequence: Sequence(sequence), hash: Hash::of(&sequence.to_le_bytes()) }
}

fn id(byte: u64) -> JobId {
    job_id(IdentityId([1; 32]), &[byte as u8; 16])
}

const SERVICE: IdentityId = IdentityId([9; 32]);

fn fold<T: Body>(ledger: &mut JobLedger, sequence: u64, body: T) {
    fold_of(ledger, SERVICE, sequence, body);
}

fn fold_of<T: Body>(ledger: &mut JobLedger, submitter: IdentityId, sequence: u64, body: T) {
    let envelope = Envelope { submitter, key: EntryKey([sequence as u8; 16]), authorization: None, body };
    let payload = Payload::decode(T::ENTRY_TYPE, &envelope.to_bytes().unwrap()).unwrap();
    ledger.apply(at(sequence), &payload);
}

fn submit(job: JobId, process: u64) -> JobSubmit {
    JobSubmit {
        job,
        manifest: Hash::of(b"manifest"),
        executable: Hash::of(b"executable"),
        inputs: vec![Hash::of(b"input")],
        by: IdentityId([1; 32]),
        name: "n".to_owned(),
        process: ProcessId(process),
    }
}

fn failed(job: JobId, error: &str) -> JobFailed {
    JobFailed { job, submitted: at(1), error: error.to_owned(), text: "t".to_owned() }
}

fn receipt(of: u64) -> Receipt {
    Receipt {
        axiom_entry: at(of),
        inputs: vec![],
        outputs: vec![],
        environment: Hash::ZERO,
        status: ReceiptStatus::Success,
        proof: Some(Hash::of(b"receipt")),
    }
}

fn complete(job: JobId) -> JobComplete {
    let output = JobOutput { name: "o".to_owned(), hash: Hash::of(b"output"), size_bytes: 6 };
    JobComplete { job, submitted: at(1), outputs: vec![output], usage: ResourceUsage::default() }
}

/// covers: ACT-45
#[test]
fn the_log_moves_a_job_and_its_end_is_final() {
    let mut ledger = JobLedger::default();
    fold(&mut ledger, 1, submit(id(1), 4));
    let state = |ledger: &JobLedger| ledger.get(&id(1)).map(|job| job.state).unwrap();
    assert_eq!((state(&ledger), ledger.highest(), ledger.open()), (JobState::Submitted, 4, 1));
    // A receipt without outputs is another one's.
    fold(&mut ledger, 2, receipt(1));
    assert_eq!(state(&ledger), JobState::Submitted);
    fold(&mut ledger, 3, JobStart { job: id(1), submitted: at(1) });
    assert_eq!(state(&ledger), JobState::Running);
    fold(&mut ledger, 4, complete(id(1)));
    assert_eq!(state(&ledger), JobState::Completed);
    fold(&mut ledger, 5, receipt(1));
    assert_eq!((state(&ledger), ledger.open()), (JobState::Verified, 0));
    fold(&mut ledger, 6, failed(id(1), "Timeout"));
    let job = ledger.get(&id(1)).unwrap();
    assert_eq!((job.state, &job.error), (JobState::Verified, &None));
    for content in [&b"manifest"[..], b"executable", b"input", b"output", b"receipt"] {
        assert!(job.names(&Hash::of(content)));
    }
    assert!(!job.names(&Hash::of(b"another")));
    assert!(job.is_seen_by(Viewer::Identity(IdentityId([1; 32]))) && job.is_seen_by(Viewer::All));
    assert!(!job.is_seen_by(Viewer::Identity(IdentityId([2; 32]))));
}

#[test]
fn what_was_cancelled_before_it_ran_is_cancelled_and_after_it_failed() {
    let mut ledger = JobLedger::default();
    for job in [1, 2] {
        fold(&mut ledger, job, submit(id(job), job));
    }
    fold(&mut ledger, 3, JobStart { job: id(2), submitted: at(2) });
    for job in [1, 2] {
        fold(&mut ledger, 3 + job, failed(id(job), "Cancelled"));
    }
    let states: Vec<JobState> = ledger.all().map(|job| job.state).collect();
    assert_eq!(states, [JobState::Cancelled, JobState::Failed]);
}

#[test]
fn the_oldest_that_are_over_are_given_up_and_no_others() {
    let mut ledger = JobLedger::default();
    let many = |job: u64| {
        job_id(IdentityId([2; 32]), &[&job.to_le_bytes()[..], &[0; 8]].concat().try_into().unwrap())
    };
    fold(&mut ledger, 1, submit(many(1), 1));
    for job in 2..=JOBS_MAX as u64 {
        fold(&mut ledger, job, submit(many(job), job));
        fold(&mut ledger, 100_000 + job, failed(many(job), "Timeout"));
    }
    assert_eq!(ledger.all().count(), JOBS_MAX);
    fold(&mut ledger, 200_000, submit(many(200_000), 200_000));
    assert_eq!(ledger.all().count(), JOBS_MAX);
    assert!(ledger.get(&many(1)).is_some() && ledger.get(&many(2)).is_none());
}

/// covers: ACT-46, ACT-47
#[test]
fn every_end_of_a_run_has_its_error() {
    let call = RefusedCall { call: "getrandom".to_owned(), target: String::new(), errno: 0, times: 1 };
    let end = |status: ExitStatus| ended_as(&status, std::slice::from_ref(&call), "said");
    let limit = |name: &str| ExitStatus::Limit(name.to_owned());
    assert_eq!(end(ExitStatus::Code(0)), None);
    let failed = |exit_code| Some(JobError::ExecutionError { exit_code, stderr: "said".to_owned() });
    assert_eq!(end(ExitStatus::Code(3)), failed(3));
    assert_eq!(end(ExitStatus::Signal(11)), failed(139));
    assert_eq!(end(limit("wall_time")), Some(JobError::Timeout));
    assert_eq!(end(limit("memory")), Some(JobError::ResourceExceeded("memory".to_owned())));
    assert!(matches!(end(ExitStatus::Unknown), Some(JobError::EnvironmentError(_))));
    let Some(JobError::DeterminismViolation(text)) = end(limit(DETERMINISM)) else { panic!("no violation") };
    assert!(text.contains("getrandom") && text.contains("random_seed"), "{text}");
    assert!(matches!(end(ExitStatus::Signal(31)), Some(JobError::DeterminismViolation(_))));
}

#[test]
fn nobody_but_who_submitted_a_job_speaks_for_it() {
    let other = IdentityId([8; 32]);
    let mut ledger = JobLedger::default();
    fold(&mut ledger, 1, submit(id(1), 4));
    let start = JobStart { job: id(1), submitted: at(1) };
    let state = |ledger: &JobLedger| ledger.get(&id(1)).map(|job| job.state).unwrap();
    fold_of(&mut ledger, other, 2, start.clone());
    fold_of(&mut ledger, other, 3, complete(id(1)));
    fold_of(&mut ledger, other, 4, failed(id(1), "Timeout"));
    assert_eq!((state(&ledger), ledger.get(&id(1)).unwrap().outputs.len()), (JobState::Submitted, 0));
    fold(&mut ledger, 5, start);
    fold(&mut ledger, 6, complete(id(1)));
    fold_of(&mut ledger, other, 7, receipt(1));
    assert_eq!(state(&ledger), JobState::Completed);
    fold(&mut ledger, 8, receipt(1));
    assert_eq!(state(&ledger), JobState::Verified);
}

fn step(ledger: &mut JobLedger, number: u64) {
    let job = id(number / 5);
    match number % 5 {
        0 => fold(ledger, number, submit(job, number)),
        1 if number.is_multiple_of(2) => fold(ledger, number, failed(job, "Timeout")),
        1 => fold(ledger, number, JobStart { job, submitted: at(number - 1) }),
        2 => fold(ledger, number, complete(job)),
        3 => fold(ledger, number, receipt(number - 3)),
        _ => {}
    }
}

#[test]
fn jobs_that_were_written_down_anywhere_go_on_to_the_same_bytes() {
    let mut whole = JobLedger::default();
    (0..40).for_each(|number| step(&mut whole, number));
    for cut in 0..=40 {
        let mut begun = JobLedger::default();
        (0..cut).for_each(|number| step(&mut begun, number));
        let mut resumed = JobLedger::restore(&begun.save()).unwrap();
        (cut..40).for_each(|number| step(&mut resumed, number));
        assert_eq!(resumed.save(), whole.save(), "cut at {cut}");
    }
    let hash = Hash::of(&whole.save()).to_string();
    assert_eq!(
        hash, "blake3:beefe9309028c55084fca3c0f22480287c0d211f0486c9903d187ca41e3dea8e",
        "a fold that changes has another FOLD_VERSION"
    );
    let states: Vec<JobState> = whole.all().map(|job| job.state).collect();
    assert!(states.contains(&JobState::Verified) && states.contains(&JobState::Failed), "{states:?}");
}
