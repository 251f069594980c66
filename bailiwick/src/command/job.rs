//! `job`: submit, follow, fetch, verify.

use std::{io::Write, path::Path};

use anyhow::{Context, Result, bail};
use base::{EntryKey, Hash, IdentityId, JobId};
use contracts::{convert::bytes, process_manager::v1 as pb};
use job::{JobManifest, Receipt, limits::RECEIPT_BYTES_MAX};
use serde::Serialize;
use tokio_stream::StreamExt;

use super::process::put_file;
use crate::{
    args::{Job, Output, SubmitJob, VerifyJob},
    exit::{Failure, REFUSED},
    node::{Node, failed},
    output,
};

/// What did not turn out as its receipt or its manifest says.
const FAILED: u8 = 1;
const MANIFEST_BYTES_MAX: u64 = job::limits::MANIFEST_BYTES_MAX as u64;

#[derive(Serialize)]
struct Info {
    job: JobId,
    name: String,
    state: String,
    progress: String,
    manifest: Hash,
    by: IdentityId,
    entry: u64,
    outputs: Vec<OutputFile>,
    error: Option<String>,
    error_text: Option<String>,
    receipt: Option<Hash>,
}

#[derive(Serialize)]
struct OutputFile {
    name: String,
    hash: Hash,
    size_bytes: u64,
}

fn file(binding: &pb::JobBinding) -> Result<OutputFile> {
    let hash = Hash(bytes("hash", &binding.hash)?);
    Ok(OutputFile { name: binding.name.clone(), hash, size_bytes: binding.size_bytes })
}

fn info(info: pb::JobInfo) -> Result<Info> {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let receipt = match info.receipt.as_slice() {
        [] => None,
        hash => Some(Hash(bytes("receipt", hash)?)),
    };
    Ok(Info {
        job: JobId(bytes("job", &info.job)?),
        name: info.name,
        state: info.state,
        progress: info.progress,
        manifest: Hash(bytes("manifest", &info.manifest)?),
        by: IdentityId(bytes("by", &info.by)?),
        entry: info.axiom_ref.map_or(0, |at| at.sequence),
        outputs: info.outputs.iter().map(file).collect::<Result<_>>()?,
        error: some(info.error),
        error_text: some(info.error_text),
        receipt,
    })
}

pub async fn run(node: &Node, output: Output, args: Job) -> Result<()> {
    match args {
        Job::Submit(args) => submit(node, output, &args).await,
        Job::List { state } => list(node, output, state.unwrap_or_default()).await,
        Job::Status { job } => {
            let found = find(node, &job).await?;
            output::show(output, &found, || described(&found))
        }
        Job::Cancel { job, reason } => cancel(node, output, &job, reason).await,
        Job::Outputs { job, dir } => outputs(node, output, &job, dir.as_deref()).await,
        Job::Receipt { job, file } => receipt(node, output, &job, file.as_deref()).await,
        Job::Verify(args) => verify(node, output, &args).await,
    }
}

/// Reads what is named; more than a manifest or receipt can have is not read.
fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    use std::io::Read;
    let opened = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut content = Vec::new();
    let read = opened.take(bytes_max + 1).read_to_end(&mut content);
    read.with_context(|| format!("reading {}", path.display()))?;
    if content.len() as u64 > bytes_max {
        bail!("{} has more than {bytes_max} bytes", path.display());
    }
    Ok(content)
}

/// Hashes and sizes of the files that are sent, where the manifest has none. A manifest that lacks nothing stays as it is,
/// byte for byte, for its hash is what the log names.
fn filled(text: String, executable: Option<Hash>, inputs: &[(String, Hash, u64)]) -> Result<String> {
    let mut table: toml::Table = toml::from_str(&text).context("the manifest is no TOML")?;
    let before = table.clone();
    let put = |table: &mut toml::Table, key: &str, value: toml::Value| {
        table.entry(key.to_owned()).or_insert(value);
    };
    if let (Some(hash), Some(toml::Value::Table(part))) = (executable, table.get_mut("executable")) {
        put(part, "hash", hash.to_string().into());
    }
    for (name, hash, size) in inputs {
        let parts = table.get_mut("inputs").and_then(toml::Value::as_array_mut);
        let part = parts.into_iter().flatten().filter_map(toml::Value::as_table_mut);
        let part = part.into_iter().find(|part| part.get("name").and_then(toml::Value::as_str) == Some(name));
        let part = part.with_context(|| format!("--input {name}: the manifest has no input of this name"))?;
        put(part, "hash", hash.to_string().into());
        let size = i64::try_from(*size).with_context(|| format!("--input {name}: the file is too large"))?;
        put(part, "size", size.into());
    }
    if table == before { Ok(text) } else { Ok(toml::to_string(&table)?) }
}

#[derive(Serialize)]
struct Submitted {
    job: JobId,
    manifest: Hash,
    entry: u64,
}

async fn submit(node: &Node, output: Output, args: &SubmitJob) -> Result<()> {
    let text = String::from_utf8(read(&args.manifest, MANIFEST_BYTES_MAX)?)
        .with_context(|| format!("{} is not UTF-8", args.manifest.display()))?;
    let hashed = |path: &Path| -> Result<(Hash, u64)> {
        let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let size = file.metadata().with_context(|| format!("looking at {}", path.display()))?.len();
        Ok((Hash::of_reader(file).with_context(|| format!("reading {}", path.display()))?, size))
    };
    let mut inputs = Vec::new();
    let mut files = Vec::new();
    for pair in &args.inputs {
        let (name, path) = pair.split_once('=').with_context(|| format!("{pair:?} is not NAME=FILE"))?;
        let (hash, size) = hashed(Path::new(path))?;
        inputs.push((name.to_owned(), hash, size));
        files.push(Path::new(path));
    }
    let executable = args.executable.as_deref().map(hashed).transpose()?.map(|(hash, _)| hash);
    files.extend(args.executable.as_deref());
    let text = filled(text, executable, &inputs)?;
    let manifest = JobManifest::parse(&text).with_context(|| args.manifest.display().to_string())?;
    if args.dry_run {
        let shown = serde_json::json!({ "manifest": manifest, "hash": JobManifest::hash(&text) });
        return output::show(output, &shown, || format!("{text}\n# {}\n", JobManifest::hash(&text)));
    }
    for path in files {
        put_file(node, path, std::fs::File::open(path)?).await?;
    }
    let mut key = [0; EntryKey::BYTES];
    getrandom::fill(&mut key).context("the kernel's random source")?;
    let mut jobs = node.jobs("system.process_manager.submit").await?;
    let hash = JobManifest::hash(&text);
    let request = pb::SubmitJobRequest { manifest: text, idempotency_key: key.to_vec() };
    let reply = jobs.submit(request).await.map_err(failed)?.into_inner();
    let entry = reply.axiom_ref.map_or(0, |at| at.sequence);
    let submitted = Submitted { job: JobId(bytes("job", &reply.job)?), manifest: hash, entry };
    if args.detach {
        return output::show(output, &submitted, || format!("{}\n", submitted.job));
    }
    let ended = follow(node, submitted.job).await?;
    output::show(output, &ended, || described(&ended))?;
    match ended.state.as_str() {
        "verified" => Ok(()),
        state => Err(Failure::new(FAILED, format!("job {} is {state}", ended.job)).into()),
    }
}

/// To its end, with a word on standard error at each step.
async fn follow(node: &Node, job: JobId) -> Result<Info> {
    let (mut than, mut than_progress) = (String::new(), String::new());
    loop {
        let mut jobs = node.jobs("system.process_manager.watch").await?;
        let request = pb::WatchJobRequest {
            job: job.0.to_vec(),
            than: than.clone(),
            than_progress: than_progress.clone(),
        };
        let seen = info(jobs.watch(request).await.map_err(failed)?.into_inner())?;
        if ["verified", "failed", "cancelled"].contains(&seen.state.as_str()) {
            return Ok(seen);
        }
        let words = if seen.progress.is_empty() { "" } else { ": " };
        eprintln!("bailiwick: job {} is {}{words}{}", seen.name, seen.state, seen.progress);
        (than, than_progress) = (seen.state, seen.progress);
    }
}

fn described(job: &Info) -> String {
    let mut text = format!("{} {} is {}", job.job, job.name, job.state);
    if !job.progress.is_empty() {
        text.push_str(&format!(" ({})", job.progress));
    }
    text.push('\n');
    if let (Some(error), Some(words)) = (&job.error, &job.error_text) {
        text.push_str(&format!("{error}: {words}\n"));
    }
    for output in &job.outputs {
        text.push_str(&format!("{} {} {}\n", output.name, output.hash, output::size(output.size_bytes)));
    }
    if let Some(receipt) = &job.receipt {
        text.push_str(&format!("receipt {receipt}\n"));
    }
    text
}

async fn all(node: &Node, state: String) -> Result<Vec<Info>> {
    let mut jobs = node.jobs("system.process_manager.list_jobs").await?;
    let list = jobs.list_jobs(pb::JobFilter { state }).await.map_err(failed)?.into_inner().jobs;
    list.into_iter().map(info).collect()
}

async fn list(node: &Node, output: Output, state: String) -> Result<()> {
    let list = all(node, state).await?;
    output::show(output, &list, || {
        let row = |job: &Info| {
            let words = job.error.clone().unwrap_or_else(|| job.progress.clone());
            vec![job.job.to_string(), job.name.clone(), job.state.clone(), words]
        };
        output::table(&["JOB", "NAME", "STATE", "ABOUT"], &list.iter().map(row).collect::<Vec<_>>())
    })
}

/// By its id or the beginning of it.
async fn find(node: &Node, text: &str) -> Result<Info> {
    let mut found: Vec<Info> = all(node, String::new()).await?;
    found.retain(|job| job.job.to_string().starts_with(text));
    match (found.pop(), found.len()) {
        (Some(job), 0) => Ok(job),
        (None, _) => bail!("there is no job {text}; `bailiwick job list` shows those that are there"),
        (Some(_), others) => bail!("{} jobs begin with {text}; name one by more of its id", others + 1),
    }
}

async fn cancel(node: &Node, output: Output, job: &str, reason: String) -> Result<()> {
    let job = find(node, job).await?.job;
    let mut jobs = node.jobs("system.process_manager.cancel").await?;
    let request = pb::CancelJobRequest { job: job.0.to_vec(), reason };
    let entry =
        jobs.cancel(request).await.map_err(failed)?.into_inner().axiom_ref.map_or(0, |at| at.sequence);
    output::show(output, &serde_json::json!({ "job": job, "entry": entry }), || {
        format!("{job} is being ended, entry {entry}\n")
    })
}

async fn fetch(node: &Node, job: JobId, hash: Hash, to: &mut impl Write) -> Result<()> {
    let mut jobs = node.jobs("system.process_manager.fetch").await?;
    let request = pb::FetchRequest { job: job.0.to_vec(), hash: hash.0.to_vec() };
    let mut stream = jobs.fetch(request).await.map_err(failed)?.into_inner();
    while let Some(chunk) = stream.next().await {
        to.write_all(&chunk.map_err(failed)?.data)?;
    }
    Ok(to.flush()?)
}

async fn outputs(node: &Node, output: Output, job: &str, dir: Option<&Path>) -> Result<()> {
    let found = find(node, job).await?;
    if let Some(dir) = dir {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        for one in &found.outputs {
            // A name has no slash and is no `..`: the manifest was checked for that, and here once more.
            let path = dir.join(&one.name);
            if path.parent() != Some(dir) {
                bail!("output {:?} is no name of a file", one.name);
            }
            let mut file =
                std::fs::File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
            fetch(node, found.job, one.hash, &mut file).await?;
            let written = Hash::of_reader(std::fs::File::open(&path)?)?;
            if written != one.hash {
                bail!("{} has the hash {written}, not {}", path.display(), one.hash);
            }
        }
    }
    output::show(output, &found.outputs, || {
        let row =
            |one: &OutputFile| vec![one.name.clone(), output::size(one.size_bytes), one.hash.to_string()];
        output::table(&["NAME", "SIZE", "HASH"], &found.outputs.iter().map(row).collect::<Vec<_>>())
    })
}

async fn receipt_bytes(node: &Node, job: &str) -> Result<Vec<u8>> {
    let found = find(node, job).await?;
    let hash =
        found.receipt.with_context(|| format!("job {} is {} and has no receipt", found.job, found.state))?;
    let mut receipt = Vec::new();
    fetch(node, found.job, hash, &mut receipt).await?;
    Ok(receipt)
}

async fn receipt(node: &Node, output: Output, job: &str, file: Option<&Path>) -> Result<()> {
    let receipt_bytes = receipt_bytes(node, job).await?;
    let receipt = Receipt::from_bytes(&receipt_bytes)?;
    if let Some(path) = file {
        let mut file =
            std::fs::File::create_new(path).with_context(|| format!("making {}", path.display()))?;
        file.write_all(&receipt_bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    output::show(output, &receipt, || {
        let mut text = format!(
            "receipt {}\nissuer {}\nentry {}\nmanifest {}\nexecutable {}\n",
            receipt.header.receipt_hash,
            receipt.header.issuer,
            receipt.body.axiom_entry.sequence,
            receipt.body.environment.config_hash,
            receipt.body.environment.image_hash,
        );
        for (what, bindings) in [("input", &receipt.body.inputs), ("output", &receipt.body.outputs)] {
            for one in bindings {
                text.push_str(&format!("{what} {} {} {}\n", one.name, one.hash, output::size(one.size)));
            }
        }
        text
    })
}

#[derive(Serialize)]
struct Verified {
    result: String,
    receipt: Hash,
    issuer: IdentityId,
    /// Outputs that differ, as the receipt has them and as they came.
    expected: Vec<OutputFile>,
    actual: Vec<OutputFile>,
    missing: Vec<Hash>,
    error: Option<String>,
}

/// With nothing but the file: whether it is what its issuer signed.
pub fn verify_offline(output: Output, args: &VerifyJob) -> Result<()> {
    let receipt = Receipt::from_bytes(&read(Path::new(&args.what), RECEIPT_BYTES_MAX as u64)?)?;
    let issuer = receipt.header.issuer;
    let trusted = args.issuer.as_deref().map(str::parse::<IdentityId>).transpose()?;
    let fault = receipt.check().err().map(|fault| fault.to_string()).or_else(|| {
        let other = trusted.filter(|trusted| *trusted != issuer)?;
        Some(format!("it was issued by {issuer}, trusted is {other}"))
    });
    let holds = fault.is_none();
    let result = if holds { "signature_holds" } else { "invalid_signature" };
    let verified = Verified {
        result: result.to_owned(),
        receipt: receipt.header.receipt_hash,
        issuer,
        expected: Vec::new(),
        actual: Vec::new(),
        missing: Vec::new(),
        error: fault,
    };
    output::show(output, &verified, || {
        let trust =
            if trusted.is_some() { "the trusted issuer" } else { "its issuer, whom you compare yourself" };
        match &verified.error {
            None => format!("signed by {trust}: {issuer}; not run again\n"),
            Some(fault) => format!("does not hold: {fault}\n"),
        }
    })?;
    if holds { Ok(()) } else { Err(Failure::new(REFUSED, "the receipt does not hold".to_owned()).into()) }
}

async fn verify(node: &Node, output: Output, args: &VerifyJob) -> Result<()> {
    let path = Path::new(&args.what);
    let bytes_of = if path.is_file() {
        read(path, RECEIPT_BYTES_MAX as u64)?
    } else {
        receipt_bytes(node, &args.what).await?
    };
    let receipt = Receipt::from_bytes(&bytes_of)?;
    let issuer = args.issuer.as_deref().map(str::parse::<IdentityId>).transpose()?;
    let mut jobs = node.jobs("system.process_manager.verify").await?;
    let request = pb::VerifyJobRequest {
        receipt: bytes_of,
        issuer: issuer.map(|id| id.0.to_vec()).unwrap_or_default(),
    };
    let reply = output::said_if_slow("running the job again", jobs.verify(request)).await;
    let reply = reply.map_err(failed)?.into_inner();
    let missing = reply.missing.iter().map(|hash| Ok(Hash(bytes("missing", hash)?)));
    let verified = Verified {
        result: reply.result,
        receipt: receipt.header.receipt_hash,
        issuer: receipt.header.issuer,
        expected: reply.expected.iter().map(file).collect::<Result<_>>()?,
        actual: reply.actual.iter().map(file).collect::<Result<_>>()?,
        missing: missing.collect::<Result<_>>()?,
        error: Some(reply.error).filter(|error| !error.is_empty()),
    };
    output::show(output, &verified, || {
        let mut text = format!("{} {}\n", verified.result, verified.receipt);
        for (what, files) in [("expected", &verified.expected), ("came", &verified.actual)] {
            for one in files {
                text.push_str(&format!("{what} {} {}\n", one.name, one.hash));
            }
        }
        verified.missing.iter().for_each(|hash| text.push_str(&format!("missing {hash}\n")));
        verified.error.iter().for_each(|error| text.push_str(&format!("{error}\n")));
        text
    })?;
    match verified.result.as_str() {
        "verified" => Ok(()),
        result => Err(Failure::new(REFUSED, format!("the receipt is not verified: {result}")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_manifest_lacks_is_filled_in_and_what_it_has_stays() {
        let text = "name = \"n\"\n[executable]\nexec_type = \"NativeBinary\"\n[[inputs]]\nname = \"i\"\n";
        let inputs = [("i".to_owned(), Hash::of(b"i"), 1)];
        let whole = filled(text.to_owned(), Some(Hash::of(b"x")), &inputs).unwrap();
        assert!(whole.contains(&Hash::of(b"x").to_string()) && whole.contains(&Hash::of(b"i").to_string()));
        assert!(whole.contains("size = 1"), "{whole}");
        let again = filled(whole.clone(), Some(Hash::of(b"y")), &[("i".to_owned(), Hash::of(b"j"), 2)]);
        assert_eq!(again.unwrap(), whole, "a manifest that lacks nothing is not written again");
        let unknown = filled(text.to_owned(), None, &[("other".to_owned(), Hash::ZERO, 0)]).unwrap_err();
        assert!(unknown.to_string().contains("no input of this name"), "{unknown}");
    }
}
