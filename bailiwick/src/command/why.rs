//! `bailiwick why`: explains refusals, by rule or by sandbox, from what was recorded and seen.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use chain::{
    payload::{
        Payload,
        process::{ProcessCreate, RefusedCall},
    },
    verify_log,
};
use contracts::policy::v1::{Effect, ExplainRequest, Explanation};
use serde::Serialize;

use super::log_files::LogFiles;
use crate::{
    args::Output,
    node::{Node, failed},
    output,
};

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Answer {
    /// A rule, or the absence of one, said no.
    Policy {
        id: u64,
        layer: String,
        rule: String,
        reason: String,
        request: String,
        smallest_change: String,
    },
    /// The sandbox of a program said no.
    Sandbox {
        process: u64,
        name: String,
        granted: Vec<String>,
        refused: Vec<Refusal>,
    },
    Nothing,
}

#[derive(Serialize)]
struct Refusal {
    call: String,
    target: String,
    error: String,
    times: u32,
    /// The flag of `bailiwick run` that would allow it.
    allow: String,
    /// What is to be known of it beside that.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

pub async fn run(node: &Node, output: Output, what: &str) -> Result<()> {
    let answer = match what {
        "last" => last(node).await?,
        _ => match what.strip_prefix("process:") {
            Some(pid) => {
                program(node, pid.parse().with_context(|| format!("{pid:?} is no process number"))?)?
            }
            None => {
                let id = what.parse().with_context(|| {
                    format!("{what:?} is neither `last`, nor the id of a refusal, nor `process:N`")
                })?;
                explain(node, id).await?
            }
        },
    };
    output::show(output, &answer, || text(&answer))
}

/// What a look through the log finds about refusals.
#[derive(Default)]
struct Refusals {
    /// Sequence of the last denial.
    denial: Option<u64>,
    /// Sequence and number of the last program with refused calls.
    program: Option<(u64, u64)>,
}

/// The later of the last denial and the last program that was refused something.
async fn last(node: &Node) -> Result<Answer> {
    let mut found = Refusals::default();
    scan(node, |sequence, payload| match payload {
        Payload::PolicyDecision(decision) if decision.body.decode_body().is_ok_and(|body| !body.allows()) => {
            found.denial = Some(sequence);
        }
        Payload::ProcessExit(exit) if !exit.body.refused.is_empty() => {
            found.program = Some((sequence, exit.body.pid.0));
        }
        _ => {}
    })?;
    match (found.denial, found.program) {
        (None, None) => Ok(Answer::Nothing),
        (Some(denial), Some((sequence, _))) if denial > sequence => explain(node, denial).await,
        (Some(denial), None) => explain(node, denial).await,
        (_, Some((_, pid))) => program(node, pid),
    }
}

/// Shows every readable entry of the node's log; the end may be in the middle of being written.
fn scan(node: &Node, mut visit: impl FnMut(u64, &Payload)) -> Result<()> {
    let files = LogFiles::open(&node.layout.log(), &[])?;
    let outcome = verify_log(&files, &files.options(), |placed| {
        let header = &placed.record.header;
        if let Ok(payload) = Payload::decode(header.entry_type.code(), placed.record.payload) {
            visit(header.sequence.0, &payload);
        }
    });
    match outcome {
        Err(fault) if !fault.may_be_torn_tail => Err(files.fault(&fault).into()),
        _ => Ok(()),
    }
}

async fn explain(node: &Node, decision: u64) -> Result<Answer> {
    let mut policy = node.policy("system.policy.explain").await?;
    let explained: Explanation =
        policy.explain(ExplainRequest { decision }).await.map_err(failed)?.into_inner();
    if explained.effect() != Effect::Deny {
        bail!("decision {decision} was not a refusal: rule {} allowed it", explained.rule);
    }
    Ok(Answer::Policy {
        id: explained.decision,
        layer: explained.layer,
        rule: explained.rule,
        reason: explained.reason,
        request: explained.request,
        smallest_change: explained.smallest_change,
    })
}

fn program(node: &Node, pid: u64) -> Result<Answer> {
    let mut created: Option<ProcessCreate> = None;
    let mut refused: Option<Vec<RefusedCall>> = None;
    scan(node, |_, payload| match payload {
        Payload::ProcessCreate(create) if create.body.pid.0 == pid => created = Some(create.body.clone()),
        Payload::ProcessExit(exit) if exit.body.pid.0 == pid => refused = Some(exit.body.refused.clone()),
        _ => {}
    })?;
    let created = created.with_context(|| {
        let archived = LogFiles::open(&node.layout.log(), &[]).map(|files| files.note()).unwrap_or_default();
        format!("no program with number {pid} is on record\n{archived}").trim_end().to_owned()
    })?;
    let refused =
        refused.unwrap_or_default().into_iter().map(|call| refusal(call, &created.grants)).collect();
    Ok(Answer::Sandbox { process: pid, name: created.name, granted: created.grants, refused })
}

/// Before a place in the grants of a program.
const EGRESS: &str = "egress:";

fn refusal(call: RefusedCall, grants: &[String]) -> Refusal {
    let connects = matches!(call.call.as_str(), "connect" | "bind" | "sendto" | "sendmsg");
    let (allow, note) = match (call.call.as_str(), call.target.split_once('=')) {
        ("resolve", Some((name, address))) => {
            let place = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            let note =
                format!("{name} answers an address that no name can lead to, so it has to be named itself");
            (format!("--egress {place}:PORT"), Some(note))
        }
        ("proxy", _) => {
            let note =
                "asked for at its proxy; the rules by URL have a say there too: `bailiwick network test URL`";
            (format!("--egress {}", call.target), Some(note.to_owned()))
        }
        ("resolve", None) => (format!("--egress {}", call.target.trim_end_matches('.')), None),
        ("connect", _) if call.target == "udp" => {
            let note = "it was given no place for UDP; the addresses of a name are tried by it too, to sort them, and QUIC does \
                        without it";
            ("--egress ADDRESS:PORT/udp".to_owned(), Some(note.to_owned()))
        }
        ("sendto", _) if call.target.ends_with("/udp") => {
            (format!("--egress {}", call.target), of_datagrams(&call, grants))
        }
        ("connect", _) if !call.target.starts_with('/') => {
            (format!("--egress {}", call.target), not_answered(grants))
        }
        _ if connects && !call.target.starts_with('/') => (format!("--egress {}", call.target), None),
        _ => (format!("--fs {}", call.target), None),
    };
    Refusal {
        error: std::io::Error::from_raw_os_error(call.errno).to_string(),
        call: call.call,
        target: call.target,
        times: call.times,
        allow,
        note,
    }
}

/// Why a datagram did not go out, if there is more to say than that its peer was not given.
fn of_datagrams(call: &RefusedCall, grants: &[String]) -> Option<String> {
    const AGAIN: i32 = 11;
    let is_hidden = [":443/udp", ":80/udp"].iter().any(|port| call.target.ends_with(port));
    if call.errno == AGAIN {
        return Some(
            "it begins to send to too many in a second, or from too many ports, and what is beyond the limit is dropped"
                .to_owned(),
        );
    }
    let quic = "nobody sees whom QUIC asks for, so no name leads there, only an address that is given itself";
    if is_hidden { Some(quic.to_owned()) } else { not_answered(grants) }
}

/// Of a program that was given names: none of them had answered the address when it connected.
fn not_answered(grants: &[String]) -> Option<String> {
    let is_name = |place: &&str| {
        let host = place.rsplit_once(':').map_or(*place, |(host, _)| host);
        host.split('/').next().is_some_and(|ip| ip.trim_matches(['[', ']']).parse::<IpAddr>().is_err())
    };
    let places = grants.iter().filter_map(|grant| grant.strip_prefix(EGRESS));
    let names: Vec<&str> = places.filter(is_name).collect();
    (!names.is_empty()).then(|| {
        format!("none of its names had answered this address for it, or not lately: {}", names.join(", "))
    })
}

fn text(answer: &Answer) -> String {
    match answer {
        Answer::Nothing => "nothing was refused\n".to_owned(),
        Answer::Policy { id, layer, rule, reason, request, smallest_change } => {
            let change = match smallest_change.as_str() {
                "" => "no rule can allow it\n".to_owned(),
                rule => {
                    format!("this rule would allow exactly it (`bailiwick policy add FILE`):\n\n{rule}\n")
                }
            };
            format!(
                "{} by policy, decision {id}\n  asked    {request}\n  layer    {layer}\n  rule     {rule}\n  reason   {reason}\n\n{change}",
                output::bad("refused")
            )
        }
        Answer::Sandbox { process, name, granted, refused } => sandbox_text(*process, name, granted, refused),
    }
}

fn sandbox_text(process: u64, name: &str, granted: &[String], refused: &[Refusal]) -> String {
    let granted = if granted.is_empty() {
        "nothing of the host's but its programs".to_owned()
    } else {
        granted.join(", ")
    };
    let mut text = format!("program {process} ({name})\n  granted  {granted}\n");
    if refused.is_empty() {
        text.push_str("  refused  nothing that its monitor saw\n");
    }
    for refusal in refused {
        text.push_str(&format!(
            "  {}  {} {} ({}, {} times)\n{}           allow it with {}\n",
            output::bad("refused"),
            refusal.call,
            refusal.target,
            refusal.error,
            refusal.times,
            refusal.note.as_ref().map(|note| format!("           {note}\n")).unwrap_or_default(),
            refusal.allow
        ));
    }
    text
}
