//! The authority channel of one service: batches of items in, batches of replies out.

use std::{pin::Pin, sync::Arc};

use base::{RuleId, Sequence};
use contracts::policy::v1::{
    AuthorityBatch, AuthorityItem, AuthorityReplies, AuthorityReply, Proposal, Refused, authority_item,
    authority_reply, authority_server::Authority,
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    PolicyService,
    engine::{Asked, Replies},
};
use crate::core::{Entry, Item};

/// Items of one message, as the contract says.
const BATCH_ITEMS_MAX: usize = 256;
/// Replies of one message.
const REPLIES_MAX: usize = 512;
/// Messages of replies that are not sent yet.
const MESSAGES_QUEUED_MAX: usize = 16;

pub(super) struct Channels(pub(super) Arc<PolicyService>);

type Outgoing = Pin<Box<dyn Stream<Item = Result<AuthorityReplies, Status>> + Send>>;

#[tonic::async_trait]
impl Authority for Channels {
    type ChannelStream = Outgoing;

    async fn channel(
        &self,
        request: Request<Streaming<AuthorityBatch>>,
    ) -> Result<Response<Outgoing>, Status> {
        let name = Arc::clone(&kit::caller(&request)?.client);
        let service = Arc::clone(&self.0);
        let mut batches = request.into_inner();
        let (replies, mut ready) = mpsc::unbounded_channel::<Vec<AuthorityReply>>();
        let (send, receive) = mpsc::channel(MESSAGES_QUEUED_MAX);
        let failures = send.clone();
        tokio::spawn(async move {
            while let Some(mut replies) = ready.recv().await {
                while replies.len() < REPLIES_MAX
                    && let Ok(more) = ready.try_recv()
                {
                    replies.extend(more);
                }
                while !replies.is_empty() {
                    let rest = replies.split_off(replies.len().min(REPLIES_MAX));
                    if send.send(Ok(AuthorityReplies { replies })).await.is_err() {
                        return;
                    }
                    replies = rest;
                }
            }
        });
        tokio::spawn(async move {
            let ended = loop {
                match batches.message().await {
                    Ok(Some(batch)) if batch.items.len() > BATCH_ITEMS_MAX => {
                        let text =
                            format!("a batch has at most {BATCH_ITEMS_MAX} items, not {}", batch.items.len());
                        break Some(Status::invalid_argument(text));
                    }
                    Ok(Some(batch)) => take_in(&service, &name, batch, &replies).await,
                    Ok(None) | Err(_) => break None,
                }
            };
            if let Some(status) = ended {
                let _ = failures.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }
}

async fn take_in(service: &PolicyService, name: &Arc<str>, batch: AuthorityBatch, replies: &Replies) {
    let mut together = Vec::with_capacity(batch.items.len());
    for AuthorityItem { id, item } in batch.items {
        match item.and_then(item_of) {
            Some(item) => {
                together.push(Asked { channel: Arc::clone(name), id, item, replies: replies.clone() });
            }
            None => {
                let refused = Refused {
                    reason: "InvalidRequest".to_owned(),
                    text: "the item is empty, lacks its entry or names no rule that can be".to_owned(),
                };
                let result = Some(authority_reply::Result::Refused(refused));
                let _ = replies.send(vec![AuthorityReply { id, result }]);
            }
        }
    }
    if !together.is_empty() {
        service.desk.ask(together).await;
    }
}

fn item_of(item: authority_item::Item) -> Option<Item> {
    let entry = |proposal: Proposal| Entry { entry_type: proposal.entry_type, payload: proposal.payload };
    Some(match item {
        authority_item::Item::Act(act) => {
            let (request, entry) = (act.request, entry(act.entry?));
            match act.rule {
                Some(rule) => Item::ActBy { request, entry, rule: RuleId::new(rule).ok()? },
                None => Item::Act { request, entry },
            }
        }
        authority_item::Item::Evaluate(request) => Item::Evaluate { request: request.request },
        authority_item::Item::Redeem(redeem) => {
            Item::Redeem { decision: Sequence(redeem.decision), entry: entry(redeem.entry?) }
        }
        authority_item::Item::Record(proposal) => Item::Record { entry: entry(proposal) },
        authority_item::Item::Preflight(request) => Item::Preflight { request: request.request },
        authority_item::Item::UseNow(request) => Item::UseNow { request: request.request },
    })
}
