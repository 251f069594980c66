//! Any bytes as the metadata in which an operation context travels.
//!
//! Strategy: the first byte says whether the operation is public, the rest is the header. A dictionary has the members.
//! Invariants: a refusal is one line; what is accepted is written back as ASCII within the limit and reads as the same
//! context; what is complete for an operation is complete for a public one; a local context names its requester unless
//! the operation is public, and can be enriched, keeping everybody it names; a remote one names nobody of this node.

use kit::{
    OperationContext, Origin,
    context::{CONTEXT_BYTES_MAX, ContextFields},
};

pub fn run(input: &[u8]) -> bool {
    let Some((public, header)) = input.split_first() else { return false };
    let public = public % 2 == 1;
    match OperationContext::parse(header, public) {
        Ok(context) => {
            accepted(&context, public);
            true
        }
        Err(error) => {
            super::check::one_line(&error);
            false
        }
    }
}

fn accepted(context: &OperationContext, public: bool) {
    let header = context.to_header();
    assert!(header.len() <= CONTEXT_BYTES_MAX && header.is_ascii() && !header.contains(char::is_control));
    for also in [public, true] {
        assert_eq!(OperationContext::parse(header.as_bytes(), also).as_ref(), Ok(context));
    }
    let richer = context.with_capability("system.axiom.read");
    if context.origin() == Origin::Remote {
        assert!(richer.is_err());
        assert_eq!((context.requester(), context.device(), context.delegated_key()), (None, None, None));
        return;
    }
    assert!(public || context.requester().is_some());
    let kept = |fields: &ContextFields| ContextFields { capability: None, ..fields.clone() };
    assert_eq!(richer.map(|richer| kept(richer.fields())), Ok(kept(context.fields())));
}
