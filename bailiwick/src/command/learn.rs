//! `run --learn`: the smallest manifest that would run, as a service, what has just run.
//!
//! It grants what was used and nothing that was refused: what the program reached for and was not shown stands in it as a
//! comment, for a person to decide on. What the monitor does not see is not in it: a file that is only looked at (`stat`)
//! and not opened, a call that the filter refuses, what another run would have used.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};

use anyhow::{Context, Result, bail};
use contracts::process_manager::v1::{self as pb, exit_status::Status};
use supervisor::manifest::{SYSTEM, limits::FS_GRANTS_MAX, parse};

use super::process::Program;

/// Files of one folder that are granted each by its own; more are granted with their folder.
const FILES_OF_FOLDER_MAX: usize = 8;
/// Comments of one kind.
const COMMENTS_MAX: usize = 32;
/// Bytes of a service's name here; a manifest allows a few more.
const NAME_BYTES_MAX: usize = 32;

/// Writes it; a file that is there is not replaced.
pub fn write(file: &Path, program: &Program, granted: &[pb::PathGrant], reply: &pb::WaitReply) -> Result<()> {
    let text = manifest(program, granted, reply)?;
    if let Err(faults) = parse(&file.display().to_string(), &text) {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        bail!("what was learned makes no manifest: {}", faults.join("; "));
    }
    let mut opened = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(file)
        .with_context(|| format!("writing what was learned to {}", file.display()))?;
    std::io::Write::write_all(&mut opened, text.as_bytes())
        .with_context(|| format!("writing what was learned to {}", file.display()))?;
    eprintln!("bailiwick: what it used is in {}; read it, then `bailiwick service apply` it", file.display());
    Ok(())
}

/// A service's name of what is left of a file's.
fn name_of(file: &Path) -> String {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    let name: String = stem.chars().map(plain).take(NAME_BYTES_MAX).collect();
    let name = name.trim_matches('_');
    match name.chars().next() {
        Some(first) if first.is_ascii_lowercase() => name.to_owned(),
        _ => format!("learned_{name}").trim_end_matches('_').to_owned(),
    }
}

/// A basic string of TOML takes every escape that JSON writes.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list<'a>(all: impl IntoIterator<Item = &'a String>) -> String {
    let all: Vec<String> = all.into_iter().map(|text| quoted(text)).collect();
    format!("[{}]", all.join(", "))
}

fn manifest(program: &Program, granted: &[pb::PathGrant], reply: &pb::WaitReply) -> Result<String> {
    let file = program.file.as_deref().context("an image is learned of by what it names, not by a run")?;
    let file = std::fs::canonicalize(file).with_context(|| format!("finding {}", file.display()))?;
    let image = file.to_str().with_context(|| format!("{} is not UTF-8", file.display()))?;
    let wanted = wanted(granted, &reply.used);
    let ended = reply.status.as_ref().and_then(|status| status.status.as_ref());
    let mut text = String::from(
        "# Learned from one run. It grants what that run used; what only another run would use is missing, and so is a file\n\
         # that was looked at and never opened.\n",
    );
    if reply.used_is_incomplete {
        text.push_str("# More was used than could be taken down: this is not all.\n");
    }
    if ended != Some(&Status::Code(0)) {
        text.push_str(
            "# The run did not end with 0: it may have stopped before it used all that it needs.\n",
        );
    }
    let name = name_of(&file);
    write!(
        text,
        "version = 1\n\n[service]\nname = {}\nversion = \"1.0.0\"\nservice_type = \"User\"\n\n",
        quoted(&name)
    )?;
    writeln!(text, "[program]\nimage = {}\nargs = {}", quoted(image), list(&program.args))?;
    let env: Vec<String> = program
        .env
        .iter()
        .filter(|(name, _)| *name != "TERM")
        .map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)))
        .collect();
    writeln!(text, "env = {{ {} }}", env.join(", "))?;
    if program.cwd != "/" {
        writeln!(text, "cwd = {}", quoted(&program.cwd))?;
    }
    text.push_str("# It ended by itself; leave this out for one that stays.\nruns = \"once\"\n");
    let fs: Vec<String> = wanted
        .grants
        .iter()
        // Said each time where it could be taken for the path's own end, which the program chose.
        .map(|(path, write)| match write {
            true => format!("{path}:rw"),
            false if path.ends_with(":rw") || path.ends_with(":ro") => format!("{path}:ro"),
            false => path.clone(),
        })
        .collect();
    writeln!(text, "fs = {}", list(&fs))?;
    comments(
        &mut text,
        "It changed these copy-on-write; the service is shown them read-only",
        &wanted.copied,
    );
    comments(
        &mut text,
        "It used these under another name than the host's, which a service cannot",
        &wanted.renamed,
    );
    comments(&mut text, "It used more than fits; these folders were granted as a whole", &wanted.whole);
    let refused = |connects: bool| {
        let all = reply
            .refused
            .iter()
            .filter(move |call| (call.call == "connect" && !call.target.starts_with('/')) == connects);
        all.map(|call| format!("{} {}", call.call, call.target)).collect::<BTreeSet<String>>()
    };
    comments(&mut text, "It was refused these, and is not granted them; `fs` would", &refused(false));
    comments(
        &mut text,
        "It was refused these connections; [sandbox] network = \"host\" would allow them",
        &refused(true),
    );
    Ok(text)
}

fn comments(text: &mut String, what: &str, all: &BTreeSet<String>) {
    if all.is_empty() {
        return;
    }
    text.push_str(&format!("# {what}:\n"));
    // A name may contain a line's end.
    all.iter().take(COMMENTS_MAX).for_each(|one| text.push_str(&format!("#   {}\n", quoted(one))));
    if all.len() > COMMENTS_MAX {
        text.push_str(&format!("#   and {} more\n", all.len() - COMMENTS_MAX));
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// By path; true: it is changed.
    grants: BTreeMap<String, bool>,
    copied: BTreeSet<String>,
    renamed: BTreeSet<String>,
    whole: BTreeSet<String>,
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || folder == "/")
}

/// What a service has to be granted to have what was used.
fn wanted(granted: &[pb::PathGrant], used: &[pb::UsedPath]) -> Wanted {
    let inside = |grant: &pb::PathGrant| {
        if grant.inside.is_empty() { grant.path.clone() } else { grant.inside.clone() }
    };
    let mut wanted = Wanted::default();
    for used in used {
        let path = used.path.as_str();
        let grant = granted
            .iter()
            .filter(|grant| is_below(path, &inside(grant)))
            .max_by_key(|grant| inside(grant).len());
        let writes = used.write || used.connect;
        match grant {
            Some(grant) if inside(grant) != grant.path => drop(wanted.renamed.insert(path.to_owned())),
            Some(grant) => {
                if writes && grant.copy_on_write {
                    wanted.copied.insert(path.to_owned());
                }
                let changes = writes && grant.writable;
                *wanted.grants.entry(path.to_owned()).or_default() |= changes;
            }
            // Shown to every program of `run` and not to every service; all else there is its own.
            None if is_below(path, "/etc")
                && path != "/etc"
                && !SYSTEM.iter().any(|shown| is_below(path, shown)) =>
            {
                wanted.grants.entry(path.to_owned()).or_default();
            }
            None => {}
        }
    }
    summarise(&mut wanted.grants, FILES_OF_FOLDER_MAX);
    if wanted.grants.len() > FS_GRANTS_MAX {
        let roots = granted.iter().filter(|grant| inside(grant) == grant.path);
        for grant in roots {
            let below = wanted.grants.iter().filter(|(path, _)| is_below(path, &grant.path));
            let below: Vec<bool> = below.map(|(_, changes)| *changes).collect();
            if !below.is_empty() {
                wanted.grants.retain(|path, _| !is_below(path, &grant.path));
                wanted.grants.insert(grant.path.clone(), below.contains(&true));
                wanted.whole.insert(grant.path.clone());
            }
        }
        summarise(&mut wanted.grants, 1);
    }
    wanted
}

/// Many files of one folder become that folder, and what a granted folder holds already is left out.
fn summarise(grants: &mut BTreeMap<String, bool>, most: usize) {
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    for (path, _) in grants.iter().filter(|(_, write)| !**write) {
        if let Some((folder, _)) =
            path.rsplit_once('/').filter(|(folder, _)| !folder.is_empty() && *folder != "/etc")
        {
            *folders.entry(folder.to_owned()).or_default() += 1;
        }
    }
    for (folder, _) in folders.into_iter().filter(|(_, files)| *files > most) {
        grants.entry(folder).or_default();
    }
    let all = grants.clone();
    let holds = |path: &str, write: bool| {
        all.iter().any(|(folder, writable)| folder != path && is_below(path, folder) && (*writable || !write))
    };
    grants.retain(|path, write| !holds(path, *write));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> pb::UsedPath {
        pb::UsedPath { path: path.to_owned(), read: true, ..Default::default() }
    }

    fn changed(path: &str) -> pb::UsedPath {
        pb::UsedPath { path: path.to_owned(), write: true, ..Default::default() }
    }

    fn grant(path: &str, writable: bool) -> pb::PathGrant {
        pb::PathGrant { path: path.to_owned(), writable, ..Default::default() }
    }

    fn grants(granted: &[pb::PathGrant], used: &[pb::UsedPath]) -> Vec<(String, bool)> {
        wanted(granted, used).grants.into_iter().collect()
    }

    #[test]
    fn what_was_used_is_granted_and_no_more_than_it_was() {
        let work = [grant("/work", true)];
        let used = [
            read("/work/a"),
            changed("/work/out"),
            read("/usr/lib/x.so"),
            read("/etc/ld.so.cache"),
            read("/tmp/own"),
        ];
        let expected = [("/work/a".to_owned(), false), ("/work/out".to_owned(), true)];
        assert_eq!(grants(&work, &used), expected);
        assert_eq!(
            grants(&[grant("/work", false)], &[changed("/work/out")]),
            [("/work/out".to_owned(), false)]
        );
        assert_eq!(grants(&[], &[read("/etc/mime.types")]), [("/etc/mime.types".to_owned(), false)]);
        assert_eq!(grants(&[], &[read("/etc"), read("/work/a")]), []);
    }

    #[test]
    fn many_files_of_a_folder_are_granted_with_it_and_what_it_holds_is_left_out() {
        let work = [grant("/work", true)];
        let few: Vec<_> = (0..FILES_OF_FOLDER_MAX).map(|n| read(&format!("/work/d/{n}"))).collect();
        assert_eq!(grants(&work, &few).len(), FILES_OF_FOLDER_MAX);
        let mut many: Vec<_> = (0..=FILES_OF_FOLDER_MAX).map(|n| read(&format!("/work/d/{n}"))).collect();
        many.push(changed("/work/d/log"));
        assert_eq!(grants(&work, &many), [("/work/d".to_owned(), false), ("/work/d/log".to_owned(), true)]);
        many.push(changed("/work/d"));
        assert_eq!(grants(&work, &many), [("/work/d".to_owned(), true)]);
    }

    #[test]
    fn more_than_a_manifest_takes_becomes_what_was_granted() {
        let used: Vec<_> = (0..=FS_GRANTS_MAX).map(|n| read(&format!("/work/{n}/file"))).collect();
        let whole = wanted(&[grant("/work", true)], &used);
        assert_eq!(whole.grants.into_iter().collect::<Vec<_>>(), [("/work".to_owned(), false)]);
        assert!(whole.whole.contains("/work"));
        assert_eq!(grants(&[grant("/work", true)], &used[1..]).len(), FS_GRANTS_MAX);
    }

    #[test]
    fn what_cannot_be_said_is_named() {
        let copied = pb::PathGrant { copy_on_write: true, ..grant("/work", false) };
        let renamed = pb::PathGrant { inside: "/data".to_owned(), ..grant("/host", true) };
        let found = wanted(&[copied, renamed], &[changed("/work/a"), read("/data/b")]);
        assert_eq!(found.grants.into_iter().collect::<Vec<_>>(), [("/work/a".to_owned(), false)]);
        assert!(found.copied.contains("/work/a") && found.renamed.contains("/data/b"));
    }

    #[test]
    fn names_of_files_become_names_of_services() {
        for (file, name) in [
            ("/usr/bin/python3.11", "python3"),
            ("/work/My Script.sh", "my_script"),
            ("/work/7zip", "learned_7zip"),
            ("/work/---", "learned"),
        ] {
            assert_eq!(name_of(Path::new(file)), name, "{file}");
        }
    }

    #[test]
    fn hostile_names_stay_in_their_strings() {
        let program = Program {
            name: "true".to_owned(),
            args: vec!["\"]\nuser = \"root".to_owned()],
            env: [("A B".to_owned(), "x\n#".to_owned())].into(),
            cwd: "/".to_owned(),
            file: Some("/bin/true".into()),
            paths: Vec::new(),
            root: None,
        };
        let refused = vec![pb::RefusedCall {
            call: "openat".to_owned(),
            target: "/a\nuser = \"root\"".to_owned(),
            ..Default::default()
        }];
        let used = vec![read("/work/\"]\nuser = \"root")];
        let reply = pb::WaitReply { refused, used, ..Default::default() };
        let text = manifest(&program, &[grant("/work", false)], &reply).unwrap();
        let loaded = parse("learned", &text);
        let manifest = loaded.map(|loaded| loaded.manifest);
        if let Ok(manifest) = manifest {
            assert!(manifest.program.unwrap().user.is_none(), "{text}");
        }
    }
}
