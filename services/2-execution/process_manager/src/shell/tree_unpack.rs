//! Unpacking and emptying folders of container images, by a process of their own.

use std::{
    fs,
    future::Future,
    io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    sync::Arc,
    time::Duration,
};

use base::cbor;
use kit::authority::random_16;
use rustix::{
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::mpsc,
};

use super::{images::Piece, keeper::KeeperError, layers::HELPERS_MIN, manager::Manager, spawn::memfd};
use crate::{
    core::{
        ProcessError, TREE_SLOTS,
        limits::{IMPORT_TIME_MAX, PIECE_WAIT_MAX},
        trees_folder, unpack_plan,
    },
    unpack::{REPORT_BYTES_MAX, Report, Task},
};

impl Manager {
    /// What an earlier process left, or an import that failed.
    pub(super) fn remove_left_trees(self: &Arc<Self>) {
        let manager = Arc::clone(self);
        tokio::spawn(async move { manager.remove_left().await });
    }

    pub(super) async fn remove_left(&self) {
        let _alone = self.trees.emptying.lock().await;
        for name in self.trees.take_left() {
            if let Err(error) = self.remove_folder_of_tree(&name).await {
                tracing::warn!(name, %error, "what is left of an image stays until the next start");
            }
        }
    }

    async fn remove_folder_of_tree(&self, name: &str) -> Result<(), ProcessError> {
        let folder = self.trees.path(name);
        let failed = |error| ProcessError::Internal(format!("removing {name}: {error}"));
        // A kept image was closed to who unpacked it.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).map_err(failed)?;
        match self.unpack(name, Task::Remove, None).await? {
            Report::Removed => fs::remove_dir(&folder).map_err(failed),
            Report::Failed(text) => Err(ProcessError::Internal(format!("emptying {name}: {text}"))),
            Report::Unpacked(..) => Err(ProcessError::Internal("it did something else".to_owned())),
        }
    }

    /// Runs one job on a folder of the store.
    pub(super) async fn unpack(
        &self,
        folder: &str,
        task: Task,
        pieces: Option<mpsc::Receiver<Piece>>,
    ) -> Result<Report, ProcessError> {
        let internal = |text: String| ProcessError::Internal(format!("working on an image: {text}"));
        let io_error = |error: io::Error| internal(error.to_string());
        let errno = |error: Errno| internal(error.to_string());
        let random = random_16().map_err(|error| internal(error.to_string()))?;
        let id = u64::from_le_bytes(random.first_chunk().copied().unwrap_or_default()) | HELPERS_MIN;
        let (report, report_theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(errno)?;
        let (input_theirs, input) = pipe_with(PipeFlags::CLOEXEC).map_err(errno)?;
        let slots: Vec<OwnedFd> = vec![
            self.image.try_clone().map_err(io_error)?,
            memfd(&cbor::encode(&task)).map_err(io_error)?,
            report_theirs,
            self.error.try_clone().map_err(io_error)?,
            input_theirs,
        ];
        debug_assert_eq!(slots.len(), TREE_SLOTS as usize);
        for ours in [&report, &input] {
            rustix::io::ioctl_fionbio(ours, true).map_err(errno)?;
        }
        let mut report = pipe::Receiver::from_owned_fd(report).map_err(io_error)?.take(REPORT_BYTES_MAX);
        let input = pipe::Sender::from_owned_fd(input).map_err(io_error)?;
        let plan = unpack_plan(&format!("{}/{folder}", trees_folder(&self.host.images)));
        self.keeper.launch(id, &plan, slots).await.map_err(|error| match error {
            KeeperError::Launch { step, text } => ProcessError::Launch { step, text },
            other => internal(other.to_string()),
        })?;
        let work = async {
            feed(input, pieces, PIECE_WAIT_MAX).await?;
            let mut bytes = Vec::new();
            report.read_to_end(&mut bytes).await.map_err(io_error)?;
            Ok(bytes)
        };
        let bytes = match at_most(IMPORT_TIME_MAX, work).await {
            Ok(bytes) => bytes,
            Err(error) => {
                // It may wait for what never comes; where it has ended already this does nothing.
                let _ = self.keeper.kill(id).await;
                return Err(error);
            }
        };
        cbor::decode(&bytes).map_err(|_| {
            ProcessError::TreeRefused(
                "it was ended while it unpacked: by its limit of memory, or by somebody".to_owned(),
            )
        })
    }
}

async fn at_most<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ProcessError>>,
) -> Result<T, ProcessError> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(ProcessError::TreeRefused(format!("it took longer than {} s", limit.as_secs())))
    })
}

/// Hands the archive on, piece by piece.
async fn feed(
    mut input: pipe::Sender,
    pieces: Option<mpsc::Receiver<Piece>>,
    wait: Duration,
) -> Result<(), ProcessError> {
    let Some(mut pieces) = pieces else { return Ok(()) };
    loop {
        let Ok(piece) = tokio::time::timeout(wait, pieces.recv()).await else {
            let text = format!("nothing of it came for {} s", wait.as_secs());
            return Err(ProcessError::TreeRefused(text));
        };
        match piece {
            None => return Err(ProcessError::invalid("data", "the stream was cut before its end")),
            Some(None) => return Ok(()),
            // It has given up, or has all it needs; its report says which.
            Some(Some(piece)) if input.write_all(&piece).await.is_err() => return Ok(()),
            Some(Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    fn input() -> (pipe::Sender, OwnedFd) {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&ours, true).unwrap();
        (pipe::Sender::from_owned_fd(ours).unwrap(), theirs)
    }

    #[tokio::test]
    async fn an_archive_that_does_not_come_is_not_waited_for() {
        let (input, _theirs) = input();
        let (_send, pieces) = mpsc::channel(1);
        let refused = feed(input, Some(pieces), SHORT).await.unwrap_err();
        assert!(
            matches!(refused, ProcessError::TreeRefused(ref text) if text.contains("nothing of it came"))
        );
    }

    #[tokio::test]
    async fn an_unpacking_that_does_not_end_is_refused() {
        let never = std::future::pending::<Result<(), ProcessError>>();
        let refused = at_most(SHORT, never).await.unwrap_err();
        assert!(matches!(refused, ProcessError::TreeRefused(ref text) if text.contains("took longer")));
        assert_eq!(at_most(SHORT, async { Ok(1) }).await, Ok(1));
    }

    #[tokio::test]
    async fn a_stream_that_is_cut_is_no_archive() {
        let (input, _theirs) = input();
        let (send, pieces) = mpsc::channel(2);
        send.send(Some(b"half".to_vec())).await.unwrap();
        drop(send);
        assert!(matches!(feed(input, Some(pieces), SHORT).await, Err(ProcessError::Invalid { .. })));
    }
}
