//! Rotation: a key path goes to its next epoch, decided and recorded (KEY-36).

use std::{sync::Arc, time::Duration};

use base::{AxiomRef, Hash, KeyPath, Sequence};
use chain::payload::{
    identity::{KeyOperation, KeyRotation, KeyUsage},
    policy::{PolicyAction, ResourceRef, ResourceType},
};
use kit::{Requestor, authority::Entry};
use tonic::Status;

use super::run::Runner;
use crate::core::KeyError;

/// Bytes of the reason, as the contract says.
const REASON_BYTES_MAX: usize = 1024;
/// How long the own fold may take to know of a rotation that was committed.
const FOLD_WAIT: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(super) async fn rotate(
    runner: Arc<Runner>,
    by: Requestor,
    path: KeyPath,
    reason: String,
) -> Result<(AxiomRef, u32), Status> {
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
        let text = format!("`reason` has 1 to {REASON_BYTES_MAX} bytes, not {}", reason.len());
        return Err(Status::invalid_argument(text));
    }
    kit::uncancelled(async move {
        // One at a time: the next one begins where this one has led.
        let _turn = runner.rotating().lock().await;
        let (old_epoch, new_epoch) = runner.next_epoch(&path)?;
        // A path that has no key at all, or a seed that is locked, is told before anybody decides.
        runner.public_keys(path.clone(), None).await?;
        let resource = ResourceRef { resource_type: ResourceType::Key, id: path.to_string() };
        let request = by.ask(runner.node(), PolicyAction::RotateKey { key_path: path.clone() }, resource)?;
        let rotation = KeyRotation {
            old_path: path.clone(),
            old_epoch,
            new_path: path.clone(),
            new_epoch,
            rotated_by: by.id(),
            reason,
        };
        let usage = KeyUsage {
            identity: by.id(),
            key_path: path.clone(),
            operation: KeyOperation::Rotate,
            message_hash: None,
            // The entry's own: it is appended together with the decision.
            authorization: AxiomRef { sequence: Sequence(0), hash: Hash::ZERO },
            output_hash: None,
            refused: None,
            reason: None,
            epoch: None,
            rotation: Some(rotation),
        };
        let entry = Entry::for_request(runner.node().identity(), &request, usage)?;
        let committed = runner.node().authority().act(&request, entry).await?;
        let entry = committed.entry.ok_or_else(|| Status::internal("an act without an entry"))?;
        let folded = async {
            while runner.epoch(&path) < new_epoch {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let in_time = tokio::time::timeout(FOLD_WAIT, folded).await;
        in_time.map_err(|_| Status::from(KeyError::AuditUnavailable))?;
        Ok((entry, new_epoch))
    })
    .await
}
