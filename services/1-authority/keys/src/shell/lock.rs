//! Lock and unlock: decided, recorded, then done. What opens the seed does not come through here.

use std::{sync::Arc, time::Duration};

use base::{AxiomRef, Hash, KeyPath, Sequence, key_paths};
use chain::payload::{
    identity::{KeyOperation, KeyUsage},
    policy::{PolicyAction, ResourceRef, ResourceType, ServiceOperation},
};
use kit::{Requestor, authority::Entry};
use tokio::sync::watch;
use tonic::Status;

use super::{
    link::{Link, LinkError},
    run::Runner,
};
use crate::{
    boundary::protocol::{BoundaryState, Refusal, Request, Response},
    core::KeyError,
};

/// Bytes of the reason, as the contract says.
const REASON_BYTES_MAX: usize = 1024;
/// How often a closed boundary is asked whether it has been opened: the operator opens it without this service. Only this
/// service closes it.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const KEYS: &str = "keys";

/// Why the seed is closed, as the boundary said last.
#[derive(Clone, Debug, Default)]
pub(super) struct Seed(Arc<watch::Sender<Option<String>>>);

impl Seed {
    pub(super) fn locked(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    async fn closes(&self) {
        // This holds the sender: it cannot end otherwise.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }

    fn set(&self, why: Option<String>) {
        let before = self.0.send_replace(why.clone());
        match (&before, &why) {
            (_, Some(why)) if before.as_ref() != Some(why) => {
                tracing::error!(why, "the seed is locked: no key can be used");
            }
            (Some(_), None) => tracing::info!("the seed is open"),
            _ => {}
        }
    }

    /// Asks once; how it stands is told afterwards.
    async fn look(&self, link: &Link) -> Result<(), LinkError> {
        match link.ask(Request::Status).await? {
            Response::Status { state: BoundaryState::Ready, .. } => self.set(None),
            Response::Status { state: BoundaryState::Locked { why }, .. } => self.set(Some(why)),
            Response::Status { state: BoundaryState::Empty, .. } => {
                self.set(Some("there is no seed".to_owned()));
            }
            _ => return Err(LinkError::Malformed),
        }
        Ok(())
    }
}

/// The log so far is known: opens the seed unless it says otherwise, then follows how it stands, for the process's life.
pub(super) fn follow(runner: Arc<Runner>, seed: Seed) {
    // Before any other question: the first one opens what is not to stay closed.
    let lock = runner.is_locked().then(|| runner.link().begin(Request::Lock));
    tokio::spawn(async move {
        if let Some(lock) = lock {
            let _ = lock.await;
        }
        // The link ends the process when the boundary is gone.
        while seed.look(runner.link()).await.is_ok() {
            match seed.locked() {
                Some(_) => tokio::time::sleep(LOOK_EVERY).await,
                None => seed.closes().await,
            }
        }
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Lock,
    Unlock,
}

/// Recorded before it is done; goes on if the caller does not wait.
pub(super) async fn change(
    runner: Arc<Runner>,
    seed: Seed,
    by: Requestor,
    change: Change,
    reason: String,
) -> Result<AxiomRef, Status> {
    if reason.len() > REASON_BYTES_MAX {
        let text = format!("`reason` has at most {REASON_BYTES_MAX} bytes, not {}", reason.len());
        return Err(Status::invalid_argument(text));
    }
    kit::uncancelled(async move {
        let (operation, done, request) = match change {
            Change::Lock => (ServiceOperation::Lock, KeyOperation::Lock, Request::Lock),
            Change::Unlock => (ServiceOperation::Unlock, KeyOperation::Unlock, Request::Arm),
        };
        let entry = commit(&runner, &by, operation, done, reason).await?;
        let answer = runner.link().ask(request).await.map_err(|error| failed(error.to_string()))?;
        seed.look(runner.link()).await.map_err(|error| failed(error.to_string()))?;
        match answer {
            Response::Locked | Response::Armed => Ok(entry),
            Response::Refused(refusal @ Refusal::HasSeed) => {
                Err(Status::failed_precondition(format!("there is nothing to unlock: {refusal}")))
            }
            Response::Refused(refusal) => Err(failed(refusal.to_string())),
            _ => Err(failed("the boundary answered another question".to_owned())),
        }
    })
    .await
}

fn failed(why: String) -> Status {
    KeyError::CryptoFailure(why).into()
}

async fn commit(
    runner: &Runner,
    by: &Requestor,
    operation: ServiceOperation,
    done: KeyOperation,
    reason: String,
) -> Result<AxiomRef, Status> {
    let node = runner.node();
    let action = PolicyAction::ControlService { service: KEYS.to_owned(), operation };
    let resource = ResourceRef { resource_type: ResourceType::Service, id: KEYS.to_owned() };
    let request = by.ask(node, action, resource)?;
    let path = format!("{}/{KEYS}", key_paths::SERVICES);
    let usage = KeyUsage {
        identity: by.id(),
        key_path: KeyPath::parse(&path).map_err(KeyError::from)?,
        operation: done,
        message_hash: None,
        // The entry's own: it is appended together with the decision.
        authorization: AxiomRef { sequence: Sequence(0), hash: Hash::ZERO },
        output_hash: None,
        refused: None,
        reason: Some(reason).filter(|reason| !reason.is_empty()),
        epoch: None,
        rotation: None,
    };
    let entry = Entry::for_request(node.identity(), &request, usage)?;
    let committed = node.authority().act(&request, entry).await?;
    committed.entry.ok_or_else(|| Status::internal("an act without an entry"))
}
