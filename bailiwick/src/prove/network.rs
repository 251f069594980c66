//! Section `network`: what policy denies sends nothing, what it allows is on record first, and what is taken back is cut
//! while it carries. To peers in this process, on this host's loopback; needs no internet.

use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use contracts::network::v1 as pb;
use rustix::process::{Signal, kill_process};
use tonic::Code;

use super::{Context, Section, Site, attack, hold_still, peer::Peer, urls};
use crate::node::{Node, failed, runtime};

/// Long enough for a packet on this host to arrive.
pub(super) const QUIET: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(10);
const WAIT_MS: u32 = 10_000;
/// A cut that takes longer is none.
const CUT_WITHIN: Duration = Duration::from_secs(1);
/// Connections that are revoked while they carry.
const CUTS: usize = 10;

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("network");
    let site = context.site()?;
    let runtime = runtime()?;
    let peer = Peer::new()?;
    denied(&mut section, site, &peer, &runtime)?;
    on_record_first(&mut section, site, &peer, &runtime)?;
    let node = site.node()?;
    runtime.block_on(async {
        odd_addresses(&mut section, &node).await?;
        urls::special(&mut section, &node, &peer).await?;
        cut(&mut section, &node, &peer).await
    })?;
    Ok(section)
}

fn wire(ip: IpAddr, port: u16) -> pb::Address {
    let ip = match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    pb::Address { ip, port: u32::from(port), ..pb::Address::default() }
}

async fn socket(node: &Node, domain: &str) -> Result<u64> {
    let request = pb::SocketRequest { domain: domain.to_owned(), socket_type: "stream".to_owned() };
    let mut calls = node.network("system.network.socket").await?;
    Ok(calls.socket(request).await.map_err(failed)?.into_inner().socket)
}

async fn connect(
    node: &Node,
    socket: u64,
    address: pb::Address,
) -> Result<Result<pb::ConnectReply, tonic::Status>> {
    let request = pb::ConnectRequest { socket, address: Some(address), timeout_ms: WAIT_MS };
    let mut calls = node.network("system.network.connect").await?;
    Ok(calls.connect(request).await.map(tonic::Response::into_inner))
}

/// A rule forbids one address to everybody.
fn denied(section: &mut Section, site: &Site, peer: &Peer, runtime: &tokio::runtime::Runtime) -> Result<()> {
    let rule = format!(
        "[[rule]]\nid = \"prove-network\"\nname = \"not there\"\npriority = 2000\neffect = \"Deny\"\n\
         condition = {{ resource = {{ exact = {{ type = \"network\", id = \"{}\" }} }} }}\n",
        peer.place
    );
    let file = site.folder("network")?.join("rule.toml");
    std::fs::write(&file, rule).with_context(|| format!("writing {}", file.display()))?;
    site.done(&["policy", "add", &file.to_string_lossy()])?;
    let node = site.node()?;
    let refused = runtime.block_on(async {
        let socket = socket(&node, "inet").await?;
        connect(&node, socket, wire(peer.place.ip(), peer.place.port())).await
    })?;
    attack(section, refused.is_ok(), "a connect that a rule denies was made");
    section.check(
        refused.err().is_some_and(|status| status.code() == Code::PermissionDenied),
        "a denied connect is not said to be denied",
    );
    attack(section, peer.accept(QUIET).is_some(), "a denied connect sent a packet");
    site.done(&["policy", "remove", "prove-network"])?;
    Ok(())
}

/// The log stands still, so nothing can be on record, so nothing may leave.
fn on_record_first(
    section: &mut Section,
    site: &Site,
    peer: &Peer,
    runtime: &tokio::runtime::Runtime,
) -> Result<()> {
    let node = site.node()?;
    let socket = runtime.block_on(socket(&node, "inet"))?;
    let pid = site.pid("axiom")?;
    let address = wire(peer.place.ip(), peer.place.port());
    let (early, connected) = std::thread::scope(|scope| {
        // The token is asked for before anything stands still.
        let token = runtime.block_on(node.token());
        hold_still(section, pid)?;
        let connecting = scope.spawn(|| runtime.block_on(connect(&node, socket, address)));
        let early = peer.accept(QUIET);
        kill_process(pid, Signal::CONT).context("letting axiom go on")?;
        token?;
        match connecting.join() {
            Ok(connected) => anyhow::Ok((early, connected?)),
            Err(_) => bail!("the thread that connects has died"),
        }
    })?;
    attack(section, early.is_some(), "a connection was made while nothing could be recorded");
    section.check(connected.is_ok(), "a connect was not made once the log went on");
    if early.is_none() && connected.is_ok() {
        section.check(peer.accept(LIMIT).is_some(), "a connect that was allowed did not arrive");
    }
    Ok(())
}

/// Forms in which an address could pass by the rules about it.
async fn odd_addresses(section: &mut Section, node: &Node) -> Result<()> {
    let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    let odd = [
        ("inet6", wire(mapped, 80), "IPv4 in the clothes of IPv6"),
        ("inet", wire(Ipv6Addr::LOCALHOST.into(), 80), "IPv6 on a socket of IPv4"),
        ("inet", pb::Address { ip: vec![127, 0, 0], port: 80, ..pb::Address::default() }, "three bytes"),
        (
            "inet",
            pb::Address { ip: vec![127, 0, 0, 1], port: 65_536, ..pb::Address::default() },
            "a port too high",
        ),
    ];
    for (domain, address, what) in odd {
        let socket = socket(node, domain).await?;
        let taken = connect(node, socket, address).await?.err().map(|status| status.code());
        attack(section, taken != Some(Code::InvalidArgument), &format!("{what} was taken for an address"));
    }
    let request = pb::SocketRequest { domain: "inet".to_owned(), socket_type: "raw".to_owned() };
    let raw = node.network("system.network.socket").await?.socket(request).await;
    attack(section, raw.is_ok(), "a raw socket was made");
    Ok(())
}

async fn cut(section: &mut Section, node: &Node, peer: &Peer) -> Result<()> {
    let mut worst = Duration::ZERO;
    for _ in 0..CUTS {
        let socket = socket(node, "inet").await?;
        let address = wire(peer.place.ip(), peer.place.port());
        let connected = connect(node, socket, address).await?.map_err(failed)?;
        let mut stream = peer.accept(LIMIT).context("a connect that was allowed did not arrive")?;
        stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(CUT_WITHIN)))
            .context("the peer")?;
        let request = pb::RevokeRequest { connection: connected.connection, reason: "prove".to_owned() };
        let since = Instant::now();
        node.network("system.network.revoke").await?.revoke(request).await.map_err(failed)?;
        let end = tokio::task::spawn_blocking(move || stream.read(&mut [0; 1]).map_err(|error| error.kind()));
        let end = end.await.context("the thread that reads has died")?;
        worst = worst.max(since.elapsed());
        attack(section, end != Err(ErrorKind::ConnectionReset), "a revoked connection went on");
        let request = pb::SendRequest { socket, data: vec![1], timeout_ms: WAIT_MS };
        let sent = node.network("system.network.send").await?.send(request).await;
        attack(section, sent.is_ok(), "something was sent on a revoked connection");
    }
    section.count("slowest_cut_ms", u64::try_from(worst.as_millis()).unwrap_or(u64::MAX));
    Ok(())
}
