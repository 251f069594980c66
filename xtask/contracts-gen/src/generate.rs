//! From `.proto` files to a folder of Rust files and a descriptor set.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use prost::Message as _;
use prost_types::FileDescriptorSet;

/// What reflection and the JSON face read at run time.
const DESCRIPTOR_FILE: &str = "descriptor.bin";
/// Contracts of SPIFFE.
const FOREIGN: &str = "spiffe/";

/// All `.proto` files below `proto`, sorted, as paths that include `proto`.
pub(crate) fn proto_files(proto: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![proto.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("listing {}", folder.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "proto") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

pub(crate) fn compile(proto: &Path, files: &[PathBuf]) -> Result<FileDescriptorSet> {
    let mut compiler = protox::Compiler::new([proto]).context("opening the proto folder")?;
    // Source information carries the comments, which become the doc comments of the generated code.
    compiler.include_source_info(true).include_imports(true);
    // miette's Debug form names file, line and column; its Display form does not.
    compiler.open_files(files).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let set = compiler.file_descriptor_set();
    for file in &set.file {
        package_matches_path(file.name(), file.package())?;
    }
    Ok(set)
}

/// `bailiwick/policy/v1/policy.proto` holds package `bailiwick.policy.v1`: a version stands in the path once.
fn package_matches_path(name: &str, package: &str) -> Result<()> {
    if package.starts_with("google.protobuf") {
        return Ok(());
    }
    // Published by others without a package; with one it would be another contract.
    if name.starts_with(FOREIGN) && package.is_empty() {
        return Ok(());
    }
    let folder = Path::new(name).parent().map(|p| p.to_string_lossy().replace('/', ".")).unwrap_or_default();
    if folder != package {
        bail!("proto/{name} lies in `{folder}` but declares package `{package}`; they must be the same");
    }
    Ok(())
}

pub(crate) fn generate(set: FileDescriptorSet, out: &Path) -> Result<()> {
    let mut stripped = set.clone();
    for file in &mut stripped.file {
        file.source_code_info = None;
    }
    let descriptor = out.join(DESCRIPTOR_FILE);
    std::fs::write(&descriptor, stripped.encode_to_vec())
        .with_context(|| format!("writing {}", descriptor.display()))?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // Channels run over Unix sockets that the kit opens; `connect(url)` on each client would go unused.
        .build_transport(false)
        .out_dir(out)
        .compile_fds(set)
        .context("generating Rust from the descriptors")
}

/// A file that must be written (or deleted, if it is not generated any more).
pub(crate) struct Difference {
    pub(crate) name: String,
    delete: bool,
}

pub(crate) fn differences(fresh: &Path, committed: &Path) -> Result<Vec<Difference>> {
    let fresh_names = names(fresh)?;
    let mut result = Vec::new();
    for name in &fresh_names {
        let path = fresh.join(name);
        let new = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        // An unreadable committed file counts as different: it is then written anew, or reported by --check.
        if std::fs::read(committed.join(name)).ok().as_ref() != Some(&new) {
            result.push(Difference { name: name.clone(), delete: false });
        }
    }
    if committed.is_dir() {
        for name in names(committed)?.difference(&fresh_names) {
            result.push(Difference { name: name.clone(), delete: true });
        }
    }
    Ok(result)
}

fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let mut result = BTreeSet::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let entry = entry.with_context(|| format!("listing {}", folder.display()))?;
        result.insert(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(result)
}

/// Writes only what differs, so that an unchanged contract rebuilds nothing.
pub(crate) fn install(fresh: &Path, committed: &Path, differences: &[Difference]) -> Result<()> {
    std::fs::create_dir_all(committed).with_context(|| format!("making {}", committed.display()))?;
    for difference in differences {
        let to = committed.join(&difference.name);
        if difference.delete {
            std::fs::remove_file(&to).with_context(|| format!("removing {}", to.display()))?;
        } else {
            std::fs::copy(fresh.join(&difference.name), &to)
                .with_context(|| format!("writing {}", to.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTO: &str = "syntax = \"proto3\";\npackage bailiwick.demo.v1;\n\
        // Says hello.\nservice Demo { rpc Greet(GreetRequest) returns (stream GreetReply); }\n\
        message GreetRequest { string name = 1; }\nmessage GreetReply { bytes text = 1; }\n";

    fn proto_folder(path: &str) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, PROTO).unwrap();
        temp
    }

    #[test]
    fn generates_client_server_and_descriptor() {
        let proto = proto_folder("bailiwick/demo/v1/demo.proto");
        let files = proto_files(proto.path()).unwrap();
        let set = compile(proto.path(), &files).unwrap();
        let out = tempfile::tempdir().unwrap();
        generate(set, out.path()).unwrap();

        let code = std::fs::read_to_string(out.path().join("bailiwick.demo.v1.rs")).unwrap();
        assert!(code.contains("pub mod demo_client") && code.contains("pub mod demo_server"), "{code}");
        let set =
            FileDescriptorSet::decode(std::fs::read(out.path().join(DESCRIPTOR_FILE)).unwrap().as_slice())
                .unwrap();
        assert_eq!(set.file.len(), 1);
        assert!(set.file[0].source_code_info.is_none());
    }

    #[test]
    fn package_must_equal_its_folder() {
        let proto = proto_folder("bailiwick/other/v1/demo.proto");
        let files = proto_files(proto.path()).unwrap();
        let error = compile(proto.path(), &files).unwrap_err().to_string();
        assert!(error.contains("bailiwick.other.v1"), "{error}");
    }

    #[test]
    fn changed_missing_and_surplus_files_are_differences_until_installed() {
        let (fresh, committed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(fresh.path().join("same"), "1").unwrap();
        std::fs::write(fresh.path().join("changed"), "2").unwrap();
        std::fs::write(fresh.path().join("new"), "3").unwrap();
        std::fs::write(committed.path().join("same"), "1").unwrap();
        std::fs::write(committed.path().join("changed"), "old").unwrap();
        std::fs::write(committed.path().join("surplus"), "4").unwrap();

        let found = differences(fresh.path(), committed.path()).unwrap();
        let found_names: Vec<&str> = found.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(found_names, ["changed", "new", "surplus"]);
        install(fresh.path(), committed.path(), &found).unwrap();
        assert!(differences(fresh.path(), committed.path()).unwrap().is_empty());
    }
}
