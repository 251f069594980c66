//! The `Network` contract.

use std::{sync::Arc, sync::atomic::Ordering};

use base::{ConnectionId, IdentityId, limits::MESSAGE_BYTES_MAX};
use contracts::{
    convert::bytes,
    network::v1::{self as wire, network_server::Network as Contract},
    way_out::Message as _,
};
use kit::Requestor;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Network,
    calls::{EventStream, FetchStream},
    live::Live,
    program::service_of,
    transfer::wanted,
};
use crate::core::{
    Domain, NetError, SocketId, SocketOption, SocketType, check_value,
    limits::{REASON_BYTES_MAX, time_limit},
    to_wire,
};

/// Sockets in one answer: as many as fit, and no more than this.
const LISTED_MAX: usize = 4096;
/// Bytes around one of them.
const FRAMING_BYTES: usize = 8;

pub(super) struct Handlers(pub(super) Arc<Network>);

impl Network {
    /// Of all, or of those after one, as many as fit into an answer.
    fn list(&self, owner: Option<IdentityId>, after: Option<u64>) -> Result<wire::SocketList, NetError> {
        self.registry.read(|sockets, live| {
            let (page, mut more) = sockets.page(owner, SocketId(after.unwrap_or(0)), LISTED_MAX);
            let (mut listed, mut room) = (Vec::new(), MESSAGE_BYTES_MAX);
            for (id, record) in page {
                let counted = |read: fn(&Live) -> u64| live.get(&id).map_or(0, |live| read(live));
                let connection = record.connection.as_ref();
                let info = wire::SocketInfo {
                    socket: id.0,
                    domain: record.domain.name().to_owned(),
                    socket_type: record.socket_type.name().to_owned(),
                    state: record.state.name().to_owned(),
                    local: record.local.map(to_wire),
                    remote: record.remote.map(to_wire),
                    owner: record.owner.0.to_vec(),
                    connection: connection.map(|known| known.id.0.to_vec()).unwrap_or_default(),
                    authorized: connection.map(|known| known.at.into()),
                    sent_bytes: counted(|live| live.sent_bytes.load(Ordering::Relaxed)),
                    received_bytes: counted(|live| live.received_bytes.load(Ordering::Relaxed)),
                    process: record.process.0,
                    service: service_of(&record.client).unwrap_or_default().to_owned(),
                    name: record.name.as_ref().map(ToString::to_string).unwrap_or_default(),
                    secret: record.secret.clone().unwrap_or_default(),
                };
                match room.checked_sub(info.encoded_len() + FRAMING_BYTES) {
                    Some(left) => room = left,
                    None => {
                        more = true;
                        break;
                    }
                }
                listed.push(info);
            }
            if more && after.is_none() {
                let why = "there are more sockets than fit into one answer; ask for pages of them (`after`)";
                return Err(NetError::TooMany(why.to_owned()));
            }
            Ok(wire::SocketList { sockets: listed, more })
        })
    }
}

impl Handlers {
    fn requestor<T>(&self, request: &Request<T>) -> Result<Requestor, Status> {
        Ok(kit::requestor(&self.0.node, request, true)?)
    }
}

#[tonic::async_trait]
impl Contract for Handlers {
    async fn socket(
        &self,
        request: Request<wire::SocketRequest>,
    ) -> Result<Response<wire::SocketReply>, Status> {
        let owner = self.requestor(&request)?.id();
        let domain = Domain::parse(&request.get_ref().domain)?;
        let socket_type = SocketType::parse(&request.get_ref().socket_type)?;
        let live =
            Live::fresh(domain, socket_type).map_err(|error| NetError::of_io(&error, "making a socket"))?;
        let client = kit::caller(&request)?.channel_name().to_owned();
        let id = self.0.registry.create(owner, &client, domain, socket_type, live)?;
        Ok(Response::new(wire::SocketReply { socket: id.0 }))
    }

    async fn bind(&self, request: Request<wire::BindRequest>) -> Result<Response<wire::BindReply>, Status> {
        let (network, requestor) = (Arc::clone(&self.0), self.requestor(&request)?);
        let wire::BindRequest { socket, address } = request.into_inner();
        kit::uncancelled(async move { network.bind(&requestor, SocketId(socket), address).await })
            .await
            .map(Response::new)
    }

    async fn listen(
        &self,
        request: Request<wire::ListenRequest>,
    ) -> Result<Response<wire::ListenReply>, Status> {
        let (network, requestor) = (Arc::clone(&self.0), self.requestor(&request)?);
        let wire::ListenRequest { socket, backlog } = request.into_inner();
        kit::uncancelled(async move { network.listen(&requestor, SocketId(socket), backlog).await })
            .await
            .map(Response::new)
    }

    async fn accept(
        &self,
        request: Request<wire::AcceptRequest>,
    ) -> Result<Response<wire::AcceptReply>, Status> {
        let (network, requestor) = (Arc::clone(&self.0), self.requestor(&request)?);
        let client = kit::caller(&request)?.channel_name().to_owned();
        let wire::AcceptRequest { socket, timeout_ms } = request.into_inner();
        network.accept(&requestor, &client, SocketId(socket), timeout_ms).await.map(Response::new)
    }

    async fn connect(
        &self,
        request: Request<wire::ConnectRequest>,
    ) -> Result<Response<wire::ConnectReply>, Status> {
        let (network, requestor) = (Arc::clone(&self.0), self.requestor(&request)?);
        let wire::ConnectRequest { socket, address, timeout_ms } = request.into_inner();
        kit::uncancelled(
            async move { network.connect(&requestor, SocketId(socket), address, timeout_ms).await },
        )
        .await
        .map(Response::new)
    }

    async fn send(&self, request: Request<wire::SendRequest>) -> Result<Response<wire::SendReply>, Status> {
        let owner = self.requestor(&request)?.id();
        Ok(Response::new(self.0.send(owner, request.get_ref()).await?))
    }

    async fn recv(&self, request: Request<wire::RecvRequest>) -> Result<Response<wire::RecvReply>, Status> {
        let owner = self.requestor(&request)?.id();
        Ok(Response::new(wire::RecvReply { data: self.0.recv(owner, request.into_inner()).await? }))
    }

    async fn close(
        &self,
        request: Request<wire::CloseRequest>,
    ) -> Result<Response<wire::CloseReply>, Status> {
        let owner = self.requestor(&request)?.id();
        let id = SocketId(request.get_ref().socket);
        self.0.registry.read(|sockets, _| sockets.find(id, owner).map(drop))?;
        if let Some(live) = self.0.registry.remove(id) {
            live.close();
        }
        Ok(Response::new(wire::CloseReply {}))
    }

    async fn send_to(
        &self,
        request: Request<wire::SendToRequest>,
    ) -> Result<Response<wire::SendReply>, Status> {
        let (network, requestor) = (Arc::clone(&self.0), self.requestor(&request)?);
        let wanted = request.into_inner();
        kit::uncancelled(async move { network.send_to(&requestor, wanted).await }).await.map(Response::new)
    }

    async fn recv_from(
        &self,
        request: Request<wire::RecvFromRequest>,
    ) -> Result<Response<wire::RecvFromReply>, Status> {
        let owner = self.requestor(&request)?.id();
        let wire::RecvFromRequest { socket, max_bytes, timeout_ms } = request.into_inner();
        let id = SocketId(socket);
        let (record, _) = self.0.registry.find(id, owner)?;
        if record.socket_type != SocketType::Datagram {
            return Err(NetError::invalid("socket", "of a stream it is known who sends").into());
        }
        let (most, limit) = (wanted(max_bytes)?, time_limit(timeout_ms));
        let (data, peer) = self.0.recv_datagram(id, owner, most, limit).await?;
        Ok(Response::new(wire::RecvFromReply { data, peer: Some(to_wire(peer)) }))
    }

    async fn get_option(
        &self,
        request: Request<wire::GetOptionRequest>,
    ) -> Result<Response<wire::OptionValue>, Status> {
        let owner = self.requestor(&request)?.id();
        let option = SocketOption::parse(&request.get_ref().name)?;
        let (record, live) = self.0.registry.find(SocketId(request.get_ref().socket), owner)?;
        Ok(Response::new(wire::OptionValue { value: live.option(option, record.domain)? }))
    }

    async fn set_option(
        &self,
        request: Request<wire::SetOptionRequest>,
    ) -> Result<Response<wire::OptionValue>, Status> {
        let owner = self.requestor(&request)?.id();
        let wire::SetOptionRequest { socket, name, value } = request.into_inner();
        let option = SocketOption::parse(&name)?;
        check_value(option, value)?;
        let (record, live) = self.0.registry.find(SocketId(socket), owner)?;
        live.set_option(option, value, record.domain, record.socket_type)?;
        Ok(Response::new(wire::OptionValue { value: live.option(option, record.domain)? }))
    }

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<wire::SocketList>, Status> {
        let owner = self.requestor(&request)?.id();
        let sees_all = self.0.node.local().genesis_admin() == Some(owner);
        let after = request.get_ref().after;
        // Once for all pages.
        if after.unwrap_or(0) == 0 {
            for program in self.0.all_programs() {
                self.0.look_for_gone(&program).await;
            }
        }
        Ok(Response::new(self.0.list((!sees_all).then_some(owner), after)?))
    }

    async fn revoke(
        &self,
        request: Request<wire::RevokeRequest>,
    ) -> Result<Response<wire::RevokeReply>, Status> {
        let (network, requestor) = (Arc::clone(&self.0), self.requestor(&request)?);
        let wire::RevokeRequest { connection, reason } = request.into_inner();
        let id = bytes("connection", &connection)
            .map(ConnectionId)
            .map_err(|error| NetError::invalid("connection", error.to_string()))?;
        if reason.len() > REASON_BYTES_MAX {
            return Err(NetError::invalid("reason", format!("above {REASON_BYTES_MAX} bytes")).into());
        }
        let is_admin = network.node.local().genesis_admin() == Some(requestor.id());
        // Of another's connection it is not even told that it exists.
        let is_there = network.registry.read(|sockets, _| {
            sockets.by_connection(&id).is_some_and(|(_, record)| is_admin || record.owner == requestor.id())
        });
        if !is_there {
            return Err(NetError::ConnectionNotFound(id).into());
        }
        kit::uncancelled(async move {
            let at = network.revoke(&requestor, id, reason).await?;
            // The fold cuts; who is answered can rely on it.
            network.folded(at.sequence).await?;
            if !network.cut_is_done().await {
                return Err(Status::unavailable(format!(
                    "it is revoked ({at}), and something of a program still has it; look at `network flows`, and end the program"
                )));
            }
            Ok(Response::new(wire::RevokeReply { revoked_at: Some(at.into()) }))
        })
        .await
    }

    type FetchStream = FetchStream;

    async fn fetch(&self, request: Request<wire::FetchRequest>) -> Result<Response<FetchStream>, Status> {
        self.do_fetch(request)
    }

    type FetchUploadStream = FetchStream;

    async fn fetch_upload(
        &self,
        request: Request<Streaming<wire::FetchUploadPart>>,
    ) -> Result<Response<FetchStream>, Status> {
        self.do_fetch_upload(request).await
    }

    type WebSocketOpenStream = EventStream;

    async fn web_socket_open(
        &self,
        request: Request<wire::WebSocketOpenRequest>,
    ) -> Result<Response<EventStream>, Status> {
        self.do_web_socket_open(request)
    }

    async fn web_socket_send(
        &self,
        request: Request<wire::WebSocketMessage>,
    ) -> Result<Response<wire::WebSocketSendReply>, Status> {
        self.do_web_socket_send(request).await
    }

    async fn web_socket_close(
        &self,
        request: Request<wire::WebSocketCloseRequest>,
    ) -> Result<Response<wire::WebSocketCloseReply>, Status> {
        self.do_web_socket_close(request).await
    }

    async fn resolve(
        &self,
        request: Request<wire::ResolveRequest>,
    ) -> Result<Response<wire::ResolveReply>, Status> {
        self.do_resolve(request).await
    }

    async fn policy_query(
        &self,
        request: Request<wire::PolicyQueryRequest>,
    ) -> Result<Response<wire::PolicyQueryReply>, Status> {
        self.do_policy_query(&request)
    }

    async fn policy_update(
        &self,
        request: Request<wire::NetworkPolicy>,
    ) -> Result<Response<wire::PolicyUpdateReply>, Status> {
        self.do_policy_update(request).await
    }
}
