use base::{CapabilityId, Hash, IdentityId, JobId, ProcessId, TreeId};
use job::JobState;
use kit::{Guilty, IntoRefusal, Retry};
use thiserror::Error;

use super::{
    ProcessState,
    limits::{IMPORTS_AT_ONCE, JOBS_OPEN_MAX, LAYERS_MAX, PROCESSES_MAX, TREES_MAX},
};

/// Why a program was not started, signalled, shown or waited for. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProcessError {
    #[error("there is no image {0}; put it first")]
    ImageNotFound(Hash),
    #[error("the image {image} cannot be used: {text}")]
    InvalidImage { image: Hash, text: String },
    #[error("identity {identity} {text}")]
    UnknownIdentity { identity: IdentityId, text: &'static str },
    #[error("capability {0} is not held by the caller, or is more than the limits allow")]
    CapabilityDenied(CapabilityId),
    #[error("there is no process {0}, or it has been waited for")]
    NoSuchProcess(ProcessId),
    #[error("process {0} runs as a system identity; only the admin and services may signal it")]
    SystemProcess(ProcessId),
    #[error("process {pid} is {state}: commands can be run beside a running one only")]
    NotRunning { pid: ProcessId, state: ProcessState },
    #[error("beside process {pid} nothing was run: {text}")]
    NoCommand { pid: ProcessId, text: String },
    #[error("process {pid} is {state}: it takes no such signal")]
    WrongState { pid: ProcessId, state: ProcessState },
    #[error("{PROCESSES_MAX} programs are kept already; wait for ended ones")]
    ResourceShortage,
    #[error("{JOBS_OPEN_MAX} jobs wait or run already; ask again, or cancel some")]
    JobsFull,
    #[error("other jobs have run for {waited_ms} ms, which is as long as this one may; ask again")]
    NoTurn { waited_ms: u64 },
    #[error(
        "of process {0} no changes are kept: it was shown nothing copy-on-write, changed nothing, or they were \
         committed or discarded"
    )]
    NoLayer(ProcessId),
    #[error(
        "the changes of {LAYERS_MAX} programs are kept already; commit or discard some (`bailiwick layers`)"
    )]
    LayersFull,
    #[error("process {0} still runs; stop it first, or wait for its end")]
    StillRuns(ProcessId),
    #[error("the changes of process {pid} are not applied: {text}; nothing was changed")]
    Blocked { pid: ProcessId, text: String },
    #[error("the layer of process {pid}: {text}; say it again to go on")]
    Layer { pid: ProcessId, text: String },
    #[error("there is no image {0}; `bailiwick image list` shows those that are there")]
    NoTree(String),
    #[error("{TREES_MAX} images are kept already; remove some (`bailiwick image rm`)")]
    TreesFull,
    #[error("{IMPORTS_AT_ONCE} images are unpacked at the moment; ask again")]
    ImportsBusy,
    #[error("program {pid} runs in the image {tree}; stop it first")]
    TreeInUse { tree: TreeId, pid: ProcessId },
    #[error(
        "image {tree} is what these services run in: {services}; apply another or `bailiwick service remove` them first"
    )]
    TreeServes { tree: TreeId, services: String },
    #[error("a program is being started in the image {0}, or it is being removed; ask again")]
    TreeClaimed(TreeId),
    #[error("the image is refused: {0}; nothing of it is kept")]
    TreeRefused(String),
    #[error("field `{field}`: {text}")]
    Invalid { field: &'static str, text: String },
    #[error("the token is refused: {0}")]
    Unauthenticated(String),
    #[error("there is no job {0} that you may see")]
    NoSuchJob(JobId),
    #[error("job {job} is {state}, so it cannot be {wanted}")]
    WrongJobState { job: JobId, state: JobState, wanted: &'static str },
    #[error("the program could not be started: {step}: {text}")]
    Launch { step: String, text: String },
    #[error("programs of the last run are still being taken over; ask again")]
    Recovering,
    #[error("{0}")]
    Internal(String),
}

impl ProcessError {
    /// Nobody has named an image so.
    pub(crate) fn no_name(tree: base::TreeId, name: &str) -> Self {
        Self::NoTree(if name.is_empty() { tree.to_string() } else { format!("{name} with the id {tree}") })
    }

    pub(crate) fn invalid(field: &'static str, text: impl Into<String>) -> Self {
        Self::Invalid { field, text: text.into() }
    }
}

impl IntoRefusal for ProcessError {
    const DOMAIN: &'static str = "bailiwick.process_manager.v1";

    fn reason(&self) -> &'static str {
        match self {
            Self::ImageNotFound(_) => "ImageNotFound",
            Self::InvalidImage { .. } => "InvalidImage",
            Self::UnknownIdentity { .. } => "UnknownIdentity",
            Self::CapabilityDenied(_) => "CapabilityDenied",
            Self::NoSuchProcess(_) => "NoSuchProcess",
            Self::SystemProcess(_) => "SystemProcess",
            Self::WrongState { .. } | Self::NotRunning { .. } | Self::NoCommand { .. } => "WrongState",
            Self::ResourceShortage | Self::JobsFull => "ResourceShortage",
            Self::NoLayer(_) => "NoLayer",
            Self::LayersFull => "LayersFull",
            Self::StillRuns(_) => "StillRuns",
            Self::Blocked { .. } => "Blocked",
            Self::Layer { .. } => "LayerFailed",
            Self::NoTree(_) => "NoTree",
            Self::TreesFull => "TreesFull",
            Self::ImportsBusy | Self::NoTurn { .. } => "Busy",
            Self::TreeInUse { .. } | Self::TreeServes { .. } | Self::TreeClaimed(_) => "TreeInUse",
            Self::TreeRefused(_) => "TreeRefused",
            Self::Invalid { .. } => "InvalidRequest",
            Self::Unauthenticated(_) => "Unauthenticated",
            Self::NoSuchJob(_) => "NoSuchJob",
            Self::WrongJobState { .. } => "WrongJobState",
            Self::Launch { .. } => "LaunchFailed",
            Self::Recovering => "Recovering",
            Self::Internal(_) => "Internal",
        }
    }

    fn guilty(&self) -> Guilty {
        match self {
            Self::Invalid { .. } => Guilty::Misuse,
            Self::Recovering | Self::Internal(_) => Guilty::Gone,
            _ => Guilty::Refused,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::ResourceShortage | Self::JobsFull | Self::ImportsBusy | Self::NoTurn { .. } => {
                Retry::After(1000)
            }
            Self::TreeClaimed(_) => Retry::After(200),
            Self::Recovering => Retry::After(200),
            _ => Retry::Never,
        }
    }

    fn code(&self) -> tonic::Code {
        use tonic::Code;
        match self {
            Self::ImageNotFound(_)
            | Self::NoSuchProcess(_)
            | Self::NoLayer(_)
            | Self::NoTree(_)
            | Self::NoSuchJob(_) => Code::NotFound,
            Self::UnknownIdentity { .. } | Self::CapabilityDenied(_) | Self::SystemProcess(_) => {
                Code::PermissionDenied
            }
            Self::InvalidImage { .. }
            | Self::WrongState { .. }
            | Self::NotRunning { .. }
            | Self::NoCommand { .. }
            | Self::WrongJobState { .. }
            | Self::Launch { .. }
            | Self::StillRuns(_)
            | Self::TreeInUse { .. }
            | Self::TreeServes { .. }
            | Self::TreeClaimed(_)
            | Self::TreeRefused(_)
            | Self::Blocked { .. } => Code::FailedPrecondition,
            Self::ResourceShortage
            | Self::JobsFull
            | Self::NoTurn { .. }
            | Self::LayersFull
            | Self::TreesFull
            | Self::ImportsBusy => Code::ResourceExhausted,
            Self::Layer { .. } => Code::Aborted,
            Self::Invalid { .. } => Code::InvalidArgument,
            Self::Unauthenticated(_) => Code::Unauthenticated,
            Self::Recovering => Code::Unavailable,
            Self::Internal(_) => Code::Internal,
        }
    }
}

impl From<ProcessError> for tonic::Status {
    fn from(error: ProcessError) -> Self {
        error.to_status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: PRC-40
    #[test]
    fn an_error_says_who_is_guilty_and_whether_to_come_again() {
        use tonic::Code;
        let (pid, id, tree) = (ProcessId(7), IdentityId([1; 32]), TreeId([3; 32]));
        let (text, job) = (String::new, JobId([1; 16]));
        let (never, refused) = (Retry::Never, Guilty::Refused);
        for (error, reason, guilty, retry, code) in [
            (ProcessError::ImageNotFound(Hash::ZERO), "ImageNotFound", refused, never, Code::NotFound),
            (
                ProcessError::InvalidImage { image: Hash::ZERO, text: text() },
                "InvalidImage",
                refused,
                never,
                Code::FailedPrecondition,
            ),
            (
                ProcessError::UnknownIdentity { identity: id, text: "x" },
                "UnknownIdentity",
                refused,
                never,
                Code::PermissionDenied,
            ),
            (
                ProcessError::CapabilityDenied(CapabilityId([1; 16])),
                "CapabilityDenied",
                refused,
                never,
                Code::PermissionDenied,
            ),
            (ProcessError::NoSuchProcess(pid), "NoSuchProcess", refused, never, Code::NotFound),
            (ProcessError::SystemProcess(pid), "SystemProcess", refused, never, Code::PermissionDenied),
            (
                ProcessError::WrongState { pid, state: ProcessState::Zombie },
                "WrongState",
                refused,
                never,
                Code::FailedPrecondition,
            ),
            (
                ProcessError::ResourceShortage,
                "ResourceShortage",
                refused,
                Retry::After(1000),
                Code::ResourceExhausted,
            ),
            (
                ProcessError::NotRunning { pid, state: ProcessState::Suspended },
                "WrongState",
                refused,
                never,
                Code::FailedPrecondition,
            ),
            (
                ProcessError::NoCommand { pid, text: text() },
                "WrongState",
                refused,
                never,
                Code::FailedPrecondition,
            ),
            (ProcessError::NoLayer(pid), "NoLayer", refused, never, Code::NotFound),
            (ProcessError::LayersFull, "LayersFull", refused, never, Code::ResourceExhausted),
            (ProcessError::NoTree(text()), "NoTree", refused, never, Code::NotFound),
            (ProcessError::TreesFull, "TreesFull", refused, never, Code::ResourceExhausted),
            (ProcessError::TreeInUse { tree, pid }, "TreeInUse", refused, never, Code::FailedPrecondition),
            (
                ProcessError::TreeServes { tree, services: text() },
                "TreeInUse",
                refused,
                never,
                Code::FailedPrecondition,
            ),
            (ProcessError::ImportsBusy, "Busy", refused, Retry::After(1000), Code::ResourceExhausted),
            (
                ProcessError::JobsFull,
                "ResourceShortage",
                refused,
                Retry::After(1000),
                Code::ResourceExhausted,
            ),
            (
                ProcessError::NoTurn { waited_ms: 1 },
                "Busy",
                refused,
                Retry::After(1000),
                Code::ResourceExhausted,
            ),
            (
                ProcessError::TreeClaimed(tree),
                "TreeInUse",
                refused,
                Retry::After(200),
                Code::FailedPrecondition,
            ),
            (ProcessError::TreeRefused(text()), "TreeRefused", refused, never, Code::FailedPrecondition),
            (ProcessError::StillRuns(pid), "StillRuns", refused, never, Code::FailedPrecondition),
            (
                ProcessError::Blocked { pid, text: text() },
                "Blocked",
                refused,
                never,
                Code::FailedPrecondition,
            ),
            (ProcessError::Layer { pid, text: text() }, "LayerFailed", refused, never, Code::Aborted),
            (ProcessError::invalid("f", "x"), "InvalidRequest", Guilty::Misuse, never, Code::InvalidArgument),
            (ProcessError::Unauthenticated(text()), "Unauthenticated", refused, never, Code::Unauthenticated),
            (
                ProcessError::Launch { step: text(), text: text() },
                "LaunchFailed",
                refused,
                never,
                Code::FailedPrecondition,
            ),
            (ProcessError::NoSuchJob(job), "NoSuchJob", refused, never, Code::NotFound),
            (
                ProcessError::WrongJobState { job, state: JobState::Failed, wanted: "cancelled" },
                "WrongJobState",
                refused,
                never,
                Code::FailedPrecondition,
            ),
            (ProcessError::Recovering, "Recovering", Guilty::Gone, Retry::After(200), Code::Unavailable),
            (ProcessError::Internal(text()), "Internal", Guilty::Gone, never, Code::Internal),
        ] {
            assert_eq!((error.reason(), error.guilty()), (reason, guilty), "{error:?}");
            assert_eq!((error.retry(), error.code()), (retry, code), "{error:?}");
            assert_eq!(tonic::Status::from(error).code(), code);
        }
    }
}
