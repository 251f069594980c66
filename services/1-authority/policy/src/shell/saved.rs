//! What the engine goes on from: what the last process wrote down, if the log has the entry that it ends with.

use base::Sequence;
use kit::{BoxError, Node, snapshot::Snapshots};
use minicbor::{Decode, Encode};

use super::log;
use crate::core::PolicyState;

/// Engine and kit fold apart from each other, so what is the engine's names its own last entry.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct Saved {
    #[cbor(n(0), with = "minicbor::bytes")]
    state: Vec<u8>,
    /// For `why last`.
    #[n(1)]
    last_denial: Option<Sequence>,
}

pub(super) fn save(state: &PolicyState, last_denial: Option<Sequence>) -> Vec<u8> {
    state.save().map(|state| base::cbor::encode(&Saved { state, last_denial })).unwrap_or_default()
}

/// A state to fold on from, and the last denial in it. An error means that the log cannot be asked.
pub(super) async fn begin(
    node: &Node,
    snapshots: Option<&Snapshots>,
) -> Result<(PolicyState, Option<Sequence>), BoxError> {
    let Some((snapshots, own)) = snapshots.and_then(|all| Some((all, all.own()?))) else {
        return Ok(Default::default());
    };
    let (state, last_denial) = match read(&own) {
        Ok(read) => read,
        Err(error) => {
            snapshots.refuse(&error);
            return Ok(Default::default());
        }
    };
    if let Some(last) = state.last()
        && !log::has(node, last).await?
    {
        snapshots.refuse(&format!("the log has no entry {last}"));
        return Ok(Default::default());
    }
    Ok((state, last_denial))
}

fn read(own: &[u8]) -> Result<(PolicyState, Option<Sequence>), BoxError> {
    let Saved { state, last_denial } = base::cbor::decode(own)?;
    Ok((PolicyState::restore(&state)?, last_denial))
}
