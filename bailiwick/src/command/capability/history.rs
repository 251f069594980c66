//! What was granted, passed on and taken back, out of the log (CAP-41).

use std::collections::{HashMap, VecDeque};

use anyhow::Result;
use base::{CapabilityId, IdentityId};
use chain::payload::{Payload, capability::CapabilityGrant};
use contracts::{
    axiom::v1::{GetHeadRequest, RangeRequest},
    convert::to_name,
};
use serde::Serialize;

use crate::{
    args::{CapabilityOperation as Operation, Output},
    node::{Node, failed},
    output,
};

/// Genesis, CapabilityGrant, CapabilityRevoke.
const ENTRY_TYPES: [u32; 3] = [0, 10, 11];

pub(super) struct Filter {
    pub(super) capability: Option<CapabilityId>,
    pub(super) actor: Option<IdentityId>,
    pub(super) operation: Option<Operation>,
    /// From (inclusive) and to (exclusive), Axiom time.
    pub(super) since_ns: u64,
    pub(super) until_ns: u64,
    /// The newest are kept.
    pub(super) limit: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Event {
    sequence: u64,
    axiom_time_ns: u64,
    operation: Operation,
    capability: CapabilityId,
    /// What it was derived from.
    source: Option<CapabilityId>,
    actor: IdentityId,
    holder: Option<IdentityId>,
    resource: Option<String>,
    rights: Option<String>,
    reason: Option<String>,
}

/// Reads entries in order.
struct History {
    filter: Filter,
    /// Which was derived from which, for a revocation names only the root of what it takes.
    sources: HashMap<CapabilityId, Option<CapabilityId>>,
    /// The one asked for was taken back: what happens to those above it later is not its history.
    is_over: bool,
    events: VecDeque<Event>,
}

impl History {
    fn new(filter: Filter) -> Self {
        Self { filter, sources: HashMap::new(), is_over: false, events: VecDeque::new() }
    }

    fn take(&mut self, sequence: u64, axiom_time_ns: u64, payload: &Payload) {
        match payload {
            Payload::Genesis(genesis) => {
                for grant in &genesis.body.initial_capabilities {
                    self.granted(sequence, axiom_time_ns, grant);
                }
            }
            Payload::CapabilityGrant(grant) => self.granted(sequence, axiom_time_ns, &grant.body),
            Payload::CapabilityRevoke(revoke) => {
                let body = &revoke.body;
                let takes =
                    self.filter.capability.is_some_and(|asked| self.stands_below(asked, body.capability));
                let concerns = self.filter.capability.is_none() || (takes && !self.is_over);
                self.is_over |= takes;
                self.note(
                    concerns,
                    Event {
                        sequence,
                        axiom_time_ns,
                        operation: Operation::Revoke,
                        capability: body.capability,
                        source: None,
                        actor: body.by,
                        holder: None,
                        resource: None,
                        rights: None,
                        reason: Some(body.reason.clone()),
                    },
                );
            }
            _ => {}
        }
    }

    fn granted(&mut self, sequence: u64, axiom_time_ns: u64, grant: &CapabilityGrant) {
        let id = grant.capability_id;
        self.sources.insert(id, grant.parent);
        let concerns = self.filter.capability.is_none_or(|asked| asked == id || grant.parent == Some(asked));
        self.note(
            concerns,
            Event {
                sequence,
                axiom_time_ns,
                operation: if grant.parent.is_some() { Operation::Delegate } else { Operation::Grant },
                capability: id,
                source: grant.parent,
                actor: grant.grantor,
                holder: Some(grant.grantee),
                resource: Some(format!(
                    "{}:{}",
                    to_name(&grant.resource.object_type),
                    grant.resource.object_id
                )),
                rights: Some(super::letters(grant.permissions.into())),
                reason: None,
            },
        );
    }

    /// True for the root itself as well.
    fn stands_below(&self, id: CapabilityId, root: CapabilityId) -> bool {
        let above = |id: &CapabilityId| self.sources.get(id).copied().flatten();
        std::iter::successors(Some(id), above).any(|id| id == root)
    }

    fn note(&mut self, concerns: bool, event: Event) {
        let Filter { actor, operation, since_ns, until_ns, limit, .. } = &self.filter;
        let fits = actor.is_none_or(|actor| actor == event.actor)
            && operation.is_none_or(|operation| operation == event.operation)
            && (*since_ns..*until_ns).contains(&event.axiom_time_ns);
        if !concerns || !fits {
            return;
        }
        self.events.push_back(event);
        if self.events.len() > *limit {
            self.events.pop_front();
        }
    }
}

pub(super) async fn show(node: &Node, output: Output, filter: Filter) -> Result<()> {
    let mut history = History::new(filter);
    let head = node.axiom("system.axiom.get_head")?.get_head(GetHeadRequest {}).await;
    let first = head.map_err(failed)?.into_inner().first;
    if first > 0 {
        eprintln!(
            "bailiwick: what was granted and taken back before entry {first} is archived and not shown"
        );
    }
    let request = RangeRequest { from: first, to: u64::MAX, entry_types: ENTRY_TYPES.to_vec() };
    let mut axiom = node.axiom("system.axiom.range")?;
    let mut messages = axiom.range(request).await.map_err(failed)?.into_inner();
    while let Some(message) = messages.message().await.map_err(failed)? {
        for entry in message.entries {
            history.take(
                entry.sequence,
                entry.timestamp_ns,
                &Payload::decode(entry.entry_type, &entry.payload)?,
            );
        }
    }
    let events: Vec<Event> = history.events.into();
    output::show(output, &events, || {
        let or_empty = |id: Option<String>| id.unwrap_or_default();
        let cells = |event: &Event| {
            vec![
                event.sequence.to_string(),
                format!("{:?}", event.operation),
                event.capability.to_string(),
                or_empty(event.source.map(|source| source.to_string())),
                event.actor.to_string(),
                or_empty(event.resource.clone()),
                or_empty(event.rights.clone().or_else(|| event.reason.clone())),
            ]
        };
        output::table(
            &["ENTRY", "OPERATION", "CAPABILITY", "SOURCE", "BY", "RESOURCE", "RIGHTS OR REASON"],
            &events.iter().map(cells).collect::<Vec<_>>(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::EntryKey;
    use chain::payload::{
        Body, Envelope,
        capability::{CapabilityRevoke, ObjectType, Permissions, Resource},
    };

    fn id(byte: u8) -> CapabilityId {
        CapabilityId([byte; 16])
    }

    fn who(byte: u8) -> IdentityId {
        IdentityId([byte; 32])
    }

    fn envelope<T: Body>(body: T) -> Box<Envelope<T>> {
        Box::new(Envelope { submitter: who(0), key: EntryKey([0; 16]), authorization: None, body })
    }

    fn grant(capability: u8, parent: Option<u8>, by: u8) -> Payload {
        Payload::CapabilityGrant(envelope(CapabilityGrant {
            capability_id: id(capability),
            grantor: who(by),
            grantee: who(7),
            resource: Resource { object_type: ObjectType::File, object_id: "/a".to_owned() },
            permissions: Permissions { read: true, ..Permissions::default() },
            restrictions: None,
            parent: parent.map(id),
        }))
    }

    fn revoke(capability: u8, by: u8) -> Payload {
        let body = CapabilityRevoke { capability: id(capability), by: who(by), reason: "over".to_owned() };
        Payload::CapabilityRevoke(envelope(body))
    }

    /// Sequences of what is selected from a history of ten entries, one each nanosecond.
    fn selected(change: impl FnOnce(&mut Filter)) -> Vec<u64> {
        let mut filter = Filter {
            capability: None,
            actor: None,
            operation: None,
            since_ns: 0,
            until_ns: u64::MAX,
            limit: 100,
        };
        change(&mut filter);
        let mut history = History::new(filter);
        let entries = [
            grant(1, None, 1),
            grant(2, Some(1), 2),
            grant(3, Some(2), 3),
            grant(4, None, 1),
            revoke(4, 2),
            revoke(2, 1),
            revoke(1, 1),
        ];
        for (at, payload) in (0..).zip(&entries) {
            history.take(at, 100 + at, payload);
        }
        history.events.iter().map(|event| event.sequence).collect()
    }

    /// covers: CAP-41
    #[test]
    fn a_history_is_filtered_by_capability_actor_operation_time_and_number() {
        assert_eq!(selected(|_| ()), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(selected(|filter| filter.capability = Some(id(1))), [0, 1, 6]);
        assert_eq!(
            selected(|filter| filter.capability = Some(id(3))),
            [2, 5],
            "it fell with its source, once"
        );
        assert_eq!(selected(|filter| filter.capability = Some(id(9))), [0; 0]);
        assert_eq!(selected(|filter| filter.actor = Some(who(2))), [1, 4]);
        assert_eq!(selected(|filter| filter.operation = Some(Operation::Grant)), [0, 3]);
        assert_eq!(selected(|filter| filter.operation = Some(Operation::Delegate)), [1, 2]);
        assert_eq!(selected(|filter| filter.operation = Some(Operation::Revoke)), [4, 5, 6]);
        assert_eq!(selected(|filter| (filter.since_ns, filter.until_ns) = (102, 104)), [2, 3]);
        assert_eq!(selected(|filter| filter.limit = 2), [5, 6]);
    }

    /// covers: CAP-41
    #[test]
    fn an_event_tells_who_did_what_from_which_source() {
        let mut history = History::new(Filter {
            capability: None,
            actor: None,
            operation: None,
            since_ns: 0,
            until_ns: u64::MAX,
            limit: 1,
        });
        history.take(5, 50, &grant(2, Some(1), 3));
        let json = serde_json::to_value(&history.events).unwrap();
        assert_eq!((&json[0]["operation"], &json[0]["resource"]), (&"Delegate".into(), &"file:/a".into()));
        let (source, actor) = (id(1).to_string(), who(3).to_string());
        assert_eq!((&json[0]["source"], &json[0]["actor"]), (&source.into(), &actor.into()));
        assert_eq!((&json[0]["rights"], &json[0]["axiom_time_ns"]), (&"r".into(), &50.into()));
    }
}
