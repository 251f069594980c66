//! `network fetch` and `network resolve`.

use std::{
    io::{self, Write},
    net::IpAddr,
    path::Path,
};

use anyhow::{Context, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use contracts::network::v1::{self as pb, NetworkErrorKind, fetch_part::Part, fetch_upload_part};
use serde::Serialize;

use crate::{
    args::{Fetch, Output},
    exit::{Failure, REFUSED},
    node::{Node, failed},
    output,
};

/// Of one part of an upload; a message holds little more.
const PIECE_BYTES: usize = 512 * 1024;

/// The result that a call was, as this command ends by it.
pub(super) fn refused(error: &pb::NetworkError) -> anyhow::Error {
    match error.kind() {
        NetworkErrorKind::PolicyDenied | NetworkErrorKind::RateLimitExceeded => {
            Failure::new(REFUSED, format!("refused: {}", error.text)).into()
        }
        _ => anyhow::anyhow!("{}", error.text),
    }
}

fn header(text: &str) -> Result<pb::Header> {
    let (name, value) = text.split_once(':').with_context(|| format!("{text:?} is not `Name: value`"))?;
    Ok(pb::Header { name: name.trim().to_owned(), value: value.trim().to_owned() })
}

fn body(data: Option<&str>) -> Result<Vec<u8>> {
    match data.map(|data| (data, data.strip_prefix('@'))) {
        None => Ok(Vec::new()),
        Some((_, Some(file))) => std::fs::read(file).with_context(|| format!("reading {file}")),
        Some((text, None)) => Ok(text.as_bytes().to_vec()),
    }
}

#[derive(Serialize)]
struct Answer {
    status: u32,
    url: String,
    redirects: u32,
    headers: Vec<(String, String)>,
    /// Entry of the log that authorised it.
    entry: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// Of a body that is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    body_bytes: u64,
}

/// Where the body goes.
enum Sink {
    File(std::fs::File),
    Stdout,
    /// Into the JSON.
    Kept(Vec<u8>),
}

impl Sink {
    fn open(output: Output, file: Option<&Path>) -> Result<Self> {
        Ok(match (file, output) {
            (Some(file), _) => Self::File(
                std::fs::File::create(file).with_context(|| format!("writing {}", file.display()))?,
            ),
            (None, Output::Text) => Self::Stdout,
            (None, Output::Json) => Self::Kept(Vec::new()),
        })
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all(data),
            Self::Stdout => io::stdout().write_all(data),
            Self::Kept(kept) => {
                kept.extend_from_slice(data);
                Ok(())
            }
        }
    }
}

pub(super) async fn run(node: &Node, output: Output, fetch: Fetch) -> Result<()> {
    let body = body(fetch.data.as_deref())?;
    let method = match (fetch.method.as_str(), &fetch.data) {
        ("GET", Some(_)) => "POST".to_owned(),
        (method, _) => method.to_owned(),
    };
    let mut request = pb::FetchRequest {
        method,
        url: fetch.url,
        headers: fetch.headers.iter().map(|text| header(text)).collect::<Result<_>>()?,
        body: Vec::new(),
        timeout_ms: fetch.timeout_ms,
        no_redirects: fetch.no_redirects,
    };
    let mut network = node.network_patient("system.network.fetch").await?;
    let parts = if body.len() <= PIECE_BYTES {
        request.body = body;
        network.fetch(request).await
    } else {
        let first = fetch_upload_part::Part::Request(request);
        let rest = body.chunks(PIECE_BYTES).map(|piece| fetch_upload_part::Part::Body(piece.to_vec()));
        let all: Vec<_> = std::iter::once(first).chain(rest).collect();
        let all = all.into_iter().map(|part| pb::FetchUploadPart { part: Some(part) });
        network.fetch_upload(tokio_stream::iter(all.collect::<Vec<_>>())).await
    };
    let mut parts = parts.map_err(failed)?.into_inner();
    let (mut head, mut sink, mut body_bytes) = (None, None, 0);
    while let Some(part) = parts.message().await.map_err(failed)? {
        match part.part {
            Some(Part::Head(said)) => {
                sink = Some(Sink::open(output, fetch.file.as_deref())?);
                head = Some(said);
            }
            Some(Part::Body(data)) => match &mut sink {
                Some(sink) => sink.write(&data).context("writing the body")?,
                None => bail!("the service sends a body before its head"),
            },
            Some(Part::End(end)) => body_bytes = end.body_bytes,
            Some(Part::Failed(error)) => return Err(refused(&error)),
            None => {}
        }
    }
    let (Some(head), Some(sink)) = (head, sink) else { bail!("the service said nothing; try again") };
    let (body, body_base64) = match sink {
        Sink::Kept(kept) => match String::from_utf8(kept) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
        },
        Sink::File(_) | Sink::Stdout => (None, None),
    };
    if output == Output::Text {
        eprintln!("{} {}", head.status, head.url);
        return Ok(io::stdout().flush()?);
    }
    let answer = Answer {
        status: head.status,
        url: head.url,
        redirects: head.redirects,
        headers: head.headers.into_iter().map(|header| (header.name, header.value)).collect(),
        entry: head.authorized.map(|at| at.sequence),
        body,
        body_base64,
        body_bytes,
    };
    output::show(output, &answer, String::new)
}

#[derive(Serialize)]
struct Address {
    address: IpAddr,
    ttl_seconds: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    special: String,
}

fn ip(bytes: &[u8]) -> Result<IpAddr> {
    match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(v4), _) => Ok(v4.into()),
        (_, Ok(v6)) => Ok(v6.into()),
        _ => bail!("the service names an address of {} bytes", bytes.len()),
    }
}

pub(super) async fn resolve(node: &Node, output: Output, name: String) -> Result<()> {
    let mut network = node.network_patient("system.network.resolve").await?;
    let reply =
        network.resolve(pb::ResolveRequest { name, timeout_ms: 0 }).await.map_err(failed)?.into_inner();
    if let Some(error) = reply.failed {
        return Err(refused(&error));
    }
    let address = |known: pb::ResolvedAddress| {
        Ok(Address { address: ip(&known.ip)?, ttl_seconds: known.ttl_seconds, special: known.special })
    };
    let list = reply.addresses.into_iter().map(address).collect::<Result<Vec<Address>>>()?;
    output::show(output, &list, || {
        let row = |known: &Address| {
            vec![known.address.to_string(), format!("{} s", known.ttl_seconds), known.special.clone()]
        };
        output::table(&["ADDRESS", "VALID", "SPECIAL"], &list.iter().map(row).collect::<Vec<_>>())
    })
}
