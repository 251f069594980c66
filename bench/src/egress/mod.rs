//! The way out of programs beside the ways that hosts have: what a flow carries, and what a connection costs.
//!
//! Everywhere the same program goes to the same server, which is a thread of this process on the host.

mod flows;
mod proxies;
mod server;
mod ways;

use std::path::Path;

use anyhow::{Context, Result};

use crate::{
    process,
    report::{Part, Row, Subject, Unit},
    site::{self, Folder, Site},
};
use proxies::{Proxy, SQUID};
use server::Server;
use ways::{Neighbour, Way};

const MEBIBYTES: usize = 4096;
const MEBIBYTES_QUICK: usize = 1024;
const ROUNDS: usize = 7;
const ROUNDS_QUICK: usize = 3;
const FLOWS: [usize; 2] = [1, 8];
/// A program may connect a thousand times at once before its rate holds it (`network`'s `CONNECTS_AT_ONCE_MAX`).
const CONNECTS: usize = 800;
/// As many that how they begin, each with a connection, is a small part: who asks keeps it.
const REQUESTS: usize = 16_000;
const CLIENTS: usize = 16;
const LATENCIES: usize = 400;

/// With a rule that has a limit everything goes through the relay; this one is never reached.
const RULE_WITH_LIMIT: &str = "[[rule]]\nid = \"held\"\nname = \"held\"\npriority = 950\neffect = \"AllowWithConditions\"\n\
    condition = { action = { kind = \"connect\" } }\n\
    restrictions = [{ name = \"held\", condition = \"always\", limits = { bandwidth_limit = 1000000000000 } }]\n";

pub(crate) fn run(parent: &Path, quick: bool) -> Result<Part> {
    let (mebibytes, rounds) = if quick { (MEBIBYTES_QUICK, ROUNDS_QUICK) } else { (MEBIBYTES, ROUNDS) };
    let folder = Folder::new(parent, "egress")?;
    let client = site::beside("bench-client", folder.path())?;
    let server = Server::start()?;
    let mut part = Part::new("egress");
    let mut plain = Site::started(folder.path().join("d"))?;
    let mut relayed = Site::started(folder.path().join("r"))?;
    let rule = folder.path().join("rule.toml");
    std::fs::write(&rule, RULE_WITH_LIMIT).context("writing a rule")?;
    relayed.done(&["policy", "add", &rule.to_string_lossy()])?;

    let record = folder.path().join("record");
    let mut ways = vec![
        Way::ours("handed socket", &plain, &client, server.port()),
        Way::ours("relay", &relayed, &client, server.port()),
        Way::direct(&client, server.port()),
    ];
    let mut neighbours = Vec::new();
    for make in [Neighbour::veth, Neighbour::slirp4netns] {
        match make() {
            Ok(neighbour) => {
                ways.push(Way::through(&neighbour, &client, server.port()));
                neighbours.push(neighbour);
            }
            Err((name, why)) => part.skip(name, format!("{why:#}")),
        }
    }
    match Way::pasta(&client, server.port()) {
        Ok(way) => ways.push(way),
        Err((name, why)) => part.skip(name, format!("{why:#}")),
    }
    for flows in FLOWS {
        let what = format!("a program sends over TCP, {flows} at once");
        let words = ["flows".to_owned(), flows.to_string(), mebibytes.to_string()];
        let row = row(&mut ways, &mut part, what, Unit::MegabytesPerSecond, rounds, &words)?;
        part.rows.push(row.against(ways::DIRECT, 0.95).against(ways::SLIRP, 1.5));
    }
    let words = ["latency".to_owned(), LATENCIES.to_string()];
    ways.push(Way::recorded(&client, server.port(), &record));
    let row_of_latency = row(
        &mut ways,
        &mut part,
        "connect and one byte, one after the other",
        Unit::Microseconds,
        rounds,
        &words,
    )?;
    part.rows.push(row_of_latency.against(ways::DIRECT, 3.0));
    ways.retain(|way| way.name != ways::RECORDED);
    let words = ["connects".to_owned(), CLIENTS.to_string(), CONNECTS.to_string()];
    let what = format!("connections with one byte, {CLIENTS} clients");
    let measured =
        row(&mut ways, &mut part, what, Unit::PerSecond, rounds, &words)?.against(ways::DIRECT, 0.5);
    part.rows.push(measured);
    drop(ways);
    let proxies = Proxy::all(folder.path(), &mut part);
    let mut ways = vec![proxies::ours(&plain, folder.path(), &client, server.port())?];
    ways.extend(proxies.iter().map(|proxy| proxy.way(&client, server.port())));
    let words = ["requests".to_owned(), CLIENTS.to_string(), REQUESTS.to_string()];
    let what = format!("requests through an HTTP proxy, {CLIENTS} clients, {REQUESTS} in a row");
    let measured = row(&mut ways, &mut part, what, Unit::PerSecond, rounds, &words)?.against(SQUID, 1.7);
    part.rows.push(measured);
    let words = ["page".to_owned(), mebibytes.to_string()];
    let what = format!("a page of {mebibytes} MiB through an HTTP proxy");
    let measured =
        row(&mut ways, &mut part, what, Unit::MegabytesPerSecond, rounds, &words)?.against(SQUID, 3.0);
    part.rows.push(measured);
    drop(ways);
    flows::rows(&folder, &client, quick, server.port(), &mut part)?;
    for proxy in proxies {
        proxy.end()?;
    }
    for neighbour in neighbours {
        neighbour.end()?;
    }
    plain.down()?;
    relayed.down()?;
    part.note("each of our connections is decided and its entry durable before the first packet; the peers decide and record nothing");
    part.note("the program and the server share the cores, so what one way costs beside the copy is seen in its throughput");
    process::reap();
    Ok(part)
}

/// All ways in turn, round for round. A peer that fails is left out from then on, with a line that says why: ours has to work.
fn row(
    ways: &mut Vec<Way<'_>>,
    part: &mut Part,
    what: impl Into<String>,
    unit: Unit,
    rounds: usize,
    words: &[String],
) -> Result<Row> {
    let what = what.into();
    let mut samples = vec![Vec::new(); ways.len()];
    for round in 0..rounds {
        eprintln!("bench: egress: {what}: round {} of {rounds}", round + 1);
        let mut at = 0;
        while let Some(way) = ways.get(at) {
            let figure = way.figure(words).with_context(|| format!("{what} by {}", way.name));
            match (figure, samples.get_mut(at)) {
                (Ok(figure), Some(samples)) => {
                    samples.push(figure);
                    at += 1;
                }
                (Err(error), _) if way.is_ours => return Err(error),
                (Err(error), _) => {
                    part.skip(way.name, format!("{error:#}"));
                    ways.remove(at);
                    samples.remove(at);
                }
                (Ok(_), None) => break,
            }
        }
    }
    let subject = |(way, samples): (&Way<'_>, &mut Vec<f64>)| match way.is_ours {
        true => Subject::ours(way.name, samples),
        false => Subject::peer(way.name, samples),
    };
    let subjects = ways.iter().zip(&mut samples).map(subject).collect();
    Ok(Row::new(what, unit, subjects))
}
