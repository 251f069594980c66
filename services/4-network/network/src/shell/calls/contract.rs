//! Calls as the contract has them.

use std::sync::Arc;

use contracts::network::v1::{self as wire, fetch_upload_part::Part};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use super::{Asker, Network, fetch::FetchStream, lock, slots::Kind, web_socket_open::EventStream};
use crate::{
    core::{
        NetError,
        limits::{TIMEOUT_DEFAULT, time_limit_or_default},
    },
    shell::contract::Handlers,
};

fn misuse(text: &str) -> Status {
    NetError::invalid("part", text).into()
}

impl Handlers {
    /// Who asks, and of which class: by the socket, not by what is said (NET-65).
    fn asker<T>(&self, request: &Request<T>) -> Result<Asker, Status> {
        let requestor = kit::requestor(&self.0.node, request, true)?;
        let caller = kit::caller(request)?;
        let user = lock(&self.0.calls.fold).user(caller.channel_name(), caller.is_admin());
        Ok(Asker { requestor, user })
    }

    pub(in crate::shell) fn do_fetch(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<FetchStream>, Status> {
        let asker = self.asker(&request)?;
        Ok(Response::new(self.0.fetch(asker, request.into_inner(), None)?))
    }

    pub(in crate::shell) async fn do_fetch_upload(
        &self,
        request: Request<Streaming<wire::FetchUploadPart>>,
    ) -> Result<Response<FetchStream>, Status> {
        let asker = self.asker(&request)?;
        let taken = self.0.calls.slots.take(Kind::Upload, asker.requestor.id());
        let slot = taken.map_err(|error| NetError::TooMany(error.to_string()))?;
        let mut parts = request.into_inner();
        let first = timeout(TIMEOUT_DEFAULT, parts.message()).await;
        let first = first.map_err(|_| NetError::Timeout(TIMEOUT_DEFAULT.as_millis()))??;
        let Some(wire::FetchUploadPart { part: Some(Part::Request(mut fetch)) }) = first else {
            return Err(misuse("the request comes first"));
        };
        if !fetch.body.is_empty() {
            return Err(misuse("the body comes after the request"));
        }
        let most = self.0.calls.limits().request_bytes as usize;
        let collecting = async {
            while let Some(part) = parts.message().await? {
                let Some(Part::Body(data)) = part.part else { return Err(misuse("the request comes once")) };
                // One byte too many is enough to refuse it, and no more is kept.
                let room = most.saturating_add(1).saturating_sub(fetch.body.len());
                fetch.body.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
                if fetch.body.len() > most {
                    break;
                }
            }
            Ok(())
        };
        let limit = time_limit_or_default(fetch.timeout_ms);
        timeout(limit, collecting).await.map_err(|_| NetError::Timeout(limit.as_millis()))??;
        Ok(Response::new(self.0.fetch(asker, fetch, Some(slot))?))
    }

    pub(in crate::shell) fn do_web_socket_open(
        &self,
        request: Request<wire::WebSocketOpenRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let asker = self.asker(&request)?;
        Ok(Response::new(self.0.web_socket_open(asker, request.into_inner())?))
    }

    pub(in crate::shell) async fn do_web_socket_send(
        &self,
        request: Request<wire::WebSocketMessage>,
    ) -> Result<Response<wire::WebSocketSendReply>, Status> {
        let asker = self.asker(&request)?;
        let (network, message) = (Arc::clone(&self.0), request.into_inner());
        // A caller that goes away leaves no half of a message behind.
        kit::uncancelled(async move { network.web_socket_send(&asker, message).await }).await?;
        Ok(Response::new(wire::WebSocketSendReply {}))
    }

    pub(in crate::shell) async fn do_web_socket_close(
        &self,
        request: Request<wire::WebSocketCloseRequest>,
    ) -> Result<Response<wire::WebSocketCloseReply>, Status> {
        let asker = self.asker(&request)?;
        let (network, close) = (Arc::clone(&self.0), request.into_inner());
        kit::uncancelled(async move { network.web_socket_close(&asker, close).await }).await?;
        Ok(Response::new(wire::WebSocketCloseReply {}))
    }

    pub(in crate::shell) async fn do_resolve(
        &self,
        request: Request<wire::ResolveRequest>,
    ) -> Result<Response<wire::ResolveReply>, Status> {
        let asker = self.asker(&request)?;
        Ok(Response::new(self.0.resolve(&asker, request.get_ref()).await))
    }

    pub(in crate::shell) fn do_policy_query(
        &self,
        request: &Request<wire::PolicyQueryRequest>,
    ) -> Result<Response<wire::PolicyQueryReply>, Status> {
        let asker = self.asker(request)?;
        Ok(Response::new(self.0.policy_query(&asker, request.get_ref())?))
    }

    pub(in crate::shell) async fn do_policy_update(
        &self,
        request: Request<wire::NetworkPolicy>,
    ) -> Result<Response<wire::PolicyUpdateReply>, Status> {
        let asker = self.asker(&request)?;
        let (network, policy): (Arc<Network>, _) = (Arc::clone(&self.0), request.into_inner());
        kit::uncancelled(async move { network.policy_update(asker, policy).await }).await.map(Response::new)
    }
}
