//! Part of section `network`: URLs that lead to where nobody named a place.

use anyhow::Result;
use contracts::network::v1::{self as pb, NetworkErrorKind, fetch_part::Part};

use super::{Section, attack, peer::Peer};
use crate::node::{Node, failed};

/// A request that goes out all the same is given up after this.
const WAIT_MS: u32 = 1_000;

/// This host, in every form that a URL may have for it, and places that tell secrets to whoever asks.
pub(super) async fn special(section: &mut Section, node: &Node, peer: &Peer) -> Result<()> {
    let port = peer.place.port();
    let hosts = [
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "0177.0.0.1",
        "2130706433",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "localhost",
        "a.localhost",
    ];
    let own = hosts.iter().map(|host| format!("http://{host}:{port}/"));
    let others =
        ["http://169.254.169.254/", "http://[fd00:ec2::254]/", "http://100.64.0.1/", "http://10.0.0.1/"];
    for url in own.chain(others.map(str::to_owned)) {
        let refused = refused(node, &url).await?;
        attack(section, !refused, &format!("a request went to {url}, which nobody named"));
    }
    attack(section, peer.accept(super::network::QUIET).is_some(), "a refused request sent a packet");
    Ok(())
}

/// By a rule, or since it is no URL; anything else was tried.
async fn refused(node: &Node, url: &str) -> Result<bool> {
    let mut network = node.network("system.network.fetch").await?;
    let request = pb::FetchRequest {
        method: "GET".to_owned(),
        url: url.to_owned(),
        timeout_ms: WAIT_MS,
        ..pb::FetchRequest::default()
    };
    let mut parts = network.fetch(request).await.map_err(failed)?.into_inner();
    match parts.message().await.map_err(failed)?.and_then(|part| part.part) {
        Some(Part::Failed(error)) => {
            Ok(matches!(error.kind(), NetworkErrorKind::PolicyDenied | NetworkErrorKind::InvalidUrl))
        }
        _ => Ok(false),
    }
}
