//! Section `work`: ordinary programs run unchanged, and a signature is made under authority, on record.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Context, Section, Site};

const PROGRAM: &str = r#"#include <stdio.h>
int main(void) { unsigned long sum = 0; for (unsigned long i = 1; i <= 1000; i++) sum += i * i; printf("%lu\n", sum); return 0; }
"#;
/// What the program prints.
const SUM: &str = "333833500";

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("work");
    let site = context.site()?;
    let folder = site.folder("work")?;
    compile(&mut section, site, &folder)?;
    filter(&mut section, site, &folder)?;
    sign(&mut section, site, &folder)?;
    Ok(section)
}

/// Compiles a C program with the machine's compiler inside the sandbox, and runs what came out, also inside.
fn compile(section: &mut Section, site: &Site, folder: &Path) -> Result<()> {
    fs::write(folder.join("sum.c"), PROGRAM)?;
    let grant = format!("{}:rw", folder.display());
    let (source, program) = (folder.join("sum.c"), folder.join("sum"));
    let (source, program) = (source.to_string_lossy(), program.to_string_lossy());
    let compiled = site.tell(&["run", "--fs", &grant, "--", "cc", "-O1", "-o", &program, &source])?;
    let said = String::from_utf8_lossy(&compiled.stderr).into_owned();
    section.check(compiled.status.success(), format!("cc ended with {}: {said}", compiled.status));
    let output = site.tell(&["run", "--", &program])?;
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    section.check(printed == SUM, format!("the compiled program printed {printed:?}, not {SUM}"));
    section.count("programs", 2);
    Ok(())
}

/// A filter over real files: sorts and counts words that it reads from a read-only folder.
fn filter(section: &mut Section, site: &Site, folder: &Path) -> Result<()> {
    let words = folder.join("words.txt");
    fs::write(&words, "b\na\nb\nc\nb\na\n")?;
    let grant = format!("{}:ro", folder.display());
    let script = format!("sort {} | uniq -c | sort -rn | head -1", words.display());
    let output = site.tell(&["run", "--fs", &grant, "--", "sh", "-c", &script])?;
    let printed = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    section.check(printed == "3 b", format!("the filter printed {printed:?}"));
    let refused =
        site.tell(&["run", "--fs", &grant, "--", "sh", "-c", &format!("echo x > {}", words.display())])?;
    section.check(!refused.status.success(), "a read-only grant was written to");
    section.check(fs::read_to_string(&words)?.starts_with("b\n"), "a file granted read-only was changed");
    section.count("programs", 2);
    Ok(())
}

/// Signs with the operator's own key; the receipt is in the chain, and the signature verifies.
fn sign(section: &mut Section, site: &Site, folder: &Path) -> Result<()> {
    let message = folder.join("message");
    fs::write(&message, "a release")?;
    let message = message.to_string_lossy();
    let signed = site.json(&["key", "sign", "/orbital/users/admin", &message])?;
    let text = |key: &str| signed.get(key).and_then(Value::as_str).map(str::to_owned).unwrap_or_default();
    let verified = site.tell(&["key", "verify", &text("public_key"), &text("signature"), &message])?;
    section.check(verified.status.success(), "the signature does not verify");
    let receipt = signed.get("receipt").and_then(Value::as_u64).context("a signature without a receipt")?;
    let shown = site.json(&["log", "show", &receipt.to_string()])?;
    let entry = shown.get(0).context("the receipt is not in the log")?;
    section.check(
        entry.get("type").and_then(Value::as_str) == Some("KeyUsage"),
        "the receipt is no KeyUsage entry",
    );
    let hash = entry.pointer("/body/message_hash");
    section.check(hash == signed.get("message_hash"), "the receipt is for another message");
    section.check(site.tell(&["log", "verify"])?.status.success(), "the log does not verify");
    section.count("signatures", 1);
    Ok(())
}
