//! Section `images`: a container image gets its name, loses it and is used by acts; of what a rule refuses nothing is left.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Context, Section, Site, attack};

/// What the rule of this section refuses, and what it leaves.
const REFUSED: &str = "prove-refused";
const NAME: &str = "prove-image";
const RULES: &str = r#"
[[rule]]
id = "prove-images"
name = "Two names that nobody gives or uses"
priority = 950
effect = "Deny"

[rule.condition]
or = [
    { and = [{ action = { kind = "import_image" } }, { resource = { pattern = "prove-refused" } }] },
    { and = [{ action = { kind = "use_image" } }, { resource = { pattern = "prove-image@**" } }] },
]
"#;

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("images");
    let site = context.site()?;
    let folder = site.folder("images")?;
    let archive = folder.join("image.tar");
    fs::write(&archive, image()?)?;
    let archive = archive.to_string_lossy().into_owned();
    let rules = folder.join("rules.toml");
    fs::write(&rules, RULES)?;
    site.done(&["policy", "add", &rules.to_string_lossy()])?;
    let trees = site.layout()?.images().join("trees");
    let import = |name: &str| site.tell(&["image", "import", &archive, "--name", name]);

    attack(&mut section, import(REFUSED)?.status.success(), "an image was imported that a rule refuses");
    attack(&mut section, named(site, REFUSED)?, "an image has a name that a rule refuses");
    attack(&mut section, recorded(site, "ImageImport", REFUSED)?, "what a rule refuses is on record as done");
    attack(&mut section, folders(&trees)? > 0, "an import that was refused left files");

    let imported = import(NAME)?;
    let text = String::from_utf8_lossy(&imported.stderr).into_owned();
    section.check(imported.status.success(), format!("an image was not imported: {text}"));
    section.check(named(site, NAME)?, "an imported image is not listed");
    section.check(recorded(site, "ImageImport", NAME)?, "an import is not on record");
    let ran = site.tell(&["run", "--image", NAME])?;
    attack(&mut section, ran.status.success(), "a program ran in an image that a rule refuses");
    site.done(&["image", "rm", NAME])?;
    section.check(recorded(site, "ImageRemove", NAME)?, "a removal is not on record");
    section.check(folders(&trees)? == 0, "a removed image left files");
    section.count("images", 1);
    site.done(&["policy", "remove", "prove-images"])?;
    Ok(section)
}

fn named(site: &Site, name: &str) -> Result<bool> {
    let images = site.json(&["image", "list"])?;
    let mut images = images.as_array().into_iter().flatten();
    Ok(images.any(|image| image.get("name").and_then(Value::as_str) == Some(name)))
}

fn recorded(site: &Site, kind: &str, name: &str) -> Result<bool> {
    let entries = site.json(&["log", "show", "0..", "--type", kind])?;
    let mut entries = entries.as_array().into_iter().flatten();
    Ok(entries.any(|entry| entry.pointer("/body/name").and_then(Value::as_str) == Some(name)))
}

fn folders(trees: &Path) -> Result<usize> {
    let listing = fs::read_dir(trees).with_context(|| format!("listing {}", trees.display()))?;
    Ok(listing.count())
}

/// One file, as `docker save` writes it.
fn image() -> Result<Vec<u8>> {
    let hex =
        |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let layer = archive(&[("app", b"#!/app\n".as_slice())])?;
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({ "os": "linux", "architecture": machine, "config": { "Cmd": ["/app"] },
                         "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))] } });
    let config = config.to_string().into_bytes();
    let name = format!("{}.json", hex(&config));
    let manifest = json!([{ "Config": name, "RepoTags": [], "Layers": ["layer.tar"] }]).to_string();
    archive(&[("manifest.json", manifest.as_bytes()), (&name, &config), ("layer.tar", &layer)])
}

fn archive(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut out = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(data.len() as u64);
        out.append_data(&mut header, name, *data)?;
    }
    Ok(out.into_inner()?)
}
