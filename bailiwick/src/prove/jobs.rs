//! Section `jobs`: a job runs twice the same and its receipt is verified; what must not influence it ends it; a receipt with
//! another output, signed by somebody who may sign, is found by running it again.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use base::{Hash, IdentityId, PublicKey, Signature};
use job::{Receipt, ReceiptSignature};
use serde_json::Value;

use super::{Context, Section, Site, attack};

const SEED: &str = "0000000000000000000000000000000000000000000000000000000000000001";
/// What a job tries, and the call that its end must name.
const ATTACKS: [(&str, &str); 4] = [
    ("clock", "clock_gettime"),
    ("network", "socket"),
    ("program", "clone"),
    ("file-time", "second run differs"),
];
/// The operator's key, which may sign anything of its own.
const OTHER_KEY: &str = "/orbital/users/admin";

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("jobs");
    let site = context.site()?;
    let folder = site.folder("jobs")?;
    fs::write(folder.join("text"), "one two three\nfour\n")?;
    let job = submit(site, &folder, "count")?;
    let of = |key: &str| job.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    section.check(of("state") == "verified", format!("an honest job is {job}"));
    let (id, receipt) = (of("job"), folder.join("receipt"));
    let receipt_path = receipt.to_string_lossy().into_owned();
    site.done(&["job", "receipt", &id, "--file", &receipt_path])?;
    for args in [&["job", "verify", &receipt_path][..], &["job", "verify", &receipt_path, "--offline"]] {
        section.check(site.tell(args)?.status.success(), "an honest receipt is not verified");
    }
    let again = submit(site, &folder, "count")?;
    section.check(again.get("outputs") == job.get("outputs"), "the same manifest gave another output");
    section.count("jobs", 2);
    for (name, call) in ATTACKS {
        let ended = submit(site, &folder, name)?;
        let text = ended.get("error_text").and_then(Value::as_str).unwrap_or_default();
        let named =
            ended.get("error").and_then(Value::as_str) == Some("DeterminismViolation") && text.contains(call);
        attack(&mut section, !named, &format!("a job that tries {name} ended as {ended}"));
    }
    forge(&mut section, site, &folder, &receipt)?;
    Ok(section)
}

fn submit(site: &Site, folder: &Path, attempt: &str) -> Result<Value> {
    let manifest = folder.join(format!("{attempt}.toml"));
    let text = format!(
        "version = 1\nname = \"{attempt}\"\n[executable]\nexec_type = \"NativeBinary\"\nentry_point = \
         \"bailiwick\"\nargs = [\"process\", \"job-attempt\", \"{attempt}\"]\n[determinism]\nis_deterministic = \
         true\nrandom_seed = \"{SEED}\"\n[[inputs]]\nname = \"text\"\nmount = \"/in/text\"\n[[outputs]]\nname = \
         \"result\"\npath = \"/out/result\"\n"
    );
    fs::write(&manifest, text)?;
    let (manifest, executable) = (manifest.to_string_lossy(), site.exe().to_string_lossy());
    let input = format!("text={}", folder.join("text").display());
    let args = ["job", "submit", "-o", "json", &manifest, "--executable", &executable, "--input", &input];
    let output = site.tell(&args)?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("job submit: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A changed byte, a key of one's own, and an output that nobody computed.
fn forge(section: &mut Section, site: &Site, folder: &Path, honest: &Path) -> Result<()> {
    let honest = Receipt::from_bytes(&fs::read(honest)?)?;
    let mut forged = honest.clone();
    if let Some(output) = forged.body.outputs.first_mut() {
        output.hash = Hash::of(b"what nobody computed");
    }
    let verify = |name: &str, receipt: &Receipt, args: &[&str]| -> Result<Value> {
        let file = folder.join(name);
        fs::write(&file, receipt.to_bytes())?;
        let file = file.to_string_lossy();
        let output = site.tell(&[&["job", "verify", "-o", "json", &file], args].concat())?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("job verify: {}", String::from_utf8_lossy(&output.stderr).trim()))
    };
    let is = |found: &Value, result: &str| found.get("result").and_then(Value::as_str) == Some(result);
    for args in [&[][..], &["--offline"]] {
        let found = verify("changed", &forged, args)?;
        attack(section, !is(&found, "invalid_signature"), &format!("a changed output: {found}"));
    }
    // The operator's signature over the forgery is real, and holds for whoever trusts the operator.
    let receipt_type = forged.header.receipt_type;
    let covered = folder.join("covered");
    fs::write(&covered, forged.body.covered_bytes(receipt_type))?;
    let signed = site.json(&["key", "sign", OTHER_KEY, &covered.to_string_lossy()])?;
    let text = |key: &str| signed.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let public_key: PublicKey = text("public_key").parse()?;
    let signature: Signature = text("signature").parse()?;
    forged.header.receipt_hash = forged.body.receipt_hash(receipt_type);
    forged.header.issuer = IdentityId::of_key(&public_key);
    forged.signature = ReceiptSignature { public_key, signature };
    let found = verify("signed", &forged, &[])?;
    attack(section, !is(&found, "invalid_signature"), &format!("another issuer: {found}"));
    let issuer = forged.header.issuer.to_string();
    let found = verify("trusted", &forged, &["--issuer", &issuer])?;
    attack(section, !is(&found, "output_mismatch"), &format!("an output that nobody computed: {found}"));
    section.count("receipts", 4);
    Ok(())
}
