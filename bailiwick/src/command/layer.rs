//! `layers`, `diff`, `commit` and `discard`: what programs changed in copy-on-write folders.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use base::IdentityId;
use contracts::{convert::bytes, process_manager::v1 as pb};
use kit::error_info;
use serde::Serialize;

use crate::{
    args::{Commit, Diff, Output},
    node::{Node, failed},
    output,
};

#[derive(Serialize)]
struct Layer {
    pid: u64,
    identity: IdentityId,
    name: String,
    folders: Vec<String>,
    running: bool,
}

pub async fn list(node: &Node, output: Output) -> Result<()> {
    let mut processes = node.processes("system.process_manager.list_layers").await?;
    let list = processes.list_layers(pb::LayerFilter {}).await.map_err(failed)?.into_inner().layers;
    let layer = |layer: pb::Layer| {
        let identity = IdentityId(bytes("identity", &layer.identity)?);
        let pb::Layer { pid, name, folders, running, .. } = layer;
        Ok(Layer { pid, identity, name, folders, running })
    };
    let list = list.into_iter().map(layer).collect::<Result<Vec<_>>>()?;
    output::show(output, &list, || {
        let row = |layer: &Layer| {
            let state = if layer.running { "running" } else { "ended" };
            vec![layer.pid.to_string(), state.to_owned(), layer.name.clone(), layer.folders.join(" ")]
        };
        output::table(&["ID", "STATE", "NAME", "FOLDERS"], &list.iter().map(row).collect::<Vec<_>>())
    })
}

#[derive(Serialize)]
struct Differences {
    changes: Vec<Change>,
    /// Not listed.
    more: u64,
}

#[derive(Serialize)]
struct Change {
    path: String,
    what: String,
    kind: String,
    size_bytes: u64,
    /// Why a commit would not apply it.
    blocked: Option<String>,
}

pub async fn diff(node: &Node, output: Output, args: Diff) -> Result<()> {
    let reply = ask(node, args.pid, named(args.path.as_deref())?).await?.map_err(failed)?;
    let change = |change: pb::Change| Change {
        blocked: Some(change.blocked).filter(|blocked| !blocked.is_empty()),
        path: change.path,
        what: change.what,
        kind: change.kind,
        size_bytes: change.size_bytes,
    };
    let found = Differences { changes: reply.changes.into_iter().map(change).collect(), more: reply.more };
    output::show(output, &found, || {
        let row = |change: &Change| {
            let size = if change.kind == "file" { output::size(change.size_bytes) } else { String::new() };
            let blocked = change.blocked.clone().unwrap_or_default();
            vec![change.what.clone(), change.kind.clone(), size, change.path.clone(), blocked]
        };
        let rows: Vec<Vec<String>> = found.changes.iter().map(row).collect();
        let more = if found.more > 0 { format!("and {} more\n", found.more) } else { String::new() };
        output::table(&["WHAT", "KIND", "SIZE", "PATH", "NOT COMMITTED BECAUSE"], &rows) + &more
    })
}

async fn ask(node: &Node, pid: u64, path: String) -> Result<Result<pb::DiffReply, tonic::Status>> {
    let mut processes = node.processes("system.process_manager.diff").await?;
    Ok(processes.diff(pb::DiffRequest { pid, path }).await.map(tonic::Response::into_inner))
}

/// After a run: what is kept of it, and what can be done with it. Not knowing is no failure of the run.
pub async fn tell(node: &Node, pid: u64) {
    match ask(node, pid, String::new()).await {
        Ok(Ok(reply)) => {
            let count = (reply.changes.len() as u64).saturating_add(reply.more);
            eprintln!(
                "bailiwick: {count} changes are kept apart: `bailiwick diff {pid}`, then `bailiwick commit {pid}` or \
                 `bailiwick discard {pid}`"
            );
        }
        Ok(Err(status)) if error_info(&status).is_some_and(|info| info.reason == "NoLayer") => {}
        Ok(Err(status)) => eprintln!("bailiwick: what program {pid} changed: {}", status.message()),
        Err(error) => eprintln!("bailiwick: what program {pid} changed: {error:#}"),
    }
}

#[derive(Serialize)]
struct Committed {
    applied: u64,
    complete: bool,
    entry: u64,
}

pub async fn commit(node: &Node, output: Output, args: Commit) -> Result<()> {
    let request = pb::CommitRequest {
        pid: args.pid,
        path: named(args.path.as_deref())?,
        force: args.force,
        reason: "asked by the operator".to_owned(),
    };
    let mut processes = node.processes("system.process_manager.commit").await?;
    let reply = processes.commit(request).await.map_err(failed)?.into_inner();
    let done = Committed {
        applied: reply.applied,
        complete: reply.complete,
        entry: reply.axiom_ref.map_or(0, |at| at.sequence),
    };
    output::show(output, &done, || {
        let rest = if done.complete { "nothing is left" } else { "the others are still kept" };
        format!("{} changes applied, entry {}; {rest}\n", done.applied, done.entry)
    })
}

pub async fn discard(node: &Node, output: Output, pid: u64) -> Result<()> {
    let request = pb::DiscardRequest { pid, reason: "asked by the operator".to_owned() };
    let mut processes = node.processes("system.process_manager.discard").await?;
    let entry = processes.discard(request).await.map_err(failed)?.into_inner();
    let entry = entry.axiom_ref.map_or(0, |at| at.sequence);
    output::show(output, &serde_json::json!({ "entry": entry }), || format!("discarded, entry {entry}\n"))
}

/// A path of the host as the node knows it. It may be of something that was removed or is yet to be made, so only the
/// folders above that exist are looked up.
fn named(path: Option<&Path>) -> Result<String> {
    let Some(path) = path else { return Ok(String::new()) };
    let absolute = std::path::absolute(path).with_context(|| format!("{}", path.display()))?;
    let mut plain = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    let (mut there, mut rest) = (plain.as_path(), Vec::new());
    // The last part is what is meant, link or not.
    while let (Some(parent), Some(name)) = (there.parent(), there.file_name()) {
        rest.push(name);
        there = parent;
        if let Ok(found) = std::fs::canonicalize(there) {
            let whole = rest.into_iter().rev().fold(found, |path, name| path.join(name));
            let text = whole.to_str().with_context(|| format!("{} is not UTF-8", whole.display()))?;
            return Ok(text.to_owned());
        }
    }
    Ok("/".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_as_the_host_knows_it() {
        let folder = tempfile::tempdir().unwrap();
        let real = std::fs::canonicalize(folder.path()).unwrap();
        std::fs::create_dir(real.join("there")).unwrap();
        std::os::unix::fs::symlink("there", real.join("link")).unwrap();
        let name = |path: &str| named(Some(&real.join(path))).unwrap();
        let is = |path: &str| real.join(path).to_str().unwrap().to_owned();
        assert_eq!(name("there/gone/file"), is("there/gone/file"));
        assert_eq!(name("link/file"), is("there/file"));
        assert_eq!(name("link"), is("link"));
        assert_eq!(name("there/../x"), is("x"));
        assert_eq!(named(None).unwrap(), "");
        assert_eq!(named(Some(Path::new("/"))).unwrap(), "/");
    }
}
