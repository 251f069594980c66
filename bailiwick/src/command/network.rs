//! `network`: what is connected, and the calls in `network/`.

mod fetch;
mod rules;

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use anyhow::{Context, Result};
use base::{ConnectionId, IdentityId};
use contracts::{convert::bytes, driver_manager::v1 as devices, network::v1 as pb};
use serde::Serialize;

use crate::{
    args::{Network, Output, RulesChange},
    node::{Node, failed},
    output,
};

pub async fn run(node: &Node, output: Output, command: Network) -> Result<()> {
    match command {
        Network::Flows => flows(node, output).await,
        Network::Interfaces => interfaces(node, output).await,
        Network::Revoke { connection, reason } => revoke(node, output, &connection, reason).await,
        Network::Fetch(fetch) => fetch::run(node, output, fetch).await,
        Network::Resolve { name } => fetch::resolve(node, output, name).await,
        Network::Rules { change: None } => rules::show(node, output).await,
        Network::Rules { change: Some(RulesChange::Set { file }) } => rules::set(node, output, &file).await,
        Network::Test { url, whom, address } => {
            rules::test(node, output, url, whom.unwrap_or_default(), address).await
        }
    }
}

#[derive(Serialize)]
struct Flow {
    socket: u64,
    domain: String,
    socket_type: String,
    state: String,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    owner: IdentityId,
    connection: Option<ConnectionId>,
    /// Entry of the log that authorised it.
    entry: Option<u64>,
    sent_bytes: u64,
    received_bytes: u64,
    /// The program of `run` whose it is; none for any other's.
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<u64>,
    /// The service whose program it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    /// By which the peer was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Name of the secret that is put into what goes there.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

fn address(address: pb::Address) -> Option<SocketAddr> {
    let port = u16::try_from(address.port).ok()?;
    match <[u8; 4]>::try_from(address.ip.as_slice()) {
        Ok(v4) => Some(SocketAddr::new(IpAddr::from(v4), port)),
        Err(_) => {
            let v6 = <[u8; 16]>::try_from(address.ip.as_slice()).ok()?;
            Some(SocketAddrV6::new(v6.into(), port, address.flowinfo, address.scope_id).into())
        }
    }
}

async fn flows(node: &Node, output: Output) -> Result<()> {
    let mut network = node.network("system.network.list").await?;
    let (mut sockets, mut after) = (Vec::new(), 0);
    loop {
        let page = network.list(pb::ListRequest { after: Some(after) }).await.map_err(failed)?.into_inner();
        let last = page.sockets.last().map(|info| info.socket);
        sockets.extend(page.sockets);
        match last.filter(|_| page.more) {
            Some(last) => after = last,
            None => break,
        }
    }
    let flow = |info: pb::SocketInfo| {
        Ok(Flow {
            owner: IdentityId(bytes("owner", &info.owner)?),
            connection: ConnectionId::from_slice(&info.connection),
            entry: info.authorized.map(|at| at.sequence),
            local: info.local.and_then(address),
            remote: info.remote.and_then(address),
            socket: info.socket,
            domain: info.domain,
            socket_type: info.socket_type,
            state: info.state,
            sent_bytes: info.sent_bytes,
            received_bytes: info.received_bytes,
            process: Some(info.process).filter(|process| *process > 0),
            service: Some(info.service).filter(|service| !service.is_empty()),
            name: Some(info.name).filter(|name| !name.is_empty()),
            secret: Some(info.secret).filter(|secret| !secret.is_empty()),
        })
    };
    let flows = sockets.into_iter().map(flow).collect::<Result<Vec<Flow>>>()?;
    output::show(output, &flows, || {
        let text =
            |address: Option<SocketAddr>| address.map_or_else(|| "-".to_owned(), |known| known.to_string());
        let row = |flow: &Flow| {
            vec![
                flow.connection.map_or_else(|| "-".to_owned(), |connection| connection.to_string()),
                flow.state.clone(),
                text(flow.local),
                match flow.socket_type.as_str() {
                    "datagram" => format!("{}/udp", text(flow.remote)),
                    _ => text(flow.remote),
                },
                flow.name.clone().unwrap_or_else(|| "-".to_owned()),
                flow.secret.clone().unwrap_or_else(|| "-".to_owned()),
                output::size(flow.sent_bytes),
                output::size(flow.received_bytes),
                flow.entry.map_or_else(|| "-".to_owned(), |entry| entry.to_string()),
                match (&flow.service, flow.process) {
                    (Some(service), _) => service.clone(),
                    (None, process) => process.map_or_else(|| "-".to_owned(), |process| process.to_string()),
                },
                flow.owner.to_string(),
            ]
        };
        let head = [
            "CONNECTION",
            "STATE",
            "LOCAL",
            "REMOTE",
            "NAME",
            "SECRET",
            "SENT",
            "RECEIVED",
            "ENTRY",
            "PROGRAM",
            "OWNER",
        ];
        output::table(&head, &flows.iter().map(row).collect::<Vec<_>>())
    })
}

#[derive(Serialize)]
struct Interface {
    index: u32,
    name: String,
    kind: String,
    up: bool,
    running: bool,
    usable: bool,
    mtu: u32,
    hardware_address: String,
    addresses: Vec<String>,
}

async fn interfaces(node: &Node, output: Output) -> Result<()> {
    let mut manager = node.devices("system.driver_manager.list_interfaces").await?;
    let request = devices::ListInterfacesRequest { only_usable: false };
    let list = manager.list_interfaces(request).await.map_err(failed)?.into_inner().interfaces;
    let interface = |one: devices::Interface| Interface {
        index: one.index,
        name: one.name,
        kind: one.kind,
        up: one.up,
        running: one.running,
        usable: one.usable,
        mtu: one.mtu,
        hardware_address: one.hardware_address,
        addresses: one.addresses,
    };
    let list: Vec<Interface> = list.into_iter().map(interface).collect();
    output::show(output, &list, || {
        let row = |one: &Interface| {
            let state = match (one.usable, one.up) {
                (true, _) => "usable",
                (false, true) => "up",
                (false, false) => "down",
            };
            vec![
                one.name.clone(),
                one.kind.clone(),
                state.to_owned(),
                one.mtu.to_string(),
                one.addresses.join(" "),
            ]
        };
        output::table(
            &["NAME", "KIND", "STATE", "MTU", "ADDRESSES"],
            &list.iter().map(row).collect::<Vec<_>>(),
        )
    })
}

#[derive(Serialize)]
struct Revoked {
    connection: ConnectionId,
    entry: Option<u64>,
}

async fn revoke(node: &Node, output: Output, connection: &str, reason: String) -> Result<()> {
    let connection: ConnectionId =
        connection.parse().context("the connection, as `network flows` shows it")?;
    let mut network = node.network("system.network.revoke").await?;
    let request = pb::RevokeRequest { connection: connection.0.to_vec(), reason };
    let reply = network.revoke(request).await.map_err(failed)?.into_inner();
    let done = Revoked { connection, entry: reply.revoked_at.map(|at| at.sequence) };
    output::show(output, &done, || {
        let entry = done.entry.map_or_else(String::new, |entry| format!(", entry {entry}"));
        format!("connection {connection} is cut{entry}\n")
    })
}
